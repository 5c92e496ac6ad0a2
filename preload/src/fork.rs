//! What a `fork` makes of our connections.
//!
//! Both processes have them afterwards. Those that are TCP stay so as long as both do, and become one's own again when
//! the other has closed its copy, or ended. Those that go by rings are used in turns ([`crate::family`]).

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use libc::{c_int, c_long, pid_t};
use smcd::raw::Held;

use crate::{
    errno,
    family::{self, Member},
    process,
    real::hook,
    stream::{Grace, Stream},
    table::{self, Entry, Kind},
};

/// What is kept during a fork: the connections, and that nothing happens in them.
#[derive(Debug, Default)]
struct Preparation {
    child: Option<Member>,
    /// Before the streams that they belong to.
    held: Vec<(Held<'static>, Arc<Stream>)>,
    _alone: Option<MutexGuard<'static, ()>>,
}

thread_local! {
    static PREPARED: RefCell<Option<Preparation>> = const { RefCell::new(None) };
    /// The child that was announced last on this thread.
    static ANNOUNCED: RefCell<Option<Member>> = const { RefCell::new(None) };
}

/// One fork at a time.
static FORKING: Mutex<()> = Mutex::new(());
static IS_WATCHED: AtomicBool = AtomicBool::new(false);

/// From now on forks are watched. Late, so that what memory is made with has been told of forks before, and is as usual
/// again when we are called.
pub(crate) fn watch() {
    static ONCE: Once = Once::new();
    if !IS_WATCHED.load(Ordering::Relaxed) {
        ONCE.call_once(|| {
            // SAFETY: the functions are there as long as the process.
            let result = unsafe { libc::pthread_atfork(Some(before), Some(in_parent), Some(in_child)) };
            IS_WATCHED.store(result == 0, Ordering::Relaxed);
        });
    }
}

/// The connections, each with the descriptors that it is known by.
fn streams() -> Vec<(Arc<Stream>, Vec<c_int>)> {
    let mut found: HashMap<*const Stream, (Arc<Stream>, Vec<c_int>)> = HashMap::new();
    for fd in table::within(0, table::LEN) {
        if let Some(stream) = table::stream(fd) {
            found.entry(Arc::as_ptr(&stream)).or_insert_with(|| (stream, Vec::new())).1.push(fd);
        }
    }
    found.into_values().collect()
}

/// Gives all connections back to TCP that there are.
pub(crate) fn give_back(why: &str) {
    let grace = Grace::begin();
    for (stream, _) in streams() {
        stream.leaves_us_within(why, &grace);
    }
}

extern "C" fn before() {
    if !process::is_ours() {
        return;
    }
    errno::quietly(|| {
        let alone = FORKING.lock().unwrap_or_else(PoisonError::into_inner);
        let streams: Vec<_> = streams().into_iter().map(|(stream, _)| stream).collect();
        let grace = Grace::begin();
        streams.iter().for_each(|stream| stream.settles_for_fork(&grace));
        let child = if streams.is_empty() { None } else { family::announce() };
        for stream in &streams {
            stream.share_with(child);
        }
        let held = streams.into_iter().map(|stream| {
            let held = stream.raw.hold();
            // SAFETY: the stream goes along, and is dropped after this.
            let held: Held<'static> = unsafe { std::mem::transmute(held) };
            (held, stream)
        });
        let preparation = Preparation { child, held: held.collect(), _alone: Some(alone) };
        let _ = ANNOUNCED.try_with(|announced| announced.replace(child));
        let _ = PREPARED.try_with(|prepared| prepared.replace(Some(preparation)));
    });
}

fn prepared() -> Preparation {
    PREPARED.try_with(|prepared| prepared.take()).ok().flatten().unwrap_or_default()
}

extern "C" fn in_parent() {
    if process::is_ours() {
        errno::quietly(|| {
            let Preparation { held, _alone, .. } = prepared();
            let streams: Vec<_> = held.into_iter().map(|(_, stream)| stream).collect();
            // What had come by then may have been the last step of a promotion.
            streams.iter().for_each(Stream::adopt_rings);
        });
    }
}

extern "C" fn in_child() {
    errno::quietly(|| {
        process::begin();
        smcd::observe::after_fork();
        let Preparation { child, held, _alone } = prepared();
        if let Some(child) = child {
            family::arrive(child);
        }
        for (held, stream) in held {
            stream.raw.in_child(held);
        }
        adopt();
    });
}

/// Goes beside what was inherited, with nothing that another thread of the parent may have locked. Instances of epoll are
/// the parent's as much as the child's, so the child only lets go of them.
fn adopt() {
    for (stream, numbers) in streams() {
        let own = stream.inherited(&numbers);
        for fd in numbers {
            table::put(fd, Entry::Stream(own.clone()));
        }
    }
    for fd in table::within(0, table::LEN) {
        if table::kind(fd) == Kind::Watched {
            // By instances of the parent.
            table::take(fd);
            table::is_socket(fd);
        }
        if let Some(epoll) = table::epoll(fd) {
            epoll.dissolve();
            table::take(fd);
        }
    }
}

/// A fork past the C library.
pub(crate) fn around(kernel: impl FnOnce() -> c_long) -> c_long {
    before();
    let result = kernel();
    match result {
        0 => in_child(),
        _ => in_parent(),
    }
    if result < 0 {
        failed();
    }
    result
}

/// In a child that does not return from where it was made.
pub(crate) fn in_child_now() {
    in_child();
}

fn failed() {
    if let Ok(Some(child)) = ANNOUNCED.try_with(|announced| announced.take()) {
        family::unannounce(child);
    }
}

hook! {
    /// `fork`. All else is done by those whom the C library tells of forks; this only learns that one has failed.
    fn fork() -> pid_t, kernel => {
        let result = kernel();
        if result < 0 {
            failed();
        }
        result
    }
}
