//! The rows that are left when a bounded input has ended, sorted and cut as a query asks: what turns a changelog into a table.
//!
//! Rows are kept as the keys of one ordered map, `sort keys | all columns` in Arrow's row format with how often each is there. So the order is the map's,
//! rows with equal sort keys come in the order of their columns, and what does not fit into memory waits in the store. With a limit and rows that are only
//! appended, no more rows are kept than the limit asks for.
//!
//! That the result was emitted is state: a job that dies behind the end of its input meets that end again.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::SortOptions;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use arrow::row::{RowConverter, SortField};
use bytes::Bytes;
use coulee_checkpoint::{Changes, TableId};
use coulee_model::{CheckpointId, SubtaskIndex};
use datafusion_physical_expr::PhysicalExpr;

use crate::batch::BATCH_ROWS;
use crate::graph::{Lineage, OperatorFactory, Port};
use crate::operator::{InputIndex, OpenContext, Operator, Output};
use crate::row_errors::evaluate::{Failed, evaluate, in_pieces};
use crate::row_errors::expression_text;
use crate::state::{Backend, Facet, FreedBy, KeyRef, MapTable, OperatorState, Order, StateColumn, StateTable};
use crate::{Batch, Error, Result};

/// The table of the rows.
const ROWS: TableId = TableId(1);
/// The table of one entry, which is there once the result was emitted.
const EMITTED: TableId = TableId(2);
/// The key of the only map: the rows are with one subtask.
const ALL: KeyRef<'static> = KeyRef { hash: 0, bytes: &[] };

/// Which rows are emitted in the end, and in which order.
#[derive(Debug, Clone)]
pub struct FinalRowsSpec {
    /// What rows are sorted by, over the input's columns: the first decides first.
    pub sort: Vec<(Arc<dyn PhysicalExpr>, SortOptions)>,
    /// How many of the first rows are left out.
    pub skip: usize,
    /// How many rows are emitted at most.
    pub fetch: Option<usize>,
    /// Whether the input is a changelog.
    pub changelog: bool,
    /// The columns of input and output.
    pub schema: SchemaRef,
}

/// The operator, of which there must be one subtask. It emits nothing before all its inputs have ended.
pub fn final_rows(spec: FinalRowsSpec) -> Arc<dyn OperatorFactory> {
    Arc::new(FinalRowsFactory(spec))
}

#[derive(Debug)]
struct FinalRowsFactory(FinalRowsSpec);

impl FinalRowsSpec {
    fn sorted_by(&self, text: impl Fn(&Arc<dyn PhysicalExpr>) -> String) -> String {
        let key = |(expr, options): &(Arc<dyn PhysicalExpr>, SortOptions)| {
            let order = if options.descending { " DESC" } else { "" };
            // Flink has nulls first in ascending order and last in descending order, which is not said.
            let nulls = match (options.nulls_first, options.descending) {
                (true, false) | (false, true) => "",
                (true, true) => " NULLS FIRST",
                (false, false) => " NULLS LAST",
            };
            format!("{}{order}{nulls}", text(expr))
        };
        self.sort.iter().map(key).collect::<Vec<_>>().join(", ")
    }
}

impl OperatorFactory for FinalRowsFactory {
    fn describe(&self) -> String {
        let spec = &self.0;
        let mut parts = vec!["FinalRows".to_owned()];
        if !spec.sort.is_empty() {
            parts.push(format!("by {}", spec.sorted_by(expression_text)));
        }
        if spec.skip > 0 {
            parts.push(format!("from row {}", spec.skip + 1));
        }
        if let Some(fetch) = spec.fetch {
            parts.push(format!("at most {fetch}"));
        }
        parts.join(" ")
    }

    fn schema(&self) -> SchemaRef {
        self.0.schema.clone()
    }

