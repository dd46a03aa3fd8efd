//! `PERCENT_RANK()`, `CUME_DIST()` and `NTILE(parts)`: for the planner only, as the stream plan turns them into columns of an OVER aggregation.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::{Result, internal_err};
use datafusion_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion_expr::{PartitionEvaluator, Signature, Volatility, WindowFunctionDefinition, WindowUDF, WindowUDFImpl};

/// What is said of where a row is in its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ShareFunction {
    PercentRank,
    CumeDist,
    Ntile,
}

/// The function of a name in small letters.
pub(crate) fn share(name: &str) -> Option<Arc<WindowUDF>> {
    let (name, function, arguments) = match name {
        "percent_rank" => ("percent_rank", ShareFunction::PercentRank, 0),
        "cume_dist" => ("cume_dist", ShareFunction::CumeDist, 0),
        "ntile" => ("ntile", ShareFunction::Ntile, 1),
        _ => return None,
    };
    let signature = match arguments {
        0 => Signature::nullary(Volatility::Immutable),
        count => Signature::any(count, Volatility::Immutable),
    };
    Some(Arc::new(WindowUDF::new_from_impl(Share { name, function, signature })))
}

/// Which of the functions an expression calls.
pub(crate) fn share_of(function: &WindowFunctionDefinition) -> Option<ShareFunction> {
    let WindowFunctionDefinition::WindowUDF(function) = function else { return None };
    function.inner().downcast_ref::<Share>().map(|share| share.function)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Share {
    name: &'static str,
    function: ShareFunction,
    signature: Signature,
}

impl WindowUDFImpl for Share {
    fn name(&self) -> &'static str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(&self, _: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        internal_err!("{} is evaluated by an operator of its own", self.name.to_uppercase())
    }

    fn field(&self, arguments: WindowUDFFieldArgs) -> Result<FieldRef> {
        let data_type = match self.function {
            ShareFunction::PercentRank | ShareFunction::CumeDist => DataType::Float64,
            ShareFunction::Ntile => DataType::Int64,
        };
        Ok(Arc::new(Field::new(arguments.name(), data_type, true)))
    }
}
