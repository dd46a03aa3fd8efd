//! The shards of a stream as its file says: old files without a map, and shards that were split.

use std::collections::BTreeMap;
use std::fs;

use coulee_model::{Classify, ErrorKind, ShardId, Timestamp};

use super::{Fixture, all_values, append, at, batch, name};
use crate::{BatchBuilder, Compression, Isolation, Log, LogError, Record, ShardMap};

fn stream_file(fixture: &Fixture) -> std::path::PathBuf {
    fixture.folder.path().join("streams").join(name().as_str()).join("stream.json")
}

#[test]
fn a_stream_file_of_version_1_is_read_and_keys_stay_where_they_were() {
    let mut fixture = Fixture::new();
    fixture.stream.shards = 3;
    let (log, _) = fixture.open();
    // MD5("a") = 0cc1…, MD5("abc") = 9001…, MD5("") = d41d…: in the first, second and last third.
    let keys = ["a", "abc", ""];
    let stream = log.stream(&name()).expect("the stream");
    for (key, value) in keys.iter().zip(0..) {
        let mut batch = BatchBuilder::new(Compression::None);
        let text = format!("{value}");
        let timestamp = Timestamp(0);
        batch.push(&Record { key: Some(key.as_bytes()), value: Some(text.as_bytes()), timestamp, headers: &[] });
        stream.shard(ShardId(value)).expect("a shard").append(batch).wait().expect("appended");
    }
    drop((log, stream));
    // As the versions before the map wrote it.
    let old = r#"{
  "version": 1,
  "settings": {
    "shards": 3,
    "sync": "group",
    "compression": "zstd",
    "retention_ms": 604800000,
    "retention_bytes": null,
    "properties": { "key": "tailnum" }
  }
}"#;
    fs::write(stream_file(&fixture), old).expect("write");
    let log = fixture.try_open().expect("opens");
    let stream = log.stream(&name()).expect("the stream");
    assert_eq!((stream.settings().compression, stream.settings().retention_ms), (Compression::Zstd, Some(604_800_000)));
    assert_eq!(*stream.shard_map(), ShardMap::even(3));
    for (key, value) in keys.iter().zip(0..) {
        let shard = stream.shard(stream.route(Some(key.as_bytes()))).expect("a shard");
        assert_eq!((shard.id(), all_values(&shard)), (ShardId(value), vec![value.into()]), "{key}");
    }
    // The first change writes the map.
    log.alter_stream(&name(), (*stream.settings()).clone()).expect("altered");
    let text = fs::read_to_string(stream_file(&fixture)).expect("read");
    assert!(text.contains(r#""version": 2"#), "{text}");
    assert!(text.contains(r#""first": "55555555555555555555555555555555""#), "a third of all hash keys: {text}");
    drop((log, stream));
    assert_eq!(*fixture.open().0.stream(&name()).expect("the stream").shard_map(), ShardMap::even(3));
}

/// A stream whose shard 0 has five records and was split in the middle.
fn split(fixture: &Fixture, sealed: u64) -> crate::Result<Log> {
    let (log, shard) = fixture.open();
    append(&shard, 0..5);
    drop((log, shard));
    let text = format!(
        r#"{{"version": 2, "settings": {{"shards": 1}}, "shards": [
            {{"first": "00000000000000000000000000000000", "last": "ffffffffffffffffffffffffffffffff", "sealed": {sealed}}},
            {{"first": "00000000000000000000000000000000", "last": "7fffffffffffffffffffffffffffffff", "parents": [0]}},
            {{"first": "80000000000000000000000000000000", "last": "ffffffffffffffffffffffffffffffff", "parents": [0]}}
        ]}}"#
    );
    fs::write(stream_file(fixture), text).expect("write");
    for shard in ["00001", "00002"] {
        fs::create_dir_all(fixture.shard_folder().with_file_name(shard)).expect("a folder");
    }
    fixture.try_open()
}

