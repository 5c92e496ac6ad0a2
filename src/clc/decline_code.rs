//! The diagnosis that a Decline carries.

use std::fmt;

/// Why an endpoint declined SMC: the 32-bit peer diagnosis of a Decline.
///
/// The constants are the codes of Linux 7.3. Other codes are kept as they came.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeclineCode(pub u32);

macro_rules! decline_codes {
    ($($(#[$doc:meta])+ $name:ident = $code:literal, $text:literal;)+) => {
        impl DeclineCode {
            $($(#[$doc])+ pub const $name: Self = Self($code);)+

            /// Every named code, in ascending order.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// What the code means, in a few words; `None` for a code without a name.
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some($text),)+
                    _ => None,
                }
            }
        }
    };
}

decline_codes! {
    /// No memory, no buffers, or the peer's DMB could not be attached.
    MEMORY = 0x0101_0000, "no memory for buffers";
    /// SMC-R: the first link was not confirmed in time.
    TIMEOUT_CONFIRM_LINK = 0x0201_0000, "timeout confirming the link";
    /// SMC-R: the second link was not added in time.
    TIMEOUT_ADD_LINK = 0x0202_0000, "timeout adding a link";
    /// Configuration error, for instance no IP prefix to propose.
    CONFIG = 0x0300_0000, "configuration error";
    /// The peer did not signal SMC in its SYN or SYN-ACK; also the answer to a Proposal that offers nothing.
    PEER_NO_SMC = 0x0301_0000, "peer offers no SMC";
    /// IPsec protects the connection; shared memory would bypass it.
    IPSEC = 0x0302_0000, "IPsec in use";
    /// The client has no SMC device at all.
    NO_DEVICE = 0x0303_0000, "no SMC device";
    /// No SMC-D device reaches the peer, or the two sides share no EID.
    NO_SMCD_DEVICE = 0x0303_0001, "no SMC-D device or no common EID";
    /// No SMC-R device reaches the peer.
    NO_SMCR_DEVICE = 0x0303_0002, "no SMC-R device";
    /// The declining side has no device capable of SMC-D v2.
    NO_ISM_V2 = 0x0303_0003, "not capable of SMC-D v2";
    /// A v2 flavour is offered without the v2 extension.
    NO_V2_EXTENSION = 0x0303_0004, "no v2 extension";
    /// SMC-D v2 is offered without the SMC-D v2 extension.
    NO_SMCD_V2_EXTENSION = 0x0303_0005, "no SMC-D v2 extension";
    /// No SEID. Linux 7.3 defines the code and never sends it.
    NO_SEID = 0x0303_0006, "no SEID";
    /// None of the offered SMC-D v2 devices reaches a device of the declining side.
    NO_SMCD_V2_DEVICE = 0x0303_0007, "no matching SMC-D v2 device";
    /// Neither a UEID nor the SEID is offered.
    NO_UEID = 0x0303_0008, "neither UEID nor SEID offered";
    /// The release in the Confirm is not the negotiated one.
    RELEASE = 0x0303_0009, "release mismatch";
    /// SMC-R: no agreement on the number of connections per link group.
    MAX_CONNECTIONS = 0x0303_000a, "maximum of connections not accepted";
    /// SMC-R: no agreement on the number of links per link group.
    MAX_LINKS = 0x0303_000b, "maximum of links not accepted";
    /// The flavour (SMC-R or SMC-D) of the Accept was not proposed.
    MODE_UNSUPPORTED = 0x0304_0000, "flavour of the Accept not proposed";
    /// SMC-R: wrong eyecatcher in an RMB.
    RMB_EYECATCHER = 0x0305_0000, "eyecatcher missing in RMB";
    /// A socket option that SMC cannot honour (TCP Fast Open). Never on the wire.
    OPTION_UNSUPPORTED = 0x0306_0000, "socket option not supported";
    /// The offered IP prefixes are not the server's (version 1).
    PREFIX_MISMATCH = 0x0307_0000, "IP prefix mismatch";
    /// The VLAN of the connection cannot be determined.
    VLAN_UNKNOWN = 0x0308_0000, "cannot determine VLAN";
    /// The VLAN cannot be registered with the device.
    VLAN_REGISTRATION = 0x0309_0000, "cannot register VLAN";
    /// SMC-R: the link group has no active link.
    NO_ACTIVE_LINK = 0x030a_0000, "no active link";
    /// SMC-R: the link named by the server is not known.
    SERVER_LINK_UNKNOWN = 0x030b_0000, "server link unknown";
    /// Version mismatch. Linux 7.3 defines the code and never sends it.
    VERSION_MISMATCH = 0x030c_0000, "version mismatch";
    /// The device has no free DMB.
    NO_FREE_DMB = 0x030d_0000, "no free DMB";
    /// SMC-R: no route to the peer.
    NO_ROUTE = 0x030e_0000, "no route to peer";
    /// SMC-R: the sides differ on whether they are directly connected.
    INDIRECT_MISMATCH = 0x030f_0000, "direct connection mismatch";
    /// The Accept relies on a link group that the client does not have; the Decline carries the out-of-sync bit.
    SYNC = 0x0400_0000, "link groups out of sync";
    /// The peer declined. Never on the wire.
    PEER_DECLINED = 0x0500_0000, "peer declined";
    /// Internal error, for instance a link group that cannot be created.
    INTERNAL = 0x0999_0000, "internal error";
    /// SMC-R: error handling remote tokens.
    RTOKEN = 0x0999_0001, "rtoken handling";
    /// SMC-R: error making the link ready.
    READY_LINK = 0x0999_0002, "link not ready";
    /// SMC-R: error registering the buffer.
    REGISTER_RMB = 0x0999_0003, "cannot register RMB";
}

impl DeclineCode {
    /// True for the code that tells the peer to drop the link group: its Decline carries the out-of-sync bit.
    pub const fn is_out_of_sync(self) -> bool {
        self.0 == Self::SYNC.0
    }
}

/// Writes the code as the eight hexadecimal digits by which SMC tools show it, then its name if it has one.
impl fmt::Display for DeclineCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:08x}", self.0)?;
        self.name().map_or(Ok(()), |name| write!(f, " ({name})"))
    }
}

