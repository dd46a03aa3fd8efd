//! What holds for the generator: proportions, sizes, and that nothing depends on how the events are read.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use coulee_model::{ManualClock, OperatorId, SubtaskIndex, Timestamp};
use coulee_runtime::connector::{Source, SourceContext, SourceEvent, SplitId, SplitStart};
use coulee_runtime::metrics::SubtaskMetrics;
use coulee_runtime::table::{Connector, TableSpec};

use super::columns::full_schema;
use super::kind::Kind;
use super::{Generator, NexmarkConnector, NexmarkSettings};

fn table(schema: SchemaRef, options: &[(&str, &str)]) -> TableSpec {
    TableSpec {
        name: "n".to_owned(),
        schema,
        metadata_columns: BTreeMap::new(),
        primary_key: Vec::new(),
        partitioned_by: Vec::new(),
        options: options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        created_by: "test".to_owned(),
    }
}

fn source(kind: Option<Kind>, options: &[(&str, &str)]) -> Arc<dyn Source> {
    let mut options = options.to_vec();
    options.push(("nexmark.event", kind.map_or("all", Kind::name)));
    let schema = full_schema(kind);
    let all: Vec<usize> = (0..schema.fields().len()).collect();
    NexmarkConnector.source(&table(schema, &options), &all).expect("a source")
}

fn context(batch_rows: usize) -> SourceContext {
    SourceContext {
        batch_rows,
        clock: Arc::new(ManualClock::new(Timestamp(0))),
        metrics: Arc::new(SubtaskMetrics::new(OperatorId(0), SubtaskIndex(0))),
    }
}

/// Reads the splits to their ends: the rows of each, one after the other.
async fn read(source: &dyn Source, splits: &[(&str, Option<Bytes>)], batch_rows: usize) -> Vec<RecordBatch> {
    let starts =
        splits.iter().map(|(id, position)| SplitStart { id: SplitId((*id).into()), position: position.clone() });
    let mut reader = source.open(starts.collect(), context(batch_rows)).await.expect("a reader");
    let mut rows: Vec<Vec<RecordBatch>> = vec![Vec::new(); splits.len()];
    let mut open = splits.len();
    while open > 0 {
        match reader.next().await.expect("an event") {
            SourceEvent::Rows { split, rows: batch, rejected: None } => rows[split].push(batch),
            SourceEvent::Ended { .. } => open -= 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(reader.lag(), Some(0));
    rows.iter().map(|batches| concat_batches(&source.schema(), batches).expect("one schema")).collect()
}

#[tokio::test]
async fn of_50_events_one_is_a_person_and_three_are_auctions() {
    let all = source(None, &[("events.num", "50000"), ("nexmark.splits", "1")]);
    let rows = read(&*all, &[("0-of-1", None)], 4096).await.remove(0);
    assert_eq!(rows.num_rows(), 50_000);
    let types = rows.column(0).as_primitive::<Int32Type>();
    let count = |kind: i32| types.values().iter().filter(|t| **t == kind).count();
    assert_eq!((count(0), count(1), count(2)), (1_000, 3_000, 46_000));
    for (i, kind) in Kind::ALL.into_iter().enumerate() {
        let column = rows.column(1 + i);
        assert!((0..50_000).all(|row| column.is_valid(row) == (types.value(row) == kind as i32)), "{kind:?}");
    }
    let times = rows.column(4).as_primitive::<TimestampMillisecondType>();
    assert_eq!(times.value(0), 1_436_918_400_000);
    assert_eq!(times.value(49_999), 1_436_918_400_000 + 4_999, "10,000 events a second");

    // Half of the bids go to hot auctions, three quarters come from hot bidders.
    let bids = rows.column(3).as_struct();
    let hot = |name: &str, remainder: i64| {
        let ids = bids.column_by_name(name).expect("the field").as_primitive::<Int64Type>();
        ids.iter().flatten().filter(|id| id % 100 == remainder).count() as f64 / 46_000.0
    };
    assert!((0.49..0.53).contains(&hot("auction", 0)), "{}", hot("auction", 0));
    assert!((0.74..0.78).contains(&hot("bidder", 1)), "{}", hot("bidder", 1));
}

#[tokio::test]
async fn every_kind_counts_only_its_own_of_all_events() {
    // 103 events: two whole patterns, one person, two auctions.
    for (kind, expected) in [(Kind::Person, 3), (Kind::Auction, 8), (Kind::Bid, 92)] {
        let source = source(Some(kind), &[("events.num", "103")]);
        let rows = read(&*source, &[("0-of-2", None), ("1-of-2", None)], 10).await;
        assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), expected, "{kind:?}");
        assert!(rows.iter().all(|rows| rows.num_rows() > 0), "no split is without {kind:?}");
    }
}

