//! From states and rows to states, and from states to results: what a mini-batch computes of its groups.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, UInt32Array, new_empty_array, new_null_array};
use arrow::compute::{not, take};
use arrow::datatypes::DataType;
use coulee_checkpoint::{Changes, TableId};
use coulee_model::CheckpointId;

use super::changes::Evaluated;
use super::layout::{Computed, How, InputRows, Layout, Place, ROWS};
use super::partials::{GroupedRows, Partials, Signs};
use super::retraction::counts;
use super::spec::GroupAggregateSpec;
use super::values::{AllValues, ValueMaps, ValueSet};
use crate::Result;
use crate::group_table::{Accumulators, Aggregate, Inputs};
use crate::row_errors::Failure;
use crate::state::{Backend, KeyRef};

/// The groups of a mini-batch, by number: first those that have a state, then the others.
pub(super) struct Groups<'a> {
    /// The group of each row.
    pub(super) of_row: &'a [usize],
    /// The key of each group.
    pub(super) keys: &'a [KeyRef<'a>],
}

/// The states of the groups of a mini-batch that have rows.
pub(super) struct GroupStates {
    pub(super) columns: Vec<ArrayRef>,
    /// The group of each row of the columns, ascending.
    pub(super) groups: Vec<usize>,
    /// Which of them have no result, as far as that is known from how the states were made.
    pub(super) failures: BTreeMap<usize, Failure>,
}

/// The computation, with the values that it keeps beside the states. States are given and taken: who calls it stores them.
pub(super) struct Aggregation {
    pub(super) layout: Layout,
    partials: Partials,
    sets: Vec<Set>,
    maps: ValueMaps,
    /// The state columns of the computed aggregates.
    computed: Range<usize>,
    types: Vec<DataType>,
}

/// A set of values, and its `DISTINCT` aggregates with their state columns.
struct Set {
    values: ValueSet,
    distinct: Partials,
    distinct_count: usize,
    columns: Range<usize>,
}

impl Aggregation {
    /// `table` is the one of the values, if there are any.
    pub(super) fn new(spec: &GroupAggregateSpec, table: TableId) -> Result<Self> {
        let layout = Layout::new(spec)?;
        let partials = Partials::new(&layout.partials)?;
        let mut types = partials.types().to_vec();
        let mut sets = Vec::with_capacity(layout.sets.len());
        for (number, set) in layout.sets.iter().enumerate() {
            let distinct = Partials::new(&set.distinct)?;
            let start = types.len();
            types.extend_from_slice(distinct.types());
            sets.push(Set {
                values: ValueSet::new(number as u16, set.types.clone(), set.skips_nulls, spec.changelog)?,
                distinct_count: set.distinct.aggregates.len(),
                distinct,
                columns: start..types.len(),
            });
        }
        let start = types.len();
        if !layout.computed.is_empty() {
            types.push(DataType::Boolean);
            types.extend(layout.computed.iter().map(|computed| computed.data_type.clone()));
        }
        let computed = start..types.len();
        Ok(Aggregation { layout, partials, sets, maps: ValueMaps::new(table, spec.ttl_millis), computed, types })
    }

    /// The types of the state columns.
    pub(super) fn types(&self) -> &[DataType] {
        &self.types
    }

