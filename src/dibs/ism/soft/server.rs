//! Functions in software for other processes: each at a unix socket, by vfio-user.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, OwnedFd},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
};
use vfio_bindings::bindings::vfio::{
    VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_DATA_EVENTFD, VFIO_PCI_NUM_IRQS, VFIO_PCI_NUM_REGIONS,
    VFIO_REGION_INFO_FLAG_READ, VFIO_REGION_INFO_FLAG_WRITE, vfio_region_info,
};
use vfio_user::{DmaMapFlags, DmaUnmapFlags, IrqInfo, Server, ServerBackend, ServerRegion};

use super::{SoftFunction, SoftIsm, config, model::MAILBOX_LEN};
use crate::{
    dibs::{
        Memory,
        eventfd::Eventfd,
        ism::transport::{REGION_SHIFT, Transport, at, irq, region},
        sealed::check_memory,
    },
    unix::Entrance,
};

/// Functions of a fabric, each at a socket of its own.
///
/// A function has one client at a time, for whom it is as after a reset, and it ends with its connection. What a client maps
/// has to be memory that keeps its size (a sealed memfd), or the server could be killed by it. A client that breaks the rules
/// of vfio-user itself loses its connection; but this is a server for tests, and a client can make it use much memory.
#[derive(Debug)]
pub struct SoftIsmServer {
    fabric: SoftIsm,
    entrances: Vec<Entrance>,
    sockets: Vec<PathBuf>,
    stop: Arc<Eventfd>,
}

/// Ends [`SoftIsmServer::run`] from elsewhere.
#[derive(Debug, Clone)]
pub struct SoftIsmStop(Arc<Eventfd>);

impl SoftIsmStop {
    /// Makes the server stop.
    pub fn stop(&self) {
        self.0.ring();
    }
}

impl SoftIsmServer {
    /// Listens for the clients of each function, at `function0`, `function1` and so on in this directory. Sockets there that
    /// nobody answers on are replaced.
    ///
    /// # Errors
    /// If another server is there, or the system's error.
    pub fn bind(fabric: SoftIsm, directory: impl AsRef<Path>) -> io::Result<Self> {
        let number = fabric.model().len();
        let sockets: Vec<_> =
            (0..number).map(|number| directory.as_ref().join(format!("function{number}"))).collect();
        let entrances = sockets.iter().map(|socket| Entrance::open(socket)).collect::<Result<_, _>>()?;
        Ok(Self { fabric, entrances, sockets, stop: Arc::new(Eventfd::new()?) })
    }

    /// Where the functions are, by their numbers.
    pub fn sockets(&self) -> &[PathBuf] {
        &self.sockets
    }

    /// How to stop the server.
    pub fn stop_handle(&self) -> SoftIsmStop {
        SoftIsmStop(self.stop.clone())
    }

    /// Serves until [`SoftIsmStop::stop`]. Clients that are connected then are served until they leave, or the process ends.
    ///
    /// # Errors
    /// If the system has no threads, or does not let it wait.
    pub fn run(&self) -> io::Result<()> {
        for (number, entrance) in self.entrances.iter().enumerate() {
            let listener = entrance.as_fd().try_clone_to_owned()?;
            let (fabric, stop) = (self.fabric.clone(), self.stop.clone());
            let thread = thread::Builder::new().name(format!("soft-ism-{number}"));
            thread.spawn(move || serve(&fabric, number, listener, &stop))?;
        }
        wait(&[&*self.stop])?;
        Ok(())
    }
}

/// Serves a function to one client after another.
fn serve(fabric: &SoftIsm, number: usize, listener: OwnedFd, stop: &Eventfd) {
    let Ok(entrance) = listener.try_clone() else { return };
    let server = Server::from_owned_fd(listener, true, irqs(), regions());
    while let Ok(ready) = wait(&[&entrance as &dyn AsFd, stop]) {
        if ready != 0 {
            return;
        }
        let mut backend = Backend { fabric, number, function: None };
        // The crate panics at some messages that are none. That is the end of this client, and not of the function.
        let served = catch_unwind(AssertUnwindSafe(|| server.run(&mut backend)));
        if !matches!(served, Ok(Ok(()))) {
            tracing::debug!(number, "the client of a function did not keep to the rules");
        }
    }
}

