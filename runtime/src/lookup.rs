//! Lookup joins: each row of a stream with the rows that a table has for its key when the row is processed
//! (`JOIN t FOR SYSTEM_TIME AS OF s.proc_time`, Flink's full-cache lookup).
//!
//! The table is read whole before the first row of the stream is taken, and held in memory once for all subtasks ([`table`]); how it is kept up to date depends on
//! whether it ends. A row that was joined is not looked at again when the table changes. Nothing is stored in checkpoints: an attempt reads the table anew.

mod index;
mod spec;
mod table;

use std::sync::{Arc, Weak};

use arrow::array::{Array, ArrayRef, UInt32Array, new_null_array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use coulee_model::SubtaskIndex;
use futures::future::BoxFuture;
use parking_lot::Mutex;

use crate::batch::BATCH_ROWS;
use crate::graph::{Lineage, OperatorFactory};
use crate::operator::{InputIndex, OpenContext, Operator, Output};
use crate::pairs::holding;
use crate::row_errors::evaluate::{evaluate, in_pieces};
use crate::row_errors::expression_text;
use crate::state::OperatorState;
use crate::{Batch, Result};

use index::{Index, Keys};
pub use spec::{LookupSpec, LookupTable};
use table::Table;

/// The operator.
pub fn lookup(spec: LookupSpec) -> Arc<dyn OperatorFactory> {
    Arc::new(LookupFactory { spec, table: Mutex::new(Weak::new()) })
}

#[derive(Debug)]
struct LookupFactory {
    spec: LookupSpec,
    /// What the subtasks of an attempt share.
    table: Mutex<Weak<Table>>,
}

impl OperatorFactory for LookupFactory {
    fn describe(&self) -> String {
        format!("LookupJoin: {}; {}", self.spec.text(expression_text), self.spec.table.source.describe())
    }

    fn schema(&self) -> SchemaRef {
        self.spec.schema.clone()
    }

    fn refuses_changelog(&self, _: InputIndex) -> Option<&'static str> {
        Some("a row that is taken back may find other rows of the table than when it came")
    }

    fn state(&self, _: &[Lineage]) -> Option<OperatorState> {
        None
    }

    fn lineage(&self, inputs: &[Lineage]) -> Lineage {
        let Some(input) = inputs.first() else { return Lineage::named("nothing", self.schema()) };
        let spec = &self.spec;
        let reads: Vec<String> = spec.table.source.identity().into_iter().map(|facet| facet.text).collect();
        let from =
            format!("[{} LOOKUP OF {} IN {}]", spec.text(|key| input.typed(key)), input.rows(), reads.join(", "));
        let own = input.schema().fields().len();
        let columns =
            spec.schema.fields().iter().skip(own).map(|field| format!("{}.{}", spec.table.name, field.name()));
        input.with_columns(from, columns.collect::<Vec<_>>(), self.schema())
    }

    fn may_reject(&self) -> bool {
        true
    }

    fn create(&self, subtask: SubtaskIndex) -> Result<Box<dyn Operator>> {
        let mut shared = self.table.lock();
        let table = match shared.upgrade() {
            Some(table) => table,
            None => {
                let table = Arc::new(Table::new(self.spec.table.clone())?);
                *shared = Arc::downgrade(&table);
                table
            }
        };
        Ok(Box::new(Lookup { keys: Keys::new(&self.spec.table)?, spec: self.spec.clone(), table, subtask }))
    }
}

struct Lookup {
    spec: LookupSpec,
    keys: Keys,
    table: Arc<Table>,
    subtask: SubtaskIndex,
}

impl Operator for Lookup {
    fn open(&mut self, context: &OpenContext<'_>) -> Result<()> {
        self.table.open(context);
        Ok(())
    }

