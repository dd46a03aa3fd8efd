//! Where a snapshot's work on files is done: it waits for a disk, and nothing else may wait behind it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use tokio::sync::oneshot;

use crate::{Error, Result};

/// Runs work that keeps its thread waiting.
pub trait Blocking: Send + Sync + fmt::Debug {
    /// Runs it to its end, beside the caller.
    fn block(&self, work: Box<dyn FnOnce() + Send>);
}

/// The threads of the current tokio runtime that are there for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Threads;

impl Blocking for Threads {
    fn block(&self, work: Box<dyn FnOnce() + Send>) {
        tokio::task::spawn_blocking(work);
    }
}

/// Runs work on the file or folder `path`, and waits for its result. A panic of the work is passed on.
///
/// # Errors
/// What the work says, and [`Error::File`] when what it runs on is torn down.
pub(super) async fn run<T: Send + 'static>(
    on: &dyn Blocking,
    path: &Path,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T> {
    let (answer, answered) = oneshot::channel();
    on.block(Box::new(move || {
        // Nobody may be waiting for it any more.
        let _ = answer.send(catch_unwind(AssertUnwindSafe(work)));
    }));
    let result = match answered.await {
        Ok(Ok(result)) => result,
        Ok(Err(panic)) => resume_unwind(panic),
        Err(_) => Err(std::io::Error::other("the threads that work on files were torn down")),
    };
    result.map_err(|source| Error::File { path: path.to_owned(), source })
}