    /// The states after these rows, of the groups that have rows then.
    pub(super) fn next(&mut self, rows: &InputRows, before: &GroupStates, groups: &Groups<'_>) -> Result<GroupStates> {
        let count = groups.keys.len();
        let signs = match &rows.retracted {
            Some(retracted) => {
                Some(Signs { added: not(retracted)?, taken: taken_back(retracted, before, (groups.of_row, count)) })
            }
            None => None,
        };
        let mut columns = self.partials.next(
            &before.columns[0..self.partials.types().len()],
            &GroupedRows {
                arguments: &rows.arguments[..self.layout.partials.aggregates.len()],
                filters: &rows.filters[..self.layout.partials.aggregates.len()],
                group_of_row: groups.of_row,
                groups: count,
                signs: signs.as_ref(),
            },
        )?;
        let left: Vec<usize> = match self.layout.is_changelog {
            true => {
                let rows = counts(&columns[ROWS])?;
                (0..count).filter(|group| rows.value(*group) > 0).collect()
            }
            false => (0..count).collect(),
        };
        if self.sets.is_empty() {
            return Ok(GroupStates { columns: rows_of(&columns, &left)?, groups: left, failures: BTreeMap::new() });
        }
        let numbers = self.maps.load(groups.keys);
        columns.extend(self.next_values(rows, before, (groups.of_row, &numbers), signs.as_ref())?);
        let mut is_left = vec![false; count];
        left.iter().for_each(|group| is_left[*group] = true);
        for (number, _) in numbers.iter().zip(&is_left).filter(|(_, is_left)| !**is_left) {
            self.maps.clear(*number)?;
        }
        let mut columns = rows_of(&columns, &left)?;
        let numbers: Vec<u32> = left.iter().map(|group| numbers[*group]).collect();
        let failed = self.compute(&numbers, &mut columns)?;
        let failures = failed.into_iter().map(|(row, failure)| (left[row], failure)).collect();
        Ok(GroupStates { columns, groups: left, failures })
    }

    /// Adds and takes back the values of rows. Gives the states of the `DISTINCT` aggregates, one row per group.
    fn next_values(
        &mut self,
        rows: &InputRows,
        before: &GroupStates,
        (group_of_row, numbers): (&[usize], &[u32]),
        signs: Option<&Signs>,
    ) -> Result<Vec<ArrayRef>> {
        let (mut columns, first) = (Vec::new(), self.layout.partials.aggregates.len());
        for (index, set) in self.sets.iter_mut().enumerate() {
            let values = (&rows.arguments[first + index][..], rows.filters[first + index].as_ref());
            let changed = set.values.update(&mut self.maps, values, (group_of_row, numbers), signs)?;
            if set.distinct_count == 0 {
                continue;
            }
            columns.extend(set.distinct.next(
                &before.columns[set.columns.clone()],
                &GroupedRows {
                    arguments: &vec![changed.columns; set.distinct_count],
                    filters: &vec![None; set.distinct_count],
                    group_of_row: &changed.group_of_row,
                    groups: numbers.len(),
                    signs: Some(&changed.signs),
                },
            )?);
        }
        Ok(columns)
    }

    /// Computes what is computed from the values of groups, and adds it to the state columns. Gives the rows that have no result.
    fn compute(&mut self, numbers: &[u32], columns: &mut Vec<ArrayRef>) -> Result<BTreeMap<usize, Failure>> {
        let (mut results, mut failures) = (Vec::with_capacity(self.layout.computed.len()), BTreeMap::new());
        for Computed { set, how, data_type } in &self.layout.computed {
            let values = &self.sets[*set].values;
            results.push(match how {
                _ if numbers.is_empty() => new_empty_array(data_type),
                How::End(order) => values.end(&mut self.maps, numbers, *order)?,
                How::All(aggregate) => {
                    let (result, failed) = of_all(aggregate, values.all(&mut self.maps, numbers)?, numbers.len())?;
                    failures.extend(failed);
                    result
                }
            });
        }
        if !results.is_empty() {
            let has_results: BooleanArray = (0..numbers.len()).map(|row| Some(!failures.contains_key(&row))).collect();
            columns.push(Arc::new(has_results));
            columns.extend(results);
        }
        Ok(failures)
    }

