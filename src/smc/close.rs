//! How a connection ends: the states of SMC-D, as Linux has them.
//!
//! ```text
//!            shutdown/close                     peer: done, closed
//!   Active ─────────────────▶ PeerCloseWait1   Active ───────▶ AppCloseWait1
//!   PeerCloseWait1 ─ peer: done ─▶ PeerCloseWait2        shutdown │   │ close
//!   PeerCloseWait1/2 ─ peer: closed ─▶ Closed            ▼        │   ▼
//!     (AppFinCloseWait, if only shut down)     AppCloseWait2      PeerFinCloseWait
//!   AppFinCloseWait ─ close ─▶ Closed             close ─▶ Closed, if the peer has closed
//!   any ─ peer: abort ─▶ ProcessAbort ─ close ─▶ Closed      PeerFinCloseWait ─ peer: closed ─▶ Closed
//! ```

use super::cdc::StateFlags;

/// State of a connection that has been established. The numbers are those of Linux' diagnosis interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum State {
    /// Both directions are open.
    Active = 1,
    /// Everything is over.
    Closed = 7,
    /// We closed or shut down writing first.
    PeerCloseWait1 = 20,
    /// As before, and the peer has shut down writing.
    PeerCloseWait2 = 21,
    /// The peer closed or shut down writing first.
    AppCloseWait1 = 22,
    /// As before, and we have shut down writing.
    AppCloseWait2 = 23,
    /// We shut down writing, then the peer closed; our application has still to close.
    AppFinCloseWait = 24,
    /// The peer shut down writing, then we closed; the peer has still to close.
    PeerFinCloseWait = 25,
    /// The peer aborted; our application has still to close.
    ProcessAbort = 27,
}

impl State {
    fn from_code(code: u8) -> Option<Self> {
        let all = [
            Self::Active,
            Self::Closed,
            Self::PeerCloseWait1,
            Self::PeerCloseWait2,
            Self::AppCloseWait1,
            Self::AppCloseWait2,
            Self::AppFinCloseWait,
            Self::PeerFinCloseWait,
            Self::ProcessAbort,
        ];
        all.into_iter().find(|state| *state as u8 == code)
    }
}

/// The state, the flags that were sent and received. Each step says which flags are to be sent now, if any.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct CloseState {
    state: State,
    sent: StateFlags,
    received: StateFlags,
}

impl CloseState {
    /// Of a connection just established.
    pub(crate) fn new() -> Self {
        Self { state: State::Active, sent: StateFlags::empty(), received: StateFlags::empty() }
    }

    /// All of it, for a snapshot.
    pub(crate) fn to_bytes(self) -> [u8; 3] {
        [self.state as u8, self.sent.bits(), self.received.bits()]
    }

    /// Reads a snapshot; `None` if it is none.
    pub(crate) fn from_bytes([state, sent, received]: [u8; 3]) -> Option<Self> {
        let (sent, received) = (StateFlags::from_bits(sent)?, StateFlags::from_bits(received)?);
        Some(Self { state: State::from_code(state)?, sent, received })
    }

    #[cfg(test)]
    fn state(&self) -> State {
        self.state
    }

    /// All flags sent so far; they are sticky.
    pub(crate) fn sent(&self) -> StateFlags {
        self.sent
    }

    /// All flags received so far.
    pub(crate) fn received(&self) -> StateFlags {
        self.received
    }

    /// The application shuts down writing. What it wrote before is in the peer's ring.
    pub(crate) fn shutdown_write(&mut self) -> Option<StateFlags> {
        let next = match self.state {
            State::Active => State::PeerCloseWait1,
            State::AppCloseWait1 => State::AppCloseWait2,
            _ => return None,
        };
        self.state = next;
        self.send(StateFlags::DONE_WRITING)
    }

