//! The threads that jobs run on, apart from those that answer clients.
//!
//! A job's operators and sources read the disk where they are: a miss in RocksDB, a fetch from the log. Each of these may take as long as the disk does, and
//! handing every one of them to another thread would cost more than most of them take. So the tasks of all jobs share a runtime of their own, and a disk that
//! is slow keeps jobs waiting, not a client that asks for the state of one or appends records.

use tokio::runtime::{Builder, Handle, Runtime};

use crate::{Error, Result};

/// One thread per processor, and never just one: a job whose task waits for the disk must not keep its coordinator waiting as well.
const THREADS_MIN: usize = 2;
/// Plans are trees that are walked recursively, when an expression is evaluated as when it is planned.
const STACK_BYTES: usize = 8 << 20;

/// A runtime that ends with its owner; what still runs on it by then is given up.
#[derive(Debug)]
pub(crate) struct JobThreads(Option<Runtime>);

impl JobThreads {
    /// # Errors
    /// [`Error::Internal`] when the system has no thread to spare.
    pub(crate) fn start() -> Result<Self> {
        let processors = std::thread::available_parallelism().map_or(THREADS_MIN, |count| count.get());
        let runtime = Builder::new_multi_thread()
            .worker_threads(processors.max(THREADS_MIN))
            .thread_name("coulee-job")
            .thread_stack_size(STACK_BYTES)
            .enable_all()
            .build()
            .map_err(|error| Error::Internal(format!("cannot start threads for jobs: {error}")))?;
        Ok(JobThreads(Some(runtime)))
    }

    /// Where to spawn.
    pub(crate) fn handle(&self) -> Handle {
        self.0.as_ref().expect("it is there until it is dropped").handle().clone()
    }
}

impl Drop for JobThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // An engine may be dropped by an asynchronous task, which must not wait for threads.
            runtime.shutdown_background();
        }
    }
}
