//! The operator that runs a function: finds the state of a batch's keys at once, calls the function row by row, fires timers.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use coulee_checkpoint::{Changes, TableId};
use coulee_model::{CheckpointId, Timestamp};
use datafusion_physical_expr::PhysicalExpr;

use super::context::{Collections, KeyContext};
use super::function::{Due, KeyedFunction};
use crate::graph::Port;
use crate::keys::hash_keys;
use crate::operator::{InputIndex, OpenContext, Operator, Output};
use crate::planted::{Bug, is_planted};
use crate::row::{Row, RowWriter};
use crate::state::{Backend, KeyRef, Postcard, StoredWatermark, Timer, Timers, ValueTable};
use crate::watermark::HeldWatermark;
use crate::{Batch, Error, Result};

/// The table of states: the key in Arrow's row format to the state in postcard's encoding.
const STATES: TableId = TableId(1);
/// See [`Timers`].
const EVENT_TIMERS: TableId = TableId(2);
const PROCESSING_TIMERS: TableId = TableId(3);
/// The table of the watermark reached: one entry, written by every subtask alike.
const WATERMARK: TableId = TableId(4);

/// How many timers are fired before what they emit is passed on.
const TIMER_BATCH: usize = 8_192;

pub(super) struct KeyedOperator<F: KeyedFunction> {
    function: F,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    /// Made with the first batch, which tells the keys' types.
    converter: Option<RowConverter>,
    out: RowWriter,
    sides: Vec<(String, RowWriter)>,
    states: ValueTable<Postcard<F::State>>,
    collections: Collections,
    event_timers: Timers,
    processing_timers: Timers,
    /// A watermark is passed on when the timers that it lets fire have fired.
    watermark: HeldWatermark,
    stored_watermark: StoredWatermark,
    backend: Option<Backend>,
}

impl<F: KeyedFunction> KeyedOperator<F> {
    pub(super) fn new(
        function: F,
        keys: Vec<Arc<dyn PhysicalExpr>>,
        schema: &SchemaRef,
        sides: &[(String, SchemaRef)],
        ttl_millis: Option<i64>,
    ) -> Self {
        KeyedOperator {
            function,
            keys,
            converter: None,
            out: RowWriter::new(schema.clone()),
            sides: sides.iter().map(|(name, schema)| (name.clone(), RowWriter::new(schema.clone()))).collect(),
            states: ValueTable::new(STATES, ttl_millis),
            collections: Collections { ttl_millis, ..Collections::default() },
            event_timers: Timers::new(EVENT_TIMERS),
            processing_timers: Timers::new(PROCESSING_TIMERS),
            watermark: HeldWatermark::at(Timestamp::MIN),
            stored_watermark: StoredWatermark::new(WATERMARK),
            backend: None,
        }
    }

    fn backend(&self) -> Result<&Backend> {
        self.backend.as_ref().ok_or_else(|| Error::internal("a function was called before it was opened"))
    }

