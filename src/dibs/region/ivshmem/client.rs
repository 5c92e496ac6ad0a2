//! A process of the host as a client of an ivshmem server.

use std::{
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::unix::net::UnixStream,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rustix::{
    cmsg_space,
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{SealFlags, fcntl_get_seals, fstat, fstatfs},
    io::{Errno, retry_on_intr},
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, SocketFlags,
        SocketType, connect, recvmsg, socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
};

use super::{
    connections,
    protocol::{Deframer, Listener, News, ProtocolError},
};
use crate::{
    dibs::{
        DeviceError, Memory,
        eventfd::Eventfd,
        region::{
            Region, RegionError,
            attachment::Attachment,
            device::Manner,
            file::geometry_of,
            layout::{Liveness, MAX_SLOTS},
        },
    },
    unix::{Handed, closer},
};

/// So long the server may take to say all that a client needs.
const PATIENCE: Duration = Duration::from_secs(5);

/// Most bytes of a region, so that nothing overflows; far more than any machine has.
const MAX_BYTES: u64 = 1 << 46;

/// File system of memory whose pages are there when they are touched.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Why a server's region cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The server's socket cannot be reached.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// The server closed the connection. It does so when it has no number left.
    #[error("the server has no room for another client")]
    Refused,
    /// The server did not say in time what a client needs to know.
    #[error("the server does not answer")]
    NoAnswer,
    /// The server does not speak the protocol of ivshmem.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// The memory is not memory that keeps its size (a sealed memfd).
    #[error("the server's memory is not sealed against shrinking")]
    Memory,
    /// A doorbell is not an eventfd.
    #[error("a doorbell of the server is not an eventfd")]
    Bell,
    /// What the server hands out is a region for endpoints that have no server.
    #[error("the region is none of a server")]
    NotOfServer,
    /// The endpoint cannot be in the region.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The memory cannot be mapped.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A system call failed.
    #[error(transparent)]
    System(#[from] io::Error),
}

impl From<Errno> for ConnectError {
    fn from(errno: Errno) -> Self {
        Self::System(errno.into())
    }
}

impl Region {
    /// Joins the region of a server that listens at this path, such as [`FabricServer`](super::FabricServer). The slot is the
    /// number that the server gives.
    ///
    /// When the server goes, nobody can be reached by this endpoint any more, and its connections end.
    ///
    /// # Errors
    /// If there is no server, it has no room, or what it hands out is no region of a server.
    pub fn connect(path: impl AsRef<Path>) -> Result<Self, ConnectError> {
        let client = IvshmemClient::connect(path.as_ref())?;
        let geometry = geometry_of(&client.memory)?;
        if geometry.liveness() != Liveness::Server {
            return Err(ConnectError::NotOfServer);
        }
        if client.id >= geometry.slots() {
            return Err(RegionError::NoSuchSlot(client.id).into());
        }
        Ok(Self::join(Arc::new(client), geometry, Manner::Mapping)?)
    }
}

/// What ended a wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Woken {
    /// The own doorbell was rung, or the server had something to say.
    Rung,
    /// By [`Attachment::wake`].
    Called,
    /// The time is over.
    TimedOut,
}

/// A connection to a server, and what came by it.
///
/// Once the server has gone nobody can tell who is there, and everybody is taken for gone.
#[derive(Debug)]
pub(crate) struct IvshmemClient {
    memory: Arc<Memory>,
    id: usize,
    /// Rung by others.
    own: Eventfd,
    /// Rung by [`Attachment::wake`].
    call: Eventfd,
    bells: Mutex<Bells>,
    line: Mutex<Line>,
    is_cut: AtomicBool,
}

/// The doorbells of the others.
#[derive(Debug)]
struct Bells {
    /// Vector 0 of each.
    first: [Option<Arc<Eventfd>>; MAX_SLOTS],
    /// A bit for each that was to be rung and has no bell yet: the region may tell of it before the server does.
    owed: u64,
}

impl Bells {
    fn set(&mut self, peer: usize, bell: Option<Eventfd>) {
        let bit = 1u64 << peer;
        if let Some(bell) = bell.as_ref().filter(|_| self.owed & bit != 0) {
            bell.ring();
        }
        self.owed &= !bit;
        if let Some(place) = self.first.get_mut(peer) {
            *place = bell.map(Arc::new);
        }
    }

    /// The bell of this client, which is rung as soon as it comes if it is not there yet.
    fn get(&mut self, peer: usize) -> Option<Arc<Eventfd>> {
        let bell = self.first.get(peer)?.clone();
        self.owed |= u64::from(bell.is_none()) << peer;
        bell
    }
}

