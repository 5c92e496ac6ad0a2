//! The configuration space of a function: the usual head, and behind it the [capability] that
//! describes the function.

use super::super::{
    capability,
    transport::{Description, config},
};

/// Bytes of it.
pub(super) const LEN: usize = 256;

/// Where the capability is.
const CAPABILITY: usize = 0x40;

/// The configuration space of a function.
#[derive(Clone, Debug)]
pub(super) struct Config([u8; LEN]);

impl Config {
    pub(super) fn new(description: &Description) -> Self {
        let mut bytes = [0; LEN];
        let parts: [(usize, &[u8]); 4] = [
            (config::IDENTITY as usize, &config::ISM.to_le_bytes()),
            // There are capabilities, and the first is there.
            (config::STATUS, &[config::HAS_CAPABILITIES]),
            (config::CAPABILITIES, &[CAPABILITY as u8]),
            (CAPABILITY, &capability::emit(description)),
        ];
        for (at, part) in parts {
            bytes.iter_mut().skip(at).zip(part).for_each(|(to, from)| *to = *from);
        }
        Self(bytes)
    }

    /// False if that is not within.
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> bool {
        let from = usize::try_from(offset).ok().and_then(|at| self.0.get(at..)?.get(..out.len()));
        from.map(|from| out.copy_from_slice(from)).is_some()
    }

    /// Only the command can be changed. False if more is asked for.
    pub(super) fn write(&mut self, offset: u64, data: &[u8]) -> bool {
        let Some((command, data)) = self.0.get_mut(config::COMMAND as usize..).zip(data.first_chunk::<2>())
        else {
            return false;
        };
        if offset != config::COMMAND {
            return false;
        }
        command.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
        true
    }

    fn command(&self) -> u16 {
        let mut command = [0; 2];
        self.read(config::COMMAND, &mut command);
        u16::from_le_bytes(command)
    }

    /// The function answers at its regions.
    pub(super) fn is_enabled(&self) -> bool {
        self.command() & config::MEMORY != 0
    }

    /// The function may use memory.
    pub(super) fn is_master(&self) -> bool {
        self.command() & config::MASTER != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dibs::Chid;

    #[test]
    fn it_says_what_the_function_is() {
        let description =
            Description { fabric: Chid(0x1234), window: 0x1000..1 << 32, max_store: 4096, pnetid: None };
        let config = Config::new(&description);
        let mut bytes = [0; LEN];
        assert!(config.read(0, &mut bytes));
        assert_eq!(bytes[..4], [0x14, 0x10, 0xed, 0x04]);
        assert_eq!(capability::find(&bytes), Some(description));
    }

    #[test]
    fn only_the_command_is_written() {
        let mut config =
            Config::new(&Description { fabric: Chid(1), window: 0..1, max_store: 1, pnetid: None });
        assert!(!config.is_enabled() && !config.is_master());
        assert!(config.write(4, &[6, 0]));
        assert!(config.is_enabled() && config.is_master());
        assert!(!config.write(0, &[6, 0]) && !config.write(4, &[0]) && !config.write(u64::MAX, &[0, 0]));
        assert!(!config.read(255, &mut [0; 2]) && !config.read(u64::MAX, &mut [0]));
    }
}
