//! The handshake in band on a socket of somebody else, step by step: in whatever calls its program makes, without a thread.

use std::{
    fmt,
    future::{Future, poll_fn},
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    io::{Errno, fcntl_dupfd_cloexec},
    net::{RecvFlags, connect, recv, sockopt::socket_error},
    time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime},
};

use crate::{
    FallbackReason, SmcConfig,
    clc::{
        exchange::{ExchangeError, take_in},
        wire::{Assembler, Message},
    },
    smc::{
        established::Established,
        hybrid::send,
        in_band::{self, Client, EstablishError, Outcome, TENDING, Wire},
    },
    tcp_fallback::{
        detect::{First, judge, look},
        syn_option::{self, Answer},
    },
    unix::{Kept, errno::errno_of, interfaces::local_ip},
};

/// Between two looks at the beginning of what may become an eyecatcher.
const PAUSE: Duration = Duration::from_millis(5);

/// Handshakes of this process that are not over.
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// True if a stream of this process is [shaking hands](super::RawStream::is_shaking).
#[inline]
pub fn is_any_shaking() -> bool {
    UNDER_WAY.load(Ordering::Relaxed) != 0
}

/// What a handshake waits for.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// Events of `poll` on the socket, perhaps none.
    pub events: i16,
    /// When it goes on even without them. `None` if the system knows an end.
    pub until: Option<Instant>,
}

/// What has come of a handshake.
pub(super) enum End {
    /// The rings carry the connection.
    Smcd(Box<Established>),
    /// It is TCP from the next byte on, for good.
    Tcp(FallbackReason),
    /// It is as any other, and had no handshake, for this reason.
    Plain(FallbackReason),
    /// The option was but an echo. The socket was connected anew without it, or is about to be; or could not be.
    Again(io::Result<()>),
    /// It is of no more use.
    Broken(io::Error),
}

/// Who began.
#[derive(Clone, Copy, Debug)]
enum Role {
    /// We connect to this address.
    Client(SocketAddr),
    Server,
}

type Ending = Pin<Box<dyn Future<Output = End> + Send>>;

/// See the module.
pub(super) struct Handshake {
    ending: Ending,
    role: Role,
    wire: Stepped,
    /// False until the kernel has been told to connect the socket.
    is_due: bool,
    /// Fires when the need says so. Made for those who wait for it.
    timer: Option<Arc<Kept>>,
    _counted: Counted,
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake")
            .field("role", &self.role)
            .field("need", &self.need())
            .finish_non_exhaustive()
    }
}

/// One of [`UNDER_WAY`].
struct Counted;

