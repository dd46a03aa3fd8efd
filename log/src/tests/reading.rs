//! Every record can be found by position and by time, across segments and with or without indexes.

use std::os::unix::fs::FileExt;
use std::sync::Arc;

use coulee_model::{Clock, ShardId, Timestamp};

use super::transactions::id;
use super::{Fixture, all_values, append, at, batch, name, records};
use crate::{BatchBuilder, Compression, FetchedRanges, Isolation, Log, LogError, Record, Shard};

const ALL: Isolation = Isolation::ReadUncommitted;

#[test]
fn reads_begin_with_the_batch_that_holds_the_record() {
    let fixture = Fixture::new();
    let (log, shard) = fixture.open();
    // Batches of 1 to 9 records, so that every position within a batch occurs.
    let mut batch_of = Vec::new();
    for i in 0..60 {
        let first = batch_of.len() as u64;
        let end = first + 1 + i % 9;
        append(&shard, first..end);
        batch_of.extend((first..end).map(|_| (first, end)));
    }
    assert!(fixture.segments().len() > 4, "rolled: {:?}", fixture.segments());
    let check = |shard: &Shard| {
        for (sequence, &(first, end)) in batch_of.iter().enumerate() {
            for bytes_max in [0, 1, 200, usize::MAX] {
                let fetched = shard.read(at(sequence as u64), bytes_max, ALL).expect("a read");
                let found = records(&fetched);
                assert_eq!(found[0], (first, first), "from {sequence}");
                assert!(fetched.next.0 >= end, "at least one batch");
                assert_eq!(found, (first..fetched.next.0).map(|i| (i, i)).collect::<Vec<_>>());
                assert_eq!(fetched.end, shard.end());
                let one = fetched.next.0 == end;
                assert!(one || fetched.bytes.len() <= bytes_max, "no more than asked for");
                assert!(one || bytes_max > 1);
            }
        }
        assert_eq!(all_values(shard), (0..batch_of.len() as u64).collect::<Vec<_>>());
    };
    check(&shard);
    drop(log);
    let (log, shard) = fixture.open();
    check(&shard);
    drop(log);
    fixture.forget_shortcuts();
    let (_log, shard) = fixture.open();
    check(&shard);
}

#[test]
fn positions_outside_are_errors_that_say_what_there_is() {
    let fixture = Fixture::new();
    let (_log, shard) = fixture.open();
    let empty = shard.read(at(0), 100, ALL).expect("the end can be read");
    assert!(empty.bytes.is_empty() && empty.next == at(0) && empty.end == at(0));
    append(&shard, 0..5);
    assert_eq!(shard.read(at(5), 100, ALL).expect("the end").batches().count(), 0);
    let error = shard.read(at(6), 100, ALL).unwrap_err();
    assert_eq!(
        error.to_string(),
        "stream 'flights' shard 0: sequence number 6 is past the end 5; was the stream deleted and made again?"
    );
}

#[test]
fn times_are_found_as_a_naive_search_finds_them() {
    let fixture = Fixture::new();
    let (log, shard) = fixture.open();
    let mut timestamps = Vec::new();
    // Out of order within batches, between batches and between segments.
    let mut random = 12345u64;
    for _ in 0..60 {
        let mut batch = BatchBuilder::new(Compression::Lz4);
        for _ in 0..7 {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let timestamp = Timestamp(timestamps.len() as i64 * 3 + (random >> 33) as i64 % 400);
            timestamps.push(timestamp);
            batch.push(&Record { key: None, value: Some(b"1"), timestamp, headers: &[] });
        }
        shard.append(batch).wait().expect("an append");
    }
    assert!(fixture.segments().len() > 3);
    let check = |shard: &Shard| {
        for wanted in (-5..1800).map(Timestamp).chain([Timestamp::MIN, Timestamp::MAX]) {
            let naive = timestamps.iter().position(|&t| t >= wanted).unwrap_or(timestamps.len());
            assert_eq!(shard.sequence_at(wanted, ALL).expect("a search"), at(naive as u64), "{}", wanted.millis());
        }
    };
    check(&shard);
    drop(log);
    fixture.forget_shortcuts();
    let (_log, shard) = fixture.open();
    check(&shard);
}

