//! Runs the job to its end, however often an attempt fails.

use std::sync::Arc;
use std::time::Duration;

use coulee_checkpoint::snapshot::SnapshotStore;
use coulee_checkpoint::snapshot::object_store::local::LocalFileSystem;
use coulee_checkpoint::{JobStore, StoreSettings};
use coulee_connectors::log::{Log, LogSettings};
use coulee_model::{CheckpointId, JobName, SystemClock};
use coulee_runtime::job::{Environment, JobHandle, JobOutcome, JobSettings, JobSpec, Snapshots, launch};
use coulee_runtime::{Error, Result};

use crate::input::{log_error, produce};
use crate::settings::Settings;

/// The pause after the first failure; it doubles with each in a row.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How often, and how many times, it is looked whether the log can be closed.
const LET_GO_TURN: Duration = Duration::from_millis(10);
const LET_GO_TURNS: u32 = 500;

/// Attempts until one comes to the end of the input, or too many in a row have failed without a checkpoint.
///
/// # Errors
/// The last attempt's, or one that another attempt would only meet again.
pub async fn run(settings: &Settings) -> Result<()> {
    let mut failures = 0;
    let mut reached = CheckpointId(0);
    loop {
        let error = match attempt(settings, &mut reached, &mut failures).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        failures += 1;
        if !error.kind().is_retryable() || failures >= settings.attempts {
            return Err(error);
        }
        let pause = (FIRST_PAUSE * 2u32.saturating_pow(failures - 1)).min(LONGEST_PAUSE);
        eprintln!("failed at checkpoint {reached}: {error}; again in {pause:?}");
        tokio::time::sleep(pause).await;
    }
}

/// Opens everything, runs until the job ends, and closes everything: the next attempt finds the folder as a new process would.
async fn attempt(settings: &Settings, reached: &mut CheckpointId, failures: &mut u32) -> Result<()> {
    let log = Arc::new(
        blocking({
            let (folder, segment_bytes) = (settings.data.join("log"), settings.segment_bytes);
            move || {
                let settings = LogSettings { segment_bytes, ..LogSettings::default() };
                Log::open(&folder, settings, Arc::new(SystemClock)).map_err(log_error)
            }
        })
        .await?,
    );
    let ran = with_log(&log, settings, reached, failures).await;
    close(log).await?;
    ran
}

/// Closes the log, once a thread that was opening a shard for a task that is gone has let go of it.
async fn close(mut log: Arc<Log>) -> Result<()> {
    for _ in 0..LET_GO_TURNS {
        log = match Arc::try_unwrap(log) {
            Ok(log) => {
                return blocking(move || {
                    log.close();
                    Ok(())
                })
                .await;
            }
            Err(log) => log,
        };
        tokio::time::sleep(LET_GO_TURN).await;
    }
    Err(Error::internal("the job has ended, but something holds the log"))
}

async fn with_log(log: &Arc<Log>, settings: &Settings, reached: &mut CheckpointId, failures: &mut u32) -> Result<()> {
    let job = start(log, settings).await?;
    eprintln!("started from checkpoint {} at parallelism {}", job.restored().checkpoint, settings.parallelism);
    let outcome = tokio::select! {
        outcome = job.outcome() => Ok(outcome),
        Err(error) = produce(log, settings) => {
            job.cancel();
            job.outcome().await;
            Err(error.at("producer"))
        }
    };
    let status = job.status();
    if status.checkpoint > *reached {
        (*reached, *failures) = (status.checkpoint, 0);
    }
    match outcome? {
        JobOutcome::Finished => {
            let late: u64 = status.subtasks.iter().map(|subtask| subtask.figures.late_rows()).sum();
            let snapshot = status.snapshot.map_or(0, |figures| figures.checkpoint.0);
            println!("{{\"checkpoint\":{},\"late\":{late},\"snapshot\":{snapshot}}}", status.checkpoint);
            remove_spool(settings)
        }
        JobOutcome::Failed(error) => Err(Error::new(error.kind(), error.to_string())),
        JobOutcome::Stopped(_) | JobOutcome::Cancelled => Err(Error::internal("the job ended without being asked to")),
    }
}

async fn start(log: &Arc<Log>, settings: &Settings) -> Result<JobHandle> {
    let graph = crate::graph::build(log, settings)?;
    let state = settings.data.join("state");
    let store = blocking(move || Ok(JobStore::open(&state, &StoreSettings::default())?)).await?;
    let environment = Environment {
        store: Arc::new(store),
        spool: settings.data.join("spool"),
        scratch: settings.data.join("scratch"),
        clock: Arc::new(SystemClock),
        snapshots: snapshots(settings)?,
    };
    let spec = JobSpec {
        name: JobName::new("pipeline").map_err(|error| Error::invalid(error.to_string()))?,
        incarnation: format!("{:012x}", settings.seed & 0xffff_ffff_ffff),
        graph,
        settings: JobSettings {
            checkpoint_interval: Duration::from_millis(settings.checkpoint_ms.max(1)),
            memory_budget_bytes: settings.memory_bytes,
            ..JobSettings::default()
        },
    };
    launch(spec, environment)
}

fn snapshots(settings: &Settings) -> Result<Option<Snapshots>> {
    if settings.snapshot_ms == 0 {
        return Ok(None);
    }
    let folder = settings.data.join("snapshots");
    std::fs::create_dir_all(&folder).map_err(|cause| Error::io(folder.display(), cause))?;
    let objects = LocalFileSystem::new_with_prefix(&folder).map_err(|error| Error::invalid(error.to_string()))?;
    Ok(Some(Snapshots {
        store: SnapshotStore::new(Arc::new(objects), "pipeline".into()),
        interval: Duration::from_millis(settings.snapshot_ms),
        keep: 2,
        grace: Duration::from_secs(3600),
    }))
}

/// All is delivered: what is spooled is of no use any more.
fn remove_spool(settings: &Settings) -> Result<()> {
    let spool = settings.data.join("spool");
    match std::fs::remove_dir_all(&spool) {
        Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => Err(Error::io(spool.display(), cause)),
        _ => Ok(()),
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::internal(error.to_string()))?
}
