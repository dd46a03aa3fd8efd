//! What holds for datagen: values within their bounds, the same rows from any position, and the pace.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{
    DataType, Field, Float64Type, Int16Type, Int64Type, Schema, TimeUnit, TimestampMillisecondType,
};
use coulee_model::{ManualClock, OperatorId, SubtaskIndex};
use coulee_runtime::metrics::SubtaskMetrics;

use super::*;

fn table(columns: &[(&str, DataType)], options: &[(&str, &str)]) -> TableSpec {
    let fields: Vec<Field> = columns.iter().map(|(name, of)| Field::new(*name, of.clone(), true)).collect();
    TableSpec {
        name: "g".to_owned(),
        schema: Arc::new(Schema::new(fields)),
        metadata_columns: BTreeMap::new(),
        primary_key: Vec::new(),
        partitioned_by: Vec::new(),
        options: options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        created_by: "test".to_owned(),
    }
}

fn source(table: &TableSpec) -> Arc<dyn Source> {
    let all: Vec<usize> = (0..table.schema.fields().len()).collect();
    DatagenConnector.source(table, &all).expect("a source")
}

fn context(batch_rows: usize, now: i64) -> (SourceContext, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(Timestamp(now)));
    let metrics = Arc::new(SubtaskMetrics::new(OperatorId(0), SubtaskIndex(0)));
    (SourceContext { batch_rows, clock: Arc::clone(&clock) as _, metrics }, clock)
}

async fn read(source: &dyn Source, split: &str, position: Option<Bytes>, batch_rows: usize, now: i64) -> RecordBatch {
    let (context, clock) = context(batch_rows, now);
    let mut reader =
        source.open(vec![SplitStart { id: SplitId(split.into()), position }], context).await.expect("open");
    // Far enough for every row to be due.
    clock.advance(1 << 40);
    let mut batches = Vec::new();
    while let SourceEvent::Rows { rows, .. } = reader.next().await.expect("an event") {
        assert!(rows.num_rows() <= batch_rows);
        batches.push(rows);
    }
    assert_eq!(reader.lag(), Some(0));
    concat_batches(&source.schema(), &batches).expect("one schema")
}

fn every_type() -> TableSpec {
    let columns = [
        ("id", DataType::Int64),
        ("small", DataType::Int16),
        ("price", DataType::Float64),
        ("ratio", DataType::Float32),
        ("amount", DataType::Decimal128(10, 2)),
        ("flag", DataType::Boolean),
        ("name", DataType::Utf8),
        ("raw", DataType::Binary),
        ("ts", DataType::Timestamp(TimeUnit::Millisecond, None)),
        ("day", DataType::Date32),
        ("clock", DataType::Time32(TimeUnit::Millisecond)),
        ("code", DataType::Utf8),
    ];
    let options = [
        ("fields.id.kind", "sequence"),
        ("fields.id.start", "10"),
        ("fields.id.end", "1009"),
        ("fields.small.min", "-3"),
        ("fields.small.max", "3"),
        ("fields.price.min", "1.5"),
        ("fields.price.max", "2"),
        ("fields.name.length", "20"),
        ("fields.name.null-rate", "0.25"),
        ("fields.raw.length", "0"),
        ("fields.ts.max-past", "1 s"),
        ("fields.code.kind", "sequence"),
        ("fields.code.start", "0"),
        ("fields.code.end", "99999"),
        ("rows-per-second", "1000"),
        ("datagen.splits", "2"),
    ];
    table(&columns, &options)
}

#[tokio::test]
async fn values_keep_within_what_was_asked_for() {
    let source = source(&every_type());
    assert!(source.is_bounded());
    let rows = read(&*source, "1-of-2", None, 100, 1_000_000).await;
    assert_eq!(rows.num_rows(), 500, "every other of 1,000: the shorter sequence");
    let column = |name: &str| rows.column_by_name(name).expect("the column");
    let ids = column("id").as_primitive::<Int64Type>();
    assert!(ids.values().iter().enumerate().all(|(i, id)| *id == 11 + 2 * i as i64));
    let small: std::collections::BTreeSet<i16> = column("small").as_primitive::<Int16Type>().iter().flatten().collect();
    assert_eq!(small, (-3..=3).collect());
    assert!(column("price").as_primitive::<Float64Type>().values().iter().all(|price| (1.5..2.0).contains(price)));
    let names = column("name").as_string::<i32>();
    assert!((90..160).contains(&names.null_count()), "a quarter: {}", names.null_count());
    assert!(names.iter().flatten().all(|name| name.len() == 20));
    assert_eq!(column("code").as_string::<i32>().value(1), "3");
    assert!(column("raw").as_binary::<i32>().iter().flatten().all(<[u8]>::is_empty));
    let times = column("ts").as_primitive::<TimestampMillisecondType>().values();
    for (i, time) in times.iter().enumerate() {
        let own = 1_000_000 + 1 + 2 * i as i64;
        assert!((own - 1000..=own).contains(time), "{time} for {own}");
    }
}

