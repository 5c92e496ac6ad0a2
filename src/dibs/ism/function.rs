//! A function in our hands: its mailbox, and what it was told of our memory.

use std::{
    os::fd::AsFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    IsmError,
    addresses::Addresses,
    command::{Answer, AnswerHeader, HEADER_LEN, Malformed, NO_ANSWER, OK, Request},
    events, signals,
    transport::{Transport, at, config, region},
};
use crate::{
    dibs::{DeviceError, Memory, eventfd::Eventfd},
    unix::Generation,
};

/// Why a command had no effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CommandError {
    /// The function said no.
    Refused { command: u32, code: u16 },
    /// There was no answer.
    Lost,
}

impl From<CommandError> for DeviceError {
    fn from(error: CommandError) -> Self {
        match error {
            CommandError::Refused { command, code } => Self::Refused { command, code },
            CommandError::Lost => Self::Lost,
        }
    }
}

/// Memory that the function uses.
#[derive(Debug)]
pub(super) struct Page {
    iova: u64,
    len: usize,
    pub(super) memory: Arc<Memory>,
}

/// A function. On drop all is undone that it was told.
#[derive(Debug)]
pub(super) struct Function {
    /// The process that it belongs to.
    of: Generation,
    transport: Arc<dyn Transport>,
    /// One command at a time.
    mailbox: Mutex<()>,
    is_lost: AtomicBool,
    has_interrupt: bool,
    sba: Option<Page>,
    ieq: Option<Page>,
}

impl Function {
    /// Takes a function that nobody has told anything yet.
    pub(super) fn new(transport: Arc<dyn Transport>) -> Result<Self, IsmError> {
        let function = Self {
            of: Generation::current(),
            transport,
            mailbox: Mutex::new(()),
            is_lost: AtomicBool::new(false),
            has_interrupt: false,
            sba: None,
            ieq: None,
        };
        function.enable()?;
        Ok(function)
    }

    /// Makes sure of what it is, and lets it reach our memory.
    fn enable(&self) -> Result<(), IsmError> {
        let (mut identity, mut command) = ([0; 4], [0; 2]);
        self.transport.read(at(region::CONFIG, config::IDENTITY), &mut identity)?;
        match u32::from_le_bytes(identity) {
            config::ISM => {}
            other => return Err(IsmError::OtherDevice(other)),
        }
        let place = at(region::CONFIG, config::COMMAND);
        self.transport.read(place, &mut command)?;
        let command = u16::from_le_bytes(command) | config::MEMORY | config::MASTER;
        Ok(self.transport.write(place, &command.to_le_bytes())?)
    }

    /// Has signals and events written to pages of ours, and interrupts signalled.
    pub(super) fn begin(
        &mut self,
        addresses: &mut Addresses,
        interrupt: &Eventfd,
    ) -> Result<(Arc<Memory>, Arc<Memory>), IsmError> {
        self.transport.set_interrupt(Some(interrupt.as_fd()))?;
        self.has_interrupt = true;
        let sba = self.page(addresses, signals::LEN)?;
        self.call(&Request::RegisterSba { iova: sba.iova }).map_err(DeviceError::from)?;
        let signals = self.sba.insert(sba).memory.clone();
        let ieq = self.page(addresses, events::LEN)?;
        let register = Request::RegisterIeq { iova: ieq.iova, len: events::REGISTERED };
        self.call(&register).map_err(DeviceError::from)?;
        let events = self.ieq.insert(ieq).memory.clone();
        Ok((signals, events))
    }

    /// Memory for the function. If it is not registered after all, the function lets go of it when it is closed.
    fn page(&self, addresses: &mut Addresses, len: usize) -> Result<Page, DeviceError> {
        let scarce = DeviceError::OutOfMemory { requested: len, available: 0 };
        let iova = addresses.take(len).ok_or(scarce)?;
        Ok(Page { iova, len, memory: self.transport.map(iova, len)? })
    }

    pub(super) fn transport(&self) -> &dyn Transport {
        &*self.transport
    }

    /// For the thread that waits for it.
    pub(super) fn transport_handle(&self) -> Arc<dyn Transport> {
        self.transport.clone()
    }

    /// True in a process that was forked from the one that it belongs to.
    pub(super) fn is_inherited(&self) -> bool {
        self.of.is_past()
    }

    /// True if it does not answer any more.
    pub(super) fn is_lost(&self) -> bool {
        self.is_lost.load(Ordering::Acquire)
    }

    /// It is not asked any more.
    pub(super) fn set_lost(&self) {
        self.is_lost.store(true, Ordering::Release);
    }

    /// Gives a command, and waits for the answer.
    pub(super) fn call(&self, request: &Request) -> Result<Answer, CommandError> {
        if self.is_lost() {
            return Err(CommandError::Lost);
        }
        // Nothing panics while it is held.
        let _one_at_a_time = self.mailbox.lock().unwrap_or_else(PoisonError::into_inner);
        let (header, body) = self.exchange(request).ok_or(CommandError::Lost)?;
        let command = request.code();
        match header.result {
            OK => request.parse_answer(&body).map_err(|error| malformed(command, error)),
            NO_ANSWER => Err(CommandError::Lost),
            code => Err(CommandError::Refused { command, code }),
        }
    }

    fn exchange(&self, request: &Request) -> Option<(AnswerHeader, Vec<u8>)> {
        let (header, body) = request.emit();
        let (start, behind) = (at(region::MAILBOX, 0), at(region::MAILBOX, HEADER_LEN as u64));
        if !body.is_empty() {
            self.transport.write(behind, &body).ok()?;
        }
        // Begins the command, which is over when this returns.
        self.transport.write(start, &header.emit()).ok()?;
        let mut answer = AnswerHeader { code: 0, result: NO_ANSWER, len: 0 }.emit();
        self.transport.read(start, &mut answer).ok()?;
        let answer = AnswerHeader::parse(answer);
        if answer.result != OK {
            return Some((answer, Vec::new()));
        }
        // No more than is known: a later device may have more to say.
        let len = usize::from(answer.len).min(request.answer_len()).saturating_sub(HEADER_LEN);
        let mut body = vec![0; len];
        if len > 0 {
            self.transport.read(behind, &mut body).ok()?;
        }
        Some((answer, body))
    }
}

/// An answer that is none: who answers so is not the device that we know.
fn malformed(command: u32, error: Malformed) -> CommandError {
    tracing::warn!(command, %error, "an ISM function gives an answer that is none");
    CommandError::Lost
}

impl Drop for Function {
    fn drop(&mut self) {
        // In a child it is still the parent's.
        if self.is_inherited() {
            return;
        }
        // Whatever is refused now, the function lets go of with its last descriptor.
        for (page, undo) in
            [(self.ieq.take(), Request::UnregisterIeq), (self.sba.take(), Request::UnregisterSba)]
        {
            let Some(page) = page else { continue };
            if matches!(self.call(&undo), Ok(_) | Err(CommandError::Lost)) {
                let _ = self.transport.unmap(page.iova, page.len);
            }
        }
        if self.has_interrupt {
            let _ = self.transport.set_interrupt(None);
        }
    }
}
