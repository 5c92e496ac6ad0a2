//! The record of one connection, as its process writes it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::BorrowedFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering, fence},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::{
    fs::fstat,
    io::Errno,
    net::{getpeername, getsockname, sockopt::socket_cookie},
};

use super::{
    counters::{Flow, class_of},
    layout::{Direction, RECORD_WORDS, field, flow, total},
    reason::number_of,
    registry::{Book, Registry, Words},
};
use crate::{
    dibs::Gid,
    tcp_fallback::{FallbackReason, Promotion},
};

/// How far a connection is. The numbers are those of the registry, where zero means that it is TCP and not due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Phase {
    /// A handshake is under way, or is waited for.
    Negotiating = 1,
    /// It stays TCP.
    Staying = 2,
    /// There are rings.
    Agreed = 3,
}

/// Byte of the status word that says the phase.
const PHASE: u32 = 0;
/// Byte that says whether the connection is closed at this end.
const CLOSED: u32 = 8;
/// Byte that says whether the peer is on this host: 0 if that is not known, 1 if it is, 2 if not.
const ELIGIBLE: u32 = 16;
/// Byte that says whether it was SMC-D before its first byte.
const IN_BAND: u32 = 24;
/// Two bytes: the number of the reason.
const NUMBER: u32 = 32;

/// A connection's place in the registry. Given up on drop; what it has counted goes to the totals then.
pub(crate) struct Record {
    registry: &'static Registry,
    number: u32,
    words: &'static Words,
}

impl Record {
    /// A record for the connection of this socket, if there is room and its addresses are known.
    pub(crate) fn open(socket: BorrowedFd<'_>) -> Option<Arc<Self>> {
        let book = Book::own();
        let address = |addr: Result<_, Errno>| -> io::Result<SocketAddr> { Ok(SocketAddr::try_from(addr?)?) };
        let local = address(getsockname(socket)).ok()?;
        let peer = address(getpeername(socket).and_then(|peer| peer.ok_or(Errno::NOTCONN))).ok()?;
        let registry = book.make_registry()?;
        let Some((number, words)) = registry.take_record() else {
            book.add(total::UNRECORDED, 1);
            return None;
        };
        let record = Self { registry, number, words };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        record.change(|words| {
            for word in words.iter().skip(1) {
                word.store(0, Ordering::Relaxed);
            }
            set_pair(words, field::LOCAL, ip_bits(local.ip()));
            set_pair(words, field::PEER, ip_bits(peer.ip()));
            let ports = (u64::from(local.port()) << 16) | u64::from(peer.port());
            words[field::PORTS].store(ports, Ordering::Relaxed);
            words[field::COOKIE].store(socket_cookie(socket).unwrap_or(0), Ordering::Relaxed);
            words[field::INODE].store(fstat(socket).map_or(0, |stat| stat.st_ino), Ordering::Relaxed);
            let since = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
            words[field::SINCE].store(since, Ordering::Relaxed);
        });
        Some(Arc::new(record))
    }

    /// Changes the description so that readers see all of it or nothing.
    fn change(&self, what: impl FnOnce(&Words)) {
        let seq = &self.words[field::SEQ];
        let mut now = seq.load(Ordering::Relaxed);
        // Others are at it for some nanoseconds, if at all. Nobody may wait for ever for what a tracer has scribbled.
        for _ in 0..1000 {
            match seq.compare_exchange_weak(now & !1, now | 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => break,
                Err(other) => now = other,
            }
            std::hint::spin_loop();
        }
        // Who sees anything of what follows sees the odd number too.
        fence(Ordering::Release);
        what(self.words);
        seq.store((now | 1).wrapping_add(1), Ordering::Release);
    }

    fn change_status(&self, byte: u32, value: u8) {
        self.change(|words| set_status(words, byte, value));
    }

    /// The connection has come to this phase.
    pub(crate) fn enter(&self, phase: Phase) {
        self.change_status(PHASE, phase as u8);
    }

    /// Says whether the peer is on this host.
    pub(crate) fn is_eligible(&self, eligible: bool) {
        self.change_status(ELIGIBLE, if eligible { 1 } else { 2 });
    }

    /// The connection is closed at this end; the record stays until nobody needs it.
    pub(crate) fn close(&self) {
        self.change_status(CLOSED, 1);
    }

    /// The connection stays TCP, or as much of it as has not been switched.
    pub(crate) fn stay(&self, reason: FallbackReason) {
        let codes =
            (u64::from(reason.code().0) << 32) | u64::from(reason.peer_diagnosis().map_or(0, |code| code.0));
        self.change(|words| {
            words[field::REASON].store(codes, Ordering::Relaxed);
            let status = words[field::STATUS].load(Ordering::Relaxed) & !(0xffff << NUMBER);
            words[field::STATUS].store(status | ((number_of(reason) as u64) << NUMBER), Ordering::Relaxed);
            if status as u8 != Phase::Agreed as u8 {
                set_status(words, PHASE, Phase::Staying as u8);
            }
        });
    }

    /// Both ends have agreed on rings of these sizes: of the one that we read from, and the one that we write to.
    pub(crate) fn agree(&self, gid: Gid, peer_gid: Gid, rings: (usize, usize), in_band: bool) {
        let size = |bytes: usize| u64::from(u32::try_from(bytes).unwrap_or(u32::MAX));
        self.change(|words| {
            set_pair(words, field::GID, (gid.high(), gid.low()));
            set_pair(words, field::PEER_GID, (peer_gid.high(), peer_gid.low()));
            words[field::RINGS].store((size(rings.0) << 32) | size(rings.1), Ordering::Relaxed);
            set_status(words, IN_BAND, in_band.into());
            set_status(words, ELIGIBLE, 1);
            set_status(words, PHASE, Phase::Agreed as u8);
        });
    }

