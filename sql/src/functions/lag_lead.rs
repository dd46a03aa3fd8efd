//! `LAG(value [, rows [, default]])` and `LEAD`: for the planner only, as the stream plan turns them into columns of an OVER aggregation.

use std::sync::Arc;

use arrow::datatypes::{Field, FieldRef};
use datafusion_common::{Result, internal_err};
use datafusion_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion_expr::{
    PartitionEvaluator, Signature, TypeSignature, Volatility, WindowFunctionDefinition, WindowUDF, WindowUDFImpl,
};

/// In which direction the other row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Shift {
    /// `LAG`: before the row.
    Back,
    /// `LEAD`: behind it.
    Ahead,
}

impl Shift {
    /// As SQL names it.
    pub fn name(self) -> &'static str {
        match self {
            Shift::Back => "LAG",
            Shift::Ahead => "LEAD",
        }
    }
}

/// The function of a name in small letters.
pub(crate) fn shift(name: &str) -> Option<Arc<WindowUDF>> {
    let (name, shift) = match name {
        "lag" => ("lag", Shift::Back),
        "lead" => ("lead", Shift::Ahead),
        _ => return None,
    };
    let arguments = (1..=3).map(TypeSignature::Any).collect();
    let signature = Signature::one_of(arguments, Volatility::Immutable);
    Some(Arc::new(WindowUDF::new_from_impl(Shifted { name, shift, signature })))
}

/// Which of the functions an expression calls.
pub(crate) fn shift_of(function: &WindowFunctionDefinition) -> Option<Shift> {
    let WindowFunctionDefinition::WindowUDF(function) = function else { return None };
    function.inner().downcast_ref::<Shifted>().map(|shifted| shifted.shift)
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Shifted {
    name: &'static str,
    shift: Shift,
    signature: Signature,
}

impl WindowUDFImpl for Shifted {
    fn name(&self) -> &'static str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(&self, _: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        internal_err!("{} is evaluated by an operator of its own", self.shift.name())
    }

    fn field(&self, arguments: WindowUDFFieldArgs) -> Result<FieldRef> {
        let value = arguments.input_fields().first().map(|field| field.data_type().clone());
        let Some(data_type) = value else { return internal_err!("{} was planned without a value", self.shift.name()) };
        Ok(Arc::new(Field::new(arguments.name(), data_type, true)))
    }
}
