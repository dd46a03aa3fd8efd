//! Marks: functions that give back their argument, by which one pass of the planner tells a later one what an expression is.
//!
//! The optimizer may move a marked expression, and write what is in the mark in other words; the mark stays around it.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::{Result, internal_err};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::{ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

/// Which mark: a name with a blank, as no function of SQL has one.
pub(super) type Name = &'static str;

/// An expression with a mark around it. One that is volatile stays in the node where it is.
pub(super) fn marked(expr: Expr, name: Name, volatility: Volatility) -> Expr {
    let mark = Arc::new(ScalarUDF::new_from_impl(Mark { name, signature: Signature::any(1, volatility) }));
    Expr::ScalarFunction(ScalarFunction::new_udf(mark, vec![expr]))
}

/// What is in a mark, if an expression is one.
pub(super) fn content(expr: &Expr, name: Name) -> Option<&Expr> {
    let Expr::ScalarFunction(call) = expr else { return None };
    let mark = call.func.inner().downcast_ref::<Mark>()?;
    call.args.first().filter(|_| mark.name == name)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Mark {
    name: Name,
    signature: Signature,
}

impl ScalarUDFImpl for Mark {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Null))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.into_iter().next() {
            Some(value) => Ok(value),
            None => internal_err!("the mark '{}' has one argument", self.name),
        }
    }
}
