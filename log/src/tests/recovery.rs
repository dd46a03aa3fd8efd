//! What was acknowledged is there after any stop, and damage is never taken for a torn write.

use std::fs::{self, OpenOptions};
use std::sync::Arc;

use coulee_model::{Classify, ErrorKind, ShardId, Timestamp};

use super::{Fixture, all_values, append, at, flip_bit, from_producer, name};
use crate::{Isolation, LogError, ProducerId, Shard};

#[test]
fn a_file_cut_at_any_byte_keeps_the_whole_batches_before() {
    let fixture = Fixture::with_one_segment();
    let (log, shard) = fixture.open();
    // Where each batch ends, with the number of records up to there.
    let mut ends = vec![(0, 0)];
    for i in 0..6 {
        append(&shard, i * 3..i * 3 + 3);
        ends.push((shard.size_bytes(), shard.end().0));
    }
    drop((log, shard));
    let path = &fixture.segments()[0];
    let whole = fs::read(path).expect("read");
    for cut in ends[3].0..=whole.len() as u64 {
        fixture.forget_shortcuts();
        fs::write(path, &whole[..cut as usize]).expect("cut");
        let (_log, shard) = fixture.open();
        let &(bytes, records) = ends.iter().rfind(|(end, _)| *end <= cut).expect("a batch before");
        assert_eq!(all_values(&shard), (0..records).collect::<Vec<_>>(), "cut at {cut}");
        assert_eq!(fs::metadata(path).expect("the file").len(), bytes, "the torn batch is gone");
        append(&shard, 0..1);
        assert_eq!(shard.end(), at(records + 1));
    }
}

#[test]
fn zeros_and_noise_after_the_last_batch_are_a_torn_write() {
    for tail in [vec![0; 5000], (0..5000u32).map(|i| ((i * 7919) >> 5) as u8).collect()] {
        let fixture = Fixture::with_one_segment();
        let (log, shard) = fixture.open();
        append(&shard, 0..10);
        drop((log, shard));
        let path = &fixture.segments()[0];
        let mut bytes = fs::read(path).expect("read");
        bytes.extend_from_slice(&tail);
        fs::write(path, bytes).expect("write");
        let (_log, shard) = fixture.open();
        assert_eq!(all_values(&shard), (0..10).collect::<Vec<_>>());
    }
}

#[test]
fn damage_before_sound_batches_is_refused_and_left_alone() {
    let fixture = Fixture::with_one_segment();
    let (log, shard) = fixture.open();
    let mut positions = vec![];
    for i in 0..5 {
        positions.push(shard.size_bytes());
        append(&shard, i * 3..i * 3 + 3);
    }
    drop((log, shard));
    let path = &fixture.segments()[0];
    let whole = fs::read(path).expect("read");
    let last = *positions.last().expect("batches");
    for position in (0..last).filter(|p| {
        // The leader epoch means nothing here.
        let batch = positions.iter().rfind(|start| *start <= p).expect("a batch");
        !(12..16).contains(&(p - batch))
    }) {
        fs::write(path, &whole).expect("write");
        fixture.forget_shortcuts();
        flip_bit(path, position);
        let damaged = fs::read(path).expect("read");
        let log = fixture.try_open().expect("the log itself opens");
        let error = log.stream(&name()).expect("the stream").shard(ShardId(0)).unwrap_err();
        let start = *positions.iter().rfind(|start| **start <= position).expect("a batch");
        match &error {
            LogError::Corrupt { path: named, position, .. } => assert_eq!((named, *position), (path, start), "{error}"),
            other => panic!("byte {position}: {other}"),
        }
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        drop(log);
        assert_eq!(fs::read(path).expect("read"), damaged, "byte {position}: untouched");
    }
    // In the last batch there is no telling.
    fs::write(path, &whole).expect("write");
    flip_bit(path, last + 70);
    let (_log, shard) = fixture.open();
    assert_eq!(shard.end(), at(12));
}

