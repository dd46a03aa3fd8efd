//! The operator of one subtask: rows wait for their time, and are computed and emitted when it has passed.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, TimestampMillisecondArray, UInt32Array};
use arrow::datatypes::{DataType, TimeUnit};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use bytes::Bytes;
use coulee_checkpoint::{Changes, TableId};
use coulee_model::{CheckpointId, Timestamp};
use datafusion_physical_expr::PhysicalExpr;

use super::compute::{Calls, Computed};
use super::entry::{Partition, RowKey, behind, entry_key, peers, time_of};
use super::spec::{OverMode, OverSpec};
use super::stretch::Stretch;
use crate::event_time::floor_to_millis;
use crate::graph::Port;
use crate::keys::hash_keys;
use crate::metrics::SubtaskMetrics;
use crate::operator::{InputIndex, OpenContext, Operator, Output};
use crate::row_codec::{EncodedRows, RowCodec};
use crate::row_errors::evaluate::{Failed, evaluate, in_pieces};
use crate::row_errors::{RejectedRows, Stage};
use crate::state::{KeyRef, MapTable, Order, Postcard, StoredWatermark, Timer, Timers, ValueTable};
use crate::watermark::HeldWatermark;
use crate::{Batch, Error, Result};

/// The table of rows: those that wait, and those that frames of later rows may need.
const ROWS: TableId = TableId(1);
/// The table of what else is known of a partition.
const PARTITIONS: TableId = TableId(2);
/// See [`Timers`]: one for each partition, at the time of its first waiting row, or when kept rows are to be freed.
const TIMERS: TableId = TableId(3);
/// The table of the watermark reached: one entry, written by every subtask alike.
const WATERMARK: TableId = TableId(4);

/// How many partitions fire at once at most.
const FIRED_MAX: usize = 8_192;
/// How many rows are computed at once, roughly.
const ROWS_AT_ONCE: usize = 8_192;
/// The time of rows that wait for the end of the input: a timer at the last instant of all would lie behind every horizon.
const END: Timestamp = Timestamp(i64::MAX - 1);

pub(super) struct Over {
    spec: OverSpec,
    calls: Calls,
    partition_codec: RowCodec,
    order_codec: RowCodec,
    row_codec: RowCodec,
    rows: MapTable,
    partitions: ValueTable<Postcard<Partition>>,
    timers: Timers,
    /// A watermark is passed on when the rows that it lets go have been emitted.
    watermark: HeldWatermark,
    stored_watermark: StoredWatermark,
    /// Whether the input has ended.
    has_ended: bool,
    metrics: Option<Arc<SubtaskMetrics>>,
}

/// A batch as it is stored.
struct Arrived {
    batch: Batch,
    /// `None` where there is no event time.
    times: Option<TimestampMillisecondArray>,
    hashes: Vec<u64>,
    partitions: EncodedRows,
    order: EncodedRows,
    rows: EncodedRows,
}

impl Arrived {
    fn partition(&self, row: usize) -> KeyRef<'_> {
        KeyRef { hash: self.hashes[row], bytes: self.partitions.row(row) }
    }
}

/// The rows of the partitions that fire.
#[derive(Default)]
struct Due {
    stretches: Vec<Stretch>,
    /// Per stretch, its timer, and whether it has more rows that are due.
    fired: Vec<(Timer, bool)>,
    rows: Vec<Bytes>,
}

impl Over {
    pub fn new(spec: OverSpec) -> Result<Self> {
        if matches!(spec.mode, OverMode::ByTime(_)) && spec.looks_ahead() {
            return Err(Error::invalid(
                "a column of OVER in the order of event time is computed of rows behind the current one",
            ));
        }
        let mut partition = Vec::with_capacity(spec.partition.len());
        for expr in &spec.partition {
            partition.push(expr.data_type(&spec.input)?);
        }
        let mut order = Vec::with_capacity(spec.order.len());
        for (expr, options) in &spec.order {
            order.push((expr.data_type(&spec.input)?, *options));
        }
        let columns = spec.input.fields().iter().map(|field| field.data_type().clone()).collect();
        Ok(Over {
            calls: Calls::new(spec.clone())?,
            partition_codec: RowCodec::new(partition)?,
            order_codec: RowCodec::sorted(order)?,
            row_codec: RowCodec::new(columns)?,
            spec,
            rows: MapTable::new(ROWS, None),
            partitions: ValueTable::new(PARTITIONS, None),
            timers: Timers::new(TIMERS),
            watermark: HeldWatermark::at(Timestamp::MIN),
            stored_watermark: StoredWatermark::new(WATERMARK),
            has_ended: false,
            metrics: None,
        })
    }