impl Counted {
    fn new() -> Self {
        UNDER_WAY.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Handshake {
    /// That of a socket that is about to connect to this address, and has asked for the SMC option.
    ///
    /// # Errors
    /// If no descriptor is left.
    pub(super) fn client(socket: impl AsFd, config: &Arc<SmcConfig>, peer: SocketAddr) -> io::Result<Self> {
        let wire = Stepped::new(socket)?;
        Ok(Self::new(Role::Client(peer), propose(wire.clone(), config.clone(), peer), wire))
    }

    /// That of a socket that was accepted, and whose peer has sent the SMC option.
    ///
    /// # Errors
    /// As for [`Handshake::client`].
    pub(super) fn server(socket: impl AsFd, config: &Arc<SmcConfig>, client: Client) -> io::Result<Self> {
        let wire = Stepped::new(socket)?;
        let patience = config.handshake_timeout;
        Ok(Self::new(Role::Server, answer(wire.clone(), config.clone(), client, patience), wire))
    }

    fn new(role: Role, ending: impl Future<Output = End> + Send + 'static, wire: Stepped) -> Self {
        let is_due = matches!(role, Role::Server);
        Self { ending: Box::pin(ending), role, wire, is_due, timer: None, _counted: Counted::new() }
    }

    pub(super) fn is_due(&self) -> bool {
        self.is_due
    }

    pub(super) fn has_begun(&self) -> bool {
        self.wire.has_begun()
    }

    pub(super) fn is_connecting(&mut self) {
        self.is_due = true;
    }

    /// Goes as far as it can at present; `None` if that is not to the end.
    pub(super) fn step(&mut self) -> Option<End> {
        match self.ending.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(end) => Some(end),
            Poll::Pending => {
                self.set_timer();
                None
            }
        }
    }

    pub(super) fn need(&self) -> Need {
        if !self.is_due {
            return Need { events: 0, until: Some(Instant::now() + TENDING) };
        }
        let Waits { events, until } = *self.wire.waits();
        // Where rustix goes by the C library, as on s390x, the bits have a sign already.
        Need { events: events.bits() as i16, until }
    }

    /// The socket, by a descriptor of our own that is open as long as this lives.
    pub(super) fn socket(&self) -> &Arc<Kept> {
        &self.wire.socket
    }

    /// A descriptor that becomes readable when it is time for a step.
    ///
    /// # Errors
    /// If none is left.
    pub(super) fn timer(&mut self) -> io::Result<Arc<Kept>> {
        if let Some(timer) = &self.timer {
            return Ok(timer.clone());
        }
        let timer: OwnedFd =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        let timer = Arc::new(Kept::new(timer));
        self.timer = Some(timer.clone());
        self.set_timer();
        Ok(timer)
    }

    fn set_timer(&self) {
        let Some(timer) = &self.timer else { return };
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let left = self.need().until.map(|until| until.saturating_duration_since(Instant::now()));
        // Nothing would switch it off.
        let left = left.map(|left| left.max(Duration::from_nanos(1)));
        let value = left.and_then(|left| left.try_into().ok()).unwrap_or(zero);
        let set = Itimerspec { it_interval: zero, it_value: value };
        if let Err(error) = timerfd_settime(timer, TimerfdTimerFlags::empty(), &set) {
            tracing::debug!(%error, "a handshake has no timer");
        }
    }

    /// If nothing has come of a client: from now on all that it gets is a Decline, for which it does not matter which
    /// process sends it. False if something has, or it is us who began.
    pub(super) fn declines(&mut self, config: &Arc<SmcConfig>) -> bool {
        if !matches!(self.role, Role::Server) || self.wire.has_begun() {
            return false;
        }
        let until = self.need().until;
        let left = until.map(|until| until.saturating_duration_since(Instant::now())).unwrap_or_default();
        self.ending = Box::pin(answer(self.wire.clone(), config.clone(), Client::Unwanted, left));
        true
    }

    /// Ends it now, however far it is.
    pub(super) fn give_up(&self) -> End {
        match self.role {
            Role::Client(peer) => End::Again(self.wire.begin_again(peer)),
            Role::Server if self.wire.has_begun() => End::Broken(io::ErrorKind::ConnectionReset.into()),
            Role::Server => End::Tcp(FallbackReason::PeerNotSmc),
        }
    }
}

/// The part of the client.
async fn propose(mut wire: Stepped, config: Arc<SmcConfig>, peer: SocketAddr) -> End {
    if !wire.connected().await {
        // The program asks the kernel why, and may try again.
        let _ = syn_option::withdraw(&wire.socket);
        return End::Plain(FallbackReason::NotYet);
    }
    if let Answer::None(reason) = Answer::on(&wire.socket) {
        return End::Plain(reason);
    }
    match in_band::connect_by_option(&mut wire, &config).await {
        Ok(Some(outcome)) => end_of(outcome),
        Ok(None) => End::Again(wire.connect_again(peer).await),
        Err(error) => End::Broken(error.into()),
    }
}

/// The part of the server, with a client that is to begin within `patience`.
async fn answer(mut wire: Stepped, config: Arc<SmcConfig>, client: Client, patience: Duration) -> End {
    match in_band::accept(&mut wire, &config, client, patience).await {
        Ok(Some(outcome)) => end_of(outcome),
        Ok(None) => End::Tcp(FallbackReason::PeerNotSmc),
        // The program learns from the socket why.
        Err(EstablishError::Io(_)) if !wire.has_begun() => End::Tcp(FallbackReason::PeerNotSmc),
        Err(error) => End::Broken(error.into()),
    }
}

fn end_of(outcome: Outcome) -> End {
    match outcome {
        Outcome::Smcd(established) => End::Smcd(established),
        Outcome::Tcp(reason) => End::Tcp(reason),
    }
}

/// As [`Need`].
#[derive(Clone, Copy)]
struct Waits {
    events: PollFlags,
    until: Option<Instant>,
}

/// A connection whose handshake waits by coming back later.
#[derive(Clone)]
struct Stepped {
    socket: Arc<Kept>,
    waits: Arc<Mutex<Waits>>,
    /// A message, or a part of one, has come or gone.
    begun: Arc<AtomicBool>,
    /// It is being connected anew.
    is_again: Arc<AtomicBool>,
}

impl Stepped {
    fn new(socket: impl AsFd) -> io::Result<Self> {
        let socket = Arc::new(Kept::new(fcntl_dupfd_cloexec(socket, 0)?));
        let waits = Waits { events: PollFlags::empty(), until: Some(Instant::now()) };
        let waits = Arc::new(Mutex::new(waits));
        Ok(Self { socket, waits, begun: Arc::default(), is_again: Arc::default() })
    }

