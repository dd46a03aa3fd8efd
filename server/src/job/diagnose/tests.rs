//! Each reason for silence, and that a job which delivers is left alone.

use coulee_runtime::metrics::builtin::{
    DELIVERED_ROWS, DELIVERING, LATE_ROWS, NEXT_RESULT, ROWS_IN, ROWS_OUT, TIMELESS_ROWS, WATERMARK,
};

use super::*;
use crate::job::figures::{Figures, Rates, Split, Subtask};

const START: i64 = 1_700_000_000_000;
const NOW: Timestamp = Timestamp(START + 60_000);
const SECOND: i64 = 1_000;

fn operator(uid: &str, kind: OperatorKind, inputs: &[u32]) -> Operator {
    let description = format!("{uid} described");
    Operator { uid: uid.into(), description, parallelism: 1, kind, inputs: inputs.to_vec(), ..Operator::default() }
}

/// A source, a window, a sink; a minute old, reading and checkpointing, without a delivery so far.
fn job() -> Progress {
    let mut source = operator("readings", OperatorKind::Source, &[]);
    source.has_event_time = true;
    source.figures.set(&ROWS_IN, 100);
    source.figures.set(&ROWS_OUT, 100);
    let mut window = operator("window", OperatorKind::Operator, &[0]);
    window.figures = Figures::from([(&ROWS_IN, 100), (&ROWS_OUT, 1)]);
    let sink = operator("minutes", OperatorKind::Sink, &[1]);
    Progress {
        started_at: Some(Timestamp(START)),
        read_at: Some(NOW),
        rows_read: 100,
        checkpoint_interval: Duration::from_secs(1),
        checkpoint_at: Some(Timestamp(NOW.0 - 500)),
        checkpoint_took: Duration::from_millis(20),
        operators: vec![source, window, sink],
        ..Progress::default()
    }
}

fn split(id: &str, watermark: Option<i64>) -> Split {
    Split {
        id: id.into(),
        watermark: watermark.map(Timestamp),
        quiet_since: Some(Timestamp(START)),
        ..Split::default()
    }
}

fn with_splits(splits: Vec<Split>) -> Progress {
    let mut progress = job();
    progress.operators[0].subtasks = vec![Subtask { splits, ..Subtask::default() }];
    progress
}

fn codes(progress: &Progress) -> Vec<FindingCode> {
    diagnose(progress, NOW).iter().map(|finding| finding.code).collect()
}

/// The one finding, which must be of this kind and say these things.
#[track_caller]
fn says(progress: &Progress, code: FindingCode, parts: &[&str]) {
    let findings = diagnose(progress, NOW);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    assert_eq!(findings[0].code, code, "{findings:#?}");
    for part in parts {
        assert!(findings[0].message.contains(part), "'{part}' is not in: {}", findings[0].message);
    }
    assert!(!findings[0].advice.is_empty());
}

#[test]
fn a_job_that_delivers_is_left_alone() {
    let mut progress = job();
    progress.read_at = None;
    assert_eq!(codes(&progress), [FindingCode::NoData]);
    progress.delivered_at = Some(Timestamp(NOW.0 - 9 * SECOND));
    assert!(codes(&progress).is_empty());
    progress.delivered_at = Some(Timestamp(NOW.0 - 11 * SECOND));
    assert_eq!(codes(&progress), [FindingCode::NoData]);
}

#[test]
fn a_job_with_nothing_wrong_has_no_finding() {
    assert!(codes(&job()).is_empty());
}

#[test]
fn no_data_at_all_and_none_lately() {
    let mut progress = job();
    progress.read_at = None;
    says(
        &progress,
        FindingCode::NoData,
        &["nothing has come from readings described since 2023-11-14 22:13:20.000 UTC"],
    );
    progress.read_at = Some(Timestamp(START + 5 * SECOND));
    says(&progress, FindingCode::NoData, &["since 2023-11-14 22:13:25.000"]);
    progress.lag = Some(7);
    says(&progress, FindingCode::NoData, &["although 7 records wait"]);
}

#[test]
fn the_specific_cause_comes_first_and_that_nothing_comes_last() {
    let mut progress = with_splits(vec![Split { is_idle: true, ..split("shard-00000", Some(START)) }]);
    progress.read_at = Some(Timestamp(START + 5 * SECOND));
    progress.operators[1].figures.set(&NEXT_RESULT, START + 60 * SECOND);
    assert_eq!(codes(&progress), [FindingCode::WindowOpen, FindingCode::IdleSplit, FindingCode::NoData]);

    let mut progress = job();
    progress.read_at = Some(Timestamp(START + 5 * SECOND));
    progress.operators[1].figures.set(&ROWS_OUT, 0);
    assert_eq!(codes(&progress), [FindingCode::Filtered, FindingCode::NoData]);
    progress.operators[1].figures.set(&TIMELESS_ROWS, 100);
    assert_eq!(codes(&progress), [FindingCode::NoEventTime, FindingCode::NoData]);
    (progress.rows_read, progress.rejected_rows) = (0, 42);
    assert_eq!(codes(&progress), [FindingCode::Rejected, FindingCode::NoEventTime, FindingCode::NoData]);
}

