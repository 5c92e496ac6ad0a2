//! Named points at which tests make a process end, stop or fail.

/// A named point. Does nothing unless the feature `failpoints` is on and a test has set the point.
macro_rules! fault {
    ($name:literal) => {{
        #[cfg(feature = "failpoints")]
        fail::fail_point!($name);
    }};
}

pub(crate) use fault;
