//! Snapshots and savepoints of a running job: the last checkpoint is linked aside and uploaded while the job goes on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use coulee_checkpoint::snapshot::{Manifest, SnapshotKind, SnapshotRequest, SnapshotStore};
use coulee_checkpoint::{CheckpointRecord, JobStore};
use coulee_model::{CheckpointId, Clock, JobName, Stopwatch, Timestamp};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::hard_links::{clear, link_tree};
use crate::failpoints::injected;
use crate::job::executor::{Executor, Running, Tokio};
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
    /// How long an object must have been without a snapshot that refers to it before it is removed.
    pub grace: Duration,
}

/// Folders within a snapshot.
pub const STATE_FOLDER: &str = "state";
/// See [`STATE_FOLDER`].
pub const SPOOL_FOLDER: &str = "spool";

/// What the names of folders of links begin with, before the checkpoint's number.
const LINKS_PREFIX: &str = "snapshot-";

/// How long a snapshot that failed waits for the next attempt.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How long a job whose sinks do not wait for snapshots waits for the list of those that there are, before it begins without.
const LIST_PATIENCE: Duration = Duration::from_secs(10);

/// A snapshot that somebody asked for.
#[derive(Debug)]
pub(super) struct Savepoint {
    pub(super) store: SnapshotStore,
    pub(super) name: String,
    pub(super) note: Option<String>,
    pub(super) answer: oneshot::Sender<Result<Manifest>>,
}

/// What a snapshot was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFigures {
    /// Of which checkpoint.
    pub checkpoint: CheckpointId,
    /// When it was complete.
    pub at: Timestamp,
    /// From the start of its links to its manifest.
    pub took: Duration,
    /// Bytes that it refers to.
    pub bytes: u64,
    /// Of those, bytes that had to be uploaded.
    pub uploaded_bytes: u64,
}

/// A periodic snapshot that was tried.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) checkpoint: CheckpointId,
    /// Whether this attempt at the job owns the snapshots by now.
    claimed: bool,
    /// `None` when only savepoints were taken.
    pub(super) result: Option<Result<SnapshotFigures>>,
}

/// What snapshots are taken of.
#[derive(Debug, Clone)]
pub(super) struct SnapshotInput {
    pub(super) job: JobName,
    pub(super) store: Arc<JobStore>,
    pub(super) spool: PathBuf,
    /// For links; on the file system of the state and the spool.
    pub(super) scratch: PathBuf,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) executor: Arc<dyn Executor>,
}

/// Takes snapshots of one job; one at a time.
#[derive(Debug)]
pub(super) struct SnapshotTaker {
    origin: SnapshotInput,
    policy: Option<Snapshots>,
    /// Tells this attempt at the job from every other one that writes to the same place.
    owner: String,
    claimed: bool,
    due: Instant,
    /// The checkpoint of the last snapshot that was begun.
    begun: CheckpointId,
    wanted: Vec<Savepoint>,
    running: Option<Running<Taken>>,
}

impl SnapshotTaker {
    pub(super) fn new(origin: SnapshotInput, policy: Option<Snapshots>, incarnation: &str) -> Self {
        let owner = format!("{incarnation}-{:016x}", coulee_model::unique_u64());
        let due = origin.executor.now() + policy.as_ref().map_or(Duration::ZERO, |policy| policy.interval);
        SnapshotTaker {
            origin,
            policy,
            owner,
            claimed: false,
            due,
            begun: CheckpointId(0),
            wanted: Vec::new(),
            running: None,
        }
    }

    /// Removes the links of snapshots that a former process was taking when it died: they hold on to files that nobody needs.
    ///
    /// # Errors
    /// When the folder cannot be read or cleared.
    pub(super) async fn clear(&self) -> Result<()> {
        let scratch = self.origin.scratch.clone();
        let clear = move || clear(&scratch, LINKS_PREFIX).map_err(|e| Error::io(scratch.display(), e));
        self.origin.executor.blocking("work on files", clear).await
    }

