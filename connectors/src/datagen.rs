//! `'connector' = 'datagen'`: rows of random numbers, texts and times, or of sequences, as Flink's makes them.
//!
//! Every value is a function of the seed, the column and the row's number, so reading on from a position gives the same
//! rows. Timestamps are `base time + row number / rows-per-second`, less a random time up to `max-past`; the base time is
//! when the split was first opened unless `base-time` says otherwise, and belongs to the position. (Flink takes the time
//! of each row from the clock, and gives other times after a restart.)
//!
//! A position is two decimal numbers with a space between them: the next row's number, and the base time in milliseconds.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use async_trait::async_trait;
use bytes::Bytes;
use coulee_model::{Clock, Timestamp};
use coulee_runtime::connector::{
    Enumeration, KnownSplits, Sink, Source, SourceContext, SourceEvent, SourceReader, SplitId, SplitStart,
};
use coulee_runtime::options::{OptionKind, OptionSpec};
use coulee_runtime::state::Facet;
use coulee_runtime::table::{Connector, TableSpec};
use coulee_runtime::{Error, Result};

mod column;
mod values;

use column::Column;

/// The most rows of a batch, whatever is asked for.
const BATCH_ROWS_MAX: usize = 1 << 16;
/// The most bytes of texts in a batch, unless a single row has more.
const BATCH_BYTES_MAX: usize = 32 << 20;
/// The most splits.
const SPLITS_MAX: u64 = 1024;
/// Rows that are due are delivered together after this long: batches of one row would be slow.
const LINGER: Duration = Duration::from_millis(10);

const OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "rows-per-second",
        OptionKind::Number,
        Some("10000"),
        "How many rows are made per second, over all splits.",
    ),
    OptionSpec::new(
        "number-of-rows",
        OptionKind::Count,
        None,
        "How many rows there are. Absent: without end, unless a field is a sequence.",
    ),
    OptionSpec::new("datagen.seed", OptionKind::Count, Some("0"), "Another seed gives other rows."),
    OptionSpec::new(
        "datagen.splits",
        OptionKind::Count,
        Some("1"),
        "Into how many interleaved splits the rows are dealt: the most subtasks that can read them.",
    ),
    OptionSpec::new(
        "base-time",
        OptionKind::Count,
        None,
        "The time of the first row for timestamps, in milliseconds since 1970. Absent: when it is first read.",
    ),
    OptionSpec::new(
        "fields.*",
        OptionKind::Text,
        None,
        "'fields.<name>.kind' = 'random' (default) or 'sequence'; for random: '.min', '.max', '.length' (of texts, default 100), '.max-past' (of timestamps), '.null-rate' (0 to 1); for sequence: '.start' and '.end', both included.",
    ),
];

/// `'connector' = 'datagen'`.
#[derive(Debug, Clone, Copy, Default)]
pub struct DatagenConnector;

impl Connector for DatagenConnector {
    fn name(&self) -> &'static str {
        "datagen"
    }

    fn options(&self) -> Vec<OptionSpec> {
        OPTIONS.to_vec()
    }

    fn source(&self, table: &TableSpec, projection: &[usize]) -> Result<Arc<dyn Source>> {
        DatagenSource::new(table, projection).map(|source| Arc::new(source) as _)
    }

    fn sink(&self, table: &TableSpec) -> Result<Arc<dyn Sink>> {
        Err(Error::invalid(format!("table '{}': 'datagen' makes rows and cannot be written to", table.name)))
    }

    fn create(&self, table: &TableSpec) -> Result<()> {
        DatagenSource::new(table, &[]).map(drop)
    }
}

#[derive(Debug, Clone)]
struct DatagenSource {
    schema: SchemaRef,
    columns: Arc<Vec<Column>>,
    rows: Option<u64>,
    rows_per_second: f64,
    base_time: Option<Timestamp>,
    splits: u64,
}