#[tokio::test]
async fn a_kind_alone_has_the_values_it_has_among_all() {
    let all = source(None, &[("events.num", "500"), ("nexmark.splits", "1")]);
    let all = read(&*all, &[("0-of-1", None)], 64).await.remove(0);
    for (i, kind) in Kind::ALL.into_iter().enumerate() {
        let column = all.column(1 + i);
        let present = arrow::compute::is_not_null(column).expect("a mask");
        let among = arrow::compute::filter(column, &present).expect("a filter");
        let alone = source(Some(kind), &[("events.num", "500"), ("nexmark.splits", "1")]);
        let alone = read(&*alone, &[("0-of-1", None)], 7).await.remove(0);
        assert_eq!(among.as_struct().columns(), alone.columns(), "{kind:?}");
    }
}

#[tokio::test]
async fn reading_on_from_any_number_gives_the_same_events() {
    for kind in [None, Some(Kind::Bid), Some(Kind::Person)] {
        let source = source(kind, &[("events.num", "300"), ("nexmark.splits", "3"), ("nexmark.seed", "9")]);
        let undisturbed = read(&*source, &[("0-of-3", None), ("1-of-3", None), ("2-of-3", None)], 1024).await;
        for (split, rows) in undisturbed.iter().enumerate() {
            for read_before in 0..=rows.num_rows() {
                let position = Bytes::from((split + 3 * read_before).to_string());
                let rest = read(&*source, &[(&format!("{split}-of-3"), Some(position))], 11).await.remove(0);
                assert_eq!(rest, rows.slice(read_before, rows.num_rows() - read_before));
            }
        }
    }
}

#[tokio::test]
async fn positions_are_behind_the_last_row_returned() {
    let source = source(None, &[("events.num", "100"), ("nexmark.splits", "1")]);
    let start = vec![SplitStart { id: SplitId("0-of-1".into()), position: None }];
    let mut reader = source.open(start, context(30)).await.expect("a reader");
    let mut seen = 0;
    while let SourceEvent::Rows { rows, .. } = reader.next().await.expect("an event") {
        seen += rows.num_rows();
        assert_eq!(reader.position(0), seen.to_string());
        assert_eq!(reader.lag(), Some(100 - seen as u64));
    }
    assert_eq!(seen, 100);
}

#[tokio::test]
async fn columns_do_not_depend_on_which_are_read() {
    for kind in [None, Some(Kind::Person), Some(Kind::Auction), Some(Kind::Bid)] {
        let name = kind.map_or("all", Kind::name);
        let options = [("events.num", "200"), ("nexmark.splits", "1"), ("nexmark.event", name)];
        let full = read(&*source(kind, &options[..2]), &[("0-of-1", None)], 64).await.remove(0);
        for column in 0..full.num_columns() {
            let pruned = NexmarkConnector.source(&table(full.schema(), &options), &[column]).expect("a source");
            let pruned = read(&*pruned, &[("0-of-1", None)], 50).await.remove(0);
            assert_eq!(pruned.columns(), &full.columns()[column..=column]);
        }
        let none = NexmarkConnector.source(&table(full.schema(), &options), &[]).expect("a source");
        assert_eq!(read(&*none, &[("0-of-1", None)], 64).await[0].num_rows(), full.num_rows());
    }
}

#[tokio::test]
async fn json_has_the_values_of_the_columns() {
    let all = source(None, &[("events.num", "2000"), ("nexmark.splits", "1")]);
    let rows = read(&*all, &[("0-of-1", None)], 512).await.remove(0);
    let generator = Generator::new(NexmarkSettings { events: Some(2000), ..Default::default() }).expect("a generator");
    for row in 0..rows.num_rows() {
        let mut line = Vec::new();
        generator.json_line(row as u64, &mut line);
        let json: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(json["event_type"], rows.column(0).as_primitive::<Int32Type>().value(row));
        for (i, kind) in Kind::ALL.into_iter().enumerate() {
            let column = rows.column(1 + i).as_struct();
            if column.is_null(row) {
                assert!(json[kind.name()].is_null());
                continue;
            }
            for (field, values) in column.fields().iter().zip(column.columns()) {
                let expected: serde_json::Value = match field.data_type() {
                    DataType::Int64 => values.as_primitive::<Int64Type>().value(row).into(),
                    DataType::Utf8 => values.as_string::<i32>().value(row).into(),
                    _ => Timestamp(values.as_primitive::<TimestampMillisecondType>().value(row)).to_string().into(),
                };
                assert_eq!(json[kind.name()][field.name()], expected, "event {row}, {}", field.name());
            }
        }
    }
}

