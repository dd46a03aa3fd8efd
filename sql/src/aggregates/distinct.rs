//! An aggregate over distinct values: keeps the values in the order in which they came, and aggregates them when it is asked.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{Result, ScalarValue};
use datafusion_expr::Accumulator;

/// The one field of the state: a list of the values.
pub(super) fn distinct_state(name: &str, input: &DataType) -> FieldRef {
    let item = Arc::new(Field::new_list_field(input.clone(), true));
    Arc::new(Field::new(format!("{name}[distinct]"), DataType::List(item), true))
}

/// Gives each value to another accumulator once. Null is no value.
#[derive(Debug)]
pub(super) struct DistinctAccumulator {
    of_all: Box<dyn Accumulator>,
    input: DataType,
    seen: HashSet<ScalarValue>,
    values: Vec<ScalarValue>,
    /// How many of the values the other accumulator has.
    given: usize,
}

impl DistinctAccumulator {
    pub fn new(of_all: Box<dyn Accumulator>, input: &DataType) -> Self {
        DistinctAccumulator { of_all, input: input.clone(), seen: HashSet::new(), values: Vec::new(), given: 0 }
    }

    fn add(&mut self, values: &ArrayRef) -> Result<()> {
        for row in (0..values.len()).filter(|row| values.is_valid(*row)) {
            let value = ScalarValue::try_from_array(values, row)?;
            if self.seen.insert(value.clone()) {
                self.values.push(value);
            }
        }
        Ok(())
    }
}

impl Accumulator for DistinctAccumulator {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(&values[0])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        if self.given < self.values.len() {
            let new = ScalarValue::iter_to_array(self.values[self.given..].iter().cloned())?;
            self.of_all.update_batch(&[new])?;
            self.given = self.values.len();
        }
        self.of_all.evaluate()
    }

    fn size(&self) -> usize {
        let values: usize = self.values.iter().map(ScalarValue::size).sum();
        size_of::<Self>() + 2 * values + self.of_all.size()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::List(ScalarValue::new_list_nullable(&self.values, &self.input))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for values in states[0].as_list::<i32>().iter().flatten() {
            self.add(&values)?;
        }
        Ok(())
    }
}
