//! Lists of bounded length.

use std::{ops::Deref, slice, vec};

/// A list of at most `N` elements; reads like a slice.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UpTo<T, const N: usize>(Vec<T>);

/// A list holds as many elements as the protocol allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {max} elements")]
pub struct ListFull {
    /// The limit.
    pub max: usize,
}

impl<T, const N: usize> UpTo<T, N> {
    /// An empty list.
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// The first `N` elements of `items`; the others are left out.
    pub fn first_of(items: impl IntoIterator<Item = T>) -> Self {
        Self(items.into_iter().take(N).collect())
    }

    /// Appends one element.
    ///
    /// # Errors
    ///
    /// [`ListFull`] if there are `N` already.
    pub fn push(&mut self, item: T) -> Result<(), ListFull> {
        if self.0.len() >= N {
            return Err(ListFull { max: N });
        }
        self.0.push(item);
        Ok(())
    }

    /// How many more elements fit.
    pub fn room(&self) -> usize {
        N.saturating_sub(self.0.len())
    }

    /// The number of elements as the wire counts them.
    pub(super) fn count(&self) -> u8 {
        self.0.len() as u8 // every list of CLC is bounded by 8
    }
}

impl<T, const N: usize> Default for UpTo<T, N> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, const N: usize> Deref for UpTo<T, N> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T, const N: usize> TryFrom<Vec<T>> for UpTo<T, N> {
    type Error = ListFull;

    fn try_from(items: Vec<T>) -> Result<Self, ListFull> {
        if items.len() > N { Err(ListFull { max: N }) } else { Ok(Self(items)) }
    }
}

impl<T, const N: usize> IntoIterator for UpTo<T, N> {
    type Item = T;
    type IntoIter = vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a, T, const N: usize> IntoIterator for &'a UpTo<T, N> {
    type Item = &'a T;
    type IntoIter = slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_longer_than_the_limit() {
        let mut list = UpTo::<_, 2>::first_of([1, 2, 3]);
        assert_eq!(*list, [1, 2]);
        assert_eq!(list.push(3), Err(ListFull { max: 2 }));
        assert_eq!(UpTo::<_, 2>::try_from(vec![1, 2, 3]), Err(ListFull { max: 2 }));
        assert_eq!(list.room(), 0);
    }
}
