//! Connections as they are shown.

use std::{net::SocketAddr, time::SystemTime};

use serde::Serialize;
use smcd::observe::{ByWay, Connection, Flow, Mode, Process, Reason, State};

/// A connection, and whose it is.
#[derive(Debug, Serialize)]
pub(crate) struct ConnectionView {
    pub(crate) pid: u32,
    pub(crate) command: String,
    pub(crate) state: &'static str,
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    pub(crate) mode: &'static str,
    /// Why, if it is TCP.
    pub(crate) reason: Option<ReasonView>,
    in_band: bool,
    /// Whether the peer is on this host, if that is known.
    eligible: Option<bool>,
    pub(crate) receive_buffer: u32,
    pub(crate) send_buffer: u32,
    gid: String,
    peer_gid: String,
    cookie: u64,
    inode: u64,
    /// Seconds since 1970.
    since: f64,
    pub(crate) received: FlowView,
    pub(crate) sent: FlowView,
}

/// Why a connection is TCP.
#[derive(Debug, Serialize)]
pub(crate) struct ReasonView {
    pub(crate) name: &'static str,
    /// As eight hexadecimal digits.
    code: String,
    peer_diagnosis: Option<String>,
    #[serde(skip)]
    pub(crate) text: String,
}

/// What went one way.
#[derive(Debug, Serialize)]
pub(crate) struct FlowView {
    pub(crate) ring: ByWayView,
    pub(crate) tcp: ByWayView,
    wakeups: u64,
    sizes: Vec<u64>,
}

/// Bytes and calls.
#[derive(Debug, Serialize)]
pub(crate) struct ByWayView {
    pub(crate) bytes: u64,
    calls: u64,
}

impl ConnectionView {
    pub(crate) fn new(process: &Process, connection: &Connection) -> Self {
        let since = connection.since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let is_tcp = connection.mode == Mode::Tcp;
        let (mut received, mut sent) = (FlowView::new(&connection.received), FlowView::new(&connection.sent));
        // One that is certain to stay TCP is left to the kernel, and so is the counting.
        if is_tcp && let Some(counts) = connection.bytes_by_kernel() {
            received.tcp.bytes = received.tcp.bytes.max(counts.0);
            sent.tcp.bytes = sent.tcp.bytes.max(counts.1);
        }
        Self {
            pid: process.pid(),
            command: process.command().to_owned(),
            state: state_name(connection.state),
            local: connection.local,
            peer: connection.peer,
            mode: if is_tcp { "TCP" } else { "SMC-D" },
            reason: is_tcp.then(|| ReasonView::new(&connection.reason)),
            in_band: connection.in_band,
            eligible: connection.eligible,
            receive_buffer: connection.receive_buffer,
            send_buffer: connection.send_buffer,
            gid: connection.gid.to_string(),
            peer_gid: connection.peer_gid.to_string(),
            cookie: connection.cookie,
            inode: connection.inode,
            since: since.as_secs_f64(),
            received,
            sent,
        }
    }
}

impl ReasonView {
    fn new(reason: &Reason) -> Self {
        Self {
            name: reason.name,
            code: format!("0x{:08x}", reason.code.0),
            peer_diagnosis: reason.peer_diagnosis.map(|code| format!("0x{:08x}", code.0)),
            text: reason.to_string(),
        }
    }
}

impl FlowView {
    fn new(flow: &Flow) -> Self {
        let by = |by: ByWay| ByWayView { bytes: by.bytes, calls: by.calls };
        Self { ring: by(flow.ring), tcp: by(flow.tcp), wakeups: flow.wakeups, sizes: flow.sizes.to_vec() }
    }
}

/// A word for a state.
fn state_name(state: State) -> &'static str {
    match state {
        State::Counting => "OPEN",
        State::Negotiating => "NEGOTIATING",
        State::Staying => "FALLBACK",
        State::Agreed => "ACTIVE",
        State::Closing => "CLOSING",
        _ => "UNKNOWN",
    }
}
