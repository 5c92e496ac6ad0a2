//! When a TCP connection is worth promoting.

/// When a connection, which always starts as TCP, is promoted to SMC-D.
///
/// Both ends have to want it, each by its own policy. Promotion costs about as much as a few dozen messages, so
/// connections that carry less are better left alone.
///
/// An end that wants it waits for the other one, while the connection goes on as TCP. After 256 calls of each kind, or 32
/// MiB, and 200 ms, it waits no longer: then the peer has no such library, and the connection stays TCP
/// ([`FallbackReason::PeerNotSmc`](crate::FallbackReason::PeerNotSmc)). Policies of two ends that differ by more than that
/// miss each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Promotion {
    /// At once.
    Eager,
    /// When this end has read and written so many bytes, or has done so in so many calls; whichever comes first.
    After {
        /// Bytes read and written together.
        bytes: u64,
        /// Calls that read or wrote something.
        messages: u32,
    },
    /// Never: the connection stays TCP.
    Off,
}

/// After 256 KiB or 24 messages.
impl Default for Promotion {
    fn default() -> Self {
        Self::After { bytes: 256 * 1024, messages: 24 }
    }
}

impl Promotion {
    /// True if a connection that has carried so much is to be promoted.
    pub(crate) fn is_due(self, bytes: u64, messages: u32) -> bool {
        match self {
            Self::Eager => true,
            Self::After { bytes: enough, messages: many } => bytes >= enough || messages >= many,
            Self::Off => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whichever_comes_first() {
        let after = Promotion::After { bytes: 100, messages: 3 };
        assert!(!after.is_due(99, 2));
        assert!(after.is_due(100, 1));
        assert!(after.is_due(0, 3));
        assert!(Promotion::Eager.is_due(0, 0));
        assert!(!Promotion::Off.is_due(u64::MAX, u32::MAX));
    }
}
