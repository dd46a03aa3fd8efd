//! Rows that replace each other by a key: what leads from a changelog of upserts to one with the rows before updates, and back.
//!
//! | operator | what comes | what is kept of a key | what leaves |
//! | --- | --- | --- | --- |
//! | [`changelog_normalize`] (Flink's `ChangelogNormalize`) | new rows; deletes, of which only the key counts | its row | `+I`, `-U` and `+U`, `-D`, with whole rows |
//! | [`upsert_materialize`] (Flink's `SinkUpsertMaterializer`) | a changelog, whose rows of one key may come from several rows of a query | its rows, in the order in which they came | `+I`, `+U` with the last of the rows, `-D` when none is left |
//!
//! The second is needed where the key of a sink does not have one row in the result of the query at any time, be it only between two changes: a row that goes
//! must not take away the row that came in its place.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int8Array};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use arrow::row::{RowConverter, SortField};
use coulee_checkpoint::{Changes, TableId};
use coulee_model::{CheckpointId, SubtaskIndex};

use crate::graph::{Lineage, OperatorFactory, Port};
use crate::keys::hash_keys;
use crate::operator::{InputIndex, OpenContext, Operator, Output};
use crate::state::{Facet, FreedBy, KeyRef, OperatorState, Postcard, StateColumn, StateTable, ValueTable};
use crate::{Batch, Result, RowKind};

/// The table of the rows of each key.
const ROWS: TableId = TableId(1);

/// Rows with a key.
#[derive(Debug, Clone)]
pub struct UpsertSpec {
    /// The columns of the key, by index. Rows must have been shuffled by them.
    pub key: Vec<usize>,
    /// The columns of the output. Those of the input have the same types, and may be null where these are not.
    pub schema: SchemaRef,
    /// After how many milliseconds without a change a key is forgotten; `None` is never.
    pub ttl_millis: Option<i64>,
}

/// The operator that gives upserts the rows before updates and deletes.
pub fn changelog_normalize(spec: UpsertSpec) -> Arc<dyn OperatorFactory> {
    Arc::new(UpsertFactory { spec, to: Changelog::Retract })
}

/// The operator that makes upserts of a changelog.
pub fn upsert_materialize(spec: UpsertSpec) -> Arc<dyn OperatorFactory> {
    Arc::new(UpsertFactory { spec, to: Changelog::Upsert })
}

/// What leaves the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Changelog {
    Retract,
    Upsert,
}

impl Changelog {
    fn operator(self) -> &'static str {
        match self {
            Changelog::Retract => "ChangelogNormalize",
            Changelog::Upsert => "UpsertMaterialize",
        }
    }
}

#[derive(Debug)]
struct UpsertFactory {
    spec: UpsertSpec,
    to: Changelog,
}

impl UpsertFactory {
    fn key_names(&self) -> Vec<&str> {
        self.spec.key.iter().map(|index| self.spec.schema.field(*index).name().as_str()).collect()
    }
}

impl OperatorFactory for UpsertFactory {
    fn describe(&self) -> String {
        format!("{}: by {}", self.to.operator(), self.key_names().join(", "))
    }

    fn schema(&self) -> SchemaRef {
        self.spec.schema.clone()
    }

    fn refuses_changelog(&self, _: InputIndex) -> Option<&'static str> {
        None
    }

    fn emits_changelog(&self, port: Port, _: bool) -> bool {
        port == Port::MAIN
    }

    fn state(&self, inputs: &[Lineage]) -> Option<OperatorState> {
        let Some(input) = inputs.first() else { return Some(OperatorState::undescribed(inputs)) };
        let facets = vec![
            Facet::new("rows", self.to.operator()),
            Facet::new("key", self.key_names().join(", ")),
            Facet::new("columns", input.typed_columns()),
            Facet::new("input", input.rows()),
        ];
        let key = self.spec.key.iter().map(|index| self.spec.schema.field(*index));
        let ttl = self.spec.ttl_millis.and_then(|millis| u64::try_from(millis).ok());
        let table = StateTable {
            name: "rows".to_owned(),
            key: key.map(|field| StateColumn::new(field.name(), field.data_type())).collect(),
            value: vec![StateColumn::new("rows", "all columns")],
            freed_by: FreedBy::ttl_or(ttl, FreedBy::Never),
            bound: "keys".to_owned(),
        };
        Some(OperatorState { kind: "upsert", tables: vec![table], facets })
    }

    fn lineage(&self, inputs: &[Lineage]) -> Lineage {
        match inputs.first() {
            Some(input) => {
                let from = format!("[{} BY {} OF {}]", self.to.operator(), self.key_names().join(", "), input.rows());
                input.clone().derived(from, self.schema())
            }
            None => Lineage::named("nothing", self.schema()),
        }
    }

    fn create(&self, _: SubtaskIndex) -> Result<Box<dyn Operator>> {
        let fields = self.spec.schema.fields();
        let field = |index: &usize| SortField::new(fields[*index].data_type().clone());
        Ok(Box::new(Upsert {
            to: self.to,
            keys: RowConverter::new(self.spec.key.iter().map(field).collect())?,
            rows: RowConverter::new((0..fields.len()).map(|index| field(&index)).collect())?,
            table: ValueTable::new(ROWS, self.spec.ttl_millis),
            spec: self.spec.clone(),
        }))
    }
}

