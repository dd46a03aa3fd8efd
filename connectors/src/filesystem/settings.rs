//! The options of `'connector' = 'filesystem'`, read once.

use std::sync::LazyLock;
use std::time::Duration;

use coulee_runtime::connector::CommitOn;
use coulee_runtime::options::{OptionKind, OptionSpec, Options};
use coulee_runtime::{Error, Result};
use parquet::basic::{Compression, ZstdLevel};

use crate::format::{self, FormatSettings, RejectSettings};

/// The options of this connector, without those of its record formats.
const FILESYSTEM_OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "path",
        OptionKind::Text,
        None,
        "A file, a folder, a pattern with '*', '**' or '?', a pipe such as '/dev/stdin', or the same as 's3://bucket/...'. A sink takes a folder.",
    ),
    OptionSpec::new(
        "compression",
        OptionKind::Choice(&["auto", "none", "gzip", "zstd"]),
        Some("auto"),
        "How files of lines are compressed. 'auto' goes by the extension: .gz, .zst.",
    ),
    OptionSpec::new(
        "source.path.regex-pattern",
        OptionKind::Text,
        None,
        "A regular expression that the whole path of a file must match to be read.",
    ),
    OptionSpec::new(
        "source.monitor-interval",
        OptionKind::Span,
        None,
        "How often the path is looked at for new files. Absent: those that are there when the job begins are read, and the table ends.",
    ),
    OptionSpec::new(
        "source.record-size.max",
        OptionKind::Bytes,
        Some("128 mb"),
        "The longest record of a file of lines, its line end included. A longer one is treated as 'format.on-error' says.",
    ),
    OptionSpec::new(
        "sink.rolling-policy.file-size",
        OptionKind::Bytes,
        Some("128 mb"),
        "A file is delivered when it is about this large.",
    ),
    OptionSpec::new(
        "sink.rolling-policy.rollover-interval",
        OptionKind::Span,
        Some("5 min"),
        "A file is delivered this long after its first row at the latest.",
    ),
    OptionSpec::new(
        "sink.rolling-policy.row-count",
        OptionKind::Count,
        None,
        "A file is delivered when it has this many rows.",
    ),
    OptionSpec::new(
        "sink.partition.max-open",
        OptionKind::Count,
        Some("500"),
        "How many partitions a subtask fills at a time; beyond it, the oldest file is delivered early.",
    ),
    OptionSpec::new(
        "sink.commit-on",
        OptionKind::Choice(&["checkpoint", "snapshot"]),
        Some("checkpoint"),
        "When finished files become visible: with the checkpoint that lists them, or later, with the snapshot that can be restored on another disk.",
    ),
    OptionSpec::new(
        "parquet.compression",
        OptionKind::Choice(&["zstd", "snappy", "none"]),
        Some("zstd"),
        "How pages of Parquet files are compressed.",
    ),
    OptionSpec::new(
        "s3.endpoint",
        OptionKind::Text,
        None,
        "The URL of an S3-compatible store. Absent: AWS_ENDPOINT_URL, or AWS.",
    ),
    OptionSpec::new("s3.access-key", OptionKind::Text, None, "Absent: AWS_ACCESS_KEY_ID, or the machine's role."),
    OptionSpec::new("s3.secret-key", OptionKind::Text, None, "Absent: AWS_SECRET_ACCESS_KEY."),
    OptionSpec::new("s3.region", OptionKind::Text, None, "Absent: AWS_REGION, or 'us-east-1'."),
    OptionSpec::new(
        "s3.path-style-access",
        OptionKind::Switch,
        None,
        "Whether the bucket is part of the path instead of the host name. Absent: yes when 's3.endpoint' is given.",
    ),
    OptionSpec::new(
        "s3.connection.timeout",
        OptionKind::Span,
        None,
        "How long the store may take for one request, uploads included, before it is given up. Absent: AWS_TIMEOUT, or 1 min.",
    ),
];

/// Every option of the connector and of its formats.
pub fn option_specs() -> Vec<OptionSpec> {
    static NAMES: LazyLock<Vec<&'static str>> =
        LazyLock::new(|| format::FORMATS.iter().map(|format| format.name()).chain(["parquet"]).collect());
    let format = OptionSpec::new(
        "format",
        OptionKind::Choice(NAMES.as_slice()),
        None,
        "What the files hold: a JSON object, delimited fields or a text per line, or Parquet.",
    );
    FILESYSTEM_OPTIONS.iter().copied().chain([format]).chain(format::option_specs()).collect()
}

/// What the files hold.
#[derive(Debug, Clone)]
pub enum FileFormat {
    /// A record per line (CSV: per logical line).
    Lines(Box<FormatSettings>),
    /// Parquet.
    Parquet(RejectSettings),
}

