//! `smcdctl fabric`: regions for virtual machines and processes.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    thread,
};

use anyhow::Context;
use clap::{Args, Subcommand};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};
use smcd::dibs::{
    Chid,
    region::{FabricServer, FabricSettings},
};

/// Serve a region: memory that virtual machines and processes share.
///
/// Each virtual machine or process that connects becomes an endpoint of the fabric. Who connects has all of the memory, so
/// all of them have to be trusted with what the others send each other.
#[derive(Debug, Args)]
pub(crate) struct Fabric {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Serve(Serve),
}

/// Make a region and hand it out at a socket, until stopped (SIGINT, SIGTERM).
///
/// The protocol is that of ivshmem, so QEMU connects by itself. When the server is stopped, connections of the fabric end. One that
/// is killed cannot tell virtual machines: those among them go on, and nobody learns of the end of a machine.
#[derive(Debug, Args)]
struct Serve {
    /// The socket to make. Who may write to it takes part; directory and umask say who that is.
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Bytes of the region, a power of two, such as 256M or 1G.
    #[arg(long, value_name = "BYTES", default_value = "256M", value_parser = bytes)]
    size: usize,
    /// How many can take part at once, 2 to 64.
    #[arg(long, value_name = "NUMBER", default_value_t = 8)]
    slots: usize,
    /// How many buffers each can have, 16 to 1024 in steps of 16.
    #[arg(long, value_name = "NUMBER", default_value_t = 256)]
    entries: usize,
    /// The fabric id, 0xff00 to 0xfffe. Devices of fabrics with different ids never try to reach each other.
    #[arg(long, value_name = "ID", default_value = "0xff52", value_parser = fabric_id)]
    fabric: Chid,
}

impl Fabric {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self.what {
            What::Serve(serve) => serve.run(),
        }
    }
}

impl Serve {
    fn run(self) -> anyhow::Result<ExitCode> {
        let mut settings = FabricSettings::default();
        (settings.bytes, settings.slots, settings.entries) = (self.size, self.slots, self.entries);
        settings.fabric = self.fabric;
        // Before the socket is there: whoever finds it may also stop us.
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let mut server = FabricServer::bind(&self.socket, &settings)?;
        let stop = server.stop_handle();
        thread::spawn(move || {
            if signals.forever().next().is_some() {
                stop.stop();
            }
        });
        self.describe(&mut io::stdout().lock())?;
        server.run().context("the server cannot go on")?;
        Ok(ExitCode::SUCCESS)
    }

    fn describe(&self, out: &mut impl Write) -> io::Result<()> {
        let socket = self.socket.display();
        writeln!(
            out,
            "fabric {} of {} bytes for {} endpoints at {socket}",
            self.fabric, self.size, self.slots
        )?;
        // A comma in a value of QEMU's is doubled.
        let path = socket.to_string().replace(',', ",,");
        writeln!(out, "a virtual machine takes part with")?;
        writeln!(out, "    -chardev 'socket,id=fabric,path={path}'")?;
        writeln!(out, "    -device ivshmem-doorbell,vectors=1,chardev=fabric")?;
        out.flush()
    }
}

/// A number of bytes: `4096`, `256M`.
fn bytes(text: &str) -> Result<usize, String> {
    let expected = "a number of bytes is needed, such as 1048576, 256M or 1G";
    let (digits, shift) = match text.char_indices().last() {
        Some((at, 'k' | 'K')) => (&text[..at], 10),
        Some((at, 'm' | 'M')) => (&text[..at], 20),
        Some((at, 'g' | 'G')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let number: usize = digits.parse().map_err(|_| expected.to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "there cannot be so much memory".to_owned())
}

/// A fabric id: `0xff52`, `65362`.
pub(crate) fn fabric_id(text: &str) -> Result<Chid, String> {
    let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => u16::from_str_radix(hex, 16),
        None => text.parse(),
    };
    number.map(Chid).map_err(|_| "a number of 16 bits is needed, such as 0xff52".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!((bytes("4096"), bytes("256M"), bytes("1g")), (Ok(4096), Ok(256 << 20), Ok(1 << 30)));
        for wrong in ["", "M", "-1", "1T", "1.5G", "99999999999999G", "1é"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn fabric_ids_are_hexadecimal_or_not() {
        assert_eq!((fabric_id("0xFF52"), fabric_id("65362")), (Ok(Chid(0xff52)), Ok(Chid(0xff52))));
        assert!(fabric_id("ff52").is_err() && fabric_id("0x10000").is_err());
    }
}
