//! Moves CLC messages over a stream of tokio.

use std::time::Instant;

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::{error::Elapsed, timeout_at},
};

use super::{ExchangeError, take_in};
use crate::clc::wire::{Assembler, Message};

/// Reads one message, and not a byte more: what follows a Decline belongs to the application.
///
/// Of an Accept or Confirm that is longer than any known, the tail is read and forgotten.
///
/// # Errors
///
/// [`ExchangeError`]; the stream is then of no use to CLC. After
/// [`DecodeError::Eyecatcher`](crate::clc::wire::DecodeError::Eyecatcher), 8 bytes have been read that were not CLC.
///
/// # Cancel safety
///
/// Not cancel safe, see the [module](super).
pub async fn read_message(
    io: &mut (impl AsyncRead + Unpin),
    deadline: Instant,
) -> Result<Message, ExchangeError> {
    let mut assembler = Assembler::new();
    let mut buf = [0; Assembler::MAX_READ];
    loop {
        let missing = assembler.missing();
        let room = buf.get_mut(..missing).unwrap_or_default();
        let read = timeout_at(deadline.into(), io.read(room)).await;
        let taken = assembler.taken();
        let n = read.map_err(|_: Elapsed| ExchangeError::TimedOut { taken })??;
        if let Some(message) = take_in(&mut assembler, buf.get(..n).unwrap_or_default())? {
            return Ok(message);
        }
    }
}

/// Writes one message in one piece, and flushes it.
///
/// # Errors
///
/// [`ExchangeError::TimedOut`] or [`ExchangeError::Io`]; part of the message may have been written.
///
/// # Cancel safety
///
/// Not cancel safe, see the [module](super).
pub async fn write_message(
    io: &mut (impl AsyncWrite + Unpin),
    message: &Message,
    deadline: Instant,
) -> Result<(), ExchangeError> {
    let bytes = message.to_bytes();
    let write = async {
        io.write_all(&bytes).await?;
        io.flush().await
    };
    let written = timeout_at(deadline.into(), write).await;
    Ok(written.map_err(|_: Elapsed| ExchangeError::TimedOut { taken: 0 })??)
}

#[cfg(test)]
mod tests {
    use std::{io, time::Duration};

    use tokio::io::duplex;

    use super::*;
    use crate::clc::{
        DeclineCode,
        wire::{Decline, DecodeError, Version},
    };

    fn decline() -> Message {
        Decline::new(Version::V2, DeclineCode::NO_UEID).into()
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(6)
    }

    #[tokio::test]
    async fn byte_after_a_decline_is_left_for_the_application() {
        for capacity in [1, 7, 1024] {
            let (mut client, mut server) = duplex(capacity);
            let send = async {
                write_message(&mut client, &decline(), soon()).await.unwrap();
                client.write_all(b"application").await.unwrap();
                drop(client);
            };
            let receive = async {
                assert_eq!(read_message(&mut server, soon()).await.unwrap(), decline());
                let mut rest = String::new();
                server.read_to_string(&mut rest).await.unwrap();
                assert_eq!(rest, "application");
            };
            tokio::join!(send, receive);
        }
    }

    #[tokio::test]
    async fn tail_of_an_overlong_confirm_is_discarded() {
        let mut bytes = vec![0; 40_000];
        bytes[..8].copy_from_slice(&[0xe2, 0xd4, 0xc3, 0xc4, 3, 0x9c, 0x3f, 0x21]);
        let mut stream = bytes.as_slice();
        let message = read_message(&mut stream, soon()).await.unwrap();
        assert!(matches!(message, Message::Confirm(_)));
        assert_eq!(stream.len(), 1);
    }

    #[tokio::test]
    async fn closed_before_and_in_the_middle_of_a_message() {
        let bytes = decline().to_bytes();
        for len in 0..bytes.len() {
            let error = read_message(&mut &bytes[..len], soon()).await.unwrap_err();
            match error {
                ExchangeError::Closed => assert_eq!(len, 0),
                ExchangeError::ClosedMidMessage { taken } => assert_eq!(taken, len),
                other => panic!("{other}"),
            }
        }
    }

    #[tokio::test]
    async fn other_protocols_are_decode_errors() {
        let error = read_message(&mut b"GET / HTTP/1.1\r\n".as_slice(), soon()).await.unwrap_err();
        assert!(matches!(error, ExchangeError::Decode(DecodeError::Eyecatcher(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn silence_times_out() {
        let (mut client, mut server) = duplex(4);
        let error = read_message(&mut client, soon()).await.unwrap_err();
        assert!(matches!(error, ExchangeError::TimedOut { taken: 0 }));
        server.write_all(&[0xe2, 0xd4]).await.unwrap();
        let error = read_message(&mut client, soon()).await.unwrap_err();
        assert!(matches!(error, ExchangeError::TimedOut { taken: 2 }));
        let error = write_message(&mut client, &decline(), soon()).await.unwrap_err();
        assert!(matches!(error, ExchangeError::TimedOut { .. }));
    }

    #[tokio::test]
    async fn failure_of_the_stream_is_passed_on() {
        let (mut client, server) = duplex(4);
        drop(server);
        let error = write_message(&mut client, &decline(), soon()).await.unwrap_err();
        assert!(matches!(error, ExchangeError::Io(e) if e.kind() == io::ErrorKind::BrokenPipe));
    }
}
