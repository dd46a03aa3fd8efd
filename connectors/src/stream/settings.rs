//! The options of a stream's table, read once.

use std::collections::BTreeMap;

use coulee_log::{Compression, Isolation, SHARDS_MAX, StreamSettings, SyncPolicy};
use coulee_model::{StreamName, Timestamp};
use coulee_runtime::options::{OptionKind, OptionSpec, Options};
use coulee_runtime::table::TableSpec;
use coulee_runtime::{Error, Result};

use super::upsert::{self, UpsertKey};
use crate::format::{FormatSettings, format_option, option_specs};

/// Property of a stream: the columns that its records' keys are made of.
const KEY_FIELDS: &str = "key.fields";
/// Property of a stream: how its records are laid out.
const FORMAT: &str = "format";
/// Property of a stream: who made it.
const CREATED_BY: &str = "created-by";

const STREAM_OPTIONS: &[OptionSpec] = &[
    OptionSpec::new("stream", OptionKind::Text, None, "The stream's name. Absent: the table's name."),
    OptionSpec::new(
        "shards",
        OptionKind::Count,
        None,
        "How many shards the stream gets when it is created: 1 if absent. Must be what the stream has if it exists.",
    ),
    OptionSpec::new(
        "key.fields",
        OptionKind::Text,
        None,
        "The columns, separated by ';' or ',', whose text is a record's key: records of one key go to one shard and keep their order. The texts of several are joined by the character U+001F. Without a value in any of them a record has no key.",
    ),
    OptionSpec::new(
        "log.sync",
        OptionKind::Choice(&["group", "interval", "os"]),
        Some("group"),
        "When a new stream acknowledges a record: once it is on the disk (appends share a sync), or once the operating system has it, with a sync every 'log.sync.interval' or when the system likes.",
    ),
    OptionSpec::new(
        "log.sync.interval",
        OptionKind::Span,
        Some("100 ms"),
        "The longest time between a write and its sync when 'log.sync' is 'interval'.",
    ),
    OptionSpec::new(
        "log.compression",
        OptionKind::Choice(&["none", "gzip", "snappy", "lz4", "zstd"]),
        Some("none"),
        "How a new stream compresses records.",
    ),
    OptionSpec::new(
        "retention.time",
        OptionKind::Span,
        None,
        "How long a new stream keeps records at least. Absent: for ever.",
    ),
    OptionSpec::new(
        "retention.bytes",
        OptionKind::Bytes,
        None,
        "How many bytes each shard of a new stream keeps at least. Absent: all.",
    ),
    OptionSpec::new(
        "scan.startup.mode",
        OptionKind::Choice(&["earliest-offset", "latest-offset", "timestamp", "specific-offsets"]),
        Some("earliest-offset"),
        "Where a job without a checkpoint begins to read.",
    ),
    OptionSpec::new(
        "scan.startup.timestamp-millis",
        OptionKind::Count,
        None,
        "For 'timestamp': from the first record of this time or later, in milliseconds since 1970.",
    ),
    OptionSpec::new(
        "scan.startup.specific-offsets",
        OptionKind::Text,
        None,
        "For 'specific-offsets': 'partition:0,offset:42;partition:1,offset:300'. Other shards are read from their beginning.",
    ),
    OptionSpec::new(
        "scan.bounded.mode",
        OptionKind::Choice(&["unbounded", "latest-offset", "timestamp"]),
        Some("unbounded"),
        "Where a job ends to read: never, at what was the end when it first started, or at 'scan.bounded.timestamp-millis'.",
    ),
    OptionSpec::new(
        "scan.bounded.timestamp-millis",
        OptionKind::Count,
        None,
        "For 'timestamp': before the first record of this time or later, or at what is the end when the job first starts.",
    ),
    OptionSpec::new(
        "scan.isolation-level",
        OptionKind::Choice(&["read-committed", "read-uncommitted"]),
        Some("read-committed"),
        "Which records are read: those of committed transactions and those without one, or every record that is stored.",
    ),
    OptionSpec::new(
        "sink.delivery-guarantee",
        OptionKind::Choice(&["exactly-once", "at-least-once"]),
        Some("exactly-once"),
        "'exactly-once' writes a transaction for each checkpoint: its records become visible with it, together, and to uncommitted readers at once. 'at-least-once' makes records visible to all at once, and may repeat some after a failure.",
    ),
    OptionSpec::new(
        "sink.commit-on",
        OptionKind::Choice(&["checkpoint", "snapshot"]),
        Some("checkpoint"),
        "When the transactions of 'exactly-once' are committed: with each checkpoint, or later, with the snapshot that can be restored on another disk.",
    ),
    OptionSpec::new(
        "sink.timestamp-field",
        OptionKind::Text,
        None,
        "The column that becomes the record's timestamp. Absent: a metadata column 'timestamp', or the time of writing.",
    ),
];

