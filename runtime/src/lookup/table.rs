//! The table of a lookup join: read whole, then kept up to date.
//!
//! A table that does not end (a stream) is followed: its rows count from when they are read on. One that ends (files) is read anew at an interval, if there is one,
//! and takes the place of the former when it has been read to its end.

use std::sync::{Arc, OnceLock};

use coulee_model::{Clock, Stopwatch};
use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use tokio::sync::OnceCell;

use super::index::Index;
use super::spec::LookupTable;
use crate::batch::BATCH_ROWS;
use crate::connector::{Enumeration, KnownSplits, SourceContext, SourceEvent, SourceReader, SplitEnumerator, SplitId};
use crate::job::executor::{Executor, Running};
use crate::metrics::SubtaskMetrics;
use crate::operator::OpenContext;
use crate::{Batch, Error, Result, Subject};

/// What is shared by the subtasks of an attempt.
pub(super) struct Table {
    spec: LookupTable,
    index: RwLock<Index>,
    surroundings: OnceLock<Surroundings>,
    loaded: OnceCell<()>,
    /// What keeps it up to date; ends with the attempt.
    following: Mutex<Option<Running<()>>>,
    /// Why it is not kept up to date any more.
    failed: Arc<Mutex<Option<Error>>>,
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Table").field("spec", &self.spec).finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct Surroundings {
    executor: Arc<dyn Executor>,
    clock: Arc<dyn Clock>,
    /// Of a reader that counts for nobody: the rows of the table are none of the job's input.
    metrics: Arc<SubtaskMetrics>,
}

/// A reader of all splits.
struct Reading {
    reader: Box<dyn SourceReader>,
    splits: Vec<SplitId>,
    discovery: Option<Box<dyn SplitEnumerator>>,
    /// Of each split, whether what it had when it was opened has been read.
    is_read: Vec<bool>,
    /// Records that could not become rows, or failed in an expression.
    rejected: usize,
}

impl Table {
    pub(super) fn new(spec: LookupTable) -> Result<Self> {
        Ok(Table {
            index: RwLock::new(Index::new(spec.clone())?),
            spec,
            surroundings: OnceLock::new(),
            loaded: OnceCell::new(),
            following: Mutex::new(None),
            failed: Arc::default(),
        })
    }

    pub(super) fn open(&self, context: &OpenContext<'_>) {
        self.surroundings.get_or_init(|| Surroundings {
            executor: context.executor.clone(),
            clock: context.clock.clone(),
            metrics: Arc::new(SubtaskMetrics::new(context.operator, context.subtask)),
        });
    }

    /// The rows, as they are now.
    pub(super) fn index(&self) -> RwLockReadGuard<'_, Index> {
        self.index.read()
    }

    /// Whether the table is still kept up to date.
    ///
    /// # Errors
    /// Why it is not.
    pub(super) fn check(&self) -> Result<()> {
        self.failed.lock().take().map_or(Ok(()), Err)
    }

    /// Reads the table, once for all subtasks.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) async fn load(self: &Arc<Self>) -> Result<()> {
        self.loaded.get_or_try_init(|| async { self.read().await.map_err(|error| self.error(error)) }).await.map(drop)
    }

    fn error(&self, error: Error) -> Error {
        error.about(Subject::Table(self.spec.name.clone()))
    }

    async fn read(self: &Arc<Self>) -> Result<()> {
        let Some(surroundings) = self.surroundings.get().cloned() else {
            return Err(Error::internal("a lookup join reads its table before it was opened"));
        };
        let (index, reading) = read_whole(&self.spec, &surroundings).await?;
        *self.index.write() = index;
        let (weak, failed) = (Arc::downgrade(self), self.failed.clone());
        let executor = surroundings.executor.clone();
        let following = match (self.spec.source.is_bounded(), self.spec.reload) {
            (true, None) => return Ok(()),
            (true, Some(interval)) => executor.start(async move {
                loop {
                    surroundings.executor.sleep(interval).await;
                    let Some(table) = weak.upgrade() else { return };
                    match read_whole(&table.spec, &surroundings).await {
                        Ok((index, _)) => *table.index.write() = index,
                        Err(error) => {
                            tracing::warn!(table = table.spec.name, %error, "a lookup table could not be read again: its rows stay as they were");
                        }
                    }
                }
            }),
            (false, _) => executor.start(async move {
                let mut reading = reading;
                loop {
                    let changes = match reading.next().await {
                        Ok(changes) => changes,
                        Err(error) => {
                            *failed.lock() = Some(error);
                            return;
                        }
                    };
                    let Some(table) = weak.upgrade() else { return };
                    if let Some(changes) = changes
                        && let Err(error) = table.index.write().apply(&changes)
                    {
                        *failed.lock() = Some(error);
                        return;
                    }
                }
            }),
        };
        *self.following.lock() = Some(following);
        Ok(())
    }
}