struct Upsert {
    spec: UpsertSpec,
    to: Changelog,
    keys: RowConverter,
    rows: RowConverter,
    /// The rows of each key in Arrow's row format.
    table: ValueTable<Postcard<Vec<Vec<u8>>>>,
}

/// Changes that a batch makes.
#[derive(Default)]
struct Emitted {
    kinds: Vec<i8>,
    rows: Vec<Vec<u8>>,
}

impl Emitted {
    fn push(&mut self, kind: RowKind, row: Vec<u8>) {
        self.kinds.push(kind as i8);
        self.rows.push(row);
    }
}

/// A row takes the place of the one before it; a delete takes that one away.
fn normalize(kept: &mut Vec<Vec<u8>>, is_delete: bool, row: &[u8], out: &mut Emitted) {
    match (kept.pop(), is_delete) {
        (Some(old), true) => out.push(RowKind::Delete, old),
        (None, true) => {}
        (Some(old), false) => {
            out.push(RowKind::UpdateBefore, old);
            out.push(RowKind::UpdateAfter, row.to_vec());
        }
        (None, false) => out.push(RowKind::Insert, row.to_vec()),
    }
    if !is_delete {
        kept.push(row.to_vec());
    }
}

/// The last row that is there counts. A retraction of a row that is not there (its time to live has passed) changes nothing.
fn materialize(kept: &mut Vec<Vec<u8>>, is_retraction: bool, row: &[u8], out: &mut Emitted) {
    if !is_retraction {
        out.push(if kept.is_empty() { RowKind::Insert } else { RowKind::UpdateAfter }, row.to_vec());
        kept.push(row.to_vec());
        return;
    }
    let Some(place) = kept.iter().rposition(|own| own == row) else { return };
    kept.remove(place);
    match kept.last() {
        None => out.push(RowKind::Delete, row.to_vec()),
        Some(last) if place == kept.len() => out.push(RowKind::UpdateAfter, last.clone()),
        Some(_) => {}
    }
}

impl Upsert {
    fn changes(&mut self, batch: &Batch) -> Result<Emitted> {
        let columns: Vec<ArrayRef> = self.spec.key.iter().map(|index| batch.rows().column(*index).clone()).collect();
        let hashes = hash_keys(&columns, batch.len())?;
        let keys = self.keys.convert_columns(&columns)?;
        let rows = self.rows.convert_columns(batch.rows().columns())?;
        let refs: Vec<KeyRef<'_>> =
            hashes.iter().zip(&keys).map(|(hash, key)| KeyRef { hash: *hash, bytes: key.data() }).collect();
        let numbers = self.table.load(&refs)?;
        let mut out = Emitted::default();
        for (index, number) in numbers.into_iter().enumerate() {
            let (row, is_retraction) = (rows.row(index), batch.kind(index).is_retraction());
            // With a time to live, an equal row makes the key live on, here and behind.
            if self.to == Changelog::Retract && self.spec.ttl_millis.is_none() && !is_retraction {
                let kept = self.table.get(number).and_then(|Postcard(kept)| kept.last());
                if kept.is_some_and(|kept| kept == row.data()) {
                    continue;
                }
            }
            let value = self.table.update(number);
            let mut kept = value.take().map(|Postcard(kept)| kept).unwrap_or_default();
            match self.to {
                Changelog::Retract => normalize(&mut kept, is_retraction, row.data(), &mut out),
                Changelog::Upsert => materialize(&mut kept, is_retraction, row.data(), &mut out),
            }
            *value = (!kept.is_empty()).then_some(Postcard(kept));
        }
        Ok(out)
    }
}

impl Operator for Upsert {
    fn open(&mut self, context: &OpenContext<'_>) -> Result<()> {
        self.table.open(context.backend())
    }

    fn process(&mut self, _: InputIndex, batch: Batch, out: &mut Output) -> Result<()> {
        let changes = self.changes(&batch)?;
        self.table.trim();
        if changes.rows.is_empty() {
            return Ok(());
        }
        let parser = self.rows.parser();
        let columns = self.rows.convert_rows(changes.rows.iter().map(|row| parser.parse(row)))?;
        let rows = RecordBatch::try_new(self.spec.schema.clone(), columns)?;
        out.emit(Batch::changes(rows, Int8Array::from(changes.kinds)));
        Ok(())
    }

    fn checkpoint(&mut self, id: CheckpointId, _: &mut Output, changes: &mut Changes) -> Result<()> {
        self.table.checkpoint(id, changes)
    }

    fn state_bytes(&self) -> usize {
        self.table.bytes()
    }
}
