//! The sink: recovery, and what its writers share.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use arrow::datatypes::{DataType, SchemaRef};
use async_trait::async_trait;
use bytes::Bytes;
use coulee_log::{Log, LogError, Stream, StreamSettings};
use coulee_model::{StreamName, SubtaskIndex};
use coulee_runtime::connector::{Sink, SinkContext, SinkWriter};
use coulee_runtime::metrics::SubtaskMetrics;
use coulee_runtime::table::TableSpec;
use coulee_runtime::{Error, Result};

use super::dead_letters::RejectedEncoder;
use super::delivery::deliver;
use super::layout::{self, Metadata};
use super::settings::TableOptions;
use super::state::WriterState;
use super::writer::StreamWriter;
use super::{log_error, staged};
use crate::format::{self, FormatSettings, RecordEncoder};

/// The stream that a sink writes to.
#[derive(Debug)]
pub(super) enum Target {
    Existing(Arc<Stream>),
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
            Target::Existing(stream) => return Ok(Arc::clone(stream)),
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

    fn name(&self) -> &StreamName {
        match self {
            Target::Existing(stream) => stream.name(),
            Target::OnDemand { name, .. } => name,
        }
    }
}

/// How rows become record bodies.
#[derive(Debug, Clone)]
enum Encoding {
    Format(Box<FormatSettings>, SchemaRef),
    /// Rejected records, in the runtime's schema for them.
    Rejected,
}

/// What becomes of a row's columns; shared by the writers.
#[derive(Debug)]
pub(super) struct Recipe {
    /// For messages.
    pub(super) owner: String,
    /// The columns of the body, if they are not all.
    pub(super) body: Option<Vec<usize>>,
    /// The columns of the key.
    pub(super) key: Vec<usize>,
    /// The column of the record's timestamp.
    pub(super) timestamp: Option<usize>,
    encoding: Encoding,
}

impl Recipe {
    pub(super) fn encoder(&self) -> Result<Box<dyn RecordEncoder>> {
        match &self.encoding {
            Encoding::Format(settings, schema) => format::encoder(settings, schema),
            Encoding::Rejected => Ok(Box::new(RejectedEncoder)),
        }
    }
}

/// Writes rows to a stream, exactly once.
#[derive(Debug)]
pub(super) struct StreamSink {
    target: Arc<Target>,
    recipe: Arc<Recipe>,
}

impl StreamSink {
    /// A sink of a table's rows.
    pub(super) fn of_table(table: &TableSpec, options: &TableOptions, stream: Arc<Stream>) -> Result<Self> {
        let index = |name: &String| Ok(table.schema.index_of(name)?);
        let mut timestamp = options.timestamp_field.as_ref().map(index).transpose()?;
        let mut body = Vec::new();
        for (i, field) in table.schema.fields().iter().enumerate() {
            match layout::metadata(table, field.name())? {
                None => body.push(i),
                Some(Metadata::Timestamp) if timestamp.is_none() => timestamp = Some(i),
                // What the log decides cannot be written.
                Some(_) => {}
            }
        }
        if let Some(field) = timestamp.map(|i| table.schema.field(i))
            && !matches!(field.data_type(), DataType::Timestamp(..))
        {
            return Err(Error::invalid(format!(
                "table '{}': column '{}' is {}, expected TIMESTAMP(3) for the record's timestamp",
                table.name,
                field.name(),
                field.data_type()
            )));
        }
        let schema = Arc::new(table.schema.project(&body)?);
        let recipe = Recipe {
            owner: format!("table '{}'", table.name),
            body: (body.len() < table.schema.fields().len()).then_some(body),
            key: options.key_fields.iter().map(index).collect::<Result<_>>()?,
            timestamp,
            encoding: Encoding::Format(Box::new(options.format.clone()), schema),
        };
        // Made once here to refuse what the format cannot write.
        recipe.encoder()?;
        Ok(StreamSink { target: Arc::new(Target::Existing(stream)), recipe: Arc::new(recipe) })
    }

    /// A sink of rejected records, whose stream is made when there is one.
    pub(super) fn of_rejected(log: Arc<Log>, name: StreamName, settings: StreamSettings) -> Self {
        let recipe = Recipe {
            owner: format!("stream '{name}'"),
            body: None,
            key: Vec::new(),
            timestamp: None,
            encoding: Encoding::Rejected,
        };
        let target = Target::OnDemand { log, name, settings: Box::new(settings), made: OnceLock::new() };
        StreamSink { target: Arc::new(target), recipe: Arc::new(recipe) }
    }
}

#[async_trait]
impl Sink for StreamSink {
    fn describe(&self) -> String {
        format!("stream '{}', exactly once", self.target.name())
    }

    async fn recover(&self, context: &SinkContext, states: &[Bytes]) -> Result<()> {
        let mut listed = BTreeSet::new();
        for state in states {
            let mut state = WriterState::decode(state)?;
            for staged in &state.staged {
                let stream = self.target.stream()?;
                deliver(&stream, &context.spool, staged, state.producer, &mut state.numbering).await?;
                listed.insert((staged.subtask, staged.number));
            }
        }
        // Those that are listed stay until a checkpoint does not list them: this may run again with the same states.
        blocking(context.spool.clone(), move |spool| {
            for (subtask, number, path) in staged::list(&spool)? {
                if !listed.contains(&(subtask, number)) {
                    staged::remove(&path)?;
                }
            }
            Ok(())
        })
        .await
    }

    async fn open(
        &self,
        context: &SinkContext,
        subtask: SubtaskIndex,
        states: &[Bytes],
        metrics: Arc<SubtaskMetrics>,
    ) -> Result<Box<dyn SinkWriter>> {
        let mut inherited = Vec::new();
        for state in states {
            inherited.extend(WriterState::decode(state)?.staged.iter().map(|staged| staged.path(&context.spool)));
        }
        let files = blocking(context.spool.clone(), |spool| staged::list(&spool)).await?;
        let used = files.iter().filter(|(of, ..)| *of == subtask.0).map(|(_, number, _)| *number).max();
        let first_file = used.map_or(1, |number| number + 1);
        let writer = StreamWriter::new(
            Arc::clone(&self.target),
            Arc::clone(&self.recipe),
            context,
            subtask,
            first_file,
            inherited,
            metrics,
        )?;
        Ok(Box::new(writer))
    }
}

/// Does what blocks for the disk where that is allowed.
pub(super) async fn blocking<T: Send + 'static>(
    spool: PathBuf,
    work: impl FnOnce(PathBuf) -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(move || work(spool)).await;
    done.map_err(|cause| Error::internal(format!("a sink's work on its spool folder failed: {cause}")))?
}
