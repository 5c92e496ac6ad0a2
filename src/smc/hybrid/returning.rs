//! What was written to a ring and not read, and goes by TCP when the connection is given back.
//!
//! The end that leaves its ring asks ([`demotion`](super::demotion)), the writer does it ([`Hybrid::follow`]): it copies
//! the bytes out of the ring, where it has put them, to TCP, as many as that takes at once, and says how many. Then they
//! are the next that TCP brings, and the rest of the ring comes after them. Mostly TCP takes all: it was idle, and takes
//! more at once than a ring holds. If not, the rest stays where it is. The writer keeps no bytes of its own: it may end at
//! any moment, and what is in the ring or in the kernel survives it.
//!
//! A writer may die, or be stopped, between sending and saying so. As long as nobody knows how much it has sent, what TCP
//! brings is next, however much that is; and when TCP has ended, what it has not brought is in the ring.

use std::{io, sync::atomic::Ordering};

use super::{DemoteError, Hybrid, Ring, Tcp, inbound::Inbound, lock};
use crate::{
    smc::{
        ConnectionError,
        connection::{Asked, Connection},
        returning::Stand,
    },
    tcp_fallback::FallbackReason,
};

impl<R: Ring, T: Tcp> Hybrid<R, T> {
    /// Does what the peer asks for, if it does: it leaves its ring, and wants what it has not read by TCP. To be called by
    /// all who wait, and whenever there is nothing else to do: the peer waits for it, and wakes those who sleep.
    ///
    /// # Errors
    /// If the device fails, or another process has died while it had its turn.
    pub(crate) fn follow(&self) -> io::Result<()> {
        if !self.is_asked() {
            return Ok(());
        }
        let _turn = self.turn()?;
        self.follow_in_turn()
    }

    /// As [`Hybrid::follow`], for those who have the turn.
    #[inline]
    pub(super) fn follow_in_turn(&self) -> io::Result<()> {
        if self.is_asked() { self.write_back() } else { Ok(()) }
    }

    /// True if the peer asks for something that is still to be done.
    #[inline]
    pub(crate) fn is_asked(&self) -> bool {
        self.ring.get().is_some_and(|ring| ring.connection().is_asked())
    }

    /// Nothing more goes by the ring.
    #[cold]
    pub(super) fn write_back(&self) -> io::Result<()> {
        // If another has done it meanwhile, it knows why.
        if self.write_tcp_again()? {
            self.stay_back(&mut lock(&self.inbound), FallbackReason::PeerWentBack);
        }
        Ok(())
    }

    /// As [`Hybrid::write_back`], for those who hold the other direction.
    pub(super) fn go_back_as_asked(&self, inbound: &mut Inbound) -> Result<(), ConnectionError> {
        if self.write_tcp_again()? {
            self.stay_back(inbound, FallbackReason::PeerWentBack);
        }
        Ok(())
    }

    /// Sends what the peer has not read, if it asks for that; says how many bytes.
    pub(super) fn return_unread(&self, connection: &Connection) -> Result<u32, ConnectionError> {
        let sent = connection.take_back(&mut |bytes| self.tcp.send_now(bytes))?;
        if sent > 0 {
            // They have been with the peer, who must not wait for them.
            self.tcp.push();
            tracing::debug!(sent, "what the peer had not read goes by TCP");
        }
        Ok(sent)
    }

    /// The peer sends some of what is in the ring by TCP. Nobody knows how much until it says so.
    pub(super) fn read_tcp_first(
        &self,
        inbound: &mut Inbound,
        connection: &Connection,
        asked: Asked<'_>,
    ) -> Result<(), DemoteError> {
        if inbound.has_switched() {
            // Before anybody else gets at the ring.
            asked.bar();
        } else {
            // Nobody else reads the ring yet, which begins with the offset of the switch.
            drop(asked);
            self.find_switch(inbound, connection, false).map_err(|_| self.misled(inbound))?;
            connection.bar();
        }
        self.reads_ring.store(false, Ordering::Release);
        if inbound.await_return() { Ok(()) } else { Err(self.misled(inbound)) }
    }

    /// Looks whether the peer has said how many bytes it has sent.
    pub(super) fn look_for_return(&self, inbound: &mut Inbound, connection: &Connection) -> io::Result<()> {
        if !inbound.is_undecided() {
            return Ok(());
        }
        match connection.returned() {
            Stand::Done(sent) => self.take_in_return(inbound, connection, sent),
            _ => Ok(()),
        }
    }

    /// TCP has ended, and the peer never said how many bytes it has sent: those that have come.
    pub(super) fn end_return(&self, inbound: &mut Inbound, connection: &Connection) -> io::Result<()> {
        self.look_for_return(inbound, connection)?;
        match inbound.returned_so_far() {
            Some(sent) => self.take_in_return(inbound, connection, sent),
            None => Ok(()),
        }
    }

    /// The peer has sent so many bytes of those in the ring. They come by TCP, and the rest of the ring after them.
    pub(super) fn take_in_return(
        &self,
        inbound: &mut Inbound,
        connection: &Connection,
        sent: u32,
    ) -> io::Result<()> {
        if inbound.resolve_return(sent) && connection.pass_over(sent)? {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, Misreturned))
    }
}

/// The peer says that it has sent more than there was, or less than has come.
#[derive(Debug, thiserror::Error)]
#[error("the peer has sent bytes by TCP that were not in shared memory")]
struct Misreturned;
