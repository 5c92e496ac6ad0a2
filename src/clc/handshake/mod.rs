//! The state machines of the handshake.
