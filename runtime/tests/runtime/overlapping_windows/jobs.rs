//! Whole jobs with overlapping windows: two stages, stopped and resumed at another parallelism.

use super::*;
use crate::windows::random_rows;
use crate::{finish, finish_in_attempts, paced};

/// Rows dealt out to so many splits, each in order.
fn splits(rows: &[InputRow], count: usize) -> Vec<Vec<Batch>> {
    let split = |split| {
        let mine: Vec<_> = rows.iter().skip(split).step_by(count).map(|row| (Insert, *row)).collect();
        mine.chunks(13).map(|part| batch(part, false)).collect()
    };
    (0..count).map(split).collect()
}

/// Rows without null values, of which none is late.
fn input(seed: u64, count: usize) -> (Vec<InputRow>, Vec<Arrival>) {
    let rows: Vec<InputRow> =
        random_rows(seed, count).into_iter().map(|row| (row.0, row.1, row.2.or(Some(0)))).collect();
    let arrivals = rows.iter().map(|row| Arrival { kind: Insert, row: *row, watermark: i64::MIN });
    (rows.clone(), arrivals.collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_gives_the_naive_result_at_any_parallelism() {
    let (rows, arrivals) = input(11, 1_000);
    for windows in [hopping(40, 10, 3), hopping(25, 10, 0), cumulating(60, 20, 0)] {
        for parallelism in [1, 2, 3] {
            let folder = tempfile::tempdir().unwrap();
            let sink = MemorySink::default();
            let graph = appending(windows).graph(parallelism, splits(&rows, 4), &sink);
            finish(graph, folder.path()).await;
            let found = sorted_lines(&sink.rows()).unwrap();
            assert!(found == naive(&windows, true, &arrivals), "{windows:?} at parallelism {parallelism}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_is_stopped_or_cancelled_and_rescaled_gives_the_same_result() {
    let (rows, arrivals) = input(13, 2_000);
    for windows in [hopping(40, 10, 3), cumulating(120, 20, 0)] {
        let folder = tempfile::tempdir().unwrap();
        let sink = MemorySink::default();
        let graph = |attempt: u32| {
            let parallelism = [1, 3, 2][attempt as usize % 3];
            paced(appending(windows).graph(parallelism, splits(&rows, 4), &sink), 20_000.0)
        };
        finish_in_attempts(folder.path(), graph).await;
        let found = sorted_lines(&sink.rows()).unwrap();
        assert!(found == naive(&windows, true, &arrivals), "the result differs: {windows:?}");
    }
}