    /// The application closes. Closing with unread data is an abort.
    pub(crate) fn close(&mut self, unread: bool) -> Option<StateFlags> {
        let last = if unread { StateFlags::ABORT } else { StateFlags::CLOSED };
        match self.state {
            State::Active => {
                self.state = State::PeerCloseWait1;
                self.send(last)
            }
            State::AppCloseWait1 | State::AppCloseWait2 => {
                let peer_closed = self.received.any_close();
                self.state = if peer_closed { State::Closed } else { State::PeerFinCloseWait };
                self.send(last)
            }
            State::AppFinCloseWait => {
                self.state = State::Closed;
                self.send_last(last)
            }
            State::PeerCloseWait1 | State::PeerCloseWait2 => self.send_last(last),
            State::ProcessAbort => {
                self.state = State::Closed;
                self.send(StateFlags::ABORT)
            }
            State::PeerFinCloseWait => None,
            // The peer aborted after both had shut down. It waits for our last flags, as always.
            State::Closed => self.send_last(StateFlags::ABORT),
        }
    }

    /// We abort: the peer broke the protocol.
    pub(crate) fn abort(&mut self) -> Option<StateFlags> {
        if self.state == State::Closed {
            return None;
        }
        self.state = State::Closed;
        self.send_last(StateFlags::ABORT)
    }

    /// Flags from the peer.
    pub(crate) fn on_flags(&mut self, flags: StateFlags) {
        let only_shut_down = self.sent.contains(StateFlags::DONE_WRITING) && !self.sent.any_close();
        self.received |= flags;
        if self.received.contains(StateFlags::ABORT) {
            self.state = match self.state {
                State::Active | State::AppCloseWait1 | State::AppFinCloseWait | State::ProcessAbort => {
                    State::ProcessAbort
                }
                State::PeerCloseWait1 | State::PeerCloseWait2 if only_shut_down => State::ProcessAbort,
                _ => State::Closed,
            };
            return;
        }
        match self.state {
            State::Active if !self.received.is_empty() => self.state = State::AppCloseWait1,
            State::PeerCloseWait1 | State::PeerCloseWait2 => {
                if self.received.contains(StateFlags::CLOSED) {
                    self.state = if only_shut_down { State::AppFinCloseWait } else { State::Closed };
                } else if self.received.contains(StateFlags::DONE_WRITING) {
                    self.state = State::PeerCloseWait2;
                }
            }
            State::PeerFinCloseWait if self.received.contains(StateFlags::CLOSED) => {
                self.state = State::Closed
            }
            _ => {}
        }
    }

    fn send(&mut self, flags: StateFlags) -> Option<StateFlags> {
        self.sent |= flags;
        Some(self.sent)
    }

    /// The last flags, unless they were sent already.
    fn send_last(&mut self, flags: StateFlags) -> Option<StateFlags> {
        if self.sent.any_close() { None } else { self.send(flags) }
    }
}

#[cfg(test)]
mod tests {
    use super::State::*;
    use super::*;

    const DONE: StateFlags = StateFlags::DONE_WRITING;
    const CLOSED: StateFlags = StateFlags::CLOSED;
    const ABORT: StateFlags = StateFlags::ABORT;

    /// Two ends whose flags arrive at once.
    struct Pair(CloseState, CloseState);

    impl Pair {
        fn new() -> Self {
            Self(CloseState::new(), CloseState::new())
        }

        fn left(&mut self, step: impl FnOnce(&mut CloseState) -> Option<StateFlags>) {
            if let Some(flags) = step(&mut self.0) {
                self.1.on_flags(flags);
            }
        }

        fn right(&mut self, step: impl FnOnce(&mut CloseState) -> Option<StateFlags>) {
            if let Some(flags) = step(&mut self.1) {
                self.0.on_flags(flags);
            }
        }

        #[track_caller]
        fn are(&self, left: State, right: State) {
            assert_eq!((self.0.state(), self.1.state()), (left, right));
        }
    }

    fn close(c: &mut CloseState) -> Option<StateFlags> {
        c.close(false)
    }

    #[test]
    fn one_closes_then_the_other() {
        let mut p = Pair::new();
        p.left(close);
        p.are(PeerCloseWait1, AppCloseWait1);
        p.right(close);
        p.are(Closed, Closed);
    }