#[test]
fn the_split_that_holds_back_event_time_is_named_with_the_gap() {
    let mut progress = with_splits(vec![
        split("shard-00000", Some(START + 3_600 * SECOND)),
        split("shard-00003", Some(START)),
        split("shard-00001", Some(START + 3_500 * SECOND)),
    ]);
    says(&progress, FindingCode::WatermarkHeld, &["shard-00003 of 'readings'", "1 h 0 min behind the furthest"]);
    progress.operators[0].subtasks[0].splits[1].watermark = Some(Timestamp(START + 3_595 * SECOND));
    progress.operators[0].subtasks[0].splits[2].watermark = Some(Timestamp(START + 3_595 * SECOND));
    assert!(codes(&progress).is_empty(), "a little disorder between splits is no news");
    // Unless a window waits for just that.
    progress.operators[1].figures.set(&NEXT_RESULT, START + 3_598 * SECOND);
    progress.operators[1].figures.set(&WATERMARK, START + 3_595 * SECOND);
    assert_eq!(codes(&progress), [FindingCode::WatermarkHeld, FindingCode::WindowOpen]);
}

#[test]
fn a_split_that_never_brought_anything_and_is_not_idle_holds_back_all() {
    let progress = with_splits(vec![split("shard-00000", Some(START)), split("shard-00003", None)]);
    let parts = ["shard-00003", "no row with an event time since 2023-11-14 22:13:20.000 UTC"];
    says(&progress, FindingCode::WatermarkHeld, &parts);
    let mut ended = progress.clone();
    ended.operators[0].subtasks[0].splits[1].is_ended = true;
    assert!(codes(&ended).is_empty());
}

#[test]
fn idle_splits_are_told_and_whether_event_time_goes_on() {
    let idle = |id| Split { is_idle: true, ..split(id, None) };
    let progress = with_splits(vec![split("shard-00000", Some(START)), idle("shard-00003")]);
    let parts = ["shard-00003 of 'readings' has brought nothing since 2023-11-14", "event time goes on without"];
    says(&progress, FindingCode::IdleSplit, &parts);
    let mut progress = with_splits(vec![idle("shard-00000"), idle("shard-00001")]);
    progress.operators[0].figures.set(&WATERMARK, START);
    let parts = ["every split of 'readings' is idle", "stands still at 2023-11-14", "shard-00000, shard-00001 have"];
    says(&progress, FindingCode::IdleSplit, &parts);
}

#[test]
fn rows_without_event_time_are_counted() {
    let mut progress = job();
    progress.operators[1].figures.set(&TIMELESS_ROWS, 95);
    says(&progress, FindingCode::NoEventTime, &["95 of the 100 rows that 'window' took in"]);
    progress.operators[1].figures.set(&TIMELESS_ROWS, 20);
    assert!(codes(&progress).is_empty());
}

#[test]
fn an_open_window_says_how_far_it_is() {
    let mut progress = job();
    progress.operators[1].figures.set(&NEXT_RESULT, START + 60 * SECOND);
    says(&progress, FindingCode::WindowOpen, &["passed 2023-11-14 22:14:20.000 UTC; it has not begun"]);
    progress.operators[1].figures.set(&WATERMARK, START + 15 * SECOND);
    says(&progress, FindingCode::WindowOpen, &["it is at 2023-11-14 22:13:35.000 UTC, 45.0 s before"]);
    progress.operators[1].figures.set(&WATERMARK, START + 60 * SECOND);
    assert!(codes(&progress).is_empty(), "it is about to be emitted");
}

#[test]
fn late_and_rejected_rows_explain_themselves() {
    let mut progress = job();
    progress.operators[1].figures = Figures::from([(&ROWS_IN, 100), (&LATE_ROWS, 100)]);
    says(&progress, FindingCode::LateRows, &["100 rows came to 'window' after their windows had left"]);
    progress.operators[1].figures.set(&NEXT_RESULT, START);
    assert_eq!(codes(&progress), [FindingCode::WindowOpen], "a window that is open may still bring something");

    let mut progress = job();
    (progress.rows_read, progress.rejected_rows) = (0, 42);
    progress.last_reject = Some("column 'at': not a timestamp".into());
    says(&progress, FindingCode::Rejected, &["42 of 42 records", "column 'at': not a timestamp"]);
}

