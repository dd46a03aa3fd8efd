//! Opening, closing, making and deleting; and many appending at once.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use coulee_model::{ShardId, StreamName};

use super::{Fixture, all_values, append, at, batch, name};
use crate::{Compression, Isolation, LogError, StreamSettings, SyncPolicy};

#[test]
fn a_second_opener_is_told_who_has_the_lock() {
    let fixture = Fixture::new();
    let (log, _) = fixture.open();
    let error = fixture.try_open().unwrap_err();
    let expected = format!(
        "the log in {} is in use by process {}: stop that one, or use another folder",
        fixture.folder.path().display(),
        std::process::id()
    );
    assert_eq!(error.to_string(), expected);
    drop(log);
    assert!(fixture.try_open().is_ok(), "closing lets go");
}

#[test]
fn a_newer_format_is_refused() {
    let fixture = Fixture::new();
    drop(fixture.open());
    fs::write(fixture.folder.path().join("format.json"), r#"{"format": 9}"#).expect("write");
    let error = fixture.try_open().unwrap_err();
    assert!(error.to_string().contains("has format 9, and this version of Coulee knows up to 2"), "{error}");
    fs::remove_file(fixture.folder.path().join("format.json")).expect("remove");
    assert!(matches!(fixture.try_open(), Err(LogError::Corrupt { .. })), "streams of an unknown format");
}

#[test]
fn an_older_format_is_raised() {
    let fixture = Fixture::new();
    let (log, shard) = fixture.open();
    append(&shard, 0..10);
    drop((log, shard));
    let format = fixture.folder.path().join("format.json");
    fs::write(&format, r#"{"format": 1}"#).expect("write");
    fs::remove_file(fixture.folder.path().join("transactions.journal")).expect("format 1 had none");
    assert_eq!(all_values(&fixture.open().1), (0..10).collect::<Vec<_>>());
    assert_eq!(fs::read_to_string(format).expect("read"), r#"{"format":2}"#);
}

#[test]
fn streams_keep_their_settings_and_are_listed_by_name() {
    let fixture = Fixture::new();
    let settings = StreamSettings {
        shards: 3,
        sync: SyncPolicy::Os,
        compression: Compression::Zstd,
        retention_ms: Some(1),
        retention_bytes: Some(2),
        properties: BTreeMap::from([("key".to_owned(), "tailnum".to_owned())]),
    };
    let log = fixture.try_open().expect("opens");
    for stream in ["b", "a"] {
        log.create_stream(&StreamName::new(stream).expect("a name"), settings.clone()).expect("made");
    }
    let error = log.create_stream(&StreamName::new("a").expect("a name"), settings.clone()).unwrap_err();
    assert!(matches!(error, LogError::AlreadyExists { .. }), "{error}");
    assert_eq!(log.stream(&name()).unwrap_err().to_string(), "there is no stream 'flights'; the log has a, b");
    drop(log);
    // What a crash while making a stream leaves behind.
    fs::create_dir_all(fixture.folder.path().join("unfinished/c/00000")).expect("a draft");
    let log = fixture.try_open().expect("opens");
    let streams = log.streams();
    assert_eq!(streams.iter().map(|s| s.name().as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(*streams[0].settings(), settings);
    assert_eq!((streams[0].shard_count(), streams[0].shards().len()), (3, 3));
    let error = streams[0].shard(ShardId(3)).unwrap_err();
    assert_eq!(error.to_string(), "stream 'a' shard 3 does not exist: the stream has shards 0 to 2");
    assert!(!fixture.folder.path().join("unfinished/c").exists());
}

#[test]
fn settings_that_change_are_kept_and_take_effect() {
    let fixture = Fixture::new();
    let (log, shard) = fixture.open();
    while fixture.segments().len() < 3 {
        append(&shard, 0..5);
    }
    assert_eq!(log.enforce_retention().expect("nothing is old").segments, 0);
    let stream = log.stream(&name()).expect("the stream");
    let changed = StreamSettings {
        retention_bytes: Some(1),
        compression: Compression::Lz4,
        properties: BTreeMap::from([("key".to_owned(), "tailnum".to_owned())]),
        ..(*stream.settings()).clone()
    };
    log.alter_stream(&name(), changed.clone()).expect("altered");
    assert_eq!(*stream.settings(), changed, "those who have the stream see it");
    assert!(log.enforce_retention().expect("by the new settings").segments > 0);
    for (wrong, said) in [
        (
            StreamSettings { shards: 2, ..changed.clone() },
            "shards is 2: expected the number that the stream was made with",
        ),
        (StreamSettings { retention_ms: Some(-1), ..changed.clone() }, "retention_ms is -1"),
    ] {
        let error = log.alter_stream(&name(), wrong).unwrap_err();
        assert!(error.to_string().starts_with(said), "{error}");
    }
    let unknown = StreamName::new("unknown").expect("a name");
    assert!(matches!(log.alter_stream(&unknown, changed.clone()), Err(LogError::NotFound { .. })));
    let (log, _) = fixture.crashed().open();
    assert_eq!(*log.stream(&name()).expect("the stream").settings(), changed, "also after a crash");
}

#[test]
fn records_without_a_key_take_turns() {
    let mut fixture = Fixture::new();
    fixture.stream.shards = 3;
    let (log, _) = fixture.open();
    let stream = log.stream(&name()).expect("the stream");
    assert_eq!((0..4).map(|_| stream.route(None).0).collect::<Vec<_>>(), [0, 1, 2, 0]);
    assert_eq!(stream.route(Some(b"abc")), stream.route(Some(b"abc")));
}

#[test]
fn a_deleted_stream_refuses_and_its_name_begins_anew() {
    let fixture = Fixture::new();
    let (log, old) = fixture.open();
    append(&old, 0..10);
    log.delete_stream(&name()).expect("delete");
    for error in [
        old.append(batch(0..1)).wait().unwrap_err(),
        old.read(at(0), 100, Isolation::ReadUncommitted).unwrap_err(),
        old.sequence_at(coulee_model::Timestamp(0), Isolation::ReadUncommitted).unwrap_err(),
    ] {
        assert!(matches!(error, LogError::Deleted { .. }), "{error}");
    }
    assert!(matches!(log.delete_stream(&name()), Err(LogError::NotFound { .. })));
    log.create_stream(&name(), StreamSettings::default()).expect("made again");
    drop(log);
    let (_log, new) = fixture.open();
    assert_eq!(new.end(), at(0));
}

#[test]
fn a_shard_that_was_never_used_knows_its_end_after_a_restart() {
    let fixture = Fixture::new();
    let (log, shard) = fixture.open();
    append(&shard, 0..10);
    drop((log, shard));
    let log = fixture.try_open().expect("opens");
    let stream = log.stream(&name()).expect("the stream");
    assert_eq!(stream.shards()[0].end(), at(10));
}

#[test]
fn closing_writes_what_is_queued() {
    let fixture = Fixture::new();
    let (log, shard) = fixture.open();
    let appends: Vec<_> = (0..100).map(|i| shard.append(batch(i..i + 1))).collect();
    log.close();
    for append in appends {
        append.wait().expect("queued before it was closed");
    }
    assert!(matches!(shard.read(at(0), 1, Isolation::ReadUncommitted), Err(LogError::Closed { .. })));
    assert_eq!(all_values(&fixture.open().1), (0..100).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_append_at_once_and_every_record_is_there_after_a_restart() {
    const TASKS: u64 = 32;
    const BATCHES: u64 = 25;
    let fixture = Fixture::new();
    let (log, shard) = fixture.open();
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let shard = Arc::clone(&shard);
        tasks.spawn(async move {
            let mut firsts = Vec::new();
            for i in 0..BATCHES {
                let first = (task * BATCHES + i) * 2;
                shard.room().await;
                let appended = shard.append(batch(first..first + 2)).await.expect("an append");
                assert_eq!(appended.last, appended.first.plus(1));
                assert!(shard.end() > appended.last, "acknowledged is readable");
                firsts.push((appended.first.0, first));
            }
            assert!(firsts.is_sorted(), "the order of one task is kept");
            firsts
        });
    }
    let mut expected: Vec<(u64, u64)> = tasks.join_all().await.into_iter().flatten().collect();
    expected.sort_unstable();
    drop((log, shard));
    let (_log, shard) = fixture.open();
    let values = all_values(&shard);
    assert_eq!(values.len() as u64, TASKS * BATCHES * 2);
    for (sequence, first) in expected {
        assert_eq!(values[sequence as usize..][..2], [first, first + 1]);
    }
}
