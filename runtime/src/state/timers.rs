//! Timers: instants per key at which a function wants to be called, of event time or of processing time.
//!
//! The nearest timers are in memory, in order; those beyond a horizon are only in the store, and are read when the horizon is reached.
//! A stored key is `time i64 (sign bit flipped) | hash u64 | key`, with an empty value.

use std::collections::{BTreeMap, BTreeSet};

use coulee_checkpoint::{Changes, TableId};
use coulee_model::{CheckpointId, KeyGroup, Timestamp};

use super::backend::{Backend, KeyRef};
use super::budget::MemoryReservation;
use super::part::KeyPart;
use crate::{Error, Result};

/// What a timer costs in memory beside its key, roughly.
const TIMER_OVERHEAD_BYTES: usize = 72;
/// How many timers of one key group are read at once.
const READ_TIMERS: usize = 4_096;

/// A timer of a key. Sorts by time, then by key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timer {
    /// When it is due.
    pub at: Timestamp,
    hash: u64,
    key: Box<[u8]>,
}

impl Timer {
    fn new(at: Timestamp, key: KeyRef<'_>) -> Self {
        Timer { at, hash: key.hash, key: key.bytes.into() }
    }

    /// The key.
    pub fn key(&self) -> KeyRef<'_> {
        KeyRef { hash: self.hash, bytes: &self.key }
    }

    fn stored_key(&self) -> Vec<u8> {
        let mut stored = Vec::with_capacity(16 + self.key.len());
        self.at.encode_key(&mut stored);
        self.hash.encode_key(&mut stored);
        stored.extend_from_slice(&self.key);
        stored
    }

    fn parse(stored: &[u8]) -> Result<Self> {
        let mut rest = stored;
        let parse = |rest: &mut &[u8]| Ok::<_, Error>((Timestamp::decode_key(rest)?, u64::decode_key(rest)?));
        let (at, hash) = parse(&mut rest).map_err(|_| Error::corrupt("a stored timer has under 16 bytes"))?;
        Ok(Timer { at, hash, key: rest.into() })
    }

    fn bytes(&self) -> usize {
        self.key.len() + TIMER_OVERHEAD_BYTES
    }
}

/// The timers of one subtask, of one kind of time.
///
/// **Operations** `register` and `delete`; `next` says when something is due and `take_due` gives it, in order; `checkpoint` at a barrier.
/// **Guarantees** A timer that is registered and not deleted is given once, through restarts and at any parallelism; registering it again changes nothing.
#[derive(Debug)]
pub struct Timers {
    table: TableId,
    backend: Option<Backend>,
    reservation: Option<MemoryReservation>,
    /// All timers before the horizon.
    near: BTreeSet<Timer>,
    /// Timers that differ from the store since the last checkpoint, and whether they exist.
    changed: BTreeMap<Timer, bool>,
    /// What was handed over with a checkpoint that may not be durable: as `changed`.
    handed: Vec<(CheckpointId, BTreeMap<Timer, bool>)>,
    /// From here on timers are only in the store, `handed` and `changed`.
    horizon: Timestamp,
    bytes: usize,
}

impl Timers {
    /// No timers yet.
    pub fn new(table: TableId) -> Self {
        Timers {
            table,
            backend: None,
            reservation: None,
            near: BTreeSet::new(),
            changed: BTreeMap::new(),
            handed: Vec::new(),
            horizon: Timestamp::MAX,
            bytes: 0,
        }
    }

