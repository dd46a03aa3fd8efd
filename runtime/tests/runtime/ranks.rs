//! The first rows of each partition, in the harness: random histories beside a sort of what is left after each batch.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Int8Array, Int64Array};
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use coulee_model::SubtaskIndex;
use coulee_runtime::graph::Port;
use coulee_runtime::harness::{Harness, Input, changelog_lines};
use coulee_runtime::rank::{RankFunction, RankSpec, rank};
use coulee_runtime::{Batch, RowKind};
use datafusion_physical_expr::expressions::Column;

use crate::random::Random;

/// Partition, what is ordered by, and another value.
type Row = (i64, Option<i64>, i64);

fn schema(names: &[&str]) -> SchemaRef {
    Arc::new(Schema::new(names.iter().map(|name| Field::new(*name, DataType::Int64, true)).collect::<Vec<_>>()))
}

fn spec(function: RankFunction, (from, to): (u64, u64), has_number: bool, changelog: bool) -> RankSpec {
    RankSpec {
        partition: vec![Arc::new(Column::new("k", 0))],
        order: vec![(Arc::new(Column::new("x", 1)), SortOptions { descending: true, nulls_first: false })],
        function,
        from,
        to,
        has_number,
        changelog,
        ttl_millis: None,
        input: schema(&["k", "x", "v"]),
        schema: schema(&["k", "x", "v", "n"]),
    }
}

fn batch(rows: &[(RowKind, Row)]) -> Batch {
    let k: Int64Array = rows.iter().map(|(_, row)| Some(row.0)).collect();
    let x: Int64Array = rows.iter().map(|(_, row)| row.1).collect();
    let v: Int64Array = rows.iter().map(|(_, row)| Some(row.2)).collect();
    let columns = RecordBatch::try_new(schema(&["k", "x", "v"]), vec![Arc::new(k), Arc::new(x), Arc::new(v)]).unwrap();
    match rows.iter().all(|(kind, _)| *kind == RowKind::Insert) {
        true => Batch::inserts(columns),
        false => Batch::changes(columns, Int8Array::from_iter_values(rows.iter().map(|(kind, _)| *kind as i8))),
    }
}

/// What should be there: the rows with their numbers.
fn expected(spec: &RankSpec, rows: &[Row]) -> BTreeMap<String, i64> {
    let mut partitions: BTreeMap<i64, Vec<Row>> = BTreeMap::new();
    rows.iter().for_each(|row| partitions.entry(row.0).or_default().push(*row));
    let mut out = BTreeMap::new();
    for rows in partitions.values_mut() {
        // Descending with nulls last, then by the columns.
        rows.sort_by_key(|row| (std::cmp::Reverse(row.1), *row));
        for (index, row) in rows.iter().enumerate() {
            let above = rows.iter().filter(|other| other.1 > row.1);
            let number = match spec.function {
                RankFunction::RowNumber => index + 1,
                RankFunction::Rank => above.count() + 1,
                RankFunction::DenseRank => {
                    above.map(|other| other.1).collect::<std::collections::BTreeSet<_>>().len() + 1
                }
            } as u64;
            if (spec.from..=spec.to).contains(&number) {
                let text = |value: Option<i64>| value.map_or(String::new(), |value| value.to_string());
                let number = spec.has_number.then_some(number as i64);
                let line = format!("{} | {} | {} | {}", row.0, text(row.1), row.2, text(number));
                *out.entry(line).or_default() += 1;
            }
        }
    }
    out
}

/// Plays a random history, with or without a restart after each batch, and looks at what is there after each.
fn play(spec: &RankSpec, seed: u64, restarts: bool) {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::new(rank(spec.clone()), folder.path()).unwrap();
    let (mut random, mut left) = (Random(seed), Vec::<Row>::new());
    let mut shown: BTreeMap<String, i64> = BTreeMap::new();
    for step in 0..25 {
        let mut rows = Vec::new();
        for _ in 0..1 + random.below(4) {
            if spec.changelog && !left.is_empty() && random.below(3) == 0 {
                let row = left.swap_remove(random.below(left.len() as u64) as usize);
                rows.push((RowKind::Delete, row));
                continue;
            }
            let x = (random.below(6) > 0).then(|| random.below(4) as i64);
            let row = (random.below(2) as i64, x, random.below(3) as i64);
            left.push(row);
            rows.push((RowKind::Insert, row));
        }
        harness.push(Input::Rows(batch(&rows))).unwrap();
        for line in changelog_lines(&harness.take_batches(Port::MAIN)).unwrap_or_default() {
            let (kind, row) = line.split_once(" | ").unwrap();
            let count = shown.entry(row.trim_end().to_owned()).or_default();
            *count += if kind.starts_with('+') { 1 } else { -1 };
            assert!(*count >= 0, "{line} takes back what is not there");
        }
        shown.retain(|_, count| *count != 0);
        let wanted: BTreeMap<String, i64> =
            expected(spec, &left).into_iter().map(|(line, count)| (line.trim_end().to_owned(), count)).collect();
        assert_eq!(shown, wanted, "seed {seed}, step {step}, {spec:?}");
        if restarts {
            harness.checkpoint().unwrap();
            harness.restart(SubtaskIndex(0), 1).unwrap();
        }
    }
}

#[test]
fn the_first_rows_are_those_of_a_sort_after_every_batch() {
    let mut seed = 0;
    for function in [RankFunction::RowNumber, RankFunction::Rank, RankFunction::DenseRank] {
        for numbers in [(1, 1), (1, 3), (2, 4)] {
            for (has_number, changelog) in [(true, true), (true, false), (false, true), (false, false)] {
                seed += 1;
                play(&spec(function, numbers, has_number, changelog), seed, seed % 2 == 0);
            }
        }
    }
}

#[test]
fn a_row_that_comes_in_between_moves_the_others_or_leaves_them_alone() {
    let inserted = |has_number| {
        let folder = tempfile::tempdir().unwrap();
        let spec = spec(RankFunction::RowNumber, (1, 2), has_number, false);
        let mut harness = Harness::new(rank(spec), folder.path()).unwrap();
        let first = [(RowKind::Insert, (1, Some(9), 0)), (RowKind::Insert, (1, Some(5), 0))];
        harness.push(Input::Rows(batch(&first))).unwrap();
        harness.take_batches(Port::MAIN);
        harness.push(Input::Rows(batch(&[(RowKind::Insert, (1, Some(7), 0))]))).unwrap();
        changelog_lines(&harness.take_batches(Port::MAIN)).unwrap()
    };
    assert_eq!(inserted(true), ["-U | 1 | 5 | 0 | 2", "+U | 1 | 7 | 0 | 2"]);
    assert_eq!(inserted(false), ["-D | 1 | 5 | 0 | ", "+I | 1 | 7 | 0 | "]);
}

#[test]
fn appended_rows_behind_the_last_number_are_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::new(rank(spec(RankFunction::RowNumber, (1, 2), true, false)), folder.path()).unwrap();
    for start in (0..20_000).step_by(1_000) {
        let rows: Vec<_> =
            (start..start + 1_000).map(|x| (RowKind::Insert, (x % 5, Some((x * 7_919) % 20_000), x))).collect();
        harness.push(Input::Rows(batch(&rows))).unwrap();
        harness.checkpoint().unwrap();
    }
    assert!(harness.state_bytes() < 20_000, "{}", harness.state_bytes());
}
