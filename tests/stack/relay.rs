//! A host between client and server that passes on bytes, and at a given one begins to behave badly. So each side meets
//! a peer that is silent, slow, or gone at each step of the handshake, while the other side is real.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use smcd::tcp_fallback::stack::{
    Endpoint, StackListener, StackStream, SynOption,
    memory::{self, Direct},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split},
    time::sleep,
};

use crate::harness::{host, v4};

/// What the relay does from some byte on, in one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Then {
    /// Passes nothing on any more.
    Silence,
    /// Drops both connections.
    HangUp,
    /// Ends the stream in this direction.
    End,
    /// Waits once, then goes on.
    Pause(Duration),
    /// Passes on one byte at a time, so long apart.
    Dribble(Duration),
}

/// The bytes that misbehaviour concerns.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stream {
    /// Those of the client.
    Client,
    /// Those of the server.
    Server,
}

/// When the relay begins to behave badly, and how. Only on the first connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) stream: Stream,
    pub(crate) after: usize,
    pub(crate) then: Then,
}

/// Client and server with a relay between them. Their addresses are those of [`Net`](crate::harness::Net).
pub(crate) struct Relayed {
    pub(crate) client: Endpoint,
    pub(crate) server: Endpoint,
    /// Connections so far.
    pub(crate) connections: Arc<AtomicUsize>,
}

impl Relayed {
    pub(crate) fn new(fault: Fault) -> Self {
        let (one, two) = memory::pair(Direct);
        let (three, four) = memory::pair(Direct);
        let endpoint = |link, number| Endpoint::new(link, &host(number)).unwrap();
        let (client, front) = (endpoint(one, 1), endpoint(two, 2));
        let (back, server) = (endpoint(three, 1), endpoint(four, 2));
        let connections = Arc::new(AtomicUsize::new(0));
        let listener = front.listen(v4(2), 4, SynOption::Offer).unwrap();
        tokio::spawn(relay(listener, back, fault, connections.clone()));
        Self { client, server, connections }
    }
}

async fn relay(listener: StackListener, back: Endpoint, fault: Fault, connections: Arc<AtomicUsize>) {
    loop {
        let from_client = listener.accept().await.unwrap();
        let option = if from_client.smc_signalled() { SynOption::Offer } else { SynOption::Omit };
        let to_server = back.connect(v4(2), option).await.unwrap();
        let fault = (connections.fetch_add(1, Ordering::Relaxed) == 0).then_some(fault);
        tokio::spawn(pass_both(from_client, to_server, fault));
    }
}

async fn pass_both(client: StackStream, server: StackStream, fault: Option<Fault>) {
    let (client_read, client_write) = split(client);
    let (server_read, server_write) = split(server);
    let of = |stream| fault.filter(|fault| fault.stream == stream).map(|fault| (fault.after, fault.then));
    // The first failure drops both.
    let _ = tokio::try_join!(
        pass(client_read, server_write, of(Stream::Client)),
        pass(server_read, client_write, of(Stream::Server)),
    );
}

async fn pass(
    mut from: ReadHalf<StackStream>,
    mut to: WriteHalf<StackStream>,
    fault: Option<(usize, Then)>,
) -> io::Result<()> {
    let mut passed = 0;
    let mut paused = false;
    loop {
        let room = match fault {
            Some((after, then)) if passed >= after => match then {
                Then::Silence => std::future::pending().await,
                Then::HangUp => return Err(io::ErrorKind::BrokenPipe.into()),
                Then::End => {
                    to.shutdown().await?;
                    std::future::pending().await
                }
                Then::Pause(pause) => {
                    if !paused {
                        sleep(pause).await;
                        paused = true;
                    }
                    usize::MAX
                }
                Then::Dribble(gap) => {
                    sleep(gap).await;
                    1
                }
            },
            Some((after, _)) => after - passed,
            None => usize::MAX,
        };
        let mut bytes = [0; 4096];
        let room = room.min(bytes.len());
        let n = from.read(&mut bytes[..room]).await?;
        if n == 0 {
            to.shutdown().await?;
            return Ok(());
        }
        to.write_all(&bytes[..n]).await?;
        passed += n;
    }
}
