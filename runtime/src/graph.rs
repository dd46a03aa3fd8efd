//! The operator graph: what a job is, before anything runs. SQL and Rust programs build the same graphs.

mod canonical;
mod changelogs;
mod lineage;
mod port;
mod states;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use coulee_model::{KeyGroup, OperatorId, SubtaskIndex};
use datafusion_physical_expr::PhysicalExpr;
use datafusion_physical_expr::expressions::Column;
use xxhash_rust::xxh3::xxh3_64;

use crate::connector::{Sink, Source};
use crate::operator::{InputIndex, Operator};
use crate::row_errors::RowErrors;
use crate::state::OperatorState;
use crate::{Error, Result, Subject};

pub use lineage::Lineage;
pub use port::Port;

/// How rows find their subtask downstream.
#[derive(Debug, Clone)]
pub enum Partitioning {
    /// Subtask `i` to subtask `i`; chained when nothing else goes in or out.
    Forward,
    /// By a hash of these columns (expressions over the upstream's schema): equal keys meet in one subtask.
    Hash(Vec<Arc<dyn PhysicalExpr>>),
    /// Batch by batch, in turn.
    Rebalance,
    /// Every row to every subtask.
    Broadcast,
}

impl Partitioning {
    /// Whether it computes something of a row, which may fail; a column is only read.
    pub(crate) fn may_fail(&self) -> bool {
        matches!(self, Partitioning::Hash(keys) if keys.iter().any(|key| key.downcast_ref::<Column>().is_none()))
    }
}

/// How a source gets its event time.
#[derive(Debug, Clone)]
pub struct EventTime {
    /// What a row lets the watermark be: `departed_at - INTERVAL '15' MINUTE`, over the source's schema; a timestamp in milliseconds.
    pub watermark: Arc<dyn PhysicalExpr>,
    /// How long a split that has been read to its end (or, where that is not known, that brings nothing) still holds back the watermark.
    pub idle_timeout: Option<Duration>,
    /// How far beyond the wall clock a row may move the watermark.
    pub max_future_skew: Option<Duration>,
    /// Which other sources it must not run far ahead of.
    pub alignment: Option<Alignment>,
}

/// How splits of a job's sources are kept together in event time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alignment {
    /// Splits of all sources that name the same group wait for each other.
    pub group: String,
    /// How far a split's watermark may be ahead of the slowest one of the group before it is not read for a while.
    pub max_drift: Duration,
}

/// A source in a graph.
#[derive(Debug, Clone)]
pub struct SourceNode {
    /// Where the rows come from.
    pub source: Arc<dyn Source>,
    /// Event time, when the table has one.
    pub event_time: Option<EventTime>,
    /// Rows per second over all subtasks.
    pub rate_limit: Option<f64>,
}

/// Makes the operator of one subtask.
pub trait OperatorFactory: Send + Sync + Debug {
    /// One line for `EXPLAIN`.
    fn describe(&self) -> String;

    /// The columns of the main output.
    fn schema(&self) -> SchemaRef;

    /// The columns of a side output, `None` for a port that it does not have.
    fn side_schema(&self, port: Port) -> Option<SchemaRef> {
        let _ = port;
        None
    }

    /// Why an input takes only rows that are appended, and what to do instead: the end of the error that refuses a changelog when the graph is built.
    /// `None` when the input takes changelogs.
    fn refuses_changelog(&self, input: InputIndex) -> Option<&'static str> {
        let _ = input;
        Some("an operator that takes changelogs says so in `OperatorFactory::refuses_changelog`")
    }

    /// Whether what leaves a port may be a changelog, given whether one of the inputs is. An operator passes on what comes in, if it does not say otherwise.
    fn emits_changelog(&self, port: Port, input_is_changelog: bool) -> bool {
        port == Port::MAIN && input_is_changelog
    }

    /// What it keeps in checkpoints, described over what comes into each of its inputs; `None` when it keeps nothing, so that its identity does not matter
    /// to them. An operator that does not say is taken to keep something of its own.
    fn state(&self, inputs: &[Lineage]) -> Option<OperatorState> {
        Some(OperatorState::undescribed(inputs))
    }

    /// Where the rows of its main output come from. What an operator that does not say emits is known by its description.
    fn lineage(&self, inputs: &[Lineage]) -> Lineage {
        let inputs: Vec<String> = inputs.iter().map(Lineage::rows).collect();
        Lineage::named(&format!("[{} OF {}]", self.describe(), inputs.join("; ")), self.schema())
    }

    /// Whether it may hand over rows that its expressions fail on ([`Output::reject`](crate::operator::Output::reject)).
    fn may_reject(&self) -> bool {
        false
    }

    /// A fresh operator without state; [`Operator::open`] gives it what it had.
    ///
    /// # Errors
    /// When an expression or accumulator cannot be made.
    fn create(&self, subtask: SubtaskIndex) -> Result<Box<dyn Operator>>;
}

