//! The commands of a function: what goes into its mailbox, and what comes out.
//!
//! All numbers are big-endian. A request begins with its code and its length, an answer with the code of the request, the
//! result and its own length; then follows the body. Both directions are parsed here: the driver reads answers, the
//! software device reads requests.

use crate::dibs::VlanId;

/// Bytes before the body, in both directions.
pub(super) const HEADER_LEN: usize = 8;

/// Bytes of the longest answer.
pub(super) const MAX_ANSWER: usize = 200;

/// The result of a command that was carried out.
pub(super) const OK: u16 = 0;

/// Where a result should be: there was no answer. What a function that is gone reads as.
pub(super) const NO_ANSWER: u16 = 0xffff;

/// VLANs that the answer to [`Request::QueryInfo`] names.
pub(super) const MAX_VLANS: usize = 64;

/// Codes of commands. Linux knows two more, 6 and 7, to set and reset a VLAN; it uses neither, and what belongs into them
/// is not known.
pub(super) mod code {
    pub(in super::super) const REGISTER_SBA: u32 = 0x01;
    pub(in super::super) const REGISTER_IEQ: u32 = 0x02;
    pub(in super::super) const READ_GID: u32 = 0x03;
    pub(in super::super) const ADD_VLAN: u32 = 0x04;
    pub(in super::super) const DEL_VLAN: u32 = 0x05;
    pub(in super::super) const QUERY_INFO: u32 = 0x08;
    pub(in super::super) const QUERY_REMOTE: u32 = 0x09;
    pub(in super::super) const REGISTER_DMB: u32 = 0x0a;
    pub(in super::super) const UNREGISTER_DMB: u32 = 0x0b;
    pub(in super::super) const SIGNAL: u32 = 0x0e;
    pub(in super::super) const UNREGISTER_SBA: u32 = 0x11;
    pub(in super::super) const UNREGISTER_IEQ: u32 = 0x12;
}

/// What is asked of a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Request {
    /// The signal bits are at this address.
    RegisterSba {
        iova: u64,
    },
    /// The event queue is at this address.
    RegisterIeq {
        iova: u64,
        len: u64,
    },
    /// Asks for the GID of the function.
    ReadGid,
    AddVlan(u64),
    DelVlan(u64),
    /// Asks how the function is.
    QueryInfo,
    /// Asks whether another function can be reached.
    QueryRemote {
        gid: u64,
        vlan: Option<VlanId>,
    },
    /// Memory that the function `user` may write.
    RegisterDmb {
        iova: u64,
        len: u32,
        index: u32,
        vlan: Option<VlanId>,
        user: u64,
    },
    UnregisterDmb {
        token: u64,
    },
    /// Sends an event to another function.
    Signal {
        gid: u64,
        interrupts: bool,
        code: u32,
        info: u64,
    },
    UnregisterSba,
    UnregisterIeq,
}

/// What a function answers if it has done what was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    Done,
    Gid(u64),
    Token(u64),
    Info(Info),
}

/// How a function is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Info {
    pub(super) version: u32,
    pub(super) max_len: u32,
    pub(super) state: u64,
    pub(super) gid: u64,
    pub(super) sba: u64,
    pub(super) ieq: u64,
    pub(super) ieq_len: u32,
    pub(super) dmbs_owned: u32,
    pub(super) dmbs_used: u32,
    pub(super) vlan_required: u32,
    pub(super) vlan_count: u32,
    pub(super) vlans: [u16; MAX_VLANS],
}

/// The first eight bytes of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct RequestHeader {
    pub(super) code: u32,
    /// Of the whole request.
    pub(super) len: u16,
}

/// The first eight bytes of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct AnswerHeader {
    pub(super) code: u32,
    pub(super) result: u16,
    /// Of the whole answer.
    pub(super) len: u16,
}

/// What is wrong with a request or an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub(super) enum Malformed {
    #[error("{0:#04x} is no command")]
    Code(u32),
    #[error("{have} bytes instead of {want}")]
    Length { have: usize, want: usize },
    #[error("{0} is no VLAN")]
    Vlan(u32),
}

impl RequestHeader {
    pub(super) fn emit(self) -> [u8; HEADER_LEN] {
        emitted(&[&self.code.to_be_bytes(), &[0, 0], &self.len.to_be_bytes()])
    }

    pub(super) fn parse(bytes: [u8; HEADER_LEN]) -> Self {
        Self { code: u32_at(&bytes, 0), len: u16_at(&bytes, 6) }
    }
}

impl AnswerHeader {
    pub(super) fn emit(self) -> [u8; HEADER_LEN] {
        emitted(&[&self.code.to_be_bytes(), &self.result.to_be_bytes(), &self.len.to_be_bytes()])
    }

