//! What was on the wire, as tshark and the library read it.

use std::{collections::BTreeMap, path::Path, process::Command};

use anyhow::{Context, bail, ensure};
use smcd::clc::wire::{Assembler, Message};

/// The SMC option of TCP, without what fills up the options.
const OPTION: [u8; 6] = [0xfe, 0x06, 0xe2, 0xd4, 0xc3, 0xd9];

/// The last three bytes of an eyecatcher differ in one only.
const EYECATCHER: [u8; 3] = [0xe2, 0xd4, 0xc3];

/// Fields of a packet that tshark is asked for.
const FIELDS: [&str; 8] = [
    "tcp.stream",
    "tcp.srcport",
    "tcp.flags.syn",
    "tcp.flags.ack",
    "tcp.options",
    "tcp.payload",
    "smc.clc_msg",
    "_ws.malformed",
];

/// One connection.
#[derive(Debug, Default)]
pub(crate) struct Conversation {
    /// Whether the SYN had the SMC option, and whether the SYN-ACK had.
    pub(crate) options: [bool; 2],
    /// What came first in each direction: the client's, then the server's.
    bytes: [Vec<u8>; 2],
    /// CLC messages that tshark has found.
    dissected: usize,
}

/// What went in one direction.
#[derive(Debug)]
pub(crate) struct Sent {
    /// The CLC messages that it began with.
    pub(crate) messages: Vec<Message>,
    /// True if anything else followed.
    pub(crate) has_data: bool,
}

impl Conversation {
    /// What both ends have sent. Each CLC message has to be exactly what the library would have sent.
    pub(crate) fn sent(&self) -> anyhow::Result<[Sent; 2]> {
        let both = [sent(&self.bytes[0])?, sent(&self.bytes[1])?];
        let all: usize = both.iter().map(|sent| sent.messages.len()).sum();
        ensure!(all == self.dissected, "tshark has found {} CLC messages of {all}", self.dissected);
        Ok(both)
    }
}

fn sent(mut bytes: &[u8]) -> anyhow::Result<Sent> {
    let mut messages = Vec::new();
    while bytes.starts_with(&EYECATCHER) {
        let (message, rest) = first_message(bytes)?;
        let len = bytes.len() - rest.len();
        ensure!(message.to_bytes() == bytes[..len], "the library would send another {message:?}");
        messages.push(message);
        bytes = rest;
    }
    Ok(Sent { messages, has_data: !bytes.is_empty() })
}

fn first_message(mut bytes: &[u8]) -> anyhow::Result<(Message, &[u8])> {
    let mut assembler = Assembler::new();
    loop {
        let (piece, rest) =
            bytes.split_at_checked(assembler.missing()).context("the capture ends in a CLC message")?;
        bytes = rest;
        if let Some(message) = assembler.push(piece)? {
            return Ok((message, bytes));
        }
    }
}

/// The connections of a capture, in their order.
pub(crate) fn conversations(file: &Path) -> anyhow::Result<Vec<Conversation>> {
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(file).args(["-Y", "tcp && !tcp.analysis.retransmission", "-T", "fields"]);
    tshark.args(["-E", "separator=|", "-E", "aggregator=,"]);
    // Else it takes a port that the client happened to get for that of another protocol, which it looks for first.
    tshark.args(["-o", "tcp.try_heuristic_first:TRUE"]);
    FIELDS.iter().for_each(|field| _ = tshark.args(["-e", field]));
    let output = tshark.output().context("tshark")?;
    ensure!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
    let mut conversations: BTreeMap<u32, (String, Conversation)> = BTreeMap::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let fields: Vec<&str> = line.split('|').collect();
        let Ok([stream, port, syn, ack, options, payload, clc, malformed]) = <[&str; 8]>::try_from(fields)
        else {
            bail!("tshark says {line}");
        };
        ensure!(malformed.is_empty(), "malformed, says tshark of {payload}");
        // The first packet is the client's.
        let (client, conversation) =
            conversations.entry(stream.parse()?).or_insert_with(|| (port.into(), Conversation::default()));
        let side = usize::from(port != client);
        if is_set(syn) {
            conversation.options[usize::from(is_set(ack))] =
                bytes_of(options)?.windows(OPTION.len()).any(|window| window == OPTION);
        }
        conversation.bytes[side].extend(bytes_of(payload)?);
        conversation.dissected += clc.split(',').filter(|message| !message.is_empty()).count();
    }
    Ok(conversations.into_values().map(|(_, conversation)| conversation).collect())
}

fn is_set(flag: &str) -> bool {
    matches!(flag, "1" | "True")
}

fn bytes_of(digits: &str) -> anyhow::Result<Vec<u8>> {
    let digits = digits.replace(':', "");
    let pairs = (0..digits.len()).step_by(2).map(|at| digits.get(at..at + 2));
    pairs.map(|pair| Ok(u8::from_str_radix(pair.context("half a byte")?, 16)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_the_messages_is_data() {
        let decline = include_str!("../../tests/vectors/linux-7.3/decline-v2-no-ueid.hex");
        let decline = bytes_of(decline.trim()).unwrap();
        for (data, has_data) in [(&b""[..], false), (b"data", true), (&EYECATCHER[..2], true)] {
            let sent = sent(&[&decline[..], &decline, data].concat()).unwrap();
            assert_eq!((sent.messages.len(), sent.has_data), (2, has_data));
        }
        assert!(sent(&decline[..40]).is_err());
    }
}
