//! Arrays and maps as rows: `CROSS JOIN UNNEST(t.items)`.
//!
//! A row leaves once for each element of its collection, with the element's columns behind its own. It keeps its kind and its origin. Nothing is stored.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int32Array, StructArray, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::record_batch::RecordBatch;
use coulee_model::SubtaskIndex;
use datafusion_physical_expr::PhysicalExpr;

use crate::batch::BATCH_ROWS;
use crate::graph::{Lineage, OperatorFactory};
use crate::operator::{InputIndex, Operator, Output};
use crate::row_errors::evaluate::{evaluate, in_pieces};
use crate::state::OperatorState;
use crate::{Batch, Error, Result};

/// Which collection becomes rows.
#[derive(Debug, Clone)]
pub struct UnnestSpec {
    /// An array or a map, over the input.
    pub collection: Arc<dyn PhysicalExpr>,
    /// Whether a row whose collection is empty or null leaves once, with nulls for the element.
    pub is_outer: bool,
    /// Whether the last column is the element's place, from 1, an Int32.
    pub has_ordinality: bool,
    /// The input's columns; the element (its fields, if it is a row; key and value, of a map); and its place, if that is wanted.
    pub schema: SchemaRef,
}

impl UnnestSpec {
    fn text(&self, collection: &str) -> String {
        let outer = if self.is_outer { " or null" } else { "" };
        let ordinality = if self.has_ordinality { " with ordinality" } else { "" };
        format!("UNNEST({collection}){ordinality}{outer}")
    }
}

/// The operator.
pub fn unnest(spec: UnnestSpec) -> Arc<dyn OperatorFactory> {
    Arc::new(UnnestFactory(spec))
}

#[derive(Debug)]
struct UnnestFactory(UnnestSpec);

impl OperatorFactory for UnnestFactory {
    fn describe(&self) -> String {
        format!("Correlate: {}", self.0.text(&crate::row_errors::expression_text(&self.0.collection)))
    }

    fn schema(&self) -> SchemaRef {
        self.0.schema.clone()
    }

    fn refuses_changelog(&self, _: InputIndex) -> Option<&'static str> {
        None
    }

    fn state(&self, _: &[Lineage]) -> Option<OperatorState> {
        None
    }

    fn lineage(&self, inputs: &[Lineage]) -> Lineage {
        let Some(input) = inputs.first() else { return Lineage::named("nothing", self.schema()) };
        let call = self.0.text(&input.text(&self.0.collection));
        let own = input.schema().fields().len();
        let elements: Vec<String> =
            self.0.schema.fields().iter().skip(own).enumerate().map(|(index, _)| format!("{call}.{index}")).collect();
        input.with_columns(format!("[{call} OF {}]", input.rows()), elements, self.schema())
    }

    fn may_reject(&self) -> bool {
        true
    }

    fn create(&self, _: SubtaskIndex) -> Result<Box<dyn Operator>> {
        Ok(Box::new(Unnest(self.0.clone())))
    }
}

struct Unnest(UnnestSpec);

/// The elements of the collections of many rows.
struct Elements {
    /// Where those of each row begin; one more than there are rows.
    offsets: Vec<usize>,
    /// Whether a row has a collection.
    is_there: Vec<bool>,
    /// The columns of all elements.
    columns: Vec<ArrayRef>,
}

impl Elements {
    fn of(collections: &ArrayRef) -> Result<Self> {
        let (offsets, columns) = match collections.data_type() {
            DataType::List(_) => {
                let list = collections.as_list::<i32>();
                (list.value_offsets().to_vec(), columns_of(list.values())?)
            }
            DataType::Map(..) => {
                let map = collections.as_map();
                (map.value_offsets().to_vec(), map.entries().columns().to_vec())
            }
            other => return Err(Error::invalid(format!("UNNEST takes an array or a map, not {other}"))),
        };
        let is_there = (0..collections.len()).map(|row| collections.is_valid(row)).collect();
        Ok(Elements { offsets: offsets.into_iter().map(|offset| offset as usize).collect(), is_there, columns })
    }

    /// The elements of a row.
    fn range(&self, row: usize) -> std::ops::Range<usize> {
        // What lies between the offsets of a null is no element.
        if self.is_there[row] { self.offsets[row]..self.offsets[row + 1] } else { 0..0 }
    }
}

/// The columns of elements: the fields of rows, of which those of a null are null; else the elements themselves.
fn columns_of(elements: &ArrayRef) -> Result<Vec<ArrayRef>> {
    let Some(rows) = elements.as_any().downcast_ref::<StructArray>() else { return Ok(vec![elements.clone()]) };
    let Some(nulls) = rows.nulls() else { return Ok(rows.columns().to_vec()) };
    let is_null = BooleanArray::new(!nulls.inner(), None);
    rows.columns().iter().map(|column| Ok(arrow::compute::nullif(column, &is_null)?)).collect()
}

/// Rows that leave: which row of the input each is, and which element it has.
#[derive(Default)]
struct Places {
    rows: Vec<u32>,
    elements: Vec<Option<u32>>,
    ordinals: Vec<Option<i32>>,
}

impl Places {
    fn push(&mut self, row: usize, element: Option<(usize, usize)>) {
        self.rows.push(row as u32);
        self.elements.push(element.map(|(element, _)| element as u32));
        self.ordinals.push(element.map(|(_, place)| place as i32));
    }
}

impl Unnest {
    fn emit(&self, batch: &Batch, collections: &ArrayRef, out: &mut Output) -> Result<()> {
        let elements = Elements::of(collections)?;
        let mut places = Places::default();
        for row in 0..batch.len() {
            let range = elements.range(row);
            if range.is_empty() && self.0.is_outer {
                places.push(row, None);
            }
            for (index, element) in range.enumerate() {
                places.push(row, Some((element, index + 1)));
                if places.rows.len() == BATCH_ROWS {
                    out.emit(self.copies(batch, &elements, std::mem::take(&mut places))?);
                }
            }
        }
        if !places.rows.is_empty() {
            out.emit(self.copies(batch, &elements, places)?);
        }
        Ok(())
    }

    fn copies(&self, batch: &Batch, elements: &Elements, places: Places) -> Result<Batch> {
        let rows = UInt32Array::from(places.rows);
        let copies = batch.select(|column| Ok(take(column, &rows, None)?))?;
        let mut columns = copies.rows().columns().to_vec();
        let picked = UInt32Array::from(places.elements);
        for column in &elements.columns {
            columns.push(take(column, &picked, None)?);
        }
        if self.0.has_ordinality {
            columns.push(Arc::new(Int32Array::from(places.ordinals)));
        }
        Ok(copies.with_rows(RecordBatch::try_new(self.0.schema.clone(), columns)?))
    }
}

impl Operator for Unnest {
    fn process(&mut self, _: InputIndex, batch: Batch, out: &mut Output) -> Result<()> {
        let (pieces, rejected) = in_pieces(&batch, |piece| Ok((evaluate(&self.0.collection, piece.rows())?, piece)))?;
        if let Some(rejected) = rejected {
            out.reject(rejected);
        }
        for (collections, piece) in pieces {
            self.emit(&piece, &collections, out)?;
        }
        Ok(())
    }
}
