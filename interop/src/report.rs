//! On the host: judges what was seen, and writes the table.

use std::{fs, path::Path, process::ExitCode};

use anyhow::{Context, ensure};
use smcd::clc::{
    DeclineCode,
    wire::{Accept, Confirm, Message},
};

use crate::{
    bench::{ROUNDS, Rates},
    case::{self, Case, Outcome, Stack},
    guest::MEASURED,
    host::BEREFT,
    seen::{Bereft, Counted, Measured, Seen, Way},
    talk::{RINGS, Talk},
    wire::{Conversation, conversations},
};

/// Where the tables are in the file that has them, and their heads.
const TABLE: [&str; 3] = [
    "<!-- the table: written by interop/run -->\n",
    "<!-- end of the table -->\n",
    "| client → server | option by | family | UEIDs of smcd, of Linux; common | expected | client says | server says | \
     CLC messages, bytes |\n|---|---|---|---|---|---|---|---|\n",
];
const TABLE_OF_BENCH: [&str; 3] = [
    "<!-- the table of the bench: written by interop/run -->\n",
    "<!-- end of the table of the bench -->\n",
    "| client ↔ server | to the server, MB/s | to the client, MB/s | round trip of 64 bytes, µs |\n|---|---|---|---|\n",
];
const TABLE_OF_REGION: [&str; 3] = [
    "<!-- the table of the region: written by interop/run -->\n",
    "<!-- end of the table of the region -->\n",
    "| client → server | family | what goes over it | connections | what they become | CLC messages, bytes |\n\
     |---|---|---|---|---|---|\n",
];

/// In which the end of a machine has to be seen.
const SOON: u64 = 10_000;

