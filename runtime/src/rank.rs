//! The first rows of each partition in an order: Top-N and deduplication (Flink's `Rank`).
//!
//! A row is kept as `order | all columns` in Arrow's row format. A batch reads the rows within the ranks that are asked for before and after its own changes, and
//! emits the difference: at most one change per rank and batch. Rows that are only appended and rank behind the last that is asked for are forgotten at once
//! ([`first_rows`], one value per partition where no number is shared); over a changelog they are kept, as they move up when others go ([`all_rows`], one
//! ordered map per partition, with how often each row is there).

mod all_rows;
mod describe;
mod difference;
mod first_rows;
mod spec;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int8Array, Int64Array};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use coulee_checkpoint::{Changes, TableId};
use coulee_model::{CheckpointId, SubtaskIndex};
use datafusion_physical_expr::PhysicalExpr;

use crate::graph::{Lineage, OperatorFactory, Port};
use crate::keys::hash_keys;
use crate::operator::{InputIndex, OpenContext, Operator, Output};
use crate::row_errors::evaluate::{Failed, evaluate, in_pieces};
use crate::state::OperatorState;
use crate::{Batch, Error, Result};

use all_rows::AllRows;
use difference::{Change, KeptRow, difference};
use first_rows::FirstRows;
pub use spec::{RankFunction, RankSpec};

/// The table of the rows.
const ROWS: TableId = TableId(1);

/// The operator. What leaves it is a changelog.
pub fn rank(spec: RankSpec) -> Arc<dyn OperatorFactory> {
    Arc::new(RankFactory(spec))
}

#[derive(Debug)]
struct RankFactory(RankSpec);

impl OperatorFactory for RankFactory {
    fn describe(&self) -> String {
        self.0.describe()
    }

    fn schema(&self) -> SchemaRef {
        self.0.schema.clone()
    }

    fn refuses_changelog(&self, _: InputIndex) -> Option<&'static str> {
        (!self.0.changelog).then_some("`RankSpec::changelog` says whether the input is a changelog")
    }

    fn emits_changelog(&self, port: Port, _: bool) -> bool {
        port == Port::MAIN
    }

    fn state(&self, inputs: &[Lineage]) -> Option<OperatorState> {
        Some(describe::state(&self.0, inputs.first()?))
    }

    fn lineage(&self, inputs: &[Lineage]) -> Lineage {
        match inputs.first() {
            Some(input) => describe::lineage(&self.0, input),
            None => Lineage::named("nothing", self.schema()),
        }
    }

    fn may_reject(&self) -> bool {
        true
    }

    fn create(&self, _: SubtaskIndex) -> Result<Box<dyn Operator>> {
        let spec = self.0.clone();
        let mut order = Vec::with_capacity(spec.order.len());
        for (expr, options) in &spec.order {
            order.push(SortField::new_with_options(expr.data_type(&spec.input)?, *options));
        }
        let mut partition = Vec::with_capacity(spec.partition.len());
        for expr in &spec.partition {
            partition.push(SortField::new(expr.data_type(&spec.input)?));
        }
        let rows = spec.input.fields().iter().map(|field| SortField::new(field.data_type().clone()));
        Ok(Box::new(Rank {
            partitions: RowConverter::new(partition)?,
            rows: RowConverter::new(order.iter().cloned().chain(rows).collect())?,
            order: RowConverter::new(order)?,
            table: match spec.keeps_first_rows() {
                true => Table::First(FirstRows::new(ROWS, spec.to as usize)),
                false => Table::All(AllRows::new(ROWS, spec.ttl_millis)),
            },
            spec,
        }))
    }
}

struct Rank {
    spec: RankSpec,
    partitions: RowConverter,
    order: RowConverter,
    rows: RowConverter,
    table: Table,
}

enum Table {
    First(FirstRows),
    All(AllRows),
}

