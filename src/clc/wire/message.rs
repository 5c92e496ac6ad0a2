//! Any CLC message.

use bytes::BufMut;

use super::{
    Accept, Confirm, Decline, DecodeError, Flavours, HEADER_LEN, Header, MsgType, Proposal, SmcdBody, Smcr,
    Version,
};

/// One CLC message.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Message {
    /// The client's offer.
    Proposal(Proposal),
    /// The server's choice of SMC-D.
    Accept(Accept),
    /// The client's DMB.
    Confirm(Confirm),
    /// The refusal of either side.
    Decline(Decline),
    /// An Accept or Confirm of SMC-R.
    Smcr(Smcr),
}

impl Message {
    /// Reads one message from its bytes: all of them, or the first [`Header::kept_len`].
    ///
    /// # Errors
    ///
    /// [`DecodeError`] if the bytes are not exactly one message. Linux 7.3 then closes the connection.
    pub fn parse(bytes: &[u8]) -> Result<Self, DecodeError> {
        let given = bytes.len();
        let Some(first) = bytes.first_chunk() else {
            return Err(DecodeError::Incomplete { announced: HEADER_LEN, given });
        };
        let header = Header::parse(first)?;
        let (announced, kept_len) = (header.length(), header.kept_len());
        let kept = bytes.get(..kept_len).filter(|_| given == announced || given == kept_len);
        let kept = kept.ok_or(DecodeError::Incomplete { announced, given })?;
        header.check_trailer(kept)?;
        let smcr = header.typev1() == Some(Flavours::R);
        match header.msg_type() {
            MsgType::Proposal => Proposal::parse(header, kept).map(Self::Proposal),
            MsgType::Decline => Decline::parse(header, kept).map(Self::Decline),
            MsgType::Accept | MsgType::Confirm if smcr => Ok(Self::Smcr(Smcr::parse(header, kept))),
            MsgType::Accept => SmcdBody::parse(header, kept).map(|body| Self::Accept(Accept(body))),
            MsgType::Confirm => SmcdBody::parse(header, kept).map(|body| Self::Confirm(Confirm(body))),
        }
    }

    /// Kind of the message.
    pub const fn msg_type(&self) -> MsgType {
        match self {
            Self::Proposal(_) => MsgType::Proposal,
            Self::Accept(_) => MsgType::Accept,
            Self::Confirm(_) => MsgType::Confirm,
            Self::Decline(_) => MsgType::Decline,
            Self::Smcr(smcr) => smcr.msg_type(),
        }
    }

    /// Version of the message.
    pub fn version(&self) -> Version {
        match self {
            Self::Proposal(proposal) => proposal.version,
            Self::Accept(Accept(body)) | Self::Confirm(Confirm(body)) => body.version(),
            Self::Decline(decline) => decline.version(),
            Self::Smcr(smcr) => smcr.version(),
        }
    }

    /// Length of the message in bytes.
    pub fn wire_len(&self) -> usize {
        match self {
            Self::Proposal(proposal) => proposal.wire_len(),
            Self::Accept(accept) => accept.wire_len(),
            Self::Confirm(confirm) => confirm.wire_len(),
            Self::Decline(decline) => decline.wire_len(),
            Self::Smcr(smcr) => smcr.wire_len(),
        }
    }

    /// Writes the message.
    ///
    /// # Panics
    ///
    /// If `buf` has less than [`Message::wire_len`] bytes of room.
    pub fn emit(&self, buf: &mut impl BufMut) {
        match self {
            Self::Proposal(proposal) => proposal.emit(buf),
            Self::Accept(accept) => accept.emit(buf),
            Self::Confirm(confirm) => confirm.emit(buf),
            Self::Decline(decline) => decline.emit(buf),
            Self::Smcr(smcr) => smcr.emit(buf),
        }
    }

    /// The bytes of the message.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.wire_len());
        self.emit(&mut bytes);
        bytes
    }
}

macro_rules! message_from {
    ($($kind:ident),+) => {$(
        impl From<$kind> for Message {
            fn from(message: $kind) -> Self {
                Self::$kind(message)
            }
        }
    )+};
}

message_from!(Proposal, Accept, Confirm, Decline);
