//! Waiting for a message, with an end.

use std::time::{Duration, Instant};

use super::{HandshakeError, Violation};
use crate::clc::wire::{Message, MsgType};

/// What an [`Instant`] can be moved by on every platform; stands for any timeout above.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The wait for one message of the peer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wait {
    expected: MsgType,
    timeout: Duration,
    pub(super) deadline: Instant,
}

impl Wait {
    pub(super) fn new(expected: MsgType, now: Instant, timeout: Duration) -> Self {
        Self { expected, timeout, deadline: now + timeout.min(LONGEST) }
    }

    pub(super) fn handle_timeout(&self, now: Instant) -> Result<(), HandshakeError> {
        let Self { expected, timeout, deadline } = *self;
        if now < deadline { Ok(()) } else { Err(HandshakeError::TimedOut { expected, timeout }) }
    }

    /// What a message other than the expected one means. Every state ends up here with it.
    pub(super) fn other(&self, message: &Message) -> HandshakeError {
        match message {
            Message::Decline(decline) => HandshakeError::PeerDeclined {
                diagnosis: decline.diagnosis,
                out_of_sync: decline.out_of_sync,
            },
            _ => Violation::Message { expected: self.expected, got: message.msg_type() }.into(),
        }
    }
}
