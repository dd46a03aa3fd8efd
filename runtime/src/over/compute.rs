//! What the columns of rows are: of the rows of many partitions at once, each in its order.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, UInt32Array};
use arrow::compute::{cast, concat, filter, take};
use arrow::datatypes::{DataType, Int64Type};
use arrow::record_batch::RecordBatch;
use datafusion_common::ScalarValue;
use datafusion_expr::Accumulator;
use datafusion_physical_expr::aggregate::AggregateFunctionExpr;

use super::entry::Numbers;
use super::frames::frames;
use super::spec::{Frame, FrameUnit, OverCall, OverSpec, Share};
use super::stretch::Stretch;
use crate::group_table::{Accumulators, Aggregate, Inputs};
use crate::rank::RankFunction;
use crate::row_codec::RowCodec;
use crate::row_errors::evaluate::{Failed, evaluate};
use crate::row_errors::{Failure, reason, shortened};
use crate::{Error, Result};

/// Rows that are given to an accumulator at once.
const PAIRS_AT_ONCE: usize = 65_536;

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
    /// The values that are taken of other rows.
    shifted: Vec<ArrayRef>,
    /// The order as numbers, where a frame has a bound in it.
    pub order: Option<Int64Array>,
}

impl Calls {
    pub fn new(spec: OverSpec) -> Result<Self> {
        let (mut aggregates, mut running, mut types) = (Vec::new(), Vec::new(), Vec::new());
        for call in &spec.calls {
            let OverCall::Aggregate(aggregate, frame) = call else { continue };
            aggregates.push(aggregate.clone());
            if frame.is_running() {
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
        let shifted = self.spec.calls.iter().filter_map(|call| match call {
            OverCall::Shifted { value, .. } => Some(evaluate(value, rows)),
            OverCall::Aggregate(..) | OverCall::Number(_) | OverCall::Share(_) => None,
        });
        let order = match (self.spec.range_back(), self.spec.order.first()) {
            (Some(_), Some((expr, _))) => Some(whole_numbers(&evaluate(expr, rows)?)?),
            _ => None,
        };
        Ok(Evaluated {
            inputs: Inputs::evaluate(&[], &self.aggregates, rows)?,
            shifted: shifted.collect::<Result<_, _>>()?,
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
        let numbers = number(stretches);
        let (mut aggregate, mut shifted) = (0, 0);
        let mut columns = Vec::with_capacity(self.spec.calls.len());
        for (call, field) in
            self.spec.calls.iter().zip(self.spec.schema.fields().iter().skip(self.spec.input.fields().len()))
        {
            let column = match call {
                OverCall::Number(function) => numbers_of(*function, &numbers),
                OverCall::Share(share) => shares(*share, &numbers, stretches),
                OverCall::Shifted { by, default, .. } => {
                    shifted += 1;
                    shifted_by(&evaluated.shifted[shifted - 1], *by, default, stretches)?
                }
                OverCall::Aggregate(called, frame) => {
                    aggregate += 1;
                    match frame.is_running() {
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
            OverCall::Number(_) | OverCall::Share(_) | OverCall::Shifted { .. } => None,
        });
        let running = aggregates.enumerate().filter(|(_, frame)| frame.is_running());
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
        let groups = match frame.unit {
            FrameUnit::Rows => (stretch.new..stretch.rows.end).map(|row| row..row + 1).collect(),
            FrameUnit::Range => stretch.peer_groups(),
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
fn number(stretches: &mut [Stretch]) -> Vec<Numbers> {
    let mut all = Vec::new();
    for stretch in stretches {
        let mut numbers = stretch.numbers;
        for row in stretch.new..stretch.rows.end {
            let is_peer = match row == stretch.new {
                true => stretch.done.as_deref() == Some(stretch.peers(row)),
                false => stretch.peers(row - 1) == stretch.peers(row),
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
    all
}

fn numbers_of(function: RankFunction, numbers: &[Numbers]) -> ArrayRef {
    let of = |numbers: &Numbers| match function {
        RankFunction::RowNumber => numbers.row,
        RankFunction::Rank => numbers.rank,
        RankFunction::DenseRank => numbers.dense_rank,
    };
    Arc::new(Int64Array::from_iter_values(numbers.iter().map(|numbers| of(numbers) as i64)))
}

/// Where the new rows, which are all rows of their partitions, are in these.
fn shares(share: Share, numbers: &[Numbers], stretches: &[Stretch]) -> ArrayRef {
    let mut numbers = numbers.iter();
    let (mut parts, mut places): (Vec<f64>, Vec<i64>) = (Vec::new(), Vec::new());
    for stretch in stretches {
        let rows = (stretch.rows.end - stretch.new) as u64;
        for group in stretch.peer_groups() {
            let before = (group.end - stretch.new) as u64;
            for number in numbers.by_ref().take(group.len()) {
                match share {
                    Share::PercentRank => parts.push((number.rank - 1) as f64 / (rows - 1).max(1) as f64),
                    Share::CumeDist => parts.push(before as f64 / rows as f64),
                    Share::Ntile(count) => places.push(part(number.row - 1, rows, count) as i64),
                }
            }
        }
    }
    match share {
        Share::PercentRank | Share::CumeDist => Arc::new(Float64Array::from(parts)),
        Share::Ntile(_) => Arc::new(Int64Array::from(places)),
    }
}

/// Which of `count` parts of `rows` rows a row is in, from 1; the row from 0.
fn part(row: u64, rows: u64, count: u64) -> u64 {
    let (size, left_over) = (rows / count, rows % count);
    // The first parts are those with a row more.
    let in_larger = left_over * (size + 1);
    1 + if row < in_larger { row / (size + 1) } else { left_over + (row - in_larger) / size.max(1) }
}

/// The values of the rows that are so many behind the new ones.
fn shifted_by(values: &ArrayRef, by: i64, default: &ScalarValue, stretches: &[Stretch]) -> Result<ArrayRef> {
    let new = stretches.iter().flat_map(|stretch| (stretch.new..stretch.rows.end).map(move |row| (stretch, row)));
    let place = |(stretch, row): (&Stretch, usize)| {
        let place = usize::try_from((row as i64).checked_add(by)?).ok()?;
        stretch.rows.contains(&place).then_some(place as u32)
    };
    let places: UInt32Array = new.map(place).collect();
    let taken = take(values, &places, None)?;
    if default.is_null() || places.null_count() == 0 {
        return Ok(taken);
    }
    let is_there: BooleanArray = (0..places.len()).map(|row| Some(places.is_valid(row))).collect();
    Ok(arrow::compute::kernels::zip::zip(&is_there, &taken, &default.to_scalar()?)?)
}

/// An aggregate of frames. Equal frames that follow each other are computed once.
fn of_frames(
    aggregate: &Aggregate,
    (evaluated, index): (&Evaluated, usize),
    frames: &[Range<usize>],
    failures: &mut BTreeMap<usize, Failure>,
) -> Result<ArrayRef> {
    let mut distinct: Vec<Range<usize>> = Vec::new();
    // SUBTLE: accumulators of groups take it that each group has a row; what there is of no rows is put behind their results.
    let mut of: Vec<Option<usize>> = Vec::with_capacity(frames.len());
    for frame in frames {
        if !frame.is_empty() && distinct.last() != Some(frame) {
            distinct.push(frame.clone());
        }
        of.push((!frame.is_empty()).then(|| distinct.len() - 1));
    }
    let (mut results, failed) = match distinct.is_empty() {
        true => (Vec::new(), BTreeMap::new()),
        false => {
            of_distinct(aggregate, (evaluated, index), &distinct).map(|(results, failed)| (vec![results], failed))?
        }
    };
    for (row, frame) in of.iter().enumerate() {
        if let Some(failure) = frame.and_then(|frame| failed.get(&frame)) {
            failures.entry(row).or_insert_with(|| failure.clone());
        }
    }
    if distinct.len() == frames.len() {
        return results.pop().ok_or_else(|| Error::internal("an aggregate was asked for no frame"));
    }
    let of_nothing = aggregate.function.create_accumulator()?.evaluate()?.to_array()?;
    let of_nothing = match results.first() {
        Some(results) if results.data_type() != of_nothing.data_type() => cast(&of_nothing, results.data_type())?,
        _ => of_nothing,
    };
    results.push(of_nothing);
    let results = concat(&results.iter().map(ArrayRef::as_ref).collect::<Vec<&dyn Array>>())?;
    let places = of.into_iter().map(|frame| frame.unwrap_or(distinct.len()) as u32);
    Ok(take(&results, &UInt32Array::from_iter_values(places), None)?)
}

/// An aggregate of frames none of which is empty.
fn of_distinct(
    aggregate: &Aggregate,
    (evaluated, index): (&Evaluated, usize),
    frames: &[Range<usize>],
) -> Result<(ArrayRef, BTreeMap<usize, Failure>)> {
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
    let results = results.pop().ok_or_else(|| Error::internal("an aggregate of frames has no result"))?;
    Ok((results, failed.into_iter().collect()))
}
