//! Reads files as a bounded source: a split is one file, read in order by one blocking thread per reader.
//!
//! The files are those that were there when the job began, or with `'source.monitor-interval'` all that come ([`watch`](super::watch)). A job that resumes
//! reads on in them, wherever they are by now ([`find`](super::find)).

use std::collections::{BTreeSet, HashSet};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use async_trait::async_trait;
use bytes::Bytes;
use coulee_runtime::connector::{
    Enumeration, KnownSplits, Source, SourceContext, SourceEvent, SourceReader, SplitEnumerator, SplitId, SplitStart,
};
use coulee_runtime::metrics::SubtaskMetrics;
use coulee_runtime::options::Options;
use coulee_runtime::origin::{PositionKind, RowNumbers, RowPositions};
use coulee_runtime::state::Facet;
use coulee_runtime::table::TableSpec;
use coulee_runtime::{Error, Result};
use parking_lot::{Mutex, RwLock};
use parquet::file::reader::Length;
use tokio::sync::mpsc;

use super::columnar::ColumnarFile;
use super::find::{Found, KnownFiles, Place, pipe_again};
use super::lines::{self, Line, LineFile, LineOptions, LinePosition, Next};
use super::listing::full_match;
use super::location::{Input, Location};
use super::mark::Sampling;
use super::partition::{repeat, split_columns, value_in_path};
use super::paths::unreadable;
use super::peek::Peeked;
use super::pipe::Pipe;
use super::position::Position;
use super::settings::{FileFormat, LineCompression, monitor_interval, record_bytes_max};
use super::watch::{FileWatch, Seen};
use crate::format::{FormatSettings, OnError, Record, RecordDecoder, Rejects, decoder};

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
    place: Place,
    /// The option 'path', as the table says it.
    path: String,
    /// For messages: `table 'flights'`.
    owner: String,
    format: FileFormat,
    record_bytes_max: u64,
    monitor_interval: Option<Duration>,
    /// The columns that the files hold, and which of them are wanted.
    file_columns: SchemaRef,
    file_projection: Vec<usize>,
    /// What is given: for each column, whether it comes from the file or the path, and its place there.
    schema: SchemaRef,
    places: Vec<Where>,
    /// The files of the splits, from the last enumeration.
    known: RwLock<KnownFiles>,
    /// Pipes that were opened: what an attempt has taken out of one is not there for the next.
    opened_pipes: Mutex<HashSet<String>>,
    /// What was read of pipes before.
    peeked: Peeked,
    /// What is said behind each reason for which a record is rejected.
    advice: String,
}

/// Where a column's values come from.
#[derive(Debug, Clone, Copy)]
enum Where {
    /// The n-th of the columns read.
    File(usize),
    /// The partition column of that index in the given schema.
    Path(usize),
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
                places.push(Where::Path(i));
            } else {
                places.push(Where::File(file_projection.len()));
                file_projection.push(files.iter().position(|file| file == column).expect("not a partition"));
            }
        }
        let place = Place {
            location,
            only: options.get("source.path.regex-pattern").map(full_match).transpose()?,
            compression: options.get("compression").map(str::to_owned),
            sampling: if matches!(format, FileFormat::Parquet(_)) { Sampling::Tail } else { Sampling::Head },
        };
        let plan = Plan {
            place,
            owner: options.owner().to_owned(),
            record_bytes_max: record_bytes_max(options)?,
            monitor_interval: monitor_interval(options)?,
            file_columns: Arc::new(table.schema.project(&files)?),
            schema: Arc::new(table.schema.project(projection)?),
            path: options.get("path").unwrap_or_default().to_owned(),
            format,
            file_projection,
            places,
            known: RwLock::default(),
            opened_pipes: Mutex::default(),
            peeked: Peeked::default(),
            advice: advice(table, options),
        };
        if let FileFormat::Lines(lines) = &plan.format {
            decoder(lines, &plan.file_columns, &plan.file_projection).map_err(|error| error.at(options.owner()))?;
        }
        Ok(FilesystemSource { plan: Arc::new(plan) })
    }

    /// The same; of pipes, what was read ahead comes first.
    #[must_use]
    pub(super) fn after(mut self, peeked: &Peeked) -> Self {
        if let Some(plan) = Arc::get_mut(&mut self.plan) {
            plan.peeked = peeked.clone();
        }
        self
    }
}

/// A table that is called as its path was not declared by anybody: its types may be wrong.
fn advice(table: &TableSpec, options: &Options) -> String {
    let name = table.name.as_str();
    if options.get("path") != Some(name) && name != "-" {
        return String::new();
    }
    format!("; the types are inferred: DESCRIBE '{name}' prints them as CREATE TABLE, to be edited")
}