    pub(super) fn parse(bytes: [u8; HEADER_LEN]) -> Self {
        Self { code: u32_at(&bytes, 0), result: u16_at(&bytes, 4), len: u16_at(&bytes, 6) }
    }
}

impl Request {
    pub(super) const fn code(&self) -> u32 {
        match self {
            Self::RegisterSba { .. } => code::REGISTER_SBA,
            Self::RegisterIeq { .. } => code::REGISTER_IEQ,
            Self::ReadGid => code::READ_GID,
            Self::AddVlan(_) => code::ADD_VLAN,
            Self::DelVlan(_) => code::DEL_VLAN,
            Self::QueryInfo => code::QUERY_INFO,
            Self::QueryRemote { .. } => code::QUERY_REMOTE,
            Self::RegisterDmb { .. } => code::REGISTER_DMB,
            Self::UnregisterDmb { .. } => code::UNREGISTER_DMB,
            Self::Signal { .. } => code::SIGNAL,
            Self::UnregisterSba => code::UNREGISTER_SBA,
            Self::UnregisterIeq => code::UNREGISTER_IEQ,
        }
    }

    /// Bytes of a request of this code, with its header; `None` if there is no such command.
    pub(super) const fn len_of(code: u32) -> Option<usize> {
        Some(match code {
            code::READ_GID | code::QUERY_INFO | code::UNREGISTER_SBA | code::UNREGISTER_IEQ => 8,
            code::REGISTER_SBA | code::ADD_VLAN | code::DEL_VLAN | code::UNREGISTER_DMB => 16,
            code::REGISTER_IEQ | code::QUERY_REMOTE => 24,
            code::SIGNAL => 32,
            code::REGISTER_DMB => 40,
            _ => return None,
        })
    }

    /// Bytes of the answer, with its header.
    pub(super) const fn answer_len(&self) -> usize {
        match self {
            Self::ReadGid | Self::RegisterDmb { .. } => 16,
            Self::QueryInfo => MAX_ANSWER,
            _ => HEADER_LEN,
        }
    }

    /// The header, and what follows it.
    pub(super) fn emit(&self) -> (RequestHeader, Vec<u8>) {
        let body = match *self {
            Self::ReadGid | Self::QueryInfo | Self::UnregisterSba | Self::UnregisterIeq => Vec::new(),
            Self::RegisterSba { iova } => words(&[iova]),
            Self::RegisterIeq { iova, len } => words(&[iova, len]),
            Self::AddVlan(vlan) | Self::DelVlan(vlan) => words(&[vlan]),
            Self::QueryRemote { gid, vlan } => words(&[gid, vlan_word(vlan)]),
            Self::RegisterDmb { iova, len, index, vlan, user } => {
                words(&[iova, pair(len, index), vlan_word(vlan), user])
            }
            Self::UnregisterDmb { token } => words(&[token]),
            Self::Signal { gid, interrupts, code, info } => {
                words(&[gid, pair(interrupts.into(), code), info])
            }
        };
        // At most 40.
        let len = (HEADER_LEN + body.len()) as u16;
        (RequestHeader { code: self.code(), len }, body)
    }

    /// Takes a request apart. `body` may be longer than the request.
    pub(super) fn parse(header: RequestHeader, body: &[u8]) -> Result<Self, Malformed> {
        let want = Self::len_of(header.code).ok_or(Malformed::Code(header.code))?;
        let have = usize::from(header.len).min(HEADER_LEN + body.len());
        if usize::from(header.len) != want || have != want {
            return Err(Malformed::Length { have, want });
        }
        let (long, short) = (|at| u64_at(body, at), |at| u32_at(body, at));
        Ok(match header.code {
            code::REGISTER_SBA => Self::RegisterSba { iova: long(0) },
            code::REGISTER_IEQ => Self::RegisterIeq { iova: long(0), len: long(8) },
            code::READ_GID => Self::ReadGid,
            code::ADD_VLAN => Self::AddVlan(long(0)),
            code::DEL_VLAN => Self::DelVlan(long(0)),
            code::QUERY_INFO => Self::QueryInfo,
            code::QUERY_REMOTE => Self::QueryRemote { gid: long(0), vlan: vlan_of(short(8), short(12))? },
            code::REGISTER_DMB => Self::RegisterDmb {
                iova: long(0),
                len: short(8),
                index: short(12),
                vlan: vlan_of(short(16), short(20))?,
                user: long(24),
            },
            code::UNREGISTER_DMB => Self::UnregisterDmb { token: long(0) },
            code::SIGNAL => {
                Self::Signal { gid: long(0), interrupts: short(8) != 0, code: short(12), info: long(16) }
            }
            code::UNREGISTER_SBA => Self::UnregisterSba,
            code::UNREGISTER_IEQ => Self::UnregisterIeq,
            unknown => return Err(Malformed::Code(unknown)),
        })
    }