    fn refuses_changelog(&self, _: InputIndex) -> Option<&'static str> {
        (!self.0.changelog).then_some("`FinalRowsSpec::changelog` says whether the input is a changelog")
    }

    fn emits_changelog(&self, _: Port, _: bool) -> bool {
        false
    }

    fn state(&self, inputs: &[Lineage]) -> Option<OperatorState> {
        let Some(input) = inputs.first() else { return Some(OperatorState::undescribed(inputs)) };
        let facets = vec![
            Facet::new("sorted by", self.0.sorted_by(|expr| input.typed(expr))),
            Facet::new("columns", input.typed_columns()),
            Facet::new("input", input.rows()),
        ];
        let emitted = StateTable {
            name: "emitted".to_owned(),
            key: Vec::new(),
            value: Vec::new(),
            freed_by: FreedBy::Never,
            bound: "one".to_owned(),
        };
        let table = StateTable {
            name: "rows".to_owned(),
            key: vec![StateColumn::new("row", "all columns")],
            value: vec![StateColumn::new("count", "UInt64")],
            freed_by: FreedBy::Never,
            bound: "distinct rows of the result".to_owned(),
        };
        Some(OperatorState { kind: "final rows", tables: vec![table, emitted], facets })
    }

    fn lineage(&self, inputs: &[Lineage]) -> Lineage {
        inputs.first().cloned().unwrap_or_else(|| Lineage::named("nothing", self.schema()))
    }

    fn may_reject(&self) -> bool {
        true
    }

    fn create(&self, _: SubtaskIndex) -> Result<Box<dyn Operator>> {
        let spec = self.0.clone();
        let mut fields = Vec::with_capacity(spec.sort.len() + spec.schema.fields().len());
        for (expr, options) in &spec.sort {
            fields.push(SortField::new_with_options(expr.data_type(&spec.schema)?, *options));
        }
        fields.extend(spec.schema.fields().iter().map(|field| SortField::new(field.data_type().clone())));
        let rows = if fields.is_empty() { None } else { Some(RowConverter::new(fields)?) };
        Ok(Box::new(FinalRows {
            spec,
            rows,
            table: MapTable::new(ROWS, None),
            backend: None,
            kept: None,
            bar: None,
            emitting: None,
            emitted: Emitted::No,
        }))
    }
}

/// Where the emission of the result has come to.
struct Emitting {
    /// The last row that was read.
    after: Option<Vec<u8>>,
    skip: usize,
    left: usize,
}

/// Whether the result was emitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Emitted {
    No,
    /// Since the last checkpoint.
    Now,
    Stored,
}

struct FinalRows {
    spec: FinalRowsSpec,
    /// `None` for rows without columns.
    rows: Option<RowConverter>,
    table: MapTable,
    backend: Option<Backend>,
    /// How many rows there are; `None` until they are counted.
    kept: Option<usize>,
    /// The last row of a result that is full: none behind it gets in. `None` when that is not known.
    bar: Option<Vec<u8>>,
    emitting: Option<Emitting>,
    emitted: Emitted,
}