    /// The results of states, one row per group, and which groups have a state and no result.
    pub(super) fn evaluate(
        &mut self,
        states: &GroupStates,
        groups: usize,
    ) -> Result<(Evaluated, BTreeMap<usize, Failure>)> {
        let rows = states.groups.len();
        let (partials, mut failed) = self.partials.evaluate(&states.columns[0..self.partials.types().len()], rows)?;
        let mut distinct = Vec::with_capacity(self.sets.len());
        for set in &mut self.sets {
            let (results, failed_too) = set.distinct.evaluate(&states.columns[set.columns.clone()], rows)?;
            failed.extend(failed_too);
            distinct.push(results);
        }
        let mut failures = states.failures.clone();
        failures.extend(failed.into_iter().map(|(row, failure)| (states.groups[row], failure)));
        let computed = &states.columns[self.computed.clone()];
        let mut exists = vec![false; groups];
        for (row, group) in states.groups.iter().enumerate() {
            let is_computed = computed.first().is_none_or(|has_results| has_results.as_boolean().value(row));
            exists[*group] = is_computed && !failures.contains_key(group);
        }
        let column = |place: &Place| match *place {
            Place::Partial(index) => &partials[index],
            Place::Distinct { set, index } => &distinct[set][index],
            // Behind the column that says whether there are results.
            Place::Computed(index) => &computed[1 + index],
        };
        let columns = self.layout.places.iter().map(|place| by_group(column(place), &states.groups, groups));
        Ok((Evaluated { columns: columns.collect::<Result<_>>()?, exists }, failures))
    }

    pub(super) fn open(&mut self, backend: Backend) -> Result<()> {
        if self.sets.is_empty() { Ok(()) } else { self.maps.open(backend) }
    }

    pub(super) fn trim(&mut self) {
        self.maps.trim();
    }

    pub(super) fn checkpoint(&mut self, id: CheckpointId, changes: &mut Changes) {
        self.maps.checkpoint(id, changes);
    }

    pub(super) fn bytes(&self) -> usize {
        self.maps.bytes()
    }
}

/// An aggregate of the values of `groups` groups, and the groups that it fails for.
fn of_all(aggregate: &Aggregate, values: AllValues, groups: usize) -> Result<(ArrayRef, BTreeMap<usize, Failure>)> {
    let aggregates = std::slice::from_ref(aggregate);
    let mut accumulators = Accumulators::new(aggregates)?;
    // A group without values must not count as one with a value: see `partials`.
    let filter = BooleanArray::from(vec![true; values.times.len()]);
    let inputs = Inputs { keys: Vec::new(), arguments: vec![values.columns], filters: vec![Some(filter)] };
    accumulators.update_repeated(aggregates, &inputs, &values.times, (&values.group_of_row, groups))?;
    let (mut results, failures) = accumulators.take_results(groups)?;
    Ok((results.remove(0), failures))
}

/// A column with a row for some groups, ascending, as one with a row for each: null for the others.
fn by_group(column: &ArrayRef, of: &[usize], groups: usize) -> Result<ArrayRef> {
    if of.len() == groups {
        return Ok(column.clone());
    }
    if of.is_empty() {
        return Ok(new_null_array(column.data_type(), groups));
    }
    let mut rows: Vec<Option<u32>> = vec![None; groups];
    of.iter().enumerate().for_each(|(row, group)| rows[*group] = Some(row as u32));
    Ok(take(column, &UInt32Array::from(rows), None)?)
}

/// Some rows of columns.
pub(super) fn rows_of(columns: &[ArrayRef], rows: &[usize]) -> Result<Vec<ArrayRef>> {
    let is_all = |column: &ArrayRef| column.len() == rows.len() && rows.iter().enumerate().all(|(at, row)| at == *row);
    if columns.first().is_none_or(is_all) {
        return Ok(columns.to_vec());
    }
    let rows: UInt32Array = rows.iter().map(|row| *row as u32).collect();
    columns.iter().map(|column| Ok(take(column, &rows, None)?)).collect()
}

/// Which rows are taken back: not those that come before any row of a group without a state.
fn taken_back(
    retracted: &BooleanArray,
    before: &GroupStates,
    (group_of_row, groups): (&[usize], usize),
) -> BooleanArray {
    let mut has_rows = vec![false; groups];
    before.groups.iter().for_each(|group| has_rows[*group] = true);
    let taken = group_of_row.iter().zip(retracted.values()).map(|(group, retracted)| {
        has_rows[*group] |= !retracted;
        Some(retracted && has_rows[*group])
    });
    taken.collect()
}
