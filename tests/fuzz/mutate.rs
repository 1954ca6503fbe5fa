//! Seeded mutations of bytes: the same for the same number.

/// A SplitMix64 generator.
#[derive(Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    /// A number below `below`.
    pub(crate) fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % below.max(1) as u64) as usize
    }
}

/// One to four times: a byte set, inserted or removed, or the end doubled.
pub(crate) fn mutated(seed: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=dice.roll(4) {
        let (at, byte) = (dice.roll(bytes.len()), dice.roll(256) as u8);
        match dice.roll(4) {
            0 => bytes.insert(at, byte),
            1 if !bytes.is_empty() => drop(bytes.remove(at)),
            2 => bytes.extend_from_within(at..),
            _ if !bytes.is_empty() => bytes[at] = byte,
            _ => {}
        }
        bytes.truncate(4096);
    }
    bytes
}
