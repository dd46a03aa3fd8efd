//! The operator of one subtask: rows enter the sessions of their keys. What sessions give when they are over is in `fire`.

use std::sync::Arc;

use arrow::array::{Array, BooleanArray, TimestampMillisecondArray, UInt32Array};
use arrow::row::{RowConverter, Rows, SortField};
use coulee_checkpoint::{Changes, TableId};
use coulee_model::{CheckpointId, Timestamp};
use datafusion_common::exec_datafusion_err;

use super::SessionAggregateSpec;
use super::merge::{Entry, Groups, Session, add_row};
use super::states::SessionStates;
use crate::event_time::floor_to_millis;
use crate::graph::Port;
use crate::group_table::Inputs;
use crate::keys::hash_keys;
use crate::metrics::SubtaskMetrics;
use crate::operator::{InputIndex, OpenContext, Operator, Output};
use crate::row_errors::evaluate::{Failed, evaluate, in_pieces};
use crate::state::{KeyRef, Postcard, StoredWatermark, Timers, ValueTable};
use crate::watermark::HeldWatermark;
use crate::window::kind::is_over;
use crate::window::layout::row_count;
use crate::{Batch, Error, Result};

/// The table of open sessions: the key in Arrow's row format to the key's sessions in postcard's encoding.
const SESSIONS: TableId = TableId(1);
/// See [`Timers`]: one for each session, at its last millisecond or earlier.
const TIMERS: TableId = TableId(2);
/// The table of the watermark reached: one entry, written by every subtask alike.
const WATERMARK: TableId = TableId(3);

/// How many sessions fire before what they give is passed on.
const FIRED_MAX: usize = 8_192;

pub(super) struct SessionAggregate {
    pub(super) spec: SessionAggregateSpec,
    pub(super) states: SessionStates,
    /// `None` without keys.
    pub(super) converter: Option<RowConverter>,
    pub(super) sessions: ValueTable<Postcard<Vec<Session>>>,
    pub(super) timers: Timers,
    /// A watermark is passed on when the sessions that it closes have been emitted.
    watermark: HeldWatermark,
    stored_watermark: StoredWatermark,
    metrics: Option<Arc<SubtaskMetrics>>,
}

/// What is computed of a batch before any state changes.
struct Computed {
    times: TimestampMillisecondArray,
    inputs: Inputs,
    hashes: Vec<u64>,
    /// `None` without keys.
    keys: Option<Rows>,
}

impl Computed {
    fn key(&self, row: usize) -> KeyRef<'_> {
        let bytes = self.keys.as_ref().map_or(&[][..], |keys| keys.row(row).data());
        KeyRef { hash: self.hashes[row], bytes }
    }
}

impl SessionAggregate {
    pub(super) fn new(spec: SessionAggregateSpec) -> Result<Self> {
        let mut aggregates = spec.aggregates.clone();
        if aggregates.is_empty() {
            aggregates.push(row_count()?);
        }
        let fields: Vec<SortField> =
            spec.keys.iter().map(|(_, field)| SortField::new(field.data_type().clone())).collect();
        let converter = if fields.is_empty() { None } else { Some(RowConverter::new(fields)?) };
        Ok(SessionAggregate {
            states: SessionStates::new(aggregates)?,
            spec,
            converter,
            sessions: ValueTable::new(SESSIONS, None),
            timers: Timers::new(TIMERS),
            watermark: HeldWatermark::at(Timestamp::MIN),
            stored_watermark: StoredWatermark::new(WATERMARK),
            metrics: None,
        })
    }

    fn compute(&self, batch: &Batch) -> Result<Computed, Failed> {
        let times = floor_to_millis(&evaluate(&self.spec.time, batch.rows())?)?;
        if let Some(millis) = times.iter().flatten().find(|millis| millis.checked_add(self.spec.gap_millis).is_none()) {
            let error = exec_datafusion_err!("the time {millis} (milliseconds since 1970) lies in no window");
            return Err(Failed::Rows(self.spec.time.clone(), error));
        }
        let exprs: Vec<_> = self.spec.keys.iter().map(|(expr, _)| expr.clone()).collect();
        let inputs = Inputs::evaluate(&exprs, self.states.aggregates(), batch.rows())?;
        let hashes = hash_keys(&inputs.keys, batch.len())?;
        let keys = match &self.converter {
            Some(converter) => Some(converter.convert_columns(&inputs.keys)?),
            None => None,
        };
        Ok(Computed { times, inputs, hashes, keys })
    }