    fn loading(&mut self) -> Option<BoxFuture<'static, Result<()>>> {
        let table = self.table.clone();
        Some(Box::pin(async move { table.load().await }))
    }

    fn process(&mut self, _: InputIndex, batch: Batch, out: &mut Output) -> Result<()> {
        self.table.check()?;
        let (pieces, rejected) = in_pieces(&batch, |piece| {
            let keys = self.spec.keys.iter().map(|key| evaluate(key, piece.rows()));
            let keys = keys.collect::<std::result::Result<Vec<_>, _>>()?;
            Ok((keys, piece))
        })?;
        if let Some(rejected) = rejected {
            out.reject(rejected);
        }
        let table = self.table.clone();
        let index = table.index();
        pieces.into_iter().try_for_each(|(keys, piece)| self.join(&piece, &keys, &index, out))
    }

    fn state_bytes(&self) -> usize {
        // The subtasks share it.
        if self.subtask == SubtaskIndex(0) { self.table.index().bytes() } else { 0 }
    }
}

/// Some rows of a batch with what the index has for them.
#[derive(Default)]
struct Pairs<'i> {
    /// The row of the batch, and the table's row, of each pair.
    own: Vec<u32>,
    found: Vec<&'i [u8]>,
}

impl Lookup {
    /// Emits the rows of a batch with what they find, in parts of the usual size. All pairs of a row are in one part.
    fn join(&self, batch: &Batch, keys: &[ArrayRef], index: &Index, out: &mut Output) -> Result<()> {
        let encoded = self.keys.encode(keys)?;
        let (mut pairs, mut start) = (Pairs::default(), 0);
        for row in 0..batch.len() {
            if keys.iter().all(|key| key.is_valid(row)) {
                let found = index.find(encoded.row(row));
                pairs.own.extend(found.iter().map(|_| row as u32));
                pairs.found.extend(found.iter().map(AsRef::as_ref));
            }
            if pairs.own.len() >= BATCH_ROWS || row + 1 == batch.len() {
                self.emit(batch, start..row + 1, std::mem::take(&mut pairs), out)?;
                start = row + 1;
            }
        }
        Ok(())
    }

    fn emit(&self, batch: &Batch, rows: std::ops::Range<usize>, pairs: Pairs<'_>, out: &mut Output) -> Result<()> {
        let own = UInt32Array::from(pairs.own);
        let found = self.keys.decode(pairs.found)?;
        let holds = match &self.spec.condition {
            Some(condition) if !own.is_empty() => {
                let mut columns = batch.select(|column| Ok(take(column, &own, None)?))?.rows().columns().to_vec();
                columns.extend(found.iter().cloned());
                holding(condition, columns, self.spec.schema.fields().to_vec(), own.len(), out)?
            }
            _ => vec![true; own.len()],
        };
        let (mut left, mut right) = (Vec::with_capacity(own.len()), Vec::with_capacity(own.len()));
        let mut pair = 0;
        for row in rows {
            let before = left.len();
            while own.values().get(pair).is_some_and(|own| *own as usize == row) {
                if holds[pair] {
                    left.push(row as u32);
                    right.push(Some(pair as u32));
                }
                pair += 1;
            }
            if self.spec.is_outer && left.len() == before {
                left.push(row as u32);
                right.push(None);
            }
        }
        if left.is_empty() {
            return Ok(());
        }
        let (left, right) = (UInt32Array::from(left), UInt32Array::from(right));
        let copies = batch.select(|column| Ok(take(column, &left, None)?))?;
        let mut columns = copies.rows().columns().to_vec();
        for (index, field) in self.spec.table.schema.fields().iter().enumerate() {
            columns.push(match found.get(index) {
                Some(column) if !column.is_empty() => take(column, &right, None)?,
                _ => new_null_array(field.data_type(), right.len()),
            });
        }
        let options = RecordBatchOptions::new().with_row_count(Some(left.len()));
        let joined = RecordBatch::try_new_with_options(self.spec.schema.clone(), columns, &options)?;
        out.emit(copies.with_rows(joined));
        Ok(())
    }
}
