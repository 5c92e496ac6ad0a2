//! System calls by their number, and other ways past the C library.

use libc::{c_int, c_long, c_void};

use crate::{errno, fork, process, real::hook, settings};

fn rings_of_the_kernel() {
    if process::is_ours() {
        settings::switch_off("the program uses io_uring");
        errno::quietly(|| fork::give_back("the program uses io_uring"));
    }
}

hook! {
    /// `syscall`. All arguments are words, which the program passes as it would to a function without a variable number.
    fn syscall(number: c_long, a: usize, b: usize, c: usize, d: usize, e: usize, f: usize) -> c_long, kernel => {
        let makes_copy = match number {
            libc::SYS_io_uring_setup => {
                rings_of_the_kernel();
                false
            }
            #[cfg(target_arch = "x86_64")]
            libc::SYS_fork => true,
            libc::SYS_clone => makes_copy(a as c_int),
            _ => false,
        };
        if !makes_copy {
            return kernel(number, a, b, c, d, e, f);
        }
        fork::around(|| kernel(number, a, b, c, d, e, f))
    }
}

/// True for a process with memory of its own. If it has the descriptors in common with us, each of us learns of what
/// the other does to them too late.
fn makes_copy(flags: c_int) -> bool {
    let makes_copy = flags & libc::CLONE_VM == 0;
    if makes_copy && flags & libc::CLONE_FILES != 0 && process::is_ours() {
        errno::quietly(|| fork::give_back("another process has the same descriptors"));
    }
    makes_copy
}

/// What a program does in a clone of its own.
struct Work {
    work: extern "C" fn(*mut c_void) -> c_int,
    argument: *mut c_void,
}

/// Runs in a clone that has memory of its own.
extern "C" fn in_clone(work: *mut c_void) -> c_int {
    fork::in_child_now();
    // SAFETY: it is what `clone` has put there, in this copy of the memory as well.
    let Work { work, argument } = unsafe { work.cast::<Work>().read() };
    work(argument)
}

hook! {
    /// `clone`
    fn clone(
        work: extern "C" fn(*mut c_void) -> c_int, stack: *mut c_void, flags: c_int, argument: *mut c_void,
        parent: usize, storage: usize, child: usize
    ) -> c_int, kernel => {
        if !makes_copy(flags) || stack.is_null() {
            return kernel(work, stack, flags, argument, parent, storage, child);
        }
        let mut own = Work { work, argument };
        fork::around(|| {
            kernel(in_clone, stack, flags, (&raw mut own).cast(), parent, storage, child).into()
        }) as c_int
    }
}

hook! {
    /// `io_uring_queue_init` of liburing, which makes the system call by itself
    fn io_uring_queue_init(entries: u32, ring: *mut c_void, flags: u32) -> c_int, real => {
        rings_of_the_kernel();
        real(entries, ring, flags)
    }
}

hook! {
    /// `io_uring_queue_init_params` of liburing
    fn io_uring_queue_init_params(entries: u32, ring: *mut c_void, params: *mut c_void) -> c_int, real => {
        rings_of_the_kernel();
        real(entries, ring, params)
    }
}
