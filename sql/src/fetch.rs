//! `FETCH FIRST n ROWS ONLY`, which DataFusion does not plan, as the `LIMIT n` that it is.

use std::ops::ControlFlow;

use sqlparser::ast::{Expr, Fetch, LimitClause, Query, Value, VisitMut, VisitorMut};

use crate::error::{Fault, Result};

/// Puts a `LIMIT` in the place of every `FETCH` of a query and of those within it.
///
/// # Errors
/// A share of the rows (`PERCENT`) or `WITH TIES`, and a `FETCH` beside a `LIMIT`.
pub(crate) fn spell_fetches(query: &mut Query) -> Result<()> {
    match query.visit(&mut Fetches) {
        ControlFlow::Break(fault) => Err(*fault),
        ControlFlow::Continue(()) => Ok(()),
    }
}

struct Fetches;

impl VisitorMut for Fetches {
    type Break = Box<Fault>;

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<Box<Fault>> {
        let Some(Fetch { with_ties, percent, quantity }) = query.fetch.take() else { return ControlFlow::Continue(()) };
        if with_ties || percent {
            let fault = Fault::new("FETCH takes a number of rows: PERCENT and WITH TIES come in a later version");
            return ControlFlow::Break(Box::new(fault.or_clause(&["FETCH"]).help("write FETCH FIRST 10 ROWS ONLY")));
        }
        let limit = Some(quantity.unwrap_or_else(|| Expr::value(Value::Number("1".to_owned(), false))));
        query.limit_clause = Some(match query.limit_clause.take() {
            None => LimitClause::LimitOffset { limit, offset: None, limit_by: Vec::new() },
            Some(LimitClause::LimitOffset { limit: None, offset, limit_by }) => {
                LimitClause::LimitOffset { limit, offset, limit_by }
            }
            Some(_) => {
                let fault = Fault::new("the query has a LIMIT and a FETCH").or_clause(&["FETCH"]);
                return ControlFlow::Break(Box::new(fault.help("leave one of them out")));
            }
        });
        ControlFlow::Continue(())
    }
}