    /// Takes over what was counted before there was a record.
    pub(super) fn carry_over(&self, direction: Direction, at: usize, n: u64) {
        if let Some(word) = self.words.get(field::FLOWS[direction as usize] + at) {
            word.store(n, Ordering::Relaxed);
        }
    }

    /// Counts a message by TCP. One thread at a time counts a direction.
    pub(super) fn count_tcp(&self, direction: Direction, bytes: u64) {
        let base = field::FLOWS[direction as usize];
        self.count(base + flow::TCP_BYTES, base, bytes);
    }

    /// Counts a message by the ring. One thread at a time counts a direction.
    #[inline]
    pub(super) fn count_ring(&self, direction: Direction, bytes: u64) {
        let base = field::FLOWS[direction as usize];
        self.count(base + flow::RING_BYTES, base, bytes);
    }

    /// Counts a message whose bytes and calls are counted from `at` on.
    #[inline]
    fn count(&self, at: usize, base: usize, bytes: u64) {
        bump(&self.words[at], bytes);
        bump(&self.words[at + 1], 1);
        bump(&self.words[base + flow::SIZES + class_of(bytes)], 1);
    }

    /// Takes a message by the ring back: it was none of the application's.
    pub(crate) fn discount_ring(&self, direction: Direction, bytes: u64) {
        let base = field::FLOWS[direction as usize];
        let take = |at: usize, n: u64| {
            let word = &self.words[base + at];
            word.store(word.load(Ordering::Relaxed).saturating_sub(n), Ordering::Relaxed);
        };
        take(flow::RING_BYTES, bytes);
        take(flow::RING_CALLS, 1);
        take(flow::SIZES + class_of(bytes), 1);
    }

    /// Counts that the peer had to be woken, which costs a system call anyway. Several threads may.
    #[cold]
    pub(super) fn count_wakeup(&self, direction: Direction) {
        self.words[field::FLOWS[direction as usize] + flow::WAKEUPS].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn registry(&self) -> &'static Registry {
        self.registry
    }

    /// A word of the description.
    pub(super) fn described(&self, at: usize) -> u64 {
        self.words.get(at).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    /// Adds what was counted to the totals.
    fn fold(&self) {
        let status = Status::of_word(self.words[field::STATUS].load(Ordering::Relaxed));
        let counted = field::FLOWS
            .map(|from| (0..flow::LEN).map(|at| self.words[from + at].swap(0, Ordering::Relaxed)).collect());
        self.add_to(total::FLOWS, &counted);
        if status.eligible == Some(true) {
            self.registry.add(total::ELIGIBLE, 1);
            self.add_to(total::ELIGIBLE_FLOWS, &counted);
            let [received, sent] = &counted;
            if is_worth_it(&Flow::of_words(received), &Flow::of_words(sent)) {
                self.registry.add(total::SUITED, 1);
                self.add_to(total::SUITED_FLOWS, &counted);
            }
        }
    }

    fn add_to(&self, flows: [usize; 2], counted: &[Vec<u64>; 2]) {
        for (base, counted) in flows.into_iter().zip(counted) {
            for (at, n) in counted.iter().enumerate().filter(|(_, n)| **n > 0) {
                self.registry.add(base + at, *n);
            }
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.registry.fold(|| {
            self.fold();
            self.change(|words| {
                // What was counted is in the totals; no phase means that there is no connection.
                for word in words.iter().take(field::DESCRIPTION).skip(1) {
                    word.store(0, Ordering::Relaxed);
                }
            });
        });
        self.registry.give_back(self.number);
    }
}

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Record({})", self.number)
    }
}

/// True if a connection has carried enough to be promoted by the default policy.
pub(super) fn is_worth_it(received: &Flow, sent: &Flow) -> bool {
    let calls = u32::try_from(received.calls().saturating_add(sent.calls())).unwrap_or(u32::MAX);
    Promotion::default().is_due(received.bytes().saturating_add(sent.bytes()), calls)
}

/// Adds to a word that nobody else writes. Not as one step, which would cost as much as all else together.
#[inline]
fn bump(word: &AtomicU64, n: u64) {
    word.store(word.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

fn set_status(words: &Words, byte: u32, value: u8) {
    let status = words[field::STATUS].load(Ordering::Relaxed) & !(0xff << byte);
    words[field::STATUS].store(status | (u64::from(value) << byte), Ordering::Relaxed);
}

fn set_pair(words: &Words, at: usize, (high, low): (u64, u64)) {
    words[at].store(high, Ordering::Relaxed);
    words[at + 1].store(low, Ordering::Relaxed);
}

/// The two halves of an IPv6 address; one of IPv4 is taken in IPv6 form.
fn ip_bits(ip: IpAddr) -> (u64, u64) {
    let bits = match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().to_bits(),
        IpAddr::V6(ip) => ip.to_bits(),
    };
    ((bits >> 64) as u64, bits as u64)
}

/// What a status word says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Status {
    pub(super) phase: u8,
    pub(super) closed: bool,
    pub(super) eligible: Option<bool>,
    pub(super) in_band: bool,
    pub(super) reason: usize,
}

impl Status {
    pub(super) fn of_word(word: u64) -> Self {
        let byte = |at: u32| (word >> at) as u8;
        Self {
            phase: byte(PHASE),
            closed: byte(CLOSED) != 0,
            eligible: match byte(ELIGIBLE) {
                1 => Some(true),
                2 => Some(false),
                _ => None,
            },
            in_band: byte(IN_BAND) != 0,
            reason: usize::from((word >> NUMBER) as u16),
        }
    }
}

const _: () = assert!(field::DESCRIPTION <= RECORD_WORDS);
