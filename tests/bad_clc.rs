//! Clients and servers that send broken CLC messages: an error with its reason, and the listener serves on.

mod common;

use std::{
    future::{Future, poll_fn},
    io::ErrorKind,
    pin::Pin,
    time::Duration,
};

use common::{config, in_time};
use proptest::prelude::*;
use smcd::{SmcListener, SmcStream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream},
};

const PROPOSAL: &str = include_str!("vectors/linux-7.3/proposal-v2-ueid.hex");
const NO_UEID: &str = include_str!("vectors/linux-7.3/proposal-v2-no-ueid.hex");
const DECLINE: &str = include_str!("vectors/linux-7.3/decline-v2-no-ueid.hex");

fn bytes(hex: &str) -> Vec<u8> {
    let hex = hex.trim();
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// What a listener answers to these first bytes. If the connection goes on as TCP, it is closed at its end.
async fn answer(listener: &SmcListener, sent: &[u8]) -> Vec<u8> {
    let client = async {
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        client.write_all(sent).await.unwrap();
        client.shutdown().await.unwrap();
        let mut got = Vec::new();
        // A reset is an answer too: the listener closed with bytes unread.
        let _ = client.read_to_end(&mut got).await;
        got
    };
    let serve = async {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    };
    in_time(async {
        tokio::select! {
            got = client => got,
            () = serve => unreachable!("serves for ever"),
        }
    })
    .await
}

async fn still_serves(listener: &SmcListener) {
    let client_config = config();
    let addr = listener.local_addr().unwrap();
    let connected = async { SmcStream::connect_with(addr, &client_config).await.unwrap() };
    let accepted = async {
        loop {
            // Connections that fell back come out too.
            let (stream, _) = listener.accept().await.unwrap();
            if stream.transport().is_smcd() {
                return stream;
            }
        }
    };
    let (client, _server) = in_time(async { tokio::join!(connected, accepted) }).await;
    assert!(client.transport().is_smcd());
}

async fn listener() -> SmcListener {
    SmcListener::bind_with("127.0.0.1:0", config()).await.unwrap()
}

#[tokio::test]
async fn broken_proposals_are_closed_without_an_answer() {
    let listener = listener().await;
    let good = bytes(PROPOSAL);
    let with = |at: usize, value: u8| {
        let mut bad = good.clone();
        bad[at] = value;
        bad
    };
    let cases = [
        ("truncated", good[..100].to_vec()),
        ("header only", good[..8].to_vec()),
        ("length too small", with(6, 7)),
        ("length too large", with(5, 0xff)),
        ("length one more", with(6, good[6] + 1)),
        ("version 0", with(7, 0x06)),
        ("type 0", with(4, 0)),
        ("an Accept out of turn", with(4, 2)),
        ("wrong trailer", with(good.len() - 1, 0)),
        ("too many EIDs", with(80, 9)),
        ("too many GIDs", with(81, 9)),
    ];
    for (what, bad) in cases {
        assert_eq!(answer(&listener, &bad).await, b"", "{what}");
    }
    still_serves(&listener).await;
}

#[tokio::test]
async fn a_proposal_that_cannot_be_met_is_declined_and_goes_on_as_tcp() {
    let listener = listener().await;
    // Linux' answer to a Proposal without any EID, to the byte, but for the operating system.
    assert_eq!(answer(&listener, &bytes(NO_UEID)).await, bytes(DECLINE));
    // A GID that nobody has, and a UEID that is not ours.
    let got = answer(&listener, &bytes(PROPOSAL)).await;
    assert_eq!((got.len(), got[4]), (44, 4));
    still_serves(&listener).await;
}

#[tokio::test]
async fn a_client_gets_an_error_with_its_reason_for_a_broken_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let cases = [
        (&b"HTTP/1.1 400 Bad Request"[..], ErrorKind::InvalidData),
        (b"\xe2\xd4\xc3\xd9", ErrorKind::ConnectionReset),
        (b"", ErrorKind::ConnectionReset),
        (b"\xe2\xd4\xc3\xc4\x02\x00\x09\x21\x00", ErrorKind::InvalidData),
    ];
    for (sent, kind) in cases {
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut proposal = [0; 224];
            stream.read_exact(&mut proposal).await.unwrap();
            stream.write_all(sent).await.unwrap();
        };
        let client_config = config();
        let (client, ()) =
            in_time(async { tokio::join!(SmcStream::connect_with(addr, &client_config), serve) }).await;
        let error = client.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.get_ref().is_some(), "without a reason");
    }
}

/// A client of this listener whose Confirm is lost, and its TCP connection at the other end. The server gives up, without
/// ever having had anything of the client's but its name.
async fn stranded_client(listener: &SmcListener) -> (SmcStream, TcpStream) {
    let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = relay.local_addr().unwrap();
    let relayed = async {
        let (mut from, _) = relay.accept().await.unwrap();
        let mut to = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut proposal, mut accept, mut confirm) = ([0; 224], [0; 130], [0; 130]);
        from.read_exact(&mut proposal).await.unwrap();
        to.write_all(&proposal).await.unwrap();
        to.read_exact(&mut accept).await.unwrap();
        from.write_all(&accept).await.unwrap();
        from.read_exact(&mut confirm).await.unwrap();
        from
    };
    let client_config = config();
    let (client, socket) =
        in_time(async { tokio::join!(SmcStream::connect_with(addr, &client_config), relayed) }).await;
    let client = client.unwrap();
    assert!(client.transport().is_smcd());
    (client, socket)
}