    /// Calls the function for one key, whose state has the number `number`.
    fn call(
        &mut self,
        number: u32,
        key: KeyRef<'_>,
        now: Timestamp,
        call: impl FnOnce(&mut F, &mut F::State, &mut KeyContext<'_>) -> Result<()>,
    ) -> Result<()> {
        let state = self.states.update(number).get_or_insert_with(|| Postcard(F::State::default()));
        let mut context = KeyContext {
            key,
            out: &mut self.out,
            sides: &mut self.sides,
            collections: &mut self.collections,
            event_timers: &mut self.event_timers,
            processing_timers: &mut self.processing_timers,
            watermark: self.watermark.reached(),
            now,
            emits_changelog: F::EMITS_CHANGELOG,
        };
        call(&mut self.function, &mut state.0, &mut context)
    }

    /// Calls the function for timers that are due.
    fn fire(&mut self, timers: &[Timer], due: fn(Timestamp) -> Due) -> Result<()> {
        let now = self.backend()?.now();
        let keys: Vec<KeyRef<'_>> = timers.iter().map(Timer::key).collect();
        let numbers = self.states.load(&keys)?;
        for (timer, number) in timers.iter().zip(numbers) {
            let which = due(timer.at);
            self.call(number, timer.key(), now, |function, state, context| function.timer(which, state, context))?;
        }
        self.trim();
        Ok(())
    }

    fn trim(&mut self) {
        self.states.trim();
        self.collections.tables.values_mut().for_each(|table| table.trim());
    }

    fn emit(&mut self, out: &mut Output) -> Result<()> {
        if let Some(batch) = self.out.take()? {
            out.emit(batch);
        }
        for (side, (_, rows)) in self.sides.iter_mut().enumerate() {
            if let Some(batch) = rows.take()? {
                out.emit_to(Port::side(side as u8), batch);
            }
        }
        Ok(())
    }

    fn key_columns(&mut self, batch: &Batch) -> Result<(Vec<ArrayRef>, arrow::row::Rows)> {
        let rows = batch.rows();
        let mut columns = Vec::with_capacity(self.keys.len());
        for key in &self.keys {
            columns.push(key.evaluate(rows)?.into_array(rows.num_rows())?);
        }
        if self.converter.is_none() {
            let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
            self.converter = Some(RowConverter::new(fields)?);
        }
        let converter = self.converter.as_ref().ok_or_else(|| Error::internal("keys cannot be encoded"))?;
        let encoded = converter.convert_columns(&columns)?;
        Ok((columns, encoded))
    }
}

impl<F: KeyedFunction> Operator for KeyedOperator<F> {
    fn open(&mut self, context: &OpenContext<'_>) -> Result<()> {
        let backend = context.backend();
        self.states.open(backend.clone())?;
        self.event_timers.open(backend.clone())?;
        self.processing_timers.open(backend.clone())?;
        self.watermark = HeldWatermark::at(self.stored_watermark.open(context)?);
        self.collections.backend = Some(backend.clone());
        self.backend = Some(backend);
        Ok(())
    }

    fn process(&mut self, _: InputIndex, batch: Batch, out: &mut Output) -> Result<()> {
        // The graph is refused before; this is for whoever calls an operator without one.
        if batch.kinds().is_some() && !F::TAKES_CHANGELOG {
            return Err(Error::invalid(
                "a function that takes a changelog says so: `const TAKES_CHANGELOG: bool = true`",
            ));
        }
        let (columns, encoded) = self.key_columns(&batch)?;
        let hashes = hash_keys(&columns, batch.len())?;
        let key = |(row, hash): (usize, &u64)| KeyRef { hash: *hash, bytes: encoded.row(row).data() };
        let keys: Vec<KeyRef<'_>> = hashes.iter().enumerate().map(key).collect();
        let now = self.backend()?.now();
        let numbers = self.states.load(&keys)?;
        for (index, number) in numbers.into_iter().enumerate() {
            let row = Row::new(&batch, index);
            self.call(number, keys[index], now, |function, state, context| function.process(row, state, context))?;
        }
        self.trim();
        self.emit(out)
    }

    fn watermark(&mut self, watermark: Timestamp, out: &mut Output) -> Result<()> {
        self.watermark.advance(watermark, out);
        Ok(())
    }

    /// Fires what is due in event time, in order of time, then of keys, also what that registers; then passes the watermark on.
    fn more(&mut self, out: &mut Output) -> Result<bool> {
        let Some(watermark) = self.watermark.held() else { return Ok(false) };
        let timers = self.event_timers.take_due(watermark, TIMER_BATCH)?;
        if timers.is_empty() {
            self.watermark.release(out);
            return Ok(false);
        }
        self.fire(&timers, Due::Event)?;
        self.emit(out)?;
        Ok(true)
    }

    fn next_time(&self) -> Option<Timestamp> {
        self.processing_timers.next()
    }

    fn time(&mut self, now: Timestamp, out: &mut Output) -> Result<()> {
        let timers = self.processing_timers.take_due(now, TIMER_BATCH)?;
        self.fire(&timers, Due::Processing)?;
        self.emit(out)
    }

    fn checkpoint(&mut self, id: CheckpointId, _: &mut Output, changes: &mut Changes) -> Result<()> {
        self.states.checkpoint(id, changes)?;
        self.collections.tables.values_mut().for_each(|table| table.checkpoint(id, changes));
        if !is_planted(Bug::TimersNotStored) {
            self.event_timers.checkpoint(id, changes);
        }
        self.processing_timers.checkpoint(id, changes);
        self.stored_watermark.checkpoint(self.watermark.reached(), changes);
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        let collections: usize = self.collections.tables.values().map(|table| table.bytes()).sum();
        self.states.bytes() + collections + self.event_timers.bytes() + self.processing_timers.bytes()
    }
}
