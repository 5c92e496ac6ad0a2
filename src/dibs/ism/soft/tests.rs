//! What functions in software refuse.

use std::{os::fd::AsFd, sync::Arc};

use super::{SoftFunction, SoftIsm, SoftIsmSettings, refusal};
use crate::dibs::{
    Memory, VlanId,
    eventfd::Eventfd,
    ism::{
        command::{Answer, AnswerHeader, Info, Request},
        signals,
        transport::{Transport, at, config, region},
    },
};

const SBA: u64 = 1 << 32;
const IEQ: u64 = SBA + 4096;
const DMBS: u64 = SBA + (1 << 20);

/// A function, driven by hand.
struct Hand {
    function: SoftFunction,
    interrupt: Eventfd,
    memory: Vec<Arc<Memory>>,
}

impl Hand {
    fn new(fabric: &SoftIsm, number: usize) -> Self {
        Self {
            function: fabric.open(number).unwrap(),
            interrupt: Eventfd::new().unwrap(),
            memory: Vec::new(),
        }
    }

    /// One that can register DMBs.
    fn ready(fabric: &SoftIsm, number: usize) -> Self {
        let mut hand = Self::new(fabric, number);
        hand.enable(config::MEMORY | config::MASTER);
        hand.function.set_interrupt(Some(hand.interrupt.as_fd())).unwrap();
        hand.map(SBA, 4096);
        hand.map(IEQ, 4096);
        assert_eq!(hand.call(Request::RegisterSba { iova: SBA }), Ok(Answer::Done));
        assert_eq!(hand.call(Request::RegisterIeq { iova: IEQ, len: 512 }), Ok(Answer::Done));
        hand
    }

    fn enable(&self, command: u16) {
        self.function.write(at(region::CONFIG, config::COMMAND), &command.to_le_bytes()).unwrap();
    }

    fn map(&mut self, iova: u64, len: usize) {
        self.memory.push(self.function.map(iova, len).unwrap());
    }

    fn gid(&self) -> u64 {
        self.function.fabric.gid(self.function.number()).unwrap().high()
    }

    fn call(&self, request: Request) -> Result<Answer, u16> {
        let (header, body) = request.emit();
        let mailbox = |offset| at(region::MAILBOX, offset);
        self.function.write(mailbox(8), &body).unwrap();
        self.function.write(mailbox(0), &header.emit()).unwrap();
        let mut header = [0; 8];
        self.function.read(mailbox(0), &mut header).unwrap();
        let header = AnswerHeader::parse(header);
        assert_eq!(header.code, request.code());
        if header.result != 0 {
            assert_eq!(header.len, 8);
            return Err(header.result);
        }
        assert_eq!(usize::from(header.len), request.answer_len());
        let mut body = vec![0; request.answer_len() - 8];
        self.function.read(mailbox(8), &mut body).unwrap();
        Ok(request.parse_answer(&body).unwrap())
    }

    fn register(&self, iova: u64, len: u32, index: u32, user: u64) -> Result<u64, u16> {
        match self.call(Request::RegisterDmb { iova, len, index, vlan: None, user })? {
            Answer::Token(token) => Ok(token),
            other => panic!("{other:?}"),
        }
    }

    fn store(&self, address: u64, data: &[u8]) -> bool {
        self.function.write(at(region::DATA, address), data).is_ok()
    }
}

fn fabric() -> SoftIsm {
    SoftIsm::new(&SoftIsmSettings { functions: 3, max_store: 2048, ..SoftIsmSettings::default() }).unwrap()
}

#[test]
fn nothing_before_it_is_enabled() {
    let fabric = fabric();
    let mut hand = Hand::new(&fabric, 0);
    let (mailbox, read) = (at(region::MAILBOX, 0), Request::ReadGid.emit().0.emit());
    assert!(hand.function.write(mailbox, &read).is_err());
    assert!(hand.function.read(mailbox, &mut [0; 8]).is_err());
    hand.enable(config::MEMORY);
    hand.map(SBA, 4096);
    assert_eq!(hand.call(Request::ReadGid), Ok(Answer::Gid(hand.gid())));
    assert_eq!(hand.call(Request::RegisterSba { iova: SBA }), Err(refusal::ADDRESS), "no bus master");
}

