//! Where the snapshots and savepoints of jobs are: an object store or a folder, and below it a folder per job.

use std::path::Path;
use std::time::Duration;

use coulee_checkpoint::snapshot::SnapshotStore;
use coulee_connectors::filesystem::object_store;
use coulee_model::JobName;
use coulee_runtime::connector::CommitOn;
use coulee_runtime::graph::{Graph, NodeKind};
use coulee_runtime::job::Snapshots;
use coulee_sql::JobOptions;

use crate::{Error, Result};

/// The snapshots of one job at a place. Blocks: it may make a folder.
///
/// # Errors
/// For a place that is neither a folder nor a URL of a known object store.
pub(crate) fn store_at(place: &str, job: &JobName, base: &Path) -> Result<SnapshotStore> {
    let (objects, prefix) = object_store(&format!("the snapshots of job '{job}'"), place, job.as_str(), base)?;
    Ok(SnapshotStore::new(objects, prefix))
}

/// Where a job's snapshots and savepoints are: first where savepoints go, then where else there are any.
pub(crate) fn places_of(settings: &JobOptions) -> Vec<String> {
    let snapshots = settings.snapshots.as_ref().map(|snapshots| &snapshots.dir);
    let mut places: Vec<String> = settings.savepoint_dir.iter().chain(snapshots).cloned().collect();
    places.dedup();
    places
}

/// What a job is given to take snapshots with; `None` when it takes none. `grace`: see [`SnapshotSettings`](crate::settings::SnapshotSettings).
///
/// # Errors
/// As [`store_at`], and when a sink waits for snapshots that nobody takes.
pub(crate) fn policy(
    settings: &JobOptions,
    graph: &Graph,
    job: &JobName,
    base: &Path,
    grace: Duration,
) -> Result<Option<Snapshots>> {
    let waits = |kind: &NodeKind| matches!(kind, NodeKind::Sink(sink) if sink.commit_on() == CommitOn::Snapshot);
    let Some(wanted) = &settings.snapshots else {
        return match graph.nodes.iter().find(|node| waits(&node.kind)) {
            None => Ok(None),
            Some(node) => Err(Error::Invalid(format!(
                "'{}' of job '{job}' commits on snapshots, but none are taken: SET 'execution.checkpointing.dir' = 's3://bucket/...', or a folder on another disk",
                node.uid
            ))),
        };
    };
    let store = store_at(&wanted.dir, job, base)?;
    Ok(Some(Snapshots { store, interval: wanted.interval, keep: wanted.retained, grace }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_or_a_url_holds_snapshots_and_nothing_else_does() {
        let dir = tempfile::tempdir().unwrap();
        let job = JobName::new("delays").unwrap();
        let store = store_at("state/copies", &job, dir.path()).unwrap();
        assert!(dir.path().join("state/copies").is_dir(), "relative to the base");
        assert!(store.list().await.unwrap().is_empty());
        let error = store_at("ftp://x/y", &job, dir.path()).unwrap_err().to_string();
        assert!(error.contains("the snapshots of job 'delays'") && error.contains("'ftp://' is not known"), "{error}");
    }
}
