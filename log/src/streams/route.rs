//! Which shard a key belongs to: shards own even, contiguous ranges of the 128-bit MD5 hash space, as in Kinesis.

use md5::{Digest, Md5};

/// The shard, of `shards`, whose range holds the hash of `key`. The last one also owns what the division leaves over.
pub(crate) fn shard_of(key: &[u8], shards: u32) -> u32 {
    let hash = u128::from_be_bytes(Md5::digest(key).into());
    match width(shards) {
        None => 0,
        Some(width) => (hash / width).min(u128::from(shards) - 1) as u32,
    }
}

/// How many hashes a shard owns, ⌊2¹²⁸ / shards⌋; `None` for all of them, a number that does not fit.
fn width(shards: u32) -> Option<u128> {
    let shards = u128::from(shards);
    // u128::MAX is one short of 2¹²⁸, which matters when that one completes the division.
    (shards > 1).then(|| u128::MAX / shards + u128::from(u128::MAX % shards == shards - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_kinesis() {
        assert_eq!(width(1), None);
        assert_eq!(width(2), Some(1 << 127));
        assert_eq!(width(3), Some(113_427_455_640_312_821_154_458_202_477_256_070_485));
        assert_eq!(width(4096), Some(1 << 116));
    }

    #[test]
    fn keys_go_where_their_hash_is() {
        // MD5("") = d41d8cd9…, MD5("a") = 0cc175b9…, MD5("abc") = 90015098…
        for (key, of_16) in [("", 0xd), ("a", 0x0), ("abc", 0x9)] {
            assert_eq!(shard_of(key.as_bytes(), 16), of_16, "{key}");
            assert_eq!(shard_of(key.as_bytes(), 1), 0);
        }
    }

    #[test]
    fn every_shard_gets_its_share() {
        for shards in [2, 3, 7, 64] {
            let mut counts = vec![0; shards as usize];
            (0..10_000).for_each(|i: i32| counts[shard_of(&i.to_be_bytes(), shards) as usize] += 1);
            let share = 10_000 / shards as usize;
            assert!(counts.iter().all(|&count| count > share / 2 && count < share * 2), "{counts:?}");
        }
    }
}
