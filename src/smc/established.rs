//! A connection that a handshake has led to, and what gives its buffers back in the end.

use std::sync::Arc;

use super::{Stack, Transport, connection::Connection, link_group::LinkGroup};
use crate::dibs::{Device, Gid};

/// An SMC-D connection, closed on drop; its buffers return to the link group.
#[derive(Debug)]
pub(crate) struct Established {
    /// Taken by the drop, so that nobody else holds them when the stack takes them back.
    held: Option<(Arc<Connection>, Arc<LinkGroup>)>,
    device: Arc<dyn Device>,
    stack: Arc<Stack>,
    peer: Gid,
}

impl Established {
    pub(crate) fn new(
        connection: Arc<Connection>,
        group: Arc<LinkGroup>,
        stack: Arc<Stack>,
        peer: Gid,
    ) -> Self {
        stack.count_connection();
        let device = group.device().clone();
        Self { held: Some((connection, group)), device, stack, peer }
    }

    /// Another share of the connection. It has to be gone before this is dropped.
    pub(crate) fn share(&self) -> Option<Arc<Connection>> {
        self.held.as_ref().map(|(connection, _)| connection.clone())
    }

    /// How the bytes travel on it.
    pub(crate) fn transport(&self, connection: &Connection) -> Transport {
        Transport::Smcd {
            chid: self.device.fabric_id(),
            gid: self.device.gid(),
            peer_gid: self.peer,
            receive_buffer: connection.receive_buffer(),
            send_buffer: connection.send_buffer(),
        }
    }
}

impl Drop for Established {
    fn drop(&mut self) {
        let Some((connection, group)) = self.held.take() else { return };
        if connection.is_abandoned() {
            // Another process has it too: nothing is said to the peer, and nobody may get the buffers.
        } else if self.stack.is_inherited() {
            // The pools are the parent's, and their locks may be held by a thread that is not there.
            connection.close();
        } else {
            self.stack.release(group, connection);
        }
    }
}
