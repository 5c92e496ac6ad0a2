//! A server of regions: makes the memory, and tells its clients of each other.
//!
//! It is one thread that waits for nobody. It trusts neither clients nor what stands in the region: it writes the header
//! and the connections page there, and reads nothing.

mod client;
mod settings;
mod socket;

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

pub use self::settings::{FabricError, FabricSettings};
use self::{
    client::Client,
    socket::{Socket, accept},
};
use super::connections::Connections;
use crate::{
    dibs::{Memory, eventfd::Eventfd, region::file::format},
    unix::{Entrance, closer, sized_memory},
};

/// So long nobody is accepted after the system had no room for another client.
const PAUSE: Duration = Duration::from_millis(100);

/// A server of a fabric: hands a region to virtual machines and processes that connect to its socket.
///
/// Who may connect to the socket has all of the memory. When the server is dropped, the socket goes, its clients are told
/// that nobody is connected any more, and their connections of SMC-D end; the memory stays with them as long as they have it.
#[derive(Debug)]
pub struct FabricServer {
    entrance: Entrance,
    file: Arc<OwnedFd>,
    memory: Memory,
    connections: Connections,
    /// By number, for each slot.
    clients: Vec<Option<Client>>,
    /// Doorbells of each slot, whoever has it. QEMU 7.2 uses freed memory if an id that it was told is gone comes back, so
    /// nobody is told of others that come or go: the connections page says so.
    bells: Vec<Arc<[Arc<Eventfd>]>>,
    stop: Arc<Eventfd>,
    /// Nobody is accepted until then.
    pause: Option<Instant>,
}

/// Ends [`FabricServer::run`] from elsewhere.
#[derive(Debug, Clone)]
pub struct FabricStop(Arc<Eventfd>);

impl FabricStop {
    /// Makes the server stop. From a signal handler too.
    pub fn stop(&self) {
        self.0.ring();
    }
}

impl FabricServer {
    /// Makes a region, and listens at this path. A socket there that nobody answers on is replaced.
    ///
    /// # Errors
    /// If there is no such region, another server is there, or the system's error.
    pub fn bind(path: impl AsRef<Path>, settings: &FabricSettings) -> Result<Self, FabricError> {
        let geometry = settings.geometry()?;
        let file = sized_memory("smcd-region", geometry.bytes())?;
        let memory = Memory::map(&file, geometry.bytes())?;
        format(&memory, &geometry)?;
        let bells_of_slot = |_| {
            (0..settings.vectors).map(|_| Eventfd::new().map(Arc::new)).collect::<rustix::io::Result<_>>()
        };
        let bells = (0..geometry.slots()).map(bells_of_slot).collect::<rustix::io::Result<_>>()?;
        Ok(Self {
            entrance: Entrance::open(path.as_ref())?,
            file: Arc::new(file),
            memory,
            connections: Connections::new(),
            clients: (0..geometry.slots()).map(|_| None).collect(),
            bells,
            stop: Arc::new(Eventfd::new()?),
            pause: None,
        })
    }

    /// How to stop the server.
    pub fn stop_handle(&self) -> FabricStop {
        FabricStop(self.stop.clone())
    }

    /// Serves until [`FabricStop::stop`].
    ///
    /// # Errors
    /// If the system does not let it wait.
    pub fn run(&mut self) -> io::Result<()> {
        while self.turn()? {}
        Ok(())
    }

    /// Waits, and does what there is to do. False if it is to stop.
    fn turn(&mut self) -> io::Result<bool> {
        let now = Instant::now();
        let due = self.clients.iter().flatten().filter_map(Client::due).chain(self.pause).min();
        let ready = self.look(due.map(|due| timespec(due.saturating_duration_since(now))))?;
        if ready.is_stopped {
            return Ok(false);
        }
        let now = Instant::now();
        for (id, events) in ready.clients {
            self.tend(id, events, now);
        }
        for id in 0..self.clients.len() {
            if self.client(id).is_some_and(|client| client.due().is_some_and(|due| due <= now)) {
                self.tend(id, PollFlags::empty(), now);
            }
        }
        self.pause = self.pause.filter(|until| *until > now);
        if ready.has_guest {
            self.accept(now);
        }
        Ok(true)
    }