impl FileFormat {
    /// The value of `format`.
    pub fn name(&self) -> &'static str {
        match self {
            FileFormat::Parquet(_) => "parquet",
            FileFormat::Lines(lines) => lines.format.name(),
        }
    }

    /// Reads `format` and what belongs to it.
    ///
    /// # Errors
    /// `Invalid`, naming the option.
    pub fn new(options: &Options) -> Result<Self> {
        match options.require("format")? {
            "parquet" => RejectSettings::new(options).map(FileFormat::Parquet),
            _ => Ok(FileFormat::Lines(Box::new(FormatSettings::new(options)?))),
        }
    }

    /// What happens to what cannot become a row.
    pub fn rejects(&self) -> &RejectSettings {
        match self {
            FileFormat::Lines(lines) => &lines.rejects,
            FileFormat::Parquet(rejects) => rejects,
        }
    }
}

/// How lines are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineCompression {
    /// Not.
    None,
    /// RFC 1952, any number of members.
    Gzip,
    /// RFC 8878, any number of frames.
    Zstd,
}

impl LineCompression {
    /// The compression of a file, by the option or by its name.
    pub fn of(option: Option<&str>, file: &str) -> Self {
        match option {
            Some("none") => LineCompression::None,
            Some("gzip") => LineCompression::Gzip,
            Some("zstd") => LineCompression::Zstd,
            _ if file.ends_with(".gz") => LineCompression::Gzip,
            _ if file.ends_with(".zst") || file.ends_with(".zstd") => LineCompression::Zstd,
            _ => LineCompression::None,
        }
    }
}

/// The longest record of a file of lines, in bytes.
///
/// # Errors
/// `Invalid` when it is 0.
pub fn record_bytes_max(options: &Options) -> Result<u64> {
    match options.bytes("source.record-size.max") {
        Some(0) => {
            let owner = options.owner();
            Err(Error::invalid(format!("{owner}: option 'source.record-size.max' is 0, expected 1 or more")))
        }
        bytes => Ok(bytes.unwrap_or(u64::MAX / 2)),
    }
}

/// How often a source looks for new files; `None` when it does not.
///
/// # Errors
/// `Invalid` when it is 0.
pub fn monitor_interval(options: &Options) -> Result<Option<Duration>> {
    match options.span("source.monitor-interval") {
        Some(Duration::ZERO) => {
            let owner = options.owner();
            Err(Error::invalid(format!("{owner}: option 'source.monitor-interval' is 0, expected '1 s' or so")))
        }
        interval => Ok(interval),
    }
}

/// When a sink delivers what, and in which form.
#[derive(Debug, Clone)]
pub struct SinkSettings {
    /// What the files hold.
    pub format: FileFormat,
    /// How Parquet pages are compressed.
    pub parquet_compression: Compression,
    /// About how large a delivered file is, in bytes.
    pub file_bytes_max: u64,
    /// How many rows a file has.
    pub file_rows_max: u64,
    /// How long the first row of a file waits.
    pub interval: Duration,
    /// How many partitions a subtask fills at a time.
    pub partitions_max: usize,
    /// What must be durable before a finished file becomes visible.
    pub commit_on: CommitOn,
}

impl SinkSettings {
    /// Reads the sink's options.
    ///
    /// # Errors
    /// `Invalid`, naming the option.
    pub fn new(options: &Options) -> Result<Self> {
        let zero = |key: &str| Error::invalid(format!("{}: option '{key}' is 0, expected 1 or more", options.owner()));
        let settings = SinkSettings {
            format: FileFormat::new(options)?,
            parquet_compression: match options.get("parquet.compression") {
                Some("none") => Compression::UNCOMPRESSED,
                Some("snappy") => Compression::SNAPPY,
                _ => Compression::ZSTD(ZstdLevel::default()),
            },
            file_bytes_max: options.bytes("sink.rolling-policy.file-size").unwrap_or(u64::MAX),
            file_rows_max: options.count("sink.rolling-policy.row-count").unwrap_or(u64::MAX),
            interval: options.span("sink.rolling-policy.rollover-interval").unwrap_or(Duration::MAX),
            partitions_max: options.count("sink.partition.max-open").unwrap_or(u64::MAX) as usize,
            commit_on: match options.get("sink.commit-on") {
                Some("snapshot") => CommitOn::Snapshot,
                _ => CommitOn::Checkpoint,
            },
        };
        if settings.file_bytes_max == 0 {
            return Err(zero("sink.rolling-policy.file-size"));
        }
        if settings.file_rows_max == 0 {
            return Err(zero("sink.rolling-policy.row-count"));
        }
        if settings.partitions_max == 0 {
            return Err(zero("sink.partition.max-open"));
        }
        Ok(settings)
    }

    /// The extension of a delivered file.
    pub fn extension(&self) -> &'static str {
        match &self.format {
            FileFormat::Parquet(_) => "parquet",
            FileFormat::Lines(lines) => lines.format.extension(),
        }
    }
}
