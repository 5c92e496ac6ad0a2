//! What the library says that it did: a line for each connection that was promoted, or not.

use std::{collections::BTreeSet, fs, path::Path};

/// All that the library said.
pub(crate) struct Trace(String);

impl Trace {
    /// Of the file that `SMCD_DEBUG` named; empty if nothing was said.
    pub(crate) fn read(file: &Path) -> Self {
        Self(fs::read_to_string(file).unwrap_or_default())
    }

    /// Lines `smcd: PID FD promoted`.
    pub(crate) fn promotions(&self) -> usize {
        self.promoted().count()
    }

    /// Processes that promoted a connection.
    pub(crate) fn processes(&self) -> BTreeSet<u32> {
        self.promoted().collect()
    }

    /// Lines `smcd: PID FD tcp again: WHY`.
    pub(crate) fn given_back(&self) -> usize {
        self.0.lines().filter(|line| line.contains(" tcp again")).count()
    }

    fn promoted(&self) -> impl Iterator<Item = u32> {
        self.0.lines().filter_map(|line| {
            let mut words = line.strip_prefix("smcd: ")?.split_whitespace();
            let pid = words.next()?.parse().ok()?;
            (words.nth(1)? == "promoted").then_some(pid)
        })
    }

    /// The last of it, for those who look for a reason.
    pub(crate) fn text(&self) -> &str {
        let start = self.0.len().saturating_sub(5000);
        self.0.get(start..).unwrap_or(&self.0)
    }
}

#[test]
fn promotions_are_counted() {
    let trace = Trace(
        "smcd: 7 4 promoted\nsmcd: 7 5 tcp no-peer\nsmcd: 9 4 promoted\nsmcd: 7 6 promoted\n".to_owned(),
    );
    assert_eq!((trace.promotions(), trace.processes().len()), (3, 2));
}