#[async_trait]
impl Source for FilesystemSource {
    fn describe(&self) -> String {
        format!("filesystem {}", self.plan.place.location.display())
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
        self.plan.monitor_interval.is_none()
    }

    fn is_changelog(&self) -> bool {
        match &self.plan.format {
            FileFormat::Lines(lines) => lines.format.is_changelog(),
            FileFormat::Parquet(_) => false,
        }
    }

    fn knows_its_end(&self) -> bool {
        true
    }

    async fn enumerate(&self, known: KnownSplits) -> Result<Enumeration> {
        let place = &self.plan.place;
        let at = |error: Error| error.at(&self.plan.owner);
        let splits = match (known.is_empty(), self.plan.monitor_interval) {
            (false, _) => known.unfinished.clone(),
            (true, None) => place.begin().await.map_err(at)?,
            // All that is there will be found.
            (true, Some(_)) => Vec::new(),
        };
        let files = splits.iter().map(decode).collect::<Result<Vec<_>>>()?;
        let finished = known.finished.iter().map(decode).collect::<Result<Vec<_>>>()?;
        let marks = files.iter().chain(&finished).filter_map(|(_, position)| position.file.clone());
        let marks: KnownFiles = marks.map(|mark| ((mark.device, mark.inode), mark)).collect();
        *self.plan.known.write() = marks.clone();
        if !known.is_empty() {
            place.check(files.clone(), marks).await.map_err(at)?;
        }
        let discovery = self.plan.monitor_interval.map(|every| -> Box<dyn SplitEnumerator> {
            let mut seen = Seen::default();
            files.iter().chain(&finished).for_each(|(id, position)| seen.add(id, position));
            Box::new(FileWatch::new(place.clone(), every, seen))
        });
        Ok(Enumeration { splits, discovery })
    }

    async fn open(&self, splits: Vec<SplitStart>, context: SourceContext) -> Result<Box<dyn SourceReader>> {
        let (sender, chunks) = mpsc::channel(BATCHES_WAITING_MAX);
        let (to_read, mut given) = mpsc::unbounded_channel();
        let plan = self.plan.clone();
        let mut reader = FilesystemReader {
            positions: Vec::new(),
            to_read,
            chunks,
            rows_at: RowPositions::default(),
            metrics: context.metrics,
        };
        reader.add_splits(splits)?;
        tokio::task::spawn_blocking(move || {
            while let Some((split, id, position)) = given.blocking_recv().filter(|_| !sender.is_closed()) {
                let mut reading = Reading { plan: &plan, split, file: id.0, position, out: &sender };
                match reading.run(context.batch_rows) {
                    Ok(true) => {}
                    // Nobody listens any more.
                    Ok(false) => return,
                    Err(error) => {
                        sender.blocking_send(Err(error.at(&plan.owner))).ok();
                        return;
                    }
                }
            }
        });
        Ok(Box::new(reader))
    }
}

fn decode(split: &SplitStart) -> Result<(SplitId, Position)> {
    let position = match &split.position {
        Some(bytes) => Position::decode(&split.id, bytes)?,
        None => Position::start(None),
    };
    Ok((split.id.clone(), position))
}

/// What the reading thread hands over.
#[derive(Debug)]
struct Chunk {
    event: SourceEvent,
    split: usize,
    /// Behind the rows of the event.
    position: Position,
    /// Where the rows stand in their file.
    rows_at: RowPositions,
    rejected: u64,
    last_reason: String,
}

/// One file while it is read.
struct Reading<'a> {
    plan: &'a Plan,
    split: usize,
    /// Where it is.
    file: String,
    position: Position,
    out: &'a mpsc::Sender<Result<Chunk>>,
}