impl fmt::Debug for DeclineCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeclineCode({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_of_linux_has_a_name() {
        let linux = [
            0x0101_0000,
            0x0201_0000,
            0x0202_0000,
            0x0300_0000,
            0x0301_0000,
            0x0302_0000,
            0x0303_0000,
            0x0303_0001,
            0x0303_0002,
            0x0303_0003,
            0x0303_0004,
            0x0303_0005,
            0x0303_0006,
            0x0303_0007,
            0x0303_0008,
            0x0303_0009,
            0x0303_000a,
            0x0303_000b,
            0x0304_0000,
            0x0305_0000,
            0x0306_0000,
            0x0307_0000,
            0x0308_0000,
            0x0309_0000,
            0x030a_0000,
            0x030b_0000,
            0x030c_0000,
            0x030d_0000,
            0x030e_0000,
            0x030f_0000,
            0x0400_0000,
            0x0500_0000,
            0x0999_0000,
            0x0999_0001,
            0x0999_0002,
            0x0999_0003,
        ];
        assert_eq!(DeclineCode::ALL.iter().map(|c| c.0).collect::<Vec<_>>(), linux);
        assert!(DeclineCode::ALL.iter().all(|c| c.name().is_some_and(|n| !n.is_empty())));
        assert!(DeclineCode::ALL.is_sorted());
    }

    #[test]
    fn display_shows_code_and_name() {
        assert_eq!(DeclineCode::NO_UEID.to_string(), "0x03030008 (neither UEID nor SEID offered)");
        assert_eq!(DeclineCode(0x1234).to_string(), "0x00001234");
    }

    #[test]
    fn only_the_sync_error_is_out_of_sync() {
        let codes: Vec<_> = DeclineCode::ALL.iter().filter(|c| c.is_out_of_sync()).collect();
        assert_eq!(codes, [&DeclineCode::SYNC]);
    }
}
