//! Small numbers in 64-bit words, for snapshots. Reading is total: what cannot be is `None`.

/// Two numbers in a word.
pub(crate) fn join(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

/// The two numbers of a word.
pub(crate) fn split(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

/// A truth value, which is 0 or 1.
pub(crate) fn truth(byte: u8) -> Option<bool> {
    match byte {
        0 => Some(false),
        1 => Some(true),
        _ => None,
    }
}

/// Takes the next words off.
pub(crate) fn take<const N: usize>(words: &mut &[u64]) -> Option<[u64; N]> {
    let (first, rest) = words.split_first_chunk()?;
    *words = rest;
    Some(*first)
}

/// Puts parts one after the other, which are of this length together.
pub(crate) fn concat<const N: usize>(parts: &[&[u64]]) -> [u64; N] {
    debug_assert_eq!(parts.iter().map(|part| part.len()).sum::<usize>(), N);
    let mut words = [0; N];
    let all = parts.iter().copied().flatten();
    words.iter_mut().zip(all).for_each(|(word, value)| *word = *value);
    words
}