/// What a node does.
#[derive(Debug, Clone)]
pub enum NodeKind {
    /// Brings rows in.
    Source(SourceNode),
    /// Turns rows into rows.
    Operator(Arc<dyn OperatorFactory>),
    /// Takes rows out.
    Sink(Arc<dyn Sink>),
}

/// A node of a graph.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its index in the graph.
    pub id: OperatorId,
    /// Its identity across versions of the job.
    pub uid: String,
    /// What the operators are called that its planner can only tell apart by an order, which an edit may change; see [`Graph::set_family`].
    pub family: Option<String>,
    /// What its state is filed under: a hash of the `uid`, so that it does not depend on the rest of the graph.
    pub state: OperatorId,
    /// How many subtasks.
    pub parallelism: u32,
    /// What it does.
    pub kind: NodeKind,
    /// Of a source or sink of a table: what happens to the table's rejected rows. Absent, the job fails on them.
    pub row_errors: Option<RowErrors>,
}

impl Node {
    /// What the state of the operator `uid` is filed under. The highest bit is left to the store itself.
    pub fn state_of(uid: &str) -> OperatorId {
        OperatorId(xxh3_64(uid.as_bytes()) as u32 >> 1)
    }

    /// An error of its source or sink: about the table, if it has one, else at the operator's name.
    pub(crate) fn error(&self, error: Error) -> Error {
        match &self.row_errors {
            Some(errors) => error.about(Subject::Table(errors.table.clone())),
            None => error.at(format!("operator '{}'", self.uid)),
        }
    }

    /// Whether what leaves a port may be a changelog, given whether what comes in is one.
    fn emits_changelog(&self, port: Port, input_is_changelog: bool) -> bool {
        match &self.kind {
            NodeKind::Source(source) => port == Port::MAIN && source.source.is_changelog(),
            NodeKind::Operator(factory) => factory.emits_changelog(port, input_is_changelog),
            NodeKind::Sink(_) => false,
        }
    }

    /// One line for `EXPLAIN` and metrics.
    pub fn describe(&self) -> String {
        match &self.kind {
            NodeKind::Source(source) => source.source.describe(),
            NodeKind::Operator(factory) => factory.describe(),
            NodeKind::Sink(sink) => sink.describe(),
        }
    }
}

/// An edge of a graph.
#[derive(Debug, Clone)]
pub struct Edge {
    /// Upstream.
    pub from: OperatorId,
    /// Which of its outputs.
    pub port: Port,
    /// Downstream.
    pub to: OperatorId,
    /// Which of its inputs.
    pub input: InputIndex,
    /// How rows find their subtask.
    pub partitioning: Partitioning,
}

/// A directed acyclic graph of nodes. Node `i` has `OperatorId(i)`, and edges go from lower to higher ids.
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// The nodes, upstream first.
    pub nodes: Vec<Node>,
    /// The edges, in the order in which they were made.
    pub edges: Vec<Edge>,
}

impl Graph {
    /// Adds a node and returns its id.
    ///
    /// # Errors
    /// `Invalid` when another node has the same `uid`, or `parallelism` is 0 or above the number of key groups.
    pub fn add(&mut self, uid: impl Into<String>, parallelism: u32, kind: NodeKind) -> Result<OperatorId> {
        let uid = uid.into();
        if !(1..=u32::from(KeyGroup::COUNT)).contains(&parallelism) {
            return Err(Error::invalid(format!(
                "operator '{uid}': parallelism is {parallelism}, expected 1 to {}",
                KeyGroup::COUNT
            )));
        }
        let id = OperatorId(self.nodes.len() as u32);
        self.check_uid(id, &uid)?;
        let state = Node::state_of(&uid);
        self.nodes.push(Node { id, uid, family: None, state, parallelism, kind, row_errors: None });
        Ok(id)
    }

    fn check_uid(&self, id: OperatorId, uid: &str) -> Result<()> {
        let state = Node::state_of(uid);
        match self.nodes.iter().find(|node| node.id != id && node.state == state) {
            Some(other) if other.uid == uid => {
                Err(Error::invalid(format!("two operators are named '{uid}': give one another name")))
            }
            Some(other) => {
                Err(Error::invalid(format!("operators '{uid}' and '{}' collide: rename one of them", other.uid)))
            }
            None => Ok(()),
        }
    }

    /// Gives a node another name, and with it what its state is filed under.
    ///
    /// # Errors
    /// As [`Graph::add`].
    pub fn rename(&mut self, id: OperatorId, uid: impl Into<String>) -> Result<()> {
        let uid = uid.into();
        self.check_uid(id, &uid)?;
        let node = &mut self.nodes[id.0 as usize];
        node.state = Node::state_of(&uid);
        node.uid = uid;
        Ok(())
    }

