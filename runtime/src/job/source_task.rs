//! The task of a chain that begins with a source: reads, paces, makes watermarks, and puts barriers into the flow.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, TimeUnit, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use coulee_checkpoint::{Changes, StateKey, TableId};
use coulee_model::{Clock, KeyGroup, OperatorId, SubtaskIndex, Timestamp};
use datafusion_physical_expr::PhysicalExpr;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Control;
use super::enumerator::Finished;
use super::route::{Ran, TaskError};
use super::source_watermark::SourceWatermark;
use super::task::{Quantum, Task};
use super::watermark_alignment::{AlignmentGroups, AlignmentMember};
use crate::channel::Element;
use crate::connector::{SourceEvent, SourceReader, SplitId, SplitStart};
use crate::graph::{EventTime, Port};
use crate::metrics::SplitFigures;
use crate::operator::InputIndex;
use crate::origin::{Origins, Place};
use crate::row_errors::RejectedRows;
use crate::row_errors::evaluate::{Failed, evaluate, in_pieces};
use crate::state::MemoryBudget;
use crate::watermark::{Idleness, MergedWatermark};
use crate::{Batch, Error, Result};

/// The table of a source's splits that are not read to their end: the split's name to its watermark (i64, big-endian) and its position.
pub(super) const SPLITS: TableId = TableId(1);

/// The table of a source's splits that are: the split's name to what its reader said of it at its end.
pub(super) const FINISHED_SPLITS: TableId = TableId(3);

/// Reads the splits of one subtask.
pub(super) struct SourceTask {
    pub(super) task: Task,
    pub(super) operator: OperatorId,
    pub(super) reader: Box<dyn SourceReader>,
    pub(super) splits: Splits,
    /// Which subtask of the source, and the event time of all of them.
    pub(super) subtask: SubtaskIndex,
    pub(super) merged: Arc<SourceWatermark>,
    pub(super) places: PlaceNames,
    /// Tells the source's enumerator of splits that have ended, if there is one.
    pub(super) finished: Option<mpsc::UnboundedSender<Finished>>,
    pub(super) pace: Option<RateLimiter>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) budget: Arc<MemoryBudget>,
}

/// Event time and progress of the splits of one subtask.
pub(super) struct Splits {
    ids: Vec<SplitId>,
    /// Of which splits the next checkpoint stores the position: those that are new, and those that had an event since the last one.
    unsaved: BTreeSet<usize>,
    event_time: Option<EventTime>,
    watermarks: MergedWatermark,
    idleness: Idleness,
    ended: Vec<bool>,
    /// Whether splits may be added.
    may_grow: bool,
    /// Which splits are not read for now.
    paused: Vec<bool>,
    alignment: Option<AlignmentMember>,
}

impl Splits {
    /// For splits that had reached these watermarks, of a source whose event time had come to `resumed`.
    pub(super) fn new(
        ids: Vec<SplitId>,
        event_time: Option<EventTime>,
        (reached, resumed): (&[Timestamp], Timestamp),
        may_grow: bool,
        groups: &AlignmentGroups,
    ) -> Self {
        let timeout = event_time.as_ref().and_then(|time| time.idle_timeout);
        let mut watermarks = MergedWatermark::resumed(reached.len(), resumed);
        for (split, watermark) in reached.iter().enumerate() {
            watermarks.advance(split, *watermark);
        }
        watermarks.set_may_grow(may_grow);
        let alignment = event_time.as_ref().and_then(|time| time.alignment.as_ref());
        let member = alignment.map(|alignment| groups.join(alignment, reached));
        Splits {
            unsaved: (0..ids.len()).collect(),
            ids,
            paused: vec![false; reached.len()],
            alignment: member,
            event_time,
            watermarks,
            idleness: Idleness::new(reached.len(), timeout),
            ended: vec![false; reached.len()],
            may_grow,
        }
    }

    /// Further splits, which are counted on.
    fn add(&mut self, ids: Vec<SplitId>) {
        for id in ids {
            self.unsaved.insert(self.ids.len());
            self.ids.push(id);
            self.watermarks.push();
            self.idleness.push();
            self.ended.push(false);
            self.paused.push(false);
            if let Some(member) = &mut self.alignment {
                member.add();
            }
        }
    }

    /// No splits will be added any more.
    fn close(&mut self) {
        self.may_grow = false;
        self.watermarks.set_may_grow(false);
    }

    /// Tells the alignment group how far a split is.
    fn publish(&self, split: usize) {
        if let Some(member) = &self.alignment {
            let holds = !self.ended[split] && !self.watermarks.is_idle(split);
            member.advance(split, if holds { self.watermarks.of_part(split) } else { Timestamp::MAX });
        }
    }

