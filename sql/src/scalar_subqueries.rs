//! Names the column of each subquery that stands for a value.
//!
//! SUBTLE: a subquery becomes a table that is joined. Its column is named after what computes it, and where the query around it computes the same
//! (`HAVING AVG(x) > (SELECT AVG(x) FROM t)`), DataFusion could not tell the two apart.

use std::ops::ControlFlow;

use sqlparser::ast::{Expr, Ident, Query, SelectItem, SetExpr, VisitMut, VisitorMut};

/// Gives every unnamed column of such a subquery a name of its own.
pub(crate) fn name_values(query: &mut Query) {
    let _ = query.visit(&mut Values { named: 0 });
}

struct Values {
    named: usize,
}

impl VisitorMut for Values {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Subquery(query) = expr
            && let SetExpr::Select(select) = query.body.as_mut()
            && let [item] = select.projection.as_mut_slice()
            && let SelectItem::UnnamedExpr(value) = item
        {
            self.named += 1;
            let alias = Ident::new(format!("__value_{}", self.named));
            *item = SelectItem::ExprWithAlias { expr: value.clone(), alias };
        }
        ControlFlow::Continue(())
    }
}