    /// Reads the nearest timers.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn open(&mut self, backend: Backend) -> Result<()> {
        self.reservation = Some(backend.reservation());
        // Most operators have none: one look instead of one per key group.
        let is_empty = backend.is_empty(self.table)?;
        self.backend = Some(backend);
        if is_empty { Ok(()) } else { self.read_from(Timestamp::MIN) }
    }

    /// Asks for `key` to be called at `at`.
    pub fn register(&mut self, at: Timestamp, key: KeyRef<'_>) {
        let timer = Timer::new(at, key);
        if at >= self.horizon || self.add(timer.clone()) {
            self.change(timer, true);
        }
    }

    /// Takes back what `register` asked. A timer that does not exist is fine.
    pub fn delete(&mut self, at: Timestamp, key: KeyRef<'_>) {
        let timer = Timer::new(at, key);
        if at >= self.horizon || self.drop_near(&timer) {
            self.change(timer, false);
        }
    }

    fn add(&mut self, timer: Timer) -> bool {
        let bytes = timer.bytes();
        let is_new = self.near.insert(timer);
        self.bytes += if is_new { bytes } else { 0 };
        is_new
    }

    fn drop_near(&mut self, timer: &Timer) -> bool {
        let was = self.near.remove(timer);
        self.bytes -= if was { timer.bytes() } else { 0 };
        was
    }

    fn change(&mut self, timer: Timer, exists: bool) {
        let bytes = timer.bytes();
        if self.changed.insert(timer, exists).is_none() {
            self.bytes += bytes;
        }
    }

    /// When the next timer is due at the earliest: at the horizon there may be none.
    pub fn next(&self) -> Option<Timestamp> {
        let near = self.near.first().map(|timer| timer.at);
        near.or((self.horizon < Timestamp::MAX).then_some(self.horizon))
    }

    /// Takes timers that are due at `now`, the earliest first, at most `limit`. They count as deleted.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn take_due(&mut self, now: Timestamp, limit: usize) -> Result<Vec<Timer>> {
        let mut due = Vec::new();
        while due.len() < limit {
            if self.near.is_empty() && self.horizon <= now && self.horizon < Timestamp::MAX {
                self.read_from(self.horizon)?;
                continue;
            }
            let Some(timer) = self.near.pop_first() else { break };
            if timer.at > now {
                self.near.insert(timer);
                break;
            }
            self.bytes -= timer.bytes();
            self.change(timer.clone(), false);
            due.push(timer);
        }
        Ok(due)
    }

    /// Fills the memory with the timers from `start` on, up to a new horizon.
    fn read_from(&mut self, start: Timestamp) -> Result<()> {
        let Some(backend) = &self.backend else { return Ok(()) };
        let mut from = Vec::with_capacity(8);
        start.encode_key(&mut from);
        let (mut found, mut horizon) = (BTreeSet::new(), Timestamp::MAX);
        for group in backend.groups() {
            let (mut count, mut last) = (0, start);
            for entry in backend.scan(self.table, group..group + 1, &from) {
                let (_, stored, _) = entry?;
                let timer = Timer::parse(&stored)?;
                // The horizon lies between instants: past the limit, what is left of the last one is still read.
                if count >= READ_TIMERS && timer.at > last {
                    horizon = horizon.min(timer.at);
                    break;
                }
                (count, last) = (count + 1, timer.at);
                found.insert(timer);
            }
        }
        // What the store does not know yet.
        for (timer, exists) in self.handed.iter().flat_map(|(_, changed)| changed).chain(&self.changed) {
            if *exists && timer.at >= start {
                found.insert(timer.clone());
            } else {
                found.remove(timer);
            }
        }
        self.horizon = horizon;
        for timer in found.into_iter().take_while(|timer| timer.at < horizon) {
            self.add(timer);
        }
        Ok(())
    }

    /// Hands over what changed.
    pub fn checkpoint(&mut self, id: CheckpointId, changes: &mut Changes) {
        let Some(backend) = &self.backend else { return };
        let durable = backend.durable();
        for (timer, exists) in &self.changed {
            let key = backend.key(self.table, KeyGroup::of_hash(timer.hash), &timer.stored_key());
            if *exists {
                changes.put(key, Vec::new());
            } else {
                changes.delete(key);
            }
        }
        self.handed.push((id, std::mem::take(&mut self.changed)));
        while let Some((first, handed)) = self.handed.first()
            && *first <= durable
        {
            self.bytes -= handed.keys().map(Timer::bytes).sum::<usize>();
            self.handed.remove(0);
        }
        self.trim();
    }

    /// Leaves the later half to the store if the job is over its memory budget.
    fn trim(&mut self) {
        let Some(reservation) = &mut self.reservation else { return };
        reservation.set(self.bytes);
        while reservation.is_over() && self.near.len() > 1 {
            let Some(middle) = self.near.iter().nth(self.near.len() / 2).map(|timer| timer.at) else { return };
            let first = self.near.first().map_or(middle, |timer| timer.at);
            if middle <= first {
                // All at one instant: they are needed together.
                return;
            }
            let far = self.near.split_off(&Timer { at: middle, hash: 0, key: Box::default() });
            self.bytes -= far.iter().map(Timer::bytes).sum::<usize>();
            self.horizon = middle;
            reservation.set(self.bytes);
        }
    }

    /// Bytes in memory, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}
