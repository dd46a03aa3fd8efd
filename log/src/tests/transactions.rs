//! Committed readers see what was committed, in order, all of it or nothing; uncommitted readers see everything.

use std::sync::Arc;

use coulee_model::{Classify, ErrorKind, SequenceNumber, ShardId, Timestamp};

use super::{Fixture, all_values, append, at, batch, from_producer, name, records};
use crate::{
    BatchBuilder, Compression, Isolation, Log, LogError, ProducerId, Record, Result, Shard, Transaction,
    TransactionRef, TransactionalId,
};

const COMMITTED: Isolation = Isolation::ReadCommitted;
const ALL: Isolation = Isolation::ReadUncommitted;

pub(super) fn id(text: &str) -> TransactionalId {
    TransactionalId::new(text).expect("a name")
}

pub(super) fn prepare(transaction: &mut Transaction) -> Result<TransactionRef> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(transaction.prepare())
}

/// The log and all shards of its stream.
pub(super) fn open(fixture: &Fixture, shards: u32) -> (Log, Vec<Arc<Shard>>) {
    let fixture = Fixture { stream: crate::StreamSettings { shards, ..fixture.stream.clone() }, ..fixture.same() };
    let (log, _) = fixture.open();
    let stream = log.stream(&name()).expect("the stream");
    let shards = (0..shards).map(|shard| stream.shard(ShardId(shard)).expect("a shard")).collect();
    (log, shards)
}

/// The values that a reader sees from a position, read in small pieces, and where it ends.
pub(super) fn seen(shard: &Shard, from: u64, isolation: Isolation) -> Vec<u64> {
    let (mut values, mut next) = (Vec::new(), SequenceNumber(from));
    loop {
        let fetched = shard.read(next, 300, isolation).expect("a read");
        let found = records(&fetched).into_iter().filter(|(sequence, _)| *sequence >= from);
        values.extend(found.map(|(_, value)| value));
        next = fetched.next;
        if next >= fetched.end {
            assert!(next >= shard.end_for(isolation) || shard.end_for(isolation) > fetched.end);
            return values;
        }
    }
}

#[test]
fn a_commit_shows_all_shards_and_an_abort_none() {
    let fixture = Fixture::new();
    let (log, shards) = open(&fixture, 3);
    for (round, commit) in [(0, true), (1, false), (2, true)] {
        let mut transaction = log.transaction(&id("t")).expect("begun");
        for (shard, i) in shards.iter().zip(0..) {
            let first = round * 100 + i * 10;
            transaction.append(shard, batch(first..first + 3)).wait().expect("appended");
            transaction.append(shard, batch(first + 3..first + 5)).wait().expect("appended");
        }
        let ends: Vec<_> = shards.iter().map(|shard| shard.end()).collect();
        let prepared = prepare(&mut transaction).expect("prepared");
        assert_eq!(shards.iter().map(|shard| shard.end()).collect::<Vec<_>>(), ends, "nothing is written");
        assert_eq!(log.open_transactions("t"), std::slice::from_ref(&prepared));
        match commit {
            true => log.commit_transaction(&prepared).wait().expect("committed"),
            false => log.abort_transaction(&prepared).wait().expect("aborted"),
        }
        assert!(log.open_transactions("").is_empty());
        for (shard, end) in shards.iter().zip(ends) {
            assert_eq!((shard.last_stable_offset(), shard.end()), (end.plus(1), end.plus(1)), "and a marker");
            assert_eq!(shard.producer_sequence(prepared.producer), None, "forgotten");
        }
    }
    let check = |shards: &[Arc<Shard>]| {
        for (shard, i) in shards.iter().zip(0..) {
            let of = |round: u64| round * 100 + i * 10..round * 100 + i * 10 + 5;
            assert_eq!(shard.record_count(), 10);
            assert_eq!(seen(shard, 0, COMMITTED), of(0).chain(of(2)).collect::<Vec<_>>());
            assert_eq!(seen(shard, 0, ALL), of(0).chain(of(1)).chain(of(2)).collect::<Vec<_>>());
        }
    };
    check(&shards);
    drop((log, shards));
    let (log, shards) = open(&fixture, 3);
    check(&shards);
    drop((log, shards));
    fixture.forget_shortcuts();
    check(&open(&fixture, 3).1);
}