/// The bytes of ranges, read as whoever sends them would.
fn bytes_of(ranges: &FetchedRanges) -> Vec<u8> {
    let mut bytes = Vec::new();
    for range in &ranges.ranges {
        let start = bytes.len();
        bytes.resize(start + range.bytes as usize, 0);
        range.file.read_exact_at(&mut bytes[start..], range.position).expect("the file is still there");
        let first = u64::from_be_bytes(bytes[start..start + 8].try_into().expect("8 bytes"));
        assert_eq!(first, range.first.0, "each range begins with the batch that it says");
    }
    bytes
}

#[test]
fn ranges_of_files_hold_the_bytes_that_a_read_returns() {
    let fixture = Fixture::new();
    let (log, shard) = fixture.open();
    for i in 0..40 {
        append(&shard, i * 9..i * 9 + 1 + i % 9);
        if i % 10 == 5 {
            let transaction = log.transaction(&id("aborted")).expect("begun");
            transaction.append(&shard, batch(1000..1003)).wait().expect("appended");
            transaction.abort().wait().expect("aborted");
        }
    }
    let open = log.transaction(&id("open")).expect("begun");
    open.append(&shard, batch(1000..1003)).wait().expect("appended");
    append(&shard, 0..30);
    assert!(fixture.segments().len() > 3 && shard.last_stable_offset() < shard.end());
    let mut segments_of_one = 0;
    let check = |shard: &Shard, segments_of_one: &mut usize| {
        for isolation in [ALL, Isolation::ReadCommitted] {
            for from in 0..=shard.end().0 {
                for bytes_max in [0, 1, 100, 300, 1000, 2500, usize::MAX] {
                    let ranges = shard.fetch_ranges(at(from), bytes_max, isolation).expect("ranges");
                    *segments_of_one = ranges.ranges.len().max(*segments_of_one);
                    // The same, batch by batch.
                    let (mut expected, mut next, mut batches) = (Vec::new(), at(from), 0);
                    while next < ranges.next {
                        let fetched = shard.read(next, 1, isolation).expect("a read");
                        expected.extend_from_slice(&fetched.bytes);
                        (next, batches) = (fetched.next, batches + 1);
                    }
                    assert!(next == ranges.next && bytes_of(&ranges) == expected, "from {from}, {bytes_max} bytes");
                    assert!(batches == 1 || expected.len() <= bytes_max, "no more than asked for");
                    assert_eq!(
                        (batches == 0, ranges.bytes()),
                        (from >= shard.end_for(isolation).0, expected.len() as u64)
                    );
                    if next < shard.end_for(isolation) {
                        let following = shard.read(next, 1, isolation).expect("a read").bytes.len();
                        assert!(expected.len() + following > bytes_max, "as much as fits: from {from}, {bytes_max}");
                    }
                    let whole = shard.read(at(from), bytes_max, isolation).expect("a read");
                    let within = |range: &crate::AbortedTransaction| range.first < whole.next;
                    assert!(whole.aborted().eq(ranges.aborted().filter(within)), "from {from}");
                }
            }
        }
    };
    check(&shard, &mut segments_of_one);
    assert!(segments_of_one > 3, "a fetch spans segments");
    let error = shard.fetch_ranges(shard.end().plus(1), 1, ALL).unwrap_err();
    assert!(matches!(error, LogError::OutOfRange { .. }), "{error}");
    drop((open, log));
    fixture.forget_shortcuts();
    let (_log, shard) = fixture.open();
    check(&shard, &mut segments_of_one);
}

