//! What the functions of a fabric are told, and what they do then.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use rustix::io::Errno;

use super::{Counters, End, Fault, SoftIsmSettings, config::Config, dma::Dma, refusal};
use crate::dibs::{
    Memory, VlanId,
    eventfd::Eventfd,
    ism::{
        command::{Answer, AnswerHeader, HEADER_LEN, Info, MAX_VLANS, NO_ANSWER, OK, Request, RequestHeader},
        events::{self, Entry, Writer, device, kind},
        signals,
        store::{Address, PAGE, SEGMENT},
        transport::Description,
    },
};

/// Bytes of BAR 2.
pub(super) const MAILBOX_LEN: usize = 256;

/// Tokens are multiples of this.
const TOKEN: u64 = 1 << 32;

/// The fabric.
#[derive(Debug)]
pub(super) struct Model {
    description: Description,
    functions: Vec<Function>,
    /// By token.
    dmbs: HashMap<u64, SoftDmb>,
    last_token: u16,
    /// As in the settings.
    needs_vlan: bool,
}

/// A function, and what it knows.
#[derive(Debug)]
struct Function {
    gid: u64,
    config: Config,
    state: Condition,
    mailbox: [u8; MAILBOX_LEN],
    dma: Dma,
    sba: Option<u64>,
    ieq: Option<(u64, Writer)>,
    vlans: BTreeSet<u16>,
    interrupt: Option<Eventfd>,
    /// Rung when it stops.
    end: Option<Arc<Eventfd>>,
    counters: Counters,
    answers: Vec<(u32, u16)>,
    stores_left: Option<(u64, End)>,
}

/// How a function is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Condition {
    Closed,
    Working,
    /// It refuses all.
    Stopped,
    Lost,
}

/// A DMB, as its fabric knows it.
#[derive(Clone, Copy, Debug)]
struct SoftDmb {
    owner: usize,
    iova: u64,
    len: usize,
    index: u16,
    /// GID of the function that may write.
    user: u64,
}

impl Model {
    pub(super) fn new(description: Description, settings: &SoftIsmSettings) -> io::Result<Self> {
        let mut gids = BTreeSet::new();
        while gids.len() < settings.functions {
            gids.insert(getrandom::u64().map_err(io::Error::from)?.max(1));
        }
        let config = Config::new(&description);
        let functions = gids.into_iter().map(|gid| Function::new(gid, config.clone())).collect();
        let last_token = getrandom::u32().map_err(io::Error::from)? as u16;
        Ok(Self { description, functions, dmbs: HashMap::new(), last_token, needs_vlan: settings.needs_vlan })
    }

    pub(super) fn description(&self) -> &Description {
        &self.description
    }

    /// How many functions there are.
    #[cfg(feature = "vfio-user")]
    pub(super) fn len(&self) -> usize {
        self.functions.len()
    }

    pub(super) fn gid(&self, number: usize) -> Option<u64> {
        self.functions.get(number).map(|function| function.gid)
    }

    pub(super) fn is_open(&self, number: usize) -> bool {
        self.functions.get(number).is_some_and(|function| function.state != Condition::Closed)
    }

    pub(super) fn counters(&mut self, number: usize) -> Option<&mut Counters> {
        self.functions.get_mut(number).map(|function| &mut function.counters)
    }

    fn function(&mut self, number: usize) -> io::Result<&mut Function> {
        self.functions.get_mut(number).ok_or(Errno::NODEV.into())
    }

    /// A function that does what it is told.
    fn working(&mut self, number: usize) -> io::Result<&mut Function> {
        let function = self.function(number)?;
        let is_ready = function.state == Condition::Working && function.config.is_enabled();
        if is_ready { Ok(function) } else { Err(Errno::IO.into()) }
    }

    pub(super) fn open(&mut self, number: usize, end: Arc<Eventfd>) -> io::Result<()> {
        let config = Config::new(&self.description);
        let function = self.function(number)?;
        if function.state != Condition::Closed {
            return Err(Errno::BUSY.into());
        }
        // As after a reset. What was injected is for whoever opens it.
        let fresh = Function::new(function.gid, config);
        let (counters, answers) =
            (std::mem::take(&mut function.counters), std::mem::take(&mut function.answers));
        let stores_left = function.stores_left;
        *function = Function { counters, answers, stores_left, end: Some(end), ..fresh };
        function.state = Condition::Working;
        Ok(())
    }

