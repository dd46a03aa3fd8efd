//! What the columns of rows are: of the rows of many partitions at once, each in its order.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, UInt32Array};
use arrow::compute::{cast, filter, take};
use arrow::datatypes::{DataType, Int64Type};
use arrow::record_batch::RecordBatch;
use datafusion_common::ScalarValue;
use datafusion_expr::Accumulator;
use datafusion_physical_expr::aggregate::AggregateFunctionExpr;

use super::entry::{Numbers, peers};
use super::spec::{Frame, OverCall, OverSpec};
use crate::group_table::{Accumulators, Aggregate, Inputs};
use crate::rank::RankFunction;
use crate::row_codec::RowCodec;
use crate::row_errors::evaluate::{Failed, evaluate};
use crate::row_errors::{Failure, reason, shortened};
use crate::{Error, Result};

/// Rows that are given to an accumulator at once.
const PAIRS_AT_ONCE: usize = 65_536;

/// The rows of a partition within those of many.
pub(super) struct Stretch {
    /// The map keys of its rows, in their order.
    pub keys: Vec<Vec<u8>>,
    /// Where its rows are.
    pub rows: Range<usize>,
    /// The first row that is computed; those before were emitted earlier.
    pub new: usize,
    /// The peers that the last row before `new` belonged to, if there was one.
    pub done: Option<Vec<u8>>,
    /// The numbers of that row; afterwards, of the last row.
    pub numbers: Numbers,
    /// The states of the accumulators without a bound after that row; afterwards, after the last row.
    pub running: Vec<u8>,
}

impl Stretch {
    fn peers(&self, row: usize) -> Result<&[u8]> {
        peers(&self.keys[row - self.rows.start])
    }

    /// The new rows in groups of peers.
    fn peer_groups(&self) -> Result<Vec<Range<usize>>> {
        let (mut groups, mut start) = (Vec::new(), self.new);
        for row in self.new..self.rows.end {
            if row + 1 == self.rows.end || self.peers(row)? != self.peers(row + 1)? {
                groups.push(start..row + 1);
                start = row + 1;
            }
        }
        Ok(groups)
    }
}

/// The columns of new rows, and which of them have none: by their number among the new rows.
pub(super) struct Computed {
    pub columns: Vec<ArrayRef>,
    pub failures: BTreeMap<usize, Failure>,
}

/// The computation, and the form in which accumulators are kept.
pub(super) struct Calls {
    spec: OverSpec,
    /// The aggregates, in the order of the calls.
    aggregates: Vec<Aggregate>,
    /// The state columns of each aggregate without a bound, in the order of the calls.
    running: Vec<Range<usize>>,
    codec: RowCodec,
}

/// What is evaluated of rows.
pub(super) struct Evaluated {
    inputs: Inputs,
    /// The values of each `LAG`.
    lagged: Vec<ArrayRef>,
    /// The order as numbers, where a frame has a bound in it.
    order: Option<Int64Array>,
}

fn is_running(frame: Frame) -> bool {
    matches!(frame, Frame::Rows(None) | Frame::Range(None))
}

impl Calls {
    pub fn new(spec: OverSpec) -> Result<Self> {
        let (mut aggregates, mut running, mut types) = (Vec::new(), Vec::new(), Vec::new());
        for call in &spec.calls {
            let OverCall::Aggregate(aggregate, frame) = call else { continue };
            aggregates.push(aggregate.clone());
            if is_running(*frame) {
                let start = types.len();
                types.extend(aggregate.function.state_fields()?.iter().map(|field| field.data_type().clone()));
                running.push(start..types.len());
            }
        }
        Ok(Calls { spec, aggregates, running, codec: RowCodec::new(types)? })
    }

    /// Whether something of a partition must be known for all time.
    pub fn keeps_partitions(&self) -> bool {
        !self.running.is_empty() || self.spec.calls.iter().any(|call| matches!(call, OverCall::Number(_)))
    }

