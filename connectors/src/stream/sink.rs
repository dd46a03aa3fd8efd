//! The sink: recovery, and what its writers share.

use std::sync::{Arc, OnceLock};

use arrow::datatypes::DataType;
use async_trait::async_trait;
use bytes::Bytes;
use coulee_log::{Log, Stream, StreamSettings};
use coulee_model::{CheckpointId, StreamName, SubtaskIndex};
use coulee_runtime::connector::{CommitOn, Sink, SinkCommitter, SinkContext, SinkWriter};
use coulee_runtime::metrics::SubtaskMetrics;
use coulee_runtime::state::Facet;
use coulee_runtime::table::TableSpec;
use coulee_runtime::{Error, Result};
use futures::future::join_all;

use super::layout::{self, Metadata};
use super::log_error;
use super::settings::{Guarantee, TableOptions};
use super::state::{Names, Transactions};
use super::target::{Encoding, Recipe, RecordKey, Target};
use super::writer::{APPEND_ONLY, StreamWriter};

/// Writes rows to a stream, exactly once unless the table asks for less.
#[derive(Debug)]
pub(super) struct StreamSink {
    target: Arc<Target>,
    recipe: Arc<Recipe>,
}

impl StreamSink {
    /// A sink of a table's rows.
    pub(super) fn of_table(
        table: &TableSpec,
        options: &TableOptions,
        log: Arc<Log>,
        stream: Arc<Stream>,
    ) -> Result<Self> {
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
            key: match &options.upsert {
                Some(key) => RecordKey::Upsert(key.clone()),
                None => RecordKey::Text(options.key_fields.iter().map(index).collect::<Result<_>>()?),
            },
            timestamp,
            guarantee: options.guarantee,
            commit_on_snapshot: options.commit_on_snapshot(),
            encoding: Encoding::Format(Box::new(options.format.clone()), schema),
        };
        // Made once here to refuse what the format cannot write.
        recipe.encoder()?;
        Ok(StreamSink { target: Arc::new(Target::Existing(log, stream)), recipe: Arc::new(recipe) })
    }

    /// A sink of rejected records, whose stream is made when there is one.
    pub(super) fn of_rejected(log: Arc<Log>, name: StreamName, settings: StreamSettings) -> Self {
        let recipe = Recipe {
            owner: format!("stream '{name}'"),
            body: None,
            key: RecordKey::Text(Vec::new()),
            timestamp: None,
            guarantee: Guarantee::ExactlyOnce,
            commit_on_snapshot: false,
            encoding: Encoding::Rejected,
        };
        let target = Target::OnDemand { log, name, settings: Box::new(settings), made: OnceLock::new() };
        StreamSink { target: Arc::new(target), recipe: Arc::new(recipe) }
    }
}

#[async_trait]
impl Sink for StreamSink {
    fn describe(&self) -> String {
        let guarantee = match (self.recipe.guarantee, self.recipe.commit_on_snapshot) {
            (Guarantee::AtLeastOnce, _) => "at least once",
            (Guarantee::ExactlyOnce, false) => "exactly once",
            (Guarantee::ExactlyOnce, true) => "exactly once, committed with the snapshot",
        };
        format!("stream '{}', {guarantee}", self.target.name())
    }

    /// What a writer prepared is in the stream already, whatever is written next.
    fn identity(&self) -> Vec<Facet> {
        vec![Facet::new("connector", "stream"), Facet::new("stream", self.target.name().to_string())]
    }

    fn refuses_changelog(&self) -> Option<&'static str> {
        (!self.recipe.takes_changes()).then_some(APPEND_ONLY)
    }

    fn is_upsert(&self) -> bool {
        matches!(self.recipe.key, RecordKey::Upsert(_))
    }

    fn may_reject(&self) -> bool {
        // A dead letter is cut to what the log takes.
        matches!(self.recipe.encoding, Encoding::Format(..))
    }

    fn commit_on(&self) -> CommitOn {
        if self.recipe.commit_on_snapshot { CommitOn::Snapshot } else { CommitOn::Checkpoint }
    }

    async fn recover(&self, context: &SinkContext, states: &[Bytes], committables: &[Bytes]) -> Result<()> {
        let (log, names) = (self.target.log(), Names::new(context));
        // Before there were committables, a writer's state listed its transactions.
        let listed = states.iter().filter(|state| !state.is_empty());
        commit_all(log, listed.chain(committables)).await?;
        // What is left was written after the checkpoint, and will be written again.
        let left = log.open_transactions(names.prefix()).into_iter().filter(|transaction| names.is_own(transaction));
        let aborts: Vec<_> = left.map(|transaction| log.abort_transaction(&transaction)).collect();
        for aborted in join_all(aborts).await {
            aborted.map_err(log_error)?;
        }
        Ok(())
    }

    async fn committer(&self, _: &SinkContext) -> Result<Box<dyn SinkCommitter>> {
        Ok(Box::new(StreamCommitter(self.target.log().clone())))
    }

    /// Recovery has committed what was prepared: a writer begins with nothing.
    async fn open(
        &self,
        context: &SinkContext,
        subtask: SubtaskIndex,
        _states: &[Bytes],
        metrics: Arc<SubtaskMetrics>,
    ) -> Result<Box<dyn SinkWriter>> {
        let (target, recipe) = (Arc::clone(&self.target), Arc::clone(&self.recipe));
        Ok(Box::new(StreamWriter::new(target, recipe, context, subtask, metrics)?))
    }
}

/// Commits the transactions that the writers prepared.
struct StreamCommitter(Arc<Log>);

#[async_trait]
impl SinkCommitter for StreamCommitter {
    async fn commit(&mut self, _: CheckpointId, committables: Vec<Bytes>) -> Result<()> {
        commit_all(&self.0, &committables).await
    }
}

/// Commits all transactions at once, so that they share their syncs.
async fn commit_all<'a>(log: &Log, committables: impl IntoIterator<Item = &'a Bytes>) -> Result<()> {
    let mut transactions = Vec::new();
    for committable in committables {
        transactions.extend(Transactions::decode(committable)?.prepared);
    }
    let commits = transactions.iter().map(|transaction| log.commit_transaction(transaction));
    for committed in join_all(commits).await {
        committed.map_err(log_error)?;
    }
    Ok(())
}