    /// Computes all that is stored of a batch, and whether what its columns are computed of fails on a row.
    fn arrived(&self, batch: Batch) -> Result<Arrived, Failed> {
        let rows = batch.rows();
        let evaluated = |exprs: &mut dyn Iterator<Item = &Arc<dyn PhysicalExpr>>| {
            exprs.map(|expr| evaluate(expr, rows)).collect::<Result<Vec<ArrayRef>, Failed>>()
        };
        let times = match self.spec.time() {
            Some(time) => Some(floor_to_millis(&evaluate(time, rows)?)?),
            None => None,
        };
        let partition = evaluated(&mut self.spec.partition.iter())?;
        let order = evaluated(&mut self.spec.order.iter().map(|(expr, _)| expr))?;
        self.calls.evaluate(rows)?;
        Ok(Arrived {
            times,
            hashes: hash_keys(&partition, rows.num_rows())?,
            partitions: self.partition_codec.encode(&partition)?,
            order: self.order_codec.encode(&order)?,
            rows: self.row_codec.encode(rows.columns())?,
            batch,
        })
    }

    /// Stores the rows of a batch that are in time.
    fn keep(&mut self, arrived: &Arrived, out: &mut Output) -> Result<()> {
        let watermark = self.watermark.reached();
        let time = |row: usize| match &arrived.times {
            None => Some(END),
            Some(times) => times.is_valid(row).then(|| Timestamp(times.value(row))).filter(|time| *time > watermark),
        };
        let aside: BooleanArray = (0..arrived.batch.len()).map(|row| Some(time(row).is_none())).collect();
        self.put_aside(arrived, &aside, out)?;
        let keys: Vec<KeyRef<'_>> = (0..arrived.batch.len()).map(|row| arrived.partition(row)).collect();
        let numbers = self.partitions.load(&keys)?;
        for (row, number) in numbers.into_iter().enumerate() {
            let Some(time) = time(row) else { continue };
            let partition = &mut self.partitions.update(number).get_or_insert_with(|| Postcard(Partition::default())).0;
            let key = entry_key(time, arrived.order.row(row), partition.next);
            partition.next += 1;
            if partition.timer.is_none_or(|at| at > time.0) {
                if let Some(at) = partition.timer {
                    self.timers.delete(Timestamp(at), keys[row]);
                }
                self.timers.register(time, keys[row]);
                partition.timer = Some(time.0);
            }
            let number = self.rows.load(keys[row]);
            self.rows.put(number, &key, Bytes::copy_from_slice(arrived.rows.row(row)));
        }
        self.trim();
        Ok(())
    }

    /// Counts late and timeless rows, and emits them on their port.
    fn put_aside(&self, arrived: &Arrived, aside: &BooleanArray, out: &mut Output) -> Result<()> {
        if aside.true_count() == 0 {
            return Ok(());
        }
        let timeless = arrived.times.as_ref().map_or(0, |times| times.null_count());
        if let Some(metrics) = &self.metrics {
            metrics.add_late_rows((aside.true_count() - timeless) as u64);
            metrics.add_timeless_rows(timeless as u64);
        }
        out.emit_to(Port::LATE, arrived.batch.filter(aside)?);
        Ok(())
    }

    /// Reads the rows of a partition that are due, behind those that are kept.
    fn read(&mut self, timer: Timer, watermark: Timestamp, due: &mut Due) -> Result<()> {
        let number = self.partitions.load(&[timer.key()])?[0];
        let partition = self.partitions.get(number).map(|Postcard(partition)| partition.clone()).unwrap_or_default();
        let (mut keys, mut rows, mut new, mut has_more) = (Vec::new(), Vec::new(), 0, false);
        let is_at_once = self.spec.looks_ahead();
        let later = behind(watermark);
        let end = later.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let map = self.rows.load(timer.key());
        self.rows.scan(map, (Bound::Unbounded, end), Order::Ascending, |key, row| {
            let is_new = partition.done.as_deref().is_none_or(|done| key > done);
            if is_new && !is_at_once && new >= ROWS_AT_ONCE && keys.last().map(RowKey::peers) != Some(peers(key)?) {
                has_more = true;
                return Ok(ControlFlow::Break(()));
            }
            new += usize::from(is_new);
            keys.push(RowKey::of_entry(key)?);
            rows.push(row.clone());
            Ok(ControlFlow::Continue(()))
        })?;
        let (start, end) = (due.rows.len(), due.rows.len() + rows.len());
        due.rows.extend(rows);
        due.stretches.push(Stretch {
            keys,
            rows: start..end,
            new: end - new,
            done: partition.done.as_deref().map(|done| peers(done).map(<[u8]>::to_vec)).transpose()?,
            numbers: partition.numbers,
            running: partition.running,
        });
        due.fired.push((timer, has_more));
        Ok(())
    }