    /// Evaluates what the columns are computed of.
    ///
    /// # Errors
    /// [`Failed::Rows`] when an expression fails on a row.
    pub fn evaluate(&self, rows: &RecordBatch) -> Result<Evaluated, Failed> {
        let lagged = self.spec.calls.iter().filter_map(|call| match call {
            OverCall::Lag { value, .. } => Some(evaluate(value, rows)),
            OverCall::Aggregate(..) | OverCall::Number(_) => None,
        });
        let order = match (self.spec.range_back(), self.spec.order.first()) {
            (Some(_), Some((expr, _))) => Some(whole_numbers(&evaluate(expr, rows)?)?),
            _ => None,
        };
        Ok(Evaluated {
            inputs: Inputs::evaluate(&[], &self.aggregates, rows)?,
            lagged: lagged.collect::<Result<_, _>>()?,
            order,
        })
    }

    /// The columns of the new rows of all stretches, which are moved on behind them.
    ///
    /// # Errors
    /// When stored accumulators cannot be read.
    pub fn compute(&self, evaluated: &Evaluated, stretches: &mut [Stretch]) -> Result<Computed> {
        let count: usize = stretches.iter().map(|stretch| stretch.rows.end - stretch.new).sum();
        let mut failures = BTreeMap::new();
        let mut running = self.running(evaluated, stretches, &mut failures)?.into_iter();
        let numbers = number(stretches)?;
        let (mut aggregate, mut lag) = (0, 0);
        let mut columns = Vec::with_capacity(self.spec.calls.len());
        for (call, field) in
            self.spec.calls.iter().zip(self.spec.schema.fields().iter().skip(self.spec.input.fields().len()))
        {
            let column = match call {
                OverCall::Number(function) => numbers_of(*function, &numbers),
                OverCall::Lag { rows, default, .. } => {
                    lag += 1;
                    before(&evaluated.lagged[lag - 1], *rows, default, stretches)?
                }
                OverCall::Aggregate(called, frame) => {
                    aggregate += 1;
                    match is_running(*frame) {
                        true => running.next().ok_or_else(|| Error::internal("a running aggregate has no result"))?,
                        false => {
                            let frames = frames(*frame, evaluated.order.as_ref(), stretches)?;
                            of_frames(called, (evaluated, aggregate - 1), &frames, &mut failures)?
                        }
                    }
                }
            };
            debug_assert_eq!(column.len(), count);
            columns.push(if column.data_type() == field.data_type() {
                column
            } else {
                cast(&column, field.data_type())?
            });
        }
        Ok(Computed { columns, failures })
    }

    /// The results of the aggregates without a bound, whose states go on from those of the stretches.
    fn running(
        &self,
        evaluated: &Evaluated,
        stretches: &mut [Stretch],
        failures: &mut BTreeMap<usize, Failure>,
    ) -> Result<Vec<ArrayRef>> {
        if self.running.is_empty() {
            return Ok(Vec::new());
        }
        let stored: Vec<&[u8]> =
            stretches.iter().map(|stretch| stretch.running.as_slice()).filter(|state| !state.is_empty()).collect();
        let stored = if stored.is_empty() { Vec::new() } else { self.codec.decode(stored)? };
        let (mut results, mut states) = (Vec::with_capacity(self.running.len()), Vec::new());
        let aggregates = self.spec.calls.iter().filter_map(|call| match call {
            OverCall::Aggregate(_, frame) => Some(*frame),
            OverCall::Number(_) | OverCall::Lag { .. } => None,
        });
        let running = aggregates.enumerate().filter(|(_, frame)| is_running(*frame));
        for ((index, frame), columns) in running.zip(&self.running) {
            let aggregate = &self.aggregates[index];
            let stored = if stored.is_empty() { &[][..] } else { &stored[columns.clone()] };
            let mut run =
                Run { aggregate, evaluated, index, results: Vec::new(), states: vec![Vec::new(); columns.len()] };
            let mut next_stored = 0;
            for stretch in &*stretches {
                let mut accumulator = aggregate.function.create_accumulator()?;
                if !stretch.running.is_empty() {
                    let state: Vec<ArrayRef> = stored.iter().map(|column| column.slice(next_stored, 1)).collect();
                    accumulator.merge_batch(&state)?;
                    next_stored += 1;
                }
                run.stretch(stretch, frame, accumulator.as_mut(), failures)?;
            }
            results.push(ScalarValue::iter_to_array(run.results)?);
            for column in run.states {
                states.push(ScalarValue::iter_to_array(column)?);
            }
        }
        let encoded = self.codec.encode(&states)?;
        for (row, stretch) in stretches.iter_mut().enumerate() {
            stretch.running = encoded.row(row).to_vec();
        }
        Ok(results)
    }
}

