//! A function that another process has, at a unix socket: vfio-user, as [`SoftIsmServer`](super::soft::SoftIsmServer) and
//! others speak it.
//!
//! The client is our own. That of the `vfio_user` crate (0.1.7) does not look whether an answer is a refusal: it takes a
//! mapping that was refused for made, and waits for ever for the rest of a refused read or write.

mod channel;
mod message;

use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::{
    event::epoll::{self, CreateFlags, EventData, EventFlags},
    io::Errno,
};

use self::{
    channel::Channel,
    message::{REGIONS, code},
};
use super::{
    Ism, IsmError, capability,
    transport::{Description, Transport, irq, region, split},
};
use crate::{
    dibs::{DeviceError, Memory, eventfd::Eventfd},
    unix::{Kept, sized_memory},
};

/// Bytes of a configuration space.
const CONFIG_LEN: usize = 256;

impl Ism {
    /// Takes the function into use that a vfio-user server has at this socket, such as `smcdctl soft-ism`.
    ///
    /// # Errors
    /// If there is none, somebody else has it, or as [`Ism::open`].
    pub fn connect(path: impl AsRef<Path>) -> Result<Self, IsmError> {
        Self::open(Arc::new(VfioUser::connect(path)?))
    }
}

/// A function at a socket.
#[derive(Debug)]
pub struct VfioUser {
    channel: Mutex<Channel>,
    description: Description,
    end: End,
}

/// Whether the server has gone, or says that the function has failed.
#[derive(Debug)]
struct End {
    /// Readable when one of the others is.
    epoll: Kept,
    _error: Eventfd,
    _socket: UnixStream,
}

impl VfioUser {
    /// Connects to a server. A server has one client at a time; another waits, and not for ever.
    ///
    /// # Errors
    /// If there is no server, or it has no such function.
    pub fn connect(path: impl AsRef<Path>) -> Result<Self, IsmError> {
        let mut channel = Channel::connect(path.as_ref()).map_err(IsmError::Connect)?;
        check(&mut channel)?;
        let mut space = [0; CONFIG_LEN];
        read(&mut channel, region::CONFIG, 0, &mut space)?;
        let description =
            capability::find(&space).ok_or(IsmError::Server("it does not describe the function"))?;
        let end = End::new(&mut channel)?;
        Ok(Self { channel: Mutex::new(channel), description, end })
    }

    fn channel(&self) -> MutexGuard<'_, Channel> {
        // Nothing panics while it is held.
        self.channel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes sure that the other end is a server of a function.
fn check(channel: &mut Channel) -> Result<(), IsmError> {
    if !message::is_version(&channel.call(code::VERSION, &message::version(), None)?) {
        return Err(IsmError::Server("it speaks another version"));
    }
    if !message::is_function(&channel.call(code::INFO, &message::info(), None)?) {
        return Err(IsmError::Server("it has no PCI function"));
    }
    for region in REGIONS {
        let info = channel.call(code::REGION_INFO, &message::region_info(region), None)?;
        if message::size_of(&info).is_none_or(|size| size == 0) {
            return Err(IsmError::Server("the function lacks a region"));
        }
    }
    Ok(())
}

fn read(channel: &mut Channel, region: u32, offset: u64, out: &mut [u8]) -> io::Result<()> {
    let len = u32::try_from(out.len()).map_err(|_| Errno::INVAL)?;
    let asked = message::access(region, offset, len);
    let answer = channel.call(code::READ, &asked, None)?;
    let data = answer.get(asked.len()..).filter(|data| data.len() == out.len());
    out.copy_from_slice(data.ok_or(io::ErrorKind::InvalidData)?);
    Ok(())
}

fn set_irq(channel: &mut Channel, index: u32, eventfd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    channel.call(code::SET_IRQS, &message::set_irqs(index, eventfd.is_some()), eventfd).map(|_| ())
}

impl End {
    fn new(channel: &mut Channel) -> Result<Self, IsmError> {
        let (error, socket) = (Eventfd::new()?, channel.try_clone()?);
        match set_irq(channel, irq::ERROR, Some(error.as_fd())) {
            // Some servers have no such interrupt.
            Err(error) if error.raw_os_error().is_none() => return Err(error.into()),
            _ => {}
        }
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &error, EventData::new_u64(0), EventFlags::IN)?;
        // Of the socket only the end; answers are for who has asked.
        epoll::add(&epoll, &socket, EventData::new_u64(1), EventFlags::empty())?;
        Ok(Self { epoll: Kept::new(epoll), _error: error, _socket: socket })
    }
}

impl Transport for VfioUser {
    fn description(&self) -> Description {
        self.description.clone()
    }

    fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        let (region, offset) = split(at);
        read(&mut self.channel(), region, offset, out)
    }

    fn write(&self, at: u64, data: &[u8]) -> io::Result<()> {
        let (region, offset) = split(at);
        let len = u32::try_from(data.len()).map_err(|_| Errno::INVAL)?;
        let mut body = message::access(region, offset, len);
        body.extend(data);
        let answer = self.channel().call(code::WRITE, &body, None)?;
        // Or the function has got only a part of it, or something else.
        if message::written(&answer) == Some(len) { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    fn map(&self, iova: u64, len: usize) -> Result<Arc<Memory>, DeviceError> {
        let file = sized_memory("smcd-dmb", len)?;
        let memory = Arc::new(Memory::map(&file, len)?);
        self.channel().call(code::MAP, &message::map(iova, len as u64), Some(file.as_fd()))?;
        Ok(memory)
    }

    fn unmap(&self, iova: u64, len: usize) -> io::Result<()> {
        self.channel().call(code::UNMAP, &message::unmap(iova, len as u64), None).map(|_| ())
    }

    fn set_interrupt(&self, eventfd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        set_irq(&mut self.channel(), irq::MSI, eventfd)
    }

    fn end(&self) -> Option<BorrowedFd<'_>> {
        Some(self.end.epoll.as_fd())
    }
}