    /// Decides anew which splits are read. Whether that has changed.
    fn align(&mut self, reader: &mut dyn SourceReader) -> bool {
        let Some(member) = &self.alignment else { return false };
        let mut has_changed = false;
        for split in 0..self.paused.len() {
            let paused = !self.ended[split] && member.is_ahead(self.watermarks.of_part(split));
            if std::mem::replace(&mut self.paused[split], paused) != paused {
                reader.set_paused(split, paused);
                has_changed = true;
            }
        }
        has_changed
    }

    /// Whether there is no split to read.
    fn all_paused(&self) -> bool {
        self.alignment.is_some() && (0..self.paused.len()).all(|split| self.paused[split] || self.ended[split])
    }

    fn figures(&self) -> Vec<SplitFigures> {
        let figures = |(split, id): (usize, &SplitId)| SplitFigures {
            id: id.0.clone(),
            watermark: self.watermarks.of_part(split),
            is_idle: self.watermarks.is_idle(split),
            is_ended: self.ended[split],
            is_paused: self.paused[split],
        };
        self.ids.iter().enumerate().map(figures).collect()
    }

    fn all_ended(&self) -> bool {
        !self.may_grow && self.ended.iter().all(|ended| *ended)
    }

    /// Something of a split came: it holds event time back again if it was idle, whatever it brought.
    fn woken(&mut self, split: usize) {
        self.idleness.active(split);
        if self.watermarks.is_idle(split) {
            self.watermarks.wake(split);
            self.publish(split);
        }
    }

    /// Rows of a split came: how far do they let its watermark be? Returns the rows whose watermark can be computed, and the others.
    fn rows(&mut self, split: usize, rows: Batch, clock: &dyn Clock) -> Result<(Batch, Option<RejectedRows>)> {
        let Some(event_time) = &self.event_time else { return Ok((rows, None)) };
        if rows.is_empty() {
            return Ok((rows, None));
        }
        let (mut pieces, rejected) = in_pieces(&rows, |piece| {
            let highest = highest(&event_time.watermark, piece.rows())?;
            Ok((piece, highest))
        })?;
        let highest = pieces.iter().filter_map(|(_, highest)| *highest).max();
        let rows = match pieces.len() {
            0 => rows.slice(0, 0),
            1 => pieces.remove(0).0,
            _ => Batch::concat(pieces.into_iter().map(|(piece, _)| piece).collect())?,
        };
        let Some(mut reached) = highest else { return Ok((rows, rejected)) };
        if let Some(skew) = event_time.max_future_skew {
            reached = reached.min(clock.now().plus_millis(skew.as_millis() as i64).0);
        }
        self.watermarks.advance(split, Timestamp(reached));
        self.publish(split);
        Ok((rows, rejected))
    }

    fn end(&mut self, split: usize) {
        self.ended[split] = true;
        self.idleness.active(split);
        self.watermarks.advance(split, Timestamp::MAX);
        self.publish(split);
    }
}

/// The highest watermark that some rows allow, in milliseconds; `None` when none of them has an event time.
fn highest(watermark: &Arc<dyn PhysicalExpr>, rows: &RecordBatch) -> Result<Option<i64>, Failed> {
    let times = evaluate(watermark, rows)?;
    match times.data_type() {
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            Ok(arrow::compute::max(times.as_primitive::<TimestampMillisecondType>()))
        }
        other => {
            let message = format!("the watermark has type {other}, expected a timestamp in milliseconds");
            Err(Error::internal(message).into())
        }
    }
}

/// What the splits of one subtask are called where rows of them are named.
#[derive(Debug)]
pub(super) struct PlaceNames {
    ids: Vec<SplitId>,
    places: Vec<Option<Arc<Place>>>,
}

impl PlaceNames {
    pub(super) fn new(ids: Vec<SplitId>) -> Self {
        PlaceNames { places: vec![None; ids.len()], ids }
    }

    fn add(&mut self, ids: &[SplitId]) {
        self.ids.extend_from_slice(ids);
        self.places.resize(self.ids.len(), None);
    }

    /// The rows that the reader has just returned, with where they were read.
    fn mark(&mut self, source: OperatorId, split: usize, batch: Batch, reader: &mut dyn SourceReader) -> Batch {
        let positions = reader.row_positions();
        let known = self.places[split].as_ref().filter(|place| place.counts == positions.counts);
        let place = known.cloned().unwrap_or_else(|| {
            let name = reader.split_name(split).unwrap_or_else(|| self.ids[split].0.clone());
            Arc::new(Place { source, name, counts: positions.counts })
        });
        self.places[split] = Some(place.clone());
        batch.with_origins(Origins::new(place, positions.numbers))
    }
}

