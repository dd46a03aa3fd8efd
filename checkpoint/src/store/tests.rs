//! Commits, reads and reopening.

use std::collections::BTreeMap;

use bytes::Bytes;
use coulee_model::KeyGroup;

use super::*;

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