    /// Before anything runs: the checkpoint after which the job's next one must come, so that no snapshot of another life of the job has its number.
    ///
    /// `wait`: sinks wait for snapshots. What the last checkpoint `record` prepared is about to be completed by their recovery, so that a snapshot of it
    /// is taken first.
    ///
    /// # Errors
    /// With `wait`, when the object store does not answer. Without, that is only logged.
    pub(super) async fn begin(&mut self, record: Option<&CheckpointRecord>, wait: bool) -> Result<CheckpointId> {
        let last = record.map_or(CheckpointId(0), |record| record.id);
        let Some(policy) = &self.policy else { return Ok(last) };
        let manifests = if wait {
            policy.store.list().await?
        } else {
            // Nothing that runs depends on it: a store that does not answer must not keep the job from starting.
            match self.origin.executor.within(LIST_PATIENCE, policy.store.list()).await {
                Some(Ok(manifests)) => manifests,
                Some(Err(error)) => {
                    tracing::warn!(job = %self.origin.job, %error, "the snapshots that there are could not be listed");
                    return Ok(last);
                }
                None => {
                    tracing::warn!(job = %self.origin.job, "the store of snapshots does not answer: the job begins without knowing them");
                    return Ok(last);
                }
            }
        };
        let newest = manifests.iter().map(Manifest::checkpoint).max().unwrap_or(CheckpointId(0));
        if let Some(record) = record.filter(|record| wait && record.id > newest) {
            self.checkpoint(record, true).await?;
            let taken = self.taken().await?;
            taken.result.unwrap_or(Err(Error::internal("no snapshot was tried")))?;
        }
        Ok(last.max(newest))
    }

    /// Remembers to take a savepoint of the next checkpoint.
    pub(super) fn want(&mut self, savepoint: Savepoint) {
        self.wanted.push(savepoint);
    }

    /// Whether a snapshot is due of what came after the last one.
    pub(super) fn is_due(&self, last: CheckpointId) -> bool {
        self.policy.is_some() && self.running.is_none() && self.due <= self.origin.executor.now() && last > self.begun
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Called when a checkpoint is durable and before its sinks are told: what the state refers to is still in the spool. Begins a snapshot if one is
    /// due or wanted, or if `now` says so; not while another one is under way. Whether it has begun.
    ///
    /// # Errors
    /// When the links cannot be made. A failed upload is for [`SnapshotTaker::taken`] to tell: whatever the object store does, the job goes on.
    pub(super) async fn checkpoint(&mut self, record: &CheckpointRecord, now: bool) -> Result<bool> {
        let periodic = self.policy.clone().filter(|_| now || self.due <= self.origin.executor.now());
        if self.running.is_some() || (periodic.is_none() && self.wanted.is_empty()) {
            return Ok(false);
        }
        if let Some(policy) = &periodic {
            self.due = self.origin.executor.now() + policy.interval;
            self.begun = record.id;
        }
        let folder = self.origin.scratch.join(format!("{LINKS_PREFIX}{}", record.id));
        let (origin, into) = (self.origin.clone(), folder.clone());
        self.origin.executor.blocking("work on files", move || link(&origin, &into)).await?;
        fail::fail_point!("job.snapshot.linked", |_| Err(injected("job.snapshot.linked")));
        let upload = Upload {
            origin: self.origin.clone(),
            owner: self.owner.clone(),
            claimed: self.claimed,
            record: record.clone(),
            folder,
        };
        let savepoints = std::mem::take(&mut self.wanted);
        self.running = Some(self.origin.executor.start(upload.run(periodic, savepoints)));
        Ok(true)
    }

    /// Waits for the end of what is under way; for ever when nothing is. Cancel-safe.
    pub(super) async fn taken(&mut self) -> Result<Taken> {
        let Some(running) = &mut self.running else { return std::future::pending().await };
        let taken = running.await;
        self.running = None;
        let taken = taken.map_err(|lost| lost.during("a snapshot"))?;
        self.claimed |= taken.claimed;
        if matches!(taken.result, Some(Err(_))) {
            self.due = self.due.min(self.origin.executor.now() + RETRY_AFTER);
            self.begun = CheckpointId(0);
        }
        Ok(taken)
    }

    /// Waits for what is under way, or gives it up when `given_up` comes first, and tells those who still want something that they will not get it.
    ///
    /// What was given up is to the store as if the process had died: its pin ends by itself, and what it put is found unused.
    pub(super) async fn finish(&mut self, given_up: impl Future<Output = ()>) {
        if self.running.is_some() {
            tokio::select! {
                biased;
                taken = self.taken() => if let Err(error) = taken {
                    tracing::warn!(job = %self.origin.job, %error, "the snapshot that was under way when the job ended was not taken");
                },
                () = given_up => self.give_up().await,
            }
        }
        for savepoint in self.wanted.drain(..) {
            let ended = "the job ended before the savepoint could be taken: take it of the job at rest";
            let _ = savepoint.answer.send(Err(Error::unavailable(ended)));
        }
    }

    /// Ends what is under way, and removes its links.
    async fn give_up(&mut self) {
        let Some(running) = self.running.take() else { return };
        running.abort();
        // SUBTLE: it holds the state store open until it is gone.
        let _ = running.await;
        tracing::warn!(job = %self.origin.job, checkpoint = %self.begun, "a snapshot was under way when the job ended; it was given up");
        if let Err(error) = self.clear().await {
            tracing::warn!(job = %self.origin.job, %error, "the links of a snapshot stay until the next start");
        }
    }
}

/// One checkpoint on its way to the object store.
struct Upload {
    origin: SnapshotInput,
    owner: String,
    claimed: bool,
    record: CheckpointRecord,
    folder: PathBuf,
}

impl Upload {
    async fn run(mut self, periodic: Option<Snapshots>, savepoints: Vec<Savepoint>) -> Taken {
        let result = match &periodic {
            Some(policy) => Some(self.periodic(policy).await),
            None => None,
        };
        for savepoint in savepoints {
            let kind = SnapshotKind::Savepoint { name: savepoint.name.clone(), note: savepoint.note.clone() };
            // Somebody who no longer waits has the savepoint all the same.
            let _ = savepoint.answer.send(self.savepoint(&savepoint.store, kind).await);
        }
        let folder = std::mem::take(&mut self.folder);
        // What is left is removed when the next attempt begins.
        let remove = move || std::fs::remove_dir_all(&folder).map_err(|e| Error::io(folder.display(), e));
        let _ = self.origin.executor.blocking("work on files", remove).await;
        Taken { checkpoint: self.record.id, claimed: self.claimed, result }
    }

