//! A real QEMU as a client, without a guest: its devices are reached by the protocol of its own tests (`-qtest`).

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use super::*;
use crate::unix::starting::start;

/// Where the device is, and where its memory is put.
const SLOT: u32 = 5;
const REGISTERS: u32 = 0xe000_0000;
const REGION: u32 = 0xd000_0000;

/// Registers of the device.
const IV_POSITION: u32 = REGISTERS + 8;
const DOORBELL: u32 = REGISTERS + 12;

struct Qemu {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Qemu {
    /// `None` if it is not installed.
    fn start(server: &Running) -> Option<Self> {
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-M", "q35", "-m", "64", "-S", "-nodefaults", "-display", "none", "-qtest", "stdio"])
            .args(["-qtest-log", "none"])
            .args(["-chardev", &format!("socket,id=fabric,path={}", server.path.display())])
            .args(["-device", &format!("ivshmem-doorbell,addr={SLOT},vectors=1,chardev=fabric")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = match start(&mut command) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            started => started.unwrap(),
        };
        let (commands, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Some(Self { child, commands, answers })
    }

    fn ask(&mut self, command: &str) -> String {
        writeln!(self.commands, "{command}").unwrap();
        let mut answer = String::new();
        // Interrupts are reported in between.
        while !answer.starts_with("OK") {
            answer.clear();
            assert_ne!(self.answers.read_line(&mut answer).unwrap(), 0, "QEMU has gone");
        }
        answer
    }

    fn number(&mut self, command: &str) -> u32 {
        let answer = self.ask(command);
        let hex = answer.trim().strip_prefix("OK 0x").unwrap();
        u32::try_from(u64::from_str_radix(hex, 16).unwrap()).unwrap()
    }

    fn configure(&mut self, register: u32, value: u32) {
        self.ask(&format!("outl 0xcf8 {:#x}", 0x8000_0000 | SLOT << 11 | register));
        self.ask(&format!("outl 0xcfc {value:#x}"));
    }

    /// What firmware does: gives the memory of the device a place.
    fn place_device(&mut self) {
        self.ask(&format!("outl 0xcf8 {:#x}", 0x8000_0000 | SLOT << 11));
        assert_eq!(self.number("inl 0xcfc"), 0x1110_1af4);
        self.configure(0x10, REGISTERS);
        self.configure(0x18, REGION);
        self.configure(0x1c, 0);
        self.configure(4, 6);
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn qemu_is_a_client() {
    let server = Running::new(4);
    let host = server.client();
    let Some(mut qemu) = Qemu::start(&server) else {
        eprintln!("SKIPPED: qemu-system-x86_64 is not installed");
        return;
    };
    qemu.place_device();
    settle(&host);
    assert!(host.connection(1).is_some());
    assert_eq!(qemu.number(&format!("readl {IV_POSITION:#x}")), 1);

    // The memory is the same.
    assert_eq!(qemu.number(&format!("readl {REGION:#x}")), u32::from_le_bytes(*b"smcd"));
    qemu.ask(&format!("writel {:#x} 0x12345678", REGION + 0x8000));
    assert_eq!(host.memory().load(0x8000).unwrap(), 0x1234_5678);

    // It rings us, and another that came later.
    qemu.ask(&format!("writel {DOORBELL:#x} 0x00000000"));
    assert_eq!(host.wait_for(SOON), Woken::Rung);
    let late = server.client();
    settle(&late);
    // By this answer QEMU has been through its event loop.
    eventually(|| {
        qemu.ask(&format!("writel {DOORBELL:#x} {:#x}", late.slot() << 16));
        late.wait_for(Duration::from_millis(20)) == Woken::Rung
    });

    settle(&host);
    drop(qemu);
    served(&host, || host.connection(1).is_none());
    assert_eq!(server.client().slot(), 1);
}
