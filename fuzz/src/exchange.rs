//! A whole handshake.

use std::time::Instant;

use smcd::{
    clc::{
        handshake::{
            Agreed, HandshakeError, Local, LocalDevice, LocalV1, OwnDmb,
            client::{self, ExpectAccept},
            server::{ExpectConfirm, ExpectProposal},
        },
        wire::{Assembler, DmbeSize, Ipv4Prefix, LinkId, Message, Prefixes, Proposal, UpTo},
    },
    dibs::{Chid, DmbToken, Gid},
};

const DMB: OwnDmb = OwnDmb { token: DmbToken(0x1122_3344_5566_7788), size: DmbeSize::from_code(2), index: 0 };

/// The first byte says who is real. Bit 0: the client, bit 1: the server; the rest is the stream of whoever is not. With
/// both, the rest is changes to the bytes between them: where, and what is added there. Bit 2: version 1 is spoken too.
/// Bit 3: this is first contact. Bits 4 to 7: how many bytes are read at a time.
pub fn exchange(data: &[u8]) {
    let Some((&how, rest)) = data.split_first() else { return };
    let settings = Settings { speaks_v1: how & 4 != 0, first_contact: how & 8 != 0 };
    let mut wire = Wire { bytes: rest, step: usize::from(how >> 4) + 1 };
    match how & 3 {
        0 | 3 => between(settings, rest),
        1 => drop(client_meets(settings, &mut wire)),
        _ => drop(server_meets(settings, &mut wire)),
    }
}

#[derive(Clone, Copy)]
struct Settings {
    speaks_v1: bool,
    first_contact: bool,
}

impl Settings {
    /// A host with a device in each kind of fabric.
    fn host(self, number: u64) -> Local {
        let loopback = LocalDevice { gid: Gid::from_halves(number, number), chid: Chid(0xffff) };
        let ism = LocalDevice { gid: Gid::from_halves(number << 8, 0), chid: Chid(0x07c1) };
        let prefixes = Some(Prefixes::ipv4(Ipv4Prefix::of([10, 0, 0, 1].into(), 8)));
        Local {
            ueids: UpTo::first_of(["SMCD.USERSPACE".parse().unwrap()]),
            v1: self.speaks_v1.then_some(LocalV1 { device: 1, prefixes }),
            ..Local::new(vec![loopback, ism])
        }
    }

    fn client(self) -> (Proposal, ExpectAccept) {
        client::propose(&self.host(1), Instant::now()).unwrap()
    }

    /// The server's answer to a first message: an Accept, or nothing more to be said.
    fn answer(self, first: Message) -> Option<(Message, ExpectConfirm)> {
        let offered = ExpectProposal::new(self.host(2), Instant::now()).on_message(first);
        let offered = offered.map_err(check_error).ok()?;
        match offered.candidates(|_, _, _| true) {
            Ok(candidates) => {
                let candidate = *candidates.iter().next().expect("there is at least one");
                let now = Instant::now();
                let (accept, expect) =
                    offered.accept(&candidate, DMB, self.first_contact, LinkId::default(), now);
                Some((sendable(accept), expect))
            }
            Err(code) => {
                sendable(offered.decline(code));
                None
            }
        }
    }
}

/// The bytes of a peer.
struct Wire<'a> {
    bytes: &'a [u8],
    step: usize,
}

impl Wire<'_> {
    fn message(&mut self) -> Option<Message> {
        let mut assembler = Assembler::new();
        loop {
            let n = assembler.missing().min(self.step).min(self.bytes.len());
            if n == 0 {
                return None;
            }
            let (taken, rest) = self.bytes.split_at(n);
            self.bytes = rest;
            if let Some(message) = assembler.push(taken).ok()? {
                return Some(message);
            }
        }
    }
}

/// A message of ours is one that any peer can read.
fn sendable(message: impl Into<Message>) -> Message {
    let message = message.into();
    assert_eq!(Message::parse(&message.to_bytes()).as_ref(), Ok(&message));
    message
}

fn check_error(error: HandshakeError) {
    assert_eq!(
        error.falls_back(),
        error.decline().is_some() || matches!(error, HandshakeError::PeerDeclined { .. })
    );
    if let Some(decline) = error.decline() {
        sendable(*decline);
    }
}

/// What is agreed on keeps the limits, whatever the peer said.
fn check(agreed: &Agreed) {
    let terms = agreed.terms();
    assert!(terms.peer_dmb().size() <= DmbeSize::MAX);
    assert!(terms.device() < 2);
    assert!(terms.peer().is_none_or(|peer| peer.hostname.is_none_or(|name| name.is_ascii())));
}

fn client_meets(settings: Settings, wire: &mut Wire<'_>) -> Option<()> {
    let (proposal, expect) = settings.client();
    sendable(proposal);
    let accepted = expect.on_message(wire.message()?).map_err(check_error).ok()?;
    let (confirm, agreed) = accepted.confirm(DMB, LinkId::default());
    sendable(confirm);
    check(&agreed);
    Some(())
}

fn server_meets(settings: Settings, wire: &mut Wire<'_>) -> Option<()> {
    let (_, expect) = settings.answer(wire.message()?)?;
    check(&expect.on_message(wire.message()?).map_err(check_error).ok()?);
    Some(())
}

/// Two real ends. Of each three bytes of `changes`, two say where and one what is added to the byte there.
fn between(settings: Settings, changes: &[u8]) {
    let mut changes = changes.chunks_exact(3);
    // Each message takes the next few changes, so that all can be reached.
    let mut carried = |message: Message| {
        let mut bytes = message.to_bytes();
        for change in changes.by_ref().take(4) {
            let at = usize::from(u16::from_be_bytes([change[0], change[1]])) % bytes.len();
            bytes[at] = bytes[at].wrapping_add(change[2]);
        }
        Wire { bytes: &bytes, step: usize::MAX }.message()
    };
    let (proposal, expect_accept) = settings.client();
    let play = || {
        let (accept, expect_confirm) = settings.answer(carried(sendable(proposal.clone()))?)?;
        let accepted = expect_accept.on_message(carried(accept)?).map_err(check_error).ok()?;
        let (confirm, agreed) = accepted.confirm(DMB, LinkId::default());
        check(&agreed);
        let confirm = carried(sendable(confirm))?;
        check(&expect_confirm.on_message(confirm).map_err(check_error).ok()?);
        Some(())
    };
    play();
}
