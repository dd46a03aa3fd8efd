//! Commits, reads and reopening.

use std::collections::BTreeMap;

use bytes::Bytes;
use coulee_model::KeyGroup;

use super::*;
use crate::with_expiry;

const OP: OperatorId = OperatorId(7);

fn record(id: u64) -> CheckpointRecord {
    CheckpointRecord { id: CheckpointId(id), at: Timestamp(1), job: format!("job at {id}") }
}

fn key(table: u8, group: u16, rest: &str) -> StateKey {
    StateKey::new(OP, TableId(table), KeyGroup(group), rest.as_bytes())
}

fn scanned(store: &JobStore, table: u8) -> Vec<(Vec<u8>, Vec<u8>)> {
    store.scan(OP, TableId(table)).map(|e| e.map(|(k, v)| (k.to_vec(), v.to_vec())).expect("readable")).collect()
}

#[test]
fn a_commit_is_all_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let settings = StoreSettings::default();
    {
        let store = JobStore::open(dir.path(), &settings).unwrap();
        assert_eq!(store.last_checkpoint(), None);
        let mut a = Changes::default();
        a.put(key(1, 0, "b"), "1");
        a.put(key(1, 256, "a"), "2");
        let mut b = Changes::default();
        b.put(key(2, 0, "x"), "3");
        store.commit(record(1), [a, b]).unwrap();
    }
    let store = JobStore::open(dir.path(), &settings).unwrap();
    assert_eq!(store.last_checkpoint(), Some(record(1)));
    assert_eq!(scanned(&store, 1), [(b"\0\0b".to_vec(), b"1".to_vec()), (b"\x01\0a".to_vec(), b"2".to_vec())]);
    assert_eq!(scanned(&store, 2).len(), 1);
    assert_eq!(scanned(&store, 0), []);
    let found = store.get_many(&[key(1, 0, "b"), key(1, 0, "missing")]).unwrap();
    assert_eq!(found, [Some(Bytes::from("1")), None]);
}

#[test]
fn deletes_and_ranges_apply_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let store = JobStore::open(dir.path(), &StoreSettings::default()).unwrap();
    let mut changes = Changes::default();
    for name in ["a", "b", "c"] {
        changes.put(key(1, 0, name), name);
    }
    changes.delete_range(key(1, 0, "a"), key(1, 0, "c"));
    changes.put(key(1, 0, "b"), "again");
    store.commit(record(1), [changes]).unwrap();
    assert_eq!(scanned(&store, 1), [(b"\0\0b".to_vec(), b"again".to_vec()), (b"\0\0c".to_vec(), b"c".to_vec())]);
    assert_eq!(store.operators().unwrap(), BTreeMap::from([(OP, 2)]));
}

#[test]
fn checkpoints_ascend_and_a_store_has_one_owner() {
    let dir = tempfile::tempdir().unwrap();
    let store = JobStore::open(dir.path(), &StoreSettings::default()).unwrap();
    store.commit(record(5), []).unwrap();
    assert!(matches!(store.commit(record(5), []), Err(Error::OutOfOrder { .. })));
    let second = JobStore::open(dir.path(), &StoreSettings::default()).unwrap_err();
    assert!(second.to_string().contains("already running"), "{second}");
}

#[test]
fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = JobStore::open(dir.path(), &StoreSettings::default()).unwrap();
        store.db.put(own_key(KEY_FORMAT).as_bytes(), 99u32.to_be_bytes()).unwrap();
    }
    let error = JobStore::open(dir.path(), &StoreSettings::default()).unwrap_err();
    assert!(matches!(error, Error::NewerFormat { found: 99, .. }), "{error}");
}

#[test]
fn many_keys_are_found_whatever_their_order_and_table() {
    let dir = tempfile::tempdir().unwrap();
    let store = JobStore::open(dir.path(), &StoreSettings::default()).unwrap();
    let mut changes = Changes::default();
    for i in 0..500u16 {
        changes.put(key(1, i % 256, &i.to_string()), i.to_string());
        changes.put(key(0x81, i % 256, &i.to_string()), with_expiry(Timestamp::MAX, b"kept"));
    }
    store.commit(record(1), [changes]).unwrap();
    // Descending, with both kinds of tables, keys that are not there, and one twice.
    let mut keys: Vec<StateKey> = (400..600u16).rev().map(|i| key(1, i % 256, &i.to_string())).collect();
    keys.extend((0..3).map(|_| key(0x81, 7, "7")));
    let found = store.get_many(&keys).unwrap();
    for (key, value) in keys.iter().zip(&found) {
        assert_eq!(*value, store.get(key).unwrap(), "{key:?}");
    }
    assert_eq!(found.iter().flatten().count(), 103);
    assert!(store.get_many(&[]).unwrap().is_empty());
}

