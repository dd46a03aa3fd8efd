//! Names of casts.
//!
//! An expression's name is what it is found by in a plan, and DataFusion leaves casts out of it: the aggregates `SUM(x)` and `SUM(CAST(x AS BIGINT))` have
//! one name, and so have the keys `x` and `CAST(x AS STRING)`. DataFusion refuses the one, and takes a condition on the first key for one on the second.
//!
//! So each cast in a SELECT with GROUP BY, and in VALUES, stands in a call of a function that gives back its argument and is called `cast as bigint`. The typing pass takes
//! the function off again, and the name stays.

use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::{Result, internal_err};
use datafusion_expr::expr::ScalarFunction;
use datafusion_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use sqlparser::ast::{
    self, CastKind, GroupByExpr, Ident, Query, Select, SetExpr, Spanned, VisitMut, VisitorMut, visit_expressions_mut,
};

use crate::functions::call_syntax::call_of;

/// How the names begin, in small letters as DataFusion looks for functions. No function of SQL has a blank in its name.
const PREFIXES: [&str; 2] = ["cast as ", "try_cast as "];

/// Names the casts of a query.
pub(crate) fn mark(query: &mut Query) {
    let _ = query.visit(&mut Marker);
}

struct Marker;

impl VisitorMut for Marker {
    type Break = ();

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        mark_body(&mut query.body);
        ControlFlow::Continue(())
    }
}

fn mark_body(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => mark_select(select),
        SetExpr::SetOperation { left, right, .. } => {
            mark_body(left);
            mark_body(right);
        }
        // Here a cast is told from those that DataFusion puts around values to give a column one type.
        SetExpr::Values(values) => values.rows.iter_mut().for_each(|row| mark_in(&mut row.content)),
        _ => {}
    }
}

fn mark_select(select: &mut Select) {
    if matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty()) {
        return;
    }
    // Keys, results and conditions are compared with each other, so all of them are marked.
    mark_in(&mut select.projection);
    mark_in(&mut select.group_by);
    mark_in(&mut select.having);
}

fn mark_in<T: VisitMut>(part: &mut T) {
    let _ = visit_expressions_mut(part, |expr| {
        let span = expr.span();
        if let ast::Expr::Cast { kind, data_type, .. } = expr {
            let prefix = PREFIXES[usize::from(*kind != CastKind::Cast)];
            let name = Ident::with_span(span, format!("{prefix}{data_type}").to_lowercase());
            *expr = call_of(name, vec![expr.clone()]);
        }
        ControlFlow::<()>::Continue(())
    });
}

/// The function of a name that [`mark`] gave.
pub(crate) fn function(name: &str) -> Option<Arc<ScalarUDF>> {
    let is_mark = PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    let signature = Signature::new(TypeSignature::Any(1), Volatility::Immutable);
    is_mark.then(|| Arc::new(ScalarUDF::new_from_impl(CastName { name: name.to_owned(), signature })))
}

/// The cast behind a name, if the call is one; otherwise the call.
pub(crate) fn unmarked(mut call: ScalarFunction) -> Result<Expr, ScalarFunction> {
    match call.func.inner().downcast_ref::<CastName>().is_some() && call.args.len() == 1 {
        true => Ok(call.args.remove(0)),
        false => Err(call),
    }
}

/// The same of a plan that is not typed yet.
pub(crate) fn cast_of(call: &ScalarFunction) -> Option<&Expr> {
    call.func.inner().downcast_ref::<CastName>().and_then(|_| call.args.first())
}

/// A function that gives back its argument.
#[derive(Debug, PartialEq, Eq, Hash)]
struct CastName {
    name: String,
    signature: Signature,
}

impl ScalarUDFImpl for CastName {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [data_type] => Ok(data_type.clone()),
            _ => internal_err!("'{}' has one argument", self.name),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.into_iter().next() {
            Some(value) => Ok(value),
            None => internal_err!("'{}' has one argument", self.name),
        }
    }
}