    /// Waits until something happens, or so long.
    fn look(&self, timeout: Option<Timespec>) -> io::Result<Ready> {
        let entrance = if self.pause.is_some() { PollFlags::empty() } else { PollFlags::IN };
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.stop.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.entrance.as_fd(), entrance),
        ];
        let ids: Vec<_> = (0..self.clients.len()).filter(|id| self.client(*id).is_some()).collect();
        for client in self.clients.iter().flatten() {
            fds.push(PollFd::from_borrowed_fd(client.as_fd(), client.interest()));
        }
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Ready::default()),
            Err(errno) => return Err(errno.into()),
        }
        let mut events = fds.iter().map(PollFd::revents);
        let mut has = || events.next().is_some_and(|events| !events.is_empty());
        let (is_stopped, has_guest) = (has(), has());
        Ok(Ready { is_stopped, has_guest, clients: ids.into_iter().zip(events).collect() })
    }

    fn client(&self, id: usize) -> Option<&Client> {
        self.clients.get(id).and_then(Option::as_ref)
    }

    /// Does for a client what its socket, or the time, asks for.
    fn tend(&mut self, id: usize, events: PollFlags, now: Instant) {
        let Some(client) = self.clients.get_mut(id).and_then(Option::as_mut) else { return };
        let is_over = events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL)
            || (events.contains(PollFlags::OUT) && client.has_room(now).is_err())
            || client.tend(now).is_err();
        if is_over {
            self.dismiss(id, now);
        }
    }

    /// Takes in who waits at the entrance.
    fn accept(&mut self, now: Instant) {
        // One that waits longer than this turn is there in the next.
        for _ in 0..self.clients.len() {
            if closer::is_held_up() {
                self.pause = Some(now + PAUSE);
                return;
            }
            match accept(&self.entrance) {
                Ok(socket) => self.admit(socket, now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(_) => {
                    self.pause = Some(now + PAUSE);
                    return;
                }
            }
        }
    }

    /// The lowest number that no client has. Whoever comes again may be seen before its end is.
    fn free_number(&mut self, now: Instant) -> Option<usize> {
        let free = self.clients.iter().position(Option::is_none);
        if free.is_some() {
            return free;
        }
        for (id, events) in self.look(Some(Timespec { tv_sec: 0, tv_nsec: 0 })).ok()?.clients {
            self.tend(id, events, now);
        }
        self.clients.iter().position(Option::is_none)
    }

    /// Makes a client of it, if there is a number for it.
    fn admit(&mut self, socket: Socket, now: Instant) {
        let Some(id) = self.free_number(now) else { return };
        let Some(own) = self.bells.get(id) else { return };
        let mut client = Client::new(socket, own.clone(), now);
        client.introduce(id, &self.file);
        for (other, bells) in self.bells.iter().enumerate().filter(|(other, _)| *other != id) {
            client.tell_bells(other, bells);
        }
        client.tell_bells(id, own);
        // Who hears of the client finds it on the page.
        self.connections.set(&self.memory, id, true);
        // The others first: who is told last of all that it is there finds that they know.
        self.announce(now);
        let _ = client.flush(now);
        if let Some(place) = self.clients.get_mut(id) {
            *place = Some(client);
        }
    }

    /// The client has gone, or has to go. Others that go by that go too.
    fn dismiss(&mut self, id: usize, now: Instant) {
        if self.clients.get_mut(id).and_then(Option::take).is_none() {
            return;
        }
        self.connections.set(&self.memory, id, false);
        self.announce(now);
    }

    /// Tells all clients what they have not been told yet, and rings them.
    fn announce(&mut self, now: Instant) {
        for client in self.clients.iter_mut().flatten() {
            // One that has gone is found so in the next turn.
            let _ = client.flush(now);
            client.ring();
        }
    }
}

impl Drop for FabricServer {
    fn drop(&mut self) {
        for id in 0..self.clients.len() {
            self.connections.set(&self.memory, id, false);
        }
        for client in self.clients.iter().flatten() {
            client.ring();
        }
    }
}

/// What a wait has found.
#[derive(Default)]
struct Ready {
    is_stopped: bool,
    has_guest: bool,
    clients: Vec<(usize, PollFlags)>,
}

fn timespec(duration: Duration) -> Timespec {
    // Rounded up, so that what is due then is due.
    let duration = duration.saturating_add(Duration::from_millis(1));
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests;
