//! The simulated source: splits whose records come in time, some splits later than the job.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, BinaryArray, Int64Array, StringArray, TimestampMillisecondArray};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use bytes::Bytes;
use rand::Rng;

use super::BrokenWorld;
use super::scenario::{InputRow, Record, SourceScript, Split};
use super::world::World;
use crate::connector::{
    Enumeration, KnownSplits, Source, SourceContext, SourceEvent, SourceReader, SplitEnumerator, SplitId, SplitStart,
    rejected_schema,
};
use crate::origin::RowPositions;
use crate::state::Facet;
use crate::{Error, Result};

/// How long a split must have been silent before its end is told: timers of the wall clock fire before the job ends.
const SILENCE_BEFORE_END: Duration = Duration::from_secs(3);

/// Rows as a batch of `id`, `key`, `time`, `value`.
pub(super) fn batch(rows: &[InputRow]) -> RecordBatch {
    let columns: [(&str, ArrayRef, bool); 4] = [
        ("id", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.id))), true),
        ("key", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row.key))), true),
        ("time", Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.time))), true),
        ("value", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.value))), true),
    ];
    RecordBatch::try_from_iter_with_nullable(columns).expect("four columns of one length")
}

fn rejected(broken: &[i64]) -> Option<RecordBatch> {
    let raw: Vec<String> = broken.iter().map(|id| format!("\"id\":{id},")).collect();
    let text = |text: &str| Arc::new(StringArray::from(vec![text; broken.len()])) as ArrayRef;
    let columns = vec![
        text("simulated"),
        text("no row"),
        Arc::new(BinaryArray::from_iter_values(&raw)),
        text("decode"),
        Arc::new(StringArray::from(vec![None::<&str>; broken.len()])),
    ];
    (!broken.is_empty()).then(|| RecordBatch::try_new(rejected_schema(), columns).expect("its schema"))
}

/// One of a scenario's sources.
#[derive(Debug)]
pub(super) struct SimulatedSource {
    pub(super) world: World,
    pub(super) script: Arc<SourceScript>,
}

impl SimulatedSource {
    fn split(&self, id: &SplitId) -> Result<Split> {
        let found = self.script.splits.iter().find(|split| split.id == id.0).cloned();
        found.ok_or_else(|| Error::internal(format!("there is no split '{}'", id.0)))
    }
}

#[async_trait]
impl Source for SimulatedSource {
    fn describe(&self) -> String {
        format!("Simulated: {}", self.script.name)
    }

    fn identity(&self) -> Vec<Facet> {
        vec![Facet::new("reads", self.script.name)]
    }

    fn schema(&self) -> SchemaRef {
        batch(&[]).schema()
    }

    fn is_bounded(&self) -> bool {
        true
    }

    async fn enumerate(&self, known: KnownSplits) -> Result<Enumeration> {
        self.world.machine.lag(3_000).await;
        self.world.may_fail("an enumeration")?;
        let now = self.world.machine.elapsed();
        let is_known = |id: &String| known.unfinished.iter().chain(&known.finished).any(|split| split.id.0 == *id);
        let there = self.script.splits.iter().filter(|split| split.appears <= now).map(|split| split.id.clone());
        let all = there.filter(|id| is_known(id) || !self.world.give(id)).map(SplitId);
        let mut given: Vec<String> = known.finished.iter().map(|split| split.id.0.clone()).collect();
        let splits = known.clone().of(all, self.script.name)?;
        given.extend(splits.iter().map(|split| split.id.0.clone()));
        self.world.machine.trace(format_args!("{}: {} splits", self.script.name, splits.len()));
        let enumerator = Enumerator { world: self.world.clone(), script: self.script.clone(), given };
        let discovery = self.script.grows.then(|| Box::new(enumerator) as Box<dyn SplitEnumerator>);
        Ok(Enumeration { splits, discovery })
    }

    async fn open(&self, splits: Vec<SplitStart>, _: SourceContext) -> Result<Box<dyn SourceReader>> {
        self.world.machine.lag(1_000).await;
        let source = SimulatedSource { world: self.world.clone(), script: self.script.clone() };
        let mut reader = Reader { source, open: Vec::new(), turn: 0, last: self.world.machine.elapsed() };
        reader.add_splits(splits)?;
        Ok(Box::new(reader))
    }
}

/// Finds the splits that come while the job runs.
#[derive(Debug)]
struct Enumerator {
    world: World,
    script: Arc<SourceScript>,
    given: Vec<String>,
}

#[async_trait]
impl SplitEnumerator for Enumerator {
    async fn discover(&mut self) -> Result<Option<Vec<SplitStart>>> {
        let machine = self.world.machine.clone();
        machine.lag(5_000).await;
        self.world.may_fail("a look for splits")?;
        loop {
            let now = machine.elapsed();
            let is_new = |split: &&Split| !self.given.contains(&split.id);
            let Some(next) = self.script.splits.iter().filter(is_new).map(|split| split.appears).min() else {
                return Ok(None);
            };
            if next > now {
                machine.sleep_for(next - now).await;
                continue;
            }
            let found = self.script.splits.iter().filter(|split| is_new(split) && split.appears <= now);
            let found: Vec<String> = found.map(|split| split.id.clone()).collect();
            self.given.extend(found.iter().cloned());
            machine.trace(format_args!("{}: found {found:?}", self.script.name));
            let starts = found.into_iter().filter(|id| !self.world.give(id));
            return Ok(Some(starts.map(|id| SplitStart::new(SplitId(id))).collect()));
        }
    }
}

