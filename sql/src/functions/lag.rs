//! `LAG(value [, rows [, default]])`: for the planner only, as the stream plan turns it into a column of an OVER aggregation.

use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef};
use datafusion_common::{Result, internal_err};
use datafusion_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion_expr::{
    PartitionEvaluator, Signature, TypeSignature, Volatility, WindowFunctionDefinition, WindowUDF, WindowUDFImpl,
};

pub(crate) const NAME: &str = "lag";

/// The function.
pub(crate) fn lag() -> Arc<WindowUDF> {
    let arguments = (1..=3).map(TypeSignature::Any).collect();
    Arc::new(WindowUDF::new_from_impl(Lag { signature: Signature::one_of(arguments, Volatility::Immutable) }))
}

/// Whether it is what an expression calls.
pub(crate) fn is_lag(function: &WindowFunctionDefinition) -> bool {
    matches!(function, WindowFunctionDefinition::WindowUDF(function) if function.inner().downcast_ref::<Lag>().is_some())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Lag {
    signature: Signature,
}

impl WindowUDFImpl for Lag {
    fn name(&self) -> &'static str {
        NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(&self, _: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        internal_err!("LAG is evaluated by an operator of its own")
    }

    fn field(&self, arguments: WindowUDFFieldArgs) -> Result<FieldRef> {
        let value = arguments.input_fields().first().map(|field| field.data_type().clone());
        let Some(data_type) = value else { return internal_err!("LAG was planned without a value") };
        Ok(Arc::new(Field::new(arguments.name(), data_type, true)))
    }
}
