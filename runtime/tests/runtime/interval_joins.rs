//! Joins in event time in the harness: random rows of both sides, beside a nested loop.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use coulee_model::{SubtaskIndex, Timestamp};
use coulee_runtime::Batch;
use coulee_runtime::graph::{OperatorFactory, Port};
use coulee_runtime::harness::{Harness, Input, agrees, sorted_lines};
use coulee_runtime::join::{IntervalJoinSpec, JoinKind, JoinSpec, interval_join};
use coulee_runtime::operator::InputIndex;
use datafusion_common::ScalarValue;
use datafusion_expr::Operator;
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::{BinaryExpr, Column, Literal};

use crate::random::Random;
use crate::timed_rows::{LEFT, RIGHT, Row, columns, fields, schema, side};

/// A right row's time is from so many milliseconds before a left row's to so many behind it.
const BEFORE: i64 = 5;
const BEHIND: i64 = 10;

const KINDS: [JoinKind; 7] = [
    JoinKind::Inner,
    JoinKind::Left,
    JoinKind::Right,
    JoinKind::Full,
    JoinKind::LeftSemi,
    JoinKind::LeftAnti,
    JoinKind::LeftMark,
];

fn binary(left: Arc<dyn PhysicalExpr>, op: Operator, right: Arc<dyn PhysicalExpr>) -> Arc<dyn PhysicalExpr> {
    Arc::new(BinaryExpr::new(left, op, right))
}

/// Joins on `k = j`, where `t - 5 ms <= u <= t + 10 ms`.
fn joined(kind: JoinKind, of_windows: bool) -> Arc<dyn OperatorFactory> {
    let time = |name, index| Arc::new(Column::new(name, index)) as Arc<dyn PhysicalExpr>;
    let span = |millis| Arc::new(Literal::new(ScalarValue::new_interval_dt(0, millis))) as Arc<dyn PhysicalExpr>;
    let from = binary(time("u", 4), Operator::GtEq, binary(time("t", 1), Operator::Minus, span(BEFORE as i32)));
    let to = binary(time("u", 4), Operator::LtEq, binary(time("t", 1), Operator::Plus, span(BEHIND as i32)));
    let result = match kind {
        JoinKind::LeftSemi | JoinKind::LeftAnti => fields(LEFT),
        JoinKind::LeftMark => [fields(LEFT), vec![Field::new("mark", DataType::Boolean, false)]].concat(),
        _ => [fields(LEFT), fields(RIGHT)].concat(),
    };
    let join = JoinSpec {
        kind,
        left: side(LEFT, BEHIND),
        right: side(RIGHT, BEFORE),
        null_equals_null: false,
        condition: Some(binary(from, Operator::And, to)),
        schema: schema(result),
    };
    interval_join(IntervalJoinSpec { join, of_windows }).unwrap()
}

fn batch(of: usize, rows: &[Row]) -> Input {
    Input::RowsOf(InputIndex(of as u8), Batch::inserts(columns([LEFT, RIGHT][of], rows.iter().copied())))
}

/// Batches of both sides and watermarks, none of whose rows is behind a watermark; and all rows of each side.
fn history(seed: u64) -> (Vec<Input>, [Vec<Row>; 2]) {
    let mut random = Random(seed);
    let (mut inputs, mut all, mut watermark) = (Vec::new(), [Vec::new(), Vec::new()], -1);
    for _ in 0..16 {
        let of = random.below(2) as usize;
        let mut rows = Vec::new();
        for _ in 0..1 + random.below(4) {
            let key = (random.below(6) > 0).then(|| random.below(3) as i64);
            let time = (random.below(9) > 0).then(|| watermark + 1 + random.below(20) as i64);
            rows.push((key, time, random.below(2) as i64));
        }
        all[of].extend(rows.clone());
        inputs.push(batch(of, &rows));
        if random.below(3) == 0 {
            watermark += random.below(15) as i64;
            inputs.push(Input::Watermark(Timestamp(watermark)));
        }
    }
    (inputs, all)
}

/// A row as the harness shows it.
fn shown(row: &Row) -> Vec<String> {
    let text = |value: Option<i64>| value.map(|value| value.to_string()).unwrap_or_default();
    vec![text(row.0), row.1.map(super::windows::shown).unwrap_or_default(), text(Some(row.2))]
}

