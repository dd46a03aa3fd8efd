//! Reads a table. A job reads each table once, see `scans`.

use std::sync::Arc;

use datafusion_expr::TableScan;

use super::{Building, ChangelogKind, Node, StreamPlan};
use crate::catalog::{ScanSource, Table};
use crate::error::{Fault, Result};
use crate::scans::source_of;
use crate::translate::NodeRows;

#[derive(Debug)]
pub(super) struct Scan {
    scan: TableScan,
    table: String,
    changes: ChangelogKind,
}

impl Scan {
    /// The node, and the table if it gives upserts.
    pub fn of(scan: &TableScan) -> Result<(Self, Option<Arc<Table>>)> {
        let Some(ScanSource(table)) = scan.source.downcast_ref::<ScanSource>() else {
            return Err(Fault::new(format!("'{}' cannot be read by a job", scan.table_name)));
        };
        if !scan.filters.is_empty() {
            return Err(Fault::new(format!("a filter went into the scan of '{}'", table.name())));
        }
        let changes = changes(scan, table)?;
        let upserting = (changes == ChangelogKind::Upsert).then(|| table.clone());
        Ok((Scan { scan: scan.clone(), table: table.name().to_owned(), changes }, upserting))
    }
}

impl Node for Scan {
    fn describe(&self, _: &[StreamPlan]) -> String {
        format!("Scan(table={})", self.table)
    }

    fn changes(&self, _: &[ChangelogKind]) -> ChangelogKind {
        self.changes
    }

    fn table(&self) -> Option<&str> {
        Some(&self.table)
    }

    fn build(&self, building: Building<'_, '_, '_>) -> Result<NodeRows> {
        building.to.scan(&self.scan)
    }
}

/// The changes that a table gives.
fn changes(scan: &TableScan, table: &Table) -> Result<ChangelogKind> {
    let source = source_of(scan, table)?;
    Ok(match (source.is_changelog(), source.is_upsert()) {
        (_, true) => ChangelogKind::Upsert,
        (true, false) => ChangelogKind::Retract,
        (false, false) => ChangelogKind::InsertOnly,
    })
}