impl Reading<'_> {
    /// Reads the file to its end; `false` when nobody listens any more.
    fn run(&mut self, batch_rows: usize) -> Result<bool> {
        // Of the path that it had when the job began: renaming does not change the rows.
        let constants = self.constants()?;
        let listened = match &self.plan.format {
            FileFormat::Lines(lines) => self.lines(lines, &constants, batch_rows)?,
            FileFormat::Parquet(_) => self.parquet(&constants, batch_rows)?,
        };
        let event = SourceEvent::Ended { split: self.split };
        self.position = self.position.finished();
        Ok(listened && self.send(event, RowPositions::default(), (&mut Rejects::default(), 0)))
    }

    /// For each column that comes from the path, its value.
    fn constants(&self) -> Result<Vec<Option<ArrayRef>>> {
        let value = |place: &Where| match place {
            Where::File(_) => Ok(None),
            Where::Path(i) => value_in_path(&self.file, self.plan.schema.field(*i)).map(Some),
        };
        self.plan.places.iter().map(value).collect()
    }

    /// The columns of the file and those of the path, in the order asked for.
    fn assemble(&self, rows: &RecordBatch, constants: &[Option<ArrayRef>]) -> Result<RecordBatch> {
        let column = |(place, constant): (&Where, &Option<ArrayRef>)| match (place, constant) {
            (Where::File(i), _) => Ok(rows.column(*i).clone()),
            (Where::Path(_), Some(value)) => repeat(value, rows.num_rows()),
            (Where::Path(_), None) => unreachable!("constants come from the same places"),
        };
        let columns = self.plan.places.iter().zip(constants).map(column).collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        Ok(RecordBatch::try_new_with_options(self.plan.schema.clone(), columns, &options)?)
    }

    fn send(&self, event: SourceEvent, rows_at: RowPositions, (rejects, rejected): (&mut Rejects, u64)) -> bool {
        let (last_reason, position) = (rejects.last_reason().to_owned(), self.position.clone());
        let chunk = Chunk { event, split: self.split, position, rows_at, rejected, last_reason };
        self.out.blocking_send(Ok(chunk)).is_ok()
    }

    /// Finds the file, and notes where it is and what it is known by.
    fn find(&mut self) -> Result<Found> {
        let found = self.plan.place.find(&self.file, &self.position, &self.plan.known.read())?;
        self.file.clone_from(&found.path);
        self.position.file = Some(found.mark.clone());
        Ok(found)
    }

    fn parquet(&mut self, constants: &[Option<ArrayRef>], batch_rows: usize) -> Result<bool> {
        if self.position.pipe {
            return Err(Error::invalid(format!(
                "{} is a pipe, and Parquet is read from its end: write it into a file first",
                self.file
            )));
        }
        let found = self.find()?;
        let (columns, projection) = (&self.plan.file_columns, &self.plan.file_projection);
        let mut file =
            ColumnarFile::open(found.input, &self.file, columns, projection, batch_rows, self.position.rows)?;
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
                    return Err(Error::invalid(format!("{origin}: {}{}", row.reason, self.plan.advice)));
                }
                rejects.push(&origin, &format!("{}{}", row.reason, self.plan.advice), &row.raw);
            }
            let rows = self.assemble(&found.rows, constants)?;
            let kept = rejects.take()?.filter(|_| on_error == OnError::DeadLetter);
            let event = SourceEvent::Rows { split: self.split, rows, rejected: kept };
            let rejected = found.rejected.len() as u64;
            self.position = self.position.at_row(file.position());
            if !self.send(event, rows_at, (&mut rejects, rejected)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What is needed to open the file of lines, once or twice.
    fn line_input(&mut self, settings: &FormatSettings) -> Result<LineInput> {
        let framers = settings.clone();
        let record_bytes_max = self.plan.record_bytes_max;
        let mut options =
            LineOptions { name: self.file.clone(), compression: LineCompression::None, end: None, record_bytes_max };
        if self.position.pipe {
            options.compression = self.plan.place.compression(&self.file);
            if !self.position.is_start() || !self.plan.opened_pipes.lock().insert(self.file.clone()) {
                return Err(pipe_again(&self.file));
            }
            let pipe = Pipe::open(&self.file, self.out.clone())
                .map_err(|cause| unreadable(std::path::Path::new(&self.file), cause))?;
            let ahead = self.plan.peeked.take(&self.file).map(|ahead| ahead.bytes).unwrap_or_default();
            return Ok(LineInput { options, framers, source: LineSource::Pipe(pipe, ahead) });
        }
        let found = self.find()?;
        options.name.clone_from(&self.file);
        options.compression = found.compression;
        let is_plain_local = matches!(&found.input, Input::Local(_)) && found.compression == LineCompression::None;
        if found.is_new {
            self.position.end = is_plain_local.then_some(found.mark.size);
        }
        options.end = self.position.end;
        Ok(LineInput { options, framers, source: LineSource::File(found.input) })
    }

    fn lines(&mut self, settings: &FormatSettings, constants: &[Option<ArrayRef>], batch_rows: usize) -> Result<bool> {
        let mut decoder = decoder(settings, &self.plan.file_columns, &self.plan.file_projection)?;
        let input = self.line_input(settings)?;
        let start = self.position.line();
        let mut file = if settings.format.has_header(&settings.options) {
            let mut file = input.open(LinePosition::default())?;
            if !self.header(&input, &mut file, decoder.as_mut())? {
                return Ok(false);
            }
            if start.offset > 0 { input.open(start)? } else { file }
        } else {
            input.open(start)?
        };

        let mut rejects = Rejects::default();
        let mut lines = Vec::new();
        let (mut rejected, mut first_offset) = (0u64, file.position().offset);
        loop {
            let (mut ended, mut waits) = (false, false);
            match file.next()? {
                Next::Line(Line { number, bytes, malformed }) => {
                    let decoded = match malformed {
                        None => decoder.decode(&Record::of(bytes)).map_err(|reject| reject.reason),
                        Some(reason) => Err(reason),
                    };
                    match decoded {
                        Ok(rows) => lines.extend(std::iter::repeat_n(number, rows)),
                        Err(reason) => {
                            let reason = format!("{reason}{}", self.plan.advice);
                            let origin = format!("{}:{number}", self.file);
                            if settings.rejects.on_error == OnError::Fail {
                                return Err(Error::invalid(format!("{origin}: {reason}")));
                            }
                            rejects.push(&origin, &reason, bytes);
                            rejected += 1;
                        }
                    }
                }
                Next::Waits => waits = true,
                Next::End => ended = true,
            }
            let at = file.position();
            let full = decoder.len() >= batch_rows || rejects.len() >= batch_rows;
            if !(full || ended || waits || at.offset - first_offset >= BATCH_BYTES_MAX) {
                continue;
            }
            if !(decoder.is_empty() && rejects.is_empty()) {
                let decoded = decoder.flush()?;
                let rows = decoded.with_rows(self.assemble(decoded.rows(), constants)?);
                let kept = rejects.take()?.filter(|_| settings.rejects.on_error == OnError::DeadLetter);
                let event = SourceEvent::of(self.split, rows, kept);
                let numbers = RowNumbers::new(std::mem::take(&mut lines));
                let rows_at = RowPositions { counts: PositionKind::Line, numbers };
                self.position = self.position.at_line(at);
                if !self.send(event, rows_at, (&mut rejects, rejected)) {
                    return Ok(false);
                }
                (rejected, first_offset) = (0, at.offset);
            }
            if ended {
                return Ok(true);
            }
            if waits && !input.wait() {
                return Ok(false);
            }
        }
    }

    /// Reads the names of the columns; `false` when nobody listens any more.
    fn header(&self, input: &LineInput, file: &mut LineFile, decoder: &mut dyn RecordDecoder) -> Result<bool> {
        loop {
            match file.next()? {
                Next::Line(line) => {
                    decoder.header(line.bytes).map_err(|error| error.at(&self.file))?;
                    return Ok(true);
                }
                Next::Waits if !input.wait() => return Ok(false),
                Next::Waits => {}
                Next::End => return Ok(true),
            }
        }
    }
}

