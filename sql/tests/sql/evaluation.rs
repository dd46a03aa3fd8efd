//! Queries over rows: the planned operators, run one after the other.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int8Array, Int32Array, StringArray, TimestampMillisecondArray};
use arrow::record_batch::RecordBatch;
use coulee_model::Timestamp;
use coulee_runtime::graph::{NodeKind, Port};
use coulee_runtime::harness::{Harness, Input, sorted_lines};
use coulee_runtime::{Batch, RowKind};
use coulee_sql::Effect;

use crate::run;

const HOUR: i64 = 3_600_000;

/// Rows of `flights`: the columns that the source was asked for.
fn flights(schema: &arrow::datatypes::SchemaRef) -> RecordBatch {
    let column = |name: &str| -> ArrayRef {
        match name {
            "carrier" => Arc::new(StringArray::from(vec!["UA", "UA", "AA", "UA", "AA"])),
            "origin" => Arc::new(StringArray::from(vec![Some("JFK"), None, Some("LGA"), Some("JFK"), Some("EWR")])),
            "delay" => Arc::new(Int32Array::from(vec![Some(5), Some(20), None, Some(40), Some(1)])),
            _ => {
                let times = vec![Some(10), Some(HOUR - 1), Some(-1), None, Some(HOUR)];
                Arc::new(TimestampMillisecondArray::from(times))
            }
        }
    };
    let columns = schema.fields().iter().map(|field| column(field.name())).collect();
    RecordBatch::try_new(schema.clone(), columns).expect("the rows")
}

/// The same as a changelog that takes back the second row.
fn corrected(schema: &arrow::datatypes::SchemaRef) -> Vec<Batch> {
    let rows = flights(schema);
    let kinds = |kind: RowKind, rows: usize| Int8Array::from(vec![kind as i8; rows]);
    let gone = Batch::changes(rows.slice(1, 1), kinds(RowKind::Delete, 1));
    vec![Batch::changes(rows, kinds(RowKind::Insert, 5)), gone]
}

/// The rows of a query with one source and no branches.
pub fn evaluate(query: &str) -> Vec<String> {
    let rows = batches_of(query).unwrap_or_else(|error| panic!("{error}"));
    sorted_lines(&rows).expect("lines")
}

/// The batches of such a query, or why it is refused or a row fails.
pub fn batches_of(query: &str) -> Result<Vec<RecordBatch>, String> {
    let effect = run(1, query).map_err(|error| error.to_string())?;
    let Effect::Query(job, _) = effect else { panic!("a query") };
    let mut batches = Vec::new();
    for node in &job.graph.nodes {
        match &node.kind {
            NodeKind::Source(source) if source.source.is_changelog() => batches = corrected(&source.source.schema()),
            NodeKind::Source(source) => batches = vec![Batch::inserts(flights(&source.source.schema()))],
            NodeKind::Operator(factory) => {
                let dir = tempfile::tempdir().expect("a folder");
                let mut harness = Harness::new(factory.clone(), dir.path()).expect("an operator");
                for batch in batches.drain(..) {
                    harness.push(Input::Rows(batch)).map_err(|error| error.to_string())?;
                }
                harness.push(Input::Watermark(Timestamp(HOUR))).expect("a watermark");
                harness.end().expect("the end");
                batches = harness.take_batches(Port::MAIN);
            }
            NodeKind::Sink(_) => {}
        }
    }
    Ok(batches.into_iter().map(Batch::into_rows).collect())
}

fn check(query: &str, expected: &[&str]) {
    assert_eq!(evaluate(query), expected, "{query}");
}

#[test]
fn windows_are_half_open_hold_negative_times_and_skip_null() {
    check(
        "SELECT window_start, window_end, window_time, carrier, COUNT(*), SUM(delay)
         FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' HOUR))
         GROUP BY window_start, window_end, window_time, carrier",
        &[
            "1969-12-31T23:00:00 | 1970-01-01T00:00:00 | 1969-12-31T23:59:59.999 | AA | 1 | ",
            "1970-01-01T00:00:00 | 1970-01-01T01:00:00 | 1970-01-01T00:59:59.999 | UA | 2 | 25",
            "1970-01-01T01:00:00 | 1970-01-01T02:00:00 | 1970-01-01T01:59:59.999 | AA | 1 | 1",
        ],
    );
}

#[test]
fn a_window_over_a_changelog_gives_what_is_left() {
    check(
        "SELECT window_start, carrier, COUNT(*), SUM(delay), MAX(delay), COUNT(DISTINCT delay), COUNT(*) FILTER (WHERE delay > 5)
         FROM TABLE(TUMBLE(TABLE corrections, DESCRIPTOR(departed_at), INTERVAL '1' HOUR)) WHERE carrier <> 'XX'
         GROUP BY window_start, window_end, carrier",
        &[
            "1969-12-31T23:00:00 | AA | 1 |  |  | 0 | 0",
            "1970-01-01T00:00:00 | UA | 1 | 5 | 5 | 1 | 0",
            "1970-01-01T01:00:00 | AA | 1 | 1 | 1 | 1 | 0",
        ],
    );
}

#[test]
fn an_offset_moves_windows() {
    check(
        "SELECT window_start, COUNT(*)
         FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' HOUR, INTERVAL '-30' MINUTE)) GROUP BY window_start",
        &["1969-12-31T23:30:00 | 2", "1970-01-01T00:30:00 | 2"],
    );
}

