//! The least that a program needs to run a graph: a folder for the job's state and spools, and a name.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use coulee_checkpoint::{JobStore, StoreSettings};
use coulee_model::{JobName, SystemClock};
use coulee_runtime::graph::Graph;
use coulee_runtime::job::{Environment, JobHandle, JobSettings, JobSpec, launch};
use coulee_runtime::{Error, Result};

/// Starts a job, or goes on with it from its last checkpoint in `folder`. To be called within a tokio runtime.
///
/// # Errors
/// `Invalid` when the name cannot be one or the graph does not fit the stored state; else when the folder cannot be used.
pub fn start(name: &str, graph: Graph, folder: &Path, checkpoint_interval: Duration) -> Result<JobHandle> {
    let store = JobStore::open(&folder.join("state"), &StoreSettings::default())?;
    let environment = Environment {
        store: Arc::new(store),
        spool: folder.join("spool"),
        scratch: folder.join("scratch"),
        clock: Arc::new(SystemClock),
        snapshots: None,
    };
    let spec = JobSpec {
        name: JobName::new(name).map_err(|error| Error::invalid(error.to_string()))?,
        // Part of the names of what sinks write. A server makes a random one for each job.
        incarnation: "0123456789ab".to_owned(),
        graph,
        settings: JobSettings { checkpoint_interval, ..JobSettings::default() },
    };
    launch(spec, environment)
}