#[test]
fn pages_have_to_be_mapped_and_registered_in_order() {
    let fabric = fabric();
    let mut hand = Hand::new(&fabric, 0);
    hand.enable(6);
    hand.map(SBA, 8192);
    let (sba, ieq) = (|iova| Request::RegisterSba { iova }, |iova, len| Request::RegisterIeq { iova, len });
    assert_eq!(hand.call(ieq(IEQ, 512)), Err(refusal::NOT_REGISTERED));
    for wrong in [0, SBA + 8, SBA - 4096, SBA + 8192, u64::MAX] {
        assert_eq!(hand.call(sba(wrong)), Err(refusal::ADDRESS));
    }
    assert_eq!(hand.call(sba(SBA)), Ok(Answer::Done));
    assert_eq!(hand.call(sba(SBA)), Err(refusal::IN_USE));
    assert_eq!(hand.call(ieq(IEQ, 4096)), Err(refusal::LENGTH));
    assert_eq!(hand.register(SBA, 4096, 32, hand.gid()), Err(refusal::NOT_REGISTERED));
    assert_eq!(hand.call(ieq(IEQ, 512)), Ok(Answer::Done));
    assert_eq!(hand.call(ieq(IEQ, 512)), Err(refusal::IN_USE));
    assert_eq!(hand.call(Request::UnregisterSba), Err(refusal::IN_USE));
    assert_eq!(hand.call(Request::UnregisterIeq), Ok(Answer::Done));
    assert_eq!(hand.call(Request::UnregisterIeq), Err(refusal::NOT_REGISTERED));
    assert_eq!(hand.call(Request::UnregisterSba), Ok(Answer::Done));
    assert_eq!(hand.call(Request::UnregisterSba), Err(refusal::NOT_REGISTERED));
}

#[test]
fn what_is_no_command() {
    let fabric = fabric();
    let hand = Hand::ready(&fabric, 0);
    for (code, len) in [(0u32, 8u16), (6, 8), (7, 16), (0x0a, 32), (3, 16), (u32::MAX, 8)] {
        let mut header = [0; 8];
        header[..4].copy_from_slice(&code.to_be_bytes());
        header[6..].copy_from_slice(&len.to_be_bytes());
        hand.function.write(at(region::MAILBOX, 0), &header).unwrap();
        let mut answer = [0; 8];
        hand.function.read(at(region::MAILBOX, 0), &mut answer).unwrap();
        let answer = AnswerHeader::parse(answer);
        assert_eq!((answer.code, answer.result, answer.len), (code, refusal::REQUEST, 8));
    }
    let write = |offset, data: &[u8]| hand.function.write(at(region::MAILBOX, offset), data);
    assert!(write(0, &[0; 4]).is_err() && write(0, &[0; 16]).is_err() && write(4, &[0; 4]).is_err());
    assert!(write(250, &[0; 8]).is_err() && write(8, &[0; 2049]).is_err());
    assert!(hand.function.read(at(region::DATA, 0), &mut [0]).is_err());
    assert!(hand.function.write(at(1, 0), &[0]).is_err() && hand.function.write(at(8, 0), &[0]).is_err());
}

