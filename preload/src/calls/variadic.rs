//! Functions with a variable number of arguments. Rust can call them, but not be one: they are in `c/variadic.c`.

/// Defines a function that goes on to one written in C, with all of its arguments as they are.
macro_rules! jump {
    ($(#[$doc:meta])* $name:ident => $target:ident) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// As the function of this name in the C library.
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        pub(crate) unsafe extern "C" fn $name() {
            unsafe extern "C" {
                fn $target();
            }
            #[cfg(target_arch = "x86_64")]
            std::arch::naked_asm!("jmp {}", sym $target);
            #[cfg(target_arch = "aarch64")]
            std::arch::naked_asm!("b {}", sym $target);
            #[cfg(target_arch = "s390x")]
            std::arch::naked_asm!("jg {}", sym $target);
            #[cfg(target_arch = "riscv64")]
            std::arch::naked_asm!("tail {}", sym $target);
        }
    };
}
pub(super) use jump;
