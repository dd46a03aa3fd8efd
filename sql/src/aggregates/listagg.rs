//! `LISTAGG(text [, separator])`: the texts in the order in which rows arrive, `,` between them; null when there is none.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{Result, ScalarValue, plan_err};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use datafusion_physical_expr::expressions::Literal;

use super::distinct::{DistinctAccumulator, distinct_state};
use crate::types::type_name;

#[derive(Debug, PartialEq, Eq, Hash)]
struct ListAgg {
    signature: Signature,
}

pub(super) fn function() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::new_from_impl(ListAgg { signature: Signature::user_defined(Volatility::Immutable) }))
}

impl AggregateUDFImpl for ListAgg {
    fn name(&self) -> &'static str {
        "listagg"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match types {
            [DataType::Utf8] | [DataType::Utf8, DataType::Utf8] => Ok(types.to_vec()),
            [other, ..] if *other != DataType::Utf8 => {
                plan_err!("'LISTAGG' takes text, not {}\nCAST it to STRING", type_name(other))
            }
            _ => plan_err!("write LISTAGG(text, ';')"),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let separator = match args.exprs.get(1).map(|expr| expr.downcast_ref::<Literal>()) {
            None => ",".to_owned(),
            Some(literal) => match literal.map(Literal::value) {
                Some(ScalarValue::Utf8(Some(separator))) => separator.clone(),
                _ => return plan_err!("the separator of 'LISTAGG' is a text, not a column"),
            },
        };
        let of_all = Box::new(Joined { separator, text: None });
        match args.is_distinct {
            true => Ok(Box::new(DistinctAccumulator::new(of_all, &DataType::Utf8))),
            false => Ok(of_all),
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![match args.is_distinct {
            true => distinct_state(args.name, &DataType::Utf8),
            false => Arc::new(Field::new(format!("{}[text]", args.name), DataType::Utf8, true)),
        }])
    }
}

/// The texts so far.
#[derive(Debug)]
struct Joined {
    separator: String,
    text: Option<String>,
}

impl Joined {
    fn add(&mut self, texts: &ArrayRef) {
        for more in texts.as_string::<i32>().iter().flatten() {
            match &mut self.text {
                Some(text) => {
                    text.push_str(&self.separator);
                    text.push_str(more);
                }
                None => self.text = Some(more.to_owned()),
            }
        }
    }
}

impl Accumulator for Joined {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(&values[0]);
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Utf8(self.text.clone()))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.separator.capacity() + self.text.as_ref().map_or(0, String::capacity)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Utf8(self.text.clone())])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.add(&states[0]);
        Ok(())
    }
}
