//! Writes the rows of one subtask: fills spool files, rolls them, and hands the finished files over to the committer.
//!
//! A file's way: a [`Buffer`] that is appended to; *sealed*, while a blocking thread makes it into the file to deliver; *ready*, until the
//! next `prepare` hands it over; visible, once that checkpoint is durable and the [committer](super::commit) has had its turn. The spool file stays
//! until then, since the checkpoint before still refers to it.

use std::collections::HashMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use coulee_model::{CheckpointId, Clock, SubtaskIndex, Timestamp, unique_u64};
use coulee_runtime::connector::{CommitOn, Prepared, SinkContext, SinkWriter};
use coulee_runtime::metrics::{Definition, Instrument, Merge, SubtaskMetrics, Unit};
use coulee_runtime::row_errors::RejectedRows;
use coulee_runtime::{Batch, Error, Result};
use tokio::task::JoinHandle;

use super::commit::Backlog;
use super::deliver::{blocking, create_folders, injected};
use super::partition::Router;
use super::plan::{Numbers, SinkPlan};
use super::roll::{Roll, Rolled, sync_folder};
use super::spool::Buffer;
use super::state::{Committable, OpenFile, ReadyFile, WriterState};

/// Why a changelog is refused.
pub(super) const APPEND_ONLY: &str = "files cannot take a row back: aggregate in windows, whose results are final, or write to a table that takes \
                                      changes ('print', 'blackhole')";

/// Rows that wait in memory, over all partitions, before all of them are written to their files.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// A roll of a spool file up to this size is waited for by the next `prepare`; it takes milliseconds. A larger one may take
/// seconds, and a barrier should not: it joins the checkpoint in which it is found done.
const ROLL_AWAITED_BYTES_MAX: u64 = 8 << 20;

/// How many rolls may be under way: each takes a thread and the memory of a row group.
const ROLLS_MAX: usize = 2;

/// With more partitions than this, a person is told what that does.
const PARTITIONS_EXPECTED: u64 = 1_000;

/// How many threads sync spool files.
const SYNC_THREADS: usize = 4;

/// Files that take rows or are being made into objects.
pub static OPEN_FILES: Definition = Definition::gauge("open_files", Unit::Count, Merge::Sum);

/// A spool file that is being made into an object.
#[derive(Debug)]
struct Sealed {
    open: OpenFile,
    unsynced: Option<Arc<File>>,
    key: String,
    file: String,
    task: JoinHandle<Result<Rolled>>,
}

/// A finished file that waits for the next barrier.
#[derive(Debug)]
struct Ready {
    file: ReadyFile,
    /// What it was made of, to be removed with it.
    spool: String,
}

/// The writer of one subtask.
pub struct FilesystemWriter {
    plan: Arc<SinkPlan>,
    router: Router,
    spool: PathBuf,
    subtask: SubtaskIndex,
    incarnation: String,
    clock: Arc<dyn Clock>,
    metrics: Arc<SubtaskMetrics>,
    open_files: Instrument,
    numbers: Numbers,
    ratio: f64,
    buffers: HashMap<Arc<str>, Buffer>,
    sealed: Vec<Sealed>,
    ready: Vec<Ready>,
    /// Rows of the last `write` that no folder can be made for.
    rejected: Option<RejectedRows>,
    backlog: Backlog,
    finished: bool,
    /// Whether the folder has files whose names are not durable.
    folder_unsynced: bool,
    cancelled: Arc<AtomicBool>,
}

impl FilesystemWriter {
    /// Goes on where `states` left off. What was ready, `recover` has delivered.
    ///
    /// # Errors
    /// `Corrupt` when a spool file that they refer to is gone or shorter.
    pub fn open(
        plan: Arc<SinkPlan>,
        context: &SinkContext,
        subtask: SubtaskIndex,
        states: Vec<WriterState>,
        floor: Numbers,
        metrics: Arc<SubtaskMetrics>,
    ) -> Result<Self> {
        create_folders(&context.spool.join(subtask.to_string()))?;
        let may_wait = plan.settings.commit_on == CommitOn::Checkpoint;
        let mut writer = FilesystemWriter {
            backlog: Backlog::new(&plan.committed, may_wait),
            router: plan.router()?,
            plan,
            spool: context.spool.clone(),
            subtask,
            incarnation: context.incarnation.clone(),
            clock: context.clock.clone(),
            open_files: metrics.register(&OPEN_FILES),
            metrics,
            numbers: floor,
            ratio: 1.0,
            buffers: HashMap::new(),
            sealed: Vec::new(),
            ready: Vec::new(),
            rejected: None,
            finished: false,
            folder_unsynced: true,
            cancelled: Arc::new(AtomicBool::new(false)),
        };
        for state in &states {
            writer.numbers.open = writer.numbers.open.max(state.next_open);
            writer.numbers.part = writer.numbers.part.max(state.next_part);
            writer.ratio = state.ratio;
        }
        for open in states.into_iter().flat_map(|state| state.open) {
            let buffer = Buffer::resume(&writer.spool, &open, writer.plan.schema.clone())?;
            // Two writers may have filled the same partition before the parallelism changed: one of the files goes out.
            if open.sealed || writer.buffers.contains_key(buffer.partition()) {
                writer.seal(buffer)?;
            } else {
                writer.buffers.insert(buffer.partition().clone(), buffer);
            }
        }
        Ok(writer)
    }

