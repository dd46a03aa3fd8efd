//! What a lookup join is asked for.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use datafusion_physical_expr::PhysicalExpr;

use crate::connector::Source;
use crate::row_errors::expression_text;

/// The table of a lookup join, and what of it is looked up.
#[derive(Debug, Clone)]
pub struct LookupTable {
    /// Its name, for messages.
    pub name: String,
    /// Where its rows come from.
    pub source: Arc<dyn Source>,
    /// Which rows are left, over the source's columns.
    pub filter: Option<Arc<dyn PhysicalExpr>>,
    /// What is computed of them, over the source's columns; `None` for these as they are.
    pub projection: Option<Vec<Arc<dyn PhysicalExpr>>>,
    /// The columns after that.
    pub schema: SchemaRef,
    /// The columns of the source's primary key, by index, if its rows replace each other by it.
    pub primary_key: Vec<usize>,
    /// What a row is looked up by, over the columns of `schema`.
    pub keys: Vec<Arc<dyn PhysicalExpr>>,
    /// After how long a table that ends is read again; `None` is never. One that does not end is followed.
    pub reload: Option<Duration>,
}

/// A lookup join.
#[derive(Debug, Clone)]
pub struct LookupSpec {
    /// The table.
    pub table: LookupTable,
    /// What must equal the table's keys, over the input's columns; of the same number and types. A null equals nothing.
    pub keys: Vec<Arc<dyn PhysicalExpr>>,
    /// What must hold of a pair beside equal keys, over the input's columns and then the table's.
    pub condition: Option<Arc<dyn PhysicalExpr>>,
    /// Whether a row that finds nothing leaves with nulls for the table's columns.
    pub is_outer: bool,
    /// The result's columns: the input's, then the table's.
    pub schema: SchemaRef,
}

impl LookupSpec {
    fn kind(&self) -> &'static str {
        if self.is_outer { "left" } else { "inner" }
    }

    /// `inner rates on currency = code`, with the input's expressions as they are written there.
    pub(super) fn text(&self, input: impl Fn(&Arc<dyn PhysicalExpr>) -> String) -> String {
        let pairs = self.keys.iter().zip(&self.table.keys);
        let on: Vec<String> =
            pairs.map(|(left, right)| format!("{} = {}", input(left), expression_text(right))).collect();
        let mut text = format!("{} {} on {}", self.kind(), self.table.name, on.join(", "));
        if let Some(condition) = &self.condition {
            text += &format!(", where {}", expression_text(condition));
        }
        text
    }
}
