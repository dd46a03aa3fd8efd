//! Joins of each row with the version that a table had at the row's event time (`JOIN t FOR SYSTEM_TIME AS OF s.ts`, Flink's `TemporalRowTimeJoinOperator`).
//!
//! The table's rows replace each other by its primary key, each from its own event time on; those are its versions ([`versions`](super::versions)). A row of the stream
//! waits until the watermark has passed its time, as versions may come until then, and leaves with the version of its time. Versions that no later row can meet are
//! forgotten: of each key the newest one before the watermark is kept, and those after it.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{ArrayRef, UInt32Array, new_null_array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use coulee_checkpoint::{Changes, TableId};
use coulee_model::{CheckpointId, SubtaskIndex, Timestamp};

use super::describe;
use super::side::{KeyedRows, Side};
use super::spec::TemporalJoinSpec;
use super::versions::Versions;
use crate::batch::BATCH_ROWS;
use crate::graph::{Lineage, OperatorFactory, Port};
use crate::metrics::SubtaskMetrics;
use crate::operator::{InputIndex, OpenContext, Operator, Output};
use crate::pairs::holding;
use crate::row_errors::evaluate::in_pieces;
use crate::state::{OperatorState, StoredWatermark, Timers};
use crate::watermark::HeldWatermark;
use crate::{Batch, Result};

/// The tables of the rows that wait, of the versions, of the times of both, and of the watermark.
const ROWS: TableId = TableId(1);
const VERSIONS: TableId = TableId(2);
const TIMERS: TableId = TableId(3);
const WATERMARK: TableId = TableId(5);

/// How many times of keys are looked at at once.
const FIRED_MAX: usize = 4_096;

/// The operator of a join with the versions of a table. Its inputs must be hashed by the sides' keys, which are the primary key of the right side.
pub fn temporal_join(spec: TemporalJoinSpec) -> Arc<dyn OperatorFactory> {
    Arc::new(TemporalJoinFactory(spec))
}

#[derive(Debug)]
struct TemporalJoinFactory(TemporalJoinSpec);

impl OperatorFactory for TemporalJoinFactory {
    fn describe(&self) -> String {
        self.0.describe()
    }

    fn schema(&self) -> SchemaRef {
        self.0.schema.clone()
    }

    fn refuses_changelog(&self, input: InputIndex) -> Option<&'static str> {
        (input == InputIndex::FIRST).then_some("a row that is taken back after its time may find no version any more")
    }

    fn emits_changelog(&self, _: Port, _: bool) -> bool {
        false
    }

    fn state(&self, inputs: &[Lineage]) -> Option<OperatorState> {
        let [left, right] = inputs else { return Some(OperatorState::undescribed(inputs)) };
        Some(describe::temporal_state(&self.0, left, right))
    }

    fn lineage(&self, inputs: &[Lineage]) -> Lineage {
        match inputs {
            [left, right] => describe::temporal_lineage(&self.0, left, right),
            _ => Lineage::named("nothing", self.schema()),
        }
    }

    fn may_reject(&self) -> bool {
        true
    }

    fn create(&self, _: SubtaskIndex) -> Result<Box<dyn Operator>> {
        Ok(Box::new(TemporalJoin {
            rows: Side::new(&self.0.left, ROWS)?,
            versions: Versions::new(&self.0.right, VERSIONS)?,
            timers: Timers::new(TIMERS),
            spec: self.0.clone(),
            pending: VecDeque::new(),
            watermark: HeldWatermark::at(Timestamp::MIN),
            stored_watermark: StoredWatermark::new(WATERMARK),
            metrics: None,
        }))
    }
}

struct TemporalJoin {
    spec: TemporalJoinSpec,
    rows: Side,
    versions: Versions,
    /// The times of rows and of versions, by key.
    timers: Timers,
    /// Rows of the stream that have no time, and leave alone.
    pending: VecDeque<Batch>,
    watermark: HeldWatermark,
    stored_watermark: StoredWatermark,
    metrics: Option<Arc<SubtaskMetrics>>,
}