#[test]
fn a_sealed_shard_is_read_to_its_end_and_refuses_appends() {
    let fixture = Fixture::new();
    let log = split(&fixture, 5).expect("opens");
    let stream = log.stream(&name()).expect("the stream");
    assert_eq!((stream.shard_count(), stream.shard_map().open().len()), (3, 2));
    assert_eq!((stream.route(Some(b"a")), stream.route(Some(b"abc"))), (ShardId(1), ShardId(2)));
    assert_eq!([0, 1, 2].map(|_| stream.route(None).0), [1, 2, 1], "only open shards take turns");
    let parent = stream.shard(ShardId(0)).expect("the parent");
    assert_eq!((all_values(&parent), parent.sealed_end()), (vec![0, 1, 2, 3, 4], Some(at(5))));
    let transaction = log.transaction(&super::transactions::id("t")).expect("begun");
    for append in [parent.append(batch(5..6)), transaction.append(&parent, batch(5..6))] {
        let error = append.wait().unwrap_err();
        assert_eq!(
            error.to_string(),
            "stream 'flights' shard 0 was split or merged, and takes no records after sequence number 5: go on in shard 1 and shard 2"
        );
        assert_eq!(error.kind(), ErrorKind::Unavailable, "the producer asks for the route again");
    }
    // Readers do not wait for what never comes.
    let mut tail = parent.tail(Isolation::ReadCommitted);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    assert_eq!(runtime.block_on(tail.changed(at(3))).expect("records"), at(5));
    assert!(matches!(runtime.block_on(tail.changed(at(5))), Err(LogError::ShardSealed { .. })));
    let child = stream.shard(ShardId(2)).expect("a child");
    assert_eq!((child.sealed_end(), child.end()), (None, at(0)));
    child.append(batch(7..9)).wait().expect("a child takes appends");
    let text = fs::read_to_string(stream_file(&fixture)).expect("read");
    drop((transaction, parent, child, stream, log));
    // Settings that change do not touch the map.
    let log = fixture.try_open().expect("opens");
    let stream = log.stream(&name()).expect("the stream");
    let settings = crate::StreamSettings {
        properties: BTreeMap::from([("key".to_owned(), "tailnum".to_owned())]),
        ..(*stream.settings()).clone()
    };
    log.alter_stream(&name(), settings).expect("altered");
    assert_ne!(fs::read_to_string(stream_file(&fixture)).expect("read"), text);
    let map = stream.shard_map().clone();
    drop((log, stream));
    let log = fixture.try_open().expect("opens");
    assert_eq!(*log.stream(&name()).expect("the stream").shard_map(), map);
}

#[test]
fn a_sealed_shard_without_its_last_records_is_damaged_and_so_is_a_map_with_a_gap() {
    let fixture = Fixture::new();
    let log = split(&fixture, 6).expect("opens");
    let error = log.stream(&name()).expect("the stream").shard(ShardId(0)).unwrap_err();
    assert!(error.to_string().contains("it ends at sequence number 5, but was sealed at 6"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    drop(log);
    let file = stream_file(&fixture);
    let good = fs::read_to_string(&file).expect("read");
    for (bad, reason) in [
        (good.replace("\"8000", "\"8001"), "hash keys of open shard 2 do not begin where"),
        (good.replace("\"8000", "\"x000"), "a hash key is not hexadecimal"),
        (good.replace("[0]", "[2]"), "has the parent 2, which is not a sealed shard before it"),
    ] {
        fs::write(&file, bad).expect("write");
        let error = fixture.try_open().unwrap_err();
        assert!(matches!(&error, LogError::Corrupt { path, .. } if *path == file), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
    fs::write(&file, good.replace("\"version\": 2", "\"version\": 3")).expect("write");
    assert!(matches!(fixture.try_open(), Err(LogError::NewerFormat { found: 3, .. })));
}
