//! Following the CDC messages of another process.

use std::{collections::HashMap, net::SocketAddr, time::SystemTime};

use super::{
    layout::{EVENT_WORDS, EVENTS, TRACE, TRACE_AT, TRACE_HEAD},
    process::Process,
    snapshot::{address, time},
    source::{BadRegistry, Source},
    trace::{control, event, seconds_left},
};

/// For so many seconds tracing goes on without being renewed.
const LEASE: u64 = 5;

/// Connections of which the last words are remembered.
const MAX_KNOWN: usize = 64 * 1024;

/// A process publishes a CDC message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct CdcEvent {
    /// When.
    pub time: SystemTime,
    /// The address of the end that publishes it.
    pub local: SocketAddr,
    /// The address of the other end, for which it is.
    pub peer: SocketAddr,
    /// The kernel's number for the socket of the connection.
    pub cookie: u64,
    /// Bytes of the ring that the end reads from.
    pub receive_buffer: u32,
    /// Bytes of the ring that it writes to.
    pub send_buffer: u32,
    /// The producer cursor was published.
    pub has_prod: bool,
    /// The consumer cursor and the flags were published.
    pub has_cons: bool,
    /// The producer cursor is known: by this event or an earlier one.
    pub knows_prod: bool,
    /// The consumer cursor and the flags are known.
    pub knows_cons: bool,
    /// The message as it stands in the peer's memory now. What is not known is zero.
    pub cdc: [u8; 32],
}

/// Follows the CDC messages that a process publishes. Dropping it ends that.
#[derive(Debug)]
pub struct Tracer {
    source: Source,
    port: u16,
    /// Number of the next event.
    next: u64,
    lost: u64,
    /// The event that was not complete at the last look.
    incomplete: Option<u64>,
    /// The last words of each connection.
    known: HashMap<u64, (Option<u64>, Option<u64>)>,
}

impl Process {
    /// Begins to follow the CDC messages that this process publishes: those of connections that have this port at
    /// either end, or all.
    ///
    /// # Errors
    /// [`BadRegistry::Traced`] if somebody else does already; or if its registry cannot be written to.
    pub fn trace(&self, port: Option<u16>) -> Result<Tracer, BadRegistry> {
        let source = self.writable()?;
        if seconds_left(source.word(TRACE)?) > 0 {
            return Err(BadRegistry::Traced);
        }
        let port = port.unwrap_or(0);
        let next = source.word(TRACE_HEAD)?;
        source.set_word(TRACE, control(port, LEASE))?;
        Ok(Tracer { source, port, next, lost: 0, incomplete: None, known: HashMap::new() })
    }
}

impl Tracer {
    /// What was published since the last time, and goes on. To be called every second at least. What comes faster than
    /// it is fetched is lost.
    ///
    /// # Errors
    /// If the registry cannot be read.
    pub fn poll(&mut self) -> Result<Vec<CdcEvent>, BadRegistry> {
        if seconds_left(self.source.word(TRACE)?) < LEASE - 1 {
            self.source.set_word(TRACE, control(self.port, LEASE))?;
        }
        let head = self.source.word(TRACE_HEAD)?;
        let there = head.wrapping_sub(self.next);
        if there > EVENTS as u64 {
            self.skip(there - EVENTS as u64);
        }
        let mut found = Vec::new();
        while self.next != head {
            let slots = (EVENTS as u64 - self.next % EVENTS as u64).min(head.wrapping_sub(self.next));
            if !self.take(slots as usize, &mut found)? {
                break;
            }
        }
        Ok(found)
    }

    /// Events that came too fast.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    fn skip(&mut self, events: u64) {
        self.lost = self.lost.saturating_add(events);
        self.next = self.next.wrapping_add(events);
    }

    /// Takes events that lie one behind the other. False if one is not complete yet.
    fn take(&mut self, slots: usize, found: &mut Vec<CdcEvent>) -> Result<bool, BadRegistry> {
        let first = self.next;
        let mut words = vec![0; slots * EVENT_WORDS];
        self.source.read(TRACE_AT + (first % EVENTS as u64) as usize * EVENT_WORDS, &mut words)?;
        // What was written meanwhile may have been written over what was being read.
        let spoilt = self.source.word(TRACE_HEAD)?.wrapping_sub(EVENTS as u64).wrapping_sub(first);
        for (at, words) in words.as_chunks::<EVENT_WORDS>().0.iter().enumerate() {
            let is_spoilt = (spoilt as i64) > at as i64;
            if !is_spoilt && words[event::SEQ] != self.next.wrapping_add(1) {
                // Its writer is at it; or has died over it, if it is still so the next time.
                if self.incomplete.replace(self.next) != Some(self.next) {
                    return Ok(false);
                }
                self.skip(1);
            } else if is_spoilt {
                self.skip(1);
            } else {
                found.push(self.event(words));
                self.next = self.next.wrapping_add(1);
            }
        }
        Ok(true)
    }

    fn event(&mut self, words: &[u64; EVENT_WORDS]) -> CdcEvent {
        let (has_prod, has_cons) = (words[event::WHICH] & 1 != 0, words[event::WHICH] & 2 != 0);
        let (rings, ports) = (words[event::RINGS], words[event::PORTS]);
        if self.known.len() >= MAX_KNOWN {
            self.known.clear();
        }
        let (prod, cons) = self.known.entry(words[event::COOKIE]).or_default();
        if has_prod {
            *prod = Some(words[event::PROD]);
        }
        if has_cons {
            *cons = Some(words[event::CONS]);
        }
        CdcEvent {
            time: time(words[event::TIME]),
            local: address(words, event::LOCAL, (ports >> 16) as u16),
            peer: address(words, event::PEER, ports as u16),
            cookie: words[event::COOKIE],
            receive_buffer: (rings >> 32) as u32,
            send_buffer: rings as u32,
            has_prod,
            has_cons,
            knows_prod: prod.is_some(),
            knows_cons: cons.is_some(),
            cdc: message(prod.unwrap_or(0), cons.unwrap_or(0)),
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // If this fails the lease ends it.
        let _ = self.source.set_word(TRACE, 0);
    }
}

/// A CDC message with these words.
fn message(prod: u64, cons: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[0] = 0xfe;
    bytes[8..16].copy_from_slice(&prod.to_ne_bytes());
    bytes[16..24].copy_from_slice(&cons.to_ne_bytes());
    bytes
}

#[cfg(test)]
mod tests;
