//! Reads files as a bounded source: a split is one file, read in order by one blocking thread per reader.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use async_trait::async_trait;
use bytes::Bytes;
use coulee_runtime::connector::{Source, SourceContext, SourceEvent, SourceReader, SplitId, SplitStart};
use coulee_runtime::metrics::SubtaskMetrics;
use coulee_runtime::options::Options;
use coulee_runtime::origin::{PositionKind, RowNumbers, RowPositions};
use coulee_runtime::state::Facet;
use coulee_runtime::table::TableSpec;
use coulee_runtime::{Error, Result};
use regex::Regex;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::columnar::ColumnarFile;
use super::lines::{LineFile, LinePosition};
use super::listing::{full_match, list};
use super::location::Location;
use super::partition::{repeat, split_columns, value_in_path};
use super::settings::{FileFormat, LineCompression};
use crate::format::{FormatSettings, OnError, Record, Reject, Rejects, decoder};

/// How many batches may wait between the reading thread and the job.
const BATCHES_WAITING_MAX: usize = 2;

/// A batch of lines ends when it was made of so many bytes, whatever its rows: it bounds the memory that wide records take.
const BATCH_BYTES_MAX: u64 = 8 << 20;

/// Files to read.
#[derive(Debug, Clone)]
pub struct FilesystemSource {
    plan: Arc<Plan>,
}

#[derive(Debug)]
struct Plan {
    location: Location,
    /// The same as the table says it.
    path: String,
    only: Option<Regex>,
    format: FileFormat,
    compression: Option<String>,
    /// The columns that the files hold, and which of them are wanted.
    file_columns: SchemaRef,
    file_projection: Vec<usize>,
    /// What is given: for each column, whether it comes from the file or the path, and its place there.
    schema: SchemaRef,
    places: Vec<Place>,
}

#[derive(Debug, Clone, Copy)]
enum Place {
    /// The n-th of the columns read.
    File(usize),
    /// The partition column of that index in the given schema.
    Path(usize),
}

/// Where to go on in a file. `offset` and `lines` for lines, `rows` for Parquet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    version: u32,
    offset: u64,
    lines: u64,
    rows: u64,
}

impl Position {
    const VERSION: u32 = 1;

    fn of_lines(at: LinePosition) -> Self {
        Position { version: Self::VERSION, offset: at.offset, lines: at.lines, rows: 0 }
    }

    fn encode(&self) -> Bytes {
        serde_json::to_vec(self).expect("numbers have a form in JSON").into()
    }

    fn decode(split: &SplitId, bytes: &[u8]) -> Result<Self> {
        let position: Position = serde_json::from_slice(bytes)
            .map_err(|error| Error::corrupt(format!("the position of {}: {error}", split.0)).because(error))?;
        if position.version != Self::VERSION {
            let (id, version) = (&split.0, position.version);
            return Err(Error::corrupt(format!("the position of {id} has version {version}, expected 1")));
        }
        Ok(position)
    }
}

impl FilesystemSource {
    /// The columns `projection` (indexes into the table's schema) of the files at `location`.
    ///
    /// # Errors
    /// `Invalid` when an option is wrong or a column's type cannot be read.
    pub fn new(location: Location, table: &TableSpec, options: &Options, projection: &[usize]) -> Result<Self> {
        let format = FileFormat::new(options)?;
        let (files, partitions) = split_columns(table)?;
        let mut file_projection = Vec::new();
        let mut places = Vec::new();
        for (i, column) in projection.iter().enumerate() {
            if partitions.contains(column) {
                places.push(Place::Path(i));
            } else {
                places.push(Place::File(file_projection.len()));
                file_projection.push(files.iter().position(|file| file == column).expect("not a partition"));
            }
        }
        let plan = Plan {
            only: options.get("source.path.regex-pattern").map(full_match).transpose()?,
            compression: options.get("compression").map(str::to_owned),
            file_columns: Arc::new(table.schema.project(&files)?),
            schema: Arc::new(table.schema.project(projection)?),
            path: options.get("path").unwrap_or_default().to_owned(),
            location,
            format,
            file_projection,
            places,
        };
        if let FileFormat::Lines(lines) = &plan.format {
            decoder(lines, &plan.file_columns, &plan.file_projection).map_err(|error| error.at(options.owner()))?;
        }
        Ok(FilesystemSource { plan: Arc::new(plan) })
    }
}

#[async_trait]
impl Source for FilesystemSource {
    fn describe(&self) -> String {
        format!("filesystem {}", self.plan.location.display())
    }

    fn identity(&self) -> Vec<Facet> {
        vec![
            Facet::new("connector", "filesystem"),
            Facet::new("path", &*self.plan.path),
            Facet::new("format", self.plan.format.name()),
        ]
    }

    fn schema(&self) -> SchemaRef {
        self.plan.schema.clone()
    }

    fn is_bounded(&self) -> bool {
        true
    }

