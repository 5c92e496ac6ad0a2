//! Other programs that get descriptors of this one: by `exec`, by `posix_spawn` and what is made of it.
//!
//! They may have this library or not, and may use the connection or only have it by oversight: nothing says so. A
//! connection that is not closed on the way is given back to TCP. Bytes that have come by the ring and were not read are
//! sent once more by the peer. If it does not answer, they are still there for a process that has the connection and goes
//! on; a process that would take them with it is not executed. Nor is one that has a connection to itself whose peer knows
//! of no way back to TCP, even if nothing is unread: the new program would speak TCP to a peer that reads its ring alone,
//! and the rings would go with the old one.

use std::{ffi::c_char, sync::Arc};

use libc::{FILE, c_int, c_void, pid_t};

use super::variadic::jump;
use crate::{
    errno, process,
    real::hook,
    stream::{Grace, Stream},
    table,
};

const WHY: &str = "another program gets it";

/// Lets go of what another program gets. What is said of the descriptors is this process' own word, so what a child has
/// closed, or keeps for itself, does not count.
fn leave_inherited(mut leave: impl FnMut(&Arc<Stream>, &Grace)) {
    errno::quietly(|| {
        let grace = Grace::begin();
        for fd in table::within(0, table::LEN) {
            if let Some(stream) = table::stream(fd)
                && !stream.raw.stays()
                && is_inherited(fd)
            {
                leave(&stream, &grace);
            }
        }
    });
}

fn is_inherited(fd: c_int) -> bool {
    // SAFETY: asks for the flags of a number, open or not.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    flags >= 0 && flags & libc::FD_CLOEXEC == 0
}

/// Another program is about to be started beside this one, which goes on.
fn before_start() {
    leave_inherited(|stream, grace| stream.may_leave_us(WHY, grace));
}

/// Another program is about to take the place of this one, or of a child that borrows our memory. Fails with
/// `EOPNOTSUPP` if bytes would be lost with this one: those that are unread, or, where the peer cannot go back to TCP, all
/// that were still to come.
fn in_place(execute: impl FnOnce() -> c_int) -> c_int {
    let mut loses = false;
    if process::is_ours() {
        leave_inherited(|stream, grace| {
            if stream.is_shared() {
                stream.leaves_us_within(WHY, grace);
            } else {
                loses |= !stream.leaves_us_wholly(WHY, grace);
            }
        });
    } else {
        before_start();
    }
    if loses { errno::fail(libc::EOPNOTSUPP) } else { execute() }
}

type Words = *const *const c_char;

hook! {
    /// `execve`
    fn execve(path: *const c_char, arguments: Words, environment: Words) -> c_int, real => {
        in_place(|| real(path, arguments, environment))
    }
}

hook! {
    /// `execv`
    fn execv(path: *const c_char, arguments: Words) -> c_int, real => {
        in_place(|| real(path, arguments))
    }
}

hook! {
    /// `execvp`
    fn execvp(file: *const c_char, arguments: Words) -> c_int, real => {
        in_place(|| real(file, arguments))
    }
}

hook! {
    /// `execvpe`
    fn execvpe(file: *const c_char, arguments: Words, environment: Words) -> c_int, real => {
        in_place(|| real(file, arguments, environment))
    }
}

hook! {
    /// `fexecve`
    fn fexecve(fd: c_int, arguments: Words, environment: Words) -> c_int, real => {
        in_place(|| real(fd, arguments, environment))
    }
}

hook! {
    /// `execveat`
    fn execveat(dir: c_int, path: *const c_char, arguments: Words, environment: Words, flags: c_int) -> c_int, real => {
        in_place(|| real(dir, path, arguments, environment, flags))
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
        before_start();
        real(child, path, actions, attributes, arguments, environment)
    }
}

hook! {
    /// `posix_spawnp`
    fn posix_spawnp(child: *mut pid_t, file: *const c_char, actions: *const c_void, attributes: *const c_void,
        arguments: Words, environment: Words) -> c_int, real => {
        before_start();
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
        before_start();
        real(command)
    }
}

hook! {
    /// `popen`
    fn popen(command: *const c_char, mode: *const c_char) -> *mut FILE, real => {
        before_start();
        real(command, mode)
    }
}