    pub(super) fn close(&mut self, number: usize) {
        let Ok(function) = self.function(number) else { return };
        let (gid, was) = (function.gid, function.state);
        function.state = Condition::Closed;
        function.dma = Dma::default();
        (function.sba, function.ieq, function.interrupt, function.end) = (None, None, None, None);
        self.dmbs.retain(|_, dmb| dmb.owner != number);
        if was == Condition::Working || was == Condition::Lost {
            self.tell_others(gid, device::DISABLED);
        }
    }

    pub(super) fn inject(&mut self, number: usize, fault: Fault) {
        let Ok(function) = self.function(number) else { return };
        match fault {
            Fault::Answer { command, code } => function.answers.push((command, code)),
            Fault::End(end) => self.end(number, end),
            Fault::EndAfter { stores, end } => function.stores_left = Some((stores, end)),
            Fault::BadQueue => {
                if let Some(page) = function.ieq.and_then(|(iova, _)| function.dma.page(iova)) {
                    let _ = page.store(0, u64::MAX);
                    function.interrupt();
                }
            }
        }
    }

    fn end(&mut self, number: usize, end: End) {
        match end {
            End::Failure => self.stop(number, device::FAILED),
            End::Disabled => self.stop(number, device::DISABLED),
            End::Lost => {
                let Ok(function) = self.function(number) else { return };
                function.state = Condition::Lost;
                function.ring_end();
            }
        }
    }

    /// A function does nothing any more, and the others hear of it.
    fn stop(&mut self, number: usize, code: u32) {
        let Ok(function) = self.function(number) else { return };
        if function.state != Condition::Working {
            return;
        }
        function.state = Condition::Stopped;
        function.ring_end();
        let gid = function.gid;
        self.tell_others(gid, code);
    }

    fn tell_others(&mut self, gid: u64, code: u32) {
        let entry = Entry { kind: kind::DEVICE, code, subject: gid, time: clock(), info: 0 };
        for number in 0..self.functions.len() {
            self.put_event(number, entry);
        }
    }

    /// Puts an event into the queue of a function, if it has one.
    fn put_event(&mut self, number: usize, entry: Entry) {
        let Some(function) = self.functions.get_mut(number) else { return };
        if function.state == Condition::Working && function.put_event(entry).is_none() {
            self.stop(number, device::FAILED);
        }
    }

    pub(super) fn map(&mut self, number: usize, iova: u64, memory: Arc<Memory>) -> io::Result<()> {
        let window = self.description.window.clone();
        self.function(number)?.dma.map(&window, iova, memory).map_err(|_| Errno::INVAL.into())
    }

    pub(super) fn unmap(&mut self, number: usize, iova: u64, len: usize) -> io::Result<()> {
        self.function(number)?.dma.unmap(iova, len).map_err(|_| Errno::INVAL.into())
    }

    pub(super) fn set_interrupt(&mut self, number: usize, interrupt: Option<Eventfd>) {
        if let Ok(function) = self.function(number) {
            function.interrupt = interrupt;
        }
    }

    #[cfg(feature = "vfio-user")]
    pub(super) fn set_end(&mut self, number: usize, end: Option<Eventfd>) {
        let Ok(function) = self.function(number) else { return };
        function.end = end.map(Arc::new);
        if function.state != Condition::Working {
            function.ring_end();
        }
    }

    pub(super) fn read_config(&mut self, number: usize, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.function(number)?.config.read(offset, out) { Ok(()) } else { Err(Errno::INVAL.into()) }
    }

    pub(super) fn write_config(&mut self, number: usize, offset: u64, data: &[u8]) -> io::Result<()> {
        if self.function(number)?.config.write(offset, data) { Ok(()) } else { Err(Errno::INVAL.into()) }
    }

    pub(super) fn read_mailbox(&mut self, number: usize, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.function(number)?.state == Condition::Lost {
            out.fill(0xff);
            return Ok(());
        }
        let mailbox = &self.working(number)?.mailbox;
        let from = usize::try_from(offset).ok().and_then(|at| mailbox.get(at..)?.get(..out.len()));
        out.copy_from_slice(from.ok_or(Errno::INVAL)?);
        Ok(())
    }

    /// A write to the header begins the command.
    pub(super) fn write_mailbox(&mut self, number: usize, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check_block(offset, data.len())?;
        if self.function(number)?.state == Condition::Lost {
            return Ok(());
        }
        let function = self.working(number)?;
        let at = usize::try_from(offset).map_err(|_| Errno::INVAL)?;
        let to = function.mailbox.get_mut(at..).and_then(|rest| rest.get_mut(..data.len()));
        to.ok_or(Errno::INVAL)?.copy_from_slice(data);
        match (at, data.first_chunk::<HEADER_LEN>()) {
            (0, Some(header)) if data.len() == HEADER_LEN => {
                self.command(number, RequestHeader::parse(*header));
                Ok(())
            }
            // Part of a header, or more than it.
            (0..HEADER_LEN, _) => Err(Errno::IO.into()),
            _ => Ok(()),
        }
    }