impl Rank {
    fn kept_rows(&self, batch: &Batch) -> Result<Vec<KeptRow>, Failed> {
        let rows = batch.rows();
        let evaluated = |exprs: &mut dyn Iterator<Item = &Arc<dyn PhysicalExpr>>| {
            exprs.map(|expr| evaluate(expr, rows)).collect::<Result<Vec<ArrayRef>, Failed>>()
        };
        let partition = evaluated(&mut self.spec.partition.iter())?;
        let order = evaluated(&mut self.spec.order.iter().map(|(expr, _)| expr))?;
        let hashes = hash_keys(&partition, batch.len())?;
        // Arrow cannot tell how many rows there are of no columns.
        let encoded = |converter: &RowConverter, columns: &[ArrayRef]| match columns.is_empty() {
            true => Ok::<_, Error>(None),
            false => Ok(Some(converter.convert_columns(columns)?)),
        };
        let partitions = encoded(&self.partitions, &partition)?;
        let orders = encoded(&self.order, &order)?;
        let columns: Vec<ArrayRef> = order.iter().chain(rows.columns()).cloned().collect();
        let keys = encoded(&self.rows, &columns)?;
        let bytes = |rows: &Option<arrow::row::Rows>, row: usize| {
            rows.as_ref().map_or_else(Vec::new, |rows| rows.row(row).data().to_vec())
        };
        let kept = |row: usize| KeptRow {
            partition: bytes(&partitions, row),
            hash: hashes[row],
            key: bytes(&keys, row),
            order_bytes: bytes(&orders, row).len() as u32,
        };
        Ok((0..batch.len()).map(kept).collect())
    }

    /// The changes that a batch makes to the rows that are asked for.
    fn changes(&mut self, batch: &Batch, rows: &[KeptRow]) -> Result<Vec<Change>> {
        let mut partitions: Vec<(u32, Vec<usize>)> = Vec::new();
        let mut places: HashMap<u32, usize> = HashMap::new();
        let numbers = match &mut self.table {
            Table::First(first) => first.load(rows)?,
            Table::All(all) => all.load(rows),
        };
        for (index, number) in numbers.into_iter().enumerate() {
            let place = *places.entry(number).or_insert_with(|| {
                partitions.push((number, Vec::new()));
                partitions.len() - 1
            });
            partitions[place].1.push(index);
        }
        let mut changes = Vec::new();
        for (partition, of_partition) in partitions {
            let found = match &mut self.table {
                Table::First(first) => first.add(partition, of_partition.iter().map(|index| &rows[*index]))?,
                Table::All(all) => {
                    let changed = of_partition.iter().map(|index| (&rows[*index], batch.kind(*index).is_retraction()));
                    all.change(&self.spec, partition, changed)?
                }
            };
            difference(&self.spec, &found.before, &found.after, &mut changes);
        }
        Ok(changes)
    }

    fn emitted(&self, changes: &[Change]) -> Result<Batch> {
        let parser = self.rows.parser();
        let decoded = self.rows.convert_rows(changes.iter().map(|change| parser.parse(&change.row.key)))?;
        let mut columns: Vec<ArrayRef> = decoded.into_iter().skip(self.spec.order.len()).collect();
        let number = |change: &Change| self.spec.has_number.then_some(change.row.number as i64);
        columns.push(Arc::new(changes.iter().map(number).collect::<Int64Array>()));
        let kinds = Int8Array::from_iter_values(changes.iter().map(|change| change.kind as i8));
        Ok(Batch::changes(RecordBatch::try_new(self.spec.schema.clone(), columns)?, kinds))
    }
}

impl Operator for Rank {
    fn open(&mut self, context: &OpenContext<'_>) -> Result<()> {
        match &mut self.table {
            Table::First(first) => first.open(context.backend()),
            Table::All(all) => all.open(context.backend()),
        }
    }

    fn process(&mut self, _: InputIndex, batch: Batch, out: &mut Output) -> Result<()> {
        let (pieces, rejected) = in_pieces(&batch, |piece| Ok((self.kept_rows(&piece)?, piece)))?;
        if let Some(rejected) = rejected {
            out.reject(rejected);
        }
        for (rows, piece) in pieces {
            let changes = self.changes(&piece, &rows)?;
            if !changes.is_empty() {
                out.emit(self.emitted(&changes)?);
            }
        }
        match &mut self.table {
            Table::First(first) => first.trim(),
            Table::All(all) => all.trim(),
        }
        Ok(())
    }

    fn checkpoint(&mut self, id: CheckpointId, _: &mut Output, changes: &mut Changes) -> Result<()> {
        match &mut self.table {
            Table::First(first) => first.checkpoint(id, changes)?,
            Table::All(all) => all.checkpoint(id, changes),
        }
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        match &self.table {
            Table::First(first) => first.bytes(),
            Table::All(all) => all.bytes(),
        }
    }
}
