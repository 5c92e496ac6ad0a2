//! Memory that is a file.

use rustix::{
    fd::OwnedFd,
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create},
    io::{Errno, Result},
    process::{Resource, getrlimit},
};

/// Makes a memory file of so many bytes, all zero, whose size stays as it is. It is closed on exec.
///
/// # Errors
/// `EFBIG` if files may not be so large here (`RLIMIT_FSIZE`), which counts for files in memory too: asked of the kernel
/// it would be a signal, that ends the program. Others if there are no descriptors or no memory.
pub fn sized_memory(name: &str, len: usize) -> Result<OwnedFd> {
    let len = len as u64;
    if getrlimit(Resource::Fsize).current.is_some_and(|limit| limit < len) {
        return Err(Errno::FBIG);
    }
    let file = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&file, len)?;
    fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use rustix::fs::{fcntl_get_seals, fstat};

    use super::*;

    #[test]
    fn it_is_as_long_as_was_asked_for_and_stays_so() {
        let file = sized_memory("smcd-test", 5000).unwrap();
        assert_eq!(fstat(&file).unwrap().st_size, 5000);
        assert!(
            fcntl_get_seals(&file).unwrap().contains(SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)
        );
        assert_eq!(ftruncate(&file, 4000).unwrap_err(), Errno::PERM);
    }
}