#[test]
fn ranges_stay_readable_after_retention_has_removed_their_segments() {
    let mut fixture = Fixture::new();
    fixture.stream.retention_bytes = Some(1);
    let (log, shard) = fixture.open();
    (0..100).for_each(|i| append(&shard, i * 5..i * 5 + 5));
    let ranges = shard.fetch_ranges(at(0), usize::MAX, ALL).expect("ranges");
    let before = bytes_of(&ranges);
    assert!(log.enforce_retention().expect("retention").segments > 3);
    assert!(matches!(shard.fetch_ranges(at(0), 1, ALL), Err(LogError::Trimmed { .. })));
    drop((log, shard));
    assert_eq!(bytes_of(&ranges), before);
    assert_eq!(ranges.next, at(500));
}

#[test]
fn append_times_are_found_to_the_second_also_when_the_clock_is_set_back() {
    let fixture = Fixture::with_one_segment();
    let (log, shard) = fixture.open();
    // By the clock of each batch, which stands still, runs, jumps and goes back.
    let mut appended: Vec<i64> = Vec::new();
    for step in [0, 10, 990, 0, 2500, -4000, 300, 300, 300, 5000, 7, 60_000, 1].iter().cycle().take(90) {
        fixture.clock.advance(*step);
        append(&shard, 0..3);
        // The record's own timestamps are those of 1970, and do not matter.
        let now = fixture.clock.now().millis();
        appended.extend([appended.last().map_or(now, |last| now.max(*last)); 3]);
    }
    let check = |shard: &Shard| {
        let find = |time| shard.sequence_at_append_time(Timestamp(time), ALL).expect("a search").0 as usize;
        for time in (appended[0] - 500..appended[appended.len() - 1] + 500).step_by(83) {
            let found = find(time);
            let naive = appended.iter().position(|&t| t >= time).unwrap_or(appended.len());
            assert!(found <= naive, "{time}: nothing is missed");
            assert!(appended[found..naive].iter().all(|&t| t >= time - 1000), "{time}: to the second");
        }
        assert_eq!((find(i64::MIN), find(i64::MAX)), (0, appended.len()));
    };
    check(&shard);
    drop((log, shard));
    let (log, shard) = fixture.open();
    check(&shard);
    drop((log, shard));
    // Without the index the times are lost: the search begins too early, never too late.
    fixture.forget_shortcuts();
    let (_log, shard) = fixture.open();
    assert_eq!(shard.sequence_at_append_time(Timestamp(appended[100]), ALL).expect("a search"), at(0));
}

#[test]
fn an_index_of_an_older_version_is_rebuilt() {
    let fixture = Fixture::new();
    let (log, shard) = fixture.open();
    (0..60).for_each(|i| append(&shard, i * 5..i * 5 + 5));
    drop((log, shard));
    for segment in fixture.segments() {
        let index = segment.with_extension("index");
        let mut bytes = std::fs::read(&index).expect("an index");
        bytes[..8].copy_from_slice(b"COULEEI2");
        let crc = crc32c::crc32c(&bytes[..84]);
        bytes[84..88].copy_from_slice(&crc.to_be_bytes());
        std::fs::write(&index, bytes).expect("write");
    }
    let (_log, shard) = fixture.open();
    assert_eq!(all_values(&shard), (0..300).collect::<Vec<_>>());
    for segment in &fixture.segments()[..3] {
        let bytes = std::fs::read(segment.with_extension("index")).expect("an index");
        assert!(bytes.starts_with(b"COULEEI3"), "written anew");
    }
}

#[test]
fn retention_by_time_removes_whole_segments_and_closes_the_last() {
    let mut fixture = Fixture::new();
    fixture.stream.retention_ms = Some(1000);
    let (log, shard) = fixture.open();
    while fixture.segments().len() < 4 {
        append(&shard, 0..5);
    }
    fixture.clock.advance(1000);
    assert_eq!(log.enforce_retention().expect("retention").segments, 0, "exactly as old as is kept");
    let end = shard.end();
    append(&shard, 0..5);
    fixture.clock.advance(1);
    let before = shard.size_bytes();
    let removed = log.enforce_retention().expect("retention");
    assert_eq!(removed.segments, 3, "the last has a younger append");
    assert_eq!(shard.size_bytes(), before - removed.bytes);
    assert!(shard.earliest() > at(0) && shard.earliest() < end);

    let error = shard.read(at(0), 100, ALL).unwrap_err();
    assert!(matches!(error, LogError::Trimmed { earliest, .. } if earliest == shard.earliest()), "{error}");
    assert_eq!(all_values(&shard).len() as u64, shard.end().0 - shard.earliest().0);

    fixture.clock.advance(2000);
    assert_eq!(log.enforce_retention().expect("retention").segments, 1);
    assert_eq!((shard.earliest(), shard.size_bytes()), (shard.end(), 0));
    let end = shard.end();
    drop(log);
    let (_log, shard) = fixture.open();
    assert_eq!((shard.earliest(), shard.end()), (end, end), "numbers are not given out again");
    append(&shard, 0..1);
    assert_eq!(records(&shard.read(end, 100, ALL).expect("a read")), [(end.0, 0)]);
}