    /// Says that a node's name tells it apart from others of the same family by an order only. At a start, operators of a family take the stored state
    /// whose description is theirs, whatever the order has become.
    pub fn set_family(&mut self, id: OperatorId, family: impl Into<String>) {
        self.nodes[id.0 as usize].family = Some(family.into());
    }

    /// Connects two nodes, into the first input of `to`. Several edges into one input are a union.
    ///
    /// # Errors
    /// `Invalid` for an edge that does not go downstream, that leaves a sink or enters a source, or that forwards between different parallelisms.
    pub fn connect(&mut self, from: OperatorId, port: Port, to: OperatorId, partitioning: Partitioning) -> Result<()> {
        self.connect_to(from, port, (to, InputIndex::FIRST), partitioning)
    }

    /// Connects two nodes, into one of the inputs of an operator that has several.
    ///
    /// # Errors
    /// As [`Graph::connect`].
    pub fn connect_to(
        &mut self,
        from: OperatorId,
        port: Port,
        (to, input): (OperatorId, InputIndex),
        partitioning: Partitioning,
    ) -> Result<()> {
        let (up, down) = (self.node(from), self.node(to));
        let name = format!("edge from '{}' to '{}'", up.uid, down.uid);
        // A sink gives on nothing but the rows that it cannot take.
        let leaves_sink = matches!(up.kind, NodeKind::Sink(_)) && port != Port::REJECTED;
        if from >= to || leaves_sink || matches!(down.kind, NodeKind::Source(_)) {
            return Err(Error::invalid(format!("{name}: rows flow from sources through operators to sinks")));
        }
        if matches!(partitioning, Partitioning::Forward) && up.parallelism != down.parallelism {
            return Err(Error::invalid(format!(
                "{name}: forwards between parallelism {} and {}; rebalance instead",
                up.parallelism, down.parallelism
            )));
        }
        self.edges.push(Edge { from, port, to, input, partitioning });
        Ok(())
    }

    /// Says what happens to the rejected rows of the table that a source reads or a sink writes.
    pub fn set_row_errors(&mut self, id: OperatorId, errors: RowErrors) {
        self.nodes[id.0 as usize].row_errors = Some(errors);
    }

    /// A node by its id.
    pub fn node(&self, id: OperatorId) -> &Node {
        &self.nodes[id.0 as usize]
    }

    /// Checks what only the whole graph shows: everything that runs leads to a sink, and every operator and sink is fed.
    ///
    /// # Errors
    /// `Invalid`, naming the node.
    pub fn check(&self) -> Result<()> {
        let fed: BTreeSet<OperatorId> = self.edges.iter().map(|edge| edge.to).collect();
        let read: BTreeSet<OperatorId> = self.edges.iter().map(|edge| edge.from).collect();
        for node in &self.nodes {
            let is_source = matches!(node.kind, NodeKind::Source(_));
            let is_sink = matches!(node.kind, NodeKind::Sink(_));
            if !is_source && !fed.contains(&node.id) {
                return Err(Error::invalid(format!("operator '{}' has no input", node.uid)));
            }
            if !is_sink && !read.contains(&node.id) {
                return Err(Error::invalid(format!("nothing reads the output of operator '{}'", node.uid)));
            }
        }
        self.check_changelogs()
    }

    /// Whether every source ends, so that the job finishes by itself.
    pub fn is_bounded(&self) -> bool {
        self.nodes.iter().all(|node| match &node.kind {
            NodeKind::Source(source) => source.source.is_bounded(),
            _ => true,
        })
    }

    /// The chains: lists of nodes that run in one subtask, upstream first. An edge is chained when it forwards the main output and is the only one into
    /// its target and out of its origin.
    pub(crate) fn chains(&self) -> Vec<Vec<OperatorId>> {
        let mut chains: Vec<Vec<OperatorId>> = Vec::new();
        for node in &self.nodes {
            let previous = self.chained_before(node.id);
            let chain = previous.and_then(|p| chains.iter_mut().find(|chain| chain.last() == Some(&p)));
            match chain {
                Some(chain) => chain.push(node.id),
                None => chains.push(vec![node.id]),
            }
        }
        chains
    }

    fn chained_before(&self, id: OperatorId) -> Option<OperatorId> {
        let mut inputs = self.edges.iter().filter(|edge| edge.to == id);
        let edge = inputs.next()?;
        let mains = self.edges.iter().filter(|other| other.from == edge.from && other.port == Port::MAIN).count();
        let chained = inputs.next().is_none()
            && mains == 1
            && edge.port == Port::MAIN
            && edge.input == InputIndex::FIRST
            && matches!(edge.partitioning, Partitioning::Forward);
        chained.then_some(edge.from)
    }
}