    /// What the kernel makes sure of before it gives the function a block.
    fn check_block(&self, offset: u64, len: usize) -> io::Result<()> {
        let in_page = (offset % PAGE as u64) as usize;
        let is_block = len <= self.description.max_store && in_page + len <= PAGE;
        if is_block { Ok(()) } else { Err(Errno::INVAL.into()) }
    }

    /// Data for a DMB.
    pub(super) fn store(&mut self, number: usize, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check_block(offset, data.len())?;
        let done = self.try_store(number, offset, data);
        if let (Err(_), Ok(function)) = (&done, self.function(number)) {
            function.counters.refused_stores += 1;
        }
        done
    }

    fn try_store(&mut self, number: usize, offset: u64, data: &[u8]) -> io::Result<()> {
        let refused = || io::Error::from(Errno::IO);
        if let Some(end) = self.working(number)?.use_up_a_store() {
            self.end(number, end);
            return Err(refused());
        }
        let gid = self.working(number)?.gid;
        let address = Address::parse(offset).ok_or_else(refused)?;
        let dmb = *self.dmbs.get(&address.token.0).ok_or_else(refused)?;
        let is_within = address.offset.checked_add(data.len()).is_some_and(|end| end <= dmb.len);
        if dmb.user != gid || !is_within {
            return Err(refused());
        }
        let owner = self.working(dmb.owner)?;
        if owner.receive(&dmb, address, data).is_none() {
            // Its memory is not where it was.
            self.stop(dmb.owner, device::FAILED);
            return Err(refused());
        }
        let counters = &mut self.function(number)?.counters;
        *counters.stores.entry(data.len()).or_default() += 1;
        counters.signals += u64::from(address.signals);
        Ok(())
    }

    /// Carries out the command that is in the mailbox, and puts the answer there.
    fn command(&mut self, number: usize, header: RequestHeader) {
        let Ok(function) = self.function(number) else { return };
        let body = function.mailbox.get(HEADER_LEN..).unwrap_or_default();
        let request = Request::parse(header, body).map_err(|_| refusal::REQUEST);
        let injected = function.injected(header.code);
        let result = match injected {
            Some(code) => Err(code),
            None => request.and_then(|request| self.carry_out(number, request)),
        };
        let Ok(function) = self.function(number) else { return };
        let counters = &mut function.counters;
        let counts = if result.is_ok() { &mut counters.commands } else { &mut counters.refused_commands };
        *counts.entry(header.code).or_default() += 1;
        function.answer(header.code, result);
    }

    fn carry_out(&mut self, number: usize, request: Request) -> Result<Answer, u16> {
        let function = self.functions.get_mut(number).ok_or(NO_ANSWER)?;
        match request {
            Request::RegisterSba { iova } => function.register_sba(iova)?,
            Request::RegisterIeq { iova, len } => function.register_ieq(iova, len)?,
            Request::UnregisterIeq => function.ieq.take().map(|_| ()).ok_or(refusal::NOT_REGISTERED)?,
            Request::ReadGid => return Ok(Answer::Gid(function.gid)),
            Request::AddVlan(vlan) => function.add_vlan(vlan)?,
            Request::DelVlan(vlan) => {
                let is_known = u16::try_from(vlan).is_ok_and(|vlan| function.vlans.remove(&vlan));
                is_known.then_some(()).ok_or(refusal::VLAN)?;
            }
            Request::UnregisterSba => self.unregister_sba(number)?,
            Request::QueryInfo => return self.info(number).map(Answer::Info),
            Request::QueryRemote { vlan: None, .. } if self.needs_vlan => return Err(refusal::VLAN),
            Request::QueryRemote { gid, vlan } => {
                self.reach(number, gid, vlan)?;
            }
            Request::RegisterDmb { iova, len, index, vlan, user } => {
                self.reach(number, user, vlan)?;
                return self.register_dmb(number, iova, len, index, user).map(Answer::Token);
            }
            Request::UnregisterDmb { token } => {
                let is_own = self.dmbs.get(&token).is_some_and(|dmb| dmb.owner == number);
                is_own.then(|| self.dmbs.remove(&token)).ok_or(refusal::TOKEN)?;
            }
            Request::Signal { gid, interrupts: _, code, info } => {
                let (from, to) = (function.gid, self.reach(number, gid, None)?);
                let entry = Entry { kind: kind::SOFTWARE, code, subject: from, time: clock(), info };
                self.put_event(to, entry);
            }
        }
        Ok(Answer::Done)
    }

