//! Tables of state against naive maps, with restarts, checkpoints and a memory budget that holds next to nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use bytes::Bytes;
use coulee_checkpoint::{Changes, CheckpointRecord, JobStore, StoreResources, StoreSettings, TableId};
use coulee_model::{CheckpointId, Clock, ManualClock, OperatorId, SubtaskIndex, Timestamp};
use proptest::prelude::*;

use super::*;

const OPERATOR: OperatorId = OperatorId(5);

struct World {
    store: Arc<JobStore>,
    clock: Arc<ManualClock>,
    checkpoint: CheckpointId,
    _dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp(1_000)));
        let resources = StoreResources::default().with_clock(clock.clone());
        let store = Arc::new(JobStore::open_with(dir.path(), &StoreSettings::default(), &resources).unwrap());
        World { store, clock, checkpoint: CheckpointId(0), _dir: dir }
    }

    /// With the smallest budget there is.
    fn backend(&self, subtask: u32, parallelism: u32) -> Backend {
        let clock: Arc<dyn Clock> = self.clock.clone();
        let budget = MemoryBudget::new(1 << 20);
        Backend::new(OPERATOR, SubtaskIndex(subtask), parallelism, self.store.clone(), budget, clock)
    }

    fn commit(&mut self, changes: Changes) {
        let record = CheckpointRecord { id: self.checkpoint, at: Timestamp(0), job: String::new() };
        self.store.commit(record, [changes]).unwrap();
    }
}

/// A key whose value is large, so that the budget is small.
fn key(number: u8) -> (u64, Vec<u8>) {
    let bytes = format!("key {number}").into_bytes();
    (xxhash_rust::xxh3::xxh3_64(&bytes), bytes)
}

