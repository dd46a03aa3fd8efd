//! Makes the tasks of a graph: opens sources, sinks and operators at the last checkpoint, and joins them by channels.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use coulee_checkpoint::{StateKey, TableId};
use coulee_model::{KeyGroup, OperatorId, SubtaskIndex, Timestamp};
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;

use super::spec::{Environment, JobSpec};
use super::stored::StoredJob;
use super::tasks::{Committer, TaskEnd, Tasks, report_failure};
use crate::batch::BATCH_ROWS;
use crate::channel::{Receiver, Sender, channel};
use crate::connector::{
    CommitOn, Enumeration, KnownSplits, Sink, SinkCommitter, SinkContext, SourceContext, SplitEnumerator, SplitId,
    SplitStart,
};
use crate::graph::{Graph, Node, NodeKind, Partitioning, SourceNode};
use crate::job::chain::{Chain, Link, SinkEnd};
use crate::job::committable::COMMITTABLES;
use crate::job::committer::CommitterTask;
use crate::job::enumerator::{EnumeratorTask, Finished};
use crate::job::executor::Executor;
use crate::job::route::Route;
use crate::job::source_task::{FINISHED_SPLITS, PlaceNames, RateLimiter, SPLITS, SourceTask, Splits, parse_split};
use crate::job::source_watermark::SourceWatermark;
use crate::job::task::Task;
use crate::job::watermark_alignment::AlignmentGroups;
use crate::job::{Control, TaskId};
use crate::metrics::{self, Figures, JobMetrics, Merge, RowErrorFigures, SubtaskMetrics};
use crate::operator::{InputIndex, OpenContext};
use crate::row_errors::policy::RowPolicies;
use crate::state::MemoryBudget;
use crate::{Error, Result};

/// The table of a sink's states: `subtask u32 | parallelism u32` to what its writer prepared.
const SINK_STATES: TableId = TableId(1);

/// Counters for every subtask, at what they were at the stored checkpoint.
pub(super) fn metrics(graph: &Graph, stored: &StoredJob) -> JobMetrics {
    let mut all = Vec::new();
    for node in &graph.nodes {
        for subtask in 0..node.parallelism {
            let mut before = Figures::default();
            for (operator, old, totals) in &stored.totals {
                // After a change of parallelism, what former subtasks counted is carried on by the present ones in turn.
                if *operator == node.uid && old % node.parallelism == subtask {
                    before.merge(totals, |_| Merge::Sum);
                }
            }
            let metrics = SubtaskMetrics::restored(node.id, SubtaskIndex(subtask), before);
            if let NodeKind::Sink(_) = node.kind {
                // Known to be zero before the first delivery.
                metrics::builtin::OF_SINKS.iter().for_each(|metric| drop(metrics.register(metric)));
            }
            metrics.restore_row_errors(row_errors(stored, node, subtask));
            all.push(Arc::new(metrics));
        }
    }
    Arc::new(all)
}

/// The rows that failed in what this subtask carries on, by table and stage.
fn row_errors(stored: &StoredJob, node: &Node, subtask: u32) -> Vec<RowErrorFigures> {
    let mine = stored.row_errors.iter().filter(|(uid, old, _)| *uid == node.uid && old % node.parallelism == subtask);
    let mut sums: Vec<RowErrorFigures> = Vec::new();
    for figures in mine.flat_map(|(_, _, figures)| figures) {
        match sums.iter_mut().find(|sum| sum.table == figures.table && sum.stage == figures.stage) {
            Some(sum) => sum.rows += figures.rows,
            None => sums.push(figures.clone()),
        }
    }
    sums
}

/// Channels by edge (its index in the graph), upstream subtask and downstream subtask.
struct Channels {
    senders: BTreeMap<(usize, u32), Vec<Sender>>,
    receivers: BTreeMap<(OperatorId, u32), Vec<(InputIndex, Receiver)>>,
}

