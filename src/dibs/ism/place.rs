//! Where a function is, in words: for settings.

use super::{Ism, IsmError};

impl Ism {
    /// Takes the function into use that is at this place: with the feature `vfio-user` the socket of a server, such as
    /// `smcdctl soft-ism`; with the feature `vfio` the address of a PCI function, such as `0000:00:00.0`.
    ///
    /// # Errors
    /// [`IsmError::Place`] if that is no such place, or as for each of them.
    pub fn at(place: &str) -> Result<Self, IsmError> {
        #[cfg(feature = "vfio-user")]
        if place.contains('/') {
            return Self::connect(place);
        }
        #[cfg(feature = "vfio")]
        return Self::open_vfio(place);
        #[cfg(not(feature = "vfio"))]
        {
            let _ = place;
            Err(IsmError::Place)
        }
    }
}