#[test]
fn scans_keep_to_their_range_and_to_one_commit() {
    let dir = tempfile::tempdir().unwrap();
    let store = JobStore::open(dir.path(), &StoreSettings::default()).unwrap();
    let mut changes = Changes::default();
    for table in [1, 2, 0x81] {
        for group in [3, 4, 5, 9, 255] {
            for rest in ["", "a", "ab", "b", "b\u{7f}", "c"] {
                changes.put(key(table, group, rest), with_expiry(Timestamp::MAX, b""));
            }
        }
    }
    store.commit(record(1), [changes]).unwrap();
    let names = |scan: Scan<'_>| -> Vec<String> {
        let name = |entry: Result<Entry>| {
            let (key, _) = entry.unwrap();
            format!("{}{}", u16::from_be_bytes([key[0], key[1]]), String::from_utf8(key[2..].to_vec()).unwrap())
        };
        scan.map(name).collect()
    };
    for table in [TableId(1), TableId(0x81)] {
        let range = |groups, start: &str, end: Option<&str>| {
            names(store.scan_range(OP, table, groups, start.as_bytes(), end.map(str::as_bytes)))
        };
        assert_eq!(range(4..10, "b", Some("c")), ["4b", "4b\u{7f}", "5b", "5b\u{7f}", "9b", "9b\u{7f}"]);
        assert_eq!(range(0..5, "c", None), ["3c", "4c"]);
        assert_eq!(range(3..4, "", Some("ab")), ["3", "3a"]);
        assert_eq!(range(200..256, "b", Some("b")), [""; 0]);
        assert_eq!(range(5..5, "", None), [""; 0]);
        let (from, to) = (10, 3);
        assert_eq!(range(from..to, "", None), [""; 0], "a range that ends before it begins is empty");
        assert_eq!(names(store.scan(OP, table)).len(), 30);
        assert_eq!(names(store.scan_prefix(OP, table, KeyGroup(255), b"b")), ["255b", "255b\u{7f}"]);
        assert_eq!(names(store.scan_prefix(OP, table, KeyGroup(6), b"")), [""; 0]);
    }
    let scan = store.scan_range(OP, TableId(1), 0..256, b"", None);
    let mut later = Changes::default();
    later.delete_range(key(1, 0, ""), key(1, 255, "zz"));
    store.commit(record(2), [later]).unwrap();
    assert_eq!(scan.count(), 30, "a scan is of the commit that it began at");
    assert_eq!(store.scan(OP, TableId(1)).count(), 0);
}

#[test]
fn a_prefix_of_ff_has_an_end_too() {
    let dir = tempfile::tempdir().unwrap();
    let store = JobStore::open(dir.path(), &StoreSettings::default()).unwrap();
    let mut changes = Changes::default();
    for rest in [&[0xfe][..], &[0xff], &[0xff, 0xff], &[0xff, 0xff, 1]] {
        changes.put(StateKey::new(OP, TableId(1), KeyGroup(1), rest), "");
    }
    changes.put(key(1, 2, "next"), "");
    store.commit(record(1), [changes]).unwrap();
    assert_eq!(store.scan_prefix(OP, TableId(1), KeyGroup(1), &[0xff]).count(), 3);
    assert_eq!(store.scan_prefix(OP, TableId(1), KeyGroup(1), &[0xff, 0xff]).count(), 2);
}

#[test]
fn a_range_over_all_tables_of_an_operator_takes_both_kinds() {
    let dir = tempfile::tempdir().unwrap();
    let store = JobStore::open(dir.path(), &StoreSettings::default()).unwrap();
    let mut changes = Changes::default();
    for table in [1, 0x81] {
        changes.put(key(table, 3, "k"), with_expiry(Timestamp::MAX, b""));
    }
    changes.delete_range(key(0, 0, ""), key(0xff, 0, ""));
    store.commit(record(1), [changes]).unwrap();
    assert!(store.operators().unwrap().is_empty());
}