/// All options of the connector.
pub(super) fn options() -> Vec<OptionSpec> {
    STREAM_OPTIONS.iter().copied().chain([format_option()]).chain(option_specs()).collect()
}

/// All options of the connector whose records replace each other by key.
pub(super) fn upsert_options() -> Vec<OptionSpec> {
    options().into_iter().filter(|option| option.key != KEY_FIELDS).chain(upsert::OPTIONS).collect()
}

/// Where reading begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Startup {
    Earliest,
    Latest,
    Timestamp(Timestamp),
    /// By shard; the others from their beginning.
    Specific(BTreeMap<u32, u64>),
}

/// Where reading ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Bounded {
    Unbounded,
    Latest,
    Timestamp(Timestamp),
}

/// What a sink promises about each record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Guarantee {
    ExactlyOnce,
    AtLeastOnce,
}

/// The options of one table.
#[derive(Debug, Clone)]
pub(super) struct TableOptions {
    pub(super) stream: StreamName,
    /// When the table says so.
    pub(super) shards: Option<u32>,
    /// What the stream is created with if it is absent.
    pub(super) settings: StreamSettings,
    pub(super) key_fields: Vec<String>,
    pub(super) timestamp_field: Option<String>,
    pub(super) startup: Startup,
    pub(super) bounded: Bounded,
    pub(super) isolation: Isolation,
    pub(super) guarantee: Guarantee,
    commit_on_snapshot: bool,
    pub(super) format: FormatSettings,
    /// Of an 'upsert-stream'.
    pub(super) upsert: Option<UpsertKey>,
}

impl TableOptions {
    /// # Errors
    /// `Invalid`, naming table and option.
    pub(super) fn upserting(table: &TableSpec) -> Result<Self> {
        table.options(upsert_options())?;
        let mut options = Self::new(&upsert::plain(table)?)?;
        options.upsert = Some(UpsertKey::new(table, &options.format)?);
        Ok(options)
    }

    /// # Errors
    /// As [`upserting`](Self::upserting).
    pub(super) fn new(table: &TableSpec) -> Result<Self> {
        let given = table.options(options())?;
        let name = given.get("stream").unwrap_or(&table.name);
        let stream = StreamName::new(name).map_err(|error| {
            let hint = if given.is_given("stream") { "" } else { "; name the stream with the option 'stream'" };
            given.invalid("stream", format_args!("{error}{hint}"))
        })?;
        let shards = given.count("shards").map(|shards| match u32::try_from(shards) {
            Ok(shards) if (1..=SHARDS_MAX).contains(&shards) => Ok(shards),
            _ => Err(wrong(&given, "shards", &format!("1 to {SHARDS_MAX}"))),
        });
        let shards = shards.transpose()?;
        let key_fields = column_list(given.get("key.fields").unwrap_or_default());
        let timestamp_field = given.get("sink.timestamp-field").map(str::to_owned);
        for (option, column) in key_fields
            .iter()
            .map(|column| ("key.fields", column))
            .chain(timestamp_field.iter().map(|column| ("sink.timestamp-field", column)))
        {
            if table.schema.field_with_name(column).is_err() {
                let names: Vec<&str> = table.schema.fields().iter().map(|field| field.name().as_str()).collect();
                let columns = names.join(", ");
                let message = format!("option '{option}' names '{column}', which is no column; there are {columns}");
                return Err(given.invalid(option, message));
            }
        }
        Ok(TableOptions {
            settings: stream_settings(table, &given, shards)?,
            stream,
            shards,
            key_fields,
            timestamp_field,
            startup: startup(&given)?,
            bounded: bounded(&given)?,
            isolation: isolation(&given)?,
            guarantee: guarantee(&given)?,
            commit_on_snapshot: commit_on_snapshot(&given)?,
            format: FormatSettings::new(&given)?,
            upsert: None,
        })
    }

    /// Whether transactions are committed with the snapshot, and not with the checkpoint.
    pub(super) fn commit_on_snapshot(&self) -> bool {
        self.commit_on_snapshot
    }
}

fn wrong(options: &Options, key: &str, expected: &str) -> Error {
    let found = options.get(key).unwrap_or_default();
    options.invalid(key, format_args!("option '{key}' is '{found}', expected {expected}"))
}

