//! Random numbers that are looked up rather than drawn: each is a hash of (seed, purpose, number).

/// 2⁶⁴ divided by the golden ratio: consecutive multiples are spread evenly.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Stafford's variant 13 of MurmurHash3's finalizer, as used by SplitMix64.
#[inline]
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The random number of one purpose (`key`) and one event: a step of SplitMix64's sequence that starts at `key`.
#[inline]
pub(crate) fn draw(key: u64, number: u64) -> u64 {
    mix(key.wrapping_add(number.wrapping_add(1).wrapping_mul(GOLDEN)))
}

/// A number below `n` from the high half of a draw. `n` is at most 2³².
#[inline]
pub(crate) fn high_below(draw: u64, n: u64) -> u64 {
    ((draw >> 32) * n) >> 32
}

/// A number below `n` from the low half of a draw, independent of [`high_below`]. `n` is at most 2³².
#[inline]
pub(crate) fn low_below(draw: u64, n: u64) -> u64 {
    ((draw & 0xffff_ffff) * n) >> 32
}

/// A number below `n`, which may be large.
#[inline]
pub(crate) fn below(draw: u64, n: u64) -> u64 {
    ((u128::from(draw) * u128::from(n)) >> 64) as u64
}

/// Appends `length` letters.
pub(crate) fn letters(mut state: u64, length: usize, out: &mut Vec<u8>) {
    let end = out.len() + length;
    while out.len() < end {
        let bytes = state.to_le_bytes().map(|b| b'a' + ((u16::from(b) * 26) >> 8) as u8);
        out.extend_from_slice(&bytes[..bytes.len().min(end - out.len())]);
        state = mix(state.wrapping_add(GOLDEN));
    }
}

/// Appends `length` characters: letters, and about every 13th a space, but none at the ends.
pub(crate) fn words(mut state: u64, length: usize, out: &mut Vec<u8>) {
    for i in 0..length {
        if i % 8 == 0 {
            state = mix(state.wrapping_add(GOLDEN));
        }
        let byte = (state >> (i % 8 * 8)) as u8;
        let space = byte < 20 && i > 0 && i + 1 < length;
        out.push(if space { b' ' } else { b'a' + ((u16::from(byte) * 26) >> 8) as u8 });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_have_the_length_asked_for_and_no_spaces_at_the_ends() {
        for n in 0..1_000 {
            let (mut plain, mut spaced) = (Vec::new(), Vec::new());
            letters(draw(2, n), n as usize % 50, &mut plain);
            words(draw(3, n), n as usize % 50, &mut spaced);
            assert_eq!((plain.len(), spaced.len()), (n as usize % 50, n as usize % 50));
            assert!(plain.iter().all(u8::is_ascii_lowercase));
            assert_eq!(spaced.trim_ascii().len(), spaced.len());
        }
    }

    #[test]
    fn numbers_stay_below_their_bound_and_reach_it() {
        let draws: Vec<u64> = (0..1_000).map(|n| draw(4, n)).collect();
        for pick in [high_below, low_below, below] {
            let found: std::collections::BTreeSet<u64> = draws.iter().map(|draw| pick(*draw, 7)).collect();
            assert_eq!(found, (0..7).collect());
        }
    }
}
