//! Reading: every row once from any position, stops that stay, and waking up at the tail.

use arrow::datatypes::{TimeUnit, TimestampMillisecondType};
use coulee_runtime::Result;

use super::*;

async fn next(reader: &mut dyn SourceReader) -> SourceEvent {
    reader.next().await.expect("an event")
}

/// Reads until all shards are caught up or have ended: the ids of each.
async fn drain(reader: &mut dyn SourceReader, shards: usize) -> Vec<Vec<i64>> {
    let (mut found, mut open) = (vec![Vec::new(); shards], shards);
    while open > 0 {
        match next(reader).await {
            SourceEvent::Rows { split, rows, .. } => found[split].extend(ids(&rows)),
            SourceEvent::CaughtUp { .. } | SourceEvent::Ended { .. } => open -= 1,
            SourceEvent::Moved { .. } => {}
            SourceEvent::Changes { .. } => panic!("this stream is not a changelog"),
        }
    }
    found
}

#[tokio::test]
async fn reading_on_from_every_position_gives_the_same_rows() -> Result<()> {
    let place = Place::new();
    place.connector().create(&table(&[("shards", "2")]))?;
    append_ids(&place, 0, 0..25, 10);
    append_ids(&place, 1, 100..117, 5);
    let source = source(&place, &[]);
    assert!(!source.is_bounded() && source.knows_its_end());
    assert_eq!(source.enumerate(KnownSplits::default()).await?.splits.len(), 2);
    for batch_rows in [1, 3, 7, 1000] {
        let mut reader = open(&*source, &[("shard-00000", None), ("shard-00001", None)], batch_rows).await;
        assert_eq!(reader.lag(), Some(42));
        let mut seen = [Vec::new(), Vec::new()];
        loop {
            for (i, id) in ["shard-00000", "shard-00001"].into_iter().enumerate() {
                let mut again = open(&*source, &[(id, Some(reader.position(i)))], 4).await;
                let mut all = seen[i].clone();
                all.extend(drain(&mut *again, 1).await.remove(0));
                let expected: Vec<i64> = if i == 0 { (0..25).collect() } else { (100..117).collect() };
                assert_eq!(all, expected, "shard {i}, {batch_rows} rows a batch");
            }
            match next(&mut *reader).await {
                SourceEvent::Rows { split, rows, .. } => {
                    assert!(rows.num_rows() <= batch_rows);
                    seen[split].extend(ids(&rows));
                }
                _ if reader.lag() == Some(0) => break,
                _ => {}
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn shards_take_turns() -> Result<()> {
    let place = Place::new();
    place.connector().create(&table(&[("shards", "2")]))?;
    append_ids(&place, 0, 0..20, 20);
    append_ids(&place, 1, 0..20, 20);
    let mut reader = open(&*source(&place, &[]), &[("shard-00000", None), ("shard-00001", None)], 5).await;
    for expected in [0, 1, 0, 1, 0, 1, 0, 1] {
        assert!(matches!(next(&mut *reader).await, SourceEvent::Rows { split, .. } if split == expected));
    }
    Ok(())
}

#[tokio::test]
async fn a_bounded_source_stops_where_the_end_was_at_first() -> Result<()> {
    let place = Place::new();
    place.connector().create(&table(&[]))?;
    append_ids(&place, 0, 0..10, 4);
    let bounded = source(&place, &[("scan.bounded.mode", "latest-offset")]);
    assert!(bounded.is_bounded());
    let reader = open(&*bounded, &[("shard-00000", None)], 3).await;
    let first = reader.position(0);
    append_ids(&place, 0, 10..20, 4);
    // The stop lies within a batch of the log, whichever position it is read from.
    let mut reader = open(&*bounded, &[("shard-00000", Some(first))], 3).await;
    let mut seen = Vec::new();
    loop {
        let position = reader.position(0);
        match next(&mut *reader).await {
            SourceEvent::Rows { rows, .. } => seen.extend(ids(&rows)),
            SourceEvent::Ended { split: 0 } => break,
            other => panic!("{other:?}"),
        }
        let mut again = open(&*bounded, &[("shard-00000", Some(position))], 100).await;
        assert_eq!(drain(&mut *again, 1).await[0].last(), Some(&9));
    }
    assert_eq!(seen, (0..10).collect::<Vec<_>>());
    assert_eq!(reader.lag(), Some(0));
    // A new job sees the new end.
    let mut fresh = open(&*bounded, &[("shard-00000", None)], 100).await;
    assert_eq!(drain(&mut *fresh, 1).await[0].len(), 20);
    Ok(())
}

#[tokio::test]
async fn the_tail_wakes_a_reader_that_was_caught_up() -> Result<()> {
    let place = Place::new();
    place.connector().create(&table(&[("shards", "2")]))?;
    let source = source(&place, &[]);
    let mut reader = open(&*source, &[("shard-00000", None), ("shard-00001", None)], 10).await;
    for _ in 0..2 {
        assert!(matches!(next(&mut *reader).await, SourceEvent::CaughtUp { .. }));
    }
    for round in 0..3 {
        // Said once: now it waits, and a wait that is given up loses nothing.
        let positions = [reader.position(0), reader.position(1)];
        assert!(futures::poll!(std::pin::pin!(reader.next())).is_pending());
        assert_eq!([reader.position(0), reader.position(1)], positions);
        let waiting = tokio::spawn(async move {
            let event = reader.next().await;
            (reader, event)
        });
        append_ids(&place, 1, [round], 1);
        let (back, event) = waiting.await.expect("no panic");
        reader = back;
        match event? {
            SourceEvent::Rows { split: 1, rows, .. } => assert_eq!(ids(&rows), [round]),
            other => panic!("{other:?}"),
        }
        assert!(matches!(next(&mut *reader).await, SourceEvent::CaughtUp { split: 1 }), "caught up again");
    }
    place.log().delete_stream(&StreamName::new("t").expect("a name")).expect("deleted");
    assert!(reader.next().await.unwrap_err().to_string().contains("was deleted"));
    Ok(())
}

#[tokio::test]
async fn reading_starts_where_it_is_told() -> Result<()> {
    let place = Place::new();
    place.connector().create(&table(&[]))?;
    append_ids(&place, 0, 0..10, 10);
    for (options, expected) in [
        (&[("scan.startup.mode", "earliest-offset")][..], 10),
        (&[("scan.startup.mode", "latest-offset")], 0),
        // The records of a batch are 1 ms apart from 1000 on.
        (&[("scan.startup.mode", "timestamp"), ("scan.startup.timestamp-millis", "1007")], 3),
        (&[("scan.startup.mode", "specific-offsets"), ("scan.startup.specific-offsets", "partition:0,offset:4")], 6),
        (&[("scan.bounded.mode", "timestamp"), ("scan.bounded.timestamp-millis", "1002")], 2),
        (&[("scan.startup.mode", "latest-offset"), ("scan.bounded.mode", "latest-offset")], 0),
    ] {
        let mut reader = open(&*source(&place, options), &[("shard-00000", None)], 100).await;
        assert_eq!(drain(&mut *reader, 1).await[0].len(), expected, "{options:?}");
    }
    let beyond =
        open(&*source(&place, &[]), &[("shard-00000", Some(Bytes::from("{\"next\":99}")))], 1).await.next().await;
    assert!(beyond.unwrap_err().to_string().contains("past the end"));
    Ok(())
}

#[tokio::test]
async fn only_what_is_asked_for_is_decoded_and_put_in_place() -> Result<()> {
    let place = Place::new();
    place.connector().create(&table(&[]))?;
    append_ids(&place, 0, 5..8, 10);
    let mut spec = table(&[]);
    let of = |name: &str, data_type| Field::new(name, data_type, true);
    spec.schema = Arc::new(Schema::new(vec![
        of("at", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))),
        of("id", DataType::Int64),
        of("shard", DataType::Int32),
        of("name", DataType::Utf8),
        of("sequence", DataType::Int64),
        of("key", DataType::Utf8),
        of("from", DataType::Utf8),
    ]));
    let metadata =
        [("at", "timestamp"), ("shard", "partition"), ("sequence", "offset"), ("key", "key"), ("from", "topic")];
    spec.metadata_columns = metadata.map(|(column, key)| (column.to_owned(), key.to_owned())).into();
    let read = async |projection: &[usize]| {
        let source = place.connector().source(&spec, projection).expect("a source");
        match open(&*source, &[("shard-00000", None)], 100).await.next().await.expect("an event") {
            SourceEvent::Rows { rows, .. } => {
                assert_eq!(rows.schema(), source.schema());
                rows
            }
            other => panic!("{other:?}"),
        }
    };
    let full = read(&[0, 1, 2, 3, 4, 5, 6]).await;
    assert_eq!(full.column(0).as_primitive::<TimestampMillisecondType>().values(), &[1000, 1001, 1002]);
    assert_eq!(full.column(1).as_primitive::<Int64Type>().values(), &[5, 6, 7]);
    assert_eq!(full.column(3).as_string::<i32>().value(2), "n7");
    assert_eq!(full.column(4).as_primitive::<Int64Type>().values(), &[0, 1, 2]);
    assert_eq!((full.column(5).as_string::<i32>().value(0), full.column(6).as_string::<i32>().value(0)), ("k", "t"));
    for projection in [&[][..], &[3], &[4], &[0, 6], &[1, 2, 5]] {
        let pruned = read(projection).await;
        assert_eq!(pruned.num_rows(), 3);
        assert_eq!(pruned, full.project(projection).expect("columns"), "{projection:?}");
    }
    Ok(())
}

#[tokio::test]
async fn malformed_records_leave_beside_the_rows() -> Result<()> {
    let place = Place::new();
    place.connector().create(&table(&[]))?;
    let (one, two) = (json(1), json(2));
    // A tombstone is neither a row nor malformed.
    let tombstone: &[u8] = b"";
    place.append(0, &[b"{bad", &one, tombstone, b"\xff", &two, b"[1]"]);
    for batch_rows in [1, 100] {
        let source = source(&place, &[]);
        let mut reader = open(&*source, &[("shard-00000", None)], batch_rows).await;
        let (mut found, mut origins) = (Vec::new(), Vec::new());
        loop {
            // Whatever position a restart begins at, nothing is rejected twice or never.
            let position = reader.position(0);
            let mut again = open(&*source, &[("shard-00000", Some(position))], 100).await;
            let event = next(&mut *again).await;
            if let SourceEvent::Rows { rejected, .. } = &event {
                assert_eq!(origins.len() + rejected.as_ref().map_or(0, RecordBatch::num_rows), 3);
            }
            match next(&mut *reader).await {
                SourceEvent::Rows { rows, rejected, .. } => {
                    found.extend(ids(&rows));
                    let origin = rejected.map(|rejected| rejected.column(0).as_string::<i32>().clone());
                    origins.extend(origin.iter().flatten().flatten().map(str::to_owned));
                }
                _ => break,
            }
        }
        assert_eq!(found, [1, 2]);
        assert_eq!(origins, ["t/0@0", "t/0@3", "t/0@5"]);
    }
    let context = source_context(100);
    let start = || vec![SplitStart { id: SplitId("shard-00000".into()), position: None }];
    let mut skipping =
        source(&place, &[("format.on-error", "skip")]).open(start(), context.clone()).await.expect("a reader");
    assert!(matches!(next(&mut *skipping).await, SourceEvent::Rows { rejected: None, .. }));
    let figures = context.metrics.read();
    assert_eq!(figures.figures.rejected_rows(), 3);
    assert!(figures.last_reject.is_some());

    let mut failing = open(&*source(&place, &[("format.on-error", "fail")]), &[("shard-00000", None)], 100).await;
    assert!(failing.next().await.unwrap_err().to_string().starts_with("t/0@0: "));
    Ok(())
}

#[tokio::test]
async fn rejects_alone_are_an_event_without_rows() -> Result<()> {
    let place = Place::new();
    place.connector().create(&table(&[]))?;
    place.append(0, &[b"x", b"y"]);
    let mut reader = open(&*source(&place, &[]), &[("shard-00000", None)], 100).await;
    match next(&mut *reader).await {
        SourceEvent::Rows { rows, rejected: Some(rejected), .. } => {
            assert_eq!((rows.num_rows(), rejected.num_rows()), (0, 2));
        }
        other => panic!("{other:?}"),
    }
    // Skipped, they are none, but the position moves.
    let mut skipping = open(&*source(&place, &[("format.on-error", "skip")]), &[("shard-00000", None)], 100).await;
    assert!(!is_rows(&next(&mut *skipping).await));
    assert_eq!(skipping.position(0), "{\"next\":2}");
    assert_eq!(skipping.lag(), Some(0));
    Ok(())
}

#[tokio::test]
async fn committed_readers_wait_and_are_not_caught_up_while_a_transaction_is_open() -> Result<()> {
    let place = Place::new();
    place.connector().create(&table(&[]))?;
    append_ids(&place, 0, 0..3, 3);
    let shard = place.log().stream(&StreamName::new("t").expect("a name")).expect("it").shard(ShardId(0)).expect("it");
    let batch = |ids: std::ops::Range<i64>| {
        let mut batch = BatchBuilder::new(Compression::None);
        let bodies: Vec<Vec<u8>> = ids.map(json).collect();
        let record = |body| Record { key: None, value: Some(body), timestamp: Timestamp(0), headers: &[] };
        bodies.iter().for_each(|body| batch.push(&record(body)));
        batch
    };
    let id = coulee_log::TransactionalId::new("t").expect("a name");
    for (round, commit) in [(0, true), (1, false), (2, true)] {
        let mut transaction = place.log().transaction(&id).expect("begun");
        transaction.append(&shard, batch(10 * round + 10..10 * round + 13)).await.expect("appended");
        append_ids(&place, 0, [100 + round], 1);
        let committed = source(&place, &[]);
        let mut reader = open(&*committed, &[("shard-00000", None)], 100).await;
        let before = place.values("t")[0].len();
        match next(&mut *reader).await {
            SourceEvent::Rows { rows, .. } => assert_eq!(rows.num_rows(), before),
            other => panic!("{other:?}"),
        }
        assert!(futures::poll!(std::pin::pin!(reader.next())).is_pending(), "neither rows nor caught up");
        let position = reader.position(0);
        let uncommitted = source(&place, &[("scan.isolation-level", "read-uncommitted")]);
        let mut all = open(&*uncommitted, &[("shard-00000", Some(position.clone()))], 100).await;
        assert_eq!(drain(&mut *all, 1).await[0].last(), Some(&(100 + round)));
        // Bounded: up to what is decided now.
        let bounded = source(&place, &[("scan.bounded.mode", "latest-offset")]);
        assert_eq!(drain(&mut *open(&*bounded, &[("shard-00000", None)], 2).await, 1).await[0].len(), before);

        let waiting = tokio::spawn(async move { (drain(&mut *reader, 1).await, reader) });
        let prepared = transaction.prepare().await.expect("prepared");
        match commit {
            true => place.log().commit_transaction(&prepared).await.expect("committed"),
            false => place.log().abort_transaction(&prepared).await.expect("aborted"),
        }
        let (found, reader) = waiting.await.expect("no panic");
        let mut expected: Vec<i64> = if commit { (10 * round + 10..10 * round + 13).collect() } else { Vec::new() };
        expected.push(100 + round);
        assert_eq!(found, [expected.clone()], "woken by the end of the transaction");
        assert_eq!(reader.lag(), Some(0), "behind the marker");
        for batch_rows in [1, 2, 100] {
            let mut again = open(&*committed, &[("shard-00000", Some(position.clone()))], batch_rows).await;
            assert_eq!(drain(&mut *again, 1).await, [expected.clone()]);
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_paused_shard_is_left_out_until_it_goes_on() -> Result<()> {
    let place = Place::new();
    place.connector().create(&table(&[("shards", "2")]))?;
    append_ids(&place, 0, 0..25, 10);
    append_ids(&place, 1, 100..117, 5);
    let source = source(&place, &[]);
    let mut reader = open(&*source, &[("shard-00000", None), ("shard-00001", None)], 4).await;
    reader.set_paused(0, true);
    let mut others = Vec::new();
    while reader.lag() != Some(25) {
        let SourceEvent::Rows { split: 1, rows, .. } = next(&mut *reader).await else {
            panic!("the other shard's rows")
        };
        others.extend(ids(&rows));
    }
    assert_eq!(others, (100..117).collect::<Vec<i64>>());
    reader.set_paused(1, true);
    assert!(futures::poll!(&mut reader.next()).is_pending(), "with all shards paused there is nothing to wait for");
    reader.set_paused(0, false);
    let mut rest = Vec::new();
    while let SourceEvent::Rows { split: 0, rows, .. } = next(&mut *reader).await {
        rest.extend(ids(&rows));
    }
    assert_eq!(rest, (0..25).collect::<Vec<i64>>());
    Ok(())
}

#[tokio::test]
async fn a_stream_keeps_the_contract_of_sources() -> Result<()> {
    let place = Place::new();
    place.connector().create(&table(&[("shards", "2")]))?;
    append_ids(&place, 0, 0..25, 10);
    append_ids(&place, 1, 100..117, 5);
    place.append(1, &[b"{bad", b"", b"also bad"]);
    let source = source(&place, &[("scan.bounded.mode", "latest-offset")]);
    coulee_runtime::conformance::source_is_repeatable(&*source, source_context(10).clock).await;
    Ok(())
}
