//! An operator of one's own with two inputs: payments, of which each subtask has its share, and rules, of which each has all.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use coulee_checkpoint::{Changes, StateKey, TableId};
use coulee_model::{CheckpointId, KeyGroup, OperatorId, SubtaskIndex, Timestamp};
use coulee_runtime::graph::{Lineage, OperatorFactory};
use coulee_runtime::operator::{InputIndex, OpenContext, Operator, Output};
use coulee_runtime::state::{Facet, FreedBy, OperatorState, StateColumn, StateTable};
use coulee_runtime::{Batch, Error, Result};
use serde::{Deserialize, Serialize};

/// Tables of the operator's state: each has one entry per subtask at most, in JSON.
const RULES: TableId = TableId(1);
const WAITING: TableId = TableId(2);

/// Makes the operators.
#[derive(Debug, Clone, Copy)]
pub struct Judge;

impl OperatorFactory for Judge {
    fn describe(&self) -> String {
        "payments above the limit of their time".to_owned()
    }

    /// account, kind, amount, reason.
    fn schema(&self) -> SchemaRef {
        let text = |name: &str| Field::new(name, DataType::Utf8, true);
        let fields = vec![text("account"), text("kind"), Field::new("amount", DataType::Int64, true), text("reason")];
        Schema::new(fields).into()
    }

    /// Whoever looks at the job sees what it keeps; a checkpoint of another version of the operator is refused.
    fn state(&self, inputs: &[Lineage]) -> Option<OperatorState> {
        let table = |name: &str, value: &str, bound: &str| StateTable {
            name: name.to_owned(),
            key: vec![StateColumn::new("subtask", "UInt32")],
            value: vec![StateColumn::new(value, "JSON")],
            freed_by: FreedBy::Function,
            bound: bound.to_owned(),
        };
        let mut facets = vec![Facet::new("encoding", "JSON, version 1")];
        facets.extend(inputs.first().map(|payments| Facet::new("payments", payments.rows())));
        facets.extend(inputs.get(1).map(|rules| Facet::new("rules", rules.rows())));
        let waiting = table("waiting", "payments", "payments that the watermark has not reached");
        Some(OperatorState { kind: "judge", tables: vec![table("rules", "rules", "one per subtask"), waiting], facets })
    }