#[test]
fn having_distinct_filter_and_a_window_over_windows() {
    check(
        "SELECT carrier, COUNT(DISTINCT origin), COUNT(*) FILTER (WHERE delay > 10), AVG(delay)
         FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' HOUR))
         GROUP BY window_end, carrier HAVING COUNT(*) > 1",
        &["UA | 1 | 1 | 12.5"],
    );
    check(
        "WITH hourly AS (
           SELECT carrier, window_time AS rowtime, COUNT(*) AS n
           FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' HOUR)) GROUP BY window_time, carrier)
         SELECT window_start, SUM(n), MAX(n) FROM TABLE(TUMBLE(TABLE hourly, DESCRIPTOR(rowtime), INTERVAL '1' DAY)) GROUP BY window_start",
        &["1969-12-31T00:00:00 | 1 | 1", "1970-01-01T00:00:00 | 3 | 2"],
    );
}

#[test]
fn flinks_functions() {
    check(
        "SELECT DATE_FORMAT(departed_at, 'yyyy-MM-dd HH:mm:ss.SSS'), HOUR(departed_at), YEAR(departed_at), SUBSTRING(carrier, 1, 1),
           TO_TIMESTAMP_LTZ(delay, 0), TO_TIMESTAMP('2020-10-10 12:00:00'), delay / 2, CAST(departed_at AS DATE)
         FROM flights WHERE origin = 'LGA' OR delay = 1",
        &[
            "1969-12-31 23:59:59.999 | 23 | 1969 | A |  | 2020-10-10T12:00:00 |  | 1969-12-31",
            "1970-01-01 01:00:00.000 | 1 | 1970 | A | 1970-01-01T00:00:01Z | 2020-10-10T12:00:00 | 0 | 1970-01-01",
        ],
    );
}

#[test]
fn group_windows_are_the_window_table_function() {
    let expected = [
        "1969-12-31T23:00:00 | 1970-01-01T00:00:00 | 1969-12-31T23:59:59.999 | AA | 1",
        "1970-01-01T00:00:00 | 1970-01-01T01:00:00 | 1970-01-01T00:59:59.999 | UA | 2",
        "1970-01-01T01:00:00 | 1970-01-01T02:00:00 | 1970-01-01T01:59:59.999 | AA | 1",
    ];
    let columns = "TUMBLE_START(departed_at, INTERVAL '1' HOUR) AS s, TUMBLE_END(departed_at, INTERVAL '1' HOUR),
         TUMBLE_ROWTIME(departed_at, INTERVAL '1' HOUR), carrier, COUNT(*)";
    let group = "GROUP BY TUMBLE(departed_at, INTERVAL '1' HOUR), carrier";
    check(&format!("SELECT {columns} FROM flights {group}"), &expected);
    check(&format!("SELECT {columns} FROM flights AS f WHERE f.carrier <> 'x' {group} HAVING COUNT(*) > 0"), &expected);
    check(&format!("SELECT {columns} FROM (SELECT * FROM flights) AS f {group}"), &expected);
    check(
        "SELECT f.carrier, TUMBLE_START(f.departed_at, INTERVAL '1' DAY) FROM flights f
         GROUP BY f.carrier, TUMBLE(f.departed_at, INTERVAL '1' DAY) HAVING MAX(f.delay) > 10",
        &["UA | 1970-01-01T00:00:00"],
    );
}

#[test]
fn a_window_reads_a_subquery() {
    check(
        "SELECT window_start, COUNT(*) FROM TABLE(TUMBLE((SELECT * FROM flights WHERE carrier = 'UA'), DESCRIPTOR(departed_at), INTERVAL '1' HOUR))
         GROUP BY window_start",
        &["1970-01-01T00:00:00 | 2"],
    );
}

#[test]
fn local_time_is_that_of_the_sessions_zone() {
    // Central European Time is one hour ahead of UTC, in summer two.
    let berlin = |columns: &str| {
        evaluate(&format!(
            "SET 'table.local-time-zone' = 'Europe/Berlin'; SELECT {columns} FROM flights WHERE delay = 5"
        ))
    };
    let winter = "TO_TIMESTAMP_LTZ(delay, 0)";
    assert_eq!(
        berlin(&format!("CAST({winter} AS TIMESTAMP(3)), HOUR({winter}), DATE_FORMAT({winter}, 'HH:mm:ss')")),
        ["1970-01-01T01:00:05 | 1 | 01:00:05"]
    );
    assert_eq!(berlin("CAST(TO_TIMESTAMP_LTZ(1720000000, 0) AS TIMESTAMP(3))"), ["2024-07-03T11:46:40"]);
    assert_eq!(berlin("CAST(TO_TIMESTAMP_LTZ(1720044000, 0) AS DATE)"), ["2024-07-04"]);
    assert_eq!(
        berlin("CAST(TIMESTAMP '2024-07-03 11:46:40' AS TIMESTAMP_LTZ(3)) = TO_TIMESTAMP_LTZ(1720000000, 0)"),
        ["true"]
    );
    assert_eq!(
        evaluate("SELECT CAST(TO_TIMESTAMP_LTZ(1720000000, 0) AS TIMESTAMP(3)) FROM flights WHERE delay = 5"),
        ["2024-07-03T09:46:40"]
    );
}
