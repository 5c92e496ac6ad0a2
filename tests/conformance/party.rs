//! A device that takes part, wherever it is.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use smcd::dibs::{Cause, Chid, Device, DeviceError, Dmb, DmbToken, Gid, RemoteDmb};

/// Why a device refused: what its error is called in [`DeviceError`].
#[derive(Debug, Serialize, Deserialize)]
pub struct Refusal(String);

impl Refusal {
    /// True if the error is one of these.
    pub fn is_one_of(&self, names: &[&str]) -> bool {
        names.contains(&self.0.as_str())
    }
}

impl From<DeviceError> for Refusal {
    fn from(error: DeviceError) -> Self {
        let text = format!("{error:?}");
        Self(text.split([' ', '(']).next().unwrap_or_default().to_owned())
    }
}

/// A device of this process or of another, as far as the suite needs it.
pub trait Party: Send + Sync {
    fn fabric_id(&self) -> Chid;
    fn gid(&self) -> Gid;
    fn max_dmbs(&self) -> usize;
    fn query(&self, gid: Gid) -> Result<(), Refusal>;
    fn register(&self, user: Gid, len: usize) -> Result<Box<dyn Buffer>, Refusal>;
    fn move_data(&self, token: DmbToken, signal: bool, offset: usize, data: &[u8]) -> Result<(), Refusal>;
    fn attach(&self, owner: Gid, token: DmbToken, len: usize) -> Result<Box<dyn Mapped>, Refusal>;
}

/// A DMB, at its owner.
pub trait Buffer: Send {
    fn token(&self) -> DmbToken;
    fn read(&self, offset: usize, len: usize) -> Vec<u8>;
}

/// A DMB, at its user.
pub trait Mapped: Send {
    fn identity(&self) -> (Gid, DmbToken, usize);
    fn write(&self, offset: usize, data: &[u8]);
    fn ring(&self, cause: Cause);
    fn is_hung_up(&self) -> bool;
}

impl Party for Arc<dyn Device> {
    fn fabric_id(&self) -> Chid {
        (**self).fabric_id()
    }

    fn gid(&self) -> Gid {
        (**self).gid()
    }

    fn max_dmbs(&self) -> usize {
        (**self).max_dmbs()
    }

    fn query(&self, gid: Gid) -> Result<(), Refusal> {
        Ok(self.query_remote_gid(gid, None)?)
    }

    fn register(&self, user: Gid, len: usize) -> Result<Box<dyn Buffer>, Refusal> {
        Ok(Box::new(self.register_dmb(user, len, None)?))
    }

    fn move_data(&self, token: DmbToken, signal: bool, offset: usize, data: &[u8]) -> Result<(), Refusal> {
        Ok((**self).move_data(token, 0, signal, offset, data)?)
    }

    fn attach(&self, owner: Gid, token: DmbToken, len: usize) -> Result<Box<dyn Mapped>, Refusal> {
        Ok(Box::new(self.attach_dmb(owner, token, len)?))
    }
}

impl Buffer for Dmb {
    fn token(&self) -> DmbToken {
        self.token()
    }

    fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        // What is not read shows.
        let mut got = vec![0xee; len];
        self.memory().read(offset, &mut got).unwrap();
        got
    }
}

impl Mapped for RemoteDmb {
    fn identity(&self) -> (Gid, DmbToken, usize) {
        (self.owner(), self.token(), self.len())
    }

    fn write(&self, offset: usize, data: &[u8]) {
        self.memory().write(offset, data).unwrap();
    }

    fn ring(&self, cause: Cause) {
        self.doorbell().ring(cause);
    }

    fn is_hung_up(&self) -> bool {
        self.doorbell().is_hung_up()
    }
}