/// A channel from every upstream subtask to every downstream one that it may send to.
fn channels(graph: &Graph, chained: &BTreeSet<(OperatorId, OperatorId)>) -> Channels {
    let mut channels = Channels { senders: BTreeMap::new(), receivers: BTreeMap::new() };
    for (index, edge) in graph.edges.iter().enumerate() {
        if chained.contains(&(edge.from, edge.to)) {
            continue;
        }
        for up in 0..graph.node(edge.from).parallelism {
            for down in 0..graph.node(edge.to).parallelism {
                let (sender, receiver) = channel();
                channels.senders.entry((index, up)).or_default().push(sender);
                // A forward edge uses one of them only; the others' receivers must not be waited for.
                if !matches!(edge.partitioning, Partitioning::Forward) || up == down {
                    channels.receivers.entry((edge.to, down)).or_default().push((edge.input, receiver));
                }
            }
        }
    }
    channels
}

/// Opens everything, then starts the tasks.
///
/// SUBTLE: nothing runs before all is open. A task that was started while another sink is still recovering would outlive a failure of
/// that one for a moment, and write beside the next attempt.
pub(super) async fn wire(
    spec: &JobSpec,
    environment: &Environment,
    metrics: &JobMetrics,
    budget: &Arc<MemoryBudget>,
    executor: &Arc<dyn Executor>,
) -> Result<Tasks> {
    let chains = spec.graph.chains();
    let chained = chains.iter().flat_map(|chain| chain.windows(2).map(|pair| (pair[0], pair[1]))).collect();
    let mut channels = channels(&spec.graph, &chained);
    let (reports, received) = mpsc::unbounded_channel();
    let mut tasks = Tasks {
        running: FuturesUnordered::new(),
        controls: Vec::new(),
        sources: BTreeSet::new(),
        committers: Vec::new(),
        sinks: BTreeMap::new(),
        recovered: Vec::new(),
        reports: received,
    };
    let alignment = AlignmentGroups::default();
    let builder = Builder { spec, environment, metrics, budget, executor, alignment };
    let mut starts: Vec<BoxFuture<'static, TaskEnd>> = Vec::new();
    let mut committers: Vec<(OperatorId, Box<dyn SinkCommitter>)> = Vec::new();
    for chain in &chains {
        let parallelism = spec.graph.node(chain[0]).parallelism;
        let mut source = builder.source(chain[0]).await?;
        let end = chain[chain.len() - 1];
        let sink = builder.sink(end).await?;
        if let Some(sink) = &sink {
            // Its number comes once all tasks have theirs.
            committers.push((end, sink.committer().await.map_err(|error| spec.graph.node(end).error(error))?));
            tasks.recovered.extend(sink.recovered.iter().cloned());
        }
        for subtask in (0..parallelism).map(SubtaskIndex) {
            let id = TaskId(tasks.controls.len());
            let mut links = Vec::with_capacity(chain.len());
            for node in chain {
                links.push(builder.link(*node, subtask, &mut channels).await?);
            }
            let sink = match &sink {
                Some(sink) => {
                    let opened = sink.open(subtask, builder.metrics_of(sink.operator, subtask)).await;
                    Some(opened.map_err(|error| spec.graph.node(sink.operator).error(error))?)
                }
                None => None,
            };
            if sink.is_some() {
                tasks.sinks.insert(id, committers.len() - 1);
            }
            let (control, controlled) = mpsc::unbounded_channel();
            let task = Task {
                id,
                chain: Chain { links, sink, batch_rows: spec.settings.batch_rows },
                reports: reports.clone(),
                control: controlled,
                clock: environment.clock.clone(),
                executor: executor.clone(),
            };
            let reports = reports.clone();
            match &mut source {
                Some(source) => {
                    let metrics = builder.metrics_of(chain[0], subtask);
                    let opened = source.open(task, subtask, metrics, &builder.alignment).await;
                    let task = opened.map_err(|error| spec.graph.node(chain[0]).error(error))?;
                    tasks.sources.insert(id);
                    starts.push(Box::pin(async move { report_failure(&reports, task.run().await) }));
                }
                None => {
                    let receivers = channels.receivers.remove(&(chain[0], subtask.0)).unwrap_or_default();
                    starts.push(Box::pin(async move { report_failure(&reports, task.run(receivers).await) }));
                }
            }
            tasks.controls.push(control);
        }
        if let Some(discovery) = source.and_then(|source| source.discovery) {
            let subtasks = tasks.controls[tasks.controls.len() - parallelism as usize..].to_vec();
            let (task, reports) = (discovery.task(subtasks), reports.clone());
            starts.push(Box::pin(async move { report_failure(&reports, task.run().await) }));
        }
    }
    for (node, committer) in committers {
        let id = TaskId(tasks.controls.len() + tasks.committers.len());
        let (requests, requested) = mpsc::unbounded_channel();
        let (uid, metrics) = (spec.graph.node(node).uid.clone(), builder.metrics_of(node, SubtaskIndex(0)));
        let task = CommitterTask { id, uid, committer, requests: requested, reports: reports.clone(), metrics };
        tasks.committers.push(Committer { id, requests, commit_on: builder.commit_on(node) });
        let reports = reports.clone();
        starts.push(Box::pin(async move { report_failure(&reports, task.run().await) }));
    }
    for start in starts {
        tasks.running.push(executor.start(start));
    }
    Ok(tasks)
}

