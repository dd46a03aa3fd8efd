//! Which shard a key belongs to: the shards of a stream, and the ranges of hash keys that they own.
//!
//! A *hash key* is the MD5 hash of a record's key, as a number of 128 bits (Kinesis' term). The *open* shards of a stream
//! own ranges that together are all hash keys, and take appends. A split or a merge *seals* one or two open shards, the
//! *parents*, and opens *children* that own the same hash keys. A sealed shard takes no more appends. Its records stay until
//! retention removes them, and a reader finishes the parents of a shard before it begins the shard: so it meets the records
//! of each key in the order in which they were appended.
//!
//! ```text
//!          split 0          merge 2, 1
//!   0 ─┬──────────▶ 2 ─┬──────────────▶ 4      open: 3, 4
//!      └──────────▶ 3  │                       sealed: 0, 1, 2
//!   1 ─────────────────┘
//! ```
//!
//! The map is a value: a split or a merge gives another map. Nothing here writes a file or stops an append.

use coulee_model::{SequenceNumber, ShardId};
use md5::{Digest, Md5};

/// A range of hash keys, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashKeyRange {
    /// The smallest hash key of the range.
    pub first: u128,
    /// The largest hash key of the range.
    pub last: u128,
}

impl HashKeyRange {
    /// Whether a hash key is in the range.
    pub fn contains(&self, hash_key: u128) -> bool {
        (self.first..=self.last).contains(&hash_key)
    }
}

/// A shard in its stream's map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedShard {
    /// Its number: that of its place in the map.
    pub id: ShardId,
    /// The hash keys that it owns, or owned when it was sealed.
    pub range: HashKeyRange,
    /// The shards whose hash keys it took over: none, the one that was split, or the two that were merged.
    pub parents: Vec<ShardId>,
    /// The sequence number after the last record it can ever have, once it takes no more appends.
    pub sealed: Option<SequenceNumber>,
}

/// Why a map cannot be changed so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShardMapError {
    /// The shard does not exist, or is sealed.
    #[error("shard {shard} is not open: only an open shard can be split or merged")]
    NotOpen {
        /// What was asked for.
        shard: ShardId,
    },
    /// A split would leave one of the children without a hash key.
    #[error("shard {shard} cannot be split at hash key {at}: expected one from {} to {}", range.first.saturating_add(1), range.last)]
    NotInside {
        /// What was to be split.
        shard: ShardId,
        /// Where the second child was to begin.
        at: u128,
        /// What the shard owns.
        range: HashKeyRange,
    },
    /// The hash keys of the shards are not one range.
    #[error(
        "shards {left} and {right} cannot be merged: the hash keys of the first must end where those of the second begin"
    )]
    NotAdjacent {
        /// The first of the two.
        left: ShardId,
        /// The second.
        right: ShardId,
    },
}

/// The shards of a stream and the hash keys that they own.
///
/// # Guarantees
/// Every hash key is owned by exactly one open shard. Parents have smaller numbers than their children, and are sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardMap {
    /// By number.
    shards: Vec<MappedShard>,
    /// The open shards by the hash keys they own, with the largest of each.
    open: Vec<(u128, ShardId)>,
}

impl ShardMap {
    /// `count` open shards, which must be at least one, that own about as many hash keys each: as Kinesis divides them, with
    /// what the division leaves over in the last.
    pub fn even(count: u32) -> Self {
        assert!(count > 0, "a stream has at least one shard");
        let width = width(count);
        let shard = |id: u32| {
            let first = width.map_or(0, |width| width * u128::from(id));
            let last = if id + 1 == count { u128::MAX } else { first + (width.unwrap_or(0) - 1) };
            MappedShard { id: ShardId(id), range: HashKeyRange { first, last }, parents: Vec::new(), sealed: None }
        };
        Self::of((0..count).map(shard).collect())
    }

    /// A map as it was stored.
    ///
    /// # Errors
    /// What the guarantees of a map deny.
    pub(crate) fn stored(shards: Vec<MappedShard>) -> Result<Self, String> {
        for (shard, place) in shards.iter().zip(0..) {
            if shard.id.0 != place {
                return Err(format!("shard {} is in the place of shard {place}", shard.id));
            }
            for parent in &shard.parents {
                if *parent >= shard.id || shards[parent.0 as usize].sealed.is_none() {
                    return Err(format!(
                        "shard {} has the parent {parent}, which is not a sealed shard before it",
                        shard.id
                    ));
                }
            }
        }
        let map = Self::of(shards);
        let mut next = Some(0);
        for shard in map.open() {
            let HashKeyRange { first, last } = shard.range;
            if next != Some(first) || last < first {
                return Err(format!("the hash keys of open shard {} do not begin where those before it end", shard.id));
            }
            next = last.checked_add(1);
        }
        if next.is_some() { Err("the open shards do not own all hash keys".to_owned()) } else { Ok(map) }
    }

