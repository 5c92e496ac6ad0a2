//! The end of a connection that the peer's flags do not tell: its process is gone, or its device, or ours.

use std::sync::atomic::Ordering;

use super::{Connection, ConnectionError, Tx, lock};
use crate::dibs::DeviceError;

/// True if the device refused because there is no buffer of the peer's any more, or no way to it.
const fn has_let_go(error: &DeviceError) -> bool {
    matches!(
        error,
        DeviceError::UnknownToken(_)
            | DeviceError::StoreRefused { .. }
            | DeviceError::Unreachable(_)
            | DeviceError::Lost
    )
}

impl Connection {
    /// The peer's process has ended. What it published can still be read.
    pub(crate) fn peer_is_gone(&self) {
        self.peer_gone.store(true, Ordering::Release);
    }

    /// The peer's process has ended, or has let go of the connection, unless its flags say that it closes.
    pub(crate) fn peer_is_gone_unless_closing(&self) {
        if self.look_at_peer().is_ok_and(|state| state.is_empty()) {
            self.peer_is_gone();
        }
    }

    /// The doorbell has hung up. Where buffers are descriptors, any process may have them still, and the TCP connection
    /// alone says what has become of the peer. Others go with a device, whatever TCP says.
    pub(crate) fn doorbell_has_ended(&self) {
        if self.ends_with_device() {
            self.peer_is_gone_unless_closing();
        }
    }

    /// True if the end of the doorbell is the end of the connection.
    pub(crate) fn ends_with_device(&self) -> bool {
        !self.dmb.device.supports_handover()
    }

    /// That the peer has let go of its buffer is no error, but the end.
    pub(super) fn unless_let_go(&self, result: Result<(), ConnectionError>) -> Result<(), ConnectionError> {
        match result {
            Err(ConnectionError::Device(error)) if has_let_go(&error) => {
                self.peer_is_gone_unless_closing();
                Ok(())
            }
            other => other,
        }
    }

    /// Why nothing can be written: if the peer has let go of its buffer, what became of it is the reason.
    pub(super) fn explain(&self, tx: &Tx, error: ConnectionError) -> ConnectionError {
        match error {
            ConnectionError::Device(refusal) if has_let_go(&refusal) => {
                self.peer_is_gone_unless_closing();
                self.check_writable(tx).err().unwrap_or(ConnectionError::Device(refusal))
            }
            other => other,
        }
    }

    /// True if the peer will never send its last flags, or they would mean nothing.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.fault.get().is_some() || self.peer_gone.load(Ordering::Acquire)
    }

    /// True if both sides have sent their last flags, so that neither writes to the other's DMB any more.
    pub(crate) fn is_settled(&self) -> bool {
        let _ = self.look_at_peer();
        let out = lock(&self.out);
        self.fault.get().is_none() && out.close.sent().any_close() && out.close.received().any_close()
    }
}

#[cfg(test)]
mod tests {
    use std::{io::IoSlice, thread, time::Duration};

    use bytes::BufMut;

    use super::*;
    use crate::{
        dibs::ism::soft::{End, Fault},
        smc::{
            connection::Progress,
            pair::{connect, ism_stacks},
        },
    };

    /// Reads until something else comes, a little at a time.
    fn read_all(connection: &Connection) -> (Vec<u8>, Result<Progress, ConnectionError>) {
        let mut all = Vec::new();
        loop {
            match connection.try_read(&mut (&mut all).limit(1000)) {
                Ok(Progress::Done(_)) => {}
                other => return (all, other),
            }
        }
    }

    #[test]
    fn what_a_peer_has_written_is_read_after_it_has_let_go() {
        let data: Vec<u8> = (0..600_000u32).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
        for closes in [true, false] {
            let (stacks, fabric) = ism_stacks();
            let [a, b] = connect(&stacks, [1 << 20; 2]);
            let [stack, _others] = stacks;
            assert_eq!(a.connection.try_write(&[IoSlice::new(&data)]).unwrap(), Progress::Done(data.len()));
            if closes {
                a.connection.close();
            }
            // As a process ends: its buffers go, and then the function.
            drop((a, stack));
            while fabric.is_open(0) {
                thread::sleep(Duration::from_millis(1));
            }
            let (all, end) = read_all(&b.connection);
            assert!(all == data, "{} bytes, then {end:?}", all.len());
            let written = b.connection.try_write(&[IoSlice::new(b"x")]).unwrap_err();
            if closes {
                assert_eq!(end.unwrap(), Progress::Eof);
                assert!(matches!(written, ConnectionError::PeerClosed), "{written:?}");
            } else {
                assert!(matches!(end, Err(ConnectionError::PeerGone)), "{end:?}");
                assert!(matches!(written, ConnectionError::PeerGone), "{written:?}");
            }
            b.connection.shutdown_write().unwrap();
        }
    }

    #[test]
    fn writing_by_a_function_that_is_lost_is_a_reset() {
        let (stacks, fabric) = ism_stacks();
        let [a, b] = connect(&stacks, [16384; 2]);
        fabric.inject(0, Fault::End(End::Failure));
        let error = a.connection.try_write(&[IoSlice::new(b"x")]).unwrap_err();
        assert!(matches!(error, ConnectionError::PeerGone), "{error:?}");
        let error = a.connection.try_write_urgent(0).unwrap_err();
        assert!(matches!(error, ConnectionError::PeerGone), "{error:?}");
        drop(b);
    }
}