fn large(tag: u8) -> Bytes {
    Bytes::from(vec![tag; 60_000])
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8),
    Remove(u8),
    Read(u8),
    Checkpoint,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0u8..40, any::<u8>()).prop_map(|(key, value)| Step::Put(key, value)),
        2 => (0u8..40).prop_map(Step::Remove),
        4 => (0u8..40).prop_map(Step::Read),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn values_are_what_was_last_written(steps in steps()) {
        let mut world = World::new();
        let open = |world: &World| {
            let mut table = ValueTable::<Bytes>::new(TableId(1), None);
            table.open(world.backend(0, 1)).unwrap();
            table
        };
        let mut table = open(&world);
        let (mut now, mut durable) = (BTreeMap::new(), BTreeMap::new());
        for step in steps {
            match step {
                Step::Put(number, tag) => {
                    let (hash, bytes) = key(number);
                    let slots = table.load(&[KeyRef { hash, bytes: &bytes }, KeyRef { hash, bytes: &bytes }]).unwrap();
                    prop_assert_eq!(slots[0], slots[1]);
                    *table.update(slots[0]) = Some(large(tag));
                    now.insert(number, tag);
                }
                Step::Remove(number) => {
                    let (hash, bytes) = key(number);
                    let slots = table.load(&[KeyRef { hash, bytes: &bytes }]).unwrap();
                    *table.update(slots[0]) = None;
                    now.remove(&number);
                }
                Step::Read(number) => {
                    let (hash, bytes) = key(number);
                    let slots = table.load(&[KeyRef { hash, bytes: &bytes }]).unwrap();
                    prop_assert_eq!(table.get(slots[0]).cloned(), now.get(&number).map(|tag| large(*tag)));
                }
                Step::Checkpoint => {
                    world.checkpoint = world.checkpoint.next();
                    let mut changes = Changes::default();
                    table.checkpoint(world.checkpoint, &mut changes).unwrap();
                    world.commit(changes);
                    durable = now.clone();
                }
                Step::Restart => {
                    table = open(&world);
                    now = durable.clone();
                }
            }
            table.trim();
        }
    }

    #[test]
    fn maps_are_what_was_last_written(steps in steps()) {
        let mut world = World::new();
        let open = |world: &World| {
            let mut table = MapTable::new(TableId(1), None);
            table.open(world.backend(0, 1)).unwrap();
            table
        };
        let mut table = open(&world);
        let (mut now, mut durable) = (BTreeMap::<(u8, u8), u8>::new(), BTreeMap::new());
        // Four keys with maps of ten entries.
        let split = |number: u8| (number / 10, number % 10);
        for step in steps {
            match step {
                Step::Put(number, tag) => {
                    let ((hash, bytes), map_key) = (key(number / 10), [number % 10]);
                    let slot = table.load(KeyRef { hash, bytes: &bytes });
                    table.put(slot, &map_key, large(tag));
                    now.insert(split(number), tag);
                }
                Step::Remove(number) => {
                    let ((hash, bytes), map_key) = (key(number / 10), [number % 10]);
                    let slot = table.load(KeyRef { hash, bytes: &bytes });
                    table.remove(slot, &map_key);
                    now.remove(&split(number));
                }
                Step::Read(number) => {
                    let ((hash, bytes), map_key) = (key(number / 10), [number % 10]);
                    let slot = table.load(KeyRef { hash, bytes: &bytes });
                    let expected = now.get(&split(number)).map(|tag| large(*tag));
                    prop_assert_eq!(table.get(slot, &map_key).unwrap(), expected);
                    if number % 2 == 0 {
                        let low = [map_key[0] / 2];
                        let bounds = (std::ops::Bound::Included(&low[..]), std::ops::Bound::Excluded(&map_key[..]));
                        let mut found = Vec::new();
                        let order = if number % 4 == 0 { Order::Ascending } else { Order::Descending };
                        // Up to a number of entries.
                        let limit = usize::from(number % 7) + 1;
                        table
                            .scan(slot, bounds, order, |k, v| {
                                found.push((k[0], v.clone()));
                                Ok(if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
                            })
                            .unwrap();
                        let (from, to) = ((number / 10, low[0]), (number / 10, map_key[0].max(low[0])));
                        let mut expected: Vec<(u8, Bytes)> =
                            now.range(from..to).map(|((_, k), tag)| (*k, large(*tag))).collect();
                        if order == Order::Descending {
                            expected.reverse();
                        }
                        expected.truncate(limit);
                        prop_assert_eq!(found, expected);
                    }
                }
                Step::Checkpoint => {
                    world.checkpoint = world.checkpoint.next();
                    let mut changes = Changes::default();
                    table.checkpoint(world.checkpoint, &mut changes);
                    world.commit(changes);
                    durable = now.clone();
                }
                Step::Restart => {
                    table = open(&world);
                    now = durable.clone();
                }
            }
            table.trim();
        }
    }

    /// `Put(k, t)` registers, `Remove(k)` deletes, `Read(t)` fires up to `t`.
    #[test]
    fn lists_are_what_was_added(steps in steps()) {
        let mut world = World::new();
        let open = |world: &World| {
            let mut table = ListTable::new(TableId(1));
            table.open(world.backend(0, 1)).unwrap();
            table
        };
        let mut table = open(&world);
        let (mut now, mut durable) = (BTreeMap::<u8, Vec<u8>>::new(), BTreeMap::new());
        for step in steps {
            match step {
                Step::Put(number, tag) => {
                    let (hash, bytes) = key(number);
                    let list = table.load(KeyRef { hash, bytes: &bytes });
                    table.add(list, &large(tag)).unwrap();
                    now.entry(number).or_default().push(tag);
                }
                Step::Remove(number) | Step::Read(number) => {
                    let (hash, bytes) = key(number);
                    let mut found = Vec::new();
                    if let Some(list) = table.find(KeyRef { hash, bytes: &bytes }) {
                        table.visit(list, |item| found.push((item[0], item.len()))).unwrap();
                    }
                    let wanted = now.get(&number).into_iter().flatten().map(|tag| (*tag, large(*tag).len()));
                    prop_assert_eq!(found, wanted.collect::<Vec<_>>());
                }
                Step::Checkpoint => {
                    world.checkpoint = world.checkpoint.next();
                    let mut changes = Changes::default();
                    table.checkpoint(world.checkpoint, &mut changes).unwrap();
                    world.commit(changes);
                    durable = now.clone();
                }
                Step::Restart => {
                    table = open(&world);
                    now = durable.clone();
                }
            }
            table.trim();
        }
    }

    #[test]
    fn timers_fire_once_and_in_order(steps in steps()) {
        let mut world = World::new();
        let open = |world: &World| {
            let mut timers = Timers::new(TableId(2));
            timers.open(world.backend(0, 1)).unwrap();
            timers
        };
        let mut timers = open(&world);
        let (mut now, mut durable) = (BTreeSet::new(), BTreeSet::new());
        let at = |number: u8| Timestamp(i64::from(number % 20) * 10 - 50);
        for step in steps {
            match step {
                Step::Put(number, tag) => {
                    let (hash, bytes) = key(number);
                    timers.register(at(tag), KeyRef { hash, bytes: &bytes });
                    now.insert((at(tag), hash, bytes));
                }
                Step::Remove(number) => {
                    let (hash, bytes) = key(number);
                    timers.delete(at(number), KeyRef { hash, bytes: &bytes });
                    now.remove(&(at(number), hash, bytes));
                }
                Step::Read(number) => {
                    let due = timers.take_due(at(number), usize::MAX).unwrap();
                    let due: Vec<_> = due.iter().map(|t| (t.at, t.key().hash, t.key().bytes.to_vec())).collect();
                    let (expected, kept): (BTreeSet<_>, BTreeSet<_>) =
                        now.into_iter().partition(|(due, ..)| *due <= at(number));
                    now = kept;
                    prop_assert_eq!(due, expected.into_iter().collect::<Vec<_>>());
                }
                Step::Checkpoint => {
                    world.checkpoint = world.checkpoint.next();
                    let mut changes = Changes::default();
                    timers.checkpoint(world.checkpoint, &mut changes);
                    world.commit(changes);
                    durable = now.clone();
                }
                Step::Restart => {
                    timers = open(&world);
                    now = durable.clone();
                }
            }
        }
    }
}

