//! What happened to rows as a column, and back (Flink's `TO_CHANGELOG` and `FROM_CHANGELOG`): a changelog as rows that are only appended, which any table takes.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int8Array, StringArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use coulee_model::SubtaskIndex;

use crate::graph::{Lineage, OperatorFactory, Port};
use crate::operator::{InputIndex, Operator, Output};
use crate::row_errors::{Failure, RejectedRows, Stage};
use crate::state::OperatorState;
use crate::{Batch, Result, RowKind};

/// The codes of what happens to rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpCodes(Vec<(String, RowKind)>);

impl OpCodes {
    /// Codes and what they mean. A kind without a code is left out where rows are written; several codes may mean one.
    pub fn new(codes: Vec<(String, RowKind)>) -> Self {
        OpCodes(codes)
    }

    fn code(&self, kind: RowKind) -> Option<&str> {
        self.0.iter().find(|(_, of)| *of == kind).map(|(code, _)| code.as_str())
    }

    fn kind(&self, code: &str) -> Option<RowKind> {
        self.0.iter().find(|(known, _)| known == code).map(|(_, kind)| *kind)
    }

    fn text(&self) -> String {
        let codes: Vec<String> = self.0.iter().map(|(code, kind)| format!("'{code}' {}", kind.symbol())).collect();
        codes.join(", ")
    }
}

/// Gives each row its code, in a first column of texts, and appends it. `schema`: that column, and those of the input.
pub fn to_changelog(codes: OpCodes, schema: SchemaRef) -> Arc<dyn OperatorFactory> {
    Arc::new(OpCodesFactory { codes, reads: None, schema })
}

/// Takes the code of each row from the column `op`, and leaves the column out. A row with another code is rejected. `schema`: the other columns.
pub fn from_changelog(codes: OpCodes, op: usize, schema: SchemaRef) -> Arc<dyn OperatorFactory> {
    Arc::new(OpCodesFactory { codes, reads: Some(op), schema })
}

#[derive(Debug, Clone)]
struct OpCodesFactory {
    codes: OpCodes,
    /// The column that codes are read from; `None` where they are written.
    reads: Option<usize>,
    schema: SchemaRef,
}

impl OperatorFactory for OpCodesFactory {
    fn describe(&self) -> String {
        let name = if self.reads.is_some() { "FromChangelog" } else { "ToChangelog" };
        format!("{name}: {}", self.codes.text())
    }

    fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    fn refuses_changelog(&self, _: InputIndex) -> Option<&'static str> {
        self.reads.map(|_| "FROM_CHANGELOG reads rows that are only appended")
    }

    fn emits_changelog(&self, port: Port, _: bool) -> bool {
        port == Port::MAIN && self.reads.is_some()
    }

    fn state(&self, _: &[Lineage]) -> Option<OperatorState> {
        None
    }

    fn may_reject(&self) -> bool {
        self.reads.is_some()
    }

    fn create(&self, _: SubtaskIndex) -> Result<Box<dyn Operator>> {
        Ok(Box::new(self.clone()))
    }
}

impl Operator for OpCodesFactory {
    fn process(&mut self, _: InputIndex, batch: Batch, out: &mut Output) -> Result<()> {
        match self.reads {
            None => out.emit(self.written(batch)?),
            Some(op) => self.read(&batch, op, out)?,
        }
        Ok(())
    }
}

impl OpCodesFactory {
    fn written(&self, batch: Batch) -> Result<Batch> {
        let has_code: BooleanArray =
            (0..batch.len()).map(|row| Some(self.codes.code(batch.kind(row)).is_some())).collect();
        let batch = if has_code.true_count() == batch.len() { batch } else { batch.filter(&has_code)? };
        let codes: StringArray = (0..batch.len()).map(|row| self.codes.code(batch.kind(row))).collect();
        let mut columns: Vec<ArrayRef> = vec![Arc::new(codes)];
        columns.extend(batch.rows().columns().iter().cloned());
        let rows = RecordBatch::try_new(self.schema.clone(), columns)?;
        let appended = Batch::inserts(rows);
        Ok(match batch.origins() {
            Some(origins) => appended.with_origins(origins.clone()),
            None => appended,
        })
    }

    fn read(&self, batch: &Batch, op: usize, out: &mut Output) -> Result<()> {
        let codes = batch.rows().column(op).as_string::<i32>();
        let kind = |row: usize| codes.is_valid(row).then(|| self.codes.kind(codes.value(row))).flatten();
        let kinds: Vec<Option<RowKind>> = (0..batch.len()).map(kind).collect();
        let (mut refused, mut failures) = (Vec::new(), Vec::new());
        for row in (0..batch.len()).filter(|row| kinds[*row].is_none()) {
            let code = if codes.is_valid(row) { format!("'{}'", codes.value(row)) } else { "null".to_owned() };
            let expression = Some(batch.schema().field(op).name().clone());
            let reason = format!("the code of a change is {code}, expected one of {}", self.codes.text());
            failures.push(Failure { expression, reason });
            refused.push(row as u32);
        }
        if !refused.is_empty() {
            let rows = UInt32Array::from(refused);
            let rows = batch.select(|column| Ok(take(column, &rows, None)?))?;
            out.reject(RejectedRows { rows, failures, stage: Stage::Expression });
        }
        let keep: BooleanArray = kinds.iter().map(|kind| Some(kind.is_some())).collect();
        let batch = if keep.true_count() == batch.len() { batch.clone() } else { batch.filter(&keep)? };
        let kinds = Int8Array::from_iter_values(kinds.iter().flatten().map(|kind| *kind as i8));
        let mut columns = batch.rows().columns().to_vec();
        columns.remove(op);
        let options = RecordBatchOptions::new().with_row_count(Some(batch.len()));
        let changes = Batch::changes(RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)?, kinds);
        out.emit(match batch.origins() {
            Some(origins) => changes.with_origins(origins.clone()),
            None => changes,
        });
        Ok(())
    }
}
