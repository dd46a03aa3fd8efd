//! The job: two streams in, three ways out.
//!
//! ```text
//! readings ─┬─ count, sum, max per sensor and second ─────────▶ windows   Parquet
//!           ├─ value >= 900 ───────────────────────────────────▶ large     stream
//!           └─ ∪ commands ─ sessions per sensor ───────────────▶ sessions  stream
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use coulee_connectors::log::Log;
use coulee_connectors::{FilesystemConnector, StreamConnector};
use coulee_runtime::Result;
use coulee_runtime::connector::{Sink, Source};
use coulee_runtime::flow::{Flow, GraphBuilder, col, lit};
use coulee_runtime::graph::{Graph, NodeKind};
use coulee_runtime::table::{Connector, TableSpec};
use datafusion_functions_aggregate::expr_fn::{count, max, sum};

use crate::input::{COMMANDS, DISORDER, Input, READINGS};
use crate::sessions::{self, Sessions};
use crate::settings::Settings;
use crate::up_to::UpTo;

/// What the windows cover.
const WINDOW: Duration = Duration::from_secs(1);

/// A reading is large from here on.
const LARGE: i64 = 900;

/// The graph over the streams of a log, which are made if they are absent.
///
/// # Errors
/// When a stream cannot be made or an option is wrong.
pub fn build(log: &Arc<Log>, settings: &Settings) -> Result<Graph> {
    let streams = StreamConnector::new(log.clone());
    let builder = GraphBuilder::new(settings.parallelism);
    let readings = source(&builder, &streams, READINGS, settings)?;
    let commands = source(&builder, &streams, COMMANDS, settings)?;

    let aggregates =
        [count(lit(1i64)).alias("readings"), sum(col("value")).alias("total"), max(col("value")).alias("highest")];
    let windows = readings.clone().key_by(["sensor"])?.tumble("windows", "at", WINDOW, aggregates)?;
    let parquet = parquet(settings, windows.schema().clone())?;
    windows.sink("windows-out", parquet)?;

    let large = readings.clone().filter(col("value").gt_eq(lit(LARGE)))?;
    let large = large.select(["shard", "sequence", "sensor", "value"].map(col))?;
    let out = stream_sink(&streams, "large", large.schema().clone())?;
    large.sink("large-out", out)?;

    let columns = || ["sensor", "at", "value"].map(col);
    let all = readings.select(columns())?.union(commands.select(columns())?)?;
    let sessions = all.key_by(["sensor"])?.process("sessions", sessions::schema(), || Sessions)?;
    let out = stream_sink(&streams, "sessions", sessions.schema().clone())?;
    sessions.sink("sessions-out", out)?;

    let mut graph = builder.finish()?;
    pace(&mut graph, settings.rate);
    Ok(graph)
}

fn source<'a>(
    builder: &'a GraphBuilder,
    streams: &StreamConnector,
    input: Input,
    settings: &Settings,
) -> Result<Flow<'a>> {
    let columns = [
        ("at", DataType::Timestamp(TimeUnit::Millisecond, None)),
        ("shard", DataType::Int32),
        ("sequence", DataType::Int64),
        ("sensor", DataType::Utf8),
        ("value", DataType::Int64),
    ];
    let schema = Arc::new(Schema::new(columns.map(|(name, kind)| Field::new(name, kind, true)).to_vec()));
    let shards = input.shards.to_string();
    let mut table = table(input.name, schema, [("shards", shards.as_str()), ("format.on-error", "fail")]);
    let metadata = [("at", "timestamp"), ("shard", "shard"), ("sequence", "sequence")];
    table.metadata_columns = metadata.map(|(column, key)| (column.to_owned(), key.to_owned())).into();
    streams.create(&table)?;
    let inner: Arc<dyn Source> = streams.source(&table, &[0, 1, 2, 3, 4])?;
    let source = Arc::new(UpTo { inner, records: input.records_per_shard(settings) });
    let flow = builder.source(input.name, source)?.event_time("at", DISORDER)?;
    // A producer that was killed is not idle: it goes on where it was, and its records must not be late.
    flow.adjust_event_time(|time| time.idle_timeout = None)
}

fn stream_sink(streams: &StreamConnector, name: &str, schema: SchemaRef) -> Result<Arc<dyn Sink>> {
    let table = table(name, schema, [("shards", "2"), ("key.fields", "sensor")]);
    streams.create(&table)?;
    streams.sink(&table)
}

fn parquet(settings: &Settings, schema: SchemaRef) -> Result<Arc<dyn Sink>> {
    let here = settings.data.join("out").display().to_string();
    let path = settings.out.as_deref().unwrap_or(&here);
    let options = [
        ("path", path),
        ("format", "parquet"),
        ("sink.rolling-policy.row-count", "40"),
        ("sink.rolling-policy.rollover-interval", "300 ms"),
    ];
    let mut table = table("windows", schema, options);
    if let Some(endpoint) = &settings.s3_endpoint {
        let s3 = [
            ("s3.endpoint", endpoint.as_str()),
            ("s3.access-key", "test"),
            ("s3.secret-key", "test"),
            ("s3.region", "us-east-1"),
        ];
        table.options.extend(s3.map(|(key, value)| (key.to_owned(), value.to_owned())));
    }
    FilesystemConnector::new(&settings.data, None).sink(&table)
}

fn table<const N: usize>(name: &str, schema: SchemaRef, options: [(&str, &str); N]) -> TableSpec {
    TableSpec {
        name: name.to_owned(),
        schema,
        metadata_columns: BTreeMap::new(),
        primary_key: Vec::new(),
        partitioned_by: Vec::new(),
        options: options.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        created_by: "pipeline".to_owned(),
    }
}

/// Keeps each source to its rate.
fn pace(graph: &mut Graph, rate: f64) {
    if rate <= 0.0 {
        return;
    }
    for node in &mut graph.nodes {
        let slower = if node.uid == COMMANDS.name { 5.0 } else { 1.0 };
        if let NodeKind::Source(source) = &mut node.kind {
            source.rate_limit = Some(rate / slower);
        }
    }
}