#[test]
fn buffers_have_their_rules() {
    let fabric = fabric();
    let (mut owner, user) = (Hand::ready(&fabric, 0), Hand::ready(&fabric, 1));
    owner.map(DMBS, 4 << 20);
    let gid = user.gid();
    for len in [0, 1, 4095, (1 << 20) + 4096, u32::MAX] {
        assert_eq!(owner.register(DMBS, len, 32, gid), Err(refusal::LENGTH));
    }
    let segment = 1u32 << 20;
    for (iova, len) in [
        (DMBS + 1, 4096),
        (DMBS + 4096, segment),
        (DMBS + (1 << 20) - 4096, 8192),
        (DMBS + (4 << 20), 4096),
        (0, 4096),
        (u64::MAX - 4095, 4096),
    ] {
        assert_eq!(owner.register(iova, len, 32, gid), Err(refusal::ADDRESS), "{iova:x}");
    }
    assert_eq!(owner.register(DMBS, 4096, 1920, gid), Err(refusal::INDEX));
    assert_eq!(owner.register(DMBS, 4096, 65568, gid), Err(refusal::INDEX));
    assert_eq!(owner.register(DMBS, 4096, 32, 1), Err(refusal::UNREACHABLE));
    let token = owner.register(DMBS, segment, 32, gid).unwrap();
    assert_eq!(owner.register(DMBS, 4096, 32, gid), Err(refusal::INDEX));
    let other = owner.register(DMBS, 4096, 33, gid).unwrap();
    assert_ne!(token, other);
    let unregister = |hand: &Hand, token| hand.call(Request::UnregisterDmb { token });
    assert_eq!(unregister(&user, token), Err(refusal::TOKEN));
    assert_eq!(unregister(&owner, token), Ok(Answer::Done));
    assert_eq!(unregister(&owner, token), Err(refusal::TOKEN));
    assert_eq!(owner.call(Request::UnregisterIeq), Ok(Answer::Done));
    assert_eq!(owner.call(Request::UnregisterSba), Err(refusal::IN_USE));
}

#[test]
fn stores_have_their_rules() {
    let fabric = fabric();
    let (mut owner, user) = (Hand::ready(&fabric, 0), Hand::ready(&fabric, 1));
    let stranger = Hand::ready(&fabric, 2);
    owner.map(DMBS, 16384);
    let token = owner.register(DMBS, 8192, 40, user.gid()).unwrap();
    assert!(user.store(token, &[1; 2048]) && user.store(token | 8191, &[2]));
    assert!(!user.store(token, &[1; 2049]), "too long");
    assert!(!user.store(token | 4095, &[1; 2]), "across pages");
    assert!(!user.store(token | 8192, &[1]), "behind the end");
    for wrong in [0, token ^ 1 << 32, token ^ 1 << 47, 0x40] {
        assert!(!user.store(wrong, &[1]), "{wrong:x}");
    }
    assert!(!stranger.store(token, &[1]) && !owner.store(token, &[1]), "for another");
    let mut got = [0; 8192];
    owner.memory[2].read(0, &mut got).unwrap();
    assert_eq!((got[0], got[2047], got[2048], got[8191]), (1, 1, 0, 2));
    let counters = fabric.counters(1);
    // Those that are no blocks do not come to the function.
    assert_eq!((counters.store_count(), counters.refused_stores, counters.signals), (2, 5, 0));
    assert!(!owner.interrupt.clear());
    assert!(user.store(token | 5 << 24 | 1 << 23, &[3]));
    assert!(user.store(token | 5 << 24 | 1 << 23, &[3]));
    assert!(owner.interrupt.clear());
    assert_eq!((fabric.counters(0).interrupts, fabric.counters(1).signals), (1, 2));
    assert_eq!(signals::take(&owner.memory[0]).unwrap().indexes, [40]);
    assert!(user.store(token | 1 << 23, &[3]) && owner.interrupt.clear(), "once more");
}

#[test]
fn who_takes_its_memory_away_fails() {
    let fabric = fabric();
    let (mut owner, user) = (Hand::ready(&fabric, 0), Hand::ready(&fabric, 1));
    owner.map(DMBS, 8192);
    let token = owner.register(DMBS, 8192, 40, user.gid()).unwrap();
    owner.function.unmap(DMBS, 8192).unwrap();
    assert!(!user.store(token, &[1]));
    assert!(user.interrupt.clear(), "others hear of it");
    assert!(signals::take(&user.memory[0]).unwrap().has_events);
    assert!(owner.function.read(at(region::MAILBOX, 0), &mut [0; 8]).is_err());
}

