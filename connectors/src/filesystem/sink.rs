//! Writes rows into files, exactly once: recovery, and opening the writers.
//!
//! Rows are spooled on the local disk beside the job's state ([`spool`](super::spool)), made into a file when the rolling policy
//! says so ([`roll`](super::roll)), and the file becomes visible once the checkpoint that lists it is durable
//! ([`deliver`](super::deliver)). Buffers therefore outlive checkpoints, and files are as large as asked for however
//! often there is a checkpoint.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use coulee_model::{CheckpointId, SubtaskIndex};
use coulee_runtime::connector::{CommitOn, Sink, SinkCommitter, SinkContext, SinkWriter};
use coulee_runtime::metrics::SubtaskMetrics;
use coulee_runtime::options::Options;
use coulee_runtime::state::Facet;
use coulee_runtime::table::TableSpec;
use coulee_runtime::{Error, Result};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::commit::FilesystemCommitter;
use super::deliver::{blocking, check, deliver};
use super::location::Location;
use super::partition::split_columns;
use super::plan::{Numbers, SinkPlan};
use super::settings::{FileFormat, SinkSettings};
use super::state::{Committable, WriterState};
use super::writer::{APPEND_ONLY, FilesystemWriter};
use crate::format::encoder;

/// A folder, or a prefix in an object store, that rows are delivered to.
#[derive(Debug)]
pub struct FilesystemSink {
    plan: Arc<SinkPlan>,
    /// The numbers below which every subtask's files may exist, from the states of the last recovery.
    ///
    /// SUBTLE: a subtask that comes back after the parallelism was lowered and raised again has no state of its own, but the
    /// objects of its first life are still there. Counting on from the highest number of all avoids them.
    floor: Mutex<Numbers>,
}

impl FilesystemSink {
    /// A sink for rows of the table.
    ///
    /// # Errors
    /// `Invalid` when an option is wrong or a column cannot be written.
    pub fn new(target: Location, table: &TableSpec, options: &Options) -> Result<Self> {
        let settings = SinkSettings::new(options)?;
        let (files, partitions) = split_columns(table)?;
        let schema: SchemaRef = Arc::new(table.schema.project(&files)?);
        match &settings.format {
            FileFormat::Lines(lines) => drop(encoder(lines, &schema).map_err(|error| error.at(options.owner()))?),
            FileFormat::Parquet(_) => {
                parquet::arrow::ArrowSchemaConverter::new().convert(&schema).map_err(|error| {
                    Error::invalid(format!("{}: a column has no form in Parquet: {error}", options.owner()))
                        .because(error)
                })?;
            }
        }
        if options.get("compression").is_some_and(|kind| !matches!(kind, "auto" | "none")) {
            let owner = options.owner();
            return Err(Error::invalid(format!(
                "{owner}: 'compression' is for reading; sinks compress Parquet with 'parquet.compression'"
            )));
        }
        let plan = SinkPlan {
            target,
            path: options.get("path").unwrap_or_default().to_owned(),
            settings: Arc::new(settings),
            table: table.schema.clone(),
            files,
            partitions,
            schema,
            committed: watch::Sender::new(CheckpointId(0)),
            has_warned: AtomicBool::new(false),
        };
        plan.router()?;
        Ok(FilesystemSink { plan: Arc::new(plan), floor: Mutex::default() })
    }
}

#[async_trait]
impl Sink for FilesystemSink {
    fn describe(&self) -> String {
        format!("filesystem {} ({})", self.plan.target.display(), self.plan.settings.extension())
    }

    /// Spools hold rows in the table's columns, by partition, on their way to the target.
    fn identity(&self) -> Vec<Facet> {
        let plan = &self.plan;
        let columns = plan.table.fields().iter().map(|field| format!("{} {}", field.name(), field.data_type()));
        let partitions = plan.partitions.iter().map(|index| plan.table.field(*index).name().as_str());
        vec![
            Facet::new("connector", "filesystem"),
            Facet::new("path", &*plan.path),
            Facet::new("format", plan.settings.format.name()),
            Facet::new("columns", columns.collect::<Vec<_>>().join(", ")),
            Facet::new("partitions", partitions.collect::<Vec<_>>().join(", ")),
        ]
    }

    fn refuses_changelog(&self) -> Option<&'static str> {
        Some(APPEND_ONLY)
    }

    fn may_reject(&self) -> bool {
        !self.plan.partitions.is_empty()
    }

    fn commit_on(&self) -> CommitOn {
        self.plan.settings.commit_on
    }

    async fn recover(&self, context: &SinkContext, states: &[Bytes], committables: &[Bytes]) -> Result<()> {
        check(&self.plan.target, &context.incarnation).await?;
        let states = states.iter().map(|state| WriterState::decode(state)).collect::<Result<Vec<_>>>()?;
        let mut kept = HashSet::new();
        let mut floor = Numbers::default();
        for state in &states {
            floor.open = floor.open.max(state.next_open);
            floor.part = floor.part.max(state.next_part);
            kept.extend(state.open.iter().map(|open| open.file.clone()));
        }
        let committables = committables.iter().map(|bytes| Committable::decode(bytes)).collect::<Result<Vec<_>>>()?;
        let committables = committables.iter().map(|committable| &committable.ready);
        for ready in states.iter().flat_map(|state| &state.ready).chain(committables) {
            deliver(&self.plan.target, context.spool.join(&ready.file), ready).await?;
        }
        self.plan.committed.send_replace(CheckpointId(0));
        *self.floor.lock() = floor;
        // Also removes what was just delivered: the object is the proof from now on.
        let spool = context.spool.clone();
        blocking(move || sweep(&spool, &kept)).await
    }

    async fn committer(&self, context: &SinkContext) -> Result<Box<dyn SinkCommitter>> {
        Ok(Box::new(FilesystemCommitter { plan: self.plan.clone(), spool: context.spool.clone() }))
    }

    async fn open(
        &self,
        context: &SinkContext,
        subtask: SubtaskIndex,
        states: &[Bytes],
        metrics: Arc<SubtaskMetrics>,
    ) -> Result<Box<dyn SinkWriter>> {
        let states = states.iter().map(|state| WriterState::decode(state)).collect::<Result<Vec<_>>>()?;
        let floor = *self.floor.lock();
        let writer = FilesystemWriter::open(self.plan.clone(), context, subtask, states, floor, metrics)?;
        Ok(Box::new(writer))
    }
}

/// Removes every file in the spool folder that no checkpoint knows.
fn sweep(spool: &Path, kept: &HashSet<String>) -> Result<()> {
    let refuse = |path: &Path, cause| Error::io(format!("cannot clear the spool folder {}", path.display()), cause);
    let folders = match std::fs::read_dir(spool) {
        Ok(folders) => folders,
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(refuse(spool, cause)),
    };
    for folder in folders {
        let folder = folder.map_err(|cause| refuse(spool, cause))?;
        for file in std::fs::read_dir(folder.path()).map_err(|cause| refuse(&folder.path(), cause))? {
            let file = file.map_err(|cause| refuse(&folder.path(), cause))?;
            let name = format!("{}/{}", folder.file_name().to_string_lossy(), file.file_name().to_string_lossy());
            if kept.contains(&name) {
                continue;
            }
            match std::fs::remove_file(file.path()) {
                // A thread of a writer that was dropped a moment ago removes its own file.
                Err(cause) if cause.kind() != std::io::ErrorKind::NotFound => return Err(refuse(&file.path(), cause)),
                _ => {}
            }
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "sink_tests.rs"]
mod tests;
