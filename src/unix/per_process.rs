//! Statics that a process does not inherit by `fork`.

use std::sync::OnceLock;

use super::generation::Generation;

/// A value that is made at first use, and once more in a process that was forked since.
#[derive(Debug)]
pub(crate) struct PerProcess<T>(OnceLock<Box<Made<T>>>);

#[derive(Debug)]
struct Made<T> {
    by: Generation,
    value: T,
    /// That of a process which inherited this one.
    next: PerProcess<T>,
}

impl<T> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self(OnceLock::new())
    }

    /// That of this process, if it was made already.
    pub(crate) fn get(&self) -> Option<&T> {
        self.find(Generation::current()).ok()
    }

    /// The last one that was made in a process which this one was forked from.
    pub(crate) fn inherited(&self) -> Option<&T> {
        let by = Generation::current();
        let (mut at, mut last) = (self, None);
        while let Some(made) = at.0.get().filter(|made| made.by != by) {
            last = Some(&made.value);
            at = &made.next;
        }
        last
    }

    /// That of this process. Several threads may make one at the same time; then one of them is the first, and the
    /// others are dropped.
    pub(crate) fn get_or_make(&self, make: impl FnOnce() -> T) -> &T {
        let by = Generation::current();
        let free = match self.find(by) {
            Ok(value) => return value,
            Err(free) => free,
        };
        // Made before: whoever forks while `get_or_init` is at work leaves the child a lock that is never released.
        let made = Box::new(Made { by, value: make(), next: Self::new() });
        &free.0.get_or_init(|| made).value
    }

    /// The value of this generation, or the place for it.
    fn find(&self, by: Generation) -> Result<&T, &Self> {
        let mut at = self;
        while let Some(made) = at.0.get() {
            if made.by == by {
                return Ok(&made.value);
            }
            at = &made.next;
        }
        Err(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_made_once() {
        let value = PerProcess::new();
        assert_eq!(value.get_or_make(|| 1), &1);
        assert_eq!(value.get_or_make(|| 2), &1);
        assert_eq!(value.inherited(), None);
    }
}
