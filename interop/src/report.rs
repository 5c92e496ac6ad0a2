//! On the host: judges what was seen, and writes the table.

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context, ensure};
use smcd::clc::{DeclineCode, wire::Message};

use crate::{
    case::{self, Case, Outcome, Stack},
    dialogue::CONNECTIONS,
    seen::{Counted, Seen, Way},
    wire::{Conversation, conversations},
};

/// Where the table is in the file that has it.
const BEGIN: &str = "<!-- the table: written by interop/run -->\n";
const END: &str = "<!-- end of the table -->\n";

/// Judges the cases. The table is written only if all were played, and are what they have to be.
pub(crate) fn run(share: &Path, readme: &Path, names: &[&str]) -> anyhow::Result<ExitCode> {
    let seen = fs::read(share.join("seen.json")).context("the machine has left nothing")?;
    let seen: Vec<Seen> = serde_json::from_slice(&seen)?;
    let mut rows = Vec::new();
    let mut failed = 0;
    for case in case::chosen(names)? {
        let judged = judge(&case, &seen, share);
        match &judged {
            Ok(row) => {
                println!("ok      {}: {}", case.name(), case.expected);
                rows.push(row.clone());
            }
            Err(error) => {
                println!("FAILED  {}: {error:#}", case.name());
                failed += 1;
            }
        }
    }
    println!("{} cases, {failed} failed", rows.len() + failed);
    if failed > 0 {
        return Ok(ExitCode::FAILURE);
    }
    if names.is_empty() {
        write_table(readme, &rows)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The row of a case that went as it has to.
fn judge(case: &Case, seen: &[Seen], share: &Path) -> anyhow::Result<String> {
    let seen = seen.iter().find(|seen| seen.case == case.name()).context("was not played")?;
    if let Some(failure) = &seen.failure {
        anyhow::bail!("{failure}");
    }
    check_ways(case, seen)?;
    check_counts(case, seen)?;
    let on_wire = check_wire(case, &conversations(&share.join(format!("{}.pcap", case.name())))?)?;
    let family = if case.is_ipv6 { "IPv6" } else { "IPv4" };
    let ends = [end(case, seen, false), end(case, seen, true)].join(" | ");
    let ueids = [case.ueids.of_smcd().len(), case.ueids.of_linux().len()];
    let common = case.ueids.of_smcd().iter().filter(|ueid| case.ueids.of_linux().contains(ueid)).count();
    Ok(format!(
        "| {} → {} | {} | {family} | {}, {}; {common} | {} | {ends} | {on_wire} |",
        case.client,
        case.server,
        mechanism(case),
        ueids[0],
        ueids[1],
        case.expected
    ))
}

/// By what the library's ends send the SMC option.
fn mechanism(case: &Case) -> &'static str {
    match case {
        _ if case.has(Stack::Endpoint) => "smoltcp",
        _ if case.has(Stack::Smcd) => "eBPF",
        _ => "–",
    }
}

/// The library's ends have to give the right reasons.
fn check_ways(case: &Case, seen: &Seen) -> anyhow::Result<()> {
    for (is_server, stack, ways) in [(false, case.client, &seen.client), (true, case.server, &seen.server)] {
        ensure!(ways.len() == CONNECTIONS, "{} connections", ways.len());
        if !stack.is_of_smcd() {
            continue;
        }
        for way in ways {
            let got = match way {
                Way::Smcd => None,
                Way::Tcp { code, peer, .. } => Some((*code, *peer)),
                Way::Plain => anyhow::bail!("an end that says nothing"),
            };
            ensure!(got == reason(case.expected, is_server), "the end of smcd says {way:?}");
        }
    }
    Ok(())
}

/// Why an end has to be TCP, and what it has to know of its peer's reason.
fn reason(expected: Outcome, is_server: bool) -> Option<(u32, Option<u32>)> {
    match expected {
        Outcome::Smcd => None,
        Outcome::NoOption => Some((DeclineCode::PEER_NO_SMC.0, None)),
        Outcome::Declined(code) if is_server => Some((code.0, None)),
        Outcome::Declined(code) => Some((DeclineCode::PEER_DECLINED.0, Some(code.0))),
    }
}

/// Linux' ends have to have counted the right reasons, and nothing else.
fn check_counts(case: &Case, seen: &Seen) -> anyhow::Result<()> {
    let mut counted = seen.counted.clone();
    for (by_server, stack) in [(false, case.client), (true, case.server)] {
        let Some((code, _)) = reason(case.expected, by_server).filter(|_| stack == Stack::Linux) else {
            continue;
        };
        let wanted = Counted { by_server, code, times: CONNECTIONS as u16 };
        let at = counted.iter().position(|counted| *counted == wanted);
        let at = at.with_context(|| format!("Linux has counted {counted:?}, not {wanted:?}"))?;
        counted.remove(at);
    }
    ensure!(counted.is_empty(), "Linux has counted {counted:?}, too");
    Ok(())
}

/// Options and messages have to be the right ones. What they are, for the table.
fn check_wire(case: &Case, conversations: &[Conversation]) -> anyhow::Result<String> {
    ensure!(conversations.len() == CONNECTIONS, "{} connections on the wire", conversations.len());
    let speaks = [case.client != Stack::Tcp, case.client != Stack::Tcp && case.server != Stack::Tcp];
    let mut lines = Vec::new();
    for conversation in conversations {
        ensure!(conversation.options == speaks, "SMC option in SYN, SYN-ACK: {:?}", conversation.options);
        let [of_client, of_server] = conversation.messages()?;
        let kinds = [of_client.iter().map(kind).collect::<Vec<_>>(), of_server.iter().map(kind).collect()];
        let wanted: [&[&str]; 2] = match case.expected {
            Outcome::Smcd => [&["Proposal", "Confirm"], &["Accept"]],
            Outcome::Declined(_) => [&["Proposal"], &["Decline"]],
            Outcome::NoOption => [&[], &[]],
        };
        ensure!(kinds[0] == wanted[0] && kinds[1] == wanted[1], "CLC messages: {kinds:?}");
        if let (Outcome::Declined(code), [Message::Decline(decline)]) = (case.expected, &of_server[..]) {
            ensure!(decline.diagnosis == code, "Decline with {}", decline.diagnosis);
        }
        let in_order = of_client.iter().take(1).chain(&of_server).chain(of_client.iter().skip(1));
        let with_length = |message: &Message| format!("{} {}", kind(message), message.to_bytes().len());
        lines.push(in_order.map(with_length).collect::<Vec<_>>().join(", "));
    }
    lines.dedup();
    Ok(if lines.iter().all(String::is_empty) { "–".into() } else { lines.join("; then ") })
}

fn kind(message: &Message) -> &'static str {
    match message {
        Message::Proposal(_) => "Proposal",
        Message::Accept(_) => "Accept",
        Message::Confirm(_) => "Confirm",
        Message::Decline(_) => "Decline",
        _ => "unknown",
    }
}

