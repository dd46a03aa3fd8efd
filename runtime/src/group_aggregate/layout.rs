//! What the state of a key holds, and where the results of the aggregates are found in it.
//!
//! A state is the state columns of the *partials*, then those of the `DISTINCT` aggregates of each set of values, then, if there are *computed* aggregates,
//! whether all of them have a result, and their results. Over rows that are only appended there are no computed aggregates.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use arrow::compute::concat;
use arrow::datatypes::{DataType, SchemaRef};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::aggregate::AggregateExprBuilder;

use super::retraction::{Retraction, Sums, count_of, row_count};
use super::spec::GroupAggregateSpec;
use crate::group_table::{Aggregate, Inputs};
use crate::row_errors::evaluate::Failed;
use crate::state::Order;
use crate::{Batch, Error, Result};

/// The column of a state over a changelog that counts the key's rows.
pub(super) const ROWS: usize = 0;

/// See the module.
pub(super) struct Layout {
    /// The keys over the input.
    keys: Vec<Arc<dyn PhysicalExpr>>,
    /// What is computed of every row: the arguments and filters of the partials, then those of the sets.
    of_rows: Vec<Aggregate>,
    /// The aggregates whose states are kept as they are. Over a changelog the first one counts the rows.
    pub(super) partials: Summed,
    pub(super) sets: Vec<SetLayout>,
    pub(super) computed: Vec<Computed>,
    /// Of each aggregate of the spec.
    pub(super) places: Vec<Place>,
    pub(super) is_changelog: bool,
}

/// Where the result of an aggregate comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The state of a partial.
    Partial(usize),
    /// The state of a `DISTINCT` aggregate of a set of values.
    Distinct { set: usize, index: usize },
    /// The state itself: it was computed from a set of values.
    Computed(usize),
}

/// Aggregates whose states are kept, and how rows are taken back from them.
#[derive(Default)]
pub(super) struct Summed {
    pub(super) aggregates: Vec<Aggregate>,
    pub(super) retraction: Retraction,
    /// How many state columns there are.
    columns: usize,
}

/// Values that some aggregates have as arguments, under one filter.
pub(super) struct SetLayout {
    /// How many values there are, as an aggregate of rows: it has the arguments and the filter.
    values: Aggregate,
    pub(super) types: Vec<DataType>,
    /// Whether values with a null are left out.
    pub(super) skips_nulls: bool,
    /// `COUNT`, `SUM` and `AVG` of the distinct values, without the `DISTINCT`.
    pub(super) distinct: Summed,
}

/// An aggregate that is computed anew from a set of values when the values of a key change.
pub(super) struct Computed {
    pub(super) set: usize,
    pub(super) how: How,
    pub(super) data_type: DataType,
}

/// How it is computed.
pub(super) enum How {
    /// It is the first value, or the last one.
    End(Order),
    /// From all values.
    All(Aggregate),
}

/// Rows as the operator aggregates them.
pub(super) struct InputRows {
    pub(super) keys: Vec<ArrayRef>,
    /// Of the partials, then of the sets.
    pub(super) arguments: Vec<Vec<ArrayRef>>,
    pub(super) filters: Vec<Option<BooleanArray>>,
    /// Which rows are taken back; `None` when none is.
    pub(super) retracted: Option<BooleanArray>,
    pub(super) count: usize,
}

impl Layout {
    pub(super) fn new(spec: &GroupAggregateSpec) -> Result<Self> {
        let mut layout = Layout {
            keys: spec.keys.iter().map(|(expr, _)| expr.clone()).collect(),
            of_rows: Vec::new(),
            partials: Summed::default(),
            sets: Vec::new(),
            computed: Vec::new(),
            places: Vec::new(),
            is_changelog: spec.changelog,
        };
        if spec.changelog {
            layout.partials.add(row_count()?, Sums::Count, &spec.input)?;
        }
        for aggregate in &spec.aggregates {
            let place = layout.place(aggregate, &spec.input)?;
            layout.places.push(place);
        }
        layout.of_rows = layout.partials.aggregates.clone();
        layout.of_rows.extend(layout.sets.iter().map(|set| set.values.clone()));
        Ok(layout)
    }

    /// Adds an aggregate.
    fn place(&mut self, aggregate: &Aggregate, input: &SchemaRef) -> Result<Place> {
        let function = &aggregate.function;
        if function.is_distinct() {
            let plain = without_distinct(aggregate, input)?;
            if let Some(sums) = Sums::of(&plain)? {
                let set = self.set(aggregate, input, true)?;
                return Ok(Place::Distinct { set, index: self.sets[set].distinct.add(plain, sums, input)? });
            }
        }
        if !self.is_changelog {
            self.partials.aggregates.push(aggregate.clone());
            return Ok(Place::Partial(self.partials.aggregates.len() - 1));
        }
        if let Some(sums) = Sums::of(aggregate)? {
            return Ok(Place::Partial(self.partials.add(aggregate.clone(), sums, input)?));
        }
        let (set, how) = match function.fun().name() {
            "min" => (self.set(aggregate, input, true)?, How::End(Order::Ascending)),
            "max" => (self.set(aggregate, input, true)?, How::End(Order::Descending)),
            "first_value" | "last_value" | "nth_value" => {
                let name = function.name();
                let message =
                    format!("'{name}' needs the order in which rows came, and rows of a changelog are taken back");
                return Err(Error::invalid(message));
            }
            _ => {
                // The filter decides what is in the set.
                let unfiltered = Aggregate { filter: None, ..aggregate.clone() };
                (self.set(aggregate, input, false)?, How::All(unfiltered))
            }
        };
        self.computed.push(Computed { set, how, data_type: function.field().data_type().clone() });
        Ok(Place::Computed(self.computed.len() - 1))
    }

