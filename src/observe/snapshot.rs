//! A registry as it was at one moment.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    time::{Duration, SystemTime},
};

use super::{
    counters::Flow,
    layout::{
        FOLDS_BEGUN, FOLDS_ENDED, FRESH, RECORD_WORDS, RECORDS, RECORDS_AT, STARTED, TOTALS, TOTALS_LEN,
        field, flow,
    },
    reason::Reason,
    record::{Status, is_worth_it},
    source::{BadRegistry, Source},
    totals::Totals,
};
use crate::{dibs::Gid, tcp_fallback::promotion::counts_by_address};

/// So often a part is read again that was being changed.
const TRIES: usize = 16;

/// Records that are read at once.
const BATCH: usize = 64;

/// The connections and counters of a process.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Snapshot {
    /// When the process began to keep its registry.
    pub started: SystemTime,
    /// What it has done so far, with its live connections.
    pub totals: Totals,
    /// Its live connections that have a record.
    pub connections: Vec<Connection>,
}

/// How far a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum State {
    /// It is TCP, and has not been due for promotion.
    Counting,
    /// A handshake is under way, or is waited for.
    Negotiating,
    /// It stays TCP.
    Staying,
    /// Both ends have agreed on SMC-D.
    Agreed,
    /// This end is closed, and the peer has not closed yet.
    Closing,
}

/// Which way the bytes of a connection take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Mode {
    /// Through TCP.
    Tcp,
    /// Through shared memory, at least one way.
    Smcd,
}

/// A live connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Connection {
    /// How far it is.
    pub state: State,
    /// Which way its bytes take.
    pub mode: Mode,
    /// Why, if it is TCP.
    pub reason: Reason,
    /// True if it was SMC-D before its first byte.
    pub in_band: bool,
    /// Whether its peer is on this host, if that is known.
    pub eligible: Option<bool>,
    /// Its own address.
    pub local: SocketAddr,
    /// The address of its peer.
    pub peer: SocketAddr,
    /// The kernel's number for its socket.
    pub cookie: u64,
    /// The inode of its socket.
    pub inode: u64,
    /// Since when it has been recorded.
    pub since: SystemTime,
    /// Bytes of the ring that it reads from; zero if there is none.
    pub receive_buffer: u32,
    /// Bytes of the ring that it writes to.
    pub send_buffer: u32,
    /// Its own device, if both ends have agreed on SMC-D.
    pub gid: Gid,
    /// The device of its peer.
    pub peer_gid: Gid,
    /// What came in.
    pub received: Flow,
    /// What went out.
    pub sent: Flow,
}

impl Snapshot {
    /// Reads a registry. What is in there may be nonsense; then so is what is returned.
    pub(super) fn read(source: &Source) -> Result<Self, BadRegistry> {
        let mut tries = 1;
        loop {
            let before = source.word(FOLDS_ENDED)?;
            let snapshot = Self::read_once(source)?;
            // A process that was killed at the wrong moment stays there for ever.
            if source.word(FOLDS_BEGUN)? == before || tries == TRIES {
                return Ok(snapshot);
            }
            tries += 1;
        }
    }

    fn read_once(source: &Source) -> Result<Self, BadRegistry> {
        let mut totals = [0; TOTALS_LEN];
        source.read(TOTALS, &mut totals)?;
        let mut totals = Totals::of_words(&totals);
        let connections = records(source)?;
        for connection in &connections {
            totals.add_live(connection);
        }
        Ok(Self { started: time(source.word(STARTED)?), totals, connections })
    }
}

type Words = [u64; RECORD_WORDS];

fn records(source: &Source) -> Result<Vec<Connection>, BadRegistry> {
    let used = usize::try_from(source.word(FRESH)?).unwrap_or(RECORDS).min(RECORDS);
    let mut found = Vec::new();
    for first in (0..used).step_by(BATCH) {
        let count = BATCH.min(used - first);
        let at = RECORDS_AT + first * RECORD_WORDS;
        let mut words = vec![0; count * RECORD_WORDS];
        let mut again = words.clone();
        source.read(at, &mut words)?;
        source.read(at, &mut again)?;
        let (once, twice) = (words.as_chunks().0, again.as_chunks().0);
        for (number, (once, twice)) in once.iter().zip(twice).enumerate() {
            let whole = settle(once, twice, || {
                let mut words: Words = [0; RECORD_WORDS];
                source.read(at + number * RECORD_WORDS, &mut words).map(|()| words)
            })?;
            found.extend(whole.and_then(|words| Connection::of_words(&words)));
        }
    }
    Ok(found)
}