/// Rows that leave, each so often, and the version of each.
#[derive(Default)]
struct Leaving {
    rows: Vec<Box<[u8]>>,
    counts: Vec<u64>,
    versions: Vec<Option<Box<[u8]>>>,
}

impl TemporalJoin {
    /// Keeps rows of the stream until their time.
    fn keep(&mut self, rows: &KeyedRows) -> Result<()> {
        let (mut late, mut timeless) = (0, Vec::new());
        for row in 0..rows.batch.len() {
            let Some(time) = rows.time(row) else {
                timeless.push(row as u32);
                continue;
            };
            late += u64::from(time <= self.watermark.reached().0);
            self.rows.change(rows, row, false, 0)?;
            self.timers.register(Timestamp(time), rows.key(row));
        }
        if let Some(metrics) = &self.metrics {
            metrics.add_late_rows(late);
            metrics.add_timeless_rows(timeless.len() as u64);
        }
        if self.spec.is_outer && !timeless.is_empty() {
            let timeless = UInt32Array::from(timeless);
            self.pending.push_back(rows.batch.select(|column| Ok(take(column, &timeless, None)?))?);
        }
        self.rows.trim();
        Ok(())
    }

    /// Keeps versions.
    fn keep_versions(&mut self, rows: &KeyedRows) -> Result<()> {
        for row in 0..rows.batch.len() {
            if !rows.has_key(row) {
                continue;
            }
            if let Some(time) = self.versions.put(rows, row)? {
                self.timers.register(Timestamp(time), rows.key(row));
            }
        }
        self.versions.trim();
        Ok(())
    }

    /// Lets the rows leave whose time the watermark has passed. Whether some are left.
    fn fire(&mut self, watermark: Timestamp, out: &mut Output) -> Result<bool> {
        let due = self.timers.take_due(watermark, FIRED_MAX)?;
        let mut leaving = Leaving::default();
        for timer in &due {
            let (key, before) = (timer.key(), leaving.rows.len());
            self.rows.forget(key, timer.at.0, |row, kept| {
                leaving.rows.push(row);
                leaving.counts.push(kept.count);
            })?;
            if leaving.rows.len() > before {
                let version = self.versions.at(key, timer.at.0)?;
                leaving.versions.resize(leaving.rows.len(), version);
            }
            self.versions.forget_before(key, timer.at.0)?;
        }
        self.rows.trim();
        self.versions.trim();
        if !leaving.rows.is_empty() {
            self.emit(&leaving, out)?;
        }
        Ok(!due.is_empty())
    }

    fn emit(&self, leaving: &Leaving, out: &mut Output) -> Result<()> {
        let own = self.rows.decoded(leaving.rows.iter().map(AsRef::as_ref))?;
        let found = self.versions.decoded(leaving.versions.iter().flatten().map(AsRef::as_ref))?;
        // Of each row, which of the versions that were found is its own.
        let mut numbers = 0..;
        let of_row: Vec<Option<u32>> =
            leaving.versions.iter().map(|version| version.as_ref().and_then(|_| numbers.next())).collect();
        let of_row = self.matching(&own, &found, of_row, out)?;
        let (mut rows, mut versions) = (Vec::new(), Vec::new());
        for (row, version) in of_row.iter().enumerate() {
            if version.is_none() && !self.spec.is_outer {
                continue;
            }
            for _ in 0..leaving.counts[row] {
                rows.push(row as u32);
                versions.push(*version);
            }
        }
        for (rows, versions) in rows.chunks(BATCH_ROWS).zip(versions.chunks(BATCH_ROWS)) {
            out.emit(self.joined(&own, &found, rows, versions)?);
        }
        Ok(())
    }

