//! OVER whose rows are emitted at once, and updated when rows come or go that change their columns.
//!
//! **State** An ordered map per partition, `order | all columns` in Arrow's row format, with what was emitted for each row.
//! **Contract** A batch reads the [`Region`] that its changes reach, computes its columns anew, and emits what differs: `-U` and `+U` of a row whose columns have
//! changed, `+I` of one that came, `-D` of one that went. So what was emitted up to a batch is the columns of the rows up to it, whatever the batching. A row
//! whose columns cannot be computed is rejected when that becomes so, and is taken back if it was emitted before.
//! **Cost** Of bounded frames, `LAG` and `LEAD`, the rows that they reach; of unbounded frames and of numbers, the partition. The region is in memory meanwhile.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Int8Array};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use coulee_checkpoint::{Changes, TableId};
use coulee_model::CheckpointId;
use datafusion_physical_expr::PhysicalExpr;

use super::compute::{Calls, Computed};
use super::entry::{Numbers, RowKey};
use super::region::{Change, Region, Stored};
use super::spec::{OverMode, OverSpec};
use super::stretch::Stretch;
use crate::keys::hash_keys;
use crate::operator::{InputIndex, OpenContext, Operator, Output};
use crate::row_codec::RowCodec;
use crate::row_errors::evaluate::{Failed, evaluate, in_pieces};
use crate::row_errors::{Failure, RejectedRows, Stage};
use crate::state::{KeyRef, MapTable};
use crate::{Batch, Error, Result, RowKind};

/// The table of the rows.
const ROWS: TableId = TableId(1);

pub(super) struct Updating {
    spec: OverSpec,
    calls: Calls,
    partition_codec: RowCodec,
    order_codec: RowCodec,
    row_codec: RowCodec,
    /// The form in which the computed columns are kept.
    emitted_codec: RowCodec,
    rows: MapTable,
}

/// A row of a batch as it is kept.
struct Arrived {
    partition: Vec<u8>,
    hash: u64,
    change: Change,
}

/// The changes of a partition, by the keys of their rows.
type OfPartition = (u32, BTreeMap<Vec<u8>, Change>);

/// What is emitted of a batch: rows and computed columns in Arrow's row format.
#[derive(Default)]
struct Emitted {
    kinds: Vec<i8>,
    rows: Vec<Vec<u8>>,
    columns: Vec<Vec<u8>>,
    failed: Vec<Vec<u8>>,
    failures: Vec<Failure>,
}

impl Emitted {
    fn push(&mut self, kind: RowKind, key: &RowKey, columns: &[u8]) {
        self.kinds.push(kind as i8);
        self.rows.push(key.rest().to_vec());
        self.columns.push(columns.to_vec());
    }
}

impl Updating {
    pub fn new(spec: OverSpec) -> Result<Self> {
        let OverMode::Updating { ttl_millis, .. } = spec.mode else {
            return Err(Error::internal("an OVER aggregation whose rows wait was taken for one that updates"));
        };
        let of_expr = |expr: &Arc<dyn PhysicalExpr>| expr.data_type(&spec.input);
        let partition = spec.partition.iter().map(of_expr).collect::<Result<Vec<_>, _>>()?;
        let order =
            spec.order.iter().map(|(expr, options)| Ok((of_expr(expr)?, *options))).collect::<Result<Vec<_>>>()?;
        let types =
            |fields: &[Arc<arrow::datatypes::Field>]| fields.iter().map(|field| field.data_type().clone()).collect();
        Ok(Updating {
            calls: Calls::new(spec.clone())?,
            partition_codec: RowCodec::new(partition)?,
            order_codec: RowCodec::sorted(order)?,
            row_codec: RowCodec::new(types(spec.input.fields()))?,
            emitted_codec: RowCodec::new(types(&spec.schema.fields()[spec.input.fields().len()..]))?,
            rows: MapTable::new(ROWS, ttl_millis),
            spec,
        })
    }

