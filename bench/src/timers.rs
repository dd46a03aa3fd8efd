//! How late calls by the wall clock are while the input never pauses: an operator that works 5 ms on every batch and asks for a call every 10 ms, chained to its
//! source and behind a shuffle.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use coulee_checkpoint::{JobStore, StoreSettings};
use coulee_model::{Clock, JobName, Stopwatch, SubtaskIndex, SystemClock, Timestamp};
use coulee_runtime::flow::GraphBuilder;
use coulee_runtime::graph::{Graph, OperatorFactory};
use coulee_runtime::job::{Environment, JobOutcome, JobSettings, JobSpec, launch};
use coulee_runtime::memory::{MemorySink, MemorySource};
use coulee_runtime::operator::{InputIndex, OpenContext, Operator, Output};
use coulee_runtime::{Batch, Result as RuntimeResult};
use parking_lot::Mutex;

use crate::Result;

const EVERY_MS: i64 = 10;
const BATCH_ROWS: i64 = 8_192;
/// What the operator works on each batch: as much as expensive expressions take, so that one call in two falls into the work on a batch.
const WORK: Duration = Duration::from_millis(5);
const BATCHES: usize = 2_000;

#[derive(Debug, Clone)]
struct Ticks {
    clock: Arc<dyn Clock>,
    due: Timestamp,
    late_ms: Arc<Mutex<Vec<i64>>>,
}

impl OperatorFactory for Ticks {
    fn describe(&self) -> String {
        "Ticks".to_owned()
    }

    fn schema(&self) -> SchemaRef {
        schema()
    }

    fn state(&self, _: &[coulee_runtime::graph::Lineage]) -> Option<coulee_runtime::state::OperatorState> {
        None
    }

    fn create(&self, _: SubtaskIndex) -> RuntimeResult<Box<dyn Operator>> {
        Ok(Box::new(self.clone()))
    }
}

impl Operator for Ticks {
    fn open(&mut self, _: &OpenContext<'_>) -> RuntimeResult<()> {
        self.due = self.clock.now().plus_millis(EVERY_MS);
        Ok(())
    }

    fn process(&mut self, _: InputIndex, batch: Batch, out: &mut Output) -> RuntimeResult<()> {
        let values = batch.rows().column(0).as_primitive::<Int64Type>().values();
        let (begun, mut sum) = (Stopwatch::start(), 1i64);
        while begun.elapsed() < WORK {
            sum = values
                .iter()
                .fold(sum, |sum, value| std::hint::black_box(sum.wrapping_mul(31).wrapping_add(*value) | 1));
        }
        // Nothing passes, so that the sink has nothing to keep.
        if sum == 0 {
            out.emit(batch);
        }
        Ok(())
    }

    fn next_time(&self) -> Option<Timestamp> {
        Some(self.due)
    }

    fn time(&mut self, now: Timestamp, _: &mut Output) -> RuntimeResult<()> {
        self.late_ms.lock().push(now.0 - self.due.0);
        self.due = now.plus_millis(EVERY_MS);
        Ok(())
    }
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("value", DataType::Int64, false)]))
}

pub fn run() -> Result<()> {
    println!("| operator | calls | late: median | 99 % | at most |\n| --- | ---: | ---: | ---: | ---: |");
    for (name, is_shuffled) in [("chained to its source", false), ("behind a shuffle, 2 subtasks", true)] {
        let mut late = measured(is_shuffled)?;
        late.sort_unstable();
        let at =
            |share: usize| late.get((late.len() * share / 100).min(late.len().saturating_sub(1))).copied().unwrap_or(0);
        println!("| {name} | {} | {} ms | {} ms | {} ms |", late.len(), at(50), at(99), at(100));
    }
    Ok(())
}

fn measured(is_shuffled: bool) -> Result<Vec<i64>> {
    let folder = tempfile::tempdir_in(".")?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let ticks = Ticks { clock: clock.clone(), due: Timestamp::MAX, late_ms: Arc::default() };
    let spec = JobSpec {
        name: JobName::new("timers")?,
        incarnation: "0123456789ab".into(),
        graph: graph(&ticks, is_shuffled)?,
        settings: JobSettings { checkpoint_interval: Duration::from_secs(1), ..JobSettings::default() },
    };
    let environment = Environment {
        store: Arc::new(JobStore::open(&folder.path().join("state"), &StoreSettings::default())?),
        spool: folder.path().join("spool"),
        scratch: folder.path().join("scratch"),
        clock,
        snapshots: None,
    };
    let threads = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let outcome =
        threads.block_on(async { Ok::<_, coulee_runtime::Error>(launch(spec, environment)?.outcome().await) })?;
    match outcome {
        JobOutcome::Finished => Ok(ticks.late_ms.lock().clone()),
        other => Err(format!("the job ended otherwise: {other:?}").into()),
    }
}

/// Two splits of batches that are always ready, the operator, and a sink.
fn graph(ticks: &Ticks, is_shuffled: bool) -> Result<Graph> {
    let values = Int64Array::from_iter_values(0..BATCH_ROWS);
    let rows = RecordBatch::try_new(schema(), vec![Arc::new(values)])?;
    let splits = vec![vec![rows; BATCHES / 2]; 2];
    let builder = GraphBuilder::new(if is_shuffled { 2 } else { 1 });
    let mut flow = builder.source("in", Arc::new(MemorySource::new(schema(), splits)))?;
    if is_shuffled {
        flow = builder.operator("shuffled", Arc::new(ticks.clone()), [flow.key_by(["value"])?.shuffled()?])?;
    } else {
        flow = flow.then(Arc::new(ticks.clone()))?;
    }
    flow.sink("out", Arc::new(MemorySink::default()))?;
    Ok(builder.finish()?)
}