    fn of(shards: Vec<MappedShard>) -> Self {
        let is_open = |shard: &&MappedShard| shard.sealed.is_none();
        let mut open: Vec<_> = shards.iter().filter(is_open).map(|shard| (shard.range.last, shard.id)).collect();
        open.sort_unstable();
        ShardMap { shards, open }
    }

    /// All shards, sealed ones too, by number.
    pub fn shards(&self) -> &[MappedShard] {
        &self.shards
    }

    /// The shards that take appends, by the hash keys that they own.
    pub fn open(&self) -> impl ExactSizeIterator<Item = &MappedShard> {
        self.open.iter().map(|(_, id)| &self.shards[id.0 as usize])
    }

    /// The shards that took over the hash keys of a sealed shard.
    pub fn children(&self, shard: ShardId) -> impl Iterator<Item = ShardId> + '_ {
        self.shards.iter().filter(move |other| other.parents.contains(&shard)).map(|other| other.id)
    }

    /// The open shard that the record with this key is appended to.
    pub fn shard_of(&self, key: &[u8]) -> ShardId {
        self.owner_of(u128::from_be_bytes(Md5::digest(key).into()))
    }

    /// The open shard that owns a hash key.
    pub fn owner_of(&self, hash_key: u128) -> ShardId {
        self.open[self.open.partition_point(|(last, _)| *last < hash_key)].1
    }

    /// The shards that a reader may read now: not finished, and all of whose parents it has finished.
    pub fn readable(&self, is_finished: impl Fn(ShardId) -> bool) -> impl Iterator<Item = &MappedShard> {
        self.shards
            .iter()
            .filter(move |shard| !is_finished(shard.id) && shard.parents.iter().all(|parent| is_finished(*parent)))
    }

    /// Seals an open shard, which ends before the record `end`, and opens two children: the first owns its hash keys before
    /// `at`, the second the others.
    ///
    /// # Errors
    /// [`ShardMapError::NotOpen`], [`ShardMapError::NotInside`].
    pub fn split(&self, shard: ShardId, at: u128, end: SequenceNumber) -> Result<ShardMap, ShardMapError> {
        let range = self.open_shard(shard)?.range;
        if !range.contains(at) || at == range.first {
            return Err(ShardMapError::NotInside { shard, at, range });
        }
        let halves = [HashKeyRange { first: range.first, last: at - 1 }, HashKeyRange { first: at, last: range.last }];
        Ok(self.replaced(&[(shard, end)], &halves))
    }

    /// Seals two open shards, of which the hash keys of `left` end where those of `right` begin, and opens a child that owns
    /// the hash keys of both. `ends` are the sequence numbers after their last records.
    ///
    /// # Errors
    /// [`ShardMapError::NotOpen`], [`ShardMapError::NotAdjacent`].
    pub fn merge(&self, left: ShardId, right: ShardId, ends: [SequenceNumber; 2]) -> Result<ShardMap, ShardMapError> {
        let (first, second) = (self.open_shard(left)?.range, self.open_shard(right)?.range);
        if first.last.checked_add(1) != Some(second.first) {
            return Err(ShardMapError::NotAdjacent { left, right });
        }
        let union = HashKeyRange { first: first.first, last: second.last };
        Ok(self.replaced(&[(left, ends[0]), (right, ends[1])], &[union]))
    }

    fn open_shard(&self, shard: ShardId) -> Result<&MappedShard, ShardMapError> {
        let found = self.shards.get(shard.0 as usize).filter(|shard| shard.sealed.is_none());
        found.ok_or(ShardMapError::NotOpen { shard })
    }

    fn replaced(&self, sealed: &[(ShardId, SequenceNumber)], ranges: &[HashKeyRange]) -> ShardMap {
        let mut shards = self.shards.clone();
        for (shard, end) in sealed {
            shards[shard.0 as usize].sealed = Some(*end);
        }
        let parents: Vec<ShardId> = sealed.iter().map(|(shard, _)| *shard).collect();
        for range in ranges {
            let id = ShardId(shards.len() as u32);
            shards.push(MappedShard { id, range: *range, parents: parents.clone(), sealed: None });
        }
        Self::of(shards)
    }
}

