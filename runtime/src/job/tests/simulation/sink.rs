//! The simulated sink: rows become visible in two phases, in a world that outlives the job.

use std::sync::Arc;

use arrow::util::display::array_value_to_string;
use async_trait::async_trait;
use bytes::Bytes;
use coulee_model::{CheckpointId, Clock, SubtaskIndex, Timestamp};

use super::BrokenWorld;
use super::world::World;
use crate::connector::{CommitOn, Prepared, Sink, SinkCommitter, SinkContext, SinkWriter};
use crate::metrics::SubtaskMetrics;
use crate::{Batch, Error, Result};

/// For how long a writer holds rows back, in milliseconds.
const HELD_MILLIS: i64 = 15;

/// One sink, by its name.
#[derive(Debug, Clone)]
pub(super) struct SimulatedSink {
    pub(super) world: World,
    pub(super) name: &'static str,
}

impl SimulatedSink {
    fn commit(&self, committables: &[Bytes]) -> Result<()> {
        for committable in committables {
            let number = committable.as_ref().try_into().map(u64::from_be_bytes);
            let number = number.map_err(|_| Error::corrupt("what a simulated sink commits has not 8 bytes"))?;
            self.world.machine.trace(format_args!("{}: transaction {number} is committed", self.name));
            self.world.commit(self.name, number);
        }
        Ok(())
    }
}

#[async_trait]
impl Sink for SimulatedSink {
    fn describe(&self) -> String {
        format!("Simulated: {}", self.name)
    }

    fn commit_on(&self) -> CommitOn {
        if self.world.scenario.commits_on_snapshots { CommitOn::Snapshot } else { CommitOn::Checkpoint }
    }

    async fn recover(&self, _: &SinkContext, _: &[Bytes], committables: &[Bytes]) -> Result<()> {
        self.world.machine.lag(2_000).await;
        self.world.may_fail("a recovery that has done nothing")?;
        if !self.world.is_broken(BrokenWorld::SinkRecoversNothing) {
            self.commit(committables)?;
        }
        self.world.abort_open(self.name);
        self.world.may_fail("a recovery that has done all")
    }

    async fn committer(&self, _: &SinkContext) -> Result<Box<dyn SinkCommitter>> {
        Ok(Box::new(self.clone()))
    }

    async fn open(
        &self,
        context: &SinkContext,
        subtask: SubtaskIndex,
        _: &[Bytes],
        metrics: Arc<SubtaskMetrics>,
    ) -> Result<Box<dyn SinkWriter>> {
        self.world.machine.lag(500).await;
        let clock = context.clock.clone();
        Ok(Box::new(Writer {
            sink: self.clone(),
            subtask,
            clock,
            metrics,
            rows: Vec::new(),
            held: Vec::new(),
            due: None,
        }))
    }
}

#[async_trait]
impl SinkCommitter for SimulatedSink {
    async fn commit(&mut self, _: CheckpointId, committables: Vec<Bytes>) -> Result<()> {
        self.world.machine.lag(self.world.scenario.commit_micros).await;
        self.world.may_fail("a commit that is not done")?;
        SimulatedSink::commit(self, &committables)?;
        self.world.machine.lag(1_000).await;
        self.world.may_fail("a commit that is done")
    }
}

struct Writer {
    sink: SimulatedSink,
    subtask: SubtaskIndex,
    clock: Arc<dyn Clock>,
    metrics: Arc<SubtaskMetrics>,
    rows: Vec<String>,
    /// Rows that are written in a moment, with those that come until then.
    held: Vec<String>,
    due: Option<Timestamp>,
}

#[async_trait]
impl SinkWriter for Writer {
    async fn write(&mut self, batch: Batch) -> Result<()> {
        let world = &self.sink.world;
        if world.machine.once_in(6) {
            world.machine.lag(6_000).await;
        }
        world.may_fail("a write")?;
        for row in 0..batch.len() {
            let columns = batch.rows().columns().iter();
            let values = columns.map(|column| array_value_to_string(column, row)).collect::<Result<Vec<_>, _>>()?;
            self.held.push(values.join("|"));
        }
        self.due.get_or_insert(self.clock.now().plus_millis(HELD_MILLIS));
        Ok(())
    }

    fn next_flush(&self) -> Option<Timestamp> {
        self.due
    }

    async fn flush(&mut self, _: Timestamp) -> Result<()> {
        self.due = None;
        self.rows.append(&mut self.held);
        Ok(())
    }

    async fn prepare(&mut self, checkpoint: CheckpointId) -> Result<Prepared> {
        let world = self.sink.world.clone();
        world.machine.trace(format_args!("{} {}: barrier {checkpoint}", self.sink.name, self.subtask.0));
        world.machine.lag(2_000).await;
        world.may_fail("a preparation that is not done")?;
        if !world.is_broken(BrokenWorld::SinkPreparesTooLittle) {
            self.flush(self.clock.now()).await?;
        }
        let rows = std::mem::take(&mut self.rows);
        if rows.is_empty() {
            return Ok(Prepared::default());
        }
        self.metrics.add_delivered_rows(rows.len() as u64);
        let count = rows.len();
        let number = world.prepare(self.sink.name, checkpoint.0, rows);
        world
            .machine
            .trace(format_args!("{} {}: transaction {number} of {count} rows", self.sink.name, self.subtask.0));
        world.may_fail("a preparation that is done")?;
        Ok(Prepared { state: Bytes::new(), committables: vec![number.to_be_bytes().to_vec().into()] })
    }
}
