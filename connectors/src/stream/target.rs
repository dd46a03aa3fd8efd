//! What the writers of a sink share: the stream that they write to, and how a row becomes a record.

use std::sync::{Arc, OnceLock};

use arrow::datatypes::SchemaRef;
use coulee_log::{Log, LogError, Stream, StreamSettings};
use coulee_model::StreamName;
use coulee_runtime::{Error, Result};

use super::log_error;
use super::rejected::RejectedEncoder;
use super::settings::Guarantee;
use super::upsert::UpsertKey;
use crate::format::{self, FormatSettings, RecordEncoder};

/// The stream that a sink writes to.
#[derive(Debug)]
pub(super) enum Target {
    Existing(Arc<Log>, Arc<Stream>),
    /// Made when the first record is written.
    OnDemand {
        log: Arc<Log>,
        name: StreamName,
        settings: Box<StreamSettings>,
        made: OnceLock<Arc<Stream>>,
    },
}

impl Target {
    /// The stream, which is made now if need be.
    pub(super) fn stream(&self) -> Result<Arc<Stream>> {
        let (log, name, settings, made) = match self {
            Target::Existing(_, stream) => return Ok(Arc::clone(stream)),
            Target::OnDemand { log, name, settings, made } => (log, name, settings, made),
        };
        if let Some(stream) = made.get() {
            return Ok(Arc::clone(stream));
        }
        let stream = match log.create_stream(name, settings.as_ref().clone()) {
            Err(LogError::AlreadyExists { .. }) => log.stream(name),
            created => created,
        };
        let stream = stream.map_err(log_error)?;
        Ok(Arc::clone(made.get_or_init(|| stream)))
    }

    /// The stream, made if need be, with its shards opened: which reads files.
    pub(super) async fn open(self: &Arc<Self>) -> Result<Arc<Stream>> {
        let target = Arc::clone(self);
        let open = move || {
            let stream = target.stream()?;
            stream.shards().iter().try_for_each(|shard| shard.open()).map_err(log_error)?;
            Ok(stream)
        };
        let opened = tokio::task::spawn_blocking(open).await;
        opened.map_err(|cause| Error::internal(format!("opening a stream's shards failed: {cause}")))?
    }

    pub(super) fn log(&self) -> &Arc<Log> {
        match self {
            Target::Existing(log, _) | Target::OnDemand { log, .. } => log,
        }
    }

    pub(super) fn name(&self) -> &StreamName {
        match self {
            Target::Existing(_, stream) => stream.name(),
            Target::OnDemand { name, .. } => name,
        }
    }
}

/// How rows become record bodies.
#[derive(Debug, Clone)]
pub(super) enum Encoding {
    Format(Box<FormatSettings>, SchemaRef),
    /// Rejected records, in the runtime's schema for them.
    Rejected,
}

/// What a record's key is made of.
#[derive(Debug, Clone)]
pub(super) enum RecordKey {
    /// The texts of columns.
    Text(Vec<usize>),
    /// The primary key, by which rows replace each other.
    Upsert(UpsertKey),
}

/// What becomes of a row's columns; shared by the writers.
#[derive(Debug)]
pub(super) struct Recipe {
    /// For messages.
    pub(super) owner: String,
    /// The columns of the body, if they are not all.
    pub(super) body: Option<Vec<usize>>,
    pub(super) key: RecordKey,
    /// The column of the record's timestamp.
    pub(super) timestamp: Option<usize>,
    pub(super) guarantee: Guarantee,
    pub(super) commit_on_snapshot: bool,
    pub(super) encoding: Encoding,
}

impl Recipe {
    /// Whether records say that a row is updated or deleted.
    pub(super) fn takes_changes(&self) -> bool {
        match (&self.key, &self.encoding) {
            (RecordKey::Upsert(_), _) => true,
            (_, Encoding::Format(settings, _)) => settings.format.is_changelog(),
            (_, Encoding::Rejected) => false,
        }
    }

    pub(super) fn encoder(&self) -> Result<Box<dyn RecordEncoder>> {
        match &self.encoding {
            Encoding::Format(settings, schema) => format::encoder(settings, schema),
            Encoding::Rejected => Ok(Box::new(RejectedEncoder)),
        }
    }
}