    /// Takes the body of the answer apart, of which there may be more than is known.
    pub(super) fn parse_answer(&self, body: &[u8]) -> Result<Answer, Malformed> {
        let (have, want) = (HEADER_LEN + body.len(), self.answer_len());
        if have < want {
            return Err(Malformed::Length { have, want });
        }
        Ok(match self {
            Self::ReadGid => Answer::Gid(u64_at(body, 0)),
            Self::RegisterDmb { .. } => Answer::Token(u64_at(body, 0)),
            Self::QueryInfo => Answer::Info(Info::parse(body)),
            _ => Answer::Done,
        })
    }
}

impl Answer {
    /// What follows the header.
    pub(super) fn emit(&self) -> Vec<u8> {
        match self {
            Self::Done => Vec::new(),
            Self::Gid(word) | Self::Token(word) => words(&[*word]),
            Self::Info(info) => info.emit(),
        }
    }
}

impl Info {
    fn emit(&self) -> Vec<u8> {
        let mut body = words(&[
            pair(self.version, self.max_len),
            self.state,
            self.gid,
            self.sba,
            self.ieq,
            pair(self.ieq_len, 0),
            pair(self.dmbs_owned, self.dmbs_used),
            pair(self.vlan_required, self.vlan_count),
        ]);
        body.extend(self.vlans.iter().flat_map(|vlan| vlan.to_be_bytes()));
        body
    }

    fn parse(body: &[u8]) -> Self {
        let (long, short) = (|at| u64_at(body, at), |at| u32_at(body, at));
        Self {
            version: short(0),
            max_len: short(4),
            state: long(8),
            gid: long(16),
            sba: long(24),
            ieq: long(32),
            ieq_len: short(40),
            dmbs_owned: short(48),
            dmbs_used: short(52),
            vlan_required: short(56),
            vlan_count: short(60),
            vlans: std::array::from_fn(|at| u16_at(body, 64 + 2 * at)),
        }
    }
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// Two numbers of 32 bits, one after the other.
fn pair(first: u32, second: u32) -> u64 {
    u64::from(first) << 32 | u64::from(second)
}

/// Whether a VLAN is meant, and which.
fn vlan_word(vlan: Option<VlanId>) -> u64 {
    vlan.map_or(0, |vlan| pair(1, vlan.0.into()))
}

fn vlan_of(is_valid: u32, id: u32) -> Result<Option<VlanId>, Malformed> {
    match (is_valid, u16::try_from(id)) {
        (0, _) => Ok(None),
        (_, Ok(id)) => Ok(Some(VlanId(id))),
        (_, Err(_)) => Err(Malformed::Vlan(id)),
    }
}

/// The parts, one after the other.
fn emitted(parts: &[&[u8]]) -> [u8; HEADER_LEN] {
    let mut bytes = [0; HEADER_LEN];
    parts.iter().copied().flatten().zip(&mut bytes).for_each(|(from, to)| *to = *from);
    bytes
}

/// The number at `at`; zero past the end, which callers have ruled out.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u64::from_be_bytes(*chunk))
}

/// As [`u64_at`].
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u32::from_be_bytes(*chunk))
}

