//! Joins whose rows find their partners within a span of event time (Flink's interval join), and joins of windows: a row is kept until the watermark says that no
//! partner can come any more, and what leaves is only appended.
//!
//! A pair leaves when its later row comes. A row of an outer or anti join that found no partner leaves when it is forgotten. The watermark that is passed on is behind
//! the one that came by the longest time for which a row is kept, so that no row that leaves is late. Rows that come when they would be forgotten already are joined
//! with what is there, are not kept, and are counted as late; in a join of windows they are dropped, as an aggregation of the window drops them.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, UInt32Array, new_null_array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use coulee_checkpoint::{Changes, TableId};
use coulee_model::{CheckpointId, SubtaskIndex, Timestamp};

use super::describe;
use super::emit::Emitter;
use super::matches::Matches;
use super::side::{Kept, KeyedRows, Side};
use super::spec::{IntervalJoinSpec, JoinKind, Retention};
use crate::batch::BATCH_ROWS;
use crate::graph::{Lineage, OperatorFactory, Port};
use crate::metrics::SubtaskMetrics;
use crate::operator::{InputIndex, OpenContext, Operator, Output};
use crate::row_errors::evaluate::in_pieces;
use crate::state::{OperatorState, StoredWatermark, Timers};
use crate::{Batch, Error, Result};

/// The tables of the sides' rows, of the times at which they are forgotten, and of the watermark.
const ROWS: [TableId; 2] = [TableId(1), TableId(2)];
const TIMERS: [TableId; 2] = [TableId(3), TableId(4)];
const WATERMARK: TableId = TableId(5);

/// How many keys' rows are forgotten at once.
const FORGOTTEN_MAX: usize = 4_096;

/// The operator of a join in event time. Its inputs must be hashed by the sides' keys.
///
/// # Errors
/// `Internal` when a side does not say until when its rows are kept.
pub fn interval_join(spec: IntervalJoinSpec) -> Result<Arc<dyn OperatorFactory>> {
    let (Some(left), Some(right)) = (&spec.join.left.retention, &spec.join.right.retention) else {
        return Err(Error::internal("a side of a join in event time has no time"));
    };
    let retentions = [left.clone(), right.clone()];
    Ok(Arc::new(IntervalJoinFactory { spec, retentions }))
}

#[derive(Debug)]
struct IntervalJoinFactory {
    spec: IntervalJoinSpec,
    retentions: [Retention; 2],
}

impl OperatorFactory for IntervalJoinFactory {
    fn describe(&self) -> String {
        let kind = if self.spec.of_windows { "Window" } else { "Interval" };
        format!("{kind}{}", self.spec.join.describe())
    }

    fn schema(&self) -> SchemaRef {
        self.spec.join.schema.clone()
    }

    fn refuses_changelog(&self, _: InputIndex) -> Option<&'static str> {
        Some("a row that is taken back after its time would find nothing any more")
    }

    fn emits_changelog(&self, _: Port, _: bool) -> bool {
        false
    }

    fn state(&self, inputs: &[Lineage]) -> Option<OperatorState> {
        let [left, right] = inputs else { return Some(OperatorState::undescribed(inputs)) };
        Some(describe::interval_state(&self.spec, &self.retentions, left, right))
    }

    fn lineage(&self, inputs: &[Lineage]) -> Lineage {
        match inputs {
            [left, right] => describe::lineage(&self.spec.join, left, right),
            _ => Lineage::named("nothing", self.schema()),
        }
    }

    fn may_reject(&self) -> bool {
        true
    }

    fn create(&self, _: SubtaskIndex) -> Result<Box<dyn Operator>> {
        let join = &self.spec.join;
        Ok(Box::new(IntervalJoin {
            sides: [
                TimedSide { side: Side::new(&join.left, ROWS[0])?, timers: Timers::new(TIMERS[0]) },
                TimedSide { side: Side::new(&join.right, ROWS[1])?, timers: Timers::new(TIMERS[1]) },
            ],
            spec: self.spec.clone(),
            retentions: self.retentions.clone(),
            pending: VecDeque::new(),
            watermark: Timestamp::MIN,
            stored_watermark: StoredWatermark::new(WATERMARK),
            held: None,
            metrics: None,
        }))
    }
}