#[test]
fn an_operator_that_lets_nothing_through_is_named() {
    let mut progress = job();
    progress.operators[1].figures.set(&ROWS_OUT, 0);
    says(&progress, FindingCode::Filtered, &["'window' (window described) took in 100 rows"]);
}

#[test]
fn the_slow_operator_behind_the_blocked_ones_is_named() {
    let mut progress = job();
    progress.read_at = Some(Timestamp(START));
    progress.operators[0].rates = Rates { blocked: 0.93, ..Rates::default() };
    progress.operators[1].rates = Rates { blocked: 0.8, busy: 0.1, ..Rates::default() };
    progress.operators[2].rates = Rates { busy: 0.97, ..Rates::default() };
    let parts = ["'minutes' (busy 97 % of the time)", "'readings' waits for it 93 %"];
    says(&progress, FindingCode::Backpressure, &parts);
    progress.operators[1].rates = Rates { busy: 1.0, ..Rates::default() };
    says(&progress, FindingCode::Backpressure, &["'window' (busy 100 %"]);
}

#[test]
fn checkpoints_that_do_not_complete_hold_deliveries_back() {
    let mut progress = job();
    progress.checkpoint_at = None;
    says(
        &progress,
        FindingCode::CheckpointStuck,
        &["since 2023-11-14 22:13:20.000 UTC (1 min 0 s)", "due every 1.0 s"],
    );
    progress.checkpoint_interval = Duration::from_secs(120);
    assert!(codes(&progress).is_empty(), "the first one is still to come");
    progress.operators[2].figures.set(&ROWS_IN, 5);
    progress.operators[2].holding_since = Some(Timestamp(START + SECOND));
    says(&progress, FindingCode::CheckpointDue, &["'minutes' holds 5 rows", "every 2 min 0 s"]);

    let mut progress = job();
    progress.snapshot_failure = Some("the bucket is gone".into());
    says(&progress, FindingCode::SnapshotFailed, &["the bucket is gone"]);
}

#[test]
fn a_sink_that_collects_beyond_a_checkpoint_says_so() {
    let mut progress = job();
    progress.operators[2].figures.set(&ROWS_IN, 50);
    progress.operators[2].figures.set(&DELIVERED_ROWS, 8);
    progress.operators[2].holding_since = Some(Timestamp(NOW.0 - 30 * SECOND));
    says(&progress, FindingCode::SinkBuffers, &["'minutes' (minutes described)", "holds 42 rows"]);
    progress.operators[2].commits_on_snapshot = true;
    says(&progress, FindingCode::SnapshotDue, &["'minutes' holds 42 rows until a snapshot has them"]);
    progress.operators[2].holding_since = Some(Timestamp(NOW.0 - SECOND));
    assert!(codes(&progress).is_empty(), "the next checkpoint delivers them");
}

#[test]
fn words_of_findings_are_read_back() {
    for code in [FindingCode::NoData, FindingCode::WatermarkHeld, FindingCode::SinkBuffers, FindingCode::Restarting] {
        assert_eq!(FindingCode::parse(code.word()), Some(code));
        assert_eq!(serde_json::to_string(&code).unwrap(), format!("\"{}\"", code.word()));
    }
    assert_eq!(FindingCode::parse("from the future"), None);
}

#[test]
fn a_start_that_hangs_is_told_instead_of_anything_else() {
    let mut progress = job();
    (progress.is_opening, progress.read_at) = (true, None);
    says(&progress, FindingCode::Opening, &["has been starting for 1 min"]);
    progress.started_at = Some(Timestamp(NOW.0 - 9 * SECOND));
    assert!(codes(&progress).is_empty());
}

#[test]
fn a_delivery_that_hangs_is_told_instead_of_the_checkpoints_that_wait_for_it() {
    let mut progress = job();
    progress.checkpoint_at = Some(Timestamp(NOW.0 - 20 * SECOND));
    assert_eq!(codes(&progress), [FindingCode::CheckpointStuck]);
    progress.operators[2].figures.set(&DELIVERING, 20000);
    says(&progress, FindingCode::DeliveryStuck, &["'minutes' (minutes described)", "20.0 s"]);
    progress.operators[2].figures.set(&DELIVERING, 9000);
    assert_eq!(codes(&progress), [FindingCode::CheckpointStuck]);
}

#[test]
fn a_snapshot_that_hangs_is_told_where_a_sink_waits_for_it() {
    let mut progress = job();
    progress.snapshot_since = Some(Timestamp(NOW.0 - 30 * SECOND));
    assert!(codes(&progress).is_empty());
    progress.operators[2].commits_on_snapshot = true;
    says(&progress, FindingCode::SnapshotStuck, &["'minutes'", "30.0 s"]);
}