/// As [`u64_at`].
fn u16_at(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |chunk| u16::from_be_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Header and body in hexadecimal, blanks aside.
    fn golden(request: Request, header: &str, body: &str) {
        let (emitted, rest) = request.emit();
        assert_eq!(hex(&emitted.emit()), header.replace(' ', ""), "{request:?}");
        assert_eq!(hex(&rest), body.replace(' ', ""), "{request:?}");
        assert_eq!(Request::parse(RequestHeader::parse(emitted.emit()), &rest), Ok(request));
        assert_eq!(Request::len_of(request.code()), Some(8 + rest.len()));
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn requests_have_these_bytes() {
        const GID: u64 = 0x0123_4567_89ab_cdef;
        let vlan = Some(VlanId(0x123));
        golden(Request::RegisterSba { iova: 0x1000 }, "00000001 0000 0010", "00000000 00001000");
        golden(
            Request::RegisterIeq { iova: 0x1_0000_2000, len: 512 },
            "00000002 0000 0018",
            "00000001 00002000 00000000 00000200",
        );
        golden(Request::ReadGid, "00000003 0000 0008", "");
        golden(Request::AddVlan(0x1fff), "00000004 0000 0010", "00000000 00001fff");
        golden(Request::DelVlan(0x1fff), "00000005 0000 0010", "00000000 00001fff");
        golden(Request::QueryInfo, "00000008 0000 0008", "");
        let query = |vlan| Request::QueryRemote { gid: GID, vlan };
        golden(query(None), "00000009 0000 0018", "01234567 89abcdef 00000000 00000000");
        golden(query(vlan), "00000009 0000 0018", "01234567 89abcdef 00000001 00000123");
        let register = |vlan| Request::RegisterDmb { iova: 1 << 32, len: 65536, index: 32, vlan, user: GID };
        golden(
            register(None),
            "0000000a 0000 0028",
            "00000001 00000000 00010000 00000020 00000000 00000000 01234567 89abcdef",
        );
        golden(
            register(vlan),
            "0000000a 0000 0028",
            "00000001 00000000 00010000 00000020 00000001 00000123 01234567 89abcdef",
        );
        golden(Request::UnregisterDmb { token: 0xa1_0000_0000 }, "0000000b 0000 0010", "000000a1 00000000");
        golden(
            Request::Signal { gid: GID, interrupts: true, code: 0x80, info: 0x1122_3344_5566_7788 },
            "0000000e 0000 0020",
            "01234567 89abcdef 00000001 00000080 11223344 55667788",
        );
        golden(Request::UnregisterSba, "00000011 0000 0008", "");
        golden(Request::UnregisterIeq, "00000012 0000 0008", "");
    }

    #[test]
    fn answers_have_these_bytes() {
        let header = AnswerHeader { code: code::REGISTER_DMB, result: 0, len: 16 };
        assert_eq!(hex(&header.emit()), "0000000a00000010");
        assert_eq!(AnswerHeader::parse(header.emit()), header);
        let none = AnswerHeader { code: 3, result: NO_ANSWER, len: 8 };
        assert_eq!(hex(&none.emit()), "00000003ffff0008");
        assert_eq!(hex(&Answer::Token(0xa1_0000_0000).emit()), "000000a100000000");
        assert_eq!(
            Request::ReadGid.parse_answer(&[1, 2, 3, 4, 5, 6, 7, 8]),
            Ok(Answer::Gid(0x0102_0304_0506_0708))
        );
        let short = Malformed::Length { have: 15, want: 16 };
        assert_eq!(Request::ReadGid.parse_answer(&[0; 7]), Err(short));
    }

    #[test]
    fn info_lies_as_described() {
        let mut body = [0u8; MAX_ANSWER - HEADER_LEN];
        // Each byte is its offset from the header on.
        body.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at + HEADER_LEN) as u8);
        let Ok(Answer::Info(info)) = Request::QueryInfo.parse_answer(&body) else { panic!() };
        assert_eq!((info.version >> 24, info.max_len >> 24), (8, 12));
        assert_eq!([info.state, info.gid, info.sba, info.ieq].map(|word| word >> 56), [16, 24, 32, 40]);
        let shorts = [info.ieq_len, info.dmbs_owned, info.dmbs_used, info.vlan_required, info.vlan_count];
        assert_eq!(shorts.map(|word| word >> 24), [48, 56, 60, 64, 68]);
        assert_eq!((info.vlans[0] >> 8, info.vlans[63] & 0xff), (72, 199));
        body[44..48].fill(0);
        assert_eq!(Answer::Info(info).emit(), body, "all but what is reserved");
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let header = |code, len| RequestHeader { code, len };
        for unknown in [0, 6, 7, 0x0c, 0x0d, 0x0f, 0x10, 0x13, u32::MAX] {
            assert_eq!(Request::parse(header(unknown, 8), &[0; 32]), Err(Malformed::Code(unknown)));
        }
        for len in [0, 8, 15, 17, 40, u16::MAX] {
            assert!(Request::parse(header(code::REGISTER_SBA, len), &[0; 32]).is_err(), "{len}");
        }
        assert!(Request::parse(header(code::REGISTER_SBA, 16), &[0; 7]).is_err());
        let vlan = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0];
        assert_eq!(Request::parse(header(code::QUERY_REMOTE, 24), &vlan), Err(Malformed::Vlan(65536)));
    }

    proptest! {
        #[test]
        fn what_is_parsed_is_what_was_emitted(
            code in 0u32..0x14, len in 0u16..48, body in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            if let Ok(request) = Request::parse(RequestHeader { code, len }, &body) {
                let (header, emitted) = request.emit();
                prop_assert_eq!((header.code, header.len), (code, len));
                prop_assert_eq!(Request::parse(header, &emitted), Ok(request));
                let answer = request.parse_answer(&body);
                prop_assert_eq!(answer.is_ok(), body.len() + HEADER_LEN >= request.answer_len());
            }
        }
    }
}
