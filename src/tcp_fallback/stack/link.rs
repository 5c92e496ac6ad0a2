//! What an endpoint sends its frames by.

use std::{
    io,
    task::{Context, Poll},
};

use smoltcp::{
    phy::{Device, DeviceCapabilities, Medium},
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

/// What a device of this medium can do that carries IP packets of up to `ip_mtu` bytes.
pub(super) fn capabilities(medium: Medium, ip_mtu: usize) -> DeviceCapabilities {
    let header = match medium {
        Medium::Ethernet => EthernetFrame::<&[u8]>::header_len(),
        Medium::Ip => 0,
    };
    let mut capabilities = DeviceCapabilities::default();
    capabilities.medium = medium;
    capabilities.max_transmission_unit = ip_mtu + header;
    capabilities
}