    /// The set of an aggregate's arguments, which other aggregates may have as well.
    fn set(&mut self, aggregate: &Aggregate, input: &SchemaRef, skips_nulls: bool) -> Result<usize> {
        let (arguments, filter) = (aggregate.function.expressions(), &aggregate.filter);
        let same = |set: &SetLayout| {
            set.skips_nulls == skips_nulls
                && set.values.filter == *filter
                && set.values.function.expressions() == arguments
        };
        if let Some(known) = self.sets.iter().position(same) {
            return Ok(known);
        }
        self.sets.push(SetLayout {
            types: arguments.iter().map(|value| Ok(value.data_type(input)?)).collect::<Result<_>>()?,
            values: count_of(arguments, input.clone(), filter.clone())?,
            skips_nulls,
            distinct: Summed::default(),
        });
        Ok(self.sets.len() - 1)
    }

    /// What is aggregated of these rows.
    pub(super) fn rows(&self, batch: &Batch) -> Result<InputRows, Failed> {
        let Inputs { keys, arguments, filters } = Inputs::evaluate(&self.keys, &self.of_rows, batch.rows())?;
        let retracted = (0..batch.len()).map(|row| Some(batch.kind(row).is_retraction()));
        let retracted = batch.kinds().map(|_| retracted.collect::<BooleanArray>());
        let retracted = retracted.filter(|rows| rows.true_count() > 0);
        Ok(InputRows { keys, arguments, filters, retracted, count: batch.len() })
    }
}

impl InputRows {
    /// The rows of several pieces of a batch, in their order; `None` when there are none.
    pub(super) fn concat(mut pieces: Vec<InputRows>) -> Result<Option<Self>> {
        pieces.retain(|piece| piece.count > 0);
        let Some(first) = pieces.first() else { return Ok(None) };
        if pieces.len() == 1 {
            return Ok(pieces.pop());
        }
        let keys = (0..first.keys.len()).map(|key| joined(pieces.iter().map(|piece| &piece.keys[key])));
        let arguments = first.arguments.iter().enumerate().map(|(index, arguments)| {
            let argument = |at: usize| joined(pieces.iter().map(|piece| &piece.arguments[index][at]));
            (0..arguments.len()).map(argument).collect()
        });
        let filter = |index: usize| match pieces.iter().map(|piece| piece.filters[index].as_ref()).collect() {
            Some(filters) => joined_conditions(filters).map(Some),
            None => Ok(None),
        };
        let (keys, arguments) = (keys.collect::<Result<_>>()?, arguments.collect::<Result<_>>()?);
        let filters = (0..first.filters.len()).map(filter).collect::<Result<_>>()?;
        let retracted = pieces.iter().flat_map(|piece| {
            (0..piece.count).map(|row| Some(piece.retracted.as_ref().is_some_and(|retracted| retracted.value(row))))
        });
        let retracted = Some(retracted.collect::<BooleanArray>()).filter(|retracted| retracted.true_count() > 0);
        let count = pieces.iter().map(|piece| piece.count).sum();
        Ok(Some(InputRows { keys, arguments, filters, retracted, count }))
    }
}

fn joined<'a>(parts: impl Iterator<Item = &'a ArrayRef>) -> Result<ArrayRef> {
    Ok(concat(&parts.map(AsRef::as_ref).collect::<Vec<&dyn Array>>())?)
}

fn joined_conditions(parts: Vec<&BooleanArray>) -> Result<BooleanArray> {
    let parts: Vec<&dyn Array> = parts.into_iter().map(|part| part as &dyn Array).collect();
    Ok(concat(&parts)?.as_boolean().clone())
}

impl Summed {
    /// Adds an aggregate and, if its total does not say how many values are in it, their count. Gives the aggregate's place.
    fn add(&mut self, aggregate: Aggregate, sums: Sums, input: &SchemaRef) -> Result<usize> {
        let (place, column) = (self.aggregates.len(), self.columns);
        let (arguments, filter) = (aggregate.function.expressions(), aggregate.filter.clone());
        self.aggregates.push(aggregate);
        match sums {
            Sums::Count => self.columns += 1,
            Sums::Counted { total, count, is_nullable } => {
                self.retraction.emptied.push((column + total, column + count));
                if is_nullable {
                    self.retraction.emptied.push((column + count, column + count));
                }
                self.columns += 2;
            }
            Sums::Total => {
                self.aggregates.push(count_of(arguments, input.clone(), filter)?);
                self.retraction.emptied.push((column, column + 1));
                self.columns += 2;
            }
        }
        Ok(place)
    }
}

fn without_distinct(aggregate: &Aggregate, input: &SchemaRef) -> Result<Aggregate> {
    let function = &aggregate.function;
    let plain = AggregateExprBuilder::new(Arc::new(function.fun().clone()), function.expressions());
    let plain = plain.schema(input.clone()).alias(function.name()).build()?;
    Ok(Aggregate { function: Arc::new(plain), filter: aggregate.filter.clone() })
}
