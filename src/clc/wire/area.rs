//! Bounds-checked access to fixed layouts inside a message.

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::DecodeError;

/// A byte layout: fields in wire order, no padding, any bytes valid.
///
/// A blanket trait, to name the bounds once.
pub(super) trait Layout: FromBytes + KnownLayout + Immutable + Unaligned {}

impl<T: FromBytes + KnownLayout + Immutable + Unaligned> Layout for T {}

/// The bytes of a message, from its start.
#[derive(Clone, Copy)]
pub(super) struct Area<'a>(pub(super) &'a [u8]);

impl Area<'_> {
    /// The layout `T` at `offset` bytes from the start.
    pub(super) fn at<T: Layout>(&self, offset: usize) -> Result<T, DecodeError> {
        let bytes = self.0.get(offset..).and_then(|rest| T::read_from_prefix(rest).ok());
        bytes.map(|(layout, _)| layout).ok_or(DecodeError::OutOfBounds { offset, len: size_of::<T>() })
    }

    /// `count` layouts `T`, packed, the first at `offset` bytes from the start.
    pub(super) fn list<T: Layout>(&self, offset: usize, count: u8) -> Result<Vec<T>, DecodeError> {
        let step = size_of::<T>();
        (0..usize::from(count)).map(|i| self.at(offset.saturating_add(step.saturating_mul(i)))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_end_with_the_bytes() {
        let area = Area(&[1, 2, 3, 4, 5]);
        assert_eq!(area.at::<[u8; 2]>(3), Ok([4, 5]));
        assert_eq!(area.at::<[u8; 2]>(4), Err(DecodeError::OutOfBounds { offset: 4, len: 2 }));
        assert_eq!(area.at::<[u8; 2]>(9), Err(DecodeError::OutOfBounds { offset: 9, len: 2 }));
        assert_eq!(area.list::<[u8; 2]>(1, 2), Ok(vec![[2, 3], [4, 5]]));
        assert_eq!(area.list::<[u8; 2]>(2, 2), Err(DecodeError::OutOfBounds { offset: 4, len: 2 }));
        assert!(area.list::<[u8; 2]>(usize::MAX, 255).is_err());
    }
}