#[test]
fn a_store_of_the_first_format_opens() {
    let dir = tempfile::tempdir().unwrap();
    {
        // As version 1 left it: one column family, no blob files.
        let mut options = rocksdb::Options::default();
        options.create_if_missing(true);
        let db = DB::open(&options, dir.path()).unwrap();
        db.put(own_key(KEY_FORMAT).as_bytes(), 1u32.to_be_bytes()).unwrap();
        db.put(own_key(KEY_CHECKPOINT).as_bytes(), serde_json::to_vec(&record(3)).unwrap()).unwrap();
        db.put(key(1, 0, "k").as_bytes(), "v".repeat(1_000)).unwrap();
    }
    let store = JobStore::open(dir.path(), &StoreSettings::default()).unwrap();
    assert_eq!(store.last_checkpoint(), Some(record(3)));
    assert_eq!(store.get(&key(1, 0, "k")).unwrap().map(|v| v.len()), Some(1_000));
    assert_eq!(store.get(&own_key(KEY_FORMAT)).unwrap().as_deref(), Some(&FORMAT.to_be_bytes()[..]));
}

/// Bytes that do not compress, the same for the same seed.
fn noise(seed: u32, bytes: usize) -> Vec<u8> {
    let block = |i: usize| xxhash_rust::xxh3::xxh3_64_with_seed(&i.to_le_bytes(), seed.into()).to_le_bytes();
    (0..bytes.div_ceil(8)).flat_map(block).take(bytes).collect()
}

#[test]
fn figures_follow_the_state() {
    let dir = tempfile::tempdir().unwrap();
    let resources = StoreResources::shared(8 << 20, 8 << 20);
    let store = JobStore::open_with(dir.path(), &StoreSettings::default(), &resources).unwrap();
    let (small, large, expiring) = (OperatorId(3), OperatorId(9), OperatorId(11));
    let mut changes = Changes::default();
    for i in 0..10_000u32 {
        let rest = i.to_be_bytes();
        changes.put(StateKey::new(small, TableId(1), KeyGroup(0), &rest), vec![i as u8; 100]);
        let noise = noise(i, 1_000);
        changes.put(StateKey::new(large, TableId(1), KeyGroup(0), &rest), noise.clone());
        changes.put(
            StateKey::new(expiring, TableId(0x80), KeyGroup(0), &rest),
            with_expiry(Timestamp::MAX, &noise[..500]),
        );
    }
    store.commit(record(1), [changes]).unwrap();
    assert!(resources.memory_bytes() > 10_000_000, "{}", resources.memory_bytes());
    store.link_to(&dir.path().join("linked")).unwrap();
    assert!(store.memory_bytes() < 2_000_000, "{}", store.memory_bytes());
    let bytes = store.operator_bytes().unwrap();
    for (operator, expected) in [(small, 1_200_000), (large, 10_200_000), (expiring, 5_200_000)] {
        let within = expected * 3 / 4..expected * 5 / 4;
        assert!(within.contains(&bytes[&operator]), "{operator}: {} is not about {expected}", bytes[&operator]);
    }
    assert_eq!(bytes.len(), 3);
    assert_eq!(store.operators().unwrap()[&large], 10_000);
    let total: u64 = bytes.values().sum();
    assert!(total * 9 / 10 < store.size_bytes(), "{total} of {}", store.size_bytes());
}

fn expiring_store(dir: &Path, clock: &Arc<coulee_model::ManualClock>) -> JobStore {
    let resources = StoreResources::default().with_clock(clock.clone());
    JobStore::open_with(dir, &StoreSettings::default(), &resources).unwrap()
}