    fn create(&self, subtask: SubtaskIndex) -> Result<Box<dyn Operator>> {
        Ok(Box::new(JudgeOperator {
            schema: self.schema(),
            operator: OperatorId(0),
            subtask,
            home: KeyGroup(0),
            rules: BTreeMap::new(),
            waiting: Vec::new(),
            obsolete: Vec::new(),
            changed: false,
        }))
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Payment {
    at: i64,
    account: String,
    kind: String,
    amount: i64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Rule {
    above: i64,
    reason: String,
}

/// The rules of each kind, by the time from which on they hold.
type Rules = BTreeMap<String, BTreeMap<i64, Rule>>;

struct JudgeOperator {
    schema: SchemaRef,
    operator: OperatorId,
    subtask: SubtaskIndex,
    /// The key group that this subtask files its own state under: one of those it owns, so that no other subtask writes there.
    home: KeyGroup,
    rules: Rules,
    /// Payments that the watermark has not reached.
    waiting: Vec<Payment>,
    /// Entries that this subtask took over when it was opened, to be removed with its next checkpoint.
    obsolete: Vec<StateKey>,
    /// Whether rules came since the last checkpoint.
    changed: bool,
}

impl Operator for JudgeOperator {
    fn open(&mut self, context: &OpenContext<'_>) -> Result<()> {
        self.operator = context.operator;
        let own = (0..KeyGroup::COUNT).map(KeyGroup).find(|group| context.owns(*group));
        self.home = own.ok_or_else(|| Error::internal("a subtask owns no key group"))?;
        // Rules are the same in every subtask; the first writes them, all read them.
        for entry in context.entries(RULES) {
            self.rules = decode(&entry?.2)?;
        }
        // Payments may be judged by any subtask. Each takes over what lies in the key groups that it owns now.
        for entry in context.entries(WAITING) {
            let (group, _, value) = entry?;
            if context.owns(group) {
                self.waiting.extend(decode::<Vec<Payment>>(&value)?);
                self.obsolete.push(StateKey::new(self.operator, WAITING, group, b""));
            }
        }
        Ok(())
    }

    fn process(&mut self, input: InputIndex, batch: Batch, _: &mut Output) -> Result<()> {
        if input == InputIndex::FIRST { self.payments(batch.rows()) } else { self.take_rules(batch.rows()) }
    }

    /// Both inputs have come so far: the rules up to here are complete, and payments up to here can be judged.
    fn watermark(&mut self, watermark: Timestamp, out: &mut Output) -> Result<()> {
        let due: Vec<Payment> = self.waiting.extract_if(.., |payment| payment.at <= watermark.millis()).collect();
        self.judge(&due, out)?;
        out.watermark(watermark);
        Ok(())
    }

    fn checkpoint(&mut self, _: CheckpointId, _: &mut Output, changes: &mut Changes) -> Result<()> {
        self.obsolete.drain(..).for_each(|key| changes.delete(key));
        let key = |table| StateKey::new(self.operator, table, self.home, b"");
        if std::mem::take(&mut self.changed) && self.subtask == SubtaskIndex(0) {
            changes.put(key(RULES), encode(&self.rules)?);
        }
        if self.waiting.is_empty() {
            changes.delete(key(WAITING));
        } else {
            changes.put(key(WAITING), encode(&self.waiting)?);
        }
        Ok(())
    }
}

impl JudgeOperator {
    fn payments(&mut self, rows: &RecordBatch) -> Result<()> {
        let times = column(rows, "at")?.as_primitive::<TimestampMillisecondType>();
        let (accounts, kinds) = (column(rows, "account")?.as_string::<i32>(), column(rows, "kind")?.as_string::<i32>());
        let amounts = column(rows, "amount")?.as_primitive::<Int64Type>();
        self.waiting.extend((0..rows.num_rows()).map(|row| Payment {
            at: times.value(row),
            account: accounts.value(row).to_owned(),
            kind: kinds.value(row).to_owned(),
            amount: amounts.value(row),
        }));
        Ok(())
    }

    fn take_rules(&mut self, rows: &RecordBatch) -> Result<()> {
        let times = column(rows, "at")?.as_primitive::<TimestampMillisecondType>();
        let (kinds, reasons) = (column(rows, "kind")?.as_string::<i32>(), column(rows, "reason")?.as_string::<i32>());
        let limits = column(rows, "above")?.as_primitive::<Int64Type>();
        for row in 0..rows.num_rows() {
            let rule = Rule { above: limits.value(row), reason: reasons.value(row).to_owned() };
            self.rules.entry(kinds.value(row).to_owned()).or_default().insert(times.value(row), rule);
        }
        self.changed = true;
        Ok(())
    }

    fn judge(&self, payments: &[Payment], out: &mut Output) -> Result<()> {
        let rule = |payment: &Payment| {
            let (_, rule) = self.rules.get(&payment.kind)?.range(..=payment.at).next_back()?;
            (payment.amount > rule.above).then_some(rule)
        };
        let found: Vec<(&Payment, &Rule)> = payments.iter().filter_map(|p| Some((p, rule(p)?))).collect();
        let rows = RecordBatch::try_new(
            self.schema.clone(),
            vec![
                Arc::new(StringArray::from_iter_values(found.iter().map(|(payment, _)| &payment.account))),
                Arc::new(StringArray::from_iter_values(found.iter().map(|(payment, _)| &payment.kind))),
                Arc::new(Int64Array::from_iter_values(found.iter().map(|(payment, _)| payment.amount))),
                Arc::new(StringArray::from_iter_values(found.iter().map(|(_, rule)| &rule.reason))),
            ],
        )?;
        out.emit(Batch::inserts(rows));
        Ok(())
    }
}

/// A column, which must not have nulls.
fn column<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a dyn Array> {
    match rows.column_by_name(name) {
        Some(column) if column.null_count() == 0 => Ok(column),
        Some(_) => Err(Error::invalid(format!("column '{name}' has a row without a value"))),
        None => Err(Error::invalid(format!("there is no column '{name}'"))),
    }
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::internal(error.to_string()))
}

fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| Error::corrupt(format!("the state of the judge: {error}")))
}
