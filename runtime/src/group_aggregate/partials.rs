//! Aggregates whose states are kept as DataFusion has them: partial results or, over a changelog, counts and totals.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, BooleanArray, new_empty_array};
use arrow::compute::and;
use arrow::datatypes::DataType;

use super::layout::Summed;
use super::retraction::Retraction;
use crate::Result;
use crate::group_table::Accumulators;
use crate::row_errors::Failure;

/// Which rows are added and which are taken back; a row that is neither is ignored.
pub(super) struct Signs {
    pub(super) added: BooleanArray,
    pub(super) taken: BooleanArray,
}

/// Rows with the number of their group.
pub(super) struct GroupedRows<'a> {
    /// Per aggregate, its arguments.
    pub(super) arguments: &'a [Vec<ArrayRef>],
    /// Per aggregate, which rows it sees; `None` is all.
    pub(super) filters: &'a [Option<BooleanArray>],
    pub(super) group_of_row: &'a [usize],
    pub(super) groups: usize,
    /// `None` when all rows are added, and every group has a state or a row.
    pub(super) signs: Option<&'a Signs>,
}

/// See the module. Nothing is kept here from one mini-batch to the next.
pub(super) struct Partials {
    widths: Vec<usize>,
    /// The types of the state columns.
    types: Vec<DataType>,
    /// The types of the results.
    results: Vec<DataType>,
    retraction: Retraction,
    /// From states and rows to states.
    updating: Accumulators,
    /// The states of the rows that are taken back.
    taking: Accumulators,
    /// From states to results.
    evaluating: Accumulators,
}

impl Partials {
    /// Aggregates without states.
    pub(super) fn new(summed: &Summed) -> Result<Self> {
        let aggregates = &summed.aggregates;
        let (mut widths, mut types) = (Vec::new(), Vec::new());
        for aggregate in aggregates {
            let fields = aggregate.function.state_fields()?;
            widths.push(fields.len());
            types.extend(fields.iter().map(|field| field.data_type().clone()));
        }
        let results = aggregates.iter().map(|aggregate| aggregate.function.field().data_type().clone()).collect();
        let accumulators = || Accumulators::new(aggregates);
        let (updating, taking, evaluating) = (accumulators()?, accumulators()?, accumulators()?);
        Ok(Partials { widths, types, results, retraction: summed.retraction.clone(), updating, taking, evaluating })
    }

    /// The types of the state columns.
    pub(super) fn types(&self) -> &[DataType] {
        &self.types
    }

    /// The state columns after these rows, one row per group. `before` holds the states of the first groups; the others have none yet.
    pub(super) fn next(&mut self, before: &[ArrayRef], rows: &GroupedRows<'_>) -> Result<Vec<ArrayRef>> {
        let (groups, known) = ((rows.group_of_row, rows.groups), before.first().map_or(0, |column| column.len()));
        merge(&mut self.updating, &self.widths, before, known)?;
        let Some(signs) = rows.signs else {
            self.updating.update(rows.arguments, rows.filters, groups)?;
            return self.updating.take_state();
        };
        self.updating.update(rows.arguments, &within(rows.filters, &signs.added)?, groups)?;
        let state = self.updating.take_state()?;
        if signs.taken.true_count() == 0 {
            return Ok(state);
        }
        self.taking.update(rows.arguments, &within(rows.filters, &signs.taken)?, groups)?;
        self.retraction.subtract(&state, &self.taking.take_state()?)
    }

    /// The results of states, one row each, and the rows that a result fails for.
    pub(super) fn evaluate(
        &mut self,
        states: &[ArrayRef],
        rows: usize,
    ) -> Result<(Vec<ArrayRef>, BTreeMap<usize, Failure>)> {
        if rows == 0 {
            let empty = self.results.iter().map(new_empty_array).collect();
            return Ok((empty, BTreeMap::new()));
        }
        merge(&mut self.evaluating, &self.widths, states, rows)?;
        self.evaluating.take_results(rows)
    }
}

/// Merges the states of the groups from 0 to `rows`.
///
/// SUBTLE: DataFusion's accumulators take a group that there is for one that has a value, if they are given values without nulls and without a filter. So
/// the groups that they are told of here are exactly those that have states.
fn merge(accumulators: &mut Accumulators, widths: &[usize], states: &[ArrayRef], rows: usize) -> Result<()> {
    let groups: Vec<usize> = (0..rows).collect();
    if rows == 0 { Ok(()) } else { accumulators.merge(states, widths, (&groups, rows)) }
}

/// Filters that also ask for these rows.
fn within(filters: &[Option<BooleanArray>], rows: &BooleanArray) -> Result<Vec<Option<BooleanArray>>> {
    let within = |filter: &Option<BooleanArray>| match filter {
        Some(filter) => Ok(Some(and(filter, rows)?)),
        None => Ok(Some(rows.clone())),
    };
    filters.iter().map(within).collect()
}