#[test]
fn retention_by_size_keeps_at_least_that_much() {
    let mut fixture = Fixture::new();
    fixture.stream.retention_bytes = Some(2500);
    let (log, shard) = fixture.open();
    for _ in 0..100 {
        append(&shard, 0..5);
    }
    let removed = log.enforce_retention().expect("retention");
    assert!(removed.segments > 0);
    assert!((2500..2500 + 1024).contains(&shard.size_bytes()), "{}", shard.size_bytes());
    assert_eq!(log.enforce_retention().expect("again").segments, 0);
    assert_eq!(all_values(&shard).len() as u64, 500 - shard.earliest().0);
}

#[test]
fn segments_that_nobody_reads_let_go_and_can_be_read_again() {
    let fixture = Fixture::new();
    let (log, shard) = fixture.open();
    (0..100).for_each(|i| append(&shard, i * 5..i * 5 + 5));
    for _ in 0..2 {
        assert_eq!(all_values(&shard), (0..500).collect::<Vec<_>>());
        // The first call only notes that they were read.
        assert!(open_segment_files(&fixture) > 3);
        log.enforce_retention().expect("nothing to remove");
        assert!(open_segment_files(&fixture) > 3);
        log.enforce_retention().expect("nothing to remove");
        assert!(open_segment_files(&fixture) <= 2, "only the last one");
    }
}

/// How many descriptors this process has on files of the fixture's shard.
fn open_segment_files(fixture: &Fixture) -> usize {
    let descriptors = std::fs::read_dir("/proc/self/fd").expect("Linux");
    let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|target| target.starts_with(fixture.shard_folder())).count()
}

#[tokio::test]
async fn waiting_at_the_end_is_pushed() {
    let fixture = Fixture::new();
    let (log, shard) = fixture.open();
    let mut tail = shard.tail(ALL);
    append_from_a_thread(&shard, 3);
    // Without a push this would wait forever: there is no timer in this test.
    assert_eq!(tail.changed(at(0)).await.expect("records"), at(3));
    assert_eq!(tail.changed(at(2)).await.expect("already there"), at(3));

    let waiting = tokio::spawn(async move { tail.changed(at(3)).await });
    log.delete_stream(&name()).expect("delete");
    let error = waiting.await.expect("the task").unwrap_err();
    assert!(matches!(error, LogError::Deleted { .. }), "{error}");

    let shard = fixture_stream(&log, &fixture);
    let mut tail = shard.tail(ALL);
    let waiting = tokio::spawn(async move { tail.changed(at(0)).await });
    tokio::task::spawn_blocking(move || log.close()).await.expect("close");
    assert!(matches!(waiting.await.expect("the task"), Err(LogError::Closed { .. })));
    assert!(matches!(shard.append(batch(0..1)).await, Err(LogError::Closed { .. })));
}

fn fixture_stream(log: &Log, fixture: &Fixture) -> Arc<Shard> {
    let stream = log.create_stream(&name(), fixture.stream.clone()).expect("made again");
    stream.shard(ShardId(0)).expect("the shard")
}

fn append_from_a_thread(shard: &Arc<Shard>, count: u64) {
    let shard = Arc::clone(shard);
    std::thread::spawn(move || append(&shard, 0..count)).join().expect("the thread");
}