/// An aggregate without a bound over many stretches.
struct Run<'a> {
    aggregate: &'a Aggregate,
    evaluated: &'a Evaluated,
    /// Which of the aggregates it is.
    index: usize,
    results: Vec<ScalarValue>,
    /// Per state column, one value for each stretch.
    states: Vec<Vec<ScalarValue>>,
}

impl Run<'_> {
    fn stretch(
        &mut self,
        stretch: &Stretch,
        frame: Frame,
        accumulator: &mut dyn Accumulator,
        failures: &mut BTreeMap<usize, Failure>,
    ) -> Result<()> {
        let groups = match frame {
            Frame::Rows(_) => (stretch.new..stretch.rows.end).map(|row| row..row + 1).collect(),
            Frame::Range(_) => stretch.peer_groups()?,
        };
        let (arguments, filter) =
            (&self.evaluated.inputs.arguments[self.index], &self.evaluated.inputs.filters[self.index]);
        for group in groups {
            accumulator.update_batch(&rows_of(arguments, filter.as_ref(), group.clone())?)?;
            let result = match accumulator.evaluate() {
                Ok(result) => result,
                Err(error) => {
                    let failure = failure(&self.aggregate.function, &error);
                    for row in 0..group.len() {
                        failures.entry(self.results.len() + row).or_insert_with(|| failure.clone());
                    }
                    ScalarValue::try_new_null(self.aggregate.function.field().data_type())?
                }
            };
            self.results.extend(std::iter::repeat_n(result, group.len()));
        }
        for (column, value) in self.states.iter_mut().zip(accumulator.state()?) {
            column.push(value);
        }
        Ok(())
    }
}

/// Some rows of the arguments of an aggregate, without those that its filter leaves out.
fn rows_of(arguments: &[ArrayRef], sees: Option<&BooleanArray>, rows: Range<usize>) -> Result<Vec<ArrayRef>> {
    let slice = |column: &ArrayRef| column.slice(rows.start, rows.len());
    match sees {
        None => Ok(arguments.iter().map(slice).collect()),
        Some(sees) => {
            let sees = sees.slice(rows.start, rows.len());
            arguments.iter().map(|column| Ok(filter(&slice(column), &sees)?)).collect()
        }
    }
}

fn failure(function: &AggregateFunctionExpr, error: &datafusion_common::DataFusionError) -> Failure {
    let expression = Some(shortened(function.name()).into_owned());
    Failure { expression, reason: shortened(&reason(error)).into_owned() }
}

