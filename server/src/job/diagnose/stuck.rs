//! What an object store or a disk that does not answer has to do with it: a start, a delivery or a snapshot that does not get on.

use coulee_model::Timestamp;

use super::{Finding, FindingCode, QUIET, named, since, sinks};
use crate::job::progress::Progress;
use crate::span::span;

/// The job has not come to its first row.
pub(super) fn opening(progress: &Progress, now: Timestamp) -> Option<Finding> {
    let took = progress.started_at.map(|at| since(at, now)).filter(|took| *took >= QUIET)?;
    let places: Vec<&str> = progress.operators.iter().map(|operator| operator.description.as_str()).collect();
    let message = format!(
        "the job has been starting for {}: its sinks complete what they had prepared, or its sources are opened",
        span(took)
    );
    let advice = format!("see whether these answer: {}; what does not is given up and tried again", places.join(", "));
    Some(Finding::new(FindingCode::Opening, None, message, advice))
}

/// A sink that is told of a checkpoint makes it visible before it takes more rows.
pub(super) fn delivery(progress: &Progress) -> Option<Finding> {
    let slow = |took: &std::time::Duration| *took >= QUIET;
    let (sink, took) = sinks(progress).find_map(|sink| Some((sink, sink.figures.delivering().filter(slow)?)))?;
    let message = format!(
        "{} ({}) has been delivering for {}, and takes neither rows nor checkpoints meanwhile",
        named(sink),
        sink.description,
        span(took)
    );
    let advice = "see whether its store or its disk answers; a request that is not answered is given up and tried again, and then the job \
                  starts again from its last checkpoint";
    Some(Finding::new(FindingCode::DeliveryStuck, Some(sink), message, advice))
}

/// A snapshot that sinks wait for does not come to its end.
pub(super) fn snapshot(progress: &Progress, now: Timestamp) -> Option<Finding> {
    let sink = sinks(progress).find(|sink| sink.commits_on_snapshot)?;
    let took = progress.snapshot_since.map(|at| since(at, now)).filter(|took| *took >= QUIET)?;
    let message = format!("the snapshot that {} waits for has been under way for {}", named(sink), span(took));
    let advice = "see whether the store that 'execution.checkpointing.dir' names answers, and how much there is to upload; the job goes on meanwhile";
    Some(Finding::new(FindingCode::SnapshotStuck, Some(sink), message, advice))
}
