//! Work that blocks, off the threads that serve clients and run tasks.

use crate::{Error, Result};

/// Runs what blocks beside the asynchronous tasks.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(Error::Internal(format!("a task was torn down: {error}"))),
    }
}