    fn unregister_sba(&mut self, number: usize) -> Result<(), u16> {
        let has_dmbs = self.dmbs.values().any(|dmb| dmb.owner == number);
        let function = self.functions.get_mut(number).ok_or(NO_ANSWER)?;
        if has_dmbs || function.ieq.is_some() {
            return Err(refusal::IN_USE);
        }
        function.sba.take().map(|_| ()).ok_or(refusal::NOT_REGISTERED)
    }

    /// The number of the function that has this GID, if it can be reached within the VLAN.
    fn reach(&self, from: usize, gid: u64, vlan: Option<VlanId>) -> Result<usize, u16> {
        let other = self.functions.iter().position(|function| {
            function.gid == gid && function.state == Condition::Working && function.sba.is_some()
        });
        let other = other.ok_or(refusal::UNREACHABLE)?;
        let has_vlan = |number: usize| {
            vlan.is_none_or(|vlan| {
                self.functions.get(number).is_some_and(|function| function.vlans.contains(&vlan.0))
            })
        };
        if !has_vlan(from) {
            return Err(refusal::VLAN);
        }
        if has_vlan(other) { Ok(other) } else { Err(refusal::UNREACHABLE) }
    }

    fn register_dmb(&mut self, owner: usize, iova: u64, len: u32, index: u32, user: u64) -> Result<u64, u16> {
        let function = self.functions.get(owner).ok_or(NO_ANSWER)?;
        if function.sba.is_none() || function.ieq.is_none() {
            return Err(refusal::NOT_REGISTERED);
        }
        let len = len as usize;
        if len == 0 || len > SEGMENT || !len.is_multiple_of(PAGE) {
            return Err(refusal::LENGTH);
        }
        let (segment, last) = (SEGMENT as u64, iova.checked_add(len as u64 - 1).ok_or(refusal::ADDRESS)?);
        let is_whole = iova.is_multiple_of(PAGE as u64) && iova / segment == last / segment;
        if !is_whole || function.dma.find(iova, len).is_none() {
            return Err(refusal::ADDRESS);
        }
        let index = u16::try_from(index).map_err(|_| refusal::INDEX)?;
        let is_taken = self.dmbs.values().any(|dmb| dmb.owner == owner && dmb.index == index);
        if is_taken || index >= signals::END {
            return Err(refusal::INDEX);
        }
        let token = self.free_token().ok_or(refusal::FULL)?;
        self.dmbs.insert(token, SoftDmb { owner, iova, len, index, user });
        Ok(token)
    }

    /// The token after the last one that was given out.
    fn free_token(&mut self) -> Option<u64> {
        let tokens = 1..=u32::from(u16::MAX);
        let token = tokens
            .map(|more| self.last_token.wrapping_add(more as u16))
            .find(|token| *token != 0 && !self.dmbs.contains_key(&(u64::from(*token) * TOKEN)))?;
        self.last_token = token;
        Some(u64::from(token) * TOKEN)
    }

    fn info(&self, number: usize) -> Result<Info, u16> {
        let function = self.functions.get(number).ok_or(NO_ANSWER)?;
        let count = |has: &dyn Fn(&SoftDmb) -> bool| self.dmbs.values().filter(|dmb| has(dmb)).count() as u32;
        let mut vlans = [0; MAX_VLANS];
        vlans.iter_mut().zip(&function.vlans).for_each(|(to, vlan)| *to = *vlan);
        Ok(Info {
            version: 1,
            max_len: SEGMENT as u32,
            state: 0,
            gid: function.gid,
            sba: function.sba.unwrap_or(0),
            ieq: function.ieq.map_or(0, |(iova, _)| iova),
            ieq_len: function.ieq.map_or(0, |_| events::REGISTERED as u32),
            dmbs_owned: count(&|dmb| dmb.owner == number),
            dmbs_used: count(&|dmb| dmb.user == function.gid),
            vlan_required: self.needs_vlan.into(),
            vlan_count: function.vlans.len() as u32,
            vlans,
        })
    }
}

impl Function {
    fn new(gid: u64, config: Config) -> Self {
        Self {
            gid,
            config,
            state: Condition::Closed,
            mailbox: [0; MAILBOX_LEN],
            dma: Dma::default(),
            sba: None,
            ieq: None,
            vlans: BTreeSet::new(),
            interrupt: None,
            end: None,
            counters: Counters::default(),
            answers: Vec::new(),
            stores_left: None,
        }
    }