#[test]
fn timers_beyond_the_memory_come_back_in_order() {
    let mut world = World::new();
    let mut timers = Timers::new(TableId(2));
    timers.open(world.backend(0, 1)).unwrap();
    let count = 60_000u64;
    for number in 0..count {
        // Scattered over time, several at an instant.
        let at = Timestamp((number * 7_919 % 9_973) as i64);
        let bytes = number.to_be_bytes();
        timers.register(at, KeyRef { hash: xxhash_rust::xxh3::xxh3_64(&bytes), bytes: &bytes });
    }
    for _ in 0..3 {
        world.checkpoint = world.checkpoint.next();
        let mut changes = Changes::default();
        timers.checkpoint(world.checkpoint, &mut changes);
        world.commit(changes);
    }
    assert!(timers.bytes() < 2 << 20, "{} bytes", timers.bytes());
    let (mut last, mut seen) = (Timestamp::MIN, 0);
    while let Some(next) = timers.next() {
        for timer in timers.take_due(next.plus_millis(500), 1_000).unwrap() {
            assert!(timer.at >= last);
            (last, seen) = (timer.at, seen + 1);
        }
    }
    assert_eq!(seen, count);
}

#[test]
fn a_value_is_gone_when_its_time_is_over() {
    let mut world = World::new();
    let mut table = ValueTable::<Bytes>::new(TableId(1), Some(100));
    table.open(world.backend(0, 1)).unwrap();
    let (hash, bytes) = key(1);
    let key = [KeyRef { hash, bytes: &bytes }];
    let slot = table.load(&key).unwrap()[0];
    *table.update(slot) = Some(large(1));
    world.checkpoint = world.checkpoint.next();
    let mut changes = Changes::default();
    table.checkpoint(world.checkpoint, &mut changes).unwrap();
    world.commit(changes);
    world.clock.advance(99);
    let slot = table.load(&key).unwrap()[0];
    assert_eq!(table.get(slot), Some(&large(1)));
    world.clock.advance(1);
    let slot = table.load(&key).unwrap()[0];
    assert_eq!(table.get(slot), None);
    assert!(table.update(slot).is_none(), "an update begins anew");
    // And from the disk.
    let mut table = ValueTable::<Bytes>::new(TableId(1), Some(100));
    table.open(world.backend(0, 1)).unwrap();
    let slot = table.load(&key).unwrap()[0];
    assert_eq!(table.get(slot), None);
    // What has expired leaves the memory with a checkpoint.
    let before = table.bytes();
    table.checkpoint(world.checkpoint.next(), &mut Changes::default()).unwrap();
    assert!(table.bytes() < before);
}