    fn new_buffer(&mut self, partition: &Arc<str>) -> Result<Buffer> {
        let file = format!("{}/open-{}.arrow", self.subtask, self.numbers.open);
        self.numbers.open += 1;
        self.folder_unsynced = true;
        Buffer::create(&self.spool, file, partition.clone(), self.plan.schema.clone(), self.clock.now())
    }

    /// Whether the file that this spool file becomes is large enough. Spool bytes are translated by what was seen before.
    fn is_full(&self, buffer: &Buffer) -> bool {
        let settings = &self.plan.settings;
        buffer.rows() >= settings.file_rows_max || buffer.bytes() as f64 * self.ratio >= settings.file_bytes_max as f64
    }

    fn due_at(&self, buffer: &Buffer) -> Timestamp {
        let interval = i64::try_from(self.plan.settings.interval.as_millis()).unwrap_or(i64::MAX);
        buffer.opened_at().plus_millis(interval)
    }

    /// Closes a spool file and starts making it into the file to deliver.
    fn seal(&mut self, mut buffer: Buffer) -> Result<()> {
        buffer.flush()?;
        let unsynced = buffer.take_unsynced();
        let open = buffer.state(true);
        let (number, extension) = (self.numbers.part, self.plan.settings.extension());
        self.numbers.part += 1;
        let folder = if open.partition.is_empty() { String::new() } else { format!("{}/", open.partition) };
        let key = format!("{folder}part-{}-{}-{number:08}.{extension}", self.incarnation, self.subtask);
        // A thread of a dropped writer may still be at work; a random part keeps its file apart from the next writer's.
        let file = format!("{}/roll-{number}-{:08x}.{extension}", self.subtask, unique_u64() >> 32);
        let roll = Roll {
            from: self.spool.join(&open.file),
            length: open.length,
            rows: open.rows,
            to: self.spool.join(&file),
            schema: self.plan.schema.clone(),
            settings: self.plan.settings.clone(),
            cancelled: self.cancelled.clone(),
        };
        self.folder_unsynced = true;
        let task = tokio::task::spawn_blocking(move || roll.run());
        self.sealed.push(Sealed { open, unsynced, key, file, task });
        Ok(())
    }

    fn seal_partition(&mut self, partition: &Arc<str>) -> Result<()> {
        match self.buffers.remove(partition) {
            Some(buffer) => self.seal(buffer),
            None => Ok(()),
        }
    }

    /// The partitions whose buffers meet a condition, oldest first, so that objects are numbered in that order.
    fn partitions(&self, which: impl Fn(&Buffer) -> bool) -> Vec<Arc<str>> {
        let mut found: Vec<&Buffer> = self.buffers.values().filter(|buffer| which(buffer)).collect();
        found.sort_by_key(|buffer| (buffer.opened_at(), buffer.partition().clone()));
        found.into_iter().map(|buffer| buffer.partition().clone()).collect()
    }

    /// Takes a roll that is done (or waits for it) into what is ready.
    async fn finish_roll(&mut self, index: usize) -> Result<()> {
        let sealed = self.sealed.remove(index);
        let rolled = match sealed.task.await {
            Ok(rolled) => rolled?,
            Err(error) => return Err(Error::internal(format!("rolling {}: {error}", sealed.open.file))),
        };
        if sealed.open.length >= ROLL_AWAITED_BYTES_MAX {
            // Small files are mostly footer and say little about the ratio.
            self.ratio = (rolled.bytes as f64 / sealed.open.length as f64).clamp(0.01, 4.0);
        }
        let file = ReadyFile {
            key: sealed.key,
            file: sealed.file,
            bytes: rolled.bytes,
            crc32c: rolled.crc32c,
            rows: sealed.open.rows,
        };
        self.ready.push(Ready { file, spool: sealed.open.file });
        Ok(())
    }

    /// Rolls that are done, that take no time, or that nothing can follow.
    async fn finish_rolls(&mut self) -> Result<()> {
        let mut index = 0;
        while let Some(sealed) = self.sealed.get(index) {
            let small = sealed.open.length <= ROLL_AWAITED_BYTES_MAX;
            if self.finished || small || sealed.task.is_finished() {
                self.finish_roll(index).await?;
            } else {
                index += 1;
            }
        }
        Ok(())
    }

    async fn append(&mut self, partition: &Arc<str>, rows: arrow::record_batch::RecordBatch) -> Result<()> {
        if !self.buffers.contains_key(partition) {
            if self.buffers.len() >= self.plan.settings.partitions_max {
                let oldest = self.partitions(|_| true).swap_remove(0);
                self.seal_partition(&oldest)?;
            }
            let buffer = self.new_buffer(partition)?;
            self.buffers.insert(partition.clone(), buffer);
        }
        let buffer = self.buffers.get_mut(partition).expect("inserted above");
        buffer.append(rows)?;
        let full = self.buffers.get(partition).is_some_and(|buffer| self.is_full(buffer));
        if full {
            self.seal_partition(partition)?;
        }
        while self.sealed.len() > ROLLS_MAX {
            self.finish_roll(0).await?;
        }
        Ok(())
    }