/// Keeps a source to so many rows per second.
#[derive(Debug)]
pub(super) struct RateLimiter {
    rows_per_second: f64,
    /// When the next rows may be read.
    next: Instant,
}

impl RateLimiter {
    /// From `now` on.
    pub(super) fn new(rows_per_second: f64, now: Instant) -> Self {
        RateLimiter { rows_per_second, next: now }
    }

    /// Rows for a tenth of a second, so that pacing is smooth.
    pub(super) fn batch_rows(&self) -> usize {
        ((self.rows_per_second / 10.0) as usize).max(1)
    }

    fn spend(&mut self, rows: usize, now: Instant) {
        // What was not used in the past is not saved up.
        let from = self.next.max(now);
        self.next = from + Duration::from_secs_f64(rows as f64 / self.rows_per_second);
    }
}

enum Woken {
    Control(Option<Control>),
    Read(Result<SourceEvent>),
    /// A split becomes idle.
    Idle,
    /// An operator or the sink wants to be called by the clock.
    Due,
    /// The slowest split of the alignment group has moved.
    Aligned,
}

impl SourceTask {
    /// Runs to the last barrier.
    pub(super) async fn run(mut self) -> Ran {
        self.advance().await?;
        let mut ended = false;
        let mut quantum = Quantum::begin();
        loop {
            quantum.pass(self.task.executor.as_ref()).await;
            // One call by the clock at most between two inputs: neither can keep the other waiting.
            if let Some(now) = self.task.due() {
                self.task.call_due(now).await?;
            }
            if !ended && self.splits.all_ended() {
                ended = true;
                self.merged.advance(self.subtask, Timestamp::MAX);
                self.task.chain.watermark(Timestamp::MAX).await?;
                self.task.chain.end().await?;
                let id = self.task.id;
                self.task.report(super::Report::Ended { task: id })?;
            }
            match self.wait(ended).await {
                Woken::Control(Some(Control::Trigger(barrier))) => {
                    let changes = self.positions();
                    self.show_splits();
                    self.task.barrier(barrier, changes).await?;
                    if barrier.last {
                        return Ok(());
                    }
                }
                Woken::Control(Some(Control::Splits(splits))) => self.add(splits).await?,
                Woken::Control(Some(Control::NoMoreSplits)) => {
                    self.splits.close();
                    self.advance().await?;
                }
                Woken::Control(None) => return Err(TaskError::Disconnected),
                Woken::Read(event) => {
                    let policies = &self.task.chain.links[0].policies;
                    let event = event.map_err(|error| policies.about_table(error))?;
                    self.read(event).await?;
                }
                Woken::Idle => self.idle().await?,
                Woken::Due => {}
                Woken::Aligned => self.align(),
            }
        }
    }

    /// Reads further splits as well.
    async fn add(&mut self, splits: Vec<SplitStart>) -> Ran {
        let ids: Vec<SplitId> = splits.iter().map(|split| split.id.clone()).collect();
        self.reader.add_splits(splits)?;
        self.places.add(&ids);
        self.splits.add(ids);
        self.show_splits();
        self.advance().await
    }

