//! Rows of one partition in a local file, an Arrow IPC stream, until they become an object.
//!
//! **Guarantees** After `flush` and a sync of the file, its first `length` bytes are all rows so far: cutting the file there
//! and appending on gives a readable stream again. That is what a restored writer does.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use arrow::array::Array;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use coulee_model::Timestamp;
use coulee_runtime::{Error, Result};

use super::state::OpenFile;

/// Small batches wait in memory until they are so many rows: a message per row would triple the file.
const COALESCED_ROWS: usize = 8_192;

/// Counts what is written to a file, and can swallow it: a stream that goes on must not repeat its schema.
#[derive(Debug)]
struct Gate {
    file: Arc<File>,
    buffered: Vec<u8>,
    closed: bool,
    length: u64,
}

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if !self.closed {
            self.buffered.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.write_all(&self.buffered)?;
        self.length += self.buffered.len() as u64;
        self.buffered.clear();
        self.buffered.shrink_to(64 << 10);
        Ok(())
    }
}

/// A spool file and the rows that are not in it yet.
pub struct Buffer {
    partition: Arc<str>,
    file: String,
    stream: StreamWriter<Gate>,
    schema: SchemaRef,
    waiting: Vec<RecordBatch>,
    waiting_rows: usize,
    waiting_bytes: usize,
    rows: u64,
    opened_at: Timestamp,
    unsynced: bool,
}

impl Buffer {
    /// A new spool file `file` below `root`.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create(root: &Path, file: String, partition: Arc<str>, schema: SchemaRef, now: Timestamp) -> Result<Self> {
        let path = root.join(&file);
        let open = OpenOptions::new().write(true).create(true).truncate(true).open(&path);
        let open =
            open.map_err(|cause| Error::io(format!("cannot create the spool file {}", path.display()), cause))?;
        let gate = Gate { file: Arc::new(open), buffered: Vec::new(), closed: false, length: 0 };
        let stream = StreamWriter::try_new(gate, &schema)?;
        Ok(Buffer::with(stream, partition, file, schema, 0, now))
    }

    /// The spool file of a checkpoint, cut back to what it was then.
    ///
    /// # Errors
    /// `Corrupt` when the file is gone or shorter.
    pub fn resume(root: &Path, state: &OpenFile, schema: SchemaRef) -> Result<Self> {
        let path = root.join(&state.file);
        let place = path.display();
        let mut open = open_existing(&path, state.length)?;
        let refuse = |cause| Error::io(format!("cannot append to the spool file {place}"), cause);
        open.set_len(state.length).map_err(refuse)?;
        open.seek(SeekFrom::Start(state.length)).map_err(refuse)?;
        let gate = Gate { file: Arc::new(open), buffered: Vec::new(), closed: true, length: state.length };
        let mut stream = StreamWriter::try_new(gate, &schema)?;
        stream.get_mut().closed = false;
        let opened_at = Timestamp(state.opened_at);
        Ok(Buffer::with(stream, state.partition.as_str().into(), state.file.clone(), schema, state.rows, opened_at))
    }

    fn with(
        stream: StreamWriter<Gate>,
        partition: Arc<str>,
        file: String,
        schema: SchemaRef,
        rows: u64,
        opened_at: Timestamp,
    ) -> Self {
        // The length of a restored file was changed: that must be synced as well.
        let (waiting_rows, waiting_bytes) = (0, 0);
        Buffer {
            partition,
            file,
            stream,
            schema,
            waiting: Vec::new(),
            waiting_rows,
            waiting_bytes,
            rows,
            opened_at,
            unsynced: true,
        }
    }

    /// Adds rows. They are in the file after [`flush`](Self::flush).
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn append(&mut self, rows: RecordBatch) -> Result<()> {
        self.rows += rows.num_rows() as u64;
        self.waiting_rows += rows.num_rows();
        self.waiting_bytes +=
            rows.columns().iter().map(|c| c.to_data().get_slice_memory_size().unwrap_or(0)).sum::<usize>();
        self.waiting.push(rows);
        if self.waiting_rows >= COALESCED_ROWS { self.flush() } else { Ok(()) }
    }

    /// Writes all rows to the file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn flush(&mut self) -> Result<()> {
        if self.waiting.is_empty() && self.stream.get_ref().buffered.is_empty() {
            return Ok(());
        }
        match self.waiting.as_slice() {
            [] => {}
            [one] => self.stream.write(one)?,
            several => self.stream.write(&concat_batches(&self.schema, several)?)?,
        }
        self.waiting.clear();
        (self.waiting_rows, self.waiting_bytes) = (0, 0);
        self.unsynced = true;
        let file = &self.file;
        self.stream.get_mut().flush().map_err(|cause| Error::io(format!("cannot write the spool file {file}"), cause))
    }

    /// The file, if it has changed since the last call: to be synced by the caller.
    pub fn take_unsynced(&mut self) -> Option<Arc<File>> {
        std::mem::take(&mut self.unsynced).then(|| self.stream.get_ref().file.clone())
    }

    /// The partition's path.
    pub fn partition(&self) -> &Arc<str> {
        &self.partition
    }

    /// When the first row came.
    pub fn opened_at(&self) -> Timestamp {
        self.opened_at
    }

    /// How many rows, those not in the file included.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes of rows that are not in the file.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Bytes of all rows, roughly.
    pub fn bytes(&self) -> u64 {
        self.stream.get_ref().length + self.waiting_bytes as u64
    }

    /// What a checkpoint keeps of it. Only after [`flush`](Self::flush).
    pub fn state(&self, sealed: bool) -> OpenFile {
        assert!(self.waiting.is_empty(), "a state holds only what is in the file");
        OpenFile {
            partition: self.partition.to_string(),
            file: self.file.clone(),
            length: self.stream.get_ref().length,
            rows: self.rows,
            opened_at: self.opened_at.0,
            sealed,
        }
    }
}

/// Opens a spool file that a checkpoint refers to.
///
/// # Errors
/// `Corrupt` when it is gone or shorter than `length`.
fn open_existing(path: &Path, length: u64) -> Result<File> {
    let place = path.display().to_string();
    let open = OpenOptions::new().write(true).open(path).map_err(|cause| match cause.kind() {
        std::io::ErrorKind::NotFound => Error::corrupt(format!(
            "the spool file {place} is gone, but the last checkpoint has rows in it: restore the folder, or start the job anew"
        ))
        .because(cause),
        _ => Error::io(format!("cannot open the spool file {place}"), cause),
    })?;
    let found = open.metadata().map_err(|cause| Error::io(&place, cause))?.len();
    if found < length {
        return Err(Error::corrupt(format!("the spool file {place} has {found} bytes, expected {length} or more")));
    }
    Ok(open)
}
