//! The connection to a server: a command, and its answer.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    cmsg_space,
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    net::{
        AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, Shutdown,
        SocketAddrUnix, SocketFlags, SocketType, connect, recv, sendmsg, shutdown, socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
};

use super::message::{HEAD, Head};

/// So long a server may take for a command, from its first byte to the last of the answer. It takes microseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// A connection. One that has failed stays so.
#[derive(Debug)]
pub(super) struct Channel {
    socket: UnixStream,
    last_id: u16,
    is_broken: bool,
}

impl Channel {
    /// Connects to the server that listens at this path.
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
        // A server that takes no more clients is not waited for any longer either.
        set_socket_timeout(&socket, Timeout::Send, Some(PATIENCE))?;
        connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self { socket: socket.into(), last_id: 0, is_broken: false })
    }

    /// Another descriptor of the connection, which hangs up with it.
    pub(super) fn try_clone(&self) -> io::Result<UnixStream> {
        self.socket.try_clone()
    }

    /// Gives a command, and waits for the answer: what follows its head.
    ///
    /// # Errors
    /// That of the server, which has refused it; or of the connection, which is of no more use then.
    pub(super) fn call(&mut self, code: u16, body: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<Vec<u8>> {
        if self.is_broken {
            return Err(Errno::PIPE.into());
        }
        let answered = self.exchange(code, body, fd).inspect_err(|_| {
            self.is_broken = true;
            let _ = shutdown(&self.socket, Shutdown::Both);
        });
        let (head, answer) = answered?;
        match head.failure() {
            None => Ok(answer),
            Some(0) => Err(Errno::IO.into()),
            Some(errno) => Err(io::Error::from_raw_os_error(errno)),
        }
    }

    fn exchange(
        &mut self,
        code: u16,
        body: &[u8],
        fd: Option<BorrowedFd<'_>>,
    ) -> io::Result<(Head, Vec<u8>)> {
        // For all of it: a server that dribbles would be waited for as often as it does.
        let until = Instant::now() + PATIENCE;
        self.last_id = self.last_id.wrapping_add(1);
        let id = self.last_id;
        let len = u32::try_from(HEAD + body.len()).map_err(|_| Errno::MSGSIZE)?;
        let head = Head { id, code, len, flags: 0, error: 0 }.emit();
        self.send(&head, body, fd, until)?;
        let mut head = [0; HEAD];
        self.wait(PollFlags::IN, until)?;
        self.receive(&mut head, until)?;
        let head = Head::parse(head);
        let mut answer = vec![0; head.rest(id, code).ok_or(io::ErrorKind::InvalidData)?];
        self.receive(&mut answer, until)?;
        Ok((head, answer))
    }

    fn send(&self, head: &[u8], body: &[u8], fd: Option<BorrowedFd<'_>>, until: Instant) -> io::Result<()> {
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let (fds, mut sent) = (fd.map(|fd| [fd]), 0);
        while sent < head.len() + body.len() {
            let mut ancillary = SendAncillaryBuffer::new(&mut space);
            // They go with the first byte.
            if let Some(fds) = fds.as_ref().filter(|_| sent == 0) {
                ancillary.push(SendAncillaryMessage::ScmRights(fds));
            }
            let rest = [
                IoSlice::new(head.get(sent..).unwrap_or_default()),
                IoSlice::new(body.get(sent.saturating_sub(head.len())..).unwrap_or_default()),
            ];
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match sendmsg(&self.socket, &rest, &mut ancillary, flags) {
                Ok(n) => sent += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(PollFlags::OUT, until)?,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn receive(&self, out: &mut [u8], until: Instant) -> io::Result<()> {
        let mut got = 0;
        while let Some(rest) = out.get_mut(got..).filter(|rest| !rest.is_empty()) {
            // No descriptors are expected, and so none are taken.
            match recv(&self.socket, rest, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((n, _)) => got += n,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait(PollFlags::IN, until)?,
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    /// Waits until more can be sent, or received.
    fn wait(&self, events: PollFlags, until: Instant) -> io::Result<()> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            // Of what can be had at once there may be little at a time, too.
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let left = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
            match poll(&mut [PollFd::new(&self.socket, events)], Some(&left)) {
                Ok(0) | Err(Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