/// An order as numbers: those of whole numbers, and of instants in their unit.
fn whole_numbers(order: &ArrayRef) -> Result<Int64Array> {
    match order.data_type() {
        data_type if data_type.is_integer() || matches!(data_type, DataType::Timestamp(..)) => {
            Ok(cast(order, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
        }
        other => Err(Error::invalid(format!(
            "a RANGE with a number is ordered by {other}, expected whole numbers or instants"
        ))),
    }
}

/// The numbers of the new rows.
fn number(stretches: &mut [Stretch]) -> Result<Vec<Numbers>> {
    let mut all = Vec::new();
    for stretch in stretches {
        let mut numbers = stretch.numbers;
        for row in stretch.new..stretch.rows.end {
            let is_peer = match row == stretch.new {
                true => stretch.done.as_deref() == Some(stretch.peers(row)?),
                false => stretch.peers(row - 1)? == stretch.peers(row)?,
            };
            numbers.row += 1;
            if !is_peer {
                numbers.rank = numbers.row;
                numbers.dense_rank += 1;
            }
            all.push(numbers);
        }
        stretch.numbers = numbers;
    }
    Ok(all)
}

fn numbers_of(function: RankFunction, numbers: &[Numbers]) -> ArrayRef {
    let of = |numbers: &Numbers| match function {
        RankFunction::RowNumber => numbers.row,
        RankFunction::Rank => numbers.rank,
        RankFunction::DenseRank => numbers.dense_rank,
    };
    Arc::new(Int64Array::from_iter_values(numbers.iter().map(|numbers| of(numbers) as i64)))
}

/// The values of the rows that are so many before the new ones.
fn before(values: &ArrayRef, rows: usize, default: &ScalarValue, stretches: &[Stretch]) -> Result<ArrayRef> {
    let new = stretches.iter().flat_map(|stretch| (stretch.new..stretch.rows.end).map(move |row| (stretch, row)));
    let places: UInt32Array = new
        .map(|(stretch, row)| row.checked_sub(rows).filter(|row| *row >= stretch.rows.start).map(|row| row as u32))
        .collect();
    let taken = take(values, &places, None)?;
    if default.is_null() || places.null_count() == 0 {
        return Ok(taken);
    }
    let is_there: BooleanArray = (0..places.len()).map(|row| Some(places.is_valid(row))).collect();
    Ok(arrow::compute::kernels::zip::zip(&is_there, &taken, &default.to_scalar()?)?)
}

/// The rows of the frame of each new row.
fn frames(frame: Frame, order: Option<&Int64Array>, stretches: &[Stretch]) -> Result<Vec<Range<usize>>> {
    let mut frames = Vec::new();
    for stretch in stretches {
        match frame {
            Frame::Rows(back) => {
                let start = |row: usize| row.saturating_sub(back.unwrap_or(usize::MAX)).max(stretch.rows.start);
                frames.extend((stretch.new..stretch.rows.end).map(|row| start(row)..row + 1));
            }
            Frame::Range(back) => {
                let (Some(back), Some(order)) = (back, order) else {
                    return Err(Error::internal("a RANGE with a number has no order"));
                };
                let mut start = stretch.rows.start;
                for group in stretch.peer_groups()? {
                    if order.is_null(group.start) {
                        // Nulls are peers of each other alone.
                        frames.extend(group.clone().map(|_| group.clone()));
                        continue;
                    }
                    let first = order.value(group.start).saturating_sub(back);
                    while order.is_null(start) || order.value(start) < first {
                        start += 1;
                    }
                    frames.extend(group.clone().map(|_| start..group.end));
                }
            }
        }
    }
    Ok(frames)
}

/// An aggregate of frames.
fn of_frames(
    aggregate: &Aggregate,
    (evaluated, index): (&Evaluated, usize),
    frames: &[Range<usize>],
    failures: &mut BTreeMap<usize, Failure>,
) -> Result<ArrayRef> {
    let mut accumulators = Accumulators::new(std::slice::from_ref(aggregate))?;
    let (arguments, filter) = (&evaluated.inputs.arguments[index], &evaluated.inputs.filters[index]);
    let (mut rows, mut groups): (Vec<u32>, Vec<usize>) = (Vec::new(), Vec::new());
    for (group, frame) in frames.iter().enumerate() {
        rows.extend(frame.clone().map(|row| row as u32));
        groups.extend(std::iter::repeat_n(group, frame.len()));
        if rows.len() < PAIRS_AT_ONCE && group + 1 < frames.len() {
            continue;
        }
        let places = UInt32Array::from(std::mem::take(&mut rows));
        let taken = arguments.iter().map(|column| Ok(take(column, &places, None)?)).collect::<Result<Vec<_>>>()?;
        let sees = match filter {
            Some(filter) => Some(take(filter, &places, None)?.as_boolean().clone()),
            None => None,
        };
        accumulators.update(&[taken], &[sees], (&std::mem::take(&mut groups), frames.len()))?;
    }
    let (mut results, failed) = accumulators.take_results(frames.len())?;
    for (row, failure) in failed {
        failures.entry(row).or_insert(failure);
    }
    results.pop().ok_or_else(|| Error::internal("an aggregate of frames has no result"))
}
