//! Which of the two ends are accelerated, and how.

/// What a library does that is told nothing else.
pub(crate) const DEFAULT_POLICY: &str = "256K:24";

/// One of the ends of a program's connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Client,
    Server,
}

/// Who has the library, and when it is to promote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    /// Nobody: that is what the others are compared with.
    Tcp,
    /// Both, with the default policy.
    Both,
    /// Both, as early as they can.
    Eager,
    /// The server alone. It promotes as early as it can, for it is to find out that the other end does not.
    Server,
    /// The client alone, likewise.
    Client,
}

impl Mode {
    /// True if this end has the library.
    pub(crate) fn accelerates(self, end: End) -> bool {
        match self {
            Self::Tcp => false,
            Self::Both | Self::Eager => true,
            Self::Server => end == End::Server,
            Self::Client => end == End::Client,
        }
    }

    /// True if connections can be promoted at all.
    pub(crate) fn promotes(self) -> bool {
        matches!(self, Self::Both | Self::Eager)
    }

    /// What the library is told in `SMCD_PROMOTION`.
    pub(crate) fn policy(self) -> &'static str {
        match self {
            Self::Both | Self::Tcp => DEFAULT_POLICY,
            Self::Eager | Self::Server | Self::Client => "eager",
        }
    }
}

/// Makes a test in each mode of functions that take one: `name::tcp`, `name::both`, and so on.
macro_rules! in_each_mode {
    ($($(#[$attribute:meta])* $name:ident)*) => { $(
        $(#[$attribute])*
        mod $name {
            #[test]
            fn tcp() {
                super::$name($crate::mode::Mode::Tcp);
            }
            #[test]
            fn both() {
                super::$name($crate::mode::Mode::Both);
            }
            #[test]
            fn eager() {
                super::$name($crate::mode::Mode::Eager);
            }
            #[test]
            fn server() {
                super::$name($crate::mode::Mode::Server);
            }
            #[test]
            fn client() {
                super::$name($crate::mode::Mode::Client);
            }
        }
    )* };
}
pub(crate) use in_each_mode;