/// How many hash keys each of `shards` owns, ⌊2¹²⁸ / shards⌋; `None` for all of them, a number that does not fit.
fn width(shards: u32) -> Option<u128> {
    let shards = u128::from(shards);
    // u128::MAX is one short of 2¹²⁸, which matters when that one completes the division.
    (shards > 1).then(|| u128::MAX / shards + u128::from(u128::MAX % shards == shards - 1))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    const MIDDLE: u128 = 1 << 127;

    fn end(sequence: u64) -> SequenceNumber {
        SequenceNumber(sequence)
    }

    fn open(map: &ShardMap) -> Vec<u32> {
        map.open().map(|shard| shard.id.0).collect()
    }

    #[test]
    fn even_ranges_are_those_of_kinesis() {
        let ranges = |count| ShardMap::even(count).open().map(|s| (s.range.first, s.range.last)).collect::<Vec<_>>();
        assert_eq!(ranges(1), [(0, u128::MAX)]);
        assert_eq!(ranges(2), [(0, MIDDLE - 1), (MIDDLE, u128::MAX)]);
        // ⌊2¹²⁸ / 3⌋; the last shard has one hash key more.
        let third = 113_427_455_640_312_821_154_458_202_477_256_070_485;
        assert_eq!(ranges(3), [(0, third - 1), (third, 2 * third - 1), (2 * third, u128::MAX)]);
        assert_eq!(ranges(4096)[1], (1 << 116, (2 << 116) - 1));
        for count in [1, 2, 3, 7, 64, 4096] {
            assert_eq!(ShardMap::stored(ShardMap::even(count).shards).as_ref(), Ok(&ShardMap::even(count)));
        }
    }

    #[test]
    fn keys_go_where_their_hash_is() {
        // MD5("") = d41d8cd9…, MD5("a") = 0cc175b9…, MD5("abc") = 90015098…
        for (key, of_16) in [("", 0xd), ("a", 0x0), ("abc", 0x9)] {
            assert_eq!(ShardMap::even(16).shard_of(key.as_bytes()), ShardId(of_16), "{key}");
            assert_eq!(ShardMap::even(1).shard_of(key.as_bytes()), ShardId(0));
        }
        for count in [2, 3, 7, 64] {
            let (map, mut counts) = (ShardMap::even(count), vec![0; count as usize]);
            (0..10_000).for_each(|i: i32| counts[map.shard_of(&i.to_be_bytes()).0 as usize] += 1);
            let share = 10_000 / count as usize;
            assert!(counts.iter().all(|&count| count > share / 2 && count < share * 2), "{counts:?}");
        }
    }

    #[test]
    fn the_picture_is_true() {
        let map = ShardMap::even(2).split(ShardId(0), 1 << 126, end(10)).expect("split");
        assert_eq!((open(&map), map.shards()[0].sealed), (vec![2, 3, 1], Some(end(10))));
        assert_eq!((map.owner_of((1 << 126) - 1), map.owner_of(1 << 126)), (ShardId(2), ShardId(3)));
        let error = map.merge(ShardId(2), ShardId(1), [end(1), end(2)]).expect_err("3 is between them");
        assert!(error.to_string().starts_with("shards 2 and 1 cannot be merged"), "{error}");
        let merged = map.merge(ShardId(3), ShardId(1), [end(1), end(2)]).expect("neighbours");
        assert_eq!((open(&merged), &merged.shards()[4].parents[..]), (vec![2, 4], &[ShardId(3), ShardId(1)][..]));
        assert_eq!(merged.children(ShardId(0)).collect::<Vec<_>>(), [ShardId(2), ShardId(3)]);
        // 0 and 1 have no parents; 4 waits for 3 and 1; 2 and 3 for 0.
        let readable = |finished: &[u32]| {
            let finished = finished.to_vec();
            merged.readable(move |shard| finished.contains(&shard.0)).map(|s| s.id.0).collect::<Vec<_>>()
        };
        assert_eq!((readable(&[]), readable(&[0]), readable(&[0, 1])), (vec![0, 1], vec![1, 2, 3], vec![2, 3]));
        assert_eq!(readable(&[0, 1, 3]), [2, 4]);
    }

    #[test]
    fn what_cannot_be_split_is_said() {
        let map = ShardMap::even(2);
        let error = map.split(ShardId(0), MIDDLE, end(0)).expect_err("that is shard 1's");
        assert!(error.to_string().contains(&format!("expected one from 1 to {}", MIDDLE - 1)), "{error}");
        assert!(map.split(ShardId(0), 0, end(0)).is_err(), "the first child would own nothing");
        assert!(map.split(ShardId(0), 1, end(0)).is_ok() && map.split(ShardId(0), MIDDLE - 1, end(0)).is_ok());
        assert!(map.split(ShardId(1), u128::MAX, end(0)).is_ok());
        let split = map.split(ShardId(0), 1, end(0)).expect("split");
        assert_eq!(split.split(ShardId(0), 1, end(0)), Err(ShardMapError::NotOpen { shard: ShardId(0) }), "sealed");
        assert_eq!(split.split(ShardId(9), 1, end(0)), Err(ShardMapError::NotOpen { shard: ShardId(9) }), "unknown");
        assert!(map.merge(ShardId(1), ShardId(0), [end(0); 2]).is_err(), "the wrong way round");
        assert!(map.merge(ShardId(1), ShardId(1), [end(0); 2]).is_err());
    }

    #[test]
    fn stored_maps_that_break_the_guarantees_are_refused() {
        let good = ShardMap::even(2).split(ShardId(0), 5, end(3)).expect("split").shards;
        let broken = |change: &dyn Fn(&mut Vec<MappedShard>)| {
            let mut shards = good.clone();
            change(&mut shards);
            ShardMap::stored(shards).expect_err("broken")
        };
        assert!(broken(&|shards| shards[0].sealed = None).contains("parent 0, which is not a sealed shard"));
        assert!(broken(&|shards| shards[2].parents = vec![ShardId(3)]).contains("not a sealed shard before it"));
        assert!(broken(&|shards| shards[3].range.first = 6).contains("open shard 3 do not begin where"));
        assert!(broken(&|shards| shards[3].range.first = 4).contains("open shard 3 do not begin where"));
        assert!(broken(&|shards| shards[1].range.last = 1 << 127).contains("do not own all hash keys"));
        assert!(broken(&|shards| shards.swap(2, 3)).contains("in the place of shard 2"));
        assert!(broken(&Vec::clear).contains("do not own all hash keys"));
    }

    /// Random splits and merges with appends between them, against a naive search and a naive reader.
    #[test]
    fn every_key_has_one_owner_and_is_read_in_order_after_any_splits_and_merges() {
        for seed in 0..50u64 {
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut below = |limit: usize| {
                random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                (random >> 33) as usize % limit
            };
            let mut map = ShardMap::even(1 + below(4) as u32);
            // The records of each shard: key and a number that counts all appends.
            let mut records: BTreeMap<ShardId, Vec<(usize, usize)>> = BTreeMap::new();
            for number in 0..300 {
                let key = below(40);
                records.entry(map.shard_of(&key.to_be_bytes())).or_default().push((key, number));
                if below(8) > 0 {
                    continue;
                }
                let length = |shard: ShardId| end(records.get(&shard).map_or(0, Vec::len) as u64);
                let open: Vec<MappedShard> = map.open().cloned().collect();
                let one = &open[below(open.len())];
                map = match open.iter().find(|other| one.range.last.checked_add(1) == Some(other.range.first)) {
                    Some(next) if below(2) == 0 => map.merge(one.id, next.id, [length(one.id), length(next.id)]),
                    _ => {
                        let middle = one.range.first + (one.range.last - one.range.first) / 2 + 1;
                        map.split(one.id, middle, length(one.id))
                    }
                }
                .expect("it is allowed");
                assert_eq!(ShardMap::stored(map.shards.clone()).as_ref(), Ok(&map), "seed {seed}");
                for hash_key in (0..200).map(|_| (below(1 << 31) as u128) << 97).chain([0, u128::MAX]) {
                    let owners: Vec<_> = map.open().filter(|shard| shard.range.contains(hash_key)).collect();
                    assert_eq!((owners.len(), owners[0].id), (1, map.owner_of(hash_key)), "seed {seed}");
                }
            }
            let (mut finished, mut last, mut count) = (BTreeSet::new(), BTreeMap::new(), 0);
            loop {
                let readable: Vec<ShardId> = map.readable(|shard| finished.contains(&shard)).map(|s| s.id).collect();
                if readable.is_empty() {
                    break;
                }
                let shard = readable[below(readable.len())];
                for (key, number) in records.remove(&shard).unwrap_or_default() {
                    assert!(last.insert(key, number).is_none_or(|before| before < number), "seed {seed}, key {key}");
                    count += 1;
                }
                finished.insert(shard);
            }
            assert_eq!((finished.len(), count), (map.shards().len(), 300), "seed {seed}: every shard is read");
        }
    }
}