    /// The versions of rows for which the condition holds.
    fn matching(
        &self,
        own: &[ArrayRef],
        found: &[ArrayRef],
        mut of_row: Vec<Option<u32>>,
        out: &mut Output,
    ) -> Result<Vec<Option<u32>>> {
        let Some(condition) = &self.spec.condition else { return Ok(of_row) };
        let pairs = of_row.iter().enumerate().filter_map(|(row, version)| Some((row as u32, (*version)?)));
        let (rows, versions): (Vec<u32>, Vec<u32>) = pairs.unzip();
        if rows.is_empty() {
            return Ok(of_row);
        }
        let (rows, versions) = (UInt32Array::from(rows), UInt32Array::from(versions));
        let mut columns = own.iter().map(|column| Ok(take(column, &rows, None)?)).collect::<Result<Vec<ArrayRef>>>()?;
        for column in found {
            columns.push(take(column, &versions, None)?);
        }
        let fields = self.spec.left.schema.fields().iter().chain(self.spec.right.schema.fields()).cloned().collect();
        let holds = holding(condition, columns, fields, rows.len(), out)?;
        for (row, holds) in rows.values().iter().zip(holds) {
            if !holds {
                of_row[*row as usize] = None;
            }
        }
        Ok(of_row)
    }

    fn joined(&self, own: &[ArrayRef], found: &[ArrayRef], rows: &[u32], versions: &[Option<u32>]) -> Result<Batch> {
        let (rows, versions) = (UInt32Array::from(rows.to_vec()), UInt32Array::from(versions.to_vec()));
        let mut columns = own.iter().map(|column| Ok(take(column, &rows, None)?)).collect::<Result<Vec<ArrayRef>>>()?;
        for (index, field) in self.spec.right.schema.fields().iter().enumerate() {
            columns.push(match found.get(index) {
                Some(column) if !column.is_empty() => take(column, &versions, None)?,
                _ => new_null_array(field.data_type(), versions.len()),
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        Ok(Batch::inserts(RecordBatch::try_new_with_options(self.spec.schema.clone(), columns, &options)?))
    }
}

impl Operator for TemporalJoin {
    fn open(&mut self, context: &OpenContext<'_>) -> Result<()> {
        let backend = context.backend();
        self.rows.open(context)?;
        self.versions.open(context)?;
        self.timers.open(backend.clone())?;
        self.watermark = HeldWatermark::at(self.stored_watermark.open(context)?);
        self.metrics = Some(context.metrics.clone());
        Ok(())
    }

    fn process(&mut self, input: InputIndex, batch: Batch, out: &mut Output) -> Result<()> {
        let is_left = input == InputIndex::FIRST;
        let side = if is_left { &self.spec.left } else { &self.spec.right };
        let (pieces, rejected) = in_pieces(&batch, |piece| match is_left {
            true => self.rows.keyed(side, piece),
            false => self.versions.keyed(side, piece),
        })?;
        if let Some(rejected) = rejected {
            out.reject(rejected);
        }
        pieces.iter().try_for_each(|rows| if is_left { self.keep(rows) } else { self.keep_versions(rows) })
    }

    fn watermark(&mut self, watermark: Timestamp, out: &mut Output) -> Result<()> {
        self.watermark.advance(watermark, out);
        Ok(())
    }

    /// Lets rows leave in parts, in the order of their times, and then passes the watermark on.
    fn more(&mut self, out: &mut Output) -> Result<bool> {
        if let Some(alone) = self.pending.pop_front() {
            let rows: Vec<u32> = (0..alone.len() as u32).collect();
            out.emit(self.joined(alone.rows().columns(), &[], &rows, &vec![None; rows.len()])?);
            return Ok(true);
        }
        let Some(watermark) = self.watermark.held() else { return Ok(false) };
        if self.fire(watermark, out)? {
            return Ok(true);
        }
        self.watermark.release(out);
        Ok(false)
    }

    fn checkpoint(&mut self, id: CheckpointId, _: &mut Output, changes: &mut Changes) -> Result<()> {
        self.rows.checkpoint(id, changes)?;
        self.versions.checkpoint(id, changes)?;
        self.timers.checkpoint(id, changes);
        self.stored_watermark.checkpoint(self.watermark.reached(), changes);
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.rows.bytes() + self.versions.bytes() + self.timers.bytes()
    }
}
