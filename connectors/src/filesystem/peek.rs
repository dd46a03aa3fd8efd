//! The beginnings of pipes, read before the job that reads the pipes: so much is needed to infer the columns. The reader of a pipe gets
//! them back first.

use std::collections::HashMap;
use std::fs::File;
use std::io::{ErrorKind as Io, Read};
use std::os::unix::fs::FileTypeExt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::unix::pipe::Receiver;
use tokio::runtime::Runtime;

/// How much is read ahead at most.
const AHEAD_BYTES: usize = 1 << 20;

/// A writer that has given a line and then nothing for so long is not waited for.
const QUIET: Duration = Duration::from_millis(300);

/// What was read ahead of pipes, by their paths, until somebody reads them.
#[derive(Debug, Clone, Default)]
pub struct Peeked(Arc<Mutex<HashMap<String, Ahead>>>);

/// The beginning of a pipe.
#[derive(Debug)]
pub struct Ahead {
    /// The first bytes.
    pub bytes: Vec<u8>,
    /// Whether nothing follows.
    pub whole: bool,
    /// SUBTLE: a FIFO without a reader fails its writer; it stays open until it is opened again.
    _open: Option<File>,
}

impl Peeked {
    /// The first bytes of the pipe at `path`, and whether they are all. Waits for the first line of them.
    ///
    /// # Errors
    /// When the pipe cannot be read.
    pub fn look(&self, path: &str, runtime: &Runtime) -> std::io::Result<(Vec<u8>, bool)> {
        let mut all = self.0.lock();
        if let Some(ahead) = all.get(path) {
            return Ok((ahead.bytes.clone(), ahead.whole));
        }
        let ahead = read_ahead(path, runtime)?;
        let seen = (ahead.bytes.clone(), ahead.whole);
        all.insert(path.to_owned(), ahead);
        Ok(seen)
    }

    /// What was read ahead of the pipe, for its reader; to be dropped when the pipe is open again.
    pub fn take(&self, path: &str) -> Option<Ahead> {
        self.0.lock().remove(path)
    }
}

fn read_ahead(path: &str, runtime: &Runtime) -> std::io::Result<Ahead> {
    let mut file = File::open(path)?;
    let mut bytes = Vec::new();
    if !file.metadata()?.file_type().is_fifo() {
        // A terminal gives a line.
        bytes.resize(AHEAD_BYTES, 0);
        let length = file.read(&mut bytes)?;
        bytes.truncate(length);
        return Ok(Ahead { bytes, whole: length == 0, _open: None });
    }
    let open = file.try_clone()?;
    let _entered = runtime.enter();
    let pipe = Receiver::from_file(file)?;
    let whole = runtime.block_on(async {
        let mut buffer = vec![0; 64 << 10];
        while bytes.len() < AHEAD_BYTES {
            let ready = pipe.readable();
            if bytes.contains(&b'\n') {
                match tokio::time::timeout(QUIET, ready).await {
                    Ok(ready) => ready?,
                    Err(_) => return Ok(false),
                }
            } else {
                ready.await?;
            }
            match pipe.try_read(&mut buffer) {
                Ok(0) => return Ok(true),
                Ok(length) => bytes.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == Io::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    })?;
    Ok(Ahead { bytes, whole, _open: Some(open) })
}
