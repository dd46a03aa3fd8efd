//! The contract of the state store, as operators rely on it: a random history of commits, reads and reopenings, beside a map that does the same naively.
//!
//! A history draws its keys from few bytes, so that keys are overwritten, deleted and found again, and ranges begin and end at, between and behind them.
//! Whoever puts another engine behind [`JobStore`] runs the same histories.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use coulee_model::{KeyGroup, ManualClock};

use super::*;
use crate::{EXPIRY_BYTES, with_expiry};

const OPERATORS: [OperatorId; 2] = [OperatorId(3), OperatorId(4)];
/// Two plain tables and two whose entries expire.
const TABLES: [TableId; 4] = [TableId(0), TableId(1), TableId(TableId::EXPIRES), TableId(TableId::EXPIRES | 1)];
const GROUPS: [u16; 4] = [0, 1, 2, 255];
const STEPS: u32 = 120;

/// SplitMix64: the same history for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// Up to three bytes of those at which an order of bytes goes wrong.
    fn rest(&mut self) -> Vec<u8> {
        (0..self.below(4)).map(|_| self.one_of(&[0, 1, b'a', 0xfe, 0xff])).collect()
    }
}

/// What an entry is filed under: operator, table, group, rest.
type ModelKey = (OperatorId, TableId, u16, Vec<u8>);

/// What is committed, naively.
#[derive(Default)]
struct Model {
    entries: BTreeMap<ModelKey, Bytes>,
    last: Option<CheckpointRecord>,
}

impl Model {
    fn is_live(key: &ModelKey, value: &[u8], now: i64) -> bool {
        let expiry = || i64::from_be_bytes(value[..EXPIRY_BYTES].try_into().expect("a value that expires has a head"));
        !key.1.expires() || expiry() == i64::MAX || expiry() > now
    }

    fn get(&self, key: &ModelKey, now: i64) -> Option<Bytes> {
        self.entries.get(key).filter(|value| Self::is_live(key, value, now)).cloned()
    }

    /// The live entries of a table, by group and rest.
    fn scan(
        &self,
        (operator, table): (OperatorId, TableId),
        groups: &Range<u16>,
        within: (&[u8], Option<&[u8]>),
        now: i64,
    ) -> Vec<(u16, Vec<u8>, Bytes)> {
        let wanted = self.entries.iter().filter(|(key, value)| {
            (key.0, key.1) == (operator, table)
                && groups.contains(&key.2)
                && key.3.as_slice() >= within.0
                && within.1.is_none_or(|end| key.3.as_slice() < end)
                && Self::is_live(key, value, now)
        });
        wanted.map(|(key, value)| (key.2, key.3.clone(), value.clone())).collect()
    }
}

fn stored((operator, table, group, rest): &ModelKey) -> StateKey {
    StateKey::new(*operator, *table, KeyGroup(*group), rest)
}

/// The group and the rest of an entry's key, and its value.
fn parts(entry: Result<Entry>) -> (u16, Vec<u8>, Bytes) {
    let (key, value) = entry.expect("the store can be read");
    (u16::from_be_bytes([key[0], key[1]]), key[2..].to_vec(), value)
}

struct History {
    random: Random,
    clock: Arc<ManualClock>,
    now: i64,
    dir: tempfile::TempDir,
    store: Option<JobStore>,
    model: Model,
    next: u64,
}

impl History {
    fn new(seed: u64) -> Self {
        let (clock, dir) = (Arc::new(ManualClock::new(Timestamp(0))), tempfile::tempdir().expect("a folder"));
        let mut history =
            History { random: Random(seed), clock, now: 0, dir, store: None, model: Model::default(), next: 1 };
        history.reopen();
        history
    }

    fn store(&self) -> &JobStore {
        self.store.as_ref().expect("it is open")
    }

    fn reopen(&mut self) {
        // A store has one owner: the one before is closed first.
        self.store = None;
        let resources = StoreResources::default().with_clock(self.clock.clone());
        let opened = JobStore::open_with(self.dir.path(), &StoreSettings::default(), &resources);
        self.store = Some(opened.expect("a store that was closed opens"));
    }

    fn key(&mut self) -> ModelKey {
        let random = &mut self.random;
        (random.one_of(&OPERATORS), random.one_of(&TABLES), random.one_of(&GROUPS), random.rest())
    }

    fn value(&mut self, key: &ModelKey) -> Bytes {
        // Above and below the size from which on a value lies apart from its key.
        let length = self.random.one_of(&[0, 1, 40, 5_000]);
        let body = vec![self.random.below(256) as u8; length];
        let at = match self.random.below(3) {
            0 => Timestamp::MAX,
            _ => Timestamp(self.now + self.random.below(50) as i64),
        };
        if key.1.expires() { with_expiry(at, &body) } else { body.into() }
    }

    /// Changes of one subtask, applied to `entries` as well.
    fn changes(&mut self, entries: &mut BTreeMap<ModelKey, Bytes>) -> Changes {
        let mut changes = Changes::default();
        for _ in 0..self.random.below(12) {
            let key = self.key();
            match self.random.below(8) {
                0 | 1 => {
                    changes.delete(stored(&key));
                    entries.remove(&key);
                }
                2 => {
                    let other = self.key();
                    let (from, to) = if stored(&key) <= stored(&other) { (key, other) } else { (other, key) };
                    changes.delete_range(stored(&from), stored(&to));
                    entries.retain(|key, _| stored(key) < stored(&from) || stored(key) >= stored(&to));
                }
                3 if self.random.below(4) == 0 => {
                    changes.append(Changes::forget_operator(key.0));
                    entries.retain(|other, _| other.0 != key.0);
                }
                _ => {
                    let value = self.value(&key);
                    changes.put(stored(&key), value.clone());
                    entries.insert(key, value);
                }
            }
        }
        changes
    }