struct Builder<'a> {
    spec: &'a JobSpec,
    environment: &'a Environment,
    metrics: &'a JobMetrics,
    budget: &'a Arc<MemoryBudget>,
    executor: &'a Arc<dyn Executor>,
    alignment: AlignmentGroups,
}

impl<'a> Builder<'a> {
    fn metrics_of(&self, operator: OperatorId, subtask: SubtaskIndex) -> Arc<SubtaskMetrics> {
        let mut all = self.metrics.iter();
        let found = all.find(|metrics| metrics.operator == operator && metrics.subtask == subtask);
        found.expect("metrics exist for every subtask of the graph").clone()
    }

    fn commit_on(&self, id: OperatorId) -> CommitOn {
        match &self.spec.graph.node(id).kind {
            NodeKind::Sink(sink) => sink.commit_on(),
            NodeKind::Source(_) | NodeKind::Operator(_) => CommitOn::default(),
        }
    }

    async fn link(&self, id: OperatorId, subtask: SubtaskIndex, channels: &mut Channels) -> Result<Link> {
        let node = self.spec.graph.node(id);
        let metrics = self.metrics_of(id, subtask);
        let operator = match &node.kind {
            NodeKind::Operator(factory) => {
                let mut operator = factory.create(subtask).map_err(|e| e.at(format!("operator '{}'", node.uid)))?;
                operator.open(&OpenContext {
                    operator: node.state,
                    subtask,
                    parallelism: node.parallelism,
                    store: &self.environment.store,
                    metrics: metrics.clone(),
                    budget: self.budget,
                    clock: &self.environment.clock,
                    executor: self.executor,
                })?;
                if let Some(loading) = operator.loading() {
                    loading.await?;
                }
                Some(operator)
            }
            NodeKind::Source(_) | NodeKind::Sink(_) => None,
        };
        let mut routes = Vec::new();
        for (index, edge) in self.spec.graph.edges.iter().enumerate().filter(|(_, edge)| edge.from == id) {
            if let Some(senders) = channels.senders.remove(&(index, subtask.0)) {
                routes.push((edge.port, Route::new(edge.to, edge.partitioning.clone(), subtask.0 as usize, senders)));
            }
        }
        let policies = RowPolicies::of_node(&self.spec.graph, id);
        Ok(Link { uid: node.uid.clone(), metrics, operator, routes, policies })
    }

