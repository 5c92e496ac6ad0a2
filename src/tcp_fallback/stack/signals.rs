//! What SYN segments said about SMC, connection by connection. No I/O.

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
};

use super::syn::Syn;

/// From so many connections on the table is searched for those that have gone.
pub(super) const PRUNE: usize = 256;

/// More are not written down; their SYN is answered as one without the option.
const MAX: usize = 4096;

/// The two ends of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Flow {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
}

/// How far the exchange of the option is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Signal {
    /// Our SYN is to carry it. `sent` has the first one's sequence number, and whether there was room; `answered`,
    /// whether the SYN-ACK had it.
    Connecting { sent: Option<(u32, bool)>, answered: Option<bool> },
    /// A SYN has come. `answered` has the number that our SYN-ACK acknowledges, and whether it carried the option.
    Accepting { seq: u32, offered: bool, answered: Option<(u32, bool)> },
}

/// The connections of an endpoint that have to do with the option.
#[derive(Debug, Default)]
pub(super) struct Signals {
    serving: HashSet<u16>,
    flows: HashMap<Flow, Signal>,
}

impl Signals {
    /// Offers the option to whoever connects to this port.
    pub(super) fn serve(&mut self, port: u16) {
        self.serving.insert(port);
    }

    /// No longer.
    pub(super) fn stop_serving(&mut self, port: u16) {
        self.serving.remove(&port);
        self.flows
            .retain(|flow, signal| flow.local.port() != port || matches!(signal, Signal::Connecting { .. }));
    }

    /// Has the SYN of a connection that is about to begin carry the option.
    pub(super) fn offer(&mut self, flow: Flow) {
        self.flows.insert(flow, Signal::Connecting { sent: None, answered: None });
    }

    /// Takes note of a SYN or SYN-ACK that has come.
    pub(super) fn received(&mut self, syn: &Syn) {
        let flow = Flow { local: syn.destination, remote: syn.source };
        let is_full = self.flows.len() >= MAX;
        match (self.flows.get_mut(&flow), syn.ack) {
            (Some(Signal::Connecting { sent: Some((seq, _)), answered: answered @ None }), Some(ack))
                if ack == seq.wrapping_add(1) =>
            {
                *answered = Some(syn.has_option);
            }
            (Some(Signal::Accepting { seq, offered, answered }), None) => {
                // The same SYN again counts as it came first, even if the option was lost on the way this time. What
                // has been answered stays until another SYN has been.
                let is_answered = answered.is_some_and(|(ack, _)| ack == syn.seq.wrapping_add(1));
                if !is_answered && *seq != syn.seq {
                    (*seq, *offered) = (syn.seq, syn.has_option);
                }
            }
            // One without the option too: it decides, even if the same SYN comes again by another way.
            (None, None) if !is_full && self.serving.contains(&syn.destination.port()) => {
                let signal = Signal::Accepting { seq: syn.seq, offered: syn.has_option, answered: None };
                self.flows.insert(flow, signal);
            }
            _ => {}
        }
    }

    /// True if this SYN or SYN-ACK of ours is to carry the option.
    pub(super) fn wants(&self, syn: &Syn) -> bool {
        match (self.flows.get(&Flow { local: syn.source, remote: syn.destination }), syn.ack) {
            (Some(Signal::Connecting { answered: None, .. }), None) => true,
            (Some(Signal::Accepting { seq, offered, answered }), Some(ack)) => match answered {
                Some((before, with)) if *before == ack => *with,
                _ => *offered && seq.wrapping_add(1) == ack,
            },
            _ => false,
        }
    }

    /// Takes note of a SYN or SYN-ACK as it goes out.
    pub(super) fn sent(&mut self, syn: &Syn, with_option: bool) {
        match (self.flows.get_mut(&Flow { local: syn.source, remote: syn.destination }), syn.ack) {
            (Some(Signal::Connecting { sent: sent @ None, .. }), None) => {
                *sent = Some((syn.seq, with_option))
            }
            (Some(Signal::Accepting { answered, .. }), Some(ack))
                if answered.is_none_or(|(before, _)| before != ack) =>
            {
                *answered = Some((ack, with_option));
            }
            _ => {}
        }
    }

    /// True if both SYN and SYN-ACK of a connection had the option. It is forgotten then.
    pub(super) fn take_agreed(&mut self, flow: Flow) -> bool {
        matches!(
            self.flows.remove(&flow),
            Some(
                Signal::Connecting { sent: Some((_, true)), answered: Some(true) }
                    | Signal::Accepting { answered: Some((_, true)), .. }
            )
        )
    }