/// The join of all rows, by a nested loop.
fn expected(kind: JoinKind, [left, right]: &[Vec<Row>; 2]) -> Vec<String> {
    let matches = |a: &Row, b: &Row| match (a.1, b.1) {
        (Some(t), Some(u)) => a.0.is_some() && a.0 == b.0 && (t - BEFORE..=t + BEHIND).contains(&u),
        _ => false,
    };
    let none = || vec![String::new(); 3];
    let mut lines: Vec<Vec<String>> = Vec::new();
    for a in left {
        let found: Vec<&Row> = right.iter().filter(|b| matches(a, b)).collect();
        match kind {
            JoinKind::LeftSemi if !found.is_empty() => lines.push(shown(a)),
            JoinKind::LeftAnti if found.is_empty() => lines.push(shown(a)),
            JoinKind::LeftMark => lines.push([shown(a), vec![(!found.is_empty()).to_string()]].concat()),
            JoinKind::LeftSemi | JoinKind::LeftAnti => {}
            _ => {
                lines.extend(found.iter().map(|b| [shown(a), shown(b)].concat()));
                if found.is_empty() && matches!(kind, JoinKind::Left | JoinKind::Full) {
                    lines.push([shown(a), none()].concat());
                }
            }
        }
    }
    if matches!(kind, JoinKind::Right | JoinKind::Full) {
        let alone = right.iter().filter(|b| !left.iter().any(|a| matches(a, b)));
        lines.extend(alone.map(|b| [none(), shown(b)].concat()));
    }
    let mut lines: Vec<String> = lines.into_iter().map(|line| line.join(" | ")).collect();
    lines.sort();
    lines
}

#[test]
fn rows_that_are_not_late_give_the_join_of_all_rows() {
    let folder = tempfile::tempdir().unwrap();
    let mut count = 0;
    for kind in KINDS {
        for seed in 0..12 {
            let (inputs, all) = history(seed);
            let found = agrees(&joined(kind, false), &inputs, || {
                count += 1;
                folder.path().join(count.to_string())
            });
            let mut found = found.unwrap();
            found.sort();
            assert_eq!(found, expected(kind, &all), "{kind:?}, seed {seed}");
        }
    }
}

fn lines(harness: &mut Harness) -> Vec<String> {
    sorted_lines(&harness.take(Port::MAIN)).unwrap()
}

fn line(left: Option<Row>, right: Option<Row>) -> String {
    let part = |row: Option<Row>| row.map_or(vec![String::new(); 3], |row| shown(&row));
    [part(left), part(right)].concat().join(" | ")
}

fn row(time: i64) -> Row {
    (Some(1), Some(time), 0)
}

#[test]
fn pairs_leave_at_once_and_rows_alone_when_they_are_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::new(joined(JoinKind::Full, false), folder.path()).unwrap();
    harness.push(batch(0, &[row(100), row(130)])).unwrap();
    harness.push(batch(1, &[row(110), row(111)])).unwrap();
    assert_eq!(lines(&mut harness), [line(Some(row(100)), Some(row(110)))]);
    // 111 finds nothing from 116 on, and what leaves later is not older than 106.
    harness.push(Input::Watermark(Timestamp(115))).unwrap();
    assert!(lines(&mut harness).is_empty());
    assert_eq!(harness.take_watermarks(), [Timestamp(105)]);
    harness.push(Input::Watermark(Timestamp(116))).unwrap();
    assert_eq!(lines(&mut harness), [line(None, Some(row(111)))]);
    assert_eq!(harness.take_watermarks(), [Timestamp(106)]);
    harness.push(Input::Watermark(Timestamp(140))).unwrap();
    assert_eq!(lines(&mut harness), [line(Some(row(130)), None)]);
    harness.checkpoint().unwrap();
    harness.restart(SubtaskIndex(0), 1).unwrap();
    assert_eq!(harness.state_bytes(), 0, "nothing is kept");
    // The watermark is known after a restart: a row that is too late is joined with what is there and not kept.
    harness.push(batch(0, &[row(130)])).unwrap();
    assert_eq!(lines(&mut harness), [line(Some(row(130)), None)]);
    assert_eq!(harness.metrics().figures().late_rows(), 1);
}

#[test]
fn a_row_like_one_whose_partners_are_forgotten_is_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::new(joined(JoinKind::Left, false), folder.path()).unwrap();
    harness.push(batch(0, &[row(100)])).unwrap();
    harness.push(batch(1, &[row(100)])).unwrap();
    assert_eq!(lines(&mut harness), [line(Some(row(100)), Some(row(100)))]);
    harness.push(Input::Watermark(Timestamp(107))).unwrap();
    harness.push(batch(0, &[row(100)])).unwrap();
    assert_eq!(lines(&mut harness), [line(Some(row(100)), None)]);
    harness.end().unwrap();
    assert!(lines(&mut harness).is_empty());
}

#[test]
fn late_rows_of_windows_are_dropped_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let mut harness = Harness::new(joined(JoinKind::Full, true), folder.path()).unwrap();
    harness.push(Input::Watermark(Timestamp(140))).unwrap();
    harness.push(batch(0, &[row(130), row(131), (Some(1), None, 0)])).unwrap();
    harness.end().unwrap();
    assert_eq!(lines(&mut harness), [line(Some(row(131)), None)]);
    let counted = harness.metrics().figures();
    assert_eq!((counted.late_rows(), counted.timeless_rows()), (1, 1));
}