/// A file of lines that can be opened.
struct LineInput {
    options: LineOptions,
    framers: FormatSettings,
    source: LineSource,
}

enum LineSource {
    File(Input),
    /// A pipe, and what was read of it before.
    Pipe(Pipe<Result<Chunk>>, Vec<u8>),
}

impl LineInput {
    fn open(&self, at: LinePosition) -> Result<LineFile> {
        let bytes = match &self.source {
            LineSource::Pipe(pipe, ahead) => {
                if self.options.compression != LineCompression::None && ahead.is_empty() {
                    // Decompression begins with the first bytes.
                    self.wait();
                }
                lines::Bytes::Pipe(Box::new(std::io::Cursor::new(ahead.clone()).chain(pipe.clone())))
            }
            LineSource::File(input) => {
                let local = match input {
                    Input::Local(file) => Some(file.clone()),
                    Input::Object(_) => None,
                };
                let (length, input) = (Length::len(input), input.clone());
                lines::Bytes::File { from: Box::new(move |offset| Box::new(input.from(offset))), length, local }
            }
        };
        let framer = self.framers.format.framer(&self.framers.options)?;
        LineFile::open(bytes, self.options.clone(), framer, at)
    }

    /// Waits until a pipe has more, or its end; `false` when nobody listens any more.
    fn wait(&self) -> bool {
        match &self.source {
            LineSource::File(_) => true,
            LineSource::Pipe(pipe, _) => pipe.wait().is_ok(),
        }
    }
}

/// Hands on what the reading thread has read.
struct FilesystemReader {
    positions: Vec<Position>,
    /// Files for the reading thread.
    to_read: mpsc::UnboundedSender<(usize, SplitId, Position)>,
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
        self.positions[chunk.split] = chunk.position;
        if chunk.rejected > 0 {
            self.metrics.add_rejected(chunk.rejected, &chunk.last_reason);
        }
        self.rows_at = chunk.rows_at;
        Ok(chunk.event)
    }

    fn row_positions(&mut self) -> RowPositions {
        std::mem::take(&mut self.rows_at)
    }

    fn position(&self, split: usize) -> Bytes {
        self.positions[split].encode()
    }

    fn add_splits(&mut self, splits: Vec<SplitStart>) -> Result<()> {
        for split in &splits {
            let (id, position) = decode(split)?;
            // A thread that is gone has sent why.
            self.to_read.send((self.positions.len(), id, position.clone())).ok();
            self.positions.push(position);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "moved_tests.rs"]
mod moved_tests;
