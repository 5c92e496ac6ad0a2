//! What a program is, as far as it decides whether a library can be put before it.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    fs::{self, File},
    io::Read,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use object::{
    Endianness, FileKind, Object, ObjectSection, ReadCache,
    elf::{FileHeader32, FileHeader64, Machine, PT_INTERP},
    read::elf::{ElfFile, FileHeader, ProgramHeader},
};
use rustix::{
    fs::getxattr,
    process::{getegid, geteuid},
};

/// So many scripts may name each other as interpreters.
const MAX_SCRIPTS: usize = 4;

/// Longest first line of a script that is looked at, as Linux does.
const MAX_LINE: usize = 256;

/// Why a program stays on TCP.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Obstacle {
    /// No loader is there to load the library.
    Static,
    /// The run-time system makes its system calls itself.
    Go,
    /// The loader ignores LD_PRELOAD.
    Privileged(&'static str),
    /// The library cannot be loaded into it.
    OtherMachine,
    /// As above.
    OtherLoader(String),
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Static => f.write_str("it is linked statically"),
            Self::Go => f.write_str("it is a Go program, which makes its system calls without the C library"),
            Self::Privileged(how) => {
                write!(f, "it runs with other privileges ({how}), so nothing is preloaded")
            }
            Self::OtherMachine => f.write_str("it is made for another kind of processor than the library"),
            Self::OtherLoader(loader) => write!(f, "it has another C library, loaded by {loader}"),
        }
    }
}

/// The program that a command runs in the end, and what keeps it on TCP, if anything does.
///
/// `None` as well if there is no such program, or it cannot be told: then it is for the system to say.
pub(crate) fn obstacle(command: &OsStr) -> Option<(PathBuf, Obstacle)> {
    let mut path = which::which(command).ok()?;
    for _ in 0..MAX_SCRIPTS {
        // Of a script, only the interpreter's privileges count.
        match interpreter(&path) {
            Some(interpreter) => path = interpreter,
            None => break,
        }
    }
    let found = privileges(&path).or_else(|| of_file(&path))?;
    Some((path, found))
}

/// The program that a script names in its first line.
fn interpreter(path: &Path) -> Option<PathBuf> {
    let mut start = Vec::new();
    File::open(path).ok()?.take(MAX_LINE as u64).read_to_end(&mut start).ok()?;
    let line = start.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let named = PathBuf::from(OsString::from_vec(words.next()?.to_vec()));
    if named.file_name() != Some(OsStr::new("env")) {
        return Some(named);
    }
    // `env` may have options and variables before the program.
    let program = words.find(|word| !word.starts_with(b"-") && !word.contains(&b'='))?;
    which::which(OsStr::from_bytes(program)).ok()
}

/// True privileges: those that differ from ours.
fn privileges(path: &Path) -> Option<Obstacle> {
    let meta = fs::metadata(path).ok()?;
    if meta.mode() & 0o4000 != 0 && meta.uid() != geteuid().as_raw() {
        return Some(Obstacle::Privileged("setuid"));
    }
    // Without permission to execute for the group it means something else.
    if meta.mode() & 0o2010 == 0o2010 && meta.gid() != getegid().as_raw() {
        return Some(Obstacle::Privileged("setgid"));
    }
    let has_capabilities = getxattr(path, "security.capability", &mut [0u8; 64]).is_ok();
    (has_capabilities && !geteuid().is_root()).then_some(Obstacle::Privileged("file capabilities"))
}

fn of_file(path: &Path) -> Option<Obstacle> {
    let elf = Elf::of(path)?;
    let own = Elf::of(Path::new("/proc/self/exe"))?;
    if elf.is_go {
        Some(Obstacle::Go)
    } else if (elf.is_64, elf.machine) != (own.is_64, own.machine) {
        Some(Obstacle::OtherMachine)
    } else {
        match (elf.loader, own.loader) {
            // The loader itself has none, and loads what it is told to.
            (None, _) => (!is_loader(path)).then_some(Obstacle::Static),
            (Some(loader), Some(own)) if loader != own => Some(Obstacle::OtherLoader(loader)),
            _ => None,
        }
    }
}

