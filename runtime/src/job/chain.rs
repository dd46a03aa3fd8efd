//! A chain: operators that run one after the other in one task, without a channel between them.

use std::sync::Arc;

use coulee_checkpoint::Changes;
use coulee_model::{CheckpointId, OperatorId, Stopwatch, SubtaskIndex, Timestamp};
use futures::future::BoxFuture;

use super::committable::{Committable, committable_key};
use super::route::{Route, TaskError};
use crate::channel::{Barrier, Element};
use crate::connector::{Prepared, SinkWriter};
use crate::failpoints::injected;
use crate::graph::Port;
use crate::metrics::{CountedRows, SubtaskMetrics};
use crate::operator::{Emitted, InputIndex, Operator, Output};
use crate::planted::{Bug, is_planted};
use crate::row_errors::RejectedRows;
use crate::row_errors::policy::RowPolicies;
use crate::{Batch, Error, Result};

/// An operator in a chain, or the source that heads it (which has routes for its ports, but nothing to call).
pub(super) struct Link {
    pub(super) uid: String,
    pub(super) metrics: Arc<SubtaskMetrics>,
    /// `None` for the source or sink of the chain.
    pub(super) operator: Option<Box<dyn Operator>>,
    /// Edges that leave the chain here: those of side ports, and at the end of the chain those of the main port.
    pub(super) routes: Vec<(Port, Route)>,
    /// What becomes of the rows that it rejects.
    pub(super) policies: RowPolicies,
}

/// What a chain ends in, if not in channels.
pub(super) struct SinkEnd {
    pub(super) writer: Box<dyn SinkWriter>,
    /// Stored states of former writers that this one replaces at its next checkpoint.
    pub(super) obsolete: Vec<coulee_checkpoint::StateKey>,
    pub(super) key: coulee_checkpoint::StateKey,
    /// The sink, and which of its subtasks this is: what committables are stored under.
    pub(super) state: OperatorId,
    pub(super) subtask: SubtaskIndex,
    pub(super) last_state: Option<bytes::Bytes>,
}

/// What the sink is called with between two barriers.
enum SinkInput {
    Rows(Batch),
    Flush(Timestamp),
}

/// The operators of one task.
pub(super) struct Chain {
    pub(super) links: Vec<Link>,
    pub(super) sink: Option<SinkEnd>,
    /// The most rows that are passed on at a time; see [`JobSettings::batch_rows`](super::JobSettings::batch_rows).
    pub(super) batch_rows: Option<usize>,
}

impl Chain {
    /// Puts rows into the chain, behind its first link when that is a source.
    pub(super) async fn rows(&mut self, input: InputIndex, batch: Batch) -> Result<(), TaskError> {
        self.links[0].metrics.add_event();
        if self.links[0].operator.is_some() || self.is_sink(0) {
            self.enter(0, input, batch).await
        } else {
            self.emitted(0, Emitted::Batch(Port::MAIN, batch)).await
        }
    }

    /// Sends rows out of a port of the first link: how a source emits rejected records.
    pub(super) async fn side(&mut self, port: Port, batch: Batch) -> Result<(), TaskError> {
        self.links[0].metrics.add_event();
        self.emitted(0, Emitted::Batch(port, batch)).await
    }

    /// The first link rejects rows: how a source does whose watermark fails on them.
    pub(super) async fn reject(&mut self, rejected: RejectedRows) -> Result<(), TaskError> {
        self.emitted(0, Emitted::Rejected(rejected)).await
    }

    /// Advances event time through the chain.
    pub(super) async fn watermark(&mut self, watermark: Timestamp) -> Result<(), TaskError> {
        self.links[0].metrics.add_event();
        self.links[0].metrics.set_watermark(watermark);
        if self.links[0].operator.is_some() {
            self.call(0, |operator, out| operator.watermark(watermark, out)).await
        } else {
            self.emitted(0, Emitted::Watermark(watermark)).await
        }
    }

    /// When, by the wall clock, the first of its operators wants to be called.
    pub(super) fn next_time(&self) -> Option<Timestamp> {
        self.links.iter().filter_map(|link| link.operator.as_ref()?.next_time()).min()
    }

    /// The wall clock has reached what `next_time` said.
    pub(super) async fn time(&mut self, now: Timestamp) -> Result<(), TaskError> {
        self.links[0].metrics.add_event();
        for index in 0..self.links.len() {
            let next = self.links[index].operator.as_ref().and_then(|operator| operator.next_time());
            if next.is_some_and(|next| next <= now) {
                self.call(index, |operator, out| operator.time(now, out)).await?;
            }
        }
        Ok(())
    }