impl DatagenSource {
    fn new(table: &TableSpec, projection: &[usize]) -> Result<Self> {
        let options = table.options(OPTIONS.iter().copied())?;
        // All columns are made, as each checks its options, and a sequence ends the table even where it is not read.
        let mut columns = column::columns(&options, &table.schema)?;
        let sequences = columns.iter().filter_map(Column::rows);
        let rows = sequences.chain(options.count("number-of-rows")).min();
        let splits = options.count("datagen.splits").unwrap_or(0);
        if !(1..=SPLITS_MAX).contains(&splits) {
            let owner = options.owner();
            return Err(Error::invalid(format!(
                "{owner}: option 'datagen.splits' is {splits}, expected 1 to {SPLITS_MAX}"
            )));
        }
        let mut index = 0..;
        columns.retain(|_| index.next().is_some_and(|i| projection.contains(&i)));
        Ok(DatagenSource {
            schema: Arc::new(table.schema.project(projection)?),
            columns: Arc::new(columns),
            rows,
            rows_per_second: options.number("rows-per-second").unwrap_or(f64::MAX),
            base_time: options.count("base-time").map(|ms| Timestamp(i64::try_from(ms).unwrap_or(i64::MAX))),
            splits,
        })
    }

    fn make(&self, first: u64, count: usize, base: Timestamp) -> Result<RecordBatch> {
        let rows = values::Rows { first, stride: self.splits, count, base, rows_per_second: self.rows_per_second };
        let arrays = self.columns.iter().map(|column| column.make(&rows)).collect::<Result<Vec<_>>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        Ok(RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)?)
    }
}

#[async_trait]
impl Source for DatagenSource {
    /// A position counts rows of a split.
    fn identity(&self) -> Vec<Facet> {
        vec![Facet::new("connector", "datagen"), Facet::new("splits", self.splits.to_string())]
    }

    fn describe(&self) -> String {
        let rows = self.rows.map_or("without end".to_owned(), |rows| format!("of {rows} rows"));
        format!("datagen {rows}, {} rows/s", self.rows_per_second)
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn is_bounded(&self) -> bool {
        self.rows.is_some()
    }

    /// There is always a next row, until the end.
    fn knows_its_end(&self) -> bool {
        true
    }

    async fn enumerate(&self, known: KnownSplits) -> Result<Enumeration> {
        let splits = (0..self.splits).map(|split| SplitId(format!("{split}-of-{}", self.splits)));
        Ok(known.of(splits, "datagen: 'datagen.splits' cannot change while a job keeps its state")?.into())
    }

    async fn open(&self, splits: Vec<SplitStart>, context: SourceContext) -> Result<Box<dyn SourceReader>> {
        let now = context.clock.now();
        let base = self.base_time.unwrap_or(now);
        let splits =
            splits.into_iter().map(|start| Split::new(start, self.splits, base)).collect::<Result<Vec<_>>>()?;
        let row_bytes: usize = self.columns.iter().map(Column::text_bytes).sum();
        let pace = RateLimiter {
            rows_per_ms: self.rows_per_second / 1000.0 * splits.len() as f64 / self.splits as f64,
            started: now,
            elapsed_ms: 0,
            delivered: 0,
        };
        let batch_rows = context.batch_rows.min(BATCH_ROWS_MAX).min(BATCH_BYTES_MAX / row_bytes.max(1)).max(1);
        Ok(Box::new(DatagenReader {
            source: self.clone(),
            batch_rows,
            splits,
            next_split: 0,
            pace,
            clock: context.clock,
        }))
    }
}

#[derive(Debug)]
struct Split {
    next: u64,
    base: Timestamp,
    ended: bool,
}

impl Split {
    fn new(start: SplitStart, splits: u64, base: Timestamp) -> Result<Self> {
        let parse = |(index, of): (&str, &str)| Some((index.parse::<u64>().ok()?, of.parse::<u64>().ok()?));
        let parsed = start.id.0.split_once("-of-").and_then(parse);
        let Some((index, _)) = parsed.filter(|(index, of)| *of == splits && *index < splits) else {
            return Err(Error::invalid(format!(
                "datagen: there is no split '{}' among {splits}; 'datagen.splits' cannot change while a job keeps its state",
                start.id.0
            )));
        };
        let (next, base) = match &start.position {
            None => (index, base),
            Some(position) => std::str::from_utf8(position)
                .ok()
                .and_then(|text| text.split_once(' '))
                .and_then(|(next, base)| Some((next.parse().ok()?, Timestamp(base.parse().ok()?))))
                .filter(|(next, _)| next % splits == index)
                .ok_or_else(|| Error::corrupt(format!("datagen: the position of split '{}' is damaged", start.id.0)))?,
        };
        Ok(Split { next, base, ended: false })
    }

