//! Where a region is, in words: for settings.

use std::{fs, os::unix::fs::FileTypeExt, path::Path};

use super::{ConnectError, Region, RegionError};

/// Why a region cannot be joined that was named by a setting.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PlaceError {
    /// It is the socket of a server.
    #[error(transparent)]
    Server(#[from] ConnectError),
    /// It is a file or a DAX device.
    #[error(transparent)]
    File(#[from] RegionError),
    /// It is a PCI function.
    #[cfg(feature = "vfio")]
    #[error(transparent)]
    Function(#[from] super::VfioRegionError),
}

impl Region {
    /// Joins the region that is at this place: the socket of a server (`smcdctl fabric serve`), a file, a DAX device, or, with
    /// the feature `vfio`, the address of a PCI function such as `0000:00:05.0`. Where a region has nobody who gives out
    /// slots, `@` and the slot follow.
    ///
    /// # Errors
    /// As [`Region::connect`], [`Region::open`] and [`Region::open_slot`].
    pub fn at(place: &str) -> Result<Self, PlaceError> {
        #[cfg(feature = "vfio")]
        if is_pci_address(place) {
            return Ok(Self::open_vfio(place)?);
        }
        let (path, slot) = split(place);
        if fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
            return Ok(Self::connect(path)?);
        }
        Ok(match slot {
            Some(slot) => Self::open_slot(path, slot)?,
            None => Self::open(path)?,
        })
    }
}

/// Path and slot. A file of that very name comes first.
fn split(place: &str) -> (&Path, Option<usize>) {
    let whole = (Path::new(place), None);
    if Path::new(place).exists() {
        return whole;
    }
    let Some((path, slot)) = place.rsplit_once('@') else { return whole };
    slot.parse().map_or(whole, |slot| (Path::new(path), Some(slot)))
}

/// True if it looks like `0000:00:05.0`.
#[cfg(any(feature = "vfio", test))]
fn is_pci_address(place: &str) -> bool {
    let pattern = b"xxxx:xx:xx.x";
    place.len() == pattern.len()
        && place.bytes().zip(pattern).all(|(byte, kind)| match kind {
            b'x' => byte.is_ascii_hexdigit(),
            kind => byte == *kind,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_comes_last() {
        assert_eq!(split("/dev/dax0.0@3"), (Path::new("/dev/dax0.0"), Some(3)));
        assert_eq!(split("/none/here"), (Path::new("/none/here"), None));
        assert_eq!(split("/none@here"), (Path::new("/none@here"), None));
        assert_eq!(split(""), (Path::new(""), None));
    }

    #[test]
    fn pci_addresses_are_known_by_their_form() {
        assert!(is_pci_address("0000:00:05.0") && is_pci_address("abcd:1F:00.7"));
        assert!(
            !is_pci_address("0000:00:05")
                && !is_pci_address("/dev/dax0.0")
                && !is_pci_address("0000:00:0g.0")
        );
    }
}
