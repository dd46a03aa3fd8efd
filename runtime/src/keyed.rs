//! User functions with state per key.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::row::{RowConverter, SortField};
use coulee_checkpoint::{Changes, StateKey, TableId};
use coulee_model::{CheckpointId, KeyGroup, OperatorId, SubtaskIndex};
use datafusion_physical_expr::PhysicalExpr;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::graph::OperatorFactory;
use crate::keys::hash_keys;
use crate::operator::{OpenContext, Operator, Output};
use crate::row::{Row, RowWriter};
use crate::{Batch, Error, Result};

/// The table of states: the key in Arrow's row format to the state in postcard's encoding.
const STATES: TableId = TableId(1);

/// A function over the rows of one key at a time, with a state of its own for each key.
pub trait KeyedFunction: Send + 'static {
    /// What is remembered of a key. A key that was never seen has the default.
    type State: Serialize + DeserializeOwned + Default + Send;

    /// Takes a row of a key, changes the key's state, and emits rows of the output's schema.
    ///
    /// # Errors
    /// An error ends the job's attempt.
    fn process(&mut self, row: Row<'_>, state: &mut Self::State, out: &mut RowWriter) -> Result<()>;
}

/// Runs a [`KeyedFunction`] over rows that have been shuffled by `keys`.
pub struct Keyed<F, M> {
    /// What the operator is called in `EXPLAIN`.
    pub name: String,
    /// The key columns over the operator's input.
    pub keys: Vec<Arc<dyn PhysicalExpr>>,
    /// The output's columns.
    pub schema: SchemaRef,
    /// Makes the function of a subtask.
    pub make: M,
    /// The function's type.
    pub function: std::marker::PhantomData<fn() -> F>,
}

impl<F, M> fmt::Debug for Keyed<F, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyed").field("name", &self.name).field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl<F: KeyedFunction, M: Fn() -> F + Send + Sync> OperatorFactory for Keyed<F, M> {
    fn describe(&self) -> String {
        let keys: Vec<String> = self.keys.iter().map(ToString::to_string).collect();
        format!("{} by {}", self.name, keys.join(", "))
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn create(&self, _: SubtaskIndex) -> Result<Box<dyn Operator>> {
        Ok(Box::new(KeyedOperator {
            function: (self.make)(),
            keys: self.keys.clone(),
            converter: None,
            out: RowWriter::new(self.schema.clone()),
            states: HashMap::new(),
            operator: OperatorId(0),
        }))
    }
}

struct State<S> {
    value: S,
    group: KeyGroup,
    dirty: bool,
}

struct KeyedOperator<F: KeyedFunction> {
    function: F,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    /// Made with the first batch, which tells the keys' types.
    converter: Option<RowConverter>,
    out: RowWriter,
    states: HashMap<Box<[u8]>, State<F::State>>,
    operator: OperatorId,
}

impl<F: KeyedFunction> Operator for KeyedOperator<F> {
    fn open(&mut self, context: &OpenContext<'_>) -> Result<()> {
        self.operator = context.operator;
        for entry in context.entries(STATES) {
            let (group, key, value) = entry?;
            if context.owns(group) {
                let value = postcard::from_bytes(&value).map_err(|e| {
                    Error::invalid(format!("the stored state of a key does not fit the function's state type: {e}"))
                })?;
                self.states.insert(key.as_ref().into(), State { value, group, dirty: false });
            }
        }
        Ok(())
    }

    fn process(&mut self, batch: Batch, out: &mut Output) -> Result<()> {
        let rows = batch.rows();
        let mut columns = Vec::with_capacity(self.keys.len());
        for key in &self.keys {
            columns.push(key.evaluate(rows)?.into_array(rows.num_rows())?);
        }
        if self.converter.is_none() {
            let fields = columns.iter().map(|column| SortField::new(column.data_type().clone())).collect();
            self.converter = Some(RowConverter::new(fields)?);
        }
        let Some(converter) = &self.converter else { return Ok(()) };
        let encoded = converter.convert_columns(&columns)?;
        let hashes = hash_keys(&columns, rows.num_rows())?;
        for (index, hash) in hashes.into_iter().enumerate() {
            let key = encoded.row(index);
            if !self.states.contains_key(key.as_ref()) {
                let fresh = State { value: F::State::default(), group: KeyGroup::of_hash(hash), dirty: true };
                self.states.insert(key.as_ref().into(), fresh);
            }
            if let Some(state) = self.states.get_mut(key.as_ref()) {
                state.dirty = true;
                self.function.process(Row::new(rows, index), &mut state.value, &mut self.out)?;
            }
        }
        if let Some(batch) = self.out.take()? {
            out.emit(batch);
        }
        Ok(())
    }

    fn checkpoint(&mut self, _: CheckpointId, _: &mut Output, changes: &mut Changes) -> Result<()> {
        for (key, state) in self.states.iter_mut().filter(|(_, state)| state.dirty) {
            let value = postcard::to_stdvec(&state.value)
                .map_err(|e| Error::internal(format!("a key's state cannot be encoded: {e}")))?;
            changes.put(StateKey::new(self.operator, STATES, state.group, key), value);
            state.dirty = false;
        }
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        // Keys and the states' fixed parts; what a state owns on the heap only its author knows.
        let fixed = std::mem::size_of::<State<F::State>>() + std::mem::size_of::<Box<[u8]>>();
        self.states.keys().map(|key| key.len() + fixed).sum()
    }
}