    async fn wait(&mut self, ended: bool) -> Woken {
        let idle_at = self.splits.idleness.next().filter(|_| !ended);
        // Before the input, as for what is due by the wall clock: a split becomes idle also while another one always has rows.
        if idle_at.is_some_and(|at| at <= self.task.executor.now()) {
            return Woken::Idle;
        }
        let all_paused = self.splits.all_paused();
        let resume_at = self.pace.as_ref().map(|pace| pace.next);
        let next_call = self.task.chain.next_call();
        let (reader, budget, executor) = (&mut self.reader, &self.budget, self.task.executor.clone());
        let executor = executor.as_ref();
        let read = async {
            budget.room().await;
            if let Some(at) = resume_at {
                executor.sleep_until(at).await;
            }
            reader.next().await
        };
        let member = self.splits.alignment.as_mut();
        let aligned = async {
            match member {
                Some(member) => member.moved().await,
                None => std::future::pending().await,
            }
        };
        let idle = async {
            match idle_at {
                Some(at) => executor.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            control = self.task.control.recv() => Woken::Control(control),
            event = read, if !ended && !all_paused => Woken::Read(event),
            () = aligned, if !ended => Woken::Aligned,
            () = idle => Woken::Idle,
            _ = Task::until(next_call, self.clock.as_ref(), executor) => Woken::Due,
        }
    }

    async fn read(&mut self, event: SourceEvent) -> Ran {
        self.task.chain.links[0].metrics.set_lag(self.reader.lag());
        self.splits.unsaved.insert(event.split());
        match event {
            SourceEvent::Moved { .. } => Ok(()),
            SourceEvent::Rows { split, rows, rejected } => self.rows(split, Batch::inserts(rows), rejected).await,
            SourceEvent::Changes { split, changes, rejected } => self.rows(split, changes, rejected).await,
            SourceEvent::CaughtUp { split } => {
                self.splits.idleness.caught_up(split, self.task.executor.now());
                Ok(())
            }
            SourceEvent::Ended { split } => {
                self.splits.end(split);
                if let Some(finished) = &self.finished {
                    // An enumerator that has found all splits there will be does not listen any more.
                    let _ = finished.send((self.subtask.0 as usize, self.splits.ids[split].clone()));
                }
                self.advance().await
            }
        }
    }

    async fn rows(&mut self, split: usize, batch: Batch, rejected: Option<RecordBatch>) -> Ran {
        if let Some(pace) = &mut self.pace {
            let rows = batch.len() + rejected.as_ref().map_or(0, RecordBatch::num_rows);
            pace.spend(rows, self.task.executor.now());
        }
        self.splits.woken(split);
        self.tell_activity().await?;
        let source = self.task.chain.links[0].metrics.operator;
        let batch = self.places.mark(source, split, batch, self.reader.as_mut());
        let (batch, failed) = self.splits.rows(split, batch, self.clock.as_ref())?;
        if let Some(failed) = failed {
            self.task.chain.reject(failed).await?;
        }
        if let Some(rejected) = rejected {
            self.task.chain.side(Port::REJECTED, Batch::inserts(rejected)).await?;
        }
        if !batch.is_empty() {
            let metrics = &self.task.chain.links[0].metrics;
            metrics.add_rows_in(batch.len() as u64);
            metrics.add_bytes_in(batch.bytes() as u64);
            self.task.chain.rows(InputIndex::FIRST, batch).await?;
        }
        self.advance().await
    }

    async fn idle(&mut self) -> Ran {
        for split in self.splits.idleness.take_due(self.task.executor.now()) {
            self.splits.watermarks.set_idle(split);
            self.splits.publish(split);
        }
        self.show_splits();
        self.advance().await
    }

    /// Tells those downstream whether the splits hold event time back.
    async fn tell_activity(&mut self) -> Ran {
        let Some(activity) = self.splits.watermarks.take_activity() else { return Ok(()) };
        self.merged.set_activity(self.subtask, activity);
        self.task.chain.broadcast(Element::Activity(activity)).await
    }

    fn align(&mut self) {
        if self.splits.align(self.reader.as_mut()) {
            self.show_splits();
        }
    }

    fn show_splits(&self) {
        self.task.chain.links[0].metrics.set_splits(self.splits.figures());
    }

    async fn advance(&mut self) -> Ran {
        self.align();
        self.tell_activity().await?;
        let Some(watermark) = self.splits.watermarks.take_advance() else { return Ok(()) };
        self.merged.advance(self.subtask, watermark);
        if watermark == Timestamp::MAX {
            // The watermark of the end is sent once everything is, by `run`.
            return Ok(());
        }
        self.task.chain.watermark(watermark).await
    }

    /// What has changed of the splits since the last checkpoint.
    fn positions(&mut self) -> Changes {
        let mut changes = Changes::default();
        for split in std::mem::take(&mut self.splits.unsaved) {
            let (id, position) = (&self.splits.ids[split], self.reader.position(split));
            if self.splits.ended[split] {
                changes.delete(split_key(self.operator, SPLITS, id));
                changes.put(split_key(self.operator, FINISHED_SPLITS, id), position);
            } else {
                let mut value = self.splits.watermarks.of_part(split).0.to_be_bytes().to_vec();
                value.extend_from_slice(&position);
                changes.put(split_key(self.operator, SPLITS, id), value);
            }
        }
        self.merged.store(self.operator, self.subtask, &mut changes);
        changes
    }
}

fn split_key(operator: OperatorId, table: TableId, split: &SplitId) -> StateKey {
    StateKey::new(operator, table, KeyGroup(0), split.0.as_bytes())
}

/// The watermark and position in a stored split's value.
pub(super) fn parse_split(value: &bytes::Bytes) -> Result<(Timestamp, bytes::Bytes)> {
    let watermark = value.first_chunk::<8>().ok_or_else(|| Error::corrupt("a stored position has under 8 bytes"))?;
    Ok((Timestamp(i64::from_be_bytes(*watermark)), value.slice(8..)))
}
