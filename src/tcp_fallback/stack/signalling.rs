//! A device around a link: writes the option into SYN segments that go out, and notes that of those that come.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use smoltcp::{
    phy::{Device, DeviceCapabilities, Medium, PacketMeta, RxToken, TxToken},
    time::Instant,
};

use super::{
    signals::Signals,
    syn::{SYN_FRAME_MAX, Syn, with_option},
};

/// The table that a device and its endpoint share.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedSignals(Arc<Mutex<Signals>>);

impl SharedSignals {
    pub(super) fn lock(&self) -> MutexGuard<'_, Signals> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Signalling<D> {
    pub(super) link: D,
    signals: SharedSignals,
    medium: Medium,
    mtu: usize,
}

impl<D: Device> Signalling<D> {
    pub(super) fn new(link: D, signals: SharedSignals) -> Self {
        let DeviceCapabilities { medium, max_transmission_unit, .. } = link.capabilities();
        Self { link, signals, medium, mtu: max_transmission_unit }
    }
}

impl<D: Device> Device for Signalling<D> {
    type RxToken<'a>
        = Incoming<'a, D::RxToken<'a>>
    where
        D: 'a;
    type TxToken<'a>
        = Outgoing<'a, D::TxToken<'a>>
    where
        D: 'a;

    fn receive(&mut self, timestamp: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let Self { link, signals, medium, mtu } = self;
        let (rx, tx) = link.receive(timestamp)?;
        let (signals, medium) = (&*signals, *medium);
        Some((Incoming { token: rx, signals, medium }, Outgoing { token: tx, signals, medium, mtu: *mtu }))
    }

    fn transmit(&mut self, timestamp: Instant) -> Option<Self::TxToken<'_>> {
        let Self { link, signals, medium, mtu } = self;
        Some(Outgoing { token: link.transmit(timestamp)?, signals, medium: *medium, mtu: *mtu })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        self.link.capabilities()
    }
}

/// A frame that has come.
pub(super) struct Incoming<'a, T> {
    token: T,
    signals: &'a SharedSignals,
    medium: Medium,
}

impl<T: RxToken> RxToken for Incoming<'_, T> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        self.token.consume(|frame| {
            if let Some(syn) = Syn::read(frame, self.medium) {
                self.signals.lock().received(&syn);
            }
            f(frame)
        })
    }

    fn meta(&self) -> PacketMeta {
        self.token.meta()
    }
}

/// A frame that is to go out.
pub(super) struct Outgoing<'a, T> {
    token: T,
    signals: &'a SharedSignals,
    medium: Medium,
    mtu: usize,
}

impl<T> Outgoing<'_, T> {
    /// The longer frame to send in place of this one, if it is a SYN that is to carry the option and has room.
    fn rewritten(&self, frame: &[u8]) -> Option<Vec<u8>> {
        let syn = Syn::read(frame, self.medium)?;
        let mut signals = self.signals.lock();
        let longer = signals.wants(&syn).then(|| with_option(frame, self.medium, self.mtu)).flatten();
        signals.sent(&syn, longer.is_some());
        longer
    }
}

impl<T: TxToken> TxToken for Outgoing<'_, T> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut short = [0; SYN_FRAME_MAX];
        let Some(frame) = short.get_mut(..len) else { return self.token.consume(len, f) };
        let result = f(frame);
        match self.rewritten(frame) {
            Some(longer) => send(self.token, &longer),
            None => send(self.token, frame),
        }
        result
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.token.set_meta(meta);
    }
}

fn send(token: impl TxToken, frame: &[u8]) {
    token.consume(frame.len(), |room| room.copy_from_slice(frame));
}