    fn commit(&mut self) {
        let mut entries = self.model.entries.clone();
        let all: Vec<Changes> = (0..=self.random.below(3)).map(|_| self.changes(&mut entries)).collect();
        let record = CheckpointRecord { id: CheckpointId(self.next), at: Timestamp(self.now), job: "state".into() };
        self.store().commit(record.clone(), all).expect("a commit");
        self.next += 1 + self.random.below(3);
        self.model = Model { entries, last: Some(record) };
    }

    /// A commit that is refused changes nothing.
    fn refused_commit(&mut self) {
        let mut entries = self.model.entries.clone();
        let mut changes = self.changes(&mut entries);
        let is_short = self.model.last.is_none() || self.random.below(2) == 0;
        let id = match (&self.model.last, is_short) {
            (Some(last), false) => last.id,
            _ => CheckpointId(self.next),
        };
        if is_short {
            changes.put(StateKey::new(OPERATORS[0], TABLES[2], KeyGroup(0), b"k"), vec![0; EXPIRY_BYTES - 1]);
        }
        let record = CheckpointRecord { id, at: Timestamp(self.now), job: "refused".into() };
        let refused = self.store().commit(record, [changes]).expect_err("it is refused");
        let expected =
            matches!((&refused, is_short), (Error::ShortValue { .. }, true) | (Error::OutOfOrder { .. }, false));
        assert!(expected, "{refused}");
    }

    fn read_keys(&mut self) {
        let mut keys: Vec<ModelKey> = (0..20).map(|_| self.key()).collect();
        keys.extend(self.model.entries.keys().step_by(3).cloned());
        let wanted: Vec<Option<Bytes>> = keys.iter().map(|key| self.model.get(key, self.now)).collect();
        let asked: Vec<StateKey> = keys.iter().map(stored).collect();
        assert_eq!(self.store().get_many(&asked).expect("readable"), wanted);
        for (key, wanted) in asked.iter().zip(wanted) {
            assert_eq!(self.store().get(key).expect("readable"), wanted, "{key:?}");
        }
    }

    fn scan(&mut self) {
        let of = (self.random.one_of(&OPERATORS), self.random.one_of(&TABLES));
        let groups = self.random.one_of(&GROUPS)..self.random.one_of(&[0, 1, 2, 3, 256]);
        let (start, end) = (self.random.rest(), (self.random.below(2) == 0).then(|| self.random.rest()));
        let within = (start.as_slice(), end.as_deref());
        let found: Vec<_> =
            self.store().scan_range(of.0, of.1, groups.clone(), within.0, within.1).map(parts).collect();
        assert_eq!(found, self.model.scan(of, &groups, within, self.now), "{of:?} {groups:?} {within:?}");

        let group = self.random.one_of(&GROUPS);
        let back: Vec<_> = self.store().scan_back(of.0, of.1, KeyGroup(group), within).map(parts).collect();
        let mut wanted = self.model.scan(of, &(group..group + 1), within, self.now);
        wanted.reverse();
        assert_eq!(back, wanted, "backwards: {of:?} {group} {within:?}");

        let prefixed: Vec<_> = self.store().scan_prefix(of.0, of.1, KeyGroup(group), &start).map(parts).collect();
        let mut wanted = self.model.scan(of, &(group..group + 1), (&start, None), self.now);
        wanted.retain(|(_, rest, _)| rest.starts_with(&start));
        assert_eq!(prefixed, wanted, "{of:?} {group} {start:?}");
    }

    /// A copy by hard links is the last commit, whatever is committed after it.
    fn copy(&mut self) {
        let dir = tempfile::tempdir_in(self.dir.path().parent().expect("a folder is in a folder")).expect("a folder");
        let copy = dir.path().join("copy");
        self.store().link_to(&copy).expect("a copy");
        let before = (self.model.entries.clone(), self.model.last.clone());
        self.commit();
        let resources = StoreResources::default().with_clock(self.clock.clone());
        let copied = JobStore::open_with(&copy, &StoreSettings::default(), &resources).expect("a copy opens");
        assert_eq!(copied.last_checkpoint(), before.1);
        let model = Model { entries: before.0, last: before.1 };
        for of in OPERATORS.into_iter().flat_map(|operator| TABLES.map(|table| (operator, table))) {
            let found: Vec<_> = copied.scan(of.0, of.1).map(parts).collect();
            assert_eq!(found, model.scan(of, &(0..u16::MAX), (&[], None), self.now));
        }
    }

    fn step(&mut self) {
        match self.random.below(24) {
            0 => self.reopen(),
            1 => self.refused_commit(),
            2 if self.random.below(3) == 0 => self.copy(),
            2 | 3 => {
                let by = self.random.below(20) as i64;
                self.clock.advance(by);
                self.now += by;
            }
            4 => {
                // Giving disk space back changes nothing that is read.
                self.store().reclaim(Duration::from_secs(60)).expect("space is given back");
            }
            5..12 => self.commit(),
            12..18 => self.read_keys(),
            _ => self.scan(),
        }
        assert_eq!(self.store().last_checkpoint(), self.model.last);
    }
}

#[test]
fn a_store_does_what_a_map_does() {
    for seed in 0..12 {
        let mut history = History::new(seed);
        for _ in 0..STEPS {
            history.step();
        }
        history.reopen();
        history.read_keys();
        history.scan();
    }
}
