//! A connection that a handshake has led to, and what gives its buffers back in the end.

use std::sync::Arc;

use super::{Stack, Transport, connection::Connection, link_group::LinkGroup};
use crate::dibs::Gid;

/// An SMC-D connection, closed on drop; its buffers return to the link group.
#[derive(Debug)]
pub(crate) struct Established {
    /// Taken by the drop, so that the group finds nobody holding it any more.
    connection: Option<Arc<Connection>>,
    group: Arc<LinkGroup>,
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
        group.join();
        stack.count_connection();
        Self { connection: Some(connection), group, stack, peer }
    }

    /// Another share of the connection. It has to be gone before this is dropped.
    pub(crate) fn share(&self) -> Option<Arc<Connection>> {
        self.connection.clone()
    }

    /// How the bytes travel on it.
    pub(crate) fn transport(&self, connection: &Connection) -> Transport {
        Transport::Smcd {
            chid: self.group.device().fabric_id(),
            gid: self.group.device().gid(),
            peer_gid: self.peer,
            receive_buffer: connection.receive_buffer(),
            send_buffer: connection.send_buffer(),
        }
    }
}

impl Drop for Established {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.stack.release(&self.group, connection);
        }
    }
}
