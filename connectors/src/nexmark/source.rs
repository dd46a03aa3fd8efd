//! The connector: its options, its splits, and the reader that makes batches of events.
//!
//! The events that are delivered are dealt to the splits in turn, so that event time advances alike in all of them.
//! A position is a decimal number: how many delivered events, over all splits, come before the next one of this split.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use coulee_runtime::connector::{
    Enumeration, KnownSplits, Sink, Source, SourceContext, SourceEvent, SourceReader, SplitId, SplitStart,
};
use coulee_runtime::options::OptionSpec;
use coulee_runtime::state::Facet;
use coulee_runtime::table::{Connector, TableSpec};
use coulee_runtime::{Error, Result};

use super::columns::Columns;
use super::event::Generator;
use super::kind::Kind;
use super::settings::{NexmarkSettings, OPTIONS};

/// The most rows of a batch, whatever is asked for: the texts of so many fit their 32-bit offsets.
const BATCH_ROWS_MAX: usize = 1 << 16;
/// The most splits.
const SPLITS_MAX: u64 = 1024;

/// `'connector' = 'nexmark'`.
#[derive(Debug, Clone, Copy, Default)]
pub struct NexmarkConnector;

impl Connector for NexmarkConnector {
    fn name(&self) -> &'static str {
        "nexmark"
    }

    fn options(&self) -> Vec<OptionSpec> {
        OPTIONS.to_vec()
    }

    fn source(&self, table: &TableSpec, projection: &[usize]) -> Result<Arc<dyn Source>> {
        NexmarkSource::new(table, projection).map(|source| Arc::new(source) as _)
    }

    fn sink(&self, table: &TableSpec) -> Result<Arc<dyn Sink>> {
        Err(Error::invalid(format!("table '{}': 'nexmark' makes events and cannot be written to", table.name)))
    }

    fn create(&self, table: &TableSpec) -> Result<()> {
        let all: Vec<usize> = (0..table.schema.fields().len()).collect();
        NexmarkSource::new(table, &all).map(drop)
    }
}

#[derive(Debug)]
struct NexmarkSource {
    generator: Arc<Generator>,
    columns: Columns,
    kind: Option<Kind>,
    splits: u64,
}

impl NexmarkSource {
    fn new(table: &TableSpec, projection: &[usize]) -> Result<Self> {
        let options = table.options(OPTIONS.iter().copied())?;
        let kind = match options.require("nexmark.event")? {
            "person" => Some(Kind::Person),
            "auction" => Some(Kind::Auction),
            "bid" => Some(Kind::Bid),
            _ => None,
        };
        let settings = NexmarkSettings::from_options(&options)?;
        if settings.share(kind).1 == 0 {
            let kind = kind.map_or("", Kind::name);
            return Err(Error::invalid(format!(
                "{}: 'nexmark.event' is '{kind}', but '{kind}.proportion' is 0: there would be no rows",
                options.owner()
            )));
        }
        let splits = options.count("nexmark.splits").unwrap_or(0);
        if !(1..=SPLITS_MAX).contains(&splits) {
            return Err(Error::invalid(format!(
                "{}: option 'nexmark.splits' is {splits}, expected 1 to {SPLITS_MAX}",
                options.owner()
            )));
        }
        // All columns are checked, also those that are not read.
        Columns::new(options.owner(), &table.schema, kind)?;
        let columns = Columns::new(options.owner(), &Arc::new(table.schema.project(projection)?), kind)?;
        Ok(NexmarkSource { generator: Arc::new(Generator::new(settings)?), columns, kind, splits })
    }
}

#[async_trait]
impl Source for NexmarkSource {
    /// A position counts events of a split.
    fn identity(&self) -> Vec<Facet> {
        vec![
            Facet::new("connector", "nexmark"),
            Facet::new("events", self.kind.map_or("all", Kind::name)),
            Facet::new("splits", self.splits.to_string()),
        ]
    }

    fn describe(&self) -> String {
        let settings = self.generator.settings();
        let events = settings.events.map_or("without end".to_owned(), |events| format!("of {events} events"));
        format!("nexmark {} {events}", self.kind.map_or("all", Kind::name))
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(self.columns.schema())
    }