/// The rows of a side, and when they are forgotten: a timer at each time that a key has.
struct TimedSide {
    side: Side,
    timers: Timers,
}

struct IntervalJoin {
    spec: IntervalJoinSpec,
    retentions: [Retention; 2],
    sides: [TimedSide; 2],
    /// Rows that came and are not joined yet: the input, and the first that is left.
    pending: VecDeque<(InputIndex, KeyedRows, usize)>,
    watermark: Timestamp,
    stored_watermark: StoredWatermark,
    /// The watermark, while rows are forgotten by it.
    held: Option<Timestamp>,
    metrics: Option<Arc<SubtaskMetrics>>,
}

impl IntervalJoin {
    /// Joins rows from `start` on with what is kept of the other side, and keeps them; returns the first that is left.
    fn take(&mut self, input: InputIndex, rows: &KeyedRows, start: usize, out: &mut Output) -> Result<usize> {
        let (spec, at) = (&self.spec.join, usize::from(input.0));
        let (first, second) = self.sides.split_at_mut(1);
        let (own, other) = if at == 0 { (&mut first[0], &mut second[0]) } else { (&mut second[0], &mut first[0]) };
        let mut matches = Matches::find(spec, input, (rows, start), &mut other.side, out)?;
        let mut emitter = Emitter::new(spec, input);
        let (mut late, mut timeless) = (0, 0);
        for row in matches.rows.clone() {
            let time = rows.time(row);
            let is_open = time.is_some_and(|time| time.saturating_add(self.retentions[at].millis) > self.watermark.0);
            timeless += u64::from(time.is_none());
            late += u64::from(time.is_some() && !is_open);
            if self.spec.of_windows && !is_open {
                continue;
            }
            let matching = if spec.kind.counts_matches(input) { matches.rows_of(row) } else { 0 };
            let mut keeps = is_open && rows.has_partner(row, spec.null_equals_null);
            if keeps && matching == 0 && spec.kind.counts_matches(input) {
                // One like it found partners that are forgotten by now: this one is on its own.
                keeps = own.side.kept(rows, row)?.is_none_or(|kept| kept.matching == 0);
            }
            emitter.once(row, keeps, &mut matches);
            if let Some(time) = time.filter(|_| keeps) {
                own.side.change(rows, row, false, matching)?;
                own.timers.register(Timestamp(time), rows.key(row));
            }
        }
        matches.store(&mut other.side)?;
        emitter.finish(&rows.batch, &matches, out)?;
        own.side.trim();
        other.side.trim();
        if let Some(metrics) = &self.metrics {
            metrics.add_late_rows(late);
            metrics.add_timeless_rows(timeless);
        }
        Ok(matches.rows.end)
    }