    /// How many connections are written down.
    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    /// Forgets all connections but these.
    pub(super) fn retain(&mut self, is_live: impl Fn(&Flow) -> bool) {
        self.flows.retain(|flow, _| is_live(flow));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> SocketAddr {
        ([10, 0, 0, 1], port).into()
    }

    const CLIENT: u16 = 50_000;
    const SERVER: u16 = 80;

    fn syn(seq: u32, has_option: bool) -> Syn {
        Syn { source: addr(CLIENT), destination: addr(SERVER), seq, ack: None, has_option }
    }

    fn syn_ack(ack: u32, has_option: bool) -> Syn {
        Syn { source: addr(SERVER), destination: addr(CLIENT), seq: 9, ack: Some(ack), has_option }
    }

    fn at_client() -> Flow {
        Flow { local: addr(CLIENT), remote: addr(SERVER) }
    }

    fn at_server() -> Flow {
        Flow { local: addr(SERVER), remote: addr(CLIENT) }
    }

    fn client() -> Signals {
        let mut signals = Signals::default();
        signals.offer(at_client());
        assert!(signals.wants(&syn(u32::MAX, false)));
        signals.sent(&syn(u32::MAX, true), true);
        signals
    }

    fn server() -> Signals {
        let mut signals = Signals::default();
        signals.serve(SERVER);
        signals
    }

    #[test]
    fn both_segments_have_it() {
        let (mut client, mut server) = (client(), server());
        server.received(&syn(u32::MAX, true));
        assert!(server.wants(&syn_ack(0, false)));
        server.sent(&syn_ack(0, true), true);
        client.received(&syn_ack(0, true));
        assert!(client.take_agreed(at_client()) && server.take_agreed(at_server()));
        assert!(!client.take_agreed(at_client()), "forgotten");
    }

    #[test]
    fn answer_without_it_counts_and_a_later_one_does_not() {
        let mut client = client();
        client.received(&syn_ack(0, false));
        client.received(&syn_ack(0, true));
        assert!(!client.take_agreed(at_client()));
    }

    #[test]
    fn answer_to_another_syn_does_not_count() {
        let mut client = client();
        client.received(&syn_ack(17, true));
        assert!(!client.take_agreed(at_client()));
    }

    #[test]
    fn syn_without_room_offers_nothing() {
        let mut signals = Signals::default();
        signals.offer(at_client());
        signals.sent(&syn(1, false), false);
        signals.received(&syn_ack(2, true));
        assert!(!signals.take_agreed(at_client()), "echoed by somebody who invents it");
    }

    #[test]
    fn retransmitted_syn_that_was_stripped_changes_nothing() {
        let mut server = server();
        server.received(&syn(5, true));
        server.received(&syn(5, false));
        assert!(server.wants(&syn_ack(6, false)));
        server.sent(&syn_ack(6, true), true);
        server.received(&syn(5, false));
        assert!(server.wants(&syn_ack(6, false)), "the same answer again");
        assert!(server.take_agreed(at_server()));
    }

    #[test]
    fn retransmitted_syn_that_was_not_stripped_changes_nothing() {
        let mut server = server();
        server.received(&syn(5, false));
        server.sent(&syn_ack(6, false), false);
        server.received(&syn(5, true));
        assert!(!server.wants(&syn_ack(6, false)));
        assert!(!server.take_agreed(at_server()));
    }

    #[test]
    fn forged_syn_does_not_change_what_was_answered() {
        let mut server = server();
        server.received(&syn(5, true));
        server.sent(&syn_ack(6, true), true);
        server.received(&syn(1000, false));
        assert!(server.wants(&syn_ack(6, false)));
        server.sent(&syn_ack(6, true), true);
        assert!(server.take_agreed(at_server()));
    }

    #[test]
    fn next_connection_of_the_same_ports_counts_anew() {
        let mut server = server();
        server.received(&syn(5, true));
        server.sent(&syn_ack(6, true), true);
        server.received(&syn(1000, false));
        assert!(!server.wants(&syn_ack(1001, false)));
        server.sent(&syn_ack(1001, false), false);
        assert!(!server.take_agreed(at_server()));
    }

    #[test]
    fn port_that_is_not_served_gets_no_answer() {
        let mut signals = Signals::default();
        signals.received(&syn(5, true));
        assert!(!signals.wants(&syn_ack(6, false)));
        let mut server = server();
        server.received(&syn(4, true));
        server.stop_serving(SERVER);
        server.received(&syn(5, true));
        assert!(!server.wants(&syn_ack(5, false)) && !server.wants(&syn_ack(6, false)));
    }

    #[test]
    fn table_is_bounded() {
        let mut server = server();
        for port in 0..u16::MAX {
            server.received(&Syn { source: addr(port), ..syn(5, true) });
        }
        assert_eq!(server.len(), MAX);
        server.retain(|flow| flow.remote.port() == 7);
        assert_eq!(server.len(), 1);
    }
}