    /// How many rows of this split are left before row `end`.
    fn left(&self, end: u64, stride: u64) -> u64 {
        end.saturating_sub(self.next).div_ceil(stride)
    }
}

/// How many rows may have been delivered by now, counted from when the reader was opened.
#[derive(Debug)]
struct RateLimiter {
    rows_per_ms: f64,
    started: Timestamp,
    /// The longest time seen: a clock that is set back does not take rows back.
    elapsed_ms: i64,
    delivered: u64,
}

impl RateLimiter {
    /// How many more rows are due. The first is due at once.
    fn due(&mut self, now: Timestamp) -> u64 {
        self.elapsed_ms = self.elapsed_ms.max(now.0.saturating_sub(self.started.0));
        let due = 1.0 + (self.elapsed_ms as f64 * self.rows_per_ms).floor();
        (due as u64).saturating_sub(self.delivered)
    }

    /// How long to wait when none is.
    fn wait(&self) -> Duration {
        let due_at_ms = self.delivered as f64 / self.rows_per_ms;
        let wait_ms = (due_at_ms - self.elapsed_ms as f64).clamp(0.0, 60_000.0);
        Duration::from_micros((wait_ms * 1000.0) as u64).max(LINGER)
    }
}

struct DatagenReader {
    source: DatagenSource,
    batch_rows: usize,
    splits: Vec<Split>,
    next_split: usize,
    pace: RateLimiter,
    clock: Arc<dyn Clock>,
}

#[async_trait]
impl SourceReader for DatagenReader {
    async fn next(&mut self) -> Result<SourceEvent> {
        loop {
            if self.splits.iter().all(|split| split.ended) {
                // Only a reader without splits gets here; it has nothing to say.
                std::future::pending::<()>().await;
            }
            let index = self.next_split % self.splits.len();
            let split = &mut self.splits[index];
            let left = match (split.ended, self.source.rows) {
                (true, _) => {
                    self.next_split = index + 1;
                    continue;
                }
                (false, Some(rows)) => split.left(rows, self.source.splits),
                (false, None) => u64::MAX,
            };
            if left == 0 {
                split.ended = true;
                return Ok(SourceEvent::Ended { split: index });
            }
            let due = self.pace.due(self.clock.now());
            if due == 0 {
                tokio::time::sleep(self.pace.wait()).await;
                continue;
            }
            let count = left.min(due).min(self.batch_rows as u64);
            let rows = self.source.make(split.next, count as usize, split.base)?;
            split.next += count * self.source.splits;
            self.pace.delivered += count;
            self.next_split = index + 1;
            return Ok(SourceEvent::Rows { split: index, rows, rejected: None });
        }
    }

    fn position(&self, split: usize) -> Bytes {
        let split = &self.splits[split];
        Bytes::from(format!("{} {}", split.next, split.base.0))
    }

    fn lag(&self) -> Option<u64> {
        let end = self.source.rows?;
        Some(self.splits.iter().map(|split| split.left(end, self.source.splits)).sum())
    }
}

#[cfg(test)]
mod tests;