/// Two readings of a record whose description did not change between them; read again until there are. `None` if it
/// keeps changing.
fn settle(
    once: &Words,
    twice: &Words,
    mut again: impl FnMut() -> std::io::Result<Words>,
) -> Result<Option<Words>, BadRegistry> {
    let (mut before, mut now) = (*once, *twice);
    for _ in 0..TRIES {
        let described = |words: &Words| words.first_chunk::<{ field::DESCRIPTION }>().copied();
        if now[field::SEQ].is_multiple_of(2) && described(&before) == described(&now) {
            return Ok(Some(now));
        }
        before = now;
        now = again()?;
    }
    Ok(None)
}

impl Connection {
    /// The connection of a record; `None` if there is none.
    fn of_words(words: &Words) -> Option<Self> {
        if words[field::SINCE] == 0 {
            return None;
        }
        let status = Status::of_word(words[field::STATUS]);
        let halves = |word: u64| ((word >> 32) as u32, word as u32);
        let (code, diagnosis) = halves(words[field::REASON]);
        let (receive_buffer, send_buffer) = halves(words[field::RINGS]);
        let ports = words[field::PORTS];
        let gid = |at: usize| Gid::from_halves(words[at], words[at + 1]);
        let flow = |at: usize| Flow::of_words(words.get(at..at + flow::LEN).unwrap_or_default());
        let [received, sent] = field::FLOWS.map(flow);
        let state = state_of(status)?;
        let by_ring = status.in_band || received.ring.calls > 0 || sent.ring.calls > 0;
        Some(Self {
            state,
            mode: if by_ring { Mode::Smcd } else { Mode::Tcp },
            reason: Reason::of_number(status.reason, code, diagnosis)?,
            in_band: status.in_band,
            eligible: status.eligible,
            local: address(words, field::LOCAL, (ports >> 16) as u16),
            peer: address(words, field::PEER, ports as u16),
            cookie: words[field::COOKIE],
            inode: words[field::INODE],
            since: time(words[field::SINCE]),
            receive_buffer,
            send_buffer,
            gid: gid(field::GID),
            peer_gid: gid(field::PEER_GID),
            received,
            sent,
        })
    }
}

impl Connection {
    /// Bytes that its TCP connection has received and sent, by the kernel's count. A program that is not asked for SMC-D
    /// any more, because a connection is certain to stay TCP, does not count what it does there. `None` if the connection
    /// has ended, or is in another network namespace.
    pub fn bytes_by_kernel(&self) -> Option<(u64, u64)> {
        let counts = counts_by_address(self.local, self.peer, self.cookie).ok()??;
        Some((counts.received, counts.sent))
    }

    /// True if its peer is on this host and it has carried enough to be promoted by the default policy.
    pub fn is_well_suited(&self) -> bool {
        self.eligible == Some(true) && is_worth_it(&self.received, &self.sent)
    }
}

fn state_of(status: Status) -> Option<State> {
    match status.phase {
        _ if status.closed => Some(State::Closing),
        0 => Some(State::Counting),
        1 => Some(State::Negotiating),
        2 => Some(State::Staying),
        3 => Some(State::Agreed),
        _ => None,
    }
}

/// An address of two words from `at` on; one of IPv4 in IPv6 form is one of IPv4.
pub(super) fn address(words: &[u64], at: usize, port: u16) -> SocketAddr {
    let word = |at: usize| words.get(at).copied().unwrap_or(0);
    let bits = (u128::from(word(at)) << 64) | u128::from(word(at + 1));
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from_bits(bits)).to_canonical(), port)
}

/// A time in nanoseconds since 1970; that itself if there is no such time.
pub(super) fn time(nanos: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(nanos)).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests;