    fn waits(&self) -> MutexGuard<'_, Waits> {
        // Nothing panics while it is held.
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    fn begin(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    /// Comes back with one of these events, or at this time.
    fn later<T>(&self, events: PollFlags, until: Option<Instant>) -> Poll<T> {
        *self.waits() = Waits { events, until };
        Poll::Pending
    }

    /// As [`Stepped::later`], as part of a message that has to be over by the deadline.
    fn later_in_message<T>(
        &self,
        events: PollFlags,
        deadline: Instant,
        until: Instant,
        taken: usize,
    ) -> Poll<Result<T, ExchangeError>> {
        if Instant::now() >= deadline {
            return Poll::Ready(Err(ExchangeError::TimedOut { taken }));
        }
        self.later(events, Some(until))
    }

    /// What `poll` says of the socket.
    fn events(&self) -> PollFlags {
        let mut fds = [PollFd::new(&self.socket, PollFlags::OUT)];
        match poll(&mut fds, Some(&Timespec::default())) {
            Ok(_) => fds[0].revents(),
            Err(_) => PollFlags::empty(),
        }
    }

    /// Waits until the kernel has connected the socket; false if it could not.
    async fn connected(&self) -> bool {
        poll_fn(|_| {
            let seen = self.events();
            if seen.intersects(PollFlags::ERR | PollFlags::HUP) {
                return Poll::Ready(false);
            }
            if seen.contains(PollFlags::OUT) { Poll::Ready(true) } else { self.later(PollFlags::OUT, None) }
        })
        .await
    }

    /// Gives up the connection, and makes the same anew without the option. A socket whose calls wait is connected then, as
    /// the program expects of it.
    async fn connect_again(&self, peer: SocketAddr) -> io::Result<()> {
        let begun = self.begin_again(peer);
        self.as_it_waits(begun).await
    }

    /// As [`Stepped::connect_again`], but does not wait.
    fn begin_again(&self, peer: SocketAddr) -> io::Result<()> {
        if self.is_again.swap(true, Ordering::Relaxed) {
            return Err(Errno::INPROGRESS.into());
        }
        syn_option::disconnect(&self.socket)?;
        self.begin_to_connect(peer)
    }

    /// In whatever mode the socket is: others wait for locks that are held here, a fork among them.
    fn begin_to_connect(&self, peer: SocketAddr) -> io::Result<()> {
        let flags = fcntl_getfl(&self.socket)?;
        fcntl_setfl(&self.socket, flags | OFlags::NONBLOCK)?;
        let begun = connect(&self.socket, &peer);
        fcntl_setfl(&self.socket, flags)?;
        Ok(begun?)
    }

    /// What has come of connecting: at once, or at its end if that is how calls on the socket wait.
    async fn as_it_waits(&self, begun: io::Result<()>) -> io::Result<()> {
        let is_under_way =
            matches!(&begun, Err(error) if errno_of(error) == Errno::INPROGRESS.raw_os_error());
        if !is_under_way || fcntl_getfl(&self.socket)?.contains(OFlags::NONBLOCK) {
            return begun;
        }
        if self.connected().await {
            return Ok(());
        }
        socket_error(&self.socket)??;
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

impl Wire for Stepped {
    fn local_ip(&self) -> Option<IpAddr> {
        local_ip(self.socket.as_fd())
    }

    async fn first_bytes(&mut self, patience: Duration, deadline: Instant) -> io::Result<First> {
        let silence = Instant::now() + patience;
        poll_fn(|_| {
            if self.events().intersects(PollFlags::ERR) {
                // For the program to be told; a look would be told in its place.
                return Poll::Ready(Ok(First::Data));
            }
            let begun = match look(&self.socket, judge) {
                Ok(Some(first)) => return Poll::Ready(Ok(first)),
                Ok(None) => true,
                Err(error) if is_for_later(&error) => false,
                Err(error) => return Poll::Ready(Err(error)),
            };
            let now = Instant::now();
            match begun {
                // A peek leaves the socket readable, so that it cannot be waited for.
                true if now < deadline => self.later(PollFlags::empty(), Some(now + PAUSE)),
                // Whoever sends a part of an eyecatcher and then nothing is no SMC endpoint.
                true => Poll::Ready(Ok(First::Data)),
                false if now < silence => self.later(PollFlags::IN, Some(silence)),
                false => Poll::Ready(Ok(First::Silence)),
            }
        })
        .await
    }

    async fn send(&mut self, message: &Message, deadline: Instant) -> Result<(), ExchangeError> {
        self.begin();
        let bytes = message.to_bytes();
        let mut rest = bytes.as_slice();
        poll_fn(|_| {
            while !rest.is_empty() {
                match send(self.socket.as_fd(), &[IoSlice::new(rest)]) {
                    Ok(n) => rest = rest.get(n..).unwrap_or_default(),
                    Err(error) if is_for_later(&error) => {
                        return self.later_in_message(PollFlags::OUT, deadline, deadline, 0);
                    }
                    Err(error) => return Poll::Ready(Err(error.into())),
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }

    async fn receive(
        &mut self,
        deadline: Instant,
        tend: &(dyn Fn() + Sync),
    ) -> Result<Message, ExchangeError> {
        self.begin();
        let mut assembler = Assembler::new();
        poll_fn(|_| {
            let mut buf = [0; Assembler::MAX_READ];
            loop {
                let room = buf.get_mut(..assembler.missing()).unwrap_or_default();
                match recv(&self.socket, &mut *room, RecvFlags::DONTWAIT) {
                    Ok((n, _)) => match take_in(&mut assembler, room.get(..n).unwrap_or_default()) {
                        Ok(Some(message)) => return Poll::Ready(Ok(message)),
                        Ok(None) => {}
                        Err(error) => return Poll::Ready(Err(error)),
                    },
                    Err(Errno::AGAIN | Errno::INTR) => {
                        tend();
                        let until = deadline.min(Instant::now() + TENDING);
                        return self.later_in_message(PollFlags::IN, deadline, until, assembler.taken());
                    }
                    Err(errno) => return Poll::Ready(Err(io::Error::from(errno).into())),
                }
            }
        })
        .await
    }

    async fn pause(&mut self, time: Duration) {
        let until = Instant::now() + time;
        poll_fn(|_| match Instant::now() >= until {
            true => Poll::Ready(()),
            false => self.later(PollFlags::empty(), Some(until)),
        })
        .await;
    }
}

fn is_for_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// A handshake that is over. As long as this lives, so does the descriptor that it was waited for by.
#[derive(Debug)]
#[must_use]
pub struct Shaken {
    socket: Arc<Kept>,
    /// What a call would say that has waited for it.
    pub result: io::Result<()>,
}

impl Shaken {
    pub(super) fn new(socket: Arc<Kept>, result: io::Result<()>) -> Self {
        Self { socket, result }
    }
}

impl AsFd for Shaken {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

#[cfg(test)]
mod tests;