#[test]
fn vlans_have_their_rules() {
    let fabric = fabric();
    let (one, other) = (Hand::ready(&fabric, 0), Hand::ready(&fabric, 1));
    for wrong in [0, 4095, 4096, 0x2000, 65537, u64::MAX] {
        assert_eq!(one.call(Request::AddVlan(wrong)), Err(refusal::VLAN));
    }
    (1..=64).for_each(|vlan| assert_eq!(one.call(Request::AddVlan(vlan)), Ok(Answer::Done)));
    assert_eq!(one.call(Request::AddVlan(64)), Err(refusal::VLAN));
    assert_eq!(one.call(Request::AddVlan(65)), Err(refusal::FULL));
    let query = |vlan| one.call(Request::QueryRemote { gid: other.gid(), vlan });
    assert_eq!(query(None), Ok(Answer::Done));
    assert_eq!(query(Some(VlanId(5))), Err(refusal::UNREACHABLE));
    assert_eq!(query(Some(VlanId(100))), Err(refusal::VLAN));
    assert_eq!(one.call(Request::DelVlan(100)), Err(refusal::VLAN));
    assert_eq!(other.call(Request::AddVlan(5)), Ok(Answer::Done));
    assert_eq!(query(Some(VlanId(5))), Ok(Answer::Done));
}

#[test]
fn it_tells_how_it_is() {
    let fabric = fabric();
    let mut hand = Hand::ready(&fabric, 0);
    hand.map(DMBS, 8192);
    hand.register(DMBS, 4096, 32, hand.gid()).unwrap();
    hand.call(Request::AddVlan(0x1fff)).unwrap();
    let Ok(Answer::Info(info)) = hand.call(Request::QueryInfo) else { panic!() };
    let Info { gid, sba, ieq, ieq_len, dmbs_owned, dmbs_used, vlan_count, vlans, .. } = info;
    assert_eq!((gid, sba, ieq, ieq_len), (hand.gid(), SBA, IEQ, 512));
    assert_eq!((dmbs_owned, dmbs_used, vlan_count, vlans[0]), (1, 1, 1, 0x1fff));
}

/// What stands in the mailbox after each command, in hexadecimal; with `-` what is the function's own.
#[test]
fn answers_have_these_bytes() {
    let fabric = fabric();
    let (mut one, other) = (Hand::ready(&fabric, 0), Hand::ready(&fabric, 1));
    one.map(DMBS, 8192);
    let gid = other.gid();
    let answer = |request: Request, expected: &str| {
        let _ = one.call(request);
        let mut bytes = vec![0; expected.len() / 2];
        one.function.read(at(region::MAILBOX, 0), &mut bytes).unwrap();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let is_so = hex.chars().zip(expected.chars()).all(|(got, want)| got == want || want == '-');
        assert!(is_so, "{request:?}: {hex}");
    };
    answer(Request::ReadGid, &format!("0000000300000010{:016x}", one.gid()));
    answer(Request::QueryRemote { gid, vlan: None }, "0000000900000008");
    answer(Request::QueryRemote { gid: 1, vlan: None }, "0000000900070008");
    answer(Request::AddVlan(5), "0000000400000008");
    answer(Request::DelVlan(5), "0000000500000008");
    answer(Request::DelVlan(5), "0000000500090008");
    answer(Request::Signal { gid, interrupts: true, code: 0x80, info: 1 }, "0000000e00000008");
    let register = Request::RegisterDmb { iova: DMBS, len: 8192, index: 32, vlan: None, user: gid };
    answer(register, "0000000a000000100000----00000000");
    answer(Request::UnregisterDmb { token: 1 }, "0000000b00080008");
    let info = format!("00000008000000c80000000100100000{:016x}{:016x}{SBA:016x}{IEQ:016x}", 0, one.gid());
    answer(Request::QueryInfo, &(info + "00000200000000000000000100000000"));
    fabric.inject(0, super::Fault::Answer { command: 3, code: 0x1234 });
    answer(Request::ReadGid, "0000000312340008");
    answer(Request::UnregisterSba, "0000001100030008");
    answer(Request::UnregisterIeq, "0000001200000008");
    answer(Request::RegisterIeq { iova: IEQ, len: 512 }, "0000000200000008");
    answer(Request::RegisterSba { iova: SBA }, "0000000100030008");
}
