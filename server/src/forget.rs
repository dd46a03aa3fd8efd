//! `--fresh`: forgets what jobs have done, so that they begin anew.
//!
//! Forgotten are a job's state, the objects that it delivered to a local folder (known by the incarnation in their names),
//! and the streams that its script made. Objects in a remote store are left alone: their names have another incarnation than
//! those to come, so nothing is overwritten, and removing what other readers use is the user's to decide.
//!
//! With `--from`, only the state: the snapshot goes on where those deliveries end, and reads those streams from its positions.

use std::path::Path;
use std::sync::Arc;

use coulee_log::Stream;
use coulee_model::{JobName, StreamName};

use crate::blocking::blocking;
use crate::engine::Engine;
use crate::folder::remove_folder;
use crate::job::{Job, JobState, SinkTarget};
use crate::results::local_path;
use crate::{Error, Result};

/// The property of a stream that says which script or job made it.
pub(crate) const CREATED_BY: &str = "created-by";

/// How much is forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forget {
    /// All that a job or a script did.
    All,
    /// The state only; what was delivered and the streams stay.
    State,
}

impl Engine {
    /// Deletes a stream and its records for good. Blocks for the disk.
    ///
    /// # Errors
    /// `Invalid` when there is no such stream, or when a running job writes to it; what the log says.
    pub(crate) fn delete_stream(&self, name: &StreamName) -> Result<()> {
        let writes = |job: &&Arc<Job>| {
            let record = job.record();
            record.state == JobState::Running && record.sinks.iter().any(|sink| writes_to(sink, name))
        };
        if let Some(job) = self.jobs.lock().values().find(writes) {
            let job = job.name();
            return Err(Error::Invalid(format!(
                "stream '{name}' is written by job '{job}', which is running: stop it first (coulee job stop {job})"
            )));
        }
        Ok(self.log().delete_stream(name)?)
    }

    /// Forgets every job of a script, and the streams that the script made.
    ///
    /// # Errors
    /// [`Error::JobState`] for a job that runs; [`Error::Io`], after which some of it may be forgotten.
    pub(crate) async fn forget_script(self: &Arc<Self>, script: &JobName, what: Forget) -> Result<()> {
        let all: Vec<Arc<Job>> = self.jobs.lock().values().cloned().collect();
        let is_its = |job: &&Arc<Job>| {
            let record = job.record();
            record.script.name == *script || record.name == *script
        };
        let names: Vec<JobName> = all.iter().filter(is_its).map(|job| job.name()).collect();
        for name in &names {
            self.forget_job(name, what).await?;
        }
        if what == Forget::State {
            return Ok(());
        }
        let script = script.clone();
        let made_by = move |stream: &Arc<Stream>| {
            let settings = stream.settings();
            let by = settings.properties.get(CREATED_BY);
            by.is_some_and(|by| is_job_of(by, script.as_str()) || names.iter().any(|name| by == name.as_str()))
        };
        let log = self.log().clone();
        blocking(move || {
            for stream in log.streams().into_iter().filter(made_by) {
                log.delete_stream(stream.name())?;
            }
            Ok(())
        })
        .await
    }

    /// Forgets a job, if it is known.
    ///
    /// # Errors
    /// As [`forget_script`](Self::forget_script).
    pub(crate) async fn forget_job(self: &Arc<Self>, name: &JobName, what: Forget) -> Result<()> {
        let Some(job) = self.jobs.lock().get(name).cloned() else { return Ok(()) };
        if job.is_active() {
            let advice = "stop it first with `coulee job stop`".to_owned();
            return Err(Error::JobState { name: name.clone(), state: "is running", advice });
        }
        let (folder, record) = (job.folder.clone(), job.record());
        // What its sinks have prepared would hold back the readers of their streams for ever.
        for transaction in self.log().open_transactions(&format!("{}/", record.incarnation)) {
            self.log().abort_transaction(&transaction).await?;
        }
        blocking(move || {
            for sink in record.sinks.iter().filter(|_| what == Forget::All) {
                remove_objects(sink, &record.incarnation)?;
            }
            // The record last: until it is gone, the rest can be forgotten again.
            remove_folder(&folder.join("spool"))?;
            remove_folder(&folder.join("state"))?;
            remove_folder(&folder)
        })
        .await?;
        self.jobs.lock().remove(name);
        tracing::info!(job = %name, "the job is forgotten");
        Ok(())
    }
}

/// Whether a name is one that jobs of a script get: the script's, or that and a number.
fn is_job_of(name: &str, script: &str) -> bool {
    let is_number =
        |rest: &str| rest.strip_prefix('-').is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    name.strip_prefix(script).is_some_and(|rest| rest.is_empty() || is_number(rest))
}

/// Whether a job with this sink appends to the stream. Only the table without a path has the stream's own name.
fn writes_to(sink: &SinkTarget, stream: &StreamName) -> bool {
    let name = if sink.path.is_empty() { &sink.table } else { &sink.path };
    sink.connector == "stream" && name == stream.as_str()
}

fn remove_objects(sink: &SinkTarget, incarnation: &str) -> Result<()> {
    assert_eq!(incarnation.len(), 12, "an incarnation has 12 digits: a shorter one would match other people's files");
    match local_path(&sink.path).filter(|_| sink.connector == "filesystem") {
        Some(root) if root.is_dir() => remove_below(&root, incarnation),
        _ => Ok(()),
    }
}

/// Removes the files whose name has the incarnation, and folders that this leaves empty.
fn remove_below(folder: &Path, incarnation: &str) -> Result<()> {
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io("list", folder, e))? {
        let entry = entry.map_err(|e| Error::io("list", folder, e))?;
        let path = entry.path();
        // The entry's own type: a link to a folder elsewhere is not followed.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_below(&path, incarnation)?;
            // Fails when something is left in it, which is as well.
            let _ = std::fs::remove_dir(&path);
        } else if entry.file_name().to_string_lossy().contains(incarnation) {
            std::fs::remove_file(&path).map_err(|e| Error::io("remove", &path, e))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_jobs_of_a_script_are_known_by_their_names() {
        assert!(is_job_of("delays", "delays") && is_job_of("delays-2", "delays"));
        assert!(!is_job_of("delays-x", "delays") && !is_job_of("delays2", "delays") && !is_job_of("delays-", "delays"));
    }

    #[test]
    fn only_the_incarnations_objects_go() {
        let dir = tempfile::tempdir().unwrap();
        let day = dir.path().join("day=1");
        std::fs::create_dir(&day).unwrap();
        for name in ["0123456789ab-0-1.parquet", "ffffffffffff-0-1.parquet"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        std::fs::write(day.join("0123456789ab-0-2.parquet"), "x").unwrap();
        let path = dir.path().to_string_lossy().into_owned();
        let (table, connector, format) = ("t".into(), "filesystem".into(), "parquet".into());
        remove_objects(&SinkTarget { table, connector, path, format }, "0123456789ab").unwrap();
        let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["ffffffffffff-0-1.parquet"]);
    }
}