    /// Forgets rows that can find no partner any more. Whether some are left.
    fn forget(&mut self, watermark: Timestamp, out: &mut Output) -> Result<bool> {
        for input in [InputIndex::FIRST, InputIndex::SECOND] {
            let at = usize::from(input.0);
            let until = match watermark {
                Timestamp::MAX => Timestamp::MAX,
                Timestamp(watermark) => Timestamp(watermark.saturating_sub(self.retentions[at].millis)),
            };
            let TimedSide { side, timers } = &mut self.sides[at];
            let due = timers.take_due(until, FORGOTTEN_MAX)?;
            if due.is_empty() {
                continue;
            }
            let kind = self.spec.join.kind;
            let leaves = kind.counts_matches(input) && kind != JoinKind::LeftSemi;
            let mut alone: Vec<(Box<[u8]>, Kept)> = Vec::new();
            for timer in &due {
                side.forget(timer.key(), timer.at.0, |row, kept| {
                    if leaves && kept.matching == 0 {
                        alone.push((row, kept));
                    }
                })?;
            }
            side.trim();
            for rows in alone.chunks(BATCH_ROWS) {
                self.emit_alone(input, rows, out)?;
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// Emits rows without a match.
    fn emit_alone(&self, input: InputIndex, rows: &[(Box<[u8]>, Kept)], out: &mut Output) -> Result<()> {
        let spec = &self.spec.join;
        let columns = self.sides[usize::from(input.0)].side.decoded(rows.iter().map(|(row, _)| row.as_ref()))?;
        // A row leaves as often as it is there.
        let times = rows.iter().enumerate();
        let times: Vec<u32> = times.flat_map(|(row, (_, kept))| (0..kept.count).map(move |_| row as u32)).collect();
        for times in times.chunks(BATCH_ROWS) {
            let times = UInt32Array::from(times.to_vec());
            let own =
                columns.iter().map(|column| Ok(take(column, &times, None)?)).collect::<Result<Vec<ArrayRef>>>()?;
            let nulls = |schema: &SchemaRef| -> Vec<ArrayRef> {
                schema.fields().iter().map(|field| new_null_array(field.data_type(), times.len())).collect()
            };
            let columns = match (spec.kind, input) {
                (JoinKind::LeftAnti, _) => own,
                (JoinKind::LeftMark, _) => {
                    let marks: ArrayRef = Arc::new(BooleanArray::from(vec![false; times.len()]));
                    own.into_iter().chain([marks]).collect()
                }
                (_, InputIndex::FIRST) => [own, nulls(&spec.right.schema)].concat(),
                _ => [nulls(&spec.left.schema), own].concat(),
            };
            let options = RecordBatchOptions::new().with_row_count(Some(times.len()));
            let rows = RecordBatch::try_new_with_options(spec.schema.clone(), columns, &options)?;
            out.emit(Batch::inserts(rows));
        }
        Ok(())
    }

    /// What is passed on of a watermark: rows that leave later may be so much older.
    fn behind(&self, watermark: Timestamp) -> Timestamp {
        let longest = self.retentions.iter().map(|retention| retention.millis).max().unwrap_or_default().max(0);
        match watermark {
            Timestamp::MAX => Timestamp::MAX,
            Timestamp(watermark) => Timestamp(watermark.saturating_sub(longest)),
        }
    }
}

impl Operator for IntervalJoin {
    fn open(&mut self, context: &OpenContext<'_>) -> Result<()> {
        let backend = context.backend();
        for kept in &mut self.sides {
            kept.side.open(context)?;
            kept.timers.open(backend.clone())?;
        }
        self.watermark = self.stored_watermark.open(context)?;
        self.metrics = Some(context.metrics.clone());
        Ok(())
    }

    fn process(&mut self, input: InputIndex, batch: Batch, out: &mut Output) -> Result<()> {
        if batch.kinds().is_some() || input > InputIndex::SECOND {
            // A defence: the graph is refused before.
            return Err(Error::internal("a join in event time has two inputs, whose rows are only appended"));
        }
        let (side, own) = (self.spec.join.side(input), &self.sides[usize::from(input.0)].side);
        let (pieces, rejected) = in_pieces(&batch, |piece| own.keyed(side, piece))?;
        if let Some(rejected) = rejected {
            out.reject(rejected);
        }
        self.pending.extend(pieces.into_iter().map(|rows| (input, rows, 0)));
        Ok(())
    }

    fn watermark(&mut self, watermark: Timestamp, out: &mut Output) -> Result<()> {
        if watermark > self.watermark {
            self.watermark = watermark;
            self.held = Some(watermark);
        } else {
            out.watermark(self.behind(watermark));
        }
        Ok(())
    }

    /// Joins what came, then forgets what the watermark says, in parts that are passed on one after the other.
    fn more(&mut self, out: &mut Output) -> Result<bool> {
        if let Some((input, rows, next)) = self.pending.pop_front() {
            let end = self.take(input, &rows, next, out)?;
            if end < rows.batch.len() {
                self.pending.push_front((input, rows, end));
            }
            return Ok(true);
        }
        let Some(watermark) = self.held else { return Ok(false) };
        if self.forget(watermark, out)? {
            return Ok(true);
        }
        self.held = None;
        out.watermark(self.behind(watermark));
        Ok(false)
    }

    fn checkpoint(&mut self, id: CheckpointId, _: &mut Output, changes: &mut Changes) -> Result<()> {
        for kept in &mut self.sides {
            kept.side.checkpoint(id, changes)?;
            kept.timers.checkpoint(id, changes);
        }
        self.stored_watermark.checkpoint(self.watermark, changes);
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.sides.iter().map(|kept| kept.side.bytes() + kept.timers.bytes()).sum()
    }
}