#[test]
fn state_follows_its_key_group_to_another_subtask() {
    let mut world = World::new();
    let mut table = ValueTable::<Bytes>::new(TableId(1), None);
    table.open(world.backend(0, 1)).unwrap();
    let keys: Vec<(u64, Vec<u8>)> = (0..200).map(key).collect();
    for (number, (hash, bytes)) in keys.iter().enumerate() {
        let slot = table.load(&[KeyRef { hash: *hash, bytes }]).unwrap()[0];
        *table.update(slot) = Some(Bytes::from(vec![number as u8]));
    }
    world.checkpoint = world.checkpoint.next();
    let mut changes = Changes::default();
    table.checkpoint(world.checkpoint, &mut changes).unwrap();
    world.commit(changes);
    for parallelism in [1, 2, 3, 4] {
        let mut seen = 0;
        for subtask in 0..parallelism {
            let backend = world.backend(subtask, parallelism);
            let groups = backend.groups();
            let mut table = ValueTable::<Bytes>::new(TableId(1), None);
            table.open(backend).unwrap();
            for (number, (hash, bytes)) in keys.iter().enumerate() {
                let key = KeyRef { hash: *hash, bytes };
                if groups.contains(&key.group().0) {
                    let slot = table.load(&[key]).unwrap()[0];
                    assert_eq!(table.get(slot), Some(&Bytes::from(vec![number as u8])));
                    seen += 1;
                }
            }
        }
        assert_eq!(seen, keys.len());
    }
}

