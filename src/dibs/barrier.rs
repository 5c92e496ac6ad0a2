//! Barriers for other processes, by `membarrier`; see [`writing`](super::writing).

use std::{
    fs, io,
    sync::{
        OnceLock,
        atomic::{Ordering, fence},
    },
};

use rustix::{
    io::Errno,
    thread::{MembarrierCommand, MembarrierQuery, membarrier, membarrier_query},
};

use super::writing::Order;

/// Links of `/proc/self/task` in a process with one thread: itself, its parent, and that of the thread.
const ONE_THREAD: u64 = 3;

/// How writers of this process order their marks. A child that is forked inherits it, the registration too.
pub(crate) fn order() -> Order {
    static ORDER: OnceLock<Order> = OnceLock::new();
    if let Some(order) = ORDER.get() {
        return *order;
    }
    let found = find_order();
    // Not found out under the lock, which would be left to a child that is forked meanwhile.
    *ORDER.get_or_init(|| found)
}

fn find_order() -> Order {
    let known = membarrier_query();
    if known.contains(MembarrierQuery::REGISTER_GLOBAL_EXPEDITED) && is_cheap_to_register() {
        return match membarrier(MembarrierCommand::RegisterGlobalExpedited) {
            Ok(()) => Order::Registered,
            Err(_) => Order::Fence,
        };
    }
    // Without it (some processors are isolated), nobody can reach a process that is not registered.
    if known.contains(MembarrierQuery::GLOBAL) { Order::Kernel } else { Order::Fence }
}

/// Registering a process with several threads takes 10 to 20 ms, and with one next to nothing.
fn is_cheap_to_register() -> bool {
    use std::os::unix::fs::MetadataExt;
    // Tests have several threads, and stop so many writers that it pays.
    cfg!(test) || fs::metadata("/proc/self/task").is_ok_and(|tasks| tasks.nlink() == ONE_THREAD)
}

/// A barrier on all processors, of this process and of a writer that orders its marks so.
///
/// # Errors
/// If the system has none, or does not allow it.
pub(crate) fn put_to(writer: Order) -> io::Result<()> {
    fence(Ordering::SeqCst);
    let put = match writer {
        Order::Fence => Ok(()),
        Order::Registered => membarrier(MembarrierCommand::GlobalExpedited),
        Order::Kernel => match membarrier(MembarrierCommand::Global) {
            // Then writers either register or have a fence of their own.
            Err(Errno::INVAL) => membarrier(MembarrierCommand::GlobalExpedited),
            other => other,
        },
    };
    Ok(put?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_writers_are_reached() {
        for writer in [Order::Fence, order(), Order::Kernel] {
            put_to(writer).unwrap();
        }
        assert_eq!(order(), order());
    }
}