/// Waits for one of these; the number of the last that is ready.
fn wait(fds: &[&dyn AsFd]) -> io::Result<usize> {
    let mut fds: Vec<_> = fds.iter().map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)).collect();
    loop {
        match poll(&mut fds, None) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(_) => return Ok(fds.iter().rposition(|fd| !fd.revents().is_empty()).unwrap_or(0)),
        }
    }
}

fn irqs() -> Vec<IrqInfo> {
    let count = |index| u32::from(index == irq::MSI || index == irq::ERROR);
    // For eventfds.
    (0..VFIO_PCI_NUM_IRQS).map(|index| IrqInfo { index, flags: count(index), count: count(index) }).collect()
}

fn regions() -> Vec<ServerRegion> {
    let size = |index| match index {
        region::DATA => 1 << REGION_SHIFT,
        region::MAILBOX => MAILBOX_LEN as u64,
        region::CONFIG => config::LEN as u64,
        _ => 0,
    };
    let flags = |size| if size > 0 { VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE } else { 0 };
    let region = |index| ServerRegion {
        region_info: vfio_region_info {
            argsz: size_of::<vfio_region_info>() as u32,
            flags: flags(size(index)),
            index,
            cap_offset: 0,
            size: size(index),
            offset: at(index, 0),
        },
        sparse_areas: Vec::new(),
        mmap_fd: None,
    };
    (0..VFIO_PCI_NUM_REGIONS).map(region).collect()
}

/// What a client does to a function.
struct Backend<'a> {
    fabric: &'a SoftIsm,
    number: usize,
    /// Open from the first access on.
    function: Option<SoftFunction>,
}

impl Backend<'_> {
    fn function(&mut self) -> io::Result<&SoftFunction> {
        let function = match self.function.take() {
            Some(function) => function,
            None => self.fabric.open(self.number)?,
        };
        Ok(self.function.insert(function))
    }
}

/// The address, if the offset is one within a region.
fn place(region: u32, offset: u64) -> io::Result<u64> {
    if offset >> REGION_SHIFT == 0 { Ok(at(region, offset)) } else { Err(Errno::INVAL.into()) }
}

impl ServerBackend for Backend<'_> {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.function()?.read(place(region, offset)?, data)
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        self.function()?.write(place(region, offset)?, data)
    }

    fn dma_map(
        &mut self,
        flags: DmaMapFlags,
        offset: u64,
        address: u64,
        size: u64,
        fd: Option<File>,
    ) -> io::Result<()> {
        let fd = fd.filter(|_| flags == DmaMapFlags::READ_WRITE).ok_or(Errno::INVAL)?;
        let end = offset.checked_add(size).ok_or(Errno::INVAL)?;
        let len = usize::try_from(size).map_err(|_| Errno::INVAL)?;
        check_memory(&fd, end).map_err(io::Error::other)?;
        let memory = Arc::new(Memory::map_at(&fd, offset, len).map_err(io::Error::other)?);
        self.function()?.map_memory(address, memory)
    }

    fn dma_unmap(&mut self, flags: DmaUnmapFlags, address: u64, size: u64) -> io::Result<()> {
        let len = usize::try_from(size).map_err(|_| Errno::INVAL)?;
        if !flags.is_empty() {
            return Err(Errno::INVAL.into());
        }
        self.function()?.unmap(address, len)
    }

    fn reset(&mut self) -> io::Result<()> {
        self.function = None;
        Ok(())
    }

    fn set_irqs(
        &mut self,
        index: u32,
        flags: u32,
        start: u32,
        count: u32,
        mut fds: Vec<File>,
    ) -> io::Result<()> {
        let is_set = flags == VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
        let eventfd = match (fds.pop(), count) {
            (Some(fd), 1) if is_set && fds.is_empty() => Some(OwnedFd::from(fd)),
            (None, 0) if !is_set => None,
            _ => return Err(Errno::INVAL.into()),
        };
        let eventfd = eventfd.map(Eventfd::of).transpose().map_err(|_| Errno::INVAL)?;
        match (index, start) {
            (irq::MSI, 0) => self.function()?.ring_at(eventfd),
            (irq::ERROR, 0) => self.function()?.ring_at_end(eventfd),
            _ => return Err(Errno::INVAL.into()),
        }
        Ok(())
    }
}