    /// Syncs the spool files that have changed, and the folder that names them.
    async fn sync(&mut self) -> Result<()> {
        let mut files: Vec<Arc<File>> = self.buffers.values_mut().filter_map(Buffer::take_unsynced).collect();
        files.extend(self.sealed.iter_mut().filter_map(|sealed| sealed.unsynced.take()));
        fail::fail_point!("filesystem.spool.sync", |_| Err(injected("filesystem.spool.sync")));
        let share = files.len().div_ceil(SYNC_THREADS).max(1);
        let tasks = files.chunks(share).map(|files| {
            let files = files.to_vec();
            blocking(move || {
                let sync =
                    |file: &Arc<File>| file.sync_data().map_err(|cause| Error::io("cannot sync a spool file", cause));
                files.iter().try_for_each(sync)
            })
        });
        futures::future::try_join_all(tasks).await?;
        if std::mem::take(&mut self.folder_unsynced) {
            let folder = self.spool.join(self.subtask.to_string());
            blocking(move || sync_folder(&folder)).await?;
        }
        Ok(())
    }

    fn count_files(&self) {
        self.open_files.set((self.buffers.len() + self.sealed.len()) as i64);
    }

    fn state(&self) -> WriterState {
        let mut open: Vec<OpenFile> = self.buffers.values().map(|buffer| buffer.state(false)).collect();
        open.extend(self.sealed.iter().map(|sealed| sealed.open.clone()));
        open.sort_by(|a, b| a.file.cmp(&b.file));
        WriterState {
            version: WriterState::VERSION,
            next_open: self.numbers.open,
            next_part: self.numbers.part,
            ratio: self.ratio,
            open,
            ready: Vec::new(),
        }
    }
}

#[async_trait]
impl SinkWriter for FilesystemWriter {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        if batch.kinds().is_some_and(|kinds| kinds.values().iter().any(|kind| *kind != 0)) {
            let target = self.plan.target.display();
            return Err(Error::invalid(format!(
                "{target} takes only rows that are appended, and was given updates or deletes: {APPEND_ONLY}"
            )));
        }
        if batch.is_empty() {
            return Ok(());
        }
        self.backlog.room().await;
        let routed = self.router.route(batch.rows())?;
        self.rejected = RejectedRows::undelivered(&batch, routed.refused)?;
        for (partition, rows) in routed.parts {
            self.append(&partition, rows).await?;
        }
        if self.router.partitions() > PARTITIONS_EXPECTED && !self.plan.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                table = self.plan.target.display(),
                "more than {PARTITIONS_EXPECTED} partitions, and each subtask writes at least one file for every one of them: with 'sink.parallelism' = '1' there are \
                 fewest; or partition by something that has fewer values"
            );
        }
        if self.buffers.values().map(Buffer::waiting_bytes).sum::<usize>() > WAITING_BYTES_MAX {
            self.buffers.values_mut().try_for_each(Buffer::flush)?;
        }
        self.count_files();
        Ok(())
    }

    fn take_rejected(&mut self) -> Option<RejectedRows> {
        self.rejected.take()
    }

    async fn prepare(&mut self, checkpoint: CheckpointId) -> Result<Prepared> {
        let now = self.clock.now();
        for partition in self.partitions(|buffer| self.due_at(buffer) <= now) {
            self.seal_partition(&partition)?;
        }
        self.buffers.values_mut().try_for_each(Buffer::flush)?;
        self.finish_rolls().await?;
        self.sync().await?;
        let ready = std::mem::take(&mut self.ready);
        let mut committables = Vec::with_capacity(ready.len());
        for Ready { file, spool } in ready {
            // Counted here rather than at the delivery, as the counters are part of the same checkpoint: a job that dies
            // between the two has its objects delivered by `recover`.
            self.metrics.add_delivered_objects(1);
            self.metrics.add_delivered_rows(file.rows);
            self.metrics.add_delivered_bytes(file.bytes);
            self.backlog.hand_over(checkpoint, file.bytes);
            committables.push(Committable { version: Committable::VERSION, ready: file, spool }.encode());
        }
        self.count_files();
        Ok(Prepared { state: self.state().encode(), committables })
    }

    async fn finish(&mut self) -> Result<()> {
        self.finished = true;
        for partition in self.partitions(|_| true) {
            self.seal_partition(&partition)?;
            while self.sealed.len() > ROLLS_MAX {
                self.finish_roll(0).await?;
            }
        }
        Ok(())
    }

    fn next_delivery(&self) -> Option<Timestamp> {
        // What is being rolled is listed by the first `prepare` that finds it done.
        let rolling = (!self.sealed.is_empty()).then(|| self.clock.now());
        self.buffers.values().map(|buffer| self.due_at(buffer)).chain(rolling).min()
    }
}

impl Drop for FilesystemWriter {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }
}