    fn knows_its_end(&self) -> bool {
        true
    }

    async fn splits(&self) -> Result<Vec<SplitId>> {
        let files = list(&self.plan.location, self.plan.only.as_ref()).await?;
        Ok(files.into_iter().map(SplitId).collect())
    }

    async fn open(&self, splits: Vec<SplitStart>, context: SourceContext) -> Result<Box<dyn SourceReader>> {
        let mut starts = Vec::with_capacity(splits.len());
        for split in splits {
            let position = match &split.position {
                Some(bytes) => Position::decode(&split.id, bytes)?,
                None => Position { version: Position::VERSION, ..Position::default() },
            };
            starts.push((split.id, position));
        }
        let (sender, chunks) = mpsc::channel(BATCHES_WAITING_MAX);
        let (plan, files) = (self.plan.clone(), starts.clone());
        tokio::task::spawn_blocking(move || {
            for (split, (id, position)) in files.iter().enumerate() {
                let mut reading = Reading { plan: &plan, split, file: &id.0, out: &sender };
                match reading.run(*position, context.batch_rows) {
                    Ok(true) => {}
                    // Nobody listens any more.
                    Ok(false) => return,
                    Err(error) => {
                        sender.blocking_send(Err(error)).ok();
                        return;
                    }
                }
            }
        });
        Ok(Box::new(FilesystemReader {
            positions: starts,
            chunks,
            rows_at: RowPositions::default(),
            metrics: context.metrics,
        }))
    }
}

/// What the reading thread hands over.
#[derive(Debug)]
struct Chunk {
    event: SourceEvent,
    split: usize,
    /// Behind the rows of the event; `None` when the split has ended.
    position: Option<Position>,
    /// Where the rows stand in their file.
    rows_at: RowPositions,
    rejected: u64,
    last_reason: String,
}

/// One file while it is read.
struct Reading<'a> {
    plan: &'a Plan,
    split: usize,
    file: &'a str,
    out: &'a mpsc::Sender<Result<Chunk>>,
}