#[test]
fn a_batch_with_another_number_than_the_next_is_refused_by_readers() {
    // The checksum does not cover the number. The second batch of a closed segment: made larger, and a little smaller or larger.
    for byte in [3, 7] {
        let fixture = Fixture::new();
        let (log, shard) = fixture.open();
        while fixture.segments().len() < 3 {
            append(&shard, 0..5);
        }
        drop((log, shard));
        let damaged = &fixture.segments()[0];
        let bytes = fs::read(damaged).expect("read");
        let second = 12 + u32::from_be_bytes(bytes[8..12].try_into().expect("4 bytes"));
        flip_bit(damaged, u64::from(second) + byte);
        let (_log, shard) = fixture.open();
        for bytes_max in [1, 1 << 20] {
            let first = shard.read(at(0), bytes_max, Isolation::ReadCommitted).expect("the first batch is sound");
            assert_eq!(first.next, at(5));
            for from in [5, 7] {
                let error = shard.read(at(from), bytes_max, Isolation::ReadCommitted).unwrap_err();
                let is_there = matches!(&error, LogError::Corrupt { path, position, .. } if path == damaged && *position == u64::from(second));
                assert!(is_there, "from {from}: {error}");
            }
        }
    }
}

#[test]
fn a_search_by_time_in_a_damaged_segment_is_right_or_an_error() {
    let fixture = Fixture::in_memory();
    let (_log, shard) = fixture.open();
    let mut starts = Vec::new();
    while fixture.segments().len() < 2 {
        starts.push(shard.size_bytes());
        // Each record's time is its value, which is its sequence number.
        append(&shard, 5 * starts.len() as u64 - 5..5 * starts.len() as u64);
    }
    let (damaged, end) = (&fixture.segments()[0], shard.end().0);
    let whole = fs::read(damaged).expect("read");
    for position in 0..whole.len() as u64 {
        flip_bit(damaged, position);
        let batch = *starts.iter().rfind(|start| **start <= position).expect("a batch");
        let mut noticed = false;
        for wanted in 0..=end {
            match shard.sequence_at(Timestamp(wanted as i64), Isolation::ReadCommitted) {
                Ok(found) => assert_eq!(found, at(wanted), "byte {position}"),
                Err(LogError::Corrupt { path, position: named, .. }) => {
                    assert_eq!((&path, named), (damaged, batch), "byte {position}");
                    noticed = true;
                }
                Err(other) => panic!("byte {position}: {other}"),
            }
        }
        // The leader epoch means nothing here.
        assert_eq!(noticed, !(12..16).contains(&(position - batch)), "byte {position}");
        fs::write(damaged, &whole).expect("write");
    }
}