    fn update(&mut self, batch: &Batch, out: &mut Output) -> Result<(), Failed> {
        if batch.is_empty() {
            return Ok(());
        }
        let computed = self.compute(batch)?;
        let keys: Vec<KeyRef<'_>> = (0..batch.len()).map(|row| computed.key(row)).collect();
        let of_row = self.sessions.load(&keys)?;
        let (mut groups, mut changed) = (Groups::default(), Vec::with_capacity(batch.len()));
        let (mut kept, mut entered) = (Vec::with_capacity(batch.len()), Vec::with_capacity(batch.len()));
        let watermark = self.watermark.reached();
        for (row, number) in of_row.into_iter().enumerate() {
            if computed.times.is_null(row) {
                continue;
            }
            let start = computed.times.value(row);
            let end = start + self.spec.gap_millis;
            if is_over(end, watermark) && self.sessions.get(number).is_none() {
                // Late, as there is nothing to join: the key is left alone.
                continue;
            }
            let sessions = &mut self.sessions.update(number).get_or_insert_with(|| Postcard(Vec::new())).0;
            let group = match add_row(sessions, (start, end), watermark, &mut groups) {
                Entry::Late => continue,
                Entry::Joined(group) => group,
                Entry::Opened(group) => {
                    self.timers.register(Timestamp(end - 1), keys[row]);
                    group
                }
            };
            kept.push(row as u32);
            entered.push(group);
            changed.push(number);
        }
        self.put_aside(batch, &computed.times, &kept, out)?;
        if !kept.is_empty() {
            let inputs = computed.inputs.take(&UInt32Array::from(kept))?;
            self.aggregate(&groups, entered, inputs, changed)?;
        }
        self.sessions.trim();
        Ok(())
    }

    /// Counts late and timeless rows, and emits them on their port.
    fn put_aside(
        &self,
        batch: &Batch,
        times: &TimestampMillisecondArray,
        kept: &[u32],
        out: &mut Output,
    ) -> Result<()> {
        if kept.len() == batch.len() {
            return Ok(());
        }
        let timeless = times.null_count();
        if let Some(metrics) = &self.metrics {
            metrics.add_late_rows((batch.len() - kept.len() - timeless) as u64);
            metrics.add_timeless_rows(timeless as u64);
        }
        let mut aside = vec![true; batch.len()];
        kept.iter().for_each(|row| aside[*row as usize] = false);
        out.emit_to(Port::LATE, batch.filter(&BooleanArray::from(aside))?);
        Ok(())
    }

    /// Aggregates the rows that entered groups, and gives the sessions of the keys that changed their partial results.
    fn aggregate(&mut self, groups: &Groups, entered: Vec<u32>, inputs: Inputs, mut changed: Vec<u32>) -> Result<()> {
        let before = groups.stored.iter().map(|(group, _)| groups.find(*group)).collect();
        let states: Vec<&[u8]> = groups.stored.iter().map(|(_, state)| state.as_slice()).collect();
        let mut table = self.states.table(before, &states)?;
        let entered = entered.into_iter().map(|group| groups.find(group)).collect();
        self.states.update(&mut table, entered, inputs)?;
        let mut of_group = vec![Vec::new(); groups.len()];
        for (group, state) in self.states.take(&mut table)? {
            of_group[group as usize] = state;
        }
        changed.sort_unstable();
        changed.dedup();
        for number in changed {
            for session in self.sessions.update(number).iter_mut().flat_map(|sessions| &mut sessions.0) {
                if let Some(group) = session.group.take() {
                    session.state = std::mem::take(&mut of_group[group as usize]);
                }
            }
        }
        Ok(())
    }

    fn show_next_result(&self) {
        if let Some(metrics) = &self.metrics {
            metrics.set_next_result(self.timers.next());
        }
    }
}

impl Operator for SessionAggregate {
    fn open(&mut self, context: &OpenContext<'_>) -> Result<()> {
        let backend = context.backend();
        self.sessions.open(backend.clone())?;
        self.timers.open(backend.clone())?;
        self.watermark = HeldWatermark::at(self.stored_watermark.open(context)?);
        self.metrics = Some(context.metrics.clone());
        self.show_next_result();
        Ok(())
    }

    fn process(&mut self, _: InputIndex, batch: Batch, out: &mut Output) -> Result<()> {
        if batch.kinds().is_some() {
            // A defence: the graph is refused before.
            return Err(Error::invalid("sessions are made of rows that are only appended"));
        }
        // Nothing but the expressions fails on rows, and they come before any change of state.
        let (_, rejected) = in_pieces(&batch, |piece| self.update(&piece, out))?;
        if let Some(rejected) = rejected {
            out.reject(rejected);
        }
        self.show_next_result();
        Ok(())
    }

    /// A millisecond later than other windows: a row at the end of a session still joins it, and comes when the watermark is a millisecond before.
    fn watermark(&mut self, watermark: Timestamp, out: &mut Output) -> Result<()> {
        let delayed = if watermark == Timestamp::MAX { watermark } else { Timestamp(watermark.0.saturating_sub(1)) };
        self.watermark.advance(delayed, out);
        Ok(())
    }

    /// Fires the sessions that are over, in the order of their ends, and then passes the watermark on.
    fn more(&mut self, out: &mut Output) -> Result<bool> {
        let Some(watermark) = self.watermark.held() else { return Ok(false) };
        let timers = self.timers.take_due(watermark, FIRED_MAX)?;
        if timers.is_empty() {
            self.show_next_result();
            self.watermark.release(out);
            return Ok(false);
        }
        self.fire(&timers, out)?;
        Ok(true)
    }

    fn checkpoint(&mut self, id: CheckpointId, _: &mut Output, changes: &mut Changes) -> Result<()> {
        self.sessions.checkpoint(id, changes)?;
        self.timers.checkpoint(id, changes);
        self.stored_watermark.checkpoint(self.watermark.reached(), changes);
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.sessions.bytes() + self.timers.bytes()
    }
}
