//! Reads a table. A job reads each table once, see `scans`.

use datafusion_expr::TableScan;

use super::{Building, ChangelogKind, Node, StreamPlan};
use crate::catalog::ScanSource;
use crate::error::{Fault, Result};
use crate::scans::is_changelog;
use crate::translate::NodeRows;

#[derive(Debug)]
pub(super) struct Scan {
    scan: TableScan,
    table: String,
    changes: ChangelogKind,
}

impl Scan {
    pub fn of(scan: &TableScan) -> Result<Self> {
        let Some(ScanSource(table)) = scan.source.downcast_ref::<ScanSource>() else {
            return Err(Fault::new(format!("'{}' cannot be read by a job", scan.table_name)));
        };
        if !scan.filters.is_empty() {
            return Err(Fault::new(format!("a filter went into the scan of '{}'", table.name())));
        }
        let changes = match is_changelog(scan, table)? {
            true => ChangelogKind::Retract,
            false => ChangelogKind::InsertOnly,
        };
        Ok(Scan { scan: scan.clone(), table: table.name().to_owned(), changes })
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