impl FinalRows {
    /// The keys of the rows of a batch.
    fn keys(&self, batch: &Batch) -> Result<Vec<Vec<u8>>, Failed> {
        let rows = batch.rows();
        let Some(converter) = &self.rows else { return Ok(vec![Vec::new(); batch.len()]) };
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.spec.sort.len() + rows.num_columns());
        for (expr, _) in &self.spec.sort {
            columns.push(evaluate(expr, rows)?);
        }
        columns.extend(rows.columns().iter().cloned());
        let encoded = converter.convert_columns(&columns)?;
        Ok(encoded.iter().map(|row| row.data().to_vec()).collect())
    }

    fn change(&mut self, number: u32, key: &[u8], is_retraction: bool) -> Result<()> {
        let found = self.table.get(number, key)?;
        let count = found.map_or(Ok(0), |found| count(&found))?;
        match (is_retraction, count) {
            (false, count) => self.table.put(number, key, encoded(count + 1)),
            // Taken back more often than it came: an input's error, which counts as nothing.
            (true, 0) => return Ok(()),
            (true, 1) => self.table.remove(number, key),
            (true, count) => self.table.put(number, key, encoded(count - 1)),
        }
        self.kept = self.kept.map(|kept| if is_retraction { kept - 1 } else { kept + 1 });
        Ok(())
    }

    /// Drops the last rows that no limit will let through.
    fn cut(&mut self, number: u32) -> Result<()> {
        let Some(fetch) = self.spec.fetch.filter(|_| !self.spec.changelog) else { return Ok(()) };
        let limit = self.spec.skip.saturating_add(fetch);
        let mut kept = match self.kept {
            Some(kept) => kept,
            None => self.count(number)?,
        };
        let mut gone: Vec<(Vec<u8>, u64)> = Vec::new();
        if kept > limit {
            self.table.scan(number, (Bound::Unbounded, Bound::Unbounded), Order::Descending, |key, stored| {
                let (count, too_many) = (count(stored)?, (kept - limit) as u64);
                gone.push((key.to_vec(), count.saturating_sub(too_many)));
                kept -= count.min(too_many) as usize;
                Ok(if kept > limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
            })?;
        }
        for (key, left) in gone {
            match left {
                0 => self.table.remove(number, &key),
                left => self.table.put(number, &key, encoded(left)),
            }
        }
        self.kept = Some(kept);
        self.bar = None;
        if kept == limit {
            let mut bar = None;
            self.table.scan(number, (Bound::Unbounded, Bound::Unbounded), Order::Descending, |key, _| {
                bar = Some(key.to_vec());
                Ok(ControlFlow::Break(()))
            })?;
            self.bar = bar;
        }
        Ok(())
    }

    fn count(&mut self, number: u32) -> Result<usize> {
        let mut rows = 0;
        self.table.scan(number, (Bound::Unbounded, Bound::Unbounded), Order::Ascending, |_, stored| {
            rows += count(stored)? as usize;
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(rows)
    }

    /// The columns of rows with these keys.
    fn decoded(&self, keys: &[Vec<u8>]) -> Result<Batch> {
        let columns = match &self.rows {
            Some(converter) => {
                let parser = converter.parser();
                converter.convert_rows(keys.iter().map(|key| parser.parse(key)))?.split_off(self.spec.sort.len())
            }
            None => Vec::new(),
        };
        let options = RecordBatchOptions::new().with_row_count(Some(keys.len()));
        Ok(Batch::inserts(RecordBatch::try_new_with_options(self.spec.schema.clone(), columns, &options)?))
    }
}

fn encoded(count: u64) -> Bytes {
    Bytes::copy_from_slice(&count.to_le_bytes())
}

fn count(stored: &[u8]) -> Result<u64> {
    let bytes = stored.first_chunk().ok_or_else(|| Error::corrupt("the count of a stored row has not 8 bytes"))?;
    Ok(u64::from_le_bytes(*bytes))
}

impl Operator for FinalRows {
    fn open(&mut self, context: &OpenContext<'_>) -> Result<()> {
        if let Some(entry) = context.entries(EMITTED).next() {
            entry?;
            self.emitted = Emitted::Stored;
        }
        self.backend = Some(context.backend());
        self.table.open(context.backend())
    }

    fn process(&mut self, _: InputIndex, batch: Batch, out: &mut Output) -> Result<()> {
        let (pieces, rejected) = in_pieces(&batch, |piece| Ok((self.keys(&piece)?, piece)))?;
        if let Some(rejected) = rejected {
            out.reject(rejected);
        }
        let number = self.table.load(ALL);
        for (keys, piece) in pieces {
            if let Some(bar) = &self.bar
                && keys.iter().all(|key| key >= bar)
            {
                continue;
            }
            let wanted: Vec<(u32, &[u8])> = keys.iter().map(|key| (number, key.as_slice())).collect();
            self.table.prefetch(&wanted)?;
            for (row, key) in keys.iter().enumerate() {
                self.change(number, key, piece.kind(row).is_retraction())?;
            }
        }
        self.cut(number)?;
        self.table.trim();
        Ok(())
    }

    fn end(&mut self, _: &mut Output) -> Result<()> {
        if self.emitted != Emitted::No {
            return Ok(());
        }
        self.emitted = Emitted::Now;
        let left = self.spec.fetch.unwrap_or(usize::MAX);
        self.emitting = Some(Emitting { after: None, skip: self.spec.skip, left });
        Ok(())
    }

    /// Emits the result, a batch at a time.
    fn more(&mut self, out: &mut Output) -> Result<bool> {
        let Some(mut emitting) = self.emitting.take() else { return Ok(false) };
        let (mut keys, mut rest): (Vec<Vec<u8>>, Option<Vec<u8>>) = (Vec::new(), None);
        let number = self.table.load(ALL);
        let after = emitting.after.take();
        let start = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        self.table.scan(number, (start, Bound::Unbounded), Order::Ascending, |key, stored| {
            let mut times = count(stored)? as usize;
            let skipped = times.min(emitting.skip);
            emitting.skip -= skipped;
            times = (times - skipped).min(emitting.left);
            emitting.left -= times;
            keys.extend(std::iter::repeat_n(key.to_vec(), times));
            let is_full = keys.len() >= BATCH_ROWS && emitting.left > 0;
            rest = is_full.then(|| key.to_vec());
            Ok(if is_full || emitting.left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        if !keys.is_empty() {
            out.emit(self.decoded(&keys)?);
        }
        self.table.trim();
        match rest {
            Some(key) => {
                self.emitting = Some(Emitting { after: Some(key), ..emitting });
                Ok(true)
            }
            None => Ok(false),
        }
    }

    fn checkpoint(&mut self, id: CheckpointId, _: &mut Output, changes: &mut Changes) -> Result<()> {
        self.table.checkpoint(id, changes);
        if self.emitted == Emitted::Now
            && let Some(backend) = &self.backend
        {
            changes.put(backend.key(EMITTED, ALL.group(), &[]), Bytes::new());
            self.emitted = Emitted::Stored;
        }
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.table.bytes()
    }
}