#[test]
fn an_open_transaction_holds_back_what_follows_it() {
    let fixture = Fixture::new();
    let (log, shard) = fixture.open();
    append(&shard, 0..2);
    let first = log.transaction(&id("a")).expect("begun");
    first.append(&shard, batch(10..12)).wait().expect("appended");
    append(&shard, 2..4);
    let mut second = log.transaction(&id("b")).expect("begun");
    second.append(&shard, batch(20..22)).wait().expect("appended");
    assert_eq!((shard.last_stable_offset(), shard.end(), shard.record_count()), (at(2), at(8), 2));
    assert_eq!(seen(&shard, 0, COMMITTED), [0, 1]);
    assert_eq!(seen(&shard, 0, ALL), [0, 1, 10, 11, 2, 3, 20, 21]);
    for from in 2..=8 {
        let fetched = shard.read(at(from), 1000, COMMITTED).expect("a read");
        assert!(fetched.bytes.is_empty() && fetched.next == fetched.end && fetched.next == at(from));
    }
    assert!(shard.read(at(9), 1000, COMMITTED).is_err(), "past the end");

    // The second ends first: what it holds waits for the first.
    let second = prepare(&mut second).expect("prepared");
    log.commit_transaction(&second).wait().expect("committed");
    assert_eq!(shard.last_stable_offset(), at(2));
    let mut tail = shard.tail(COMMITTED);
    let aborting = first.abort();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    // Without a push this would wait forever.
    assert_eq!(runtime.block_on(tail.changed(at(2))).expect("moved"), at(10));
    aborting.wait().expect("aborted");
    assert_eq!(seen(&shard, 0, COMMITTED), [0, 1, 2, 3, 20, 21]);
    let fetched = shard.read(at(0), 10_000, COMMITTED).expect("a read");
    let aborted: Vec<_> = fetched.aborted().map(|span| (span.first, span.last)).collect();
    assert_eq!((fetched.end, aborted), (at(10), vec![(at(2), at(9))]));
}

