//! `FIRST_VALUE` and `LAST_VALUE`: the first and the last value that is not null, in the order in which rows arrive.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion_common::{Result, plan_err};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::{Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility};
use datafusion_functions_aggregate::first_last::{first_value_udaf, last_value_udaf};

/// One of the two. DataFusion's functions take nulls for values unless they are told not to.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Value {
    of_all: Arc<AggregateUDF>,
    signature: Signature,
}

pub(super) fn functions() -> Vec<Arc<AggregateUDF>> {
    let function = |of_all| {
        Arc::new(AggregateUDF::new_from_impl(Value { of_all, signature: Signature::any(1, Volatility::Immutable) }))
    };
    vec![function(first_value_udaf()), function(last_value_udaf())]
}

impl AggregateUDFImpl for Value {
    fn name(&self) -> &str {
        self.of_all.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [data_type] => Ok(data_type.clone()),
            _ => plan_err!("'{}' takes one argument", self.name().to_uppercase()),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        self.of_all.accumulator(AccumulatorArgs { ignore_nulls: true, ..args })
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.of_all.state_fields(args)
    }
}