    #[test]
    fn half_close_then_the_peer_closes() {
        let mut p = Pair::new();
        p.left(CloseState::shutdown_write);
        p.are(PeerCloseWait1, AppCloseWait1);
        p.right(close);
        p.are(AppFinCloseWait, PeerFinCloseWait);
        p.left(close);
        p.are(Closed, Closed);
        assert_eq!(p.0.sent(), DONE | CLOSED);
    }

    #[test]
    fn both_shut_down_then_close() {
        let mut p = Pair::new();
        p.left(CloseState::shutdown_write);
        p.right(CloseState::shutdown_write);
        p.are(PeerCloseWait2, AppCloseWait2);
        p.left(close);
        p.are(PeerCloseWait2, AppCloseWait2);
        p.right(close);
        p.are(Closed, Closed);
    }

    #[test]
    fn both_close_at_once() {
        let (mut a, mut b) = (CloseState::new(), CloseState::new());
        let (from_a, from_b) = (a.close(false).unwrap(), b.close(false).unwrap());
        a.on_flags(from_b);
        b.on_flags(from_a);
        assert_eq!((a.state(), b.state()), (Closed, Closed));
    }

    #[test]
    fn closing_with_unread_data_aborts() {
        let mut p = Pair::new();
        p.left(|c| c.close(true));
        p.are(PeerCloseWait1, ProcessAbort);
        assert_eq!(p.0.sent(), ABORT);
        p.right(close);
        p.are(Closed, Closed);
    }

    #[test]
    fn an_abort_meets_every_state() {
        let after = |steps: &[fn(&mut CloseState)]| {
            let mut c = CloseState::new();
            steps.iter().for_each(|step| step(&mut c));
            c.on_flags(ABORT);
            c.state()
        };
        let done: fn(&mut CloseState) = |c| c.on_flags(DONE);
        let closed: fn(&mut CloseState) = |c| c.on_flags(CLOSED);
        let shut: fn(&mut CloseState) = |c| _ = c.shutdown_write();
        let close: fn(&mut CloseState) = |c| _ = c.close(false);
        assert_eq!(after(&[]), ProcessAbort);
        assert_eq!(after(&[done]), ProcessAbort);
        assert_eq!(after(&[shut]), ProcessAbort);
        assert_eq!(after(&[shut, closed]), ProcessAbort);
        assert_eq!(after(&[shut, done]), ProcessAbort);
        assert_eq!(after(&[close]), Closed);
        assert_eq!(after(&[shut, close]), Closed);
        assert_eq!(after(&[done, shut]), Closed);
        assert_eq!(after(&[done, close]), Closed);
    }

    #[test]
    fn a_late_close_is_noticed_when_the_application_closes() {
        let mut c = CloseState::new();
        c.on_flags(DONE);
        c.on_flags(DONE | CLOSED);
        assert_eq!(c.state(), AppCloseWait1);
        assert_eq!(c.close(false), Some(CLOSED));
        assert_eq!(c.state(), Closed);
    }

    #[test]
    fn flags_are_sent_once_and_stick() {
        let mut c = CloseState::new();
        assert_eq!(c.shutdown_write(), Some(DONE));
        assert_eq!(c.shutdown_write(), None);
        assert_eq!(c.close(false), Some(DONE | CLOSED));
        assert_eq!(c.close(false), None);
    }

    #[test]
    fn an_abort_after_both_have_shut_down_is_answered() {
        let mut p = Pair::new();
        p.left(CloseState::shutdown_write);
        p.right(CloseState::shutdown_write);
        p.left(|c| c.close(true));
        p.right(close);
        assert!(p.0.received().any_close() && p.1.received().any_close());
        p.are(Closed, Closed);
    }

    #[test]
    fn a_local_abort_ends_it() {
        let mut c = CloseState::new();
        assert_eq!(c.abort(), Some(ABORT));
        assert_eq!(c.state(), Closed);
        assert_eq!(c.abort(), None);
        assert_eq!(c.close(false), None);
    }
}