    /// The input has ended: every operator emits what is left.
    pub(super) async fn end(&mut self) -> Result<(), TaskError> {
        self.links[0].metrics.add_event();
        for index in 0..self.links.len() {
            if self.links[index].operator.is_some() {
                self.call(index, |operator, out| operator.end(out)).await?;
            }
        }
        if let Some(sink) = &mut self.sink {
            sink.writer.finish().await?;
        }
        self.undelivered().await?;
        self.broadcast(Element::End).await
    }

    /// A barrier: operators hand over their changes, the sink prepares, and the barrier goes on. Returns what the sink has to be committed.
    pub(super) async fn barrier(
        &mut self,
        barrier: Barrier,
        changes: &mut Changes,
    ) -> Result<Vec<Committable>, TaskError> {
        for index in 0..self.links.len() {
            if self.links[index].operator.is_some() {
                let id = barrier.checkpoint;
                self.call(index, |operator, out| operator.checkpoint(id, out, changes)).await?;
            }
        }
        let committables = self.prepare(barrier.checkpoint, changes).await?;
        self.undelivered().await?;
        self.broadcast(Element::Barrier(barrier)).await?;
        Ok(committables)
    }

    /// When, by the wall clock, the sink wants to send on what it holds back.
    pub(super) fn next_flush(&self) -> Option<Timestamp> {
        self.sink.as_ref().and_then(|sink| sink.writer.next_flush())
    }

    /// When, by the wall clock, the first of its operators or the sink wants to be called.
    pub(super) fn next_call(&self) -> Option<Timestamp> {
        self.next_time().into_iter().chain(self.next_flush()).min()
    }

    /// The wall clock has reached what `next_flush` said.
    pub(super) async fn flush(&mut self, now: Timestamp) -> Result<(), TaskError> {
        self.write(SinkInput::Flush(now)).await
    }

    async fn prepare(&mut self, id: CheckpointId, changes: &mut Changes) -> Result<Vec<Committable>, TaskError> {
        let Some(sink) = &mut self.sink else { return Ok(Vec::new()) };
        fail::fail_point!("sink.prepare.before", |_| Err(injected("sink.prepare.before").into()));
        let Prepared { state, committables } = sink.writer.prepare(id).await?;
        fail::fail_point!("sink.prepare.after", |_| Err(injected("sink.prepare.after").into()));
        if let Some(link) = self.links.last() {
            link.metrics.set_waiting(sink.writer.next_delivery().is_some());
        }
        for key in sink.obsolete.drain(..) {
            changes.delete(key);
        }
        if sink.last_state.as_ref() != Some(&state) {
            changes.put(sink.key.clone(), state.clone());
            sink.last_state = Some(state);
        }
        let keyed = |(number, committable)| (committable_key(sink.state, id, sink.subtask, number), committable);
        let committables: Vec<Committable> = committables.into_iter().enumerate().map(keyed).collect();
        for (key, committable) in committables.iter().filter(|_| !is_planted(Bug::CommittablesNotStored)) {
            changes.put(key.clone(), committable.clone());
        }
        Ok(committables)
    }

    /// Sends a mark out of every route of the chain.
    pub(super) async fn broadcast(&mut self, element: Element) -> Result<(), TaskError> {
        for link in &mut self.links {
            for (_, route) in &mut link.routes {
                route.broadcast(element.clone()).await?;
            }
        }
        Ok(())
    }

    /// What every link has counted, for the checkpoint.
    pub(super) fn counted(&self) -> Vec<CountedRows> {
        for link in &self.links {
            if let Some(operator) = &link.operator {
                link.metrics.set_state_bytes(operator.state_bytes() as u64);
            }
        }
        self.links.iter().map(|link| link.metrics.counted()).collect()
    }

    fn is_sink(&self, index: usize) -> bool {
        self.sink.is_some() && index + 1 == self.links.len()
    }

    /// Calls one operator and passes on what it emits.
    async fn call(
        &mut self,
        index: usize,
        call: impl FnOnce(&mut dyn Operator, &mut Output) -> Result<()> + Send,
    ) -> Result<(), TaskError> {
        let link = &mut self.links[index];
        let Some(operator) = &mut link.operator else {
            return Err(Error::internal(format!("'{}' was called like an operator", link.uid)).into());
        };
        let mut out = Output::default();
        let mut started = Stopwatch::start();
        let mut result = call(operator.as_mut(), &mut out);
        let mut more = true;
        while more {
            let link = &mut self.links[index];
            if let (Ok(()), Some(operator)) = (&result, &mut link.operator) {
                match operator.more(&mut out) {
                    Ok(answer) => more = answer,
                    Err(error) => result = Err(error),
                }
            }
            link.metrics.add_busy_nanos(started.elapsed().as_nanos() as u64);
            result.map_err(|error| error.at(format!("operator '{}'", link.uid)))?;
            result = Ok(());
            for item in std::mem::take(&mut out.items) {
                self.emitted(index, item).await?;
            }
            started = Stopwatch::start();
        }
        Ok(())
    }

