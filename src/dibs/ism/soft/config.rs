//! The configuration space of a function.
//!
//! Behind the usual head comes a vendor's capability with what Linux tells of a real function beside its regions, so that
//! a client which has no more than the regions learns it too. Little-endian:
//!
//! | byte | content |
//! |---|---|
//! | 0x40 | 0x09, 0, 24, 1: a vendor's capability, the last, of 24 bytes, in its first form |
//! | 0x44 | fabric (PCHID), 16 bits |
//! | 0x46 | bytes of the longest store block, 16 bits |
//! | 0x48 | first address for memory, 64 bits |
//! | 0x50 | last address for memory, 64 bits |

use super::super::transport::{Description, config};

/// Bytes of it.
pub(super) const LEN: usize = 256;

const CAPABILITY: usize = 0x40;
const CAPABILITY_HEAD: [u8; 4] = [9, 0, 24, 1];

/// The configuration space of a function.
#[derive(Clone, Debug)]
pub(super) struct Config([u8; LEN]);

impl Config {
    pub(super) fn new(description: &Description) -> Self {
        let mut bytes = [0; LEN];
        let longest = u16::try_from(description.max_store).unwrap_or(u16::MAX);
        let parts: [(usize, &[u8]); 8] = [
            (config::IDENTITY as usize, &config::ISM.to_le_bytes()),
            // There are capabilities, and the first is there.
            (0x06, &[0x10]),
            (0x34, &[CAPABILITY as u8]),
            (CAPABILITY, &CAPABILITY_HEAD),
            (0x44, &description.fabric.0.to_le_bytes()),
            (0x46, &longest.to_le_bytes()),
            (0x48, &description.window.start.to_le_bytes()),
            (0x50, &(description.window.end.saturating_sub(1)).to_le_bytes()),
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

/// What the capability says; `None` if there is none of this form.
#[cfg(test)]
pub(super) fn description(bytes: &[u8]) -> Option<Description> {
    let bytes = bytes.get(CAPABILITY..)?.first_chunk::<24>()?;
    let (words, _) = bytes.as_chunks::<8>();
    let [head, start, last] = *words else { return None };
    let [a, b, c, d, fabric @ .., e, f] = head;
    (CAPABILITY_HEAD == [a, b, c, d]).then(|| Description {
        fabric: crate::dibs::Chid(u16::from_le_bytes(fabric)),
        window: u64::from_le_bytes(start)..u64::from_le_bytes(last).saturating_add(1),
        max_store: u16::from_le_bytes([e, f]).into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dibs::Chid;

    #[test]
    fn it_says_what_the_function_is() {
        let description = Description { fabric: Chid(0x1234), window: 0x1000..1 << 32, max_store: 4096 };
        let config = Config::new(&description);
        let mut bytes = [0; LEN];
        assert!(config.read(0, &mut bytes));
        assert_eq!(bytes[..4], [0x14, 0x10, 0xed, 0x04]);
        assert_eq!(super::description(&bytes), Some(description));
        bytes[0x43] = 2;
        assert_eq!(super::description(&bytes), None);
        assert_eq!(super::description(&bytes[..80]), None);
    }

    #[test]
    fn only_the_command_is_written() {
        let mut config = Config::new(&Description { fabric: Chid(1), window: 0..1, max_store: 1 });
        assert!(!config.is_enabled() && !config.is_master());
        assert!(config.write(4, &[6, 0]));
        assert!(config.is_enabled() && config.is_master());
        assert!(!config.write(0, &[6, 0]) && !config.write(4, &[0]) && !config.write(u64::MAX, &[0, 0]));
        assert!(!config.read(255, &mut [0; 2]) && !config.read(u64::MAX, &mut [0]));
    }
}