impl Reading<'_> {
    /// Reads the file to its end; `false` when nobody listens any more.
    fn run(&mut self, position: Position, batch_rows: usize) -> Result<bool> {
        let constants = self.constants()?;
        let listened = match &self.plan.format {
            FileFormat::Lines(lines) => self.lines(lines, &constants, position, batch_rows)?,
            FileFormat::Parquet(_) => self.parquet(&constants, position, batch_rows)?,
        };
        let event = SourceEvent::Ended { split: self.split };
        Ok(listened && self.send(event, None, RowPositions::default(), (&mut Rejects::default(), 0)))
    }

    /// For each column that comes from the path, its value.
    fn constants(&self) -> Result<Vec<Option<ArrayRef>>> {
        let value = |place: &Place| match place {
            Place::File(_) => Ok(None),
            Place::Path(i) => value_in_path(self.file, self.plan.schema.field(*i)).map(Some),
        };
        self.plan.places.iter().map(value).collect()
    }

    /// The columns of the file and those of the path, in the order asked for.
    fn assemble(&self, rows: &RecordBatch, constants: &[Option<ArrayRef>]) -> Result<RecordBatch> {
        let column = |(place, constant): (&Place, &Option<ArrayRef>)| match (place, constant) {
            (Place::File(i), _) => Ok(rows.column(*i).clone()),
            (Place::Path(_), Some(value)) => repeat(value, rows.num_rows()),
            (Place::Path(_), None) => unreachable!("constants come from the same places"),
        };
        let columns = self.plan.places.iter().zip(constants).map(column).collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.plan.schema.clone(), columns, &options)?)
    }

    fn send(
        &self,
        event: SourceEvent,
        position: Option<Position>,
        rows_at: RowPositions,
        (rejects, rejected): (&mut Rejects, u64),
    ) -> bool {
        let last_reason = rejects.last_reason().to_owned();
        let chunk = Chunk { event, split: self.split, position, rows_at, rejected, last_reason };
        self.out.blocking_send(Ok(chunk)).is_ok()
    }

    fn parquet(&mut self, constants: &[Option<ArrayRef>], position: Position, batch_rows: usize) -> Result<bool> {
        let (columns, projection) = (&self.plan.file_columns, &self.plan.file_projection);
        let mut file =
            ColumnarFile::open(&self.plan.location, self.file, columns, projection, batch_rows, position.rows)?;
        let on_error = self.plan.format.rejects().on_error;
        while let Some(found) = file.next()? {
            let refused: BTreeSet<u64> = found.rejected.iter().map(|row| row.number).collect();
            let first = file.position() + 1 - (found.rows.num_rows() + refused.len()) as u64;
            let numbers = (first..=file.position()).filter(|number| !refused.contains(number)).collect();
            let rows_at = RowPositions { counts: PositionKind::Row, numbers: RowNumbers::new(numbers) };
            let mut rejects = Rejects::default();
            for row in &found.rejected {
                let origin = format!("{}:row {}", self.file, row.number);
                if on_error == OnError::Fail {
                    return Err(Error::invalid(format!("{origin}: {}", row.reason)));
                }
                rejects.push(&origin, &row.reason, &row.raw);
            }
            let rows = self.assemble(&found.rows, constants)?;
            let kept = rejects.take()?.filter(|_| on_error == OnError::DeadLetter);
            let event = SourceEvent::Rows { split: self.split, rows, rejected: kept };
            let position = Position { rows: file.position(), ..position };
            let rejected = found.rejected.len() as u64;
            if !self.send(event, Some(position), rows_at, (&mut rejects, rejected)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn open_lines(&self, settings: &FormatSettings, at: LinePosition) -> Result<LineFile> {
        let compression = LineCompression::of(self.plan.compression.as_deref(), self.file);
        let framer = settings.format.framer(&settings.options)?;
        LineFile::open(&self.plan.location, self.file, compression, framer, at)
    }

    fn lines(
        &mut self,
        settings: &FormatSettings,
        constants: &[Option<ArrayRef>],
        position: Position,
        batch_rows: usize,
    ) -> Result<bool> {
        let mut decoder = decoder(settings, &self.plan.file_columns, &self.plan.file_projection)?;
        let start = LinePosition { offset: position.offset, lines: position.lines };
        let mut file = if settings.format.has_header(&settings.options) {
            let mut file = self.open_lines(settings, LinePosition::default())?;
            if let Some(header) = file.next()? {
                decoder.header(header.bytes).map_err(|error| error.at(self.file))?;
            }
            if start.offset > 0 { self.open_lines(settings, start)? } else { file }
        } else {
            self.open_lines(settings, start)?
        };

        let mut rejects = Rejects::default();
        let mut lines = Vec::new();
        let (mut rejected, mut first_offset) = (0u64, file.position().offset);
        loop {
            let record = file.next()?;
            let ended = record.is_none();
            if let Some(line) = record {
                let decoded = match line.malformed {
                    None => decoder.decode(&Record::of(line.bytes)),
                    Some(reason) => Err(Reject::new(reason)),
                };
                match decoded {
                    Ok(rows) => lines.extend(std::iter::repeat_n(line.number, rows)),
                    Err(reject) => {
                        let origin = format!("{}:{}", self.file, line.number);
                        if settings.rejects.on_error == OnError::Fail {
                            return Err(Error::invalid(format!("{origin}: {}", reject.reason)));
                        }
                        rejects.push(&origin, &reject.reason, line.bytes);
                        rejected += 1;
                    }
                }
            }
            let at = file.position();
            let full = decoder.len() >= batch_rows || rejects.len() >= batch_rows;
            if !(full || ended || at.offset - first_offset >= BATCH_BYTES_MAX) {
                continue;
            }
            if !(decoder.is_empty() && rejects.is_empty()) {
                let rows = self.assemble(decoder.flush()?.rows(), constants)?;
                let kept = rejects.take()?.filter(|_| settings.rejects.on_error == OnError::DeadLetter);
                let event = SourceEvent::Rows { split: self.split, rows, rejected: kept };
                let numbers = RowNumbers::new(std::mem::take(&mut lines));
                let rows_at = RowPositions { counts: PositionKind::Line, numbers };
                if !self.send(event, Some(Position::of_lines(at)), rows_at, (&mut rejects, rejected)) {
                    return Ok(false);
                }
                (rejected, first_offset) = (0, at.offset);
            }
            if ended {
                return Ok(true);
            }
        }
    }
}

/// Hands on what the reading thread has read.
struct FilesystemReader {
    positions: Vec<(SplitId, Position)>,
    chunks: mpsc::Receiver<Result<Chunk>>,
    /// Of the rows that were handed on last.
    rows_at: RowPositions,
    metrics: Arc<SubtaskMetrics>,
}

#[async_trait]
impl SourceReader for FilesystemReader {
    async fn next(&mut self) -> Result<SourceEvent> {
        // Cancel-safe: `recv` is, and nothing waits behind it.
        let chunk = self
            .chunks
            .recv()
            .await
            .ok_or_else(|| Error::internal("the reading thread has ended before its files"))??;
        if let Some(position) = chunk.position {
            self.positions[chunk.split].1 = position;
        }
        if chunk.rejected > 0 {
            self.metrics.add_rejected(chunk.rejected, &chunk.last_reason);
        }
        self.rows_at = chunk.rows_at;
        Ok(chunk.event)
    }

    fn row_positions(&mut self) -> RowPositions {
        std::mem::take(&mut self.rows_at)
    }

    fn positions(&self) -> Vec<(SplitId, Bytes)> {
        self.positions.iter().map(|(id, position)| (id.clone(), position.encode())).collect()
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