fn is_loader(path: &Path) -> bool {
    let name = path.canonicalize().ok().and_then(|path| path.file_name().map(OsStr::to_owned));
    name.is_some_and(|name| name.as_bytes().starts_with(b"ld-") || name.as_bytes().starts_with(b"ld."))
}

/// What an executable says about itself.
#[derive(Debug)]
struct Elf {
    is_64: bool,
    machine: Machine,
    /// File name of the program that loads it.
    loader: Option<String>,
    is_go: bool,
}

impl Elf {
    fn of(path: &Path) -> Option<Self> {
        let cache = ReadCache::new(File::open(path).ok()?);
        match FileKind::parse(&cache).ok()? {
            FileKind::Elf64 => Self::parse::<FileHeader64<Endianness>>(&cache, true),
            FileKind::Elf32 => Self::parse::<FileHeader32<Endianness>>(&cache, false),
            _ => None,
        }
    }

    fn parse<H: FileHeader<Endian = Endianness>>(cache: &ReadCache<File>, is_64: bool) -> Option<Self> {
        let file = ElfFile::<H, _>::parse(cache).ok()?;
        let endian = file.endian();
        let named = file.elf_program_headers().iter().find(|header| header.p_type(endian) == PT_INTERP);
        let loader = named.map(|header| {
            let path = header.interpreter(endian, cache).ok().flatten().unwrap_or_default();
            let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            String::from_utf8_lossy(name).into_owned()
        });
        let is_go = file
            .sections()
            .any(|section| matches!(section.name(), Ok(".go.buildinfo" | ".note.go.buildid" | ".gopclntab")));
        Some(Self { is_64, machine: file.elf_header().e_machine(endian), loader, is_go })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn script(dir: &Path, name: &str, content: &[u8]) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn what_is_loaded_as_we_are_has_no_obstacle() {
        assert_eq!(obstacle(OsStr::new("/proc/self/exe")), None);
        assert_eq!(obstacle(OsStr::new("sh")), None);
        assert_eq!(obstacle(OsStr::new("/nowhere/at/all")), None);
    }

    #[test]
    fn a_script_is_what_its_interpreter_is() {
        let dir = tempfile::tempdir().unwrap();
        let of = |content: &str| interpreter(&script(dir.path(), "script", content.as_bytes()));
        assert_eq!(of("#!/bin/sh -e\n"), Some("/bin/sh".into()));
        assert_eq!(of("#! /usr/bin/env -S A=b sh\n"), which::which("sh").ok());
        assert_eq!(of("#!\n"), None);
        assert_eq!(of("echo"), None);
    }

    #[test]
    fn a_program_without_a_loader_is_static() {
        let dir = tempfile::tempdir().unwrap();
        let own = fs::read("/proc/self/exe").unwrap();
        let mut header: Vec<u8> = own[..64].to_vec();
        // Neither program headers nor sections.
        header[32..48].fill(0);
        header[56..64].fill(0);
        let program = script(dir.path(), "static", &header);
        assert_eq!(obstacle(program.as_os_str()), Some((program.clone(), Obstacle::Static)));
        header[18] ^= 1;
        let other = script(dir.path(), "other", &header);
        assert_eq!(obstacle(other.as_os_str()).unwrap().1, Obstacle::OtherMachine);
        let wrapper = script(dir.path(), "wrapper", format!("#!{}\n", program.display()).as_bytes());
        assert_eq!(obstacle(wrapper.as_os_str()), Some((program, Obstacle::Static)));
    }

    #[test]
    fn garbage_is_left_to_the_system() {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in [
            ("empty", &b""[..]),
            ("short", b"\x7fELF\x02\x01\x01"),
            ("text", b"hello"),
            ("odd", b"#!\xff\xfe"),
        ] {
            assert_eq!(obstacle(script(dir.path(), name, content).as_os_str()), None, "{name}");
        }
    }
}
