//! Memory for when there is none.
//!
//! Rust ends a process that runs out of memory, which is not for us to do to a program: over TCP, it would go on. So the
//! first time that there is no memory a reserve is broken into, and nothing more is promoted. What the reserve is for is
//! small, and what is given back of it is not used again.
#![allow(unsafe_code)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::UnsafeCell,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Bytes of the reserve. They cost nothing until they are used.
const RESERVE: usize = 4 << 20;

/// The C library's memory, then the reserve.
struct WithReserve;

#[global_allocator]
static MEMORY: WithReserve = WithReserve;

#[repr(align(4096))]
struct Reserve(UnsafeCell<[u8; RESERVE]>);

// SAFETY: pieces of it are given out once each.
unsafe impl Sync for Reserve {}

static PLACE: Reserve = Reserve(UnsafeCell::new([0; RESERVE]));
static USED: AtomicUsize = AtomicUsize::new(0);

/// True once the reserve is in use.
pub(crate) fn is_used() -> bool {
    USED.load(Ordering::Relaxed) > 0
}

/// A piece of the reserve; null if there is not enough left.
fn piece(layout: Layout) -> *mut u8 {
    let base = PLACE.0.get().cast::<u8>();
    let end = |used: usize| used.checked_next_multiple_of(layout.align())?.checked_add(layout.size());
    match USED
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| end(used).filter(|end| *end <= RESERVE))
    {
        Ok(used) => base.wrapping_add(used.next_multiple_of(layout.align())),
        Err(_) => std::ptr::null_mut(),
    }
}

fn is_piece(memory: *mut u8) -> bool {
    let base = PLACE.0.get().addr();
    (base..base + RESERVE).contains(&memory.addr())
}

// SAFETY: memory is the system's, or a piece of the reserve that nobody else has; each goes back where it came from.
unsafe impl GlobalAlloc for WithReserve {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller promises what the system asks for.
        let memory = unsafe { System.alloc(layout) };
        if memory.is_null() { piece(layout) } else { memory }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as for `alloc`.
        let memory = unsafe { System.alloc_zeroed(layout) };
        // The reserve is zero, and each piece is given out once.
        if memory.is_null() { piece(layout) } else { memory }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        if !is_piece(memory) {
            // SAFETY: it is the system's.
            unsafe { System.dealloc(memory, layout) };
        }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if !is_piece(memory) {
            // SAFETY: it is the system's.
            let moved = unsafe { System.realloc(memory, layout, size) };
            if !moved.is_null() {
                return moved;
            }
        }
        let Ok(wanted) = Layout::from_size_align(size, layout.align()) else { return std::ptr::null_mut() };
        let moved = piece(wanted);
        if !moved.is_null() {
            // SAFETY: both are as long as that, and the new one is nobody else's.
            unsafe {
                std::ptr::copy_nonoverlapping(memory, moved, layout.size().min(size));
                self.dealloc(memory, layout);
            }
        }
        moved
    }
}
