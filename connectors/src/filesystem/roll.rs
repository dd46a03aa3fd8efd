//! Makes a spool file into the file that is delivered: Parquet, or lines. Blocking, and bounded in memory by a row group.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::record_batch::RecordBatch;
use coulee_runtime::{Batch, Error, Result};
use parquet::arrow::ArrowWriter;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::settings::{FileFormat, SinkSettings};
use crate::format::encoder;

/// A row group ends at so many rows, or when it takes so much memory.
const GROUP_ROWS_MAX: usize = 1 << 20;
const GROUP_BYTES_MAX: usize = 64 << 20;

/// What to make of what.
#[derive(Debug, Clone)]
pub struct Roll {
    /// The spool file.
    pub from: PathBuf,
    /// How many of its bytes count, and how many rows those are.
    pub length: u64,
    /// See `length`.
    pub rows: u64,
    /// The file to make. Replaced if it exists.
    pub to: PathBuf,
    /// The columns.
    pub schema: SchemaRef,
    /// The form.
    pub settings: Arc<SinkSettings>,
    /// Set when nobody wants it any more.
    pub cancelled: Arc<AtomicBool>,
}

/// What was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rolled {
    /// Its length.
    pub bytes: u64,
    /// The CRC-32C of its bytes.
    pub crc32c: u32,
}

/// A file with the length and the checksum of what was written.
#[derive(Debug)]
struct Summed {
    file: BufWriter<File>,
    bytes: u64,
    crc32c: u32,
}

impl Write for Summed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.crc32c = crc32c::crc32c_append(self.crc32c, &bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

impl Roll {
    /// Makes the file and syncs it. May block for seconds.
    ///
    /// # Errors
    /// When a file cannot be read or written, or the spool file does not hold the rows that it should.
    pub fn run(&self) -> Result<Rolled> {
        let result = self.convert();
        if result.is_err() {
            // Nobody refers to it; what stays behind the next recovery removes.
            std::fs::remove_file(&self.to).ok();
        }
        result
    }

    fn convert(&self) -> Result<Rolled> {
        let from = self.from.display();
        let open =
            File::open(&self.from).map_err(|cause| Error::io(format!("cannot read the spool file {from}"), cause))?;
        let limited = BufReader::with_capacity(1 << 20, open).take(self.length);
        let damaged = |error: arrow::error::ArrowError| {
            Error::corrupt(format!("the spool file {from} is damaged: {error}")).because(error)
        };
        let batches = StreamReader::try_new(limited, None).map_err(damaged)?;
        self.check_cancelled()?;
        let create = OpenOptions::new().write(true).create(true).truncate(true).open(&self.to);
        let file = create.map_err(|cause| self.refuse(cause))?;
        let mut output =
            Output::new(self, Summed { file: BufWriter::with_capacity(1 << 20, file), bytes: 0, crc32c: 0 })?;
        let mut rows = 0;
        for batch in batches {
            self.check_cancelled()?;
            let batch = batch.map_err(damaged)?;
            rows += batch.num_rows() as u64;
            output.write(&batch).map_err(|error| error.at(self.to.display()))?;
        }
        if rows != self.rows {
            return Err(Error::corrupt(format!("the spool file {from} has {rows} rows, expected {}", self.rows)));
        }
        let summed = output.finish().map_err(|error| error.at(self.to.display()))?;
        let rolled = Rolled { bytes: summed.bytes, crc32c: summed.crc32c };
        let file = summed.file.into_inner().map_err(|error| self.refuse(error.into_error()))?;
        file.sync_all().map_err(|cause| self.refuse(cause))?;
        self.check_cancelled()?;
        Ok(rolled)
    }

    fn refuse(&self, cause: std::io::Error) -> Error {
        Error::io(format!("cannot write {}", self.to.display()), cause)
    }

    fn check_cancelled(&self) -> Result<()> {
        match self.cancelled.load(Ordering::Relaxed) {
            true => Err(Error::unavailable("the writer was dropped")),
            false => Ok(()),
        }
    }
}

/// The file that is being made.
enum Output {
    Parquet(Box<ArrowWriter<Summed>>),
    Lines(Box<dyn crate::format::RecordEncoder>, Summed),
}

impl Output {
    fn new(roll: &Roll, mut file: Summed) -> Result<Self> {
        match &roll.settings.format {
            FileFormat::Parquet(_) => {
                let properties = WriterProperties::builder()
                    .set_compression(roll.settings.parquet_compression)
                    .set_max_row_group_row_count(Some(GROUP_ROWS_MAX))
                    .build();
                let writer = ArrowWriter::try_new(file, roll.schema.clone(), Some(properties)).map_err(unwritable)?;
                Ok(Output::Parquet(Box::new(writer)))
            }
            FileFormat::Lines(lines) => {
                let encoder = encoder(lines, &roll.schema)?;
                if let Some(mut header) = encoder.header() {
                    header.push(b'\n');
                    file.write_all(&header).map_err(|cause| roll.refuse(cause))?;
                }
                Ok(Output::Lines(encoder, file))
            }
        }
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            Output::Parquet(writer) => {
                writer.write(batch).map_err(unwritable)?;
                if writer.in_progress_size() >= GROUP_BYTES_MAX {
                    writer.flush().map_err(unwritable)?;
                }
            }
            Output::Lines(encoder, file) => {
                let mut lines = Vec::new();
                for record in encoder.encode(&Batch::inserts(batch.clone()))?.iter() {
                    lines.extend_from_slice(record);
                    lines.push(b'\n');
                }
                file.write_all(&lines).map_err(|cause| Error::io("cannot write", cause))?;
            }
        }
        Ok(())
    }

    fn finish(self) -> Result<Summed> {
        let mut file = match self {
            Output::Parquet(writer) => writer.into_inner().map_err(unwritable)?,
            Output::Lines(_, file) => file,
        };
        file.flush().map_err(|cause| Error::io("cannot write", cause))?;
        Ok(file)
    }
}

/// A full disk arrives here wrapped up in Parquet's error.
fn unwritable(error: ParquetError) -> Error {
    match error {
        ParquetError::External(cause) => match cause.downcast::<std::io::Error>() {
            Ok(cause) => Error::io("cannot write", *cause),
            Err(cause) => Error::internal(format!("cannot write Parquet: {cause}")).because(cause),
        },
        other => Error::invalid(format!("cannot write Parquet: {other}")).because(other),
    }
}

/// Makes the names in a folder survive a power cut.
///
/// # Errors
/// When the folder cannot be synced.
pub fn sync_folder(folder: &Path) -> Result<()> {
    let sync = || File::open(folder)?.sync_all();
    sync().map_err(|cause| Error::io(format!("cannot sync {}", folder.display()), cause))
}