    /// The rows of a batch, and whether what their columns are computed of fails on one.
    fn arrived(&self, batch: &Batch) -> Result<Vec<Arrived>, Failed> {
        let rows = batch.rows();
        let evaluated = |exprs: &mut dyn Iterator<Item = &Arc<dyn PhysicalExpr>>| {
            exprs.map(|expr| evaluate(expr, rows)).collect::<Result<Vec<ArrayRef>, Failed>>()
        };
        let partition = evaluated(&mut self.spec.partition.iter())?;
        let order = evaluated(&mut self.spec.order.iter().map(|(expr, _)| expr))?;
        let numbers = self.calls.evaluate(rows)?.order;
        let hashes = hash_keys(&partition, rows.num_rows())?;
        let (partitions, orders) = (self.partition_codec.encode(&partition)?, self.order_codec.encode(&order)?);
        let encoded = self.row_codec.encode(rows.columns())?;
        let mut arrived = Vec::with_capacity(batch.len());
        for (row, hash) in hashes.into_iter().enumerate() {
            let key = RowKey::new([orders.row(row), encoded.row(row)].concat(), orders.row(row).len())?;
            let number = numbers.as_ref().filter(|numbers| numbers.is_valid(row)).map(|numbers| numbers.value(row));
            let copies = if batch.kind(row).is_retraction() { -1 } else { 1 };
            let partition = partitions.row(row).to_vec();
            arrived.push(Arrived { partition, hash, change: Change { key, number, copies } });
        }
        Ok(arrived)
    }

    /// What the rows of a batch come to, per partition in the order in which these came.
    fn by_partition(&mut self, arrived: Vec<Arrived>) -> Vec<OfPartition> {
        let mut partitions: Vec<OfPartition> = Vec::new();
        let mut places: HashMap<u32, usize> = HashMap::new();
        for Arrived { partition, hash, change } in arrived {
            let number = self.rows.load(KeyRef { hash, bytes: &partition });
            let place = *places.entry(number).or_insert_with(|| {
                partitions.push((number, BTreeMap::new()));
                partitions.len() - 1
            });
            match partitions[place].1.get_mut(&change.key.bytes) {
                Some(known) => known.copies += change.copies,
                None => {
                    partitions[place].1.insert(change.key.bytes.clone(), change);
                }
            }
        }
        for (_, changes) in &mut partitions {
            changes.retain(|_, change| change.copies != 0);
        }
        partitions
    }

    /// The columns of the rows of regions that changes reach, after the changes: one after the other, each as often as it is there.
    fn compute(&self, regions: &[Region]) -> Result<Computed> {
        let (mut encoded, mut stretches): (Vec<&[u8]>, Vec<Stretch>) = (Vec::new(), Vec::new());
        for Region { entries, reached } in regions {
            let (start, mut new, mut keys) = (encoded.len(), 0, Vec::new());
            for (place, entry) in entries.iter().enumerate() {
                encoded.extend(std::iter::repeat_n(entry.key.rest(), entry.copies));
                keys.extend(std::iter::repeat_n(entry.key.clone(), entry.copies));
                new += if place < reached.start { entry.copies } else { 0 };
            }
            let rows = start..encoded.len();
            let (numbers, running) = (Numbers::default(), Vec::new());
            stretches.push(Stretch { keys, rows, new: start + new, done: None, numbers, running });
        }
        if stretches.iter().all(|stretch| stretch.new == stretch.rows.end) {
            return Ok(Computed { columns: Vec::new(), failures: BTreeMap::new() });
        }
        let rows = self.decoded(&encoded)?;
        let evaluated = self.calls.evaluate(&rows).map_err(|failed| match failed {
            Failed::Fatal(error) => error,
            Failed::Rows(_, error) => Error::from(error),
        })?;
        self.calls.compute(&evaluated, &mut stretches)
    }

    /// Rows of the input's columns.
    fn decoded<T: AsRef<[u8]>>(&self, encoded: &[T]) -> Result<RecordBatch> {
        let columns = self.row_codec.decode(encoded.iter().map(AsRef::as_ref))?;
        let options = RecordBatchOptions::new().with_row_count(Some(encoded.len()));
        Ok(RecordBatch::try_new_with_options(self.spec.input.clone(), columns, &options)?)
    }

