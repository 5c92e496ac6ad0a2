//! How long a call may wait.

use std::{
    io,
    time::{Duration, Instant},
};

/// How long a call may wait.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Patience {
    /// Not at all.
    Never,
    /// No longer than so.
    Until(Instant),
    /// As long as it takes.
    Forever,
}

impl Patience {
    /// From now on; without a limit if there is none, or if no clock will show its end.
    pub fn of(limit: Option<Duration>) -> Self {
        limit.and_then(|limit| Instant::now().checked_add(limit)).map_or(Self::Forever, Self::Until)
    }

    /// As this one, but no longer than so.
    pub fn at_most(self, limit: Duration) -> Self {
        match (self, Self::of(Some(limit))) {
            (Self::Until(end), Self::Until(other)) => Self::Until(end.min(other)),
            (Self::Forever, other) => other,
            (this, _) => this,
        }
    }

    /// What is left; `None` is no limit.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is, as Linux says it of a socket.
    pub fn left(self) -> io::Result<Option<Duration>> {
        let left = match self {
            Self::Never => Duration::ZERO,
            Self::Until(end) => end.saturating_duration_since(Instant::now()),
            Self::Forever => return Ok(None),
        };
        if left.is_zero() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(Some(left)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends() {
        assert!(Patience::Never.left().is_err());
        assert_eq!(Patience::of(None).left().unwrap(), None);
        assert_eq!(Patience::of(Some(Duration::MAX)), Patience::Forever);
        assert!(Patience::of(Some(Duration::ZERO)).left().is_err());
        assert!(Patience::of(Some(Duration::from_secs(9))).left().unwrap().unwrap() > Duration::from_secs(8));
    }

    #[test]
    fn the_shorter_counts() {
        let second = Duration::from_secs(1);
        assert!(Patience::Forever.at_most(second).left().unwrap().unwrap() <= second);
        assert!(Patience::of(Some(second)).at_most(second * 9).left().unwrap().unwrap() <= second);
        assert_eq!(Patience::Never.at_most(second), Patience::Never);
    }
}
