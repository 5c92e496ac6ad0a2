//! Links to a virtual machine, by the network backends of QEMU that use unix sockets.

mod deframer;

use std::{
    collections::VecDeque,
    io,
    path::Path,
    task::{Context, Poll},
};

use smoltcp::phy::Medium;
use tokio::net::{UnixDatagram, UnixStream};

use self::deframer::{Deframer, MAX_FRAME};
use super::{
    Link,
    link::{Sink, device},
};

/// The MTU of a guest, unless it is told otherwise.
const IP_MTU: usize = 1500;

/// Bytes that may wait for QEMU to take them. What comes on top is lost.
const WAITING: usize = 256 * 1024;

/// A link to `-netdev stream,addr.type=unix,...`: Ethernet frames, each behind its length.
#[derive(Debug)]
pub struct QemuStream {
    socket: UnixStream,
    incoming: Deframer,
    /// What QEMU has not taken yet.
    outgoing: Vec<u8>,
    medium: Medium,
    ip_mtu: usize,
    failed: Option<io::ErrorKind>,
}

impl QemuStream {
    /// Connects to QEMU, which listens on `path` (`server=on`).
    ///
    /// # Errors
    /// The system's.
    pub async fn connect(path: impl AsRef<Path>) -> io::Result<Self> {
        Ok(Self::new(UnixStream::connect(path).await?))
    }

    /// A link over a connected socket; for instance one that QEMU has connected to (`server=off`).
    pub fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            incoming: Deframer::default(),
            outgoing: Vec::new(),
            medium: Medium::Ethernet,
            ip_mtu: IP_MTU,
            failed: None,
        }
    }

    /// The next whole frame, as far as there is one.
    fn next_frame(&mut self) -> Option<Vec<u8>> {
        let mut bytes = [0; 16 * 1024];
        loop {
            match self.incoming.next_frame() {
                Ok(Some(frame)) => return Some(frame),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%error, "QEMU's frames are out of step");
                    self.failed = Some(io::ErrorKind::InvalidData);
                }
            }
            if self.failed.is_some() {
                return None;
            }
            match self.socket.try_read(&mut bytes) {
                Ok(0) => self.failed = Some(io::ErrorKind::UnexpectedEof),
                Ok(n) => self.incoming.push(bytes.get(..n).unwrap_or(&bytes)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) => self.failed = Some(error.kind()),
            }
        }
    }

    /// Hands on what QEMU takes.
    fn flush(&mut self) {
        while !self.outgoing.is_empty() {
            match self.socket.try_write(&self.outgoing) {
                Ok(n) => drop(self.outgoing.drain(..n)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    self.outgoing.clear();
                    self.failed = Some(error.kind());
                }
            }
        }
    }
}

impl Sink for QemuStream {
    fn send(&mut self, frame: Vec<u8>) {
        // Only whole frames are lost: the other end could not tell where the next one begins.
        if let Ok(len) = u32::try_from(frame.len())
            && self.outgoing.len() < WAITING
        {
            self.outgoing.extend(len.to_be_bytes());
            self.outgoing.extend(frame);
        }
        self.flush();
    }
}

impl Link for QemuStream {
    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.failed.is_none() && !self.outgoing.is_empty() {
            match self.socket.poll_write_ready(cx)? {
                Poll::Ready(()) => self.flush(),
                Poll::Pending => break,
            }
        }
        match self.failed {
            Some(kind) => Poll::Ready(Err(kind.into())),
            None => self.socket.poll_read_ready(cx),
        }
    }
}

device!(QemuStream);

/// Datagrams that may wait for the socket to take them. What comes on top is lost.
const DATAGRAMS_WAITING: usize = 256;

/// A link to `-netdev dgram,local.type=unix,...,remote.type=unix,...`: each datagram an Ethernet frame.
#[derive(Debug)]
pub struct QemuDgram {
    socket: UnixDatagram,
    /// What the socket has not taken yet: Linux queues no more than `net.unix.max_dgram_qlen`, ten by default, which is
    /// less than a window.
    outgoing: VecDeque<Vec<u8>>,
    medium: Medium,
    ip_mtu: usize,
    failed: Option<io::ErrorKind>,
}

impl QemuDgram {
    /// Binds `local`, which is QEMU's remote, and connects to `remote`, which QEMU has bound.
    ///
    /// # Errors
    /// The system's.
    pub fn connect(local: impl AsRef<Path>, remote: impl AsRef<Path>) -> io::Result<Self> {
        let socket = UnixDatagram::bind(local)?;
        socket.connect(remote)?;
        Ok(Self::new(socket))
    }

    /// A link over a connected socket.
    pub fn new(socket: UnixDatagram) -> Self {
        Self { socket, outgoing: VecDeque::new(), medium: Medium::Ethernet, ip_mtu: IP_MTU, failed: None }
    }

    fn next_frame(&mut self) -> Option<Vec<u8>> {
        let mut frame = vec![0; MAX_FRAME];
        match self.socket.try_recv(&mut frame) {
            Ok(n) => {
                frame.truncate(n);
                Some(frame)
            }
            Err(error) => {
                // The other end may be gone for a while, and come back.
                let is_passing =
                    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionReset);
                self.failed = self.failed.or((!is_passing).then(|| error.kind()));
                None
            }
        }
    }

    /// Hands on what the socket takes.
    fn flush(&mut self) {
        while let Some(frame) = self.outgoing.front() {
            match self.socket.try_send(frame) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // As above.
                Err(error) => tracing::trace!(%error, "a frame was lost"),
            }
            self.outgoing.pop_front();
        }
    }
}

impl Sink for QemuDgram {
    fn send(&mut self, frame: Vec<u8>) {
        if self.outgoing.len() < DATAGRAMS_WAITING {
            self.outgoing.push_back(frame);
        }
        self.flush();
    }
}

impl Link for QemuDgram {
    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.outgoing.is_empty() {
            match self.socket.poll_send_ready(cx)? {
                Poll::Ready(()) => self.flush(),
                Poll::Pending => break,
            }
        }
        match self.failed {
            Some(kind) => Poll::Ready(Err(kind.into())),
            None => self.socket.poll_recv_ready(cx),
        }
    }
}

device!(QemuDgram);
