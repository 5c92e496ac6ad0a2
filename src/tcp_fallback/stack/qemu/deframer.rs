//! Takes frames off a stream in which each follows its length. No I/O.

/// The longest frame that QEMU sends (`NET_BUFSIZE`).
pub(super) const MAX_FRAME: usize = 4096 + 65536;

const PREFIX: usize = 4;

/// A length that no frame has: the stream is not what it should be, or out of step.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a frame of {0} bytes")]
pub(super) struct FrameTooLong(u32);

/// The bytes of a stream of frames.
#[derive(Debug, Default)]
pub(super) struct Deframer {
    bytes: Vec<u8>,
    /// How many of them were taken.
    taken: usize,
}

impl Deframer {
    /// Adds bytes of the stream.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.drain(..self.taken);
        self.taken = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// The next frame, if it is there as a whole.
    ///
    /// # Errors
    /// If it is announced with a length that no frame has.
    pub(super) fn next_frame(&mut self) -> Result<Option<Vec<u8>>, FrameTooLong> {
        let Some((prefix, rest)) = self.bytes.get(self.taken..).and_then(<[u8]>::split_first_chunk) else {
            return Ok(None);
        };
        let announced = u32::from_be_bytes(*prefix);
        let len = usize::try_from(announced).ok().filter(|len| *len <= MAX_FRAME);
        let len = len.ok_or(FrameTooLong(announced))?;
        let frame = rest.get(..len).map(<[u8]>::to_vec);
        if frame.is_some() {
            self.taken += PREFIX + len;
        }
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn framed(frames: &[Vec<u8>]) -> Vec<u8> {
        frames.iter().flat_map(|frame| [&(frame.len() as u32).to_be_bytes(), &frame[..]].concat()).collect()
    }

    #[test]
    fn length_is_big_endian() {
        let mut deframer = Deframer::default();
        deframer.push(&[0, 0, 0, 3, 7, 8]);
        assert_eq!(deframer.next_frame(), Ok(None));
        deframer.push(&[9, 0]);
        assert_eq!(deframer.next_frame(), Ok(Some(vec![7, 8, 9])));
        assert_eq!(deframer.next_frame(), Ok(None));
    }

    #[test]
    fn length_above_all_is_refused() {
        for len in [MAX_FRAME as u32 + 1, u32::MAX] {
            let mut deframer = Deframer::default();
            deframer.push(&len.to_be_bytes());
            assert_eq!(deframer.next_frame(), Err(FrameTooLong(len)));
        }
        let mut deframer = Deframer::default();
        deframer.push(&(MAX_FRAME as u32).to_be_bytes());
        assert_eq!(deframer.next_frame(), Ok(None));
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in(
            frames in vec(vec(any::<u8>(), 0..100), 0..10),
            steps in vec(1..50_usize, 1..10),
        ) {
            let (mut deframer, mut got) = (Deframer::default(), Vec::new());
            let (stream, mut steps) = (framed(&frames), steps.into_iter().cycle());
            let mut rest = &stream[..];
            while !rest.is_empty() {
                let (now, later) = rest.split_at(steps.next().unwrap().min(rest.len()));
                deframer.push(now);
                rest = later;
                while let Some(frame) = deframer.next_frame().unwrap() {
                    got.push(frame);
                }
            }
            prop_assert_eq!(got, frames);
        }

        #[test]
        fn any_bytes_give_an_answer(pieces in vec(vec(any::<u8>(), 0..50), 0..20)) {
            let mut deframer = Deframer::default();
            for piece in pieces {
                deframer.push(&piece);
                while let Ok(Some(_)) = deframer.next_frame() {}
            }
        }
    }
}
