//! The codes with which a function in software refuses commands.

/// No such command, or not as long as it has to be.
pub const REQUEST: u16 = 0x0001;
/// The signal bits, or the event queue, have to be registered first.
pub const NOT_REGISTERED: u16 = 0x0002;
/// They are registered already; or DMBs are, so they cannot be taken away.
pub const IN_USE: u16 = 0x0003;
/// No memory is mapped there; or it does not begin at a page, or crosses a segment.
pub const ADDRESS: u16 = 0x0004;
/// Not a length that memory can have.
pub const LENGTH: u16 = 0x0005;
/// The index cannot be, or is taken.
pub const INDEX: u16 = 0x0006;
/// No such function is in reach.
pub const UNREACHABLE: u16 = 0x0007;
/// The function has no such DMB.
pub const TOKEN: u16 = 0x0008;
/// Not a VLAN, or not one of this function.
pub const VLAN: u16 = 0x0009;
/// There are no more of them.
pub const FULL: u16 = 0x000a;
