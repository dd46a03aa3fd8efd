//! What the writers of a sink and its committer share.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use arrow::datatypes::SchemaRef;
use coulee_model::CheckpointId;
use coulee_runtime::Result;
use tokio::sync::watch;

use super::location::Location;
use super::partition::Router;
use super::settings::SinkSettings;

/// The numbers of the next files.
#[derive(Debug, Clone, Copy, Default)]
pub struct Numbers {
    /// Of spool files.
    pub open: u64,
    /// Of objects.
    pub part: u64,
}

/// What all writers of a sink share.
#[derive(Debug)]
pub struct SinkPlan {
    /// Where objects become visible.
    pub target: Location,
    /// The same as the table says it.
    pub path: String,
    /// The rolling policy and the form.
    pub settings: Arc<SinkSettings>,
    /// The table's columns, and which of them are in the files and which in the path.
    pub table: SchemaRef,
    /// Indexes of the columns in the files.
    pub files: Vec<usize>,
    /// Indexes of the columns in the path.
    pub partitions: Vec<usize>,
    /// The columns in the files.
    pub schema: SchemaRef,
    /// The last checkpoint of the attempt that was committed.
    pub committed: watch::Sender<CheckpointId>,
    /// Whether somebody was told of the many partitions.
    pub has_warned: AtomicBool,
}

impl SinkPlan {
    /// A router of rows into partitions.
    ///
    /// # Errors
    /// `Invalid` when a partition column's type cannot be compared.
    pub fn router(&self) -> Result<Router> {
        Router::new(&self.table, &self.files, &self.partitions, self.schema.clone())
    }
}
