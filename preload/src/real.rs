//! The functions that stand behind ours: those of the C library, or of another preloaded library.

use std::{
    ffi::{CStr, c_void},
    sync::atomic::{AtomicPtr, Ordering},
};

/// A function that is looked up at first use.
pub(crate) struct Real {
    name: &'static CStr,
    found: AtomicPtr<c_void>,
}

impl Real {
    pub(crate) const fn new(name: &'static CStr) -> Self {
        Self { name, found: AtomicPtr::new(std::ptr::null_mut()) }
    }

    /// Its address; null if there is no such function.
    #[inline]
    pub(crate) fn address(&self) -> *mut c_void {
        let found = self.found.load(Ordering::Relaxed);
        if found.is_null() { self.look_up() } else { found }
    }

    #[cold]
    fn look_up(&self) -> *mut c_void {
        // SAFETY: the name is a C string; looking it up has no other condition.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) };
        self.found.store(found, Ordering::Relaxed);
        found
    }
}

/// Defines a function that takes the place of one of the C library's. In its body `$real` calls the one behind.
macro_rules! hook {
    ($(#[$doc:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) -> $ret:ty, $real:ident => $body:expr) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// As the function of this name in the C library.
        #[unsafe(no_mangle)]
        pub(crate) unsafe extern "C" fn $name($($arg: $ty),*) -> $ret {
            static REAL: $crate::real::Real = $crate::real::Real::new(
                // SAFETY: the text ends with its only zero byte.
                unsafe { std::ffi::CStr::from_bytes_with_nul_unchecked(concat!(stringify!($name), "\0").as_bytes()) }
            );
            #[allow(unused_variables)]
            let $real = |$($arg: $ty),*| -> $ret {
                let address = REAL.address();
                if address.is_null() {
                    $crate::errno::set(libc::ENOSYS);
                    return (-1i8) as $ret;
                }
                // SAFETY: it is the function of this name, which has this signature.
                let real: unsafe extern "C" fn($($ty),*) -> $ret = unsafe { std::mem::transmute(address) };
                // SAFETY: the program calls it with these arguments.
                unsafe { real($($arg),*) }
            };
            $body
        }
    };
}
pub(crate) use hook;