#[test]
fn expired_entries_are_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(coulee_model::ManualClock::new(Timestamp(1_000)));
    let store = expiring_store(dir.path(), &clock);
    let mut changes = Changes::default();
    for (rest, at) in
        [("soon", Timestamp(2_000)), ("late", Timestamp(3_000)), ("never", Timestamp::MAX), ("past", Timestamp(-1))]
    {
        changes.put(key(0x81, 1, rest), with_expiry(at, b"v"));
        // The same bytes in a plain table mean nothing.
        changes.put(key(1, 1, rest), with_expiry(at, b"v"));
    }
    store.commit(record(1), [changes]).unwrap();
    let names = ["soon", "late", "never", "past"];
    let keys = names.map(|rest| key(0x81, 1, rest));
    for (millis, expected) in
        [(0, [true, true, true, false]), (1_000, [false, true, true, false]), (1_000, [false, false, true, false])]
    {
        clock.advance(millis);
        let found = store.get_many(&keys).unwrap();
        assert_eq!(found.iter().map(Option::is_some).collect::<Vec<_>>(), expected);
        assert_eq!(keys.each_ref().map(|key| store.get(key).unwrap().is_some()), expected);
        assert_eq!(scanned(&store, 0x81).len(), expected.iter().filter(|live| **live).count());
        assert_eq!(scanned(&store, 1).len(), 4);
    }
    assert_eq!(store.get(&keys[2]).unwrap().as_deref(), Some(&with_expiry(Timestamp::MAX, b"v")[..]));
}

#[test]
fn a_value_without_an_expiry_is_refused_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let store = JobStore::open(dir.path(), &StoreSettings::default()).unwrap();
    let mut changes = Changes::default();
    changes.put(key(1, 0, "plain"), "v");
    changes.put(key(0x80, 0, "k"), "short");
    let error = store.commit(record(1), [changes]).unwrap_err();
    assert!(matches!(error, Error::ShortValue { bytes: 5, .. }), "{error}");
    assert_eq!((store.last_checkpoint(), scanned(&store, 1).len()), (None, 0));
    store.commit(record(1), []).unwrap();
}

fn bytes_of_files(dir: &Path, endings: &[&str]) -> u64 {
    let files = std::fs::read_dir(dir).unwrap().map(Result::unwrap);
    let wanted = |path: &Path| path.extension().is_some_and(|e| endings.iter().any(|ending| e == *ending));
    files.filter(|file| wanted(&file.path())).map(|file| file.metadata().unwrap().len()).sum()
}

#[test]
fn disk_space_of_the_expired_is_freed_though_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(coulee_model::ManualClock::new(Timestamp(0)));
    let store = expiring_store(dir.path(), &clock);
    let minute = Duration::from_secs(60);
    for part in 0..4u64 {
        let mut changes = Changes::default();
        for i in 0..5_000u32 {
            // Half of the keys live for a day, the others for an hour.
            let at = Timestamp(if i % 2 == 0 { 86_400_000 } else { 3_600_000 });
            let noise = noise(i, 200);
            let rest = format!("{part} {i}");
            changes.put(key(0x81, (i % 256) as u16, &rest), with_expiry(at, &noise));
            changes.put(key(1, (i % 256) as u16, &rest), with_expiry(at, &noise));
        }
        store.commit(record(part + 1), [changes]).unwrap();
        store.link_to(&dir.path().join(format!("flush-{part}"))).unwrap();
    }
    let full = bytes_of_files(dir.path(), &["sst", "blob"]);
    assert!(full > 8_000_000, "{full}");
    assert_eq!(store.reclaim(minute).unwrap(), Reclaimed::default(), "nothing has expired");
    clock.advance(3_599_999);
    assert_eq!(store.reclaim(minute).unwrap().files, 0);
    clock.advance(1);
    assert_eq!(store.reclaim(Duration::ZERO).unwrap(), Reclaimed { more: true, ..Reclaimed::default() });
    let freed = store.reclaim(minute).unwrap();
    let half = bytes_of_files(dir.path(), &["sst", "blob"]);
    assert!(freed.bytes > 1_800_000 && full - half >= freed.bytes * 9 / 10, "{freed:?}: {full} to {half}");
    assert_eq!(store.reclaim(minute).unwrap(), Reclaimed::default(), "what was rewritten is not rewritten again");
    assert_eq!(scanned(&store, 0x81).len(), 10_000);

    // The same after a restart; then nothing of the table is left, and the other table is whole.
    drop(store);
    let store = expiring_store(dir.path(), &clock);
    clock.advance(86_400_000);
    store.reclaim(minute).unwrap();
    let rest = bytes_of_files(dir.path(), &["sst", "blob"]);
    assert!(rest < half - freed.bytes * 9 / 10 && store.expiring_files().unwrap().is_empty(), "{half} to {rest}");
    assert_eq!(scanned(&store, 1).len(), 20_000);
}