#[test]
fn a_damaged_closed_segment_is_met_by_its_readers_and_nobody_else() {
    for (damage, indexed) in [("bit", true), ("bit", false), ("cut", true), ("cut", false)] {
        let fixture = Fixture::new();
        let (log, shard) = fixture.open();
        while fixture.segments().len() < 4 {
            append(&shard, 0..5);
        }
        let (end, bytes) = (shard.end(), fs::metadata(&fixture.segments()[1]).expect("a file").len());
        drop((log, shard));
        let damaged = &fixture.segments()[1];
        match damage {
            "bit" => flip_bit(damaged, 75),
            _ => OpenOptions::new().write(true).open(damaged).and_then(|file| file.set_len(bytes - 1)).expect("cut"),
        }
        if !indexed {
            fs::remove_file(damaged.with_extension("index")).expect("removed");
        }
        let bases: Vec<u64> =
            fixture.segments().iter().map(|path| crate::files::segment::base_of(path).expect("a name")).collect();
        let (log, shard) = fixture.open();
        let read = |from: u64| -> crate::Result<Vec<u64>> {
            let (mut values, mut next) = (Vec::new(), at(from));
            let segment = bases.partition_point(|base| *base <= from);
            while next.0 < bases.get(segment).copied().unwrap_or(end.0) {
                let fetched = shard.read(next, 1, Isolation::ReadCommitted)?;
                for batch in fetched.batches() {
                    values.extend(batch?.decode()?.records().map(|record| record.sequence.0));
                }
                next = fetched.next;
            }
            Ok(values)
        };
        let error = read(bases[1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let is_known = damage == "cut" || !indexed;
        assert!(is_known || matches!(error, LogError::DamagedBatch { .. }), "a batch that was read: {error}");
        let located = shard.locate(error);
        assert!(matches!(&located, LogError::Corrupt { path, .. } if path == damaged), "{located}");
        for (segment, after) in [(0, bases[1]), (2, bases[3]), (3, end.0)] {
            assert_eq!(read(bases[segment]).expect("sound"), (bases[segment]..after).collect::<Vec<_>>());
        }
        append(&shard, 0..5);
        assert_eq!(shard.end(), end.plus(5));
        drop((log, shard));
        assert_eq!(fixture.open().1.end(), end.plus(5));
    }
}

#[test]
fn a_damaged_closed_segment_is_refused_when_nothing_else_says_who_the_producers_were() {
    let fixture = Fixture::new();
    let (log, shard) = fixture.open();
    while fixture.segments().len() < 3 {
        append(&shard, 0..5);
    }
    drop((log, shard));
    flip_bit(&fixture.segments()[0], 75);
    fixture.forget_shortcuts();
    let log = fixture.try_open().expect("the log itself opens");
    let error = log.stream(&name()).expect("the stream").shard(ShardId(0)).unwrap_err();
    assert!(matches!(&error, LogError::Corrupt { path, .. } if *path == fixture.segments()[0]), "{error}");
}

#[test]
fn a_missing_segment_is_noticed() {
    let fixture = Fixture::new();
    let (log, shard) = fixture.open();
    while fixture.segments().len() < 3 {
        append(&shard, 0..5);
    }
    drop((log, shard));
    fs::remove_file(&fixture.segments()[1]).expect("remove");
    let log = fixture.try_open().expect("the log itself opens");
    let error = log.stream(&name()).expect("the stream").shard(ShardId(0)).unwrap_err();
    assert!(error.to_string().contains("the next file begins at"), "{error}");
}

#[test]
fn an_index_of_another_length_or_with_a_flipped_bit_is_rebuilt() {
    let fixture = Fixture::new();
    let (log, shard) = fixture.open();
    for i in 0..40 {
        append(&shard, i * 5..i * 5 + 5);
    }
    drop((log, shard));
    let index = fixture.segments()[1].with_extension("index");
    let sound = fs::read(&index).expect("an index");
    for position in 0..sound.len() as u64 {
        fs::write(&index, &sound).expect("write");
        flip_bit(&index, position);
        let (_log, shard) = fixture.open();
        assert_eq!(all_values(&shard), (0..200).collect::<Vec<_>>(), "bit flipped in byte {position}");
    }
    OpenOptions::new().write(true).open(&index).and_then(|file| file.set_len(90)).expect("cut");
    let (_log, shard) = fixture.open();
    assert_eq!(all_values(&shard), (0..200).collect::<Vec<_>>());
}

#[test]
fn an_orderly_stop_spares_the_check_and_a_crash_after_it_does_not() {
    let fixture = Fixture::with_one_segment();
    let (log, shard) = fixture.open();
    append(&shard, 0..10);
    drop((log, shard));
    let (log, shard) = fixture.open();
    append(&shard, 10..20);
    let (path, index) = (&fixture.segments()[0], fixture.segments()[0].with_extension("index"));
    let (old_index, crashed) = (fs::read(&index).expect("of the first stop"), fs::read(path).expect("read"));
    drop((log, shard));
    // As if the second stop had never happened.
    fs::write(&index, old_index).expect("write");
    fs::write(path, &crashed).expect("write");
    let (_log, shard) = fixture.open();
    assert_eq!(all_values(&shard), (0..20).collect::<Vec<_>>());
}

#[test]
fn a_batch_sent_twice_is_stored_once_also_across_a_restart() {
    for (orderly, segment_bytes) in [(true, 1024), (false, 1024), (true, 1 << 20), (false, 1 << 20)] {
        let mut fixture = Fixture::new();
        fixture.settings.segment_bytes = segment_bytes;
        let (log, shard) = fixture.open();
        for i in 0..20 {
            let appended = shard.append(from_producer(3, i * 10, 10)).wait().expect("an append");
            assert!(!appended.duplicate);
        }
        check_retries(&shard);
        drop((log, shard));
        if !orderly {
            fixture.forget_shortcuts();
        }
        let (_log, shard) = fixture.open();
        check_retries(&shard);
        assert_eq!(shard.end(), at(200));
        assert_eq!(shard.append(from_producer(3, 200, 1)).wait().expect("the next").first, at(200));
    }
}

fn check_retries(shard: &Arc<Shard>) {
    assert_eq!(shard.producer_sequence(ProducerId(7)), Some((3, 199)));
    assert_eq!(shard.producer_sequence(ProducerId(8)), None);
    let again = shard.append(from_producer(3, 180, 10)).wait().expect("a retry");
    assert_eq!((again.first, again.last, again.duplicate), (at(180), at(189), true));
    let gap = shard.append(from_producer(3, 210, 10)).wait().unwrap_err();
    assert!(matches!(gap, LogError::OutOfOrderSequence { expected: 200, .. }), "{gap}");
    let fenced = shard.append(from_producer(2, 200, 10)).wait().unwrap_err();
    assert_eq!(fenced.kind(), ErrorKind::Fenced);
}
