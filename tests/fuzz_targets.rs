//! What the fuzz targets do, without libFuzzer: with their seeds, and with mutations of these.
#![cfg(feature = "stack")]

#[path = "../fuzz/src/lib.rs"]
#[allow(unreachable_pub)]
mod targets;

#[path = "common/random.rs"]
mod random;

use std::{fs, path::Path};

use random::Random;
use targets::{TARGETS, Target};

/// Mutations for each seed.
const ROUNDS: u64 = 3000;

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(name);
    let mut files: Vec<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{name} has no seeds");
    files.into_iter().map(|file| fs::read(file).unwrap()).collect()
}

/// Bytes and pieces are changed, doubled, and taken away, as libFuzzer does.
fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    const TELLING: [u8; 10] = [0, 1, 2, 8, 9, 40, 41, 0x7f, 0x80, 0xff];
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            bytes.push(0);
        }
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] = random.next() as u8,
            1 => bytes[at] = TELLING[random.below(TELLING.len())],
            2 => bytes[at] ^= 1 << random.below(8),
            3 => bytes.truncate(at),
            4 => bytes.insert(at, random.next() as u8),
            _ => {
                let piece = bytes[at..(at + 1 + random.below(40)).min(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
}

fn play(target: Target, seed: &[u8], random: &mut Random) {
    target(seed);
    for len in 0..seed.len() {
        target(&seed[..len]);
    }
    for _ in 0..ROUNDS {
        let mut bytes = seed.to_vec();
        mutate(&mut bytes, random);
        target(&bytes);
    }
}

#[test]
fn seeds_and_their_mutations_do_no_harm() {
    for (name, target) in TARGETS {
        let mut random = Random::new(0);
        for seed in seeds(name) {
            play(*target, &seed, &mut random);
        }
    }
}
