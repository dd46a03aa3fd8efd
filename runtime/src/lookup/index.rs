//! The rows of a table by what they are looked up by, encoded in Arrow's row format.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, BooleanArray};
use arrow::datatypes::DataType;

use super::spec::LookupTable;
use crate::calc::Calc;
use crate::row_codec::{EncodedRows, RowCodec};
use crate::row_errors::evaluate::{Failed, evaluate, evaluate_condition, in_pieces};
use crate::{Batch, Result, RowKind};

/// What a hash map takes for an entry beside key and value, roughly.
const ENTRY_BYTES: usize = 48;

/// Encodes keys, and decodes rows.
pub(super) struct Keys {
    keys: RowCodec,
    rows: RowCodec,
}

impl Keys {
    pub(super) fn new(table: &LookupTable) -> Result<Self> {
        let types = table.keys.iter().map(|key| Ok(key.data_type(&table.schema)?)).collect::<Result<Vec<_>>>()?;
        let columns: Vec<DataType> = table.schema.fields().iter().map(|field| field.data_type().clone()).collect();
        Ok(Keys { keys: RowCodec::new(types)?, rows: RowCodec::new(columns)? })
    }

    pub(super) fn encode(&self, keys: &[ArrayRef]) -> Result<EncodedRows> {
        self.keys.encode(keys)
    }

    pub(super) fn decode<'r>(&self, rows: impl IntoIterator<Item = &'r [u8]>) -> Result<Vec<ArrayRef>> {
        self.rows.decode(rows)
    }
}

type Bytes = Box<[u8]>;

/// The rows of a table. Rows with a null among their keys are not kept, as nothing finds them.
pub(super) struct Index {
    table: LookupTable,
    calc: Calc,
    codec: Keys,
    primary: RowCodec,
    /// The rows of each key, in the order in which they came.
    rows: HashMap<Bytes, Vec<Bytes>>,
    /// Of a table whose rows replace each other: key and row, by primary key.
    current: HashMap<Bytes, (Bytes, Bytes)>,
    bytes: usize,
}

/// What is computed of the rows of a batch that are left.
struct Computed {
    batch: Batch,
    /// Whether a row is left.
    keeps: BooleanArray,
    /// Whether a row that is left has a key.
    has_key: Vec<bool>,
    keys: EncodedRows,
    rows: EncodedRows,
    primary: EncodedRows,
}

impl Index {
    pub(super) fn new(table: LookupTable) -> Result<Self> {
        let source = table.source.schema();
        let primary = table.primary_key.iter().map(|index| source.field(*index).data_type().clone()).collect();
        let calc = Calc { filter: None, projection: table.projection.clone(), schema: table.schema.clone() };
        let (codec, primary) = (Keys::new(&table)?, RowCodec::new(primary)?);
        Ok(Index { table, calc, codec, primary, rows: HashMap::new(), current: HashMap::new(), bytes: 0 })
    }

    /// The rows of an encoded key.
    pub(super) fn find(&self, key: &[u8]) -> &[Bytes] {
        self.rows.get(key).map_or(&[], Vec::as_slice)
    }

    /// Roughly what it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes rows of the table. Returns how many of them a condition or a column of the table failed on: they are left out.
    pub(super) fn apply(&mut self, batch: &Batch) -> Result<usize> {
        let (pieces, rejected) = in_pieces(batch, |piece| self.compute(piece))?;
        for piece in pieces {
            self.change(&piece);
        }
        Ok(rejected.map_or(0, |rejected| rejected.rows.len()))
    }

    fn compute(&self, batch: Batch) -> std::result::Result<Computed, Failed> {
        let keeps = match &self.table.filter {
            Some(filter) => evaluate_condition(filter, batch.rows())?,
            None => BooleanArray::from(vec![true; batch.len()]),
        };
        let kept = self.calc.compute(batch.filter(&keeps)?)?;
        let keys = self.table.keys.iter().map(|key| evaluate(key, kept.rows()));
        let keys = keys.collect::<std::result::Result<Vec<ArrayRef>, _>>()?;
        let has_key = (0..kept.len()).map(|row| keys.iter().all(|key| key.is_valid(row))).collect();
        let primary: Vec<ArrayRef> =
            self.table.primary_key.iter().map(|index| batch.rows().column(*index).clone()).collect();
        let (keys, rows) = (self.codec.encode(&keys)?, self.codec.rows.encode(kept.rows().columns())?);
        Ok(Computed { keeps, has_key, keys, rows, primary: self.primary.encode(&primary)?, batch })
    }

    /// Row by row: a row may replace one of the same batch.
    fn change(&mut self, computed: &Computed) {
        let replaces = !self.table.primary_key.is_empty();
        let mut kept = 0;
        for row in 0..computed.batch.len() {
            let (keeps, at) = (computed.keeps.is_valid(row) && computed.keeps.value(row), kept);
            kept += usize::from(keeps);
            let is_there = keeps && computed.has_key[at];
            let kind = computed.batch.kind(row);
            if replaces && let Some((key, row)) = self.current.remove(computed.primary.row(row)) {
                self.bytes -= 2 * (key.len() + row.len()) + ENTRY_BYTES;
                self.remove(&key, &row);
            }
            match kind {
                RowKind::Insert | RowKind::UpdateAfter if is_there => {
                    let (key, value): (Bytes, Bytes) = (computed.keys.row(at).into(), computed.rows.row(at).into());
                    if replaces {
                        self.bytes += 2 * (key.len() + value.len()) + ENTRY_BYTES;
                        self.current.insert(computed.primary.row(row).into(), (key.clone(), value.clone()));
                    }
                    self.bytes += key.len() + value.len() + ENTRY_BYTES;
                    self.rows.entry(key).or_default().push(value);
                }
                RowKind::Delete | RowKind::UpdateBefore if is_there && !replaces => {
                    self.remove(computed.keys.row(at), computed.rows.row(at));
                }
                _ => {}
            }
        }
    }

    fn remove(&mut self, key: &[u8], row: &[u8]) {
        let Some(rows) = self.rows.get_mut(key) else { return };
        let Some(at) = rows.iter().position(|kept| kept.as_ref() == row) else { return };
        rows.remove(at);
        if rows.is_empty() {
            self.rows.remove(key);
        }
        self.bytes -= key.len() + row.len() + ENTRY_BYTES;
    }
}