/// What an end says of itself, for the table.
fn end(case: &Case, seen: &Seen, is_server: bool) -> String {
    let (stack, ways) = if is_server { (case.server, &seen.server) } else { (case.client, &seen.client) };
    match (stack, ways.first()) {
        (_, Some(Way::Smcd)) => "SMC-D".into(),
        (_, Some(Way::Tcp { code, peer: Some(peer), .. })) => {
            format!("{code:#010x} (peer: {peer:#010x})")
        }
        (_, Some(Way::Tcp { code, .. })) => format!("{code:#010x}"),
        (Stack::Linux, _) => {
            let counted = seen.counted.iter().find(|counted| counted.by_server == is_server);
            counted.map_or("SMC-D".into(), |counted| format!("{:#010x}", counted.code))
        }
        _ => "–".into(),
    }
}

fn write_table(readme: &Path, rows: &[String]) -> anyhow::Result<()> {
    let text = fs::read_to_string(readme)?;
    let (before, rest) = text.split_once(BEGIN).context("no place for the table")?;
    let (_, after) = rest.split_once(END).context("no end of the table")?;
    let head = "| client → server | option by | family | UEIDs of smcd, of Linux; common | expected | client says | server says | \
                CLC messages, bytes |\n|---|---|---|---|---|---|---|---|\n";
    let table = rows.join("\n");
    fs::write(readme, format!("{before}{BEGIN}\n{head}{table}\n\n{END}{after}"))?;
    Ok(())
}
