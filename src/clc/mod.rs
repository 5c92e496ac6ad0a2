//! Connection Layer Control: the handshake by which two endpoints agree on SMC-D.