fn column_list(text: &str) -> Vec<String> {
    text.split([';', ',']).map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

fn stream_settings(table: &TableSpec, options: &Options, shards: Option<u32>) -> Result<StreamSettings> {
    let sync = match options.require("log.sync")? {
        "interval" => {
            let interval = options.span("log.sync.interval").unwrap_or_default();
            SyncPolicy::Interval { ms: interval.as_millis() as u64 }
        }
        "os" => SyncPolicy::Os,
        _ => SyncPolicy::Group,
    };
    let compression = match options.require("log.compression")? {
        "gzip" => Compression::Gzip,
        "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4,
        "zstd" => Compression::Zstd,
        _ => Compression::None,
    };
    let mut properties = BTreeMap::from([
        (FORMAT.to_owned(), options.require("format")?.to_owned()),
        (CREATED_BY.to_owned(), table.created_by.clone()),
    ]);
    let key_fields = column_list(options.get("key.fields").unwrap_or_default());
    if !key_fields.is_empty() {
        properties.insert(KEY_FIELDS.to_owned(), key_fields.join(";"));
    }
    let settings = StreamSettings {
        shards: shards.unwrap_or(1),
        sync,
        compression,
        retention_ms: options.span("retention.time").map(|span| i64::try_from(span.as_millis()).unwrap_or(i64::MAX)),
        retention_bytes: options.bytes("retention.bytes"),
        properties,
    };
    settings.check().map_err(|error| Error::invalid(format!("{}: {error}", options.owner())))?;
    Ok(settings)
}

/// The settings of a stream that keeps rejected records of a table.
pub(super) fn dead_letter_settings(table: &TableSpec) -> StreamSettings {
    let properties = [(FORMAT, "json"), (CREATED_BY, &table.created_by), ("dead-letters-of", &table.name)];
    let properties = properties.map(|(key, value)| (key.to_owned(), value.to_owned()));
    StreamSettings { properties: BTreeMap::from(properties), ..StreamSettings::default() }
}

fn startup(options: &Options) -> Result<Startup> {
    match options.require("scan.startup.mode")? {
        "latest-offset" => Ok(Startup::Latest),
        "timestamp" => timestamp(options, "scan.startup.timestamp-millis").map(Startup::Timestamp),
        "specific-offsets" => {
            let key = "scan.startup.specific-offsets";
            options.require(key)?;
            let offsets = offsets(options.get(key).unwrap_or_default());
            offsets
                .map(Startup::Specific)
                .ok_or_else(|| wrong(options, key, "pairs such as 'partition:0,offset:42;partition:1,offset:300'"))
        }
        _ => Ok(Startup::Earliest),
    }
}

fn bounded(options: &Options) -> Result<Bounded> {
    match options.require("scan.bounded.mode")? {
        "latest-offset" => Ok(Bounded::Latest),
        "timestamp" => timestamp(options, "scan.bounded.timestamp-millis").map(Bounded::Timestamp),
        _ => Ok(Bounded::Unbounded),
    }
}

fn isolation(options: &Options) -> Result<Isolation> {
    match options.require("scan.isolation-level")? {
        "read-uncommitted" => Ok(Isolation::ReadUncommitted),
        _ => Ok(Isolation::ReadCommitted),
    }
}

fn guarantee(options: &Options) -> Result<Guarantee> {
    match options.require("sink.delivery-guarantee")? {
        "at-least-once" => Ok(Guarantee::AtLeastOnce),
        _ => Ok(Guarantee::ExactlyOnce),
    }
}

fn commit_on_snapshot(options: &Options) -> Result<bool> {
    let on_snapshot = options.require("sink.commit-on")? == "snapshot";
    if on_snapshot && guarantee(options)? == Guarantee::AtLeastOnce {
        let message = "'sink.commit-on' = 'snapshot' commits transactions, which 'sink.delivery-guarantee' = 'at-least-once' does \
             without: leave one of them out";
        return Err(options.invalid("sink.commit-on", message));
    }
    Ok(on_snapshot)
}

fn timestamp(options: &Options, key: &str) -> Result<Timestamp> {
    options.require(key)?;
    let millis = options.count(key).and_then(|millis| i64::try_from(millis).ok());
    millis.map(Timestamp).ok_or_else(|| wrong(options, key, "milliseconds since 1970"))
}

/// Flink's notation of positions.
fn offsets(text: &str) -> Option<BTreeMap<u32, u64>> {
    let pairs = text.split(';').map(str::trim).filter(|pair| !pair.is_empty());
    let offsets: Option<BTreeMap<u32, u64>> = pairs
        .map(|pair| {
            let (partition, offset) = pair.split_once(',')?;
            let number = |text: &'_ str, prefix| text.trim().strip_prefix(prefix)?.trim().parse::<u64>().ok();
            Some((u32::try_from(number(partition, "partition:")?).ok()?, number(offset, "offset:")?))
        })
        .collect();
    offsets.filter(|offsets| !offsets.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_written_as_in_flink() {
        assert_eq!(offsets("partition:0,offset:42;partition:1,offset:300"), Some(BTreeMap::from([(0, 42), (1, 300)])));
        for bad in ["", "0:42", "partition:0", "partition:0,offset:x", "partition:-1,offset:1"] {
            assert_eq!(offsets(bad), None, "{bad}");
        }
    }
}