/// Reads all that a table holds now.
async fn read_whole(spec: &LookupTable, surroundings: &Surroundings) -> Result<(Index, Reading)> {
    let (began, mut index, mut rows) = (Stopwatch::start(), Index::new(spec.clone())?, 0);
    let mut reading = Reading::open(spec, surroundings).await?;
    while !reading.is_read.iter().all(|is_read| *is_read) {
        if let Some(changes) = reading.next().await? {
            rows += changes.len();
            reading.rejected += index.apply(&changes)?;
        }
    }
    if reading.rejected > 0 {
        tracing::warn!(
            table = spec.name,
            records = reading.rejected,
            "records of a lookup table could not become rows, and are not found"
        );
    }
    let (millis, bytes) = (began.elapsed().as_millis() as u64, index.bytes());
    tracing::info!(table = spec.name, rows, bytes, millis, "a lookup table was read");
    Ok((index, reading))
}

impl Reading {
    async fn open(spec: &LookupTable, surroundings: &Surroundings) -> Result<Self> {
        let Enumeration { splits, discovery } = spec.source.enumerate(KnownSplits::default()).await?;
        let ids: Vec<SplitId> = splits.iter().map(|split| split.id.clone()).collect();
        let Surroundings { clock, metrics, .. } = surroundings.clone();
        let is_read = vec![false; ids.len()];
        let reader = spec.source.open(splits, SourceContext { batch_rows: BATCH_ROWS, clock, metrics }).await?;
        Ok(Reading { reader, splits: ids, discovery, is_read, rejected: 0 })
    }

    /// The next rows; `None` when something else was heard of.
    async fn next(&mut self) -> Result<Option<Batch>> {
        let event = match &mut self.discovery {
            None => self.reader.next().await?,
            Some(discovery) => tokio::select! {
                biased;
                event = self.reader.next() => event?,
                found = discovery.discover() => {
                    match found? {
                        None => self.discovery = None,
                        Some(splits) => {
                            self.splits.extend(splits.iter().map(|split| split.id.clone()));
                            self.is_read.resize(self.splits.len(), false);
                            self.reader.add_splits(splits)?;
                        }
                    }
                    return Ok(None);
                }
            },
        };
        let (changes, rejected) = match event {
            SourceEvent::Rows { rows, rejected, .. } => (Batch::inserts(rows), rejected),
            SourceEvent::Changes { changes, rejected, .. } => (changes, rejected),
            SourceEvent::CaughtUp { split } => {
                self.is_read[split] = true;
                return Ok(None);
            }
            SourceEvent::Ended { split } => {
                self.is_read[split] = true;
                if let Some(discovery) = &mut self.discovery {
                    discovery.finished(&self.splits[split]);
                }
                return Ok(None);
            }
            SourceEvent::Moved { .. } => return Ok(None),
        };
        self.rejected += rejected.map_or(0, |rejected| rejected.num_rows());
        Ok(Some(changes))
    }
}