#[tokio::test]
async fn sizes_are_near_their_averages() {
    for (kind, average) in [(Kind::Person, 200.0), (Kind::Auction, 500.0), (Kind::Bid, 100.0)] {
        let source = source(Some(kind), &[("events.num", "100000"), ("nexmark.splits", "1")]);
        let rows = read(&*source, &[("0-of-1", None)], 8192).await.remove(0);
        let bytes: usize = rows
            .columns()
            .iter()
            .map(|column| column.as_string_opt::<i32>().map_or(8 * column.len(), |text| text.value_data().len()))
            .sum();
        let found = bytes as f64 / rows.num_rows() as f64;
        assert!((average * 0.9..average * 1.1).contains(&found), "{kind:?}: {found}");
    }
    let generator = Generator::new(NexmarkSettings::default()).expect("a generator");
    let mut lines = Vec::new();
    (0..10_000).for_each(|number| generator.json_line(number, &mut lines));
    assert!((270..=286).contains(&(lines.len() / 10_000)), "{} bytes a line", lines.len() / 10_000);
}

#[test]
fn another_seed_gives_other_events() {
    let line = |seed, number| {
        let mut line = Vec::new();
        let generator = Generator::new(NexmarkSettings { seed, ..Default::default() }).expect("a generator");
        generator.json_line(number, &mut line);
        line
    };
    assert_eq!(line(1, 77), line(1, 77));
    assert_ne!(line(1, 77), line(2, 77));
    assert_ne!(line(1, 77), line(1, 78));
}

#[tokio::test]
async fn columns_may_be_fewer_and_in_another_order_and_unit() {
    let bid = Field::new_struct("BID", vec![Field::new("price", DataType::Int64, true)], true);
    let time = Field::new("datetime", DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, None), true);
    let schema = Arc::new(Schema::new(vec![time, bid]));
    let options = [("events.num", "50"), ("nexmark.splits", "1")];
    let narrow = NexmarkConnector.source(&table(Arc::clone(&schema), &options), &[0, 1]).expect("a source");
    let narrow = read(&*narrow, &[("0-of-1", None)], 64).await.remove(0);
    assert_eq!(narrow.schema(), schema);
    let full = read(&*source(None, &options), &[("0-of-1", None)], 64).await.remove(0);
    let price = |rows: &RecordBatch, column: usize| -> Int64Array {
        rows.column(column).as_struct().column_by_name("price").expect("price").as_primitive().clone()
    };
    assert_eq!(price(&narrow, 1), price(&full, 3));
}

#[test]
fn errors_name_the_column_and_what_there_is() {
    let create = |schema: Vec<Field>, options: &[(&str, &str)]| {
        NexmarkConnector.create(&table(Arc::new(Schema::new(schema)), options)).unwrap_err().to_string()
    };
    let long = |name: &str| Field::new(name, DataType::Int64, true);
    assert_eq!(
        create(vec![long("prize")], &[("nexmark.event", "bid")]),
        "table 'n': nexmark has no column 'prize'; did you mean 'price'? there are auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING, dateTime TIMESTAMP(3), extra STRING"
    );
    assert_eq!(
        create(vec![long("url")], &[("nexmark.event", "bid")]),
        "table 'n': column 'url' is Int64, expected STRING"
    );
    assert_eq!(
        create(vec![long("price")], &[]),
        "table 'n': nexmark has no column 'price'; there are event_type, person, auction, bid, dateTime"
    );
    let message = create(vec![Field::new_struct("bid", vec![long("prize")], true)], &[]);
    assert!(message.starts_with("table 'n': nexmark has no field of column 'bid': 'prize'; did you mean"), "{message}");
    let message = create(vec![long("id")], &[("nexmark.event", "person"), ("person.proportion", "0")]);
    assert!(message.contains("'person.proportion' is 0"), "{message}");
    assert_eq!(
        create(vec![], &[("first-event.rate", "0")]),
        "table 'n': option 'first-event.rate' is 0, expected 1 to 1000000000"
    );
    let message = create(vec![], &[("person.proportion", "0"), ("auction.proportion", "0"), ("bid.proportion", "0")]);
    assert!(message.contains("all 0"), "{message}");
    assert!(create(vec![], &[("next-event.rate", "5")]).contains("differs from 'first-event.rate'"));
    assert!(create(vec![], &[("nexmark.splits", "0")]).contains("expected 1 to 1024"));
}

#[tokio::test]
async fn positions_of_other_splits_are_refused() {
    let source = source(None, &[]);
    for (id, position) in
        [("0-of-3", None), ("2-of-2", None), ("x", None), ("0-of-2", Some("1")), ("1-of-2", Some("y"))]
    {
        let start = SplitStart { id: SplitId(id.into()), position: position.map(Bytes::from) };
        assert!(source.open(vec![start], context(1)).await.is_err(), "{id} {position:?}");
    }
    assert!(!source.is_bounded());
}

#[tokio::test]
async fn nexmark_keeps_the_contract_of_sources() {
    let source = source(Some(Kind::Bid), &[("events.num", "50"), ("nexmark.splits", "3")]);
    coulee_runtime::conformance::source_is_repeatable(&*source, context(1).clock).await;
}
