//! Snapshots of a running job: every so often the last checkpoint is linked aside and uploaded while the job goes on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use coulee_checkpoint::snapshot::{SnapshotKind, SnapshotRequest, SnapshotStore};
use coulee_checkpoint::{CheckpointRecord, JobStore};
use coulee_model::{CheckpointId, JobName, Timestamp};
use tokio::task::JoinHandle;

use crate::{Error, Result};

/// When and where snapshots go.
#[derive(Debug, Clone)]
pub struct Snapshots {
    /// Where they are kept.
    pub store: SnapshotStore,
    /// How often one is taken.
    pub interval: Duration,
    /// How many are kept; older ones are removed. At least 1.
    pub keep: usize,
    /// A folder for links, on the file system of the job's state and spool.
    pub scratch: PathBuf,
}

/// How long a file of an old snapshot is left alone; see [`SnapshotStore::collect_garbage`].
const GRACE: Duration = Duration::from_secs(3600);

/// Folders within a snapshot.
pub const STATE_FOLDER: &str = "state";
/// See [`STATE_FOLDER`].
pub const SPOOL_FOLDER: &str = "spool";

/// Takes snapshots of one job; at most one is being uploaded.
pub(super) struct Snapshooter {
    policy: Snapshots,
    job: JobName,
    last: Instant,
    upload: Option<JoinHandle<()>>,
}

impl Snapshooter {
    pub(super) fn new(policy: Snapshots, job: JobName) -> Self {
        Snapshooter { policy, job, last: Instant::now(), upload: None }
    }

    /// Called when a checkpoint is durable and before its sinks are told: what the state refers to is still in the spool.
    ///
    /// # Errors
    /// When the links cannot be made. A failed upload is only logged: the job does not depend on it.
    pub(super) async fn checkpoint(
        &mut self,
        id: CheckpointId,
        at: Timestamp,
        store: &Arc<JobStore>,
        spool: &Path,
    ) -> Result<()> {
        let busy = self.upload.as_ref().is_some_and(|upload| !upload.is_finished());
        if busy || self.last.elapsed() < self.policy.interval {
            return Ok(());
        }
        self.last = Instant::now();
        let folder = self.policy.scratch.join(format!("snapshot-{id}"));
        let (linking, spool, into) = (store.clone(), spool.to_owned(), folder.clone());
        let linked = tokio::task::spawn_blocking(move || link(&linking, &spool, &into)).await;
        linked.map_err(|e| Error::internal(e.to_string()))??;
        let record = store.last_checkpoint().unwrap_or(CheckpointRecord { id, at, job: String::new() });
        let (policy, job) = (self.policy.clone(), self.job.clone());
        self.upload = Some(tokio::spawn(async move {
            if let Err(error) = upload(&policy, &job, record, at, &folder).await {
                tracing::warn!(%job, checkpoint = %id, %error, "the snapshot was not taken; the next one is tried as usual");
            }
            let _ = tokio::fs::remove_dir_all(&folder).await;
        }));
        Ok(())
    }

    /// Waits for an upload under way.
    pub(super) async fn finish(&mut self) {
        if let Some(upload) = self.upload.take() {
            let _ = upload.await;
        }
    }
}

async fn upload(
    policy: &Snapshots,
    job: &JobName,
    record: CheckpointRecord,
    at: Timestamp,
    folder: &Path,
) -> Result<()> {
    let incarnation = format!("process-{}", std::process::id());
    let request = SnapshotRequest { job: job.clone(), incarnation, kind: SnapshotKind::Periodic, record, at };
    let taken = policy.store.upload(&request, folder).await?;
    let checkpoint = taken.manifest.checkpoint();
    tracing::info!(%job, %checkpoint, bytes = taken.bytes, uploaded_bytes = taken.uploaded_bytes, "snapshot");
    policy.store.retain(policy.keep).await?;
    policy.store.collect_garbage(GRACE, at).await?;
    Ok(())
}

/// Links the state and the spool into the new folder `into`.
fn link(store: &JobStore, spool: &Path, into: &Path) -> Result<()> {
    if into.exists() {
        std::fs::remove_dir_all(into).map_err(|e| Error::io(into.display(), e))?;
    }
    std::fs::create_dir_all(into).map_err(|e| Error::io(into.display(), e))?;
    store.link_to(&into.join(STATE_FOLDER))?;
    link_tree(spool, &into.join(SPOOL_FOLDER)).map_err(|e| Error::io(spool.display(), e))
}

/// Hard links of every file below `from`. A file that is removed meanwhile belongs to a later checkpoint and is not missed.
fn link_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(from) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    std::fs::create_dir_all(to)?;
    for entry in entries {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            link_tree(&entry.path(), &target)?;
            continue;
        }
        match std::fs::hard_link(entry.path(), &target) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            linked => linked?,
        }
    }
    Ok(())
}