/// Judges the cases. The table is written only if all were played, and are what they have to be.
pub(crate) fn run(share: &Path, readme: &Path, names: &[&str]) -> anyhow::Result<ExitCode> {
    if names == [case::BENCH] {
        return write_bench(share, readme);
    }
    let seen = fs::read(share.join("seen.json")).context("the machine has left nothing")?;
    let seen: Vec<Seen> = serde_json::from_slice(&seen)?;
    let mut rows = [Vec::new(), Vec::new()];
    let mut failed = 0;
    for case in case::chosen(names)? {
        let judged = judge(&case, &seen, share);
        match &judged {
            Ok((row, seconds)) => {
                println!("ok      {}: {}, {seconds:.1} s", case.name(), case.expected);
                rows[usize::from(case.has_region)].push(row.clone());
            }
            Err(error) => {
                println!("FAILED  {}: {error:#}", case.name());
                failed += 1;
            }
        }
    }
    println!("{} cases, {failed} failed", rows[0].len() + rows[1].len() + failed);
    if failed > 0 {
        return Ok(ExitCode::FAILURE);
    }
    if names.is_empty() {
        write_table(readme, TABLE, &rows[0])?;
        write_table(readme, TABLE_OF_REGION, &rows[1])?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes the table of what was measured: medians, and how they compare with those of TCP.
fn write_bench(share: &Path, readme: &Path) -> anyhow::Result<ExitCode> {
    let measured = fs::read(share.join(MEASURED)).context("nothing was measured")?;
    let measured: Vec<Measured> = serde_json::from_slice(&measured)?;
    let cases = case::benches();
    let mut rows = Vec::new();
    for case in &cases {
        let by_tcp = cases.iter().find(|other| other.client == Stack::Tcp && other.server == case.server);
        let by_tcp = medians(&measured, by_tcp.context("TCP is not measured")?)?;
        let own = medians(&measured, case)?;
        let rates = own.iter().zip(by_tcp).zip([1e-6, 1e-6, 1e6]);
        let cells = rates.map(|((own, by_tcp), unit)| match case.client {
            Stack::Tcp => format!("{:.1}", own * unit),
            _ => format!("{:.1} ({:.2} times TCP)", own * unit, own / by_tcp),
        });
        let cells = cells.collect::<Vec<_>>().join(" | ");
        println!("{} ↔ {}: {cells}", case.client, case.server);
        rows.push(format!("| {} ↔ {} | {cells} |", case.client, case.server));
    }
    write_table(readme, TABLE_OF_BENCH, &rows)?;
    Ok(ExitCode::SUCCESS)
}

/// Of the rates of this case, which has to have been what it is called.
fn medians(measured: &[Measured], case: &Case) -> anyhow::Result<[f64; 3]> {
    let of_case: Vec<_> = measured.iter().filter(|measured| measured.case == case.name()).collect();
    ensure!(of_case.len() == ROUNDS, "{} was measured {} times", case.name(), of_case.len());
    let counted = [u64::from(case.client == Stack::Linux), 0];
    ensure!(of_case.iter().all(|one| one.smcd == counted), "{}: Linux has counted otherwise", case.name());
    let measures: [fn(&Rates) -> f64; 3] =
        [|rates| rates.to_server, |rates| rates.to_client, |rates| rates.round_trip];
    Ok(measures.map(|rate| {
        let mut rates: Vec<f64> = of_case.iter().map(|one| rate(&one.rates)).collect();
        rates.sort_by(f64::total_cmp);
        rates[rates.len() / 2]
    }))
}

/// The row of a case that went as it has to, and how many seconds it took.
fn judge(case: &Case, seen: &[Seen], share: &Path) -> anyhow::Result<(String, f64)> {
    let seen = seen.iter().find(|seen| seen.case == case.name()).context("was not played")?;
    ensure!(seen.complaints.is_empty(), "the kernel says {:?}", seen.complaints);
    if let Some(failure) = &seen.failure {
        anyhow::bail!("{failure}");
    }
    check_ways(case, seen)?;
    check_counts(case, seen)?;
    if case.talk == Talk::Killed {
        check_end(share)?;
    }
    let on_wire = check_wire(case, &conversations(&share.join(format!("{}.pcap", case.name())))?)?;
    let row = if case.has_region { row_of_region(case, &on_wire) } else { row(case, seen, &on_wire) };
    Ok((row, seen.milliseconds as f64 / 1000.0))
}

fn family(case: &Case) -> &'static str {
    if case.is_ipv6 { "IPv6" } else { "IPv4" }
}

fn row(case: &Case, seen: &Seen, on_wire: &str) -> String {
    let ends = [end(case, seen, false), end(case, seen, true)].join(" | ");
    let ueids = [case.ueids.of_smcd().len(), case.ueids.of_linux().len()];
    let common = case.ueids.of_smcd().iter().filter(|ueid| case.ueids.of_linux().contains(ueid)).count();
    format!(
        "| {} → {} | {} | {} | {}, {}; {common} | {} | {ends} | {on_wire} |",
        case.client,
        case.server,
        mechanism(case),
        family(case),
        ueids[0],
        ueids[1],
        case.expected
    )
}

fn row_of_region(case: &Case, on_wire: &str) -> String {
    let mut outcomes: Vec<_> = case.outcomes().iter().map(Outcome::to_string).collect();
    outcomes.dedup();
    format!(
        "| {} → {} | {} | {} | {} | {} | {on_wire} |",
        case.client,
        case.server,
        family(case),
        case.talk.words(),
        case.talk.connections(),
        outcomes.join("; then ")
    )
}

/// The host's end of a connection has to see that the machine was killed.
fn check_end(share: &Path) -> anyhow::Result<()> {
    let bereft = fs::read(share.join(BEREFT)).context("the end on the host saw nothing")?;
    let bereft: Bereft = serde_json::from_slice(&bereft)?;
    let has_ended = bereft.read.is_err() && bereft.written.is_err() && bereft.milliseconds < SOON;
    ensure!(has_ended, "the end on the host: {bereft:?}");
    Ok(())
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
    let outcomes = case.outcomes();
    for (is_server, stack, ways) in [(false, case.client, &seen.client), (true, case.server, &seen.server)] {
        ensure!(ways.len() == outcomes.len(), "{} connections", ways.len());
        if !stack.is_of_smcd() && stack != Stack::Guest {
            continue;
        }
        for (way, outcome) in ways.iter().zip(&outcomes) {
            let got = match way {
                Way::Smcd => None,
                Way::Tcp { code, peer, .. } => Some((*code, *peer)),
                Way::Plain => anyhow::bail!("an end that says nothing"),
            };
            ensure!(got == reason(*outcome, is_server), "the end that is not Linux' says {way:?}");
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

/// Linux' ends have to have counted the right reasons, and as many connections of SMC-D as there were, and nothing else.
fn check_counts(case: &Case, seen: &Seen) -> anyhow::Result<()> {
    let mut counted = seen.counted.clone();
    for (by_server, stack) in [(false, case.client), (true, case.server)] {
        let outcomes = if stack == Stack::Linux { case.outcomes() } else { Vec::new() };
        let smcd = outcomes.iter().filter(|outcome| **outcome == Outcome::Smcd).count();
        let times = seen.smcd[usize::from(by_server)];
        ensure!(times == smcd as u64, "Linux has counted {times} connections of SMC-D, not {smcd}");
        let reasons: Vec<_> = outcomes.iter().filter_map(|outcome| reason(*outcome, by_server)).collect();
        let Some((code, _)) = reasons.first() else { continue };
        let wanted = Counted { by_server, code: *code, times: u16::try_from(reasons.len())? };
        let at = counted.iter().position(|counted| *counted == wanted);
        let at = at.with_context(|| format!("Linux has counted {counted:?}, not {wanted:?}"))?;
        counted.remove(at);
    }
    ensure!(counted.is_empty(), "Linux has counted {counted:?}, too");
    Ok(())
}

/// Options and messages have to be the right ones. What they are, for the table.
fn check_wire(case: &Case, conversations: &[Conversation]) -> anyhow::Result<String> {
    let outcomes = case.outcomes();
    ensure!(conversations.len() == outcomes.len(), "{} connections on the wire", conversations.len());
    let speaks = [case.client != Stack::Tcp, case.client != Stack::Tcp && case.server != Stack::Tcp];
    let mut lines = Vec::new();
    for (number, (conversation, outcome)) in conversations.iter().zip(outcomes).enumerate() {
        ensure!(conversation.options == speaks, "SMC option in SYN, SYN-ACK: {:?}", conversation.options);
        let sent = conversation.sent()?;
        let is_by_tcp = sent.iter().any(|sent| sent.has_data);
        ensure!(outcome != Outcome::Smcd || !is_by_tcp, "data on the TCP connection below SMC-D");
        let [of_client, of_server] = sent.map(|sent| sent.messages);
        check_messages(outcome, &of_client, &of_server)?;
        let in_order = || of_client.iter().take(1).chain(&of_server).chain(of_client.iter().skip(1));
        in_order().try_for_each(|message| check_buffers(case, number, message))?;
        let with_length = |message: &Message| format!("{} {}", kind(message), message.to_bytes().len());
        lines.push(in_order().map(with_length).collect::<Vec<_>>().join(", "));
    }
    Ok(if lines.iter().all(String::is_empty) { "–".into() } else { cell(case.talk, lines) })
}

/// What was seen of several connections, the same in each run.
fn cell(talk: Talk, mut lines: Vec<String>) -> String {
    // Of those made at the same time it is chance which are the first.
    let (is_in_order, link) = if talk == Talk::Rush { (false, "; or ") } else { (true, "; then ") };
    if !is_in_order {
        lines.sort();
    }
    lines.dedup();
    lines.join(link)
}

fn check_messages(outcome: Outcome, of_client: &[Message], of_server: &[Message]) -> anyhow::Result<()> {
    let kinds = [of_client, of_server].map(|messages| messages.iter().map(kind).collect::<Vec<_>>());
    let wanted: [&[&str]; 2] = match outcome {
        Outcome::Smcd => [&["Proposal", "Confirm"], &["Accept"]],
        Outcome::Declined(_) => [&["Proposal"], &["Decline"]],
        Outcome::NoOption => [&[], &[]],
    };
    ensure!(kinds[0] == wanted[0] && kinds[1] == wanted[1], "CLC messages: {kinds:?}");
    if let (Outcome::Declined(code), [Message::Decline(decline)]) = (outcome, of_server) {
        ensure!(decline.diagnosis == code, "Decline with {}", decline.diagnosis);
    }
    Ok(())
}

/// In a region it has to be known whether a connection has a link group, and how large its buffers are.
fn check_buffers(case: &Case, number: usize, message: &Message) -> anyhow::Result<()> {
    let (Message::Accept(Accept(body)) | Message::Confirm(Confirm(body))) = message else { return Ok(()) };
    // Of several at once nobody knows which is the first, and whether there is but one.
    if case.talk != Talk::Rush
        && case.has_region
        && [case.client, case.server].into_iter().any(Stack::is_of_smcd)
    {
        // Each case has an endpoint of its own in the region, which goes with its process and its peer.
        let is_first = number == 0 || case.talk.ends_what().is_some();
        ensure!(
            body.first_contact == is_first,
            "connection {number}: first contact is {}",
            body.first_contact
        );
    }
    if case.talk == Talk::Rings {
        let bytes = body.dmbe_size.bytes();
        ensure!(RINGS.get(number) == Some(&bytes), "connection {number}: a buffer of {bytes}");
    }
    Ok(())
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

fn write_table(readme: &Path, [begin, end, head]: [&str; 3], rows: &[String]) -> anyhow::Result<()> {
    let text = fs::read_to_string(readme)?;
    let (before, rest) = text.split_once(begin).context("no place for the table")?;
    let (_, after) = rest.split_once(end).context("no end of the table")?;
    let table = rows.join("\n");
    fs::write(readme, format!("{before}{begin}\n{head}{table}\n\n{end}{after}"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_a_rush_is_not_told() {
        let lines = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
        assert_eq!(cell(Talk::Rush, lines("abbab")), cell(Talk::Rush, lines("baa")));
        assert_eq!(cell(Talk::Rush, lines("bba")), "a; or b");
        assert_eq!(cell(Talk::Rings, lines("bba")), "b; then a");
    }
}
