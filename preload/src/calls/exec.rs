//! Other programs that get descriptors of this one: by `exec`, by `posix_spawn` and what is made of it.
//!
//! They may have this library or not, and may use the connection or only have it by oversight: nothing says so. A
//! connection that is not closed on the way is given back to TCP. Bytes that have come and were not read stay with
//! this process.

use std::ffi::c_char;

use libc::{FILE, c_int, c_void, pid_t};

use super::variadic::jump;
use crate::{errno, real::hook, table};

const WHY: &str = "another program gets it";

/// A program is about to be executed: here, in a child that borrows our memory, or by the C library. What is said of the
/// descriptors is this process' own word, so also what a child has closed or kept for itself.
fn leave_inherited() {
    errno::quietly(|| {
        for fd in table::within(0, table::LEN) {
            if let Some(stream) = table::stream(fd)
                && !stream.raw.stays()
                && is_inherited(fd)
            {
                stream.leaves_us(WHY);
            }
        }
    });
}

fn is_inherited(fd: c_int) -> bool {
    // SAFETY: asks for the flags of a number, open or not.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}

type Words = *const *const c_char;

hook! {
    /// `execve`
    fn execve(path: *const c_char, arguments: Words, environment: Words) -> c_int, real => {
        leave_inherited();
        real(path, arguments, environment)
    }
}

hook! {
    /// `execv`
    fn execv(path: *const c_char, arguments: Words) -> c_int, real => {
        leave_inherited();
        real(path, arguments)
    }
}

hook! {
    /// `execvp`
    fn execvp(file: *const c_char, arguments: Words) -> c_int, real => {
        leave_inherited();
        real(file, arguments)
    }
}

hook! {
    /// `execvpe`
    fn execvpe(file: *const c_char, arguments: Words, environment: Words) -> c_int, real => {
        leave_inherited();
        real(file, arguments, environment)
    }
}

hook! {
    /// `fexecve`
    fn fexecve(fd: c_int, arguments: Words, environment: Words) -> c_int, real => {
        leave_inherited();
        real(fd, arguments, environment)
    }
}

hook! {
    /// `execveat`
    fn execveat(dir: c_int, path: *const c_char, arguments: Words, environment: Words, flags: c_int) -> c_int, real => {
        leave_inherited();
        real(dir, path, arguments, environment, flags)
    }
}

jump! {
    /// `execl`
    execl => smcd_execl
}

jump! {
    /// `execlp`
    execlp => smcd_execlp
}

jump! {
    /// `execle`
    execle => smcd_execle
}

hook! {
    /// `posix_spawn`
    fn posix_spawn(child: *mut pid_t, path: *const c_char, actions: *const c_void, attributes: *const c_void,
        arguments: Words, environment: Words) -> c_int, real => {
        leave_inherited();
        real(child, path, actions, attributes, arguments, environment)
    }
}

hook! {
    /// `posix_spawnp`
    fn posix_spawnp(child: *mut pid_t, file: *const c_char, actions: *const c_void, attributes: *const c_void,
        arguments: Words, environment: Words) -> c_int, real => {
        leave_inherited();
        real(child, file, actions, attributes, arguments, environment)
    }
}

hook! {
    /// `posix_spawn_file_actions_adddup2`: what is made a copy of is meant for the new program.
    fn posix_spawn_file_actions_adddup2(actions: *mut c_void, fd: c_int, new: c_int) -> c_int, real => {
        if let Some(stream) = table::stream(fd) {
            errno::quietly(|| stream.leaves_us(WHY));
        }
        real(actions, fd, new)
    }
}

hook! {
    /// `system`
    fn system(command: *const c_char) -> c_int, real => {
        leave_inherited();
        real(command)
    }
}

hook! {
    /// `popen`
    fn popen(command: *const c_char, mode: *const c_char) -> *mut FILE, real => {
        leave_inherited();
        real(command, mode)
    }
}
