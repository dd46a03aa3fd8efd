//! The simulated job.
//!
//! ```text
//!   left ──┐                                  ┌─▶ rows
//!          ├─▶ 1000 / value ──┬───────────────┘
//!   right ─┘        │         ├─ by key ─▶ windows ─▶ windows, late
//!     │             │         ├─ by key ─▶ buckets (timers of event time) ─▶ buckets, bucket-late
//!     └──────┬──────┘         └─ by key ─▶ numbers (timers of the wall clock) ─▶ numbers
//!            ▼
//!         letters (records that cannot be decoded, rows of value 0)
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use coulee_model::OperatorId;
use datafusion_functions_aggregate::expr_fn::{count, sum};
use rand::Rng;
use rand::rngs::SmallRng;

use super::functions::{Buckets, Numbers, numbers};
use super::scenario::WINDOW_MILLIS;
use super::sink::SimulatedSink;
use super::source::SimulatedSource;
use super::world::World;
use crate::Result;
use crate::flow::{Flow, GraphBuilder, col, lit};
use crate::graph::{Alignment, Graph, NodeKind};
use crate::row_errors::{OnError, RowErrors};

/// How many subtasks each part of the job has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parallelism {
    sources: u32,
    operators: u32,
    sinks: u32,
}

impl Parallelism {
    pub(super) fn draw(random: &mut SmallRng) -> Self {
        let mut one = || random.random_range(1..=3);
        Parallelism { sources: one(), operators: one(), sinks: one() }
    }
}

/// The job, as its scenario says.
pub(super) fn graph(world: &World, parallelism: Parallelism) -> Result<Graph> {
    let scenario = &world.scenario;
    let builder = GraphBuilder::new(parallelism.sources);
    let mut all: Option<Flow<'_>> = None;
    for script in &scenario.sources {
        let source = SimulatedSource { world: world.clone(), script: Arc::new(script.clone()) };
        let flow = builder.source(script.name, Arc::new(source))?.event_time("time", scenario.disorder)?;
        let flow = flow.adjust_event_time(|time| {
            time.idle_timeout = scenario.idle_timeout;
            time.alignment = scenario.alignment.map(|max_drift| Alignment { group: "all".to_owned(), max_drift });
        })?;
        all = Some(match all {
            Some(all) => all.union(flow)?,
            None => flow,
        });
    }
    let all = all.ok_or_else(|| crate::Error::internal("a scenario has a source"))?;
    let columns = ["id", "key", "time", "value"].map(col);
    let rows = all.select(columns.into_iter().chain([(lit(1000i64) / col("value")).alias("inverse")]))?;
    let sink = |name| Arc::new(SimulatedSink { world: world.clone(), name });
    let to = |flow: Flow<'_>, name: &'static str| flow.parallelism(parallelism.sinks).sink(name, sink(name));

    to(rows.clone().select([col("id"), col("inverse")])?, "rows")?;
    let rows = rows.parallelism(parallelism.operators);
    let window = Duration::from_millis(WINDOW_MILLIS as u64);
    let aggregates = [count(lit(1i64)).alias("count"), sum(col("value")).alias("sum")];
    let by_key = rows.clone().key_by(["key"])?;
    if scenario.two_stages {
        to(by_key.tumble("w", "time", window, aggregates)?, "windows")?;
    } else {
        let windows = by_key.tumble_keeping_late("w", "time", window, aggregates)?;
        to(windows.side("late")?, "late")?;
        to(windows, "windows")?;
    }
    let by_key = rows.clone().key_by(["key"])?.side_output("late", numbers(&["id"]));
    let buckets = by_key.process("b", numbers(&["end", "count", "sum"]), || Buckets)?;
    to(buckets.side("late")?, "bucket-late")?;
    to(buckets, "buckets")?;
    let in_function = world.clone();
    let function = move || Numbers { world: in_function.clone(), outside: BTreeMap::new() };
    to(rows.key_by(["key"])?.process("n", numbers(&["count", "by_timer"]), function)?, "numbers")?;

    let mut graph = builder.finish()?;
    for (node, script) in scenario.sources.iter().enumerate() {
        let errors = RowErrors { table: script.name.to_owned(), on_error: OnError::DeadLetter };
        graph.set_row_errors(OperatorId(node as u32), errors);
        if let NodeKind::Source(source) = &mut graph.nodes[node].kind {
            source.rate_limit = scenario.rate_limit;
        }
    }
    let letters = graph.add("letters", parallelism.sinks, NodeKind::Sink(sink("letters")))?;
    let kept_by: Vec<_> = scenario.sources.iter().map(|script| (script.name.to_owned(), letters)).collect();
    graph.connect_dead_letters(&kept_by)?;
    graph.check()?;
    Ok(graph)
}