/// The connection to the server.
#[derive(Debug)]
struct Line {
    socket: UnixStream,
    deframer: Deframer<Handed>,
    listener: Listener,
}

/// What has been found out so far.
#[derive(Default)]
struct Introduction {
    memory: Option<Handed>,
    own: Option<Eventfd>,
    bells: Vec<(usize, Eventfd)>,
}

/// A connection to who listens at this path. One that does not accept any has to begin to within `patience`.
fn connected(path: &Path, patience: Duration) -> Result<UnixStream, ConnectError> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // A connect waits no longer than a send.
    set_socket_timeout(&socket, Timeout::Send, Some(patience))?;
    let address = SocketAddrUnix::new(path).map_err(|errno| ConnectError::Connect(errno.into()))?;
    match retry_on_intr(|| connect(&socket, &address)) {
        Ok(()) => Ok(socket.into()),
        Err(Errno::AGAIN) => Err(ConnectError::NoAnswer),
        Err(errno) => Err(ConnectError::Connect(errno.into())),
    }
}

impl IvshmemClient {
    /// Connects to the server that listens at this path.
    ///
    /// # Errors
    /// If there is none, it has no room, or it does not hand out a region.
    pub(crate) fn connect(path: &Path) -> Result<Self, ConnectError> {
        let until = Instant::now() + PATIENCE;
        Self::over(connected(path, PATIENCE)?, until)
    }

    /// Over a connection to a server, which has to say everything until then.
    fn over(socket: UnixStream, until: Instant) -> Result<Self, ConnectError> {
        socket.set_nonblocking(true)?;
        let mut line = Line { socket, deframer: Deframer::new(), listener: Listener::new() };
        let mut found = Introduction::default();
        let id = loop {
            if let Some(id) = line.listener.introduced() {
                break id;
            }
            match line.next()? {
                Heard::News(news) => found.take(news)?,
                Heard::Nothing => line.wait_until(until)?,
                Heard::End => return Err(ConnectError::Refused),
            }
        };
        let (Some(file), Some(own)) = (found.memory, found.own) else { return Err(ConnectError::NoAnswer) };
        let mut bells = Bells { first: [const { None }; MAX_SLOTS], owed: 0 };
        for (peer, bell) in found.bells {
            bells.set(peer, Some(bell));
        }
        Ok(Self {
            memory: Arc::new(map(file)?),
            id,
            own,
            call: Eventfd::new()?,
            bells: Mutex::new(bells),
            line: Mutex::new(line),
            is_cut: AtomicBool::new(false),
        })
    }

    #[cfg(test)]
    pub(super) fn own_bell(&self) -> &Eventfd {
        &self.own
    }

    /// As [`Attachment::wait`]; says what ended it.
    pub(super) fn wait_for(&self, timeout: Duration) -> Woken {
        // Nobody else has this lock for long: only one thread waits.
        let line = (!self.is_cut.load(Ordering::Acquire)).then(|| lock(&self.line));
        let mut fds = vec![PollFd::new(&self.own, PollFlags::IN), PollFd::new(&self.call, PollFlags::IN)];
        fds.extend(line.as_ref().map(|line| PollFd::new(&line.socket, PollFlags::IN)));
        let _ = poll(&mut fds, Some(&timespec(timeout)));
        let has = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        let (is_rung, is_called, has_news) = (has(0), has(1), has(2));
        drop(fds);
        drop(line);
        if has_news {
            self.listen();
        }
        if is_called && self.call.clear() {
            return Woken::Called;
        }
        if (is_rung && self.own.clear()) || has_news { Woken::Rung } else { Woken::TimedOut }
    }

    /// Takes in what the server has said.
    fn listen(&self) {
        let mut line = lock(&self.line);
        loop {
            match line.next() {
                Ok(Heard::News(news)) => {
                    if self.note(news).is_err() {
                        return self.cut(&line);
                    }
                }
                Ok(Heard::Nothing) => return,
                // A server that says nonsense is none.
                Ok(Heard::End) | Err(_) => return self.cut(&line),
            }
        }
    }

    fn note(&self, news: News<Handed>) -> Result<(), ConnectError> {
        match news {
            News::Bell { peer, vector: 0, bell } => {
                lock(&self.bells).set(peer, Some(checked(bell)?));
            }
            News::Left(peer) => lock(&self.bells).set(peer, None),
            News::Nothing | News::Bell { .. } | News::OwnBell { .. } | News::Memory(_) => {}
        }
        Ok(())
    }

