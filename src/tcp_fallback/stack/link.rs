//! What an endpoint sends its frames by.

use std::{
    io,
    task::{Context, Poll},
};

use smoltcp::{
    phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken},
    wire::EthernetFrame,
};

/// A device that can be waited for.
///
/// [`Device::transmit`] never refuses: what cannot be sent is lost, as on any network.
pub trait Link: Device + Send + 'static {
    /// Polls until a frame may have come. Asked only after [`Device::receive`] had none.
    ///
    /// # Errors
    /// If no frame will ever come again: the endpoint then ends all of its connections.
    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// A frame that has come.
#[derive(Debug)]
pub struct Received(pub(super) Vec<u8>);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

/// Takes whole frames, and loses those that there is no room for.
pub(super) trait Sink {
    /// Sends a frame.
    fn send(&mut self, frame: Vec<u8>);
}

/// A frame that is to be sent.
#[derive(Debug)]
pub struct Sending<'a, S>(pub(super) &'a mut S);

#[allow(private_bounds)]
impl<S: Sink> TxToken for Sending<'_, S> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.send(frame);
        result
    }
}

/// Makes a device of a [`Sink`] that has `next_frame`, `medium` and `ip_mtu`.
macro_rules! device {
    ($link:ty) => {
        impl smoltcp::phy::Device for $link {
            type RxToken<'a> = $crate::tcp_fallback::stack::link::Received;
            type TxToken<'a> = $crate::tcp_fallback::stack::link::Sending<'a, Self>;

            fn receive(
                &mut self,
                _: smoltcp::time::Instant,
            ) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
                let frame = self.next_frame()?;
                Some((
                    $crate::tcp_fallback::stack::link::Received(frame),
                    $crate::tcp_fallback::stack::link::Sending(self),
                ))
            }

            fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Self::TxToken<'_>> {
                Some($crate::tcp_fallback::stack::link::Sending(self))
            }

            fn capabilities(&self) -> smoltcp::phy::DeviceCapabilities {
                $crate::tcp_fallback::stack::link::capabilities(self.medium, self.ip_mtu)
            }
        }
    };
}

pub(super) use device;

/// What a device of this medium can do that carries IP packets of up to `ip_mtu` bytes.
pub(super) fn capabilities(medium: Medium, ip_mtu: usize) -> DeviceCapabilities {
    let header = if medium == Medium::Ethernet { EthernetFrame::<&[u8]>::header_len() } else { 0 };
    let mut capabilities = DeviceCapabilities::default();
    capabilities.medium = medium;
    capabilities.max_transmission_unit = ip_mtu + header;
    capabilities
}