    /// Passes on what link `index` emitted: into the next link, or out of the chain.
    ///
    /// Boxed, as `emitted`, `enter` and `call` call each other along the chain.
    fn emitted(&mut self, index: usize, item: Emitted) -> BoxFuture<'_, Result<(), TaskError>> {
        Box::pin(self.pass_on(index, item))
    }

    async fn pass_on(&mut self, index: usize, item: Emitted) -> Result<(), TaskError> {
        match item {
            Emitted::Batch(port, batch) => match self.batch_rows.filter(|rows| batch.len() > *rows) {
                None => self.pass_batch_on(index, port, batch).await,
                Some(rows) => {
                    for start in (0..batch.len()).step_by(rows) {
                        let part = batch.slice(start, rows.min(batch.len() - start));
                        self.pass_batch_on(index, port, part).await?;
                    }
                    Ok(())
                }
            },
            Emitted::Rejected(rejected) => self.rejected(index, rejected).await,
            Emitted::Watermark(watermark) => {
                for (_, route) in &mut self.links[index].routes {
                    route.broadcast(Element::Watermark(watermark)).await?;
                }
                if index + 1 == self.links.len() {
                    return Ok(());
                }
                self.links[index + 1].metrics.set_watermark(watermark);
                if self.links[index + 1].operator.is_none() {
                    return Ok(());
                }
                self.call(index + 1, |operator, out| operator.watermark(watermark, out)).await
            }
        }
    }

    async fn pass_batch_on(&mut self, index: usize, port: Port, batch: Batch) -> Result<(), TaskError> {
        if port == Port::MAIN {
            let metrics = &self.links[index].metrics;
            metrics.add_rows_out(batch.len() as u64);
            metrics.add_bytes_out(batch.bytes() as u64);
        }
        self.send(index, port, &batch).await?;
        if port == Port::MAIN && index + 1 < self.links.len() {
            self.enter(index + 1, InputIndex::FIRST, batch).await?;
        }
        Ok(())
    }

    /// Rows enter an operator or the sink.
    async fn enter(&mut self, index: usize, input: InputIndex, batch: Batch) -> Result<(), TaskError> {
        let metrics = &self.links[index].metrics;
        metrics.add_rows_in(batch.len() as u64);
        metrics.add_bytes_in(batch.bytes() as u64);
        if !self.is_sink(index) {
            return self.call(index, |operator, out| operator.process(input, batch, out)).await;
        }
        self.write(SinkInput::Rows(batch)).await
    }

    async fn write(&mut self, input: SinkInput) -> Result<(), TaskError> {
        let (Some(sink), Some(link)) = (&mut self.sink, self.links.last_mut()) else {
            return Err(Error::internal("rows for a sink that is not there").into());
        };
        let started = Stopwatch::start();
        let written = match input {
            SinkInput::Rows(batch) => sink.writer.write(batch).await,
            SinkInput::Flush(now) => sink.writer.flush(now).await,
        };
        link.metrics.add_busy_nanos(started.elapsed().as_nanos() as u64);
        written.map_err(|error| link.policies.about_table(error))?;
        self.undelivered().await
    }

    /// Takes care of the rows that the sink could not take.
    async fn undelivered(&mut self) -> Result<(), TaskError> {
        match self.sink.as_mut().and_then(|sink| sink.writer.take_rejected()) {
            Some(rejected) => self.rejected(self.links.len() - 1, rejected).await,
            None => Ok(()),
        }
    }

    /// Does with rejected rows what their table says.
    async fn rejected(&mut self, index: usize, rejected: RejectedRows) -> Result<(), TaskError> {
        let link = &mut self.links[index];
        for (sink, letters) in link.policies.apply(&rejected, &link.metrics)? {
            for (port, route) in &mut link.routes {
                if *port == Port::REJECTED && route.to == sink {
                    route.send(&letters).await?;
                }
            }
        }
        Ok(())
    }

    async fn send(&mut self, index: usize, port: Port, batch: &Batch) -> Result<(), TaskError> {
        let link = &mut self.links[index];
        link.metrics.begin_blocked();
        let mut unkeyed = Vec::new();
        for (of, route) in &mut link.routes {
            if *of == port {
                unkeyed.extend(route.send(batch).await?);
            }
        }
        link.metrics.end_blocked();
        // Several edges may compute the same key; a row that has none fails for each of them.
        for rejected in unkeyed {
            self.rejected(index, rejected).await?;
        }
        Ok(())
    }
}