    fn request(&self, kind: SnapshotKind) -> SnapshotRequest {
        SnapshotRequest {
            job: self.origin.job.clone(),
            incarnation: self.owner.clone(),
            kind,
            record: self.record.clone(),
            at: self.origin.clock.now(),
        }
    }

    async fn periodic(&mut self, policy: &Snapshots) -> Result<SnapshotFigures> {
        let started = Stopwatch::start();
        // Once per attempt: claiming again would take the snapshots back from whoever took them over.
        if !self.claimed {
            policy.store.claim(&self.owner, self.origin.clock.now()).await?;
            self.claimed = true;
        }
        let uploaded = policy.store.upload(&self.request(SnapshotKind::Periodic), &self.folder).await?;
        let job = &self.origin.job;
        tracing::info!(%job, checkpoint = %self.record.id, bytes = uploaded.uploaded_bytes, "snapshot");
        let figures = SnapshotFigures {
            checkpoint: self.record.id,
            at: self.origin.clock.now(),
            took: started.elapsed(),
            bytes: uploaded.bytes,
            uploaded_bytes: uploaded.uploaded_bytes,
        };
        // What is left over now is tried again with the next snapshot.
        if let Err(error) = self.clean(policy).await {
            tracing::warn!(%job, %error, "old snapshots could not be removed");
        }
        Ok(figures)
    }

    async fn clean(&self, policy: &Snapshots) -> Result<()> {
        policy.store.retain(policy.keep.max(1)).await?;
        policy.store.collect_garbage(policy.grace, self.origin.clock.now()).await?;
        Ok(())
    }

    async fn savepoint(&self, store: &SnapshotStore, kind: SnapshotKind) -> Result<Manifest> {
        // Where nobody takes periodic snapshots, nobody has claimed the place.
        store.claim(&self.owner, self.origin.clock.now()).await?;
        Ok(store.upload(&self.request(kind), &self.folder).await?.manifest)
    }
}

/// Takes a savepoint of a job at rest. `scratch` is a folder for links, on the file system of the state and the spool.
///
/// # Errors
/// `Invalid` when the job has no checkpoint yet, or there is another savepoint of that name; `Unavailable` when the object store does not answer.
pub async fn savepoint_at_rest(
    (job, state): (JobName, Arc<JobStore>),
    (spool, scratch): (&Path, &Path),
    to: &SnapshotStore,
    (name, note): (String, Option<String>),
    clock: Arc<dyn Clock>,
) -> Result<Manifest> {
    let Some(record) = state.last_checkpoint() else {
        return Err(Error::invalid(format!("job '{job}' has no checkpoint yet: there is nothing to save")));
    };
    let origin = SnapshotInput {
        job,
        store: state,
        spool: spool.to_owned(),
        scratch: scratch.to_owned(),
        clock,
        executor: Arc::new(Tokio),
    };
    let mut snapshot_taker = SnapshotTaker::new(origin, None, "rest");
    let (answer, answered) = oneshot::channel();
    snapshot_taker.want(Savepoint { store: to.clone(), name, note, answer });
    snapshot_taker.checkpoint(&record, false).await?;
    answered.await.map_err(|_| Error::internal("a savepoint was torn down"))?
}

/// Links the state and the spool into the new folder `into`.
fn link(origin: &SnapshotInput, into: &Path) -> Result<()> {
    if into.exists() {
        std::fs::remove_dir_all(into).map_err(|e| Error::io(into.display(), e))?;
    }
    std::fs::create_dir_all(into).map_err(|e| Error::io(into.display(), e))?;
    origin.store.link_to(&into.join(STATE_FOLDER))?;
    link_tree(&origin.spool, &into.join(SPOOL_FOLDER)).map_err(|e| Error::io(origin.spool.display(), e))
}