    fn ring_end(&self) {
        if let Some(end) = &self.end {
            end.ring();
        }
    }

    fn interrupt(&mut self) {
        self.counters.interrupts += 1;
        if let Some(interrupt) = &self.interrupt {
            interrupt.ring();
        }
    }

    /// The answer that was injected for a command.
    fn injected(&mut self, code: u32) -> Option<u16> {
        let at = self.answers.iter().position(|(command, _)| *command == code)?;
        Some(self.answers.remove(at).1)
    }

    /// How it ends, if no store is left.
    fn use_up_a_store(&mut self) -> Option<End> {
        let (left, end) = self.stores_left.as_mut()?;
        if *left == 0 {
            let end = *end;
            self.stores_left = None;
            return Some(end);
        }
        *left -= 1;
        None
    }

    fn answer(&mut self, code: u32, result: Result<Answer, u16>) {
        let (result, body) = match result {
            Ok(answer) => (OK, answer.emit()),
            Err(code) => (code, Vec::new()),
        };
        let len = (HEADER_LEN + body.len()) as u16;
        let header = AnswerHeader { code, result, len }.emit();
        self.mailbox.iter_mut().zip(header.into_iter().chain(body)).for_each(|(to, from)| *to = from);
    }

    fn register_sba(&mut self, iova: u64) -> Result<(), u16> {
        if self.sba.is_some() {
            return Err(refusal::IN_USE);
        }
        self.check_page(iova)?;
        self.sba = Some(iova);
        Ok(())
    }

    fn register_ieq(&mut self, iova: u64, len: u64) -> Result<(), u16> {
        match (self.sba, self.ieq) {
            (None, _) => return Err(refusal::NOT_REGISTERED),
            (_, Some(_)) => return Err(refusal::IN_USE),
            _ => {}
        }
        if len != events::REGISTERED {
            return Err(refusal::LENGTH);
        }
        let page = self.check_page(iova)?;
        let writer = Writer::begin(&page, len).map_err(|_| refusal::ADDRESS)?;
        self.ieq = Some((iova, writer));
        Ok(())
    }

    /// A page that the function may use.
    fn check_page(&self, iova: u64) -> Result<Memory, u16> {
        let page = self.dma.page(iova).filter(|_| iova.is_multiple_of(PAGE as u64));
        page.filter(|_| self.config.is_master()).ok_or(refusal::ADDRESS)
    }

    fn add_vlan(&mut self, vlan: u64) -> Result<(), u16> {
        let vlan = u16::try_from(vlan).map_err(|_| refusal::VLAN)?;
        if !(1..=4094).contains(&vlan) && vlan != VlanId::ISM_V2.0 || self.vlans.contains(&vlan) {
            return Err(refusal::VLAN);
        }
        if self.vlans.len() >= MAX_VLANS {
            return Err(refusal::FULL);
        }
        self.vlans.insert(vlan);
        Ok(())
    }

    /// Takes data that was stored for a DMB of this function; `None` if there is no memory for it.
    fn receive(&mut self, dmb: &SoftDmb, address: Address, data: &[u8]) -> Option<()> {
        if !self.config.is_master() {
            return None;
        }
        let (memory, offset) = self.dma.find(dmb.iova.checked_add(address.offset as u64)?, data.len())?;
        memory.write(offset, data).ok()?;
        if address.signals {
            let page = self.dma.page(self.sba?)?;
            if signals::signal(&page, dmb.index, address.element).ok()? {
                self.interrupt();
            }
        }
        Some(())
    }

    /// Puts an event into the queue; `None` if there is no memory for it. Without a queue it is nobody's.
    fn put_event(&mut self, entry: Entry) -> Option<()> {
        let Some((iova, mut writer)) = self.ieq else { return Some(()) };
        let (queue, bits) = (self.dma.page(iova)?, self.dma.page(self.sba?)?);
        writer.push(&queue, entry).ok()?;
        self.ieq = Some((iova, writer));
        self.counters.events += 1;
        if signals::signal_event(&bits).ok()? {
            self.interrupt();
        }
        Some(())
    }
}

/// The clock of the machine: in microseconds since 1900, from bit 12 on.
fn clock() -> u64 {
    const SECONDS_TO_1970: u64 = 2_208_988_800;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Until the clock itself is full, in 2042.
    let micros = (u64::try_from(now.as_micros()).unwrap_or(0)).wrapping_add(SECONDS_TO_1970 * 1_000_000);
    micros << 12
}
