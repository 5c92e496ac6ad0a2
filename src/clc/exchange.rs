//! Moves CLC messages over a stream.