#[test]
fn ends_are_idempotent_and_contradictions_are_errors() {
    let fixture = Fixture::new();
    let (log, shard) = fixture.open();
    let begin = |value: u64| {
        let transaction = log.transaction(&id("t")).expect("begun");
        transaction.append(&shard, batch(value..value + 1)).wait().expect("appended");
        transaction
    };
    let committed = prepare(&mut begin(0)).expect("prepared");
    log.commit_transaction(&committed).wait().expect("committed");
    let aborted = prepare(&mut begin(1)).expect("prepared");
    log.abort_transaction(&aborted).wait().expect("aborted");
    let check = |log: &Log| {
        for _ in 0..2 {
            log.commit_transaction(&committed).wait().expect("it was");
            log.abort_transaction(&aborted).wait().expect("it was");
        }
        let error = log.commit_transaction(&aborted).wait().unwrap_err();
        assert!(matches!(&error, LogError::TransactionAborted { transaction } if *transaction == aborted), "{error}");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let error = log.abort_transaction(&committed).wait().unwrap_err();
        assert!(matches!(error, LogError::TransactionCommitted { .. }), "{error}");
        let foreign = TransactionRef { id: id("t"), producer: ProducerId(committed.producer.0 - 1) };
        for result in [log.commit_transaction(&foreign).wait(), log.abort_transaction(&foreign).wait()] {
            assert!(matches!(result, Err(LogError::UnknownTransaction { .. })), "{result:?}");
        }
    };
    check(&log);
    let open = begin(2);
    let listed = log.open_transactions("t").remove(0);
    let error = log.commit_transaction(&listed).wait().unwrap_err();
    assert!(matches!(error, LogError::TransactionNotPrepared { .. }), "{error}");
    log.abort_transaction(&listed).wait().expect("aborted by another");
    let error = open.append(&shard, batch(3..4)).wait().unwrap_err();
    assert!(matches!(error, LogError::TransactionEnded { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "its writer begins another");
    drop(open);
    drop(log);
    let (log, _) = fixture.open();
    check(&log);
    drop(log);
    check(&fixture.crashed().open().0);
}

#[test]
fn a_prepared_transaction_survives_a_crash_and_an_unprepared_one_is_aborted() {
    for commit in [true, false] {
        let fixture = Fixture::new();
        let (log, shards) = open(&fixture, 2);
        let mut prepared = log.transaction(&id("job/0")).expect("begun");
        let unprepared = log.transaction(&id("job/1")).expect("begun");
        for shard in &shards {
            prepared.append(shard, batch(0..3)).wait().expect("appended");
            unprepared.append(shard, batch(3..6)).wait().expect("appended");
            append(shard, 6..7);
        }
        let reference = prepare(&mut prepared).expect("prepared");
        let crashed = fixture.crashed();
        for _ in 0..2 {
            let (log, shards) = open(&crashed, 2);
            assert_eq!(log.open_transactions("job/"), std::slice::from_ref(&reference));
            assert!(log.open_transactions("jobs").is_empty());
            shards.iter().for_each(|shard| assert_eq!(seen(shard, 0, COMMITTED), [0; 0], "it is held back"));
        }
        let (log, shards) = open(&crashed, 2);
        match commit {
            true => log.commit_transaction(&reference).wait().expect("committed"),
            false => log.abort_transaction(&reference).wait().expect("aborted"),
        }
        let expected: &[u64] = if commit { &[0, 1, 2, 6] } else { &[6] };
        shards.iter().for_each(|shard| assert_eq!(seen(shard, 0, COMMITTED), expected));
        drop((log, shards));
        crashed.forget_shortcuts();
        let (_log, shards) = open(&crashed, 2);
        shards.iter().for_each(|shard| assert_eq!(seen(shard, 0, COMMITTED), expected));
    }
}

#[test]
fn a_dropped_transaction_is_aborted_and_a_newer_owner_fences_the_older() {
    let fixture = Fixture::new();
    let (log, shard) = fixture.open();
    let transaction = log.transaction(&id("t")).expect("begun");
    transaction.append(&shard, batch(0..1)).wait().expect("appended");
    drop(transaction);
    let mut older = log.transaction(&id("t")).expect("begun");
    older.append(&shard, batch(1..2)).wait().expect("appended");
    let mut newer = log.transaction(&id("t")).expect("begun");
    let error = older.append(&shard, batch(2..3)).wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert!(error.to_string().contains("a newer owner of its name"), "{error}");
    assert_eq!(prepare(&mut older).unwrap_err().kind(), ErrorKind::Fenced);
    newer.append(&shard, batch(3..4)).wait().expect("appended");
    let prepared = prepare(&mut newer).expect("prepared");
    // A prepared one is not fenced: its owner may have promised to commit it.
    drop(log.transaction(&id("t")).expect("begun"));
    log.commit_transaction(&prepared).wait().expect("committed");
    assert_eq!(seen(&shard, 0, COMMITTED), [3]);
}

#[test]
fn what_is_not_prepared_in_time_is_aborted() {
    let fixture = Fixture::new();
    let (log, shard) = fixture.open();
    let mut prepared = log.transaction(&id("a")).expect("begun");
    let slow = log.transaction(&id("b")).expect("begun");
    prepared.append(&shard, batch(0..1)).wait().expect("appended");
    slow.append(&shard, batch(1..2)).wait().expect("appended");
    let reference = prepare(&mut prepared).expect("prepared");
    fixture.clock.advance(fixture.settings.transaction_timeout_ms as i64);
    log.enforce_retention().expect("nothing to remove");
    assert_eq!(log.open_transactions("").len(), 2, "not longer than it may be");
    fixture.clock.advance(1);
    log.enforce_retention().expect("nothing to remove");
    let error = slow.append(&shard, batch(2..3)).wait().unwrap_err();
    assert!(error.to_string().contains("timeout"), "{error}");
    log.commit_transaction(&reference).wait().expect("committed");
    slow.abort().wait().expect("it was");
    assert_eq!(seen(&shard, 0, COMMITTED), [0]);
}

#[test]
fn a_transaction_with_a_failed_append_cannot_be_prepared() {
    let fixture = Fixture::new();
    let (log, shard) = fixture.open();
    let mut transaction = log.transaction(&id("t")).expect("begun");
    transaction.append(&shard, batch(0..1)).wait().expect("appended");
    // Nobody looks at this answer.
    drop(transaction.append(&shard, BatchBuilder::new(Compression::None)));
    let error = prepare(&mut transaction).unwrap_err();
    assert!(matches!(error, LogError::InvalidBatch { .. }), "{error}");
    drop(transaction);
    assert!(log.open_transactions("").is_empty());
    let encoded = |batch: BatchBuilder| BatchBuilder::from_encoded(batch.finish().expect("a batch").0);
    let stray = encoded(batch(0..1).transactional(ProducerId(5), 0)).expect("sound");
    let error = shard.append(stray).wait().unwrap_err();
    assert!(error.to_string().contains("this log did not begin"), "{error}");
    let mut marker = BatchBuilder::new(Compression::None).marker(ProducerId(5));
    marker.push(&Record { key: Some(b"\0\0\0\x01"), value: None, timestamp: Timestamp(0), headers: &[] });
    assert!(encoded(marker).unwrap_err().to_string().contains("control batch"));
}

#[test]
fn times_are_found_among_records_that_are_visible() {
    let fixture = Fixture::new();
    let (log, shard) = fixture.open();
    append(&shard, 0..5);
    let aborted = log.transaction(&id("t")).expect("begun");
    aborted.append(&shard, batch(50..60)).wait().expect("appended");
    aborted.abort().wait().expect("aborted");
    append(&shard, 5..10);
    let open = log.transaction(&id("t")).expect("begun");
    open.append(&shard, batch(70..80)).wait().expect("appended");
    // Five records, ten aborted, a marker, five records.
    let find = |time, isolation| shard.sequence_at(Timestamp(time), isolation).expect("a search").0;
    assert_eq!((find(3, COMMITTED), find(3, ALL)), (3, 3));
    assert_eq!((find(7, COMMITTED), find(7, ALL)), (18, 5));
    assert_eq!((find(75, COMMITTED), find(75, ALL)), (21, 26));
    // The time of a marker is that of the clock, far in the future of these records.
    assert_eq!((find(500, COMMITTED), find(500, ALL)), (21, 31));
}

#[test]
fn retention_spares_the_beginning_of_an_open_transaction() {
    let mut fixture = Fixture::new();
    fixture.stream.retention_bytes = Some(1);
    let (log, shard) = fixture.open();
    while fixture.segments().len() < 3 {
        append(&shard, 0..5);
    }
    let mut transaction = log.transaction(&id("t")).expect("begun");
    transaction.append(&shard, batch(100..105)).wait().expect("appended");
    let first = shard.last_stable_offset();
    let segments = fixture.segments().len();
    while fixture.segments().len() < segments + 3 {
        append(&shard, 0..5);
    }
    log.enforce_retention().expect("removed");
    assert!(shard.earliest() > at(0) && shard.earliest() <= first);
    let prepared = prepare(&mut transaction).expect("prepared");
    log.commit_transaction(&prepared).wait().expect("committed");
    assert_eq!(seen(&shard, first.0, COMMITTED)[..5], [100, 101, 102, 103, 104]);
    log.enforce_retention().expect("removed");
    assert!(shard.earliest() > first);
}

#[test]
fn aborted_transactions_go_with_their_records_and_survive_a_roll() {
    let mut fixture = Fixture::new();
    fixture.stream.retention_bytes = Some(3000);
    let (log, shard) = fixture.open();
    for i in 0..60 {
        let transaction = log.transaction(&id("t")).expect("begun");
        transaction.append(&shard, batch(1000..1003)).wait().expect("appended");
        transaction.abort().wait().expect("aborted");
        append(&shard, i..i + 1);
    }
    assert_eq!(seen(&shard, 0, COMMITTED), (0..60).collect::<Vec<_>>());
    assert_eq!(shard.record_count(), 60);
    let removed = log.enforce_retention().expect("removed");
    assert!(removed.segments > 0);
    let earliest = shard.earliest().0;
    let left = seen(&shard, earliest, COMMITTED);
    assert!(left.len() < 60 && left.iter().all(|value| *value < 60));
    drop((log, shard));
    let crashed = fixture.crashed();
    assert_eq!(seen(&fixture.open().1, earliest, COMMITTED), left);
    crashed.forget_shortcuts();
    assert_eq!(seen(&crashed.open().1, earliest, COMMITTED), left);
}

#[test]
fn ids_go_on_after_the_set_aside_ones_are_used_up() {
    let fixture = Fixture::new();
    let (log, shard) = fixture.open();
    let mut producers = Vec::new();
    for _ in 0..70_000 {
        match log.transaction(&id("t")) {
            Ok(transaction) => producers.extend(log.open_transactions("t").pop().map(|open| (open, transaction).0)),
            // Faster than the disk: waiting for anything that is written after it waits for it.
            Err(LogError::TransactionIdsExhausted) => append(&shard, 0..1),
            Err(other) => panic!("{other}"),
        }
    }
    assert!(producers.is_sorted_by(|a, b| a.producer < b.producer), "none is given out twice");
    drop((log, shard));
    let (log, _) = fixture.open();
    let transaction = log.transaction(&id("t")).expect("begun");
    let next = log.open_transactions("t").remove(0);
    assert!(next.producer > producers.last().expect("many").producer);
    drop(transaction);
}

#[test]
fn producers_whose_records_are_gone_are_forgotten_while_the_log_is_open() {
    let mut fixture = Fixture::new();
    fixture.stream.retention_bytes = Some(1);
    let (log, shard) = fixture.open();
    shard.append(from_producer(0, 0, 3)).wait().expect("appended");
    assert_eq!(shard.producer_sequence(ProducerId(7)), Some((0, 2)));
    while fixture.segments().len() < 3 {
        append(&shard, 0..5);
    }
    log.enforce_retention().expect("removed");
    assert_eq!(shard.producer_sequence(ProducerId(7)), None);
    assert_eq!(all_values(&shard).len() as u64, shard.end().0 - shard.earliest().0);
}

#[test]
fn a_stream_deleted_under_a_transaction_does_not_keep_it_from_ending() {
    let fixture = Fixture::new();
    let (log, shard) = fixture.open();
    let other = log.create_stream(&coulee_model::StreamName::new("other").expect("a name"), Default::default());
    let other = other.expect("made").shard(ShardId(0)).expect("a shard");
    let mut transaction = log.transaction(&id("t")).expect("begun");
    for shard in [&shard, &other] {
        transaction.append(shard, batch(0..3)).wait().expect("appended");
    }
    let prepared = prepare(&mut transaction).expect("prepared");
    let crashed = fixture.crashed();
    log.delete_stream(other.stream()).expect("deleted");
    log.commit_transaction(&prepared).wait().expect("committed");
    assert_eq!(seen(&shard, 0, COMMITTED), [0, 1, 2]);
    // And after a restart.
    let (log, shard) = crashed.open();
    log.delete_stream(&coulee_model::StreamName::new("other").expect("a name")).expect("deleted");
    log.commit_transaction(&prepared).wait().expect("committed");
    assert_eq!(seen(&shard, 0, COMMITTED), [0, 1, 2]);
}

#[test]
fn the_queue_forgets_producers_that_are_too_many() {
    let mut fixture = Fixture::in_memory();
    fixture.settings.segment_bytes = 6 << 20;
    fixture.stream.sync = crate::SyncPolicy::Os;
    let (_log, shard) = fixture.open();
    let appends: Vec<_> =
        (0..70_000).map(|producer| shard.append(batch(0..1).producer(ProducerId(producer), 0, 0))).collect();
    for append in appends {
        append.wait().expect("appended");
    }
    while fixture.segments().len() < 2 {
        append(&shard, 0..50);
    }
    assert_eq!(shard.producer_sequence(ProducerId(0)), None, "the quietest");
    assert_eq!(shard.producer_sequence(ProducerId(69_999)), Some((0, 0)));
}
