//! Partial results of sessions: as they are stored, in Arrow's row format, and as the groups of a table.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, UInt32Array};
use arrow::datatypes::{DataType, Field, FieldRef, UInt32Type};
use arrow::row::{RowConverter, SortField};

use crate::group_table::{Aggregate, GroupTable, Grouping, Inputs, Results};
use crate::{Error, Result};

/// Makes tables whose groups are sessions, by the numbers that the caller gives them.
#[derive(Debug)]
pub(super) struct SessionStates {
    grouping: Grouping,
    widths: Vec<usize>,
    converter: RowConverter,
}

impl SessionStates {
    /// `aggregates` is not empty: a table without columns has no groups.
    pub(super) fn new(aggregates: Vec<Aggregate>) -> Result<Self> {
        let number: FieldRef = Arc::new(Field::new("session", DataType::UInt32, false));
        let grouping = Grouping { keys: vec![number], aggregates };
        let schema = grouping.state_schema()?;
        let fields = schema.fields()[1..].iter().map(|field| SortField::new(field.data_type().clone()));
        let converter = RowConverter::new(fields.collect())?;
        Ok(SessionStates { widths: grouping.state_widths()?, grouping, converter })
    }

    pub(super) fn aggregates(&self) -> &[Aggregate] {
        &self.grouping.aggregates
    }

    /// A table that begins with partial results, each of a session's number. A number may come several times.
    pub(super) fn table(&self, numbers: Vec<u32>, states: &[&[u8]]) -> Result<GroupTable> {
        let mut table = GroupTable::new(&self.grouping)?;
        if states.is_empty() {
            return Ok(table);
        }
        let parser = self.converter.parser();
        let mut columns: Vec<ArrayRef> = vec![Arc::new(UInt32Array::from(numbers))];
        columns.extend(self.converter.convert_rows(states.iter().map(|state| parser.parse(state)))?);
        table.merge(&columns, 1, &self.widths)?;
        Ok(table)
    }

    /// Aggregates rows, each into the session of its number.
    pub(super) fn update(&self, table: &mut GroupTable, numbers: Vec<u32>, mut inputs: Inputs) -> Result<()> {
        let rows = numbers.len();
        inputs.keys = vec![Arc::new(UInt32Array::from(numbers))];
        table.update(&inputs, rows)
    }

    /// Empties a table into the partial results of its sessions.
    pub(super) fn take(&self, table: &mut GroupTable) -> Result<Vec<(u32, Vec<u8>)>> {
        let columns = table.take_state()?;
        let numbers = numbers(&columns)?;
        let rows = self.converter.convert_columns(&columns[1..])?;
        Ok(numbers.into_iter().zip(rows.iter().map(|row| row.data().to_vec())).collect())
    }

    /// Empties a table into the results of its sessions: their numbers and aggregates, and the numbers of those that have none, with why.
    pub(super) fn results(&self, table: &mut GroupTable) -> Result<(Vec<u32>, Results)> {
        let results = table.take_results()?;
        Ok((numbers(&results.columns)?, results))
    }
}

/// The sessions' numbers, which are the first column.
pub(super) fn numbers(columns: &[ArrayRef]) -> Result<Vec<u32>> {
    let column = columns.first().and_then(|column| column.as_primitive_opt::<UInt32Type>());
    let column = column.ok_or_else(|| Error::internal("a table of sessions has no numbers"))?;
    Ok(column.values().to_vec())
}