    /// Emits the new rows of partitions, and keeps of them what later rows need.
    fn fire(&mut self, mut due: Due, watermark: Timestamp, out: &mut Output) -> Result<()> {
        let columns = self.row_codec.decode(due.rows.iter().map(|row| row.as_ref()))?;
        let options = RecordBatchOptions::new().with_row_count(Some(due.rows.len()));
        let rows = RecordBatch::try_new_with_options(self.spec.input.clone(), columns, &options)?;
        if due.stretches.iter().any(|stretch| stretch.new < stretch.rows.end) {
            let evaluated = self.calls.evaluate(&rows).map_err(|failed| match failed {
                Failed::Fatal(error) => error,
                Failed::Rows(_, error) => Error::from(error),
            })?;
            let computed = self.calls.compute(&evaluated, &mut due.stretches)?;
            self.emit(&rows, &due.stretches, computed, out)?;
        }
        for (stretch, (timer, has_more)) in due.stretches.into_iter().zip(due.fired) {
            self.settle(stretch, &timer, has_more, watermark)?;
        }
        self.trim();
        Ok(())
    }

    fn emit(&self, rows: &RecordBatch, stretches: &[Stretch], computed: Computed, out: &mut Output) -> Result<()> {
        let new: Vec<u32> =
            stretches.iter().flat_map(|stretch| stretch.new..stretch.rows.end).map(|row| row as u32).collect();
        let picked = |which: &dyn Fn(&usize) -> bool| {
            UInt32Array::from_iter_values((0..new.len()).filter(which).map(|index| new[index]))
        };
        let taken = |places: &UInt32Array| {
            let take = |column: &ArrayRef| arrow::compute::take(column, places, None);
            rows.columns().iter().map(take).collect::<Result<Vec<ArrayRef>, _>>()
        };
        let fails = |index: &usize| computed.failures.contains_key(index);
        let mut columns = taken(&picked(&|index| !fails(index)))?;
        let passes: BooleanArray = (0..new.len()).map(|index| Some(!fails(&index))).collect();
        for column in &computed.columns {
            columns.push(if computed.failures.is_empty() {
                column.clone()
            } else {
                arrow::compute::filter(column, &passes)?
            });
        }
        if !computed.failures.is_empty() {
            let options = RecordBatchOptions::new().with_row_count(Some(computed.failures.len()));
            let failed = RecordBatch::try_new_with_options(self.spec.input.clone(), taken(&picked(&fails))?, &options)?;
            let failures = computed.failures.into_values().collect();
            out.reject(RejectedRows { rows: Batch::inserts(failed), failures, stage: Stage::Expression });
        }
        if passes.true_count() > 0 {
            out.emit(Batch::inserts(RecordBatch::try_new(self.spec.schema.clone(), columns)?));
        }
        Ok(())
    }

    /// Keeps of a partition that has fired what later rows need, and asks for its next timer.
    fn settle(&mut self, stretch: Stretch, timer: &Timer, has_more: bool, watermark: Timestamp) -> Result<()> {
        let number = self.partitions.load(&[timer.key()])?[0];
        let map = self.rows.load(timer.key());
        let kept = self.kept(&stretch.keys, watermark)?;
        for key in &stretch.keys[..stretch.keys.len() - kept] {
            self.rows.remove(map, &key.bytes);
        }
        let mut partition =
            self.partitions.update(number).take().map(|Postcard(partition)| partition).unwrap_or_default();
        if let Some(last) = stretch.keys.last().filter(|_| stretch.new < stretch.rows.end) {
            partition.done = Some(last.bytes.clone());
        }
        (partition.numbers, partition.running) = (stretch.numbers, stretch.running);
        let next = if has_more { Some(timer.at) } else { self.next_waiting(map, partition.done.as_deref())? };
        let oldest = stretch.keys.len().checked_sub(kept).and_then(|at| stretch.keys.get(at));
        let freed = match (self.time_back(), oldest) {
            (Some(back), Some(oldest)) if self.spec.rows_back() == 0 => {
                time_of(&oldest.bytes)?.0.checked_add(back).map(Timestamp)
            }
            _ => None,
        };
        let at = next.into_iter().chain(freed.filter(|at| *at > watermark)).min();
        partition.timer = at.map(|at| at.0);
        if let Some(at) = at {
            self.timers.register(at, timer.key());
        }
        let is_known = kept > 0 || next.is_some() || self.calls.keeps_partitions();
        *self.partitions.update(number) = is_known.then_some(Postcard(partition));
        Ok(())
    }

