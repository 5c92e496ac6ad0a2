//! Bytes to be sent, and looked at where they arrive.

use std::io::{Read, Write};

use anyhow::ensure;

/// After so many bytes they begin anew: no size of a ring, nor a multiple of one.
const PERIOD: usize = 1_000_003;

/// Odd, so that no piece ends where a ring does.
const PIECE: usize = 61_441;

/// Bytes without a short period: what is lost, doubled or moved shows.
pub(crate) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let byte = |i: u64| ((i + seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8;
    let period: Vec<u8> = (0..len.min(PERIOD) as u64).map(byte).collect();
    period.iter().copied().cycle().take(len).collect()
}

/// The pieces of a pattern that is too long to be had as a whole.
fn pieces(seed: u64, len: usize) -> impl Iterator<Item = Vec<u8>> {
    let period = pattern(seed, len.min(PERIOD) + PIECE);
    (0..len).step_by(PIECE).map(move |at| {
        let begin = at % PERIOD.min(len);
        period[begin..begin + PIECE.min(len - at)].to_vec()
    })
}

pub(crate) fn send(to: &mut (impl Write + ?Sized), seed: u64, len: usize) -> anyhow::Result<()> {
    Ok(pieces(seed, len).try_for_each(|piece| to.write_all(&piece))?)
}

/// Takes as many bytes, which have to be those that were sent.
pub(crate) fn expect(from: &mut (impl Read + ?Sized), seed: u64, len: usize) -> anyhow::Result<()> {
    let mut at = 0;
    for piece in pieces(seed, len) {
        let mut got = vec![0; piece.len()];
        from.read_exact(&mut got)?;
        compare(&got, &piece, at)?;
        at += piece.len();
    }
    Ok(())
}

pub(crate) fn compare(got: &[u8], sent: &[u8], at: usize) -> anyhow::Result<()> {
    let wrong = got.iter().zip(sent).position(|(got, sent)| got != sent);
    ensure!(got.len() == sent.len(), "{} bytes of {}", got.len(), sent.len());
    ensure!(wrong.is_none(), "byte {} is not what was sent", at + wrong.unwrap_or(0));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_the_pattern() {
        for len in [0, 1, PIECE, PIECE + 1, PERIOD - 1, PERIOD, PERIOD + 1, 3 * PERIOD + 5] {
            let joined: Vec<u8> = pieces(7, len).flatten().collect();
            assert_eq!(joined.len(), len);
            assert!(joined == pattern(7, len), "{len}");
            let mut sent = Vec::new();
            send(&mut sent, 7, len).unwrap();
            expect(&mut &sent[..], 7, len).unwrap();
        }
    }

    #[test]
    fn what_is_wrong_shows() {
        let mut sent = pattern(1, 3 * PERIOD);
        sent[2 * PERIOD + 9] ^= 1;
        let error = expect(&mut &sent[..], 1, 3 * PERIOD).unwrap_err();
        assert_eq!(error.to_string(), format!("byte {} is not what was sent", 2 * PERIOD + 9));
    }
}
