//! What generic netlink says and takes about Linux' SMC sockets: UEIDs, and reasons for falling back to TCP.

use std::{io, os::fd::OwnedFd};

use anyhow::{Context, bail};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};

use crate::seen::Counted;

/// Kinds of messages.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const GENL_ID_CTRL: u16 = 16;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;

/// To find the number of a family by its name.
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

/// Of `linux/smc.h`.
const FAMILY: &[u8] = b"SMC_GEN_NETLINK\0";
const GET_STATS: u8 = 7;
const GET_FBACK_STATS: u8 = 8;
const ADD_UEID: u8 = 10;
const REMOVE_UEID: u8 = 11;
const EID_TABLE_ENTRY: u16 = 1;
const STATS: u16 = 7;
const STATS_SMCD: u16 = 1;
const CLIENT_V2_SUCCESSES: u16 = 8;
const SERVER_V2_SUCCESSES: u16 = 10;
const FBACK_STATS: u16 = 8;
const FBACK_TYPE: u16 = 1;
const FBACK_CODE: u16 = 4;
const FBACK_COUNT: u16 = 5;

/// Bits of an attribute's kind that say how it is to be read.
const NLA_TYPE_MASK: u16 = 0x3fff;

/// The family of Linux' SMC sockets.
pub(crate) struct SmcNetlink {
    socket: OwnedFd,
    family: u16,
}

impl SmcNetlink {
    pub(crate) fn open() -> anyhow::Result<Self> {
        let socket = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            Some(netlink::GENERIC),
        )?;
        let mut netlink = Self { socket, family: GENL_ID_CTRL };
        let answers = netlink.ask(CTRL_CMD_GETFAMILY, NLM_F_ACK, CTRL_ATTR_FAMILY_NAME, FAMILY)?;
        let id = answers.iter().find_map(|answer| attribute(answer, CTRL_ATTR_FAMILY_ID));
        let id = id.and_then(|id| id.try_into().ok()).context("the kernel has no SMC")?;
        netlink.family = u16::from_ne_bytes(id);
        Ok(netlink)
    }

    pub(crate) fn add_ueid(&self, ueid: &str) -> anyhow::Result<()> {
        self.ask(ADD_UEID, NLM_F_ACK, EID_TABLE_ENTRY, &padded(ueid)).map(drop)
    }

    pub(crate) fn remove_ueid(&self, ueid: &str) -> anyhow::Result<()> {
        self.ask(REMOVE_UEID, NLM_F_ACK, EID_TABLE_ENTRY, &padded(ueid)).map(drop)
    }

    /// How often which end fell back, and why, since the machine was started.
    pub(crate) fn fallbacks(&self) -> anyhow::Result<Vec<Counted>> {
        let answers = self.ask(GET_FBACK_STATS, NLM_F_DUMP, 0, &[])?;
        let nested = answers.iter().filter_map(|answer| attribute(answer, FBACK_STATS));
        Ok(nested.filter_map(counted).filter(|counted| counted.times > 0).collect())
    }

    /// How many connections became SMC-D (version 2), as client and as server, since the machine was started.
    pub(crate) fn smcd(&self) -> anyhow::Result<[u64; 2]> {
        let answers = self.ask(GET_STATS, NLM_F_DUMP, 0, &[])?;
        let smcd = answers.iter().find_map(|answer| attribute(attribute(answer, STATS)?, STATS_SMCD));
        let smcd = smcd.context("no statistics of SMC-D")?;
        let number = |kind| Some(u64::from_ne_bytes(*attribute(smcd, kind)?.first_chunk()?));
        let both = [number(CLIENT_V2_SUCCESSES), number(SERVER_V2_SUCCESSES)];
        Ok([both[0].context("no clients")?, both[1].context("no servers")?])
    }

    /// Sends a request with one attribute (or none, of number 0), and takes the answers until the last one.
    fn ask(&self, command: u8, flags: u16, kind: u16, value: &[u8]) -> anyhow::Result<Vec<Vec<u8>>> {
        let mut request = vec![0; 16];
        request.extend([command, 1, 0, 0]);
        if kind != 0 {
            request.extend(u16::try_from(4 + value.len())?.to_ne_bytes());
            request.extend(kind.to_ne_bytes());
            request.extend(value);
            request.resize(request.len().next_multiple_of(4), 0);
        }
        let len = u32::try_from(request.len())?;
        request[..4].copy_from_slice(&len.to_ne_bytes());
        request[4..6].copy_from_slice(&self.family.to_ne_bytes());
        request[6..8].copy_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        send(&self.socket, &request, SendFlags::empty())?;
        let mut answers = Vec::new();
        loop {
            let mut buf = vec![0; 64 * 1024];
            let (len, _) = recv(&self.socket, &mut buf[..], RecvFlags::empty())?;
            let mut messages = &buf[..len];
            while let Some((kind, body)) = next_message(&mut messages) {
                match kind {
                    NLMSG_ERROR => return acknowledged(body).map(|()| answers),
                    NLMSG_DONE => return Ok(answers),
                    // Behind the command, its version, and two bytes that are reserved.
                    _ => answers.push(body.get(4..).unwrap_or_default().to_vec()),
                }
            }
        }
    }
}

/// A UEID as netlink has it: 32 characters, and a zero.
fn padded(ueid: &str) -> Vec<u8> {
    format!("{ueid:32}\0").into_bytes()
}

fn acknowledged(body: &[u8]) -> anyhow::Result<()> {
    let Some(error) = body.first_chunk() else { bail!("an error without a number") };
    match i32::from_ne_bytes(*error) {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error.wrapping_neg()).into()),
    }
}

/// Splits off a message: its kind, and what is behind the header.
fn next_message<'a>(messages: &mut &'a [u8]) -> Option<(u16, &'a [u8])> {
    let len = u32::from_ne_bytes(*messages.first_chunk()?) as usize;
    let kind = u16::from_ne_bytes(*messages.get(4..)?.first_chunk()?);
    let body = messages.get(16..len)?;
    *messages = messages.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, body))
}

/// The value of the first attribute of this kind.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let len = usize::from(u16::from_ne_bytes(*attributes.first_chunk()?));
        let kind = u16::from_ne_bytes(*attributes.get(2..)?.first_chunk()?) & NLA_TYPE_MASK;
        let value = attributes.get(4..len)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(len.next_multiple_of(4)..)?;
    }
}

fn counted(nested: &[u8]) -> Option<Counted> {
    Some(Counted {
        by_server: *attribute(nested, FBACK_TYPE)?.first()? != 0,
        code: u32::from_ne_bytes(*attribute(nested, FBACK_CODE)?.first_chunk()?),
        times: u16::from_ne_bytes(*attribute(nested, FBACK_COUNT)?.first_chunk()?),
    })
}