/// The entries of the map of key 1 within the bounds, as numbers, at most `limit`.
fn scanned(table: &mut MapTable, bounds: (Bound<u64>, Bound<u64>), order: Order, limit: usize) -> Vec<u64> {
    let (hash, bytes) = key(1);
    let slot = table.load(KeyRef { hash, bytes: &bytes });
    let (start, end) = (bounds.0.map(u64::to_be_bytes), bounds.1.map(u64::to_be_bytes));
    let bounds = (start.as_ref().map(|key| &key[..]), end.as_ref().map(|key| &key[..]));
    let mut found = Vec::new();
    table
        .scan(slot, bounds, order, |key, _| {
            found.push(u64::from_be_bytes(key.try_into().unwrap()));
            Ok(if found.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })
        .unwrap();
    found
}

#[test]
fn one_end_of_a_large_map_is_read_without_the_rest() {
    let mut world = World::new();
    let count = 100_000;
    let open = |world: &World| {
        let mut table = MapTable::new(TableId(1), None);
        table.open(world.backend(0, 1)).unwrap();
        table
    };
    let mut table = open(&world);
    let (hash, bytes) = key(1);
    let slot = table.load(KeyRef { hash, bytes: &bytes });
    for number in 0..count {
        table.put(slot, &u64::to_be_bytes(number * 2), Bytes::from_static(b"value"));
    }
    // Neighbours of the map, which are no part of it.
    for neighbour in [0, 2] {
        let (hash, bytes) = key(neighbour);
        let slot = table.load(KeyRef { hash, bytes: &bytes });
        table.put(slot, &u64::to_be_bytes(1), Bytes::from_static(b"other"));
    }
    world.checkpoint = world.checkpoint.next();
    let mut changes = Changes::default();
    table.checkpoint(world.checkpoint, &mut changes);
    world.commit(changes);

    let all = (Bound::Unbounded, Bound::Unbounded);
    for (bounds, order, limit, expected) in [
        (all, Order::Descending, 1, vec![(count - 1) * 2]),
        (all, Order::Ascending, 2, vec![0, 2]),
        ((Bound::Included(500), Bound::Excluded(506)), Order::Ascending, 9, vec![500, 502, 504]),
        ((Bound::Excluded(500), Bound::Included(506)), Order::Descending, 9, vec![506, 504, 502]),
        ((Bound::Excluded(501), Bound::Excluded(502)), Order::Ascending, 9, vec![]),
    ] {
        let mut table = open(&world);
        assert_eq!(scanned(&mut table, bounds, order, limit), expected);
        assert!(table.read_entries() <= 256, "{} entries were read for {bounds:?}", table.read_entries());
        let once = table.read_entries();
        assert_eq!(scanned(&mut table, bounds, order, limit), expected);
        assert_eq!(table.read_entries(), once, "what was read is known");
    }

    // All of it is read on without being kept, and what changed since counts.
    let mut table = open(&world);
    let slot = table.load(KeyRef { hash, bytes: &bytes });
    table.remove(slot, &u64::to_be_bytes(0));
    table.put(slot, &u64::to_be_bytes(1), Bytes::from_static(b"new"));
    let expected: Vec<u64> = (1..2).chain((1..count).map(|number| number * 2)).collect();
    assert_eq!(scanned(&mut table, all, Order::Ascending, usize::MAX), expected);
    assert!(table.bytes() < 3 << 20, "{} bytes are kept", table.bytes());
    let reversed: Vec<u64> = expected.into_iter().rev().collect();
    assert_eq!(scanned(&mut table, all, Order::Descending, usize::MAX), reversed);
}

#[test]
fn many_small_parts_of_a_list_become_one() {
    let mut world = World::new();
    let (hash, bytes) = key(7);
    let mut wanted = Vec::new();
    for round in 0..3 {
        // A list that memory has whole from the start, and one that was read.
        let mut table = ListTable::new(TableId(1));
        table.open(world.backend(0, 1)).unwrap();
        for number in 0..40u8 {
            let list = table.load(KeyRef { hash, bytes: &bytes });
            table.add(list, &[round, number]).unwrap();
            wanted.push(vec![round, number]);
            let mut found = Vec::new();
            table.visit(list, |item| found.push(item.to_vec())).unwrap();
            assert_eq!(found, wanted);
            world.checkpoint = world.checkpoint.next();
            let mut changes = Changes::default();
            table.checkpoint(world.checkpoint, &mut changes).unwrap();
            world.commit(changes);
            let backend = world.backend(0, 1);
            let parts = backend.scan(TableId(1), backend.groups(), &[]).count();
            assert!(parts <= 17, "{parts} parts");
        }
    }
}

#[test]
fn entries_of_a_map_expire_one_by_one_in_memory_and_on_the_disk() {
    let mut world = World::new();
    let open = |world: &World| {
        let mut table = MapTable::new(TableId(1), Some(100));
        table.open(world.backend(0, 1)).unwrap();
        table
    };
    let mut table = open(&world);
    let (hash, bytes) = key(1);
    for number in 0..3u64 {
        let slot = table.load(KeyRef { hash, bytes: &bytes });
        table.put(slot, &number.to_be_bytes(), Bytes::from_static(b"value"));
        world.clock.advance(40);
    }
    world.checkpoint = world.checkpoint.next();
    let mut changes = Changes::default();
    table.checkpoint(world.checkpoint, &mut changes);
    world.commit(changes);
    let all = (Bound::Unbounded, Bound::Unbounded);
    // Put at 0, 40 and 80; it is 120.
    for table in [&mut table, &mut open(&world)] {
        assert_eq!(scanned(table, all, Order::Ascending, 9), [1, 2]);
        assert_eq!(scanned(table, all, Order::Descending, 1), [2]);
    }
    world.clock.advance(20);
    for table in [&mut table, &mut open(&world)] {
        assert_eq!(scanned(table, all, Order::Ascending, 9), [2]);
    }
}