    fn is_bounded(&self) -> bool {
        self.generator.settings().events.is_some()
    }

    /// There is always a next event, until the end.
    fn knows_its_end(&self) -> bool {
        true
    }

    async fn enumerate(&self, known: KnownSplits) -> Result<Enumeration> {
        let splits = (0..self.splits).map(|split| SplitId(format!("{split}-of-{}", self.splits)));
        Ok(known.of(splits, "nexmark: 'nexmark.splits' cannot change while a job keeps its state")?.into())
    }

    async fn open(&self, splits: Vec<SplitStart>, context: SourceContext) -> Result<Box<dyn SourceReader>> {
        let splits = splits.into_iter().map(|start| Split::new(start, self.splits)).collect::<Result<_>>()?;
        Ok(Box::new(NexmarkReader {
            generator: Arc::clone(&self.generator),
            columns: self.columns.clone(),
            kind: self.kind,
            stride: self.splits,
            end: self.generator.settings().count(self.kind),
            batch_rows: context.batch_rows.clamp(1, BATCH_ROWS_MAX),
            splits,
            next_split: 0,
        }))
    }
}

/// One split that is being read.
#[derive(Debug)]
struct Split {
    /// How many delivered events, of all splits, come before its next one.
    next: u64,
    ended: bool,
}

impl Split {
    fn new(start: SplitStart, splits: u64) -> Result<Self> {
        let unknown = || {
            Error::invalid(format!(
                "nexmark: there is no split '{}' among {splits}; 'nexmark.splits' cannot change while a job keeps its state",
                start.id.0
            ))
        };
        let (index, of) = start.id.0.split_once("-of-").ok_or_else(unknown)?;
        let (index, of): (u64, u64) = (index.parse().map_err(|_| unknown())?, of.parse().map_err(|_| unknown())?);
        if of != splits || index >= splits {
            return Err(unknown());
        }
        let next = match &start.position {
            None => index,
            Some(position) => std::str::from_utf8(position)
                .ok()
                .and_then(|text| text.parse().ok())
                .filter(|next| next % splits == index)
                .ok_or_else(|| {
                    Error::corrupt(format!("nexmark: the position of split '{}' is no number", start.id.0))
                })?,
        };
        Ok(Split { next, ended: false })
    }

    /// How many events of this split are left before `end`.
    fn left(&self, end: u64, stride: u64) -> u64 {
        end.saturating_sub(self.next).div_ceil(stride)
    }
}

struct NexmarkReader {
    generator: Arc<Generator>,
    columns: Columns,
    kind: Option<Kind>,
    stride: u64,
    /// How many events are delivered, over all splits.
    end: Option<u64>,
    batch_rows: usize,
    splits: Vec<Split>,
    next_split: usize,
}

#[async_trait]
impl SourceReader for NexmarkReader {
    async fn next(&mut self) -> Result<SourceEvent> {
        loop {
            if self.splits.iter().all(|split| split.ended) {
                // Only a reader without splits gets here; it has nothing to say.
                std::future::pending::<()>().await;
            }
            let index = self.next_split % self.splits.len();
            self.next_split = index + 1;
            let split = &mut self.splits[index];
            if split.ended {
                continue;
            }
            let left = self.end.map_or(u64::MAX, |end| split.left(end, self.stride));
            if left == 0 {
                split.ended = true;
                return Ok(SourceEvent::Ended { split: index });
            }
            let count = left.min(self.batch_rows as u64);
            let events = self.generator.events(self.kind, split.next, self.stride, count as usize);
            let rows = self.columns.make(&self.generator, &events)?;
            split.next += count * self.stride;
            return Ok(SourceEvent::Rows { split: index, rows, rejected: None });
        }
    }

    fn position(&self, split: usize) -> Bytes {
        Bytes::from(self.splits[split].next.to_string())
    }

    fn lag(&self) -> Option<u64> {
        let end = self.end?;
        Some(self.splits.iter().map(|split| split.left(end, self.stride)).sum())
    }
}