    /// The time of the first row behind those that were emitted.
    fn next_waiting(&mut self, map: u32, done: Option<&[u8]>) -> Result<Option<Timestamp>> {
        let start = done.map_or(Bound::Unbounded, Bound::Excluded);
        let mut next = None;
        self.rows.scan(map, (start, Bound::Unbounded), Order::Ascending, |key, _| {
            next = Some(time_of(key)?);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(next)
    }

    /// How many of the last rows that were emitted later rows may need.
    fn kept(&self, keys: &[RowKey], watermark: Timestamp) -> Result<usize> {
        let by_count = self.spec.rows_back().min(keys.len());
        let Some(_) = self.spec.range_back() else { return Ok(by_count) };
        let Some(back) = self.time_back() else { return Ok(keys.len()) };
        let mut by_time = 0;
        for key in keys.iter().rev() {
            // The next row is later than the watermark.
            if time_of(&key.bytes)?.0.saturating_add(back) <= watermark.0 {
                break;
            }
            by_time += 1;
        }
        Ok(by_count.max(by_time))
    }

    /// How many milliseconds a row is needed at most, where it is needed for a span of time.
    fn time_back(&self) -> Option<i64> {
        let back = self.spec.range_back()?;
        let (order, _) = self.spec.order.first()?;
        self.spec.time()?;
        match order.data_type(&self.spec.input).ok()? {
            DataType::Timestamp(TimeUnit::Second, _) => back.checked_mul(1_000),
            DataType::Timestamp(TimeUnit::Millisecond, _) => Some(back),
            // A time is rounded down to its millisecond.
            DataType::Timestamp(TimeUnit::Microsecond, _) => Some(back / 1_000 + 1),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => Some(back / 1_000_000 + 1),
            _ => None,
        }
    }

    fn trim(&mut self) {
        self.rows.trim();
        self.partitions.trim();
    }

    fn show_next_result(&self) {
        if let Some(metrics) = &self.metrics {
            metrics.set_next_result(self.timers.next().filter(|at| *at < END));
        }
    }
}

impl Operator for Over {
    fn open(&mut self, context: &OpenContext<'_>) -> Result<()> {
        let backend = context.backend();
        self.rows.open(backend.clone())?;
        self.partitions.open(backend.clone())?;
        self.timers.open(backend.clone())?;
        self.watermark = HeldWatermark::at(self.stored_watermark.open(context)?);
        self.metrics = Some(context.metrics.clone());
        self.show_next_result();
        Ok(())
    }

    fn process(&mut self, _: InputIndex, batch: Batch, out: &mut Output) -> Result<()> {
        if batch.kinds().is_some() {
            // A defence: the graph is refused before.
            return Err(Error::invalid("OVER takes rows that are only appended"));
        }
        let (pieces, rejected) = in_pieces(&batch, |piece| self.arrived(piece))?;
        if let Some(rejected) = rejected {
            out.reject(rejected);
        }
        for arrived in &pieces {
            self.keep(arrived, out)?;
        }
        self.show_next_result();
        Ok(())
    }

    fn watermark(&mut self, watermark: Timestamp, out: &mut Output) -> Result<()> {
        self.watermark.advance(watermark, out);
        Ok(())
    }

    /// Rows may come behind the last watermark, those of final results, so that it does not say that the input has ended.
    fn end(&mut self, _: &mut Output) -> Result<()> {
        self.has_ended = true;
        Ok(())
    }

    /// Emits the rows whose time has passed, and then passes the watermark on; without event time, emits the rows of an input that has ended.
    fn more(&mut self, out: &mut Output) -> Result<bool> {
        let is_by_time = self.spec.time().is_some();
        let passed = if is_by_time { self.watermark.held() } else { self.has_ended.then_some(Timestamp::MAX) };
        let timers = match passed {
            Some(passed) => self.timers.take_due(passed, FIRED_MAX)?,
            None => Vec::new(),
        };
        let Some(watermark) = passed.filter(|_| !timers.is_empty()) else {
            self.show_next_result();
            self.watermark.release(out);
            return Ok(false);
        };
        let mut due = Due::default();
        for timer in timers {
            match due.rows.len() < ROWS_AT_ONCE {
                true => self.read(timer, watermark, &mut due)?,
                false => self.timers.register(timer.at, timer.key()),
            }
        }
        self.fire(due, watermark, out)?;
        Ok(true)
    }

    fn checkpoint(&mut self, id: CheckpointId, _: &mut Output, changes: &mut Changes) -> Result<()> {
        self.rows.checkpoint(id, changes);
        self.partitions.checkpoint(id, changes)?;
        self.timers.checkpoint(id, changes);
        self.stored_watermark.checkpoint(self.watermark.reached(), changes);
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.rows.bytes() + self.partitions.bytes() + self.timers.bytes()
    }
}
