//! A link by a TAP device of Linux: the kernel at its other end is a host like any other.

use std::{
    fs::File,
    io::{self, Read, Write},
    task::{Context, Poll, ready},
};

use smoltcp::phy::Medium;
use tokio::io::{Interest, unix::AsyncFd};

use super::{
    Link,
    link::{Sink, device},
};
use crate::unix::tun::watch_tap;

/// Room for the header of Ethernet, a VLAN tag included.
const ETHERNET: usize = 18;

/// An Ethernet link through `/dev/net/tun`.
#[derive(Debug)]
pub struct Tap {
    file: AsyncFd<File>,
    medium: Medium,
    ip_mtu: usize,
    failed: Option<io::ErrorKind>,
}

impl Tap {
    /// Attaches to the TAP device of this name, or makes it; then it ends with this. `ip_mtu` is the MTU of the device, 1500
    /// unless it was changed.
    ///
    /// # Errors
    /// The system's; `PermissionDenied` without the capability `CAP_NET_ADMIN`, unless the device is there and belongs to
    /// this user.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn open(name: &str, ip_mtu: usize) -> io::Result<Self> {
        Ok(Self { file: watch_tap(name)?, medium: Medium::Ethernet, ip_mtu, failed: None })
    }

    fn next_frame(&mut self) -> Option<Vec<u8>> {
        let mut frame = vec![0; self.ip_mtu + ETHERNET];
        match self.file.try_io(Interest::READABLE, |mut file| file.read(&mut frame)) {
            Ok(n) => {
                frame.truncate(n);
                Some(frame)
            }
            Err(error) => {
                let is_passing = error.kind() == io::ErrorKind::WouldBlock;
                self.failed = self.failed.or((!is_passing).then(|| error.kind()));
                None
            }
        }
    }
}

impl Sink for Tap {
    fn send(&mut self, frame: Vec<u8>) {
        // A device that is down takes nothing; it may come up again.
        if let Err(error) = self.file.get_ref().write_all(&frame) {
            tracing::trace!(%error, "a frame was lost");
        }
    }
}

impl Link for Tap {
    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.failed {
            Some(kind) => Poll::Ready(Err(kind.into())),
            None => ready!(self.file.poll_read_ready(cx)).map(drop).into(),
        }
    }
}

device!(Tap);