struct OpenSplit {
    script: Split,
    /// The next record.
    next: usize,
    /// What `position` said before the last event.
    before: usize,
    /// Whether it was said that there is nothing more for now.
    caught_up: bool,
    /// When that was said last, if no rows came since.
    silent_since: Option<Duration>,
    ended: bool,
    paused: bool,
}

/// Reads some splits.
struct Reader {
    source: SimulatedSource,
    open: Vec<OpenSplit>,
    turn: usize,
    /// When something was read.
    last: Duration,
}

impl Reader {
    /// What there is to say at once of any of the splits.
    fn poll(&mut self) -> Option<SourceEvent> {
        let count = self.open.len();
        let now = self.source.world.machine.elapsed();
        let first = self.turn;
        for split in (0..count).map(|step| (first + step) % count) {
            let open = &mut self.open[split];
            if open.ended || open.paused {
                continue;
            }
            let ready = open.script.records[open.next..].iter().take_while(|(at, _)| *at <= now).count();
            self.turn = split + 1;
            if ready > 0 {
                self.last = now;
                return Some(self.read(split, ready));
            }
            let is_over = open.next == open.script.records.len() && open.script.ends <= now;
            if is_over && self.last + SILENCE_BEFORE_END <= now {
                open.ended = true;
                return Some(SourceEvent::Ended { split });
            }
            if !open.caught_up {
                self.note_idleness(split);
                let open = &mut self.open[split];
                (open.caught_up, open.silent_since) = (true, Some(now));
                return Some(SourceEvent::CaughtUp { split });
            }
        }
        None
    }

    fn read(&mut self, split: usize, ready: usize) -> SourceEvent {
        self.note_idleness(split);
        let open = &mut self.open[split];
        open.caught_up = false;
        let count = self.source.world.machine.draw(|random| random.random_range(1..=ready.min(9)));
        open.before = open.next;
        open.next += count;
        let (mut rows, mut broken) = (Vec::new(), Vec::new());
        for (_, record) in &open.script.records[open.before..open.next] {
            match record {
                Record::Row(row) => rows.push(row.clone()),
                Record::Broken(id) => broken.push(*id),
                Record::Nothing => {}
            }
        }
        if rows.is_empty() && broken.is_empty() {
            return SourceEvent::Moved { split };
        }
        open.silent_since = None;
        SourceEvent::Rows { split, rows: batch(&rows), rejected: rejected(&broken) }
    }

    /// Writes down where a split may have been idle, so that event time went on without it.
    fn note_idleness(&self, split: usize) {
        let open = &self.open[split];
        let world = &self.source.world;
        let Some(timeout) = world.scenario.idle_timeout else { return };
        if open.silent_since.is_some_and(|since| since + timeout <= world.machine.elapsed()) {
            world.may_be_behind(&open.script, open.next);
        }
    }

    /// When there may be something to say next.
    fn next_change(&self) -> Option<Duration> {
        let next = |open: &OpenSplit| match open.script.records.get(open.next) {
            Some((at, _)) => *at,
            None => open.script.ends.max(self.last + SILENCE_BEFORE_END),
        };
        self.open.iter().filter(|open| !open.ended && !open.paused).map(next).min()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        (0..self.open.len()).for_each(|split| self.note_idleness(split));
    }
}

#[async_trait]
impl SourceReader for Reader {
    async fn next(&mut self) -> Result<SourceEvent> {
        let machine = self.source.world.machine.clone();
        if machine.once_in(2) {
            machine.lag(4_000).await;
        }
        self.source.world.may_fail("a read")?;
        loop {
            if let Some(event) = self.poll() {
                if self.source.world.is_broken(BrokenWorld::SourceIsNotCancelSafe) {
                    machine.lag(1_000).await;
                }
                return Ok(event);
            }
            match self.next_change() {
                Some(at) => machine.sleep_for(at.saturating_sub(machine.elapsed())).await,
                None => std::future::pending().await,
            }
        }
    }

    fn position(&self, split: usize) -> Bytes {
        let open = &self.open[split];
        let forgets = self.source.world.is_broken(BrokenWorld::SourceForgetsPosition);
        let position = if forgets { open.before } else { open.next };
        Bytes::from((position as u64).to_be_bytes().to_vec())
    }

    fn row_positions(&mut self) -> RowPositions {
        RowPositions::default()
    }

    fn add_splits(&mut self, splits: Vec<SplitStart>) -> Result<()> {
        for split in splits {
            let damaged = || Error::corrupt("a simulated position has not 8 bytes");
            let next = match &split.position {
                Some(position) => u64::from_be_bytes(position.as_ref().try_into().map_err(|_| damaged())?) as usize,
                None => 0,
            };
            let script = self.source.split(&split.id)?;
            self.open.push(OpenSplit {
                script,
                next,
                before: next,
                caught_up: false,
                silent_since: None,
                ended: false,
                paused: false,
            });
        }
        Ok(())
    }

    fn set_paused(&mut self, split: usize, paused: bool) {
        self.open[split].paused = paused;
    }
}