#[tokio::test]
async fn a_client_whose_confirm_is_lost_sees_the_end() {
    let listener = listener().await;
    let (mut client, socket) = stranded_client(&listener).await;
    drop(socket);
    in_time(client.readable()).await.unwrap();
    let error = in_time(client.read_u8()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

type Wait = fn(&mut SmcStream) -> Pin<Box<dyn Future<Output = ()> + '_>>;

/// How a task waits for room, or for data.
const WAYS: [Wait; 6] = [
    |stream| Box::pin(async { assert!(stream.write_all(&[0; 10_000]).await.is_err()) }),
    |stream| Box::pin(async { stream.writable().await.unwrap() }),
    |stream| Box::pin(async { poll_fn(|cx| stream.poll_write_ready(cx)).await.unwrap() }),
    |stream| Box::pin(async { assert!(stream.read_u8().await.is_err()) }),
    |stream| Box::pin(async { poll_fn(|cx| stream.poll_read_ready(cx)).await.unwrap() }),
    |stream| {
        Box::pin(async {
            let mut buf = [0];
            let peeked = poll_fn(|cx| stream.poll_peek(cx, &mut ReadBuf::new(&mut buf)));
            assert!(peeked.await.is_err());
        })
    },
];

/// Whichever way a task waits: by the end of the server, or a Decline, which may come before it waits, or while it does.
#[tokio::test]
async fn a_client_whose_confirm_is_lost_waits_for_nothing() {
    let listener = listener().await;
    for (wait, declined, late) in WAYS
        .into_iter()
        .flat_map(|wait| [(wait, false, false), (wait, false, true), (wait, true, false), (wait, true, true)])
    {
        let (mut client, mut socket) = stranded_client(&listener).await;
        while client.try_write(&[0; 100_000]).is_ok() {}
        let end = async {
            if late {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            if declined { socket.write_all(&bytes(DECLINE)).await.unwrap() } else { drop(socket) }
        };
        in_time(async { tokio::join!(wait(&mut client), end) }).await;
        assert_eq!(client.try_write(&[0]).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn a_reader_and_a_writer_both_see_that_the_server_has_given_up() {
    let listener = listener().await;
    let (client, socket) = stranded_client(&listener).await;
    let (mut read, mut write) = client.into_split();
    let reader = tokio::spawn(async move { read.read_u8().await });
    let writer = tokio::spawn(async move { write.write_all(&vec![0; 10_000_000]).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    drop(socket);
    for error in [in_time(reader).await.unwrap().unwrap_err(), in_time(writer).await.unwrap().unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_first_bytes_stop_a_listener(
        start in prop_oneof![Just(bytes(PROPOSAL)), Just(bytes(DECLINE)), Just(vec![0xe2, 0xd4, 0xc3, 0xd9])],
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        tail in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let mut sent = start;
        for (at, value) in changes {
            let at = at.index(sent.len());
            sent[at] = value;
        }
        sent.extend(tail);
        common::block_on(async {
            let listener = listener().await;
            answer(&listener, &sent).await;
            still_serves(&listener).await;
        });
    }
}

/// Anybody can put the GID of another process into a Proposal, and can say that link groups are out of sync.
#[tokio::test]
async fn an_impostor_that_declines_out_of_sync_ends_no_connection() {
    let listener = listener().await;
    let addr = listener.local_addr().unwrap();
    let victim_config = config();
    let victim = in_time(SmcStream::connect_with(addr, &victim_config)).await.unwrap();
    let (mut server, _) = in_time(listener.accept()).await.unwrap();
    let smcd::Transport::Smcd { gid, chid, .. } = victim.transport() else { panic!("not SMC-D") };

    let mut proposal = bytes(PROPOSAL);
    let ueid = *b"SMCD.USERSPACE                  ";
    proposal[120..152].copy_from_slice(&ueid);
    proposal[200..208].copy_from_slice(&gid.to_bytes()[..8]);
    proposal[208..210].copy_from_slice(&chid.0.to_be_bytes());
    proposal[210..218].copy_from_slice(&gid.to_bytes()[8..]);
    proposal[218..220].copy_from_slice(&chid.0.to_be_bytes());
    let mut impostor = TcpStream::connect(addr).await.unwrap();
    impostor.write_all(&proposal).await.unwrap();
    let mut accept = [0; 78];
    in_time(impostor.read_exact(&mut accept)).await.unwrap();
    assert_eq!((accept[4], accept[7]), (2, 0x21), "an Accept in the group of the victim");
    let mut decline = bytes(DECLINE);
    decline[7] = 0x28;
    decline[16..20].copy_from_slice(&[4, 0, 0, 0]);
    impostor.write_all(&decline).await.unwrap();
    let (fallen_back, _) = in_time(listener.accept()).await.unwrap();
    assert!(!fallen_back.transport().is_smcd());

    victim.try_write(b"unharmed").unwrap();
    let mut got = [0; 8];
    in_time(server.read_exact(&mut got)).await.unwrap();
    // And the next connection makes first contact, which both sides can always do.
    let next = in_time(SmcStream::connect_with(addr, &victim_config)).await.unwrap();
    assert!(next.transport().is_smcd());
}