    /// A source with the splits that are to be read.
    async fn source(&self, id: OperatorId) -> Result<Option<OpenSource<'a>>> {
        let node = self.spec.graph.node(id);
        let NodeKind::Source(source) = &node.kind else { return Ok(None) };
        let (known, reached) = self.known_splits(node.state)?;
        let Enumeration { mut splits, discovery } =
            source.source.enumerate(known).await.map_err(|error| node.error(error))?;
        splits.sort_by(|a, b| a.id.cmp(&b.id));
        let discovery = discovery.map(|enumerator| Discovery::new(node, splits.len(), enumerator));
        Ok(Some(OpenSource {
            state: node.state,
            parallelism: node.parallelism,
            source,
            splits,
            discovery,
            reached,
            merged: Arc::new(SourceWatermark::restore(&self.environment.store, node.state, node.parallelism)?),
            environment: self.environment,
            budget: self.budget,
        }))
    }

    /// The splits that the stored checkpoint has of a source, and the watermarks of those that are unfinished.
    fn known_splits(&self, state: OperatorId) -> Result<(KnownSplits, BTreeMap<SplitId, Timestamp>)> {
        let id = |key: &[u8]| SplitId(String::from_utf8_lossy(&key[2..]).into_owned());
        let (mut known, mut reached) = (KnownSplits::default(), BTreeMap::new());
        for entry in self.environment.store.scan(state, SPLITS) {
            let (key, value) = entry?;
            let (watermark, position) = parse_split(&value)?;
            let split = SplitStart { id: id(&key), position: Some(position) };
            // Before there was a table of finished splits, they stayed here with the last of all watermarks.
            if watermark == Timestamp::MAX {
                known.finished.push(split);
            } else {
                reached.insert(split.id.clone(), watermark);
                known.unfinished.push(split);
            }
        }
        for entry in self.environment.store.scan(state, FINISHED_SPLITS) {
            let (key, value) = entry?;
            known.finished.push(SplitStart { id: id(&key), position: Some(value) });
        }
        known.finished.sort_by(|a, b| a.id.cmp(&b.id));
        Ok((known, reached))
    }

    async fn sink(&self, id: OperatorId) -> Result<Option<OpenSink>> {
        let node = self.spec.graph.node(id);
        let NodeKind::Sink(sink) = &node.kind else { return Ok(None) };
        let context = SinkContext {
            job: self.spec.name.clone(),
            incarnation: self.spec.incarnation.clone(),
            uid: node.uid.clone(),
            spool: self.environment.spool.join(folder_name(&node.uid)),
            clock: self.environment.clock.clone(),
        };
        let mut states = Vec::new();
        for entry in self.environment.store.scan(node.state, SINK_STATES) {
            let (key, value) = entry?;
            let parts = key.get(2..10).and_then(|rest| <[u8; 8]>::try_from(rest).ok());
            let parts = parts.ok_or_else(|| Error::corrupt("the key of a sink's state has not 8 bytes"))?;
            states.push((u64::from_be_bytes(parts), value));
        }
        let values: Vec<Bytes> = states.iter().map(|(_, value)| value.clone()).collect();
        let (mut recovered, mut committables) = (Vec::new(), Vec::new());
        for entry in self.environment.store.scan(node.state, COMMITTABLES) {
            let (key, value) = entry?;
            recovered.push(StateKey::new(node.state, COMMITTABLES, KeyGroup(0), key.get(2..).unwrap_or_default()));
            committables.push(value);
        }
        fail::fail_point!("sink.recover.before", |_| Err(crate::failpoints::injected("sink.recover.before")));
        sink.recover(&context, &values, &committables).await.map_err(|error| node.error(error))?;
        fail::fail_point!("sink.recover.after", |_| Err(crate::failpoints::injected("sink.recover.after")));
        Ok(Some(OpenSink {
            operator: id,
            state: node.state,
            parallelism: node.parallelism,
            sink: sink.clone(),
            context,
            states,
            recovered,
        }))
    }
}

/// A uid as the name of a folder.
fn folder_name(uid: &str) -> String {
    uid.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' }).collect()
}

/// What becomes the task of a source's enumerator.
struct Discovery {
    enumerator: Box<dyn SplitEnumerator>,
    uid: String,
    reading: Vec<usize>,
    finished: mpsc::UnboundedSender<Finished>,
    heard: mpsc::UnboundedReceiver<Finished>,
}

impl Discovery {
    /// Of a source with so many splits, which its subtasks are dealt in turn.
    fn new(node: &Node, splits: usize, enumerator: Box<dyn SplitEnumerator>) -> Self {
        let parallelism = node.parallelism as usize;
        let reading =
            (0..parallelism).map(|subtask| splits / parallelism + usize::from(subtask < splits % parallelism));
        let (finished, heard) = mpsc::unbounded_channel();
        Discovery { enumerator, uid: node.uid.clone(), reading: reading.collect(), finished, heard }
    }

