//! A client of the server: its socket, its doorbells, and what it has yet to be told.

use std::{
    collections::VecDeque,
    io::IoSlice,
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    cmsg_space,
    event::PollFlags,
    io::{Errno, Result},
    net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg},
};

use super::socket::Socket;
use crate::dibs::{
    eventfd::Eventfd,
    region::ivshmem::protocol::{MEMORY, MESSAGE, VERSION},
};

/// So long a client may take to read what it is told first. Later it may take its time: it uses the memory, and its slot
/// is given to another only when it cannot any more.
const PATIENCE: Duration = Duration::from_millis(if cfg!(test) { 500 } else { 10_000 });

/// After so long another attempt is made to send what the system, not the client, had no room for.
const RETRY: Duration = Duration::from_millis(50);

/// What goes along with a message.
#[derive(Debug)]
enum Enclosure {
    Memory(Arc<OwnedFd>),
    Bell(Arc<Eventfd>),
}

impl Enclosure {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Memory(fd) => fd.as_fd(),
            Self::Bell(bell) => bell.as_fd(),
        }
    }
}

#[derive(Debug)]
struct Message {
    value: i64,
    enclosure: Option<Enclosure>,
}

/// A client. It is told all that it will ever hear at once.
#[derive(Debug)]
pub(super) struct Client {
    socket: Socket,
    /// The doorbells of its slot.
    bells: Arc<[Arc<Eventfd>]>,
    outgoing: VecDeque<Message>,
    /// Bytes of the first message that are on their way.
    begun: usize,
    /// Until when it has to have read what it is told first.
    welcome: Option<Instant>,
    /// When to try again, if the system has no room.
    retry: Option<Instant>,
}

impl Client {
    /// A client that has these doorbells.
    pub(super) fn new(socket: Socket, bells: Arc<[Arc<Eventfd>]>, now: Instant) -> Self {
        Self {
            socket,
            bells,
            outgoing: VecDeque::new(),
            begun: 0,
            welcome: Some(now + PATIENCE),
            retry: None,
        }
    }

    /// Rings its first doorbell.
    pub(super) fn ring(&self) {
        if let Some(bell) = self.bells.first() {
            bell.ring();
        }
    }

    /// What a client hears first, but for the other clients.
    pub(super) fn introduce(&mut self, id: usize, memory: &Arc<OwnedFd>) {
        self.tell(VERSION, None);
        self.tell(number(id), None);
        self.tell(MEMORY, Some(Enclosure::Memory(memory.clone())));
    }

    /// The doorbells of a slot: another, or, at the end of what it hears, its own.
    pub(super) fn tell_bells(&mut self, id: usize, bells: &[Arc<Eventfd>]) {
        for bell in bells {
            self.tell(number(id), Some(Enclosure::Bell(bell.clone())));
        }
    }

    fn tell(&mut self, value: i64, enclosure: Option<Enclosure>) {
        self.outgoing.push_back(Message { value, enclosure });
    }

    /// Sends what the client takes without waiting.
    ///
    /// # Errors
    /// If the connection has ended.
    pub(super) fn flush(&mut self, now: Instant) -> Result<()> {
        self.retry = None;
        while let Some(message) = self.outgoing.front() {
            match send(self.socket.as_fd(), message, self.begun) {
                Ok(sent) => self.sent(sent),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // Too many descriptors are on their way, or there is no memory.
                Err(Errno::TOOMANYREFS | Errno::NOBUFS | Errno::NOMEM) => {
                    self.retry = Some(now + RETRY);
                    break;
                }
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    fn sent(&mut self, bytes: usize) {
        self.begun += bytes;
        if self.begun >= MESSAGE {
            self.begun = 0;
            self.outgoing.pop_front();
        }
    }

    /// What to wait for at the socket. A client has nothing to say, so that whatever comes from it is its end.
    pub(super) fn interest(&self) -> PollFlags {
        let wants_room = self.welcome.is_some() || !self.outgoing.is_empty();
        if wants_room && self.retry.is_none() { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN }
    }

    /// There is room in its socket: it has read all that was sent, but for a message or two.
    ///
    /// # Errors
    /// If the connection has ended.
    pub(super) fn has_room(&mut self, now: Instant) -> Result<()> {
        if self.outgoing.is_empty() {
            self.welcome = None;
        }
        self.flush(now)
    }

    /// When to come back to it without a cause.
    pub(super) fn due(&self) -> Option<Instant> {
        self.welcome.into_iter().chain(self.retry).min()
    }

    /// To be called when it is due.
    ///
    /// # Errors
    /// If the connection has ended, or the client has not read what it was told first.
    pub(super) fn tend(&mut self, now: Instant) -> Result<()> {
        if self.welcome.is_some_and(|until| until <= now) {
            return Err(Errno::TIMEDOUT);
        }
        if self.retry.is_some_and(|retry| retry <= now) { self.flush(now) } else { Ok(()) }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Sends a message, of which so many bytes have gone. The descriptor goes with the first.
fn send(socket: BorrowedFd<'_>, message: &Message, begun: usize) -> Result<usize> {
    let bytes = message.value.to_le_bytes();
    let rest = [IoSlice::new(bytes.get(begun..).unwrap_or_default())];
    let fds: Vec<_> = message.enclosure.iter().filter(|_| begun == 0).map(Enclosure::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(Errno::INVAL);
    }
    sendmsg(socket, &rest, &mut control, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
}

fn number(id: usize) -> i64 {
    i64::try_from(id).unwrap_or(i64::MAX)
}
