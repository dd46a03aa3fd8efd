//! Upserts in the harness: random histories beside a map from key to row.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Int8Array, Int64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use coulee_runtime::graph::{OperatorFactory, Port};
use coulee_runtime::harness::{Harness, Input, agrees, changelog_lines};
use coulee_runtime::upsert::{UpsertSpec, changelog_normalize, upsert_materialize};
use coulee_runtime::{Batch, RowKind};

use crate::random::Random;

/// A key and a value, which is null in a delete that has the key alone.
type Row = (i64, Option<i64>);

fn schema(value_nullable: bool) -> SchemaRef {
    let value = Field::new("v", DataType::Int64, value_nullable);
    Arc::new(Schema::new(vec![Field::new("k", DataType::Int64, false), value]))
}

fn batch(rows: &[(RowKind, Row)]) -> Batch {
    let k = Int64Array::from_iter_values(rows.iter().map(|(_, row)| row.0));
    let v: Int64Array = rows.iter().map(|(_, row)| row.1).collect();
    let columns = RecordBatch::try_new(schema(true), vec![Arc::new(k), Arc::new(v)]).unwrap();
    Batch::changes(columns, Int8Array::from_iter_values(rows.iter().map(|(kind, _)| *kind as i8)))
}

fn spec() -> UpsertSpec {
    UpsertSpec { key: vec![0], schema: schema(false), ttl_millis: None }
}

fn run(factory: &Arc<dyn OperatorFactory>, history: &[Vec<(RowKind, Row)>]) -> Vec<String> {
    let folders = tempfile::tempdir().unwrap();
    let mut next = 0;
    let inputs: Vec<Input> = history.iter().map(|rows| Input::Rows(batch(rows))).collect();
    let folder = || {
        next += 1;
        folders.path().join(next.to_string())
    };
    agrees(factory, &inputs, folder).unwrap()
}

/// `+I | 1 | 2`
fn line(kind: RowKind, (key, value): (i64, i64)) -> String {
    format!("{} | {key} | {value}", kind.symbol())
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}

#[test]
fn upserts_get_the_rows_before_them() {
    for seed in 0..40 {
        let mut random = Random(seed);
        let (mut rows, mut history, mut expected) = (BTreeMap::<i64, i64>::new(), Vec::new(), Vec::new());
        for _ in 0..10 {
            let mut batch = Vec::new();
            for _ in 0..1 + random.below(5) {
                let (key, value) = (random.below(3) as i64, random.below(3) as i64);
                if random.below(3) == 0 {
                    batch.push((RowKind::Delete, (key, None)));
                    expected.extend(rows.remove(&key).map(|old| line(RowKind::Delete, (key, old))));
                    continue;
                }
                batch.push((RowKind::UpdateAfter, (key, Some(value))));
                match rows.insert(key, value) {
                    None => expected.push(line(RowKind::Insert, (key, value))),
                    Some(old) if old == value => {}
                    Some(old) => {
                        expected.push(line(RowKind::UpdateBefore, (key, old)));
                        expected.push(line(RowKind::UpdateAfter, (key, value)));
                    }
                }
            }
            history.push(batch);
        }
        let found = run(&changelog_normalize(spec()), &history);
        assert_eq!(sorted(found), sorted(expected), "seed {seed}");
    }
}

/// What a reader of the upserts has in the end is the last row that came of those that are left, of each key.
#[test]
fn upserts_are_the_last_rows_that_are_left() {
    for seed in 0..40 {
        let mut random = Random(seed);
        let (mut left, mut history) = (Vec::<(i64, i64)>::new(), Vec::new());
        for _ in 0..10 {
            let mut batch = Vec::new();
            for _ in 0..1 + random.below(5) {
                if !left.is_empty() && random.below(5) < 2 {
                    let row = left.remove(random.below(left.len() as u64) as usize);
                    let kind = if random.below(2) == 0 { RowKind::Delete } else { RowKind::UpdateBefore };
                    batch.push((kind, (row.0, Some(row.1))));
                    continue;
                }
                // Values are told apart, so that it is clear which one goes.
                let row = (random.below(3) as i64, random.below(1_000_000) as i64);
                left.push(row);
                batch.push((RowKind::Insert, (row.0, Some(row.1))));
            }
            history.push(batch);
        }
        let expected: BTreeMap<String, String> =
            left.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let folder = tempfile::tempdir().unwrap();
        let mut harness = Harness::new(upsert_materialize(spec()), folder.path()).unwrap();
        history.iter().for_each(|rows| harness.push(Input::Rows(batch(rows))).unwrap());
        harness.end().unwrap();
        let mut shown = BTreeMap::new();
        for line in changelog_lines(&harness.take_batches(Port::MAIN)).unwrap() {
            let parts: Vec<&str> = line.split(" | ").collect();
            let [kind, key, value] = parts[..] else { panic!("{line}") };
            let there = shown.contains_key(key);
            match kind {
                "+I" => assert!(!there, "seed {seed}: {line}"),
                "+U" => assert!(there, "seed {seed}: {line}"),
                "-D" => assert_eq!(shown.get(key).map(String::as_str), Some(value), "seed {seed}: {line}"),
                _ => panic!("seed {seed}: {line}"),
            }
            match kind {
                "-D" => shown.remove(key),
                _ => shown.insert(key.to_owned(), value.trim_end().to_owned()),
            };
        }
        assert_eq!(shown, expected, "seed {seed}");
        run(&upsert_materialize(spec()), &history);
    }
}
