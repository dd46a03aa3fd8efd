//! Which calls with OVER are of rows that come later: rows cannot leave in the order of their time then.

use datafusion_expr::expr::WindowFunction;
use datafusion_expr::{WindowFrameBound, WindowFunctionDefinition};

use crate::functions::lag_lead::{Shift, shift_of};
use crate::functions::share::share_of;

/// Whether rows behind the current one and its peers have a part in a call.
pub(crate) fn looks_ahead(call: &WindowFunction) -> bool {
    match call.fun {
        WindowFunctionDefinition::AggregateUDF(_) => {
            matches!(&call.params.window_frame.end_bound, WindowFrameBound::Following(_))
        }
        WindowFunctionDefinition::WindowUDF(_) => {
            share_of(&call.fun).is_some() || shift_of(&call.fun) == Some(Shift::Ahead)
        }
    }
}