#[tokio::test]
async fn reading_on_from_any_position_gives_the_same_rows() {
    let source = source(&every_type());
    let undisturbed = read(&*source, "0-of-2", None, 500, 77).await;
    let (context, clock) = context(7, 77);
    let start = vec![SplitStart { id: SplitId("0-of-2".into()), position: None }];
    let mut reader = source.open(start, context).await.expect("a reader");
    clock.advance(1 << 40);
    let mut seen = 0;
    while let SourceEvent::Rows { rows, .. } = reader.next().await.expect("an event") {
        seen += rows.num_rows();
        let position = reader.position(0);
        // Later: the times of the rows stay.
        let rest = read(&*source, "0-of-2", Some(position), 64, 999_999).await;
        assert_eq!(rest, undisturbed.slice(seen, undisturbed.num_rows() - seen));
    }
    assert_eq!(seen, 500);
}

#[tokio::test]
async fn columns_do_not_depend_on_which_are_read() {
    let table = every_type();
    let full = read(&*source(&table), "0-of-2", None, 512, 0).await;
    for column in 0..full.num_columns() {
        let pruned = DatagenConnector.source(&table, &[column]).expect("a source");
        assert_eq!(read(&*pruned, "0-of-2", None, 512, 0).await.column(0), full.column(column));
    }
    let none = DatagenConnector.source(&table, &[]).expect("a source");
    assert_eq!(read(&*none, "0-of-2", None, 512, 0).await.num_rows(), 500, "a sequence ends it unread, too");
}

#[tokio::test]
async fn rows_come_when_they_are_due() {
    let table = table(&[("a", DataType::Int64)], &[("rows-per-second", "100"), ("number-of-rows", "50")]);
    let (context, clock) = context(1000, 0);
    let start = vec![SplitStart { id: SplitId("0-of-1".into()), position: None }];
    let mut reader = source(&table).open(start, context).await.expect("a reader");
    for (advance, expected) in [(0, 1), (10, 1), (100, 10), (35, 3), (5, 1), (60_000, 34)] {
        clock.advance(advance);
        match reader.next().await.expect("an event") {
            SourceEvent::Rows { rows, .. } => assert_eq!(rows.num_rows(), expected, "after {advance} ms more"),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(reader.next().await, Ok(SourceEvent::Ended { split: 0 })));
}

#[test]
fn a_clock_that_is_set_back_takes_nothing_back() {
    let mut pace = RateLimiter { rows_per_ms: 1.0, started: Timestamp(1000), elapsed_ms: 0, delivered: 0 };
    assert_eq!(pace.due(Timestamp(1010)), 11);
    pace.delivered = 11;
    assert_eq!(pace.due(Timestamp(500)), 0);
    assert_eq!(pace.wait(), LINGER);
    assert_eq!(pace.due(Timestamp(1011)), 1);
}

#[test]
fn errors_name_the_column_and_the_option() {
    let columns = [("a", DataType::Int8), ("s", DataType::Utf8)];
    for (options, message) in [
        (&[("fields.b.min", "1")][..], "table 'g': option 'fields.b.min': there is no column 'b'; there are a, s"),
        (&[("fields.a.mim", "1")], "table 'g': option 'fields.a.mim': did you mean 'min'? known are"),
        (&[("fields.a.max", "300")], "table 'g': option 'fields.a.max' is '300', expected a number from -128 to 127"),
        (&[("fields.a.min", "5"), ("fields.a.max", "4")], "is '5', expected at most 'fields.a.max', which is 4"),
        (&[("fields.a.kind", "sequence")], "option 'fields.a.start' is missing"),
        (&[("fields.a.kind", "other")], "expected 'random' or 'sequence'"),
        (&[("fields.s.null-rate", "2")], "expected a number from 0 to 1"),
        (&[("datagen.splits", "0")], "expected 1 to 1024"),
    ] {
        let error = DatagenConnector.create(&table(&columns, options)).unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    }
    let list = DataType::new_list(DataType::Int8, true);
    let error = DatagenConnector.create(&table(&[("l", list)], &[])).unwrap_err().to_string();
    assert!(error.contains("column 'l' is") && error.contains("datagen cannot make"), "{error}");
}

#[tokio::test]
async fn datagen_keeps_the_contract_of_sources() {
    let columns = [("id", DataType::Int64), ("price", DataType::Float64)];
    let options =
        [("number-of-rows", "23"), ("datagen.splits", "3"), ("rows-per-second", "1000000000"), ("base-time", "0")];
    let source = source(&table(&columns, &options));
    coulee_runtime::conformance::source_is_repeatable(&*source, Arc::new(coulee_model::SystemClock)).await;
}