    fn task(self, subtasks: Vec<mpsc::UnboundedSender<Control>>) -> EnumeratorTask {
        let Discovery { enumerator, uid, reading, heard, .. } = self;
        EnumeratorTask { uid, enumerator, subtasks, reading, finished: heard }
    }
}

struct OpenSource<'a> {
    state: OperatorId,
    parallelism: u32,
    source: &'a SourceNode,
    splits: Vec<SplitStart>,
    discovery: Option<Discovery>,
    /// The watermarks of the splits at the stored checkpoint.
    reached: BTreeMap<SplitId, Timestamp>,
    merged: Arc<SourceWatermark>,
    environment: &'a Environment,
    budget: &'a Arc<MemoryBudget>,
}

impl OpenSource<'_> {
    async fn open(
        &self,
        task: Task,
        subtask: SubtaskIndex,
        metrics: Arc<SubtaskMetrics>,
        alignment: &AlignmentGroups,
    ) -> Result<SourceTask> {
        let pace = self
            .source
            .rate_limit
            .map(|rate| RateLimiter::new(rate / f64::from(self.parallelism), task.executor.now()));
        let mine = self.splits.iter().enumerate().filter(|(index, _)| *index as u32 % self.parallelism == subtask.0);
        let starts: Vec<SplitStart> = mine.map(|(_, split)| split.clone()).collect();
        let ids: Vec<SplitId> = starts.iter().map(|split| split.id.clone()).collect();
        let reached: Vec<Timestamp> =
            ids.iter().map(|id| self.reached.get(id).copied().unwrap_or(Timestamp::MIN)).collect();
        let places = PlaceNames::new(ids.clone());
        let most = task.chain.batch_rows.map_or(BATCH_ROWS, |rows| rows.clamp(1, BATCH_ROWS));
        let batch_rows = pace.as_ref().map_or(most, |pace| pace.batch_rows().min(most));
        let context = SourceContext { batch_rows, clock: self.environment.clock.clone(), metrics };
        let reader = self.source.source.open(starts, context).await?;
        let merged = self.merged.clone();
        let may_grow = self.discovery.is_some();
        let finished = self.discovery.as_ref().map(|discovery| discovery.finished.clone());
        let splits =
            Splits::new(ids, self.source.event_time.clone(), (&reached, merged.reached()), may_grow, alignment);
        let (clock, budget) = (self.environment.clock.clone(), self.budget.clone());
        let operator = self.state;
        Ok(SourceTask { task, operator, reader, splits, places, subtask, merged, finished, pace, clock, budget })
    }
}

struct OpenSink {
    operator: OperatorId,
    state: OperatorId,
    parallelism: u32,
    sink: Arc<dyn Sink>,
    context: SinkContext,
    /// `subtask u32 | parallelism u32` as one number, and the state.
    states: Vec<(u64, Bytes)>,
    /// The keys of what the recovery has committed.
    recovered: Vec<StateKey>,
}

impl OpenSink {
    async fn open(&self, subtask: SubtaskIndex, metrics: Arc<SubtaskMetrics>) -> Result<SinkEnd> {
        let own = (u64::from(subtask.0) << 32) | u64::from(self.parallelism);
        let mine = |(id, _): &&(u64, Bytes)| (id >> 32) as u32 % self.parallelism == subtask.0;
        let states: Vec<&(u64, Bytes)> = self.states.iter().filter(mine).collect();
        let obsolete = states.iter().filter(|(id, _)| *id != own).map(|(id, _)| self.key(*id)).collect();
        let values: Vec<Bytes> = states.iter().map(|(_, value)| value.clone()).collect();
        let writer = self.sink.open(&self.context, subtask, &values, metrics).await?;
        Ok(SinkEnd { writer, obsolete, key: self.key(own), state: self.state, subtask, last_state: None })
    }

    async fn committer(&self) -> Result<Box<dyn SinkCommitter>> {
        self.sink.committer(&self.context).await
    }

    fn key(&self, id: u64) -> StateKey {
        StateKey::new(self.state, SINK_STATES, KeyGroup(0), &id.to_be_bytes())
    }
}
