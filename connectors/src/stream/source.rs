//! The source: a stream's shards are its splits.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use coulee_log::{Isolation, Shard, Stream};
use coulee_model::ShardId;
use coulee_runtime::connector::{Enumeration, KnownSplits, Source, SourceContext, SourceReader, SplitId, SplitStart};
use coulee_runtime::state::Facet;
use coulee_runtime::table::TableSpec;
use coulee_runtime::{Error, Result};

use super::layout::{Layout, SourceShard};
use super::log_error;
use super::position::Position;
use super::reader::{ShardReader, StreamReader};
use super::rows::Rows;
use super::settings::{Bounded, Startup, TableOptions};
use crate::format::{self, RecordDecoder};

const SPLIT_PREFIX: &str = "shard-";

#[derive(Debug)]
pub(super) struct StreamSource {
    stream: Arc<Stream>,
    layout: Layout,
    options: TableOptions,
}

impl StreamSource {
    pub(super) fn new(
        table: &TableSpec,
        projection: &[usize],
        options: TableOptions,
        stream: Arc<Stream>,
    ) -> Result<Self> {
        let mut layout = Layout::new(table, projection)?;
        if let Some(key) = &options.upsert {
            layout = layout.with_schema(|schema| key.nullable(schema));
        }
        let source = StreamSource { stream, layout, options };
        // Made once here to refuse what the format cannot read.
        source.decoder()?;
        Ok(source)
    }

    fn decoder(&self) -> Result<Box<dyn RecordDecoder>> {
        let (body, decoded) = (self.layout.body(), self.layout.decoded());
        let value = format::decoder(&self.options.format, body, decoded)?;
        match &self.options.upsert {
            Some(key) => key.decoder(value, body, decoded),
            None => Ok(value),
        }
    }
}

#[async_trait]
impl Source for StreamSource {
    fn identity(&self) -> Vec<Facet> {
        vec![
            Facet::new("connector", "stream"),
            Facet::new("stream", self.stream.name().to_string()),
            Facet::new("format", self.options.format.format.name()),
        ]
    }

    fn describe(&self) -> String {
        let from = match &self.options.startup {
            Startup::Earliest => "the earliest record".to_owned(),
            Startup::Latest => "the latest record".to_owned(),
            Startup::Timestamp(timestamp) => timestamp.to_string(),
            Startup::Specific(_) => "specific records".to_owned(),
        };
        let to = match &self.options.bounded {
            Bounded::Unbounded => String::new(),
            Bounded::Latest => " to the end at the start".to_owned(),
            Bounded::Timestamp(timestamp) => format!(" to {timestamp}"),
        };
        let uncommitted = match self.options.isolation {
            Isolation::ReadCommitted => "",
            Isolation::ReadUncommitted => ", uncommitted records too",
        };
        let (name, shards) = (self.stream.name(), self.stream.shard_count());
        format!("stream '{name}' ({shards} shards) from {from}{to}{uncommitted}")
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(self.layout.schema())
    }

    fn is_bounded(&self) -> bool {
        self.options.bounded != Bounded::Unbounded
    }

    fn is_changelog(&self) -> bool {
        self.is_upsert() || self.options.format.format.is_changelog()
    }

    fn is_upsert(&self) -> bool {
        self.options.upsert.is_some()
    }

    /// The log knows the end of each shard.
    fn knows_its_end(&self) -> bool {
        true
    }

    async fn enumerate(&self, known: KnownSplits) -> Result<Enumeration> {
        let shards = (0..self.stream.shard_count()).map(|shard| SplitId(format!("{SPLIT_PREFIX}{shard:05}")));
        Ok(known.of(shards, &format!("stream '{}'", self.stream.name()))?.into())
    }

    async fn open(&self, splits: Vec<SplitStart>, context: SourceContext) -> Result<Box<dyn SourceReader>> {
        let (stream, options) = (Arc::clone(&self.stream), self.options.clone());
        // Opening a shard reads its folder.
        let shards = tokio::task::spawn_blocking(move || {
            splits.into_iter().map(|start| open_shard(&stream, start, &options)).collect::<Result<Vec<_>>>()
        });
        let shards = shards.await.map_err(|cause| Error::internal(format!("opening shards failed: {cause}")))??;
        let rows = Rows::new(self.layout.clone(), self.decoder()?, self.options.format.rejects.on_error);
        Ok(Box::new(StreamReader::new(shards, rows, context)))
    }
}

fn open_shard(stream: &Stream, start: SplitStart, options: &TableOptions) -> Result<ShardReader> {
    let isolation = options.isolation;
    let id = start.id.0.strip_prefix(SPLIT_PREFIX).and_then(|number| number.parse().ok());
    let unknown = || Error::invalid(format!("stream '{}' has no split '{}'", stream.name(), start.id.0));
    let shard: Arc<Shard> = stream.shard(ShardId(id.ok_or_else(unknown)?)).map_err(log_error)?;
    let position = match &start.position {
        Some(position) => Position::decode(position, &start.id)?,
        None => Position::first(&shard, &options.startup, &options.bounded, isolation)?,
    };
    let origin = SourceShard { stream: stream.name().to_string(), shard: shard.id().0 };
    Ok(ShardReader::new(shard, origin, position, isolation))
}