    /// Emits the difference that changes make, and keeps what was emitted.
    fn change(&mut self, partitions: Vec<OfPartition>, out: &mut Output) -> Result<()> {
        let mut regions = Vec::with_capacity(partitions.len());
        for (partition, changes) in &partitions {
            regions.push(Region::read(&mut self.rows, *partition, &self.spec, changes)?);
        }
        let Computed { columns, mut failures } = self.compute(&regions)?;
        let encoded = if columns.is_empty() { None } else { Some(self.emitted_codec.encode(&columns)?) };
        let (mut emitted, mut next) = (Emitted::default(), 0);
        for ((partition, _), Region { entries, reached }) in partitions.iter().zip(&regions) {
            for (place, entry) in entries.iter().enumerate().skip(reached.start) {
                if place >= reached.end {
                    // Of rows that are only read, not all that they are computed of is there.
                    (next..next + entry.copies).for_each(|row| drop(failures.remove(&row)));
                    next += entry.copies;
                    continue;
                }
                let mut now = Vec::with_capacity(entry.copies);
                for copy in 0..entry.copies {
                    let failure = failures.remove(&next);
                    if let Some(failure) = &failure
                        && !matches!(entry.emitted.get(copy), Some(None))
                    {
                        emitted.failed.push(entry.key.rest().to_vec());
                        emitted.failures.push(failure.clone());
                    }
                    let row = encoded.as_ref().map(|encoded| encoded.row(next)).filter(|_| failure.is_none());
                    now.push(row.map(<[u8]>::to_vec));
                    next += 1;
                }
                if now == entry.emitted {
                    continue;
                }
                difference(&entry.key, &entry.emitted, &now, &mut emitted);
                self.keep(
                    *partition,
                    &entry.key,
                    Stored { peer_bytes: entry.key.peers().len() as u32, number: entry.number, emitted: now },
                )?;
            }
        }
        self.emit(emitted, out)
    }

    fn keep(&mut self, partition: u32, key: &RowKey, stored: Stored) -> Result<()> {
        match stored.emitted.is_empty() {
            true => self.rows.remove(partition, &key.bytes),
            false => self.rows.put(partition, &key.bytes, stored.encode()?),
        }
        Ok(())
    }

    fn emit(&self, emitted: Emitted, out: &mut Output) -> Result<()> {
        if !emitted.failed.is_empty() {
            let rows = Batch::inserts(self.decoded(&emitted.failed)?);
            out.reject(RejectedRows { rows, failures: emitted.failures, stage: Stage::Expression });
        }
        if emitted.kinds.is_empty() {
            return Ok(());
        }
        let mut columns = self.decoded(&emitted.rows)?.columns().to_vec();
        columns.extend(self.emitted_codec.decode(emitted.columns.iter().map(Vec::as_slice))?);
        let rows = RecordBatch::try_new(self.spec.schema.clone(), columns)?;
        out.emit(Batch::changes(rows, Int8Array::from(emitted.kinds)));
        Ok(())
    }
}

/// What leads from the columns that were emitted for the copies of a row to those that they have now.
fn difference(key: &RowKey, before: &[Option<Vec<u8>>], now: &[Option<Vec<u8>>], emitted: &mut Emitted) {
    for copy in 0..before.len().max(now.len()) {
        let of = |columns: &[Option<Vec<u8>>]| columns.get(copy).cloned().flatten();
        match (of(before), of(now)) {
            (Some(old), Some(new)) if old != new => {
                emitted.push(RowKind::UpdateBefore, key, &old);
                emitted.push(RowKind::UpdateAfter, key, &new);
            }
            (Some(old), None) => emitted.push(RowKind::Delete, key, &old),
            (None, Some(new)) => emitted.push(RowKind::Insert, key, &new),
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
}

impl Operator for Updating {
    fn open(&mut self, context: &OpenContext<'_>) -> Result<()> {
        self.rows.open(context.backend())
    }

    fn process(&mut self, _: InputIndex, batch: Batch, out: &mut Output) -> Result<()> {
        let (pieces, rejected) = in_pieces(&batch, |piece| self.arrived(&piece))?;
        if let Some(rejected) = rejected {
            out.reject(rejected);
        }
        let partitions = self.by_partition(pieces.into_iter().flatten().collect());
        self.change(partitions, out)?;
        self.rows.trim();
        Ok(())
    }

    fn checkpoint(&mut self, id: CheckpointId, _: &mut Output, changes: &mut Changes) -> Result<()> {
        self.rows.checkpoint(id, changes);
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.rows.bytes()
    }
}
