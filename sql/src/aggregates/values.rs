//! `FIRST_VALUE` and `LAST_VALUE`: the first and the last value that is not null, in the order in which rows arrive.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion_common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion_common::{Result, internal_err, plan_err};
use datafusion_expr::function::{AccumulatorArgs, PartitionEvaluatorArgs, StateFieldsArgs, WindowUDFFieldArgs};
use datafusion_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Expr, LogicalPlan, PartitionEvaluator, Signature, Volatility,
    WindowFunctionDefinition, WindowUDF, WindowUDFImpl,
};
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

/// The function of a name in small letters, where it has an OVER clause: DataFusion asks for a window function by these names, and for no aggregate.
pub(crate) fn with_over(name: &str) -> Option<Arc<WindowUDF>> {
    let function = functions().into_iter().find(|function| function.name() == name)?;
    Some(Arc::new(WindowUDF::new_from_impl(ValueOver { function })))
}

/// Makes aggregates of such functions, as all others with OVER are.
pub(crate) fn into_aggregates(plan: LogicalPlan) -> Result<LogicalPlan> {
    let aggregate = |expr: Expr| match expr {
        Expr::WindowFunction(mut call) => {
            let WindowFunctionDefinition::WindowUDF(function) = &call.fun else {
                return Ok(Transformed::no(Expr::WindowFunction(call)));
            };
            let Some(value) = function.inner().downcast_ref::<ValueOver>() else {
                return Ok(Transformed::no(Expr::WindowFunction(call)));
            };
            call.fun = WindowFunctionDefinition::AggregateUDF(value.function.clone());
            Ok(Transformed::yes(Expr::WindowFunction(call)))
        }
        other => Ok(Transformed::no(other)),
    };
    let node = |node: LogicalPlan| node.map_expressions(|expr| expr.transform_up(aggregate));
    plan.transform_up_with_subqueries(node).data()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ValueOver {
    function: Arc<AggregateUDF>,
}

impl WindowUDFImpl for ValueOver {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn partition_evaluator(&self, _: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        internal_err!("{} is evaluated as an aggregate", self.name().to_uppercase())
    }

    fn field(&self, arguments: WindowUDFFieldArgs) -> Result<FieldRef> {
        match arguments.input_fields() {
            [field] => Ok(Arc::new(Field::new(arguments.name(), field.data_type().clone(), true))),
            _ => plan_err!("'{}' takes one argument", self.name().to_uppercase()),
        }
    }
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
