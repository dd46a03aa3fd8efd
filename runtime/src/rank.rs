//! The first rows of each partition in an order: Top-N and deduplication (Flink's `Rank`).
//!
//! The rows of a partition are the keys of one ordered map, `order | all columns` in Arrow's row format, with how often each is there. A batch reads the rows
//! within the ranks that are asked for before and after its own changes, and emits the difference: at most one change per rank and batch. Rows that are only
//! appended and rank behind the last that is asked for are forgotten at once; over a changelog they are kept, as they move up when others go.

mod describe;
mod difference;
mod spec;

use std::collections::HashMap;
use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int8Array, Int64Array};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use bytes::Bytes;
use coulee_checkpoint::{Changes, TableId};
use coulee_model::{CheckpointId, SubtaskIndex};
use datafusion_physical_expr::PhysicalExpr;

use crate::graph::{Lineage, OperatorFactory, Port};
use crate::keys::hash_keys;
use crate::operator::{InputIndex, OpenContext, Operator, Output};
use crate::row_errors::evaluate::{Failed, evaluate, in_pieces};
use crate::state::{KeyRef, MapTable, OperatorState, Order};
use crate::{Batch, Error, Result};

use difference::{Change, Ranked, difference};
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
            table: MapTable::new(ROWS, spec.ttl_millis),
            spec,
        }))
    }
}

/// A row of a batch as it is kept.
struct KeptRow {
    partition: Vec<u8>,
    hash: u64,
    /// The order and then the columns.
    key: Vec<u8>,
    /// How many bytes of the key are the order.
    order_bytes: u32,
}

struct Rank {
    spec: RankSpec,
    partitions: RowConverter,
    order: RowConverter,
    rows: RowConverter,
    table: MapTable,
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

    /// The rows of a partition up to the last number that is asked for, each as often as it is there.
    fn first_rows(&mut self, partition: u32) -> Result<Vec<Ranked>> {
        let mut found: Vec<Ranked> = Vec::new();
        let (mut before, mut number, mut last): (u64, u64, Option<Vec<u8>>) = (0, 0, None);
        let (function, to) = (self.spec.function, self.spec.to);
        self.table.scan(partition, (Bound::Unbounded, Bound::Unbounded), Order::Ascending, |key, stored| {
            let (count, order_bytes) = decode(stored)?;
            let order = key.get(..order_bytes as usize).unwrap_or_default();
            let is_tie = last.as_deref() == Some(order);
            for _ in 0..count {
                number = match function {
                    RankFunction::RowNumber => before + 1,
                    RankFunction::Rank if is_tie || found.last().is_some_and(|row| row.key == key) => number,
                    RankFunction::Rank => before + 1,
                    RankFunction::DenseRank if is_tie || found.last().is_some_and(|row| row.key == key) => number,
                    RankFunction::DenseRank => number + 1,
                };
                if number > to {
                    return Ok(ControlFlow::Break(()));
                }
                found.push(Ranked { key: key.to_vec(), number });
                before += 1;
            }
            last = Some(order.to_vec());
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    fn change(&mut self, partition: u32, row: &KeptRow, is_retraction: bool) -> Result<()> {
        let stored = self.table.get(partition, &row.key)?;
        let count = stored.map_or(Ok(0), |stored| decode(&stored).map(|(count, _)| count))?;
        match (is_retraction, count) {
            (false, count) => self.table.put(partition, &row.key, encode(count + 1, row.order_bytes)),
            // Its time to live has passed.
            (true, 0) => {}
            (true, 1) => self.table.remove(partition, &row.key),
            (true, count) => self.table.put(partition, &row.key, encode(count - 1, row.order_bytes)),
        }
        Ok(())
    }

    /// Forgets the rows of a partition behind those that are asked for, which no later row lets move up.
    fn forget_the_rest(&mut self, partition: u32, first: &[Ranked]) -> Result<()> {
        let Some(last) = first.last() else { return Ok(()) };
        let kept = first.iter().rev().take_while(|row| row.key == last.key).count() as u64;
        let (mut gone, mut of_last) = (Vec::new(), None);
        let behind = (Bound::Included(last.key.as_slice()), Bound::Unbounded);
        self.table.scan(partition, behind, Order::Ascending, |key, stored| {
            match key == last.key.as_slice() {
                true => of_last = Some(decode(stored)?),
                false => gone.push(key.to_vec()),
            }
            Ok(ControlFlow::Continue(()))
        })?;
        for key in gone {
            self.table.remove(partition, &key);
        }
        if let Some((count, order_bytes)) = of_last
            && count > kept
        {
            self.table.put(partition, &last.key, encode(kept, order_bytes));
        }
        Ok(())
    }

    /// The changes that a batch makes to the rows that are asked for.
    fn changes(&mut self, batch: &Batch, rows: &[KeptRow]) -> Result<Vec<Change>> {
        let mut partitions: Vec<(u32, Vec<usize>)> = Vec::new();
        let mut places: HashMap<u32, usize> = HashMap::new();
        for (index, row) in rows.iter().enumerate() {
            let number = self.table.load(KeyRef { hash: row.hash, bytes: &row.partition });
            let place = *places.entry(number).or_insert_with(|| {
                partitions.push((number, Vec::new()));
                partitions.len() - 1
            });
            partitions[place].1.push(index);
        }
        let mut changes = Vec::new();
        for (partition, of_partition) in partitions {
            let before = self.first_rows(partition)?;
            for index in of_partition {
                self.change(partition, &rows[index], batch.kind(index).is_retraction())?;
            }
            let after = self.first_rows(partition)?;
            if !self.spec.changelog {
                self.forget_the_rest(partition, &after)?;
            }
            difference(&self.spec, &before, &after, &mut changes);
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

/// How often a row is there, a u64, and how many bytes of its key are the order, a u32; little-endian.
fn encode(count: u64, order_bytes: u32) -> Bytes {
    let mut bytes = Vec::with_capacity(12);
    bytes.extend_from_slice(&count.to_le_bytes());
    bytes.extend_from_slice(&order_bytes.to_le_bytes());
    bytes.into()
}

fn decode(stored: &[u8]) -> Result<(u64, u32)> {
    match (stored.first_chunk(), stored.get(8..).and_then(<[u8]>::first_chunk)) {
        (Some(count), Some(order)) => Ok((u64::from_le_bytes(*count), u32::from_le_bytes(*order))),
        _ => Err(Error::corrupt("an entry of a rank's state has not 12 bytes")),
    }
}

impl Operator for Rank {
    fn open(&mut self, context: &OpenContext<'_>) -> Result<()> {
        self.table.open(context.backend())
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
        self.table.trim();
        Ok(())
    }

    fn checkpoint(&mut self, id: CheckpointId, _: &mut Output, changes: &mut Changes) -> Result<()> {
        self.table.checkpoint(id, changes);
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.table.bytes()
    }
}