    /// Nothing more comes from the server. It is told so, if it is one that only says nonsense.
    fn cut(&self, line: &Line) {
        self.is_cut.store(true, Ordering::Release);
        let _ = line.socket.shutdown(std::net::Shutdown::Both);
    }
}

impl Introduction {
    fn take(&mut self, news: News<Handed>) -> Result<(), ConnectError> {
        match news {
            News::Memory(file) => self.memory = Some(file),
            News::OwnBell { vector: 0, bell } => self.own = Some(checked(bell)?),
            News::Bell { peer, vector: 0, bell } => self.bells.push((peer, checked(bell)?)),
            News::Left(gone) => self.bells.retain(|(peer, _)| *peer != gone),
            News::Nothing | News::OwnBell { .. } | News::Bell { .. } => {}
        }
        Ok(())
    }
}

/// What a look at the connection has brought.
enum Heard {
    News(News<Handed>),
    Nothing,
    End,
}

impl Line {
    /// Takes the next message off the socket, as much of it as there is.
    fn next(&mut self) -> Result<Heard, ConnectError> {
        loop {
            let (bytes, fds) = match receive(&self.socket, self.deframer.room()) {
                Ok(received) => received,
                Err(Errno::AGAIN) => return Ok(Heard::Nothing),
                Err(Errno::INTR) => continue,
                Err(Errno::CONNRESET) => return Ok(Heard::End),
                Err(errno) => return Err(errno.into()),
            };
            if bytes == 0 {
                return Ok(Heard::End);
            }
            if let Some((value, fd)) = self.deframer.filled(bytes, fds)? {
                return Ok(Heard::News(self.listener.hear(value, fd)?));
            }
        }
    }

    fn wait_until(&self, until: Instant) -> Result<(), ConnectError> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ConnectError::NoAnswer);
        }
        match poll(&mut [PollFd::new(&self.socket, PollFlags::IN)], Some(&timespec(left))) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

impl Attachment for IvshmemClient {
    fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    fn slot(&self) -> usize {
        self.id
    }

    fn is_belled(&self) -> bool {
        true
    }

    fn ring(&self, slot: usize) {
        // Not rung under the lock: whoever rings may be held up, see `eventfd`.
        let bell = lock(&self.bells).get(slot);
        if let Some(bell) = bell {
            bell.ring();
        }
    }

    fn wait(&self, timeout: Duration) {
        self.wait_for(timeout);
    }

    fn wake(&self) {
        self.call.ring();
    }

    fn connection(&self, slot: usize) -> Option<u64> {
        if self.is_cut.load(Ordering::Acquire) { None } else { connections::look(&self.memory, slot) }
    }
}

/// What is at the socket, for so many bytes at most, with the descriptors that came along.
fn receive(socket: &UnixStream, room: &mut [u8]) -> Result<(usize, Vec<Handed>), Errno> {
    // Room for all that Linux lets through, see `unix::packet`.
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(253))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(socket, &mut [IoSliceMut::new(room)], &mut control, flags)?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights.map(|fd| Handed::new(vec![fd])));
        }
    }
    Ok((received.bytes, fds))
}

/// The doorbell that this is.
fn checked(bell: Handed) -> Result<Eventfd, ConnectError> {
    let fd = bell.take().pop().ok_or(ConnectError::Bell)?;
    Eventfd::of(fd).map_err(|fd| {
        closer::discard([fd]);
        ConnectError::Bell
    })
}

/// Maps the memory, once it is certain that touching it does no harm.
fn map(file: Handed) -> Result<Memory, ConnectError> {
    let file = file.take().pop().ok_or(ConnectError::Memory)?;
    // First: it asks no file system, which might be one of the server's and never answer.
    let is_sealed = fcntl_get_seals(&file).is_ok_and(|seals| seals.contains(SealFlags::SHRINK));
    if !is_sealed || fstatfs(&file)?.f_type as u64 != TMPFS_MAGIC {
        closer::discard([file]);
        return Err(ConnectError::Memory);
    }
    let bytes = u64::try_from(fstat(&file)?.st_size).unwrap_or(0);
    match usize::try_from(bytes).ok().filter(|_| (1..=MAX_BYTES).contains(&bytes)) {
        Some(bytes) => Ok(Memory::map(&file, bytes)?),
        None => Err(ConnectError::Memory),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it is held.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests;
