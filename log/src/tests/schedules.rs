//! Random schedules of transactions over several shards, with crashes and restarts, against a naive model.

use std::sync::Arc;

use super::transactions::{id, open, seen};
use super::{Fixture, batch};
use crate::{Isolation, Log, Shard, Transaction, TransactionRef};

const SHARDS: u32 = 3;
const STEPS: usize = 120;
const SEEDS: u64 = 40;

/// What the model knows of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Committed,
    Aborted,
}

/// The naive model: every record of every shard with the transaction it is of.
#[derive(Default)]
struct Model {
    shards: [Vec<(u64, Option<usize>)>; SHARDS as usize],
    fates: Vec<Fate>,
}

impl Model {
    fn all(&self, shard: usize) -> Vec<u64> {
        self.shards[shard].iter().map(|(value, _)| *value).collect()
    }

    fn committed(&self, shard: usize) -> Vec<u64> {
        let fate = |of: &Option<usize>| of.map_or(Fate::Committed, |transaction| self.fates[transaction]);
        let decided = self.shards[shard].iter().take_while(|(_, of)| fate(of) != Fate::Open);
        decided.filter(|(_, of)| fate(of) == Fate::Committed).map(|(value, _)| *value).collect()
    }
}

/// The log under test, and the transactions that are under way.
struct World {
    fixture: Fixture,
    log: Option<Log>,
    shards: Vec<Arc<Shard>>,
    ongoing: Vec<(usize, Transaction)>,
    prepared: Vec<(usize, TransactionRef)>,
    ended: Vec<(usize, TransactionRef)>,
    model: Model,
    random: u64,
    next_value: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let fixture = Fixture::in_memory();
        let (log, shards) = open(&fixture, SHARDS);
        World {
            fixture,
            log: Some(log),
            shards,
            ongoing: Vec::new(),
            prepared: Vec::new(),
            ended: Vec::new(),
            model: Model::default(),
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            next_value: 0,
        }
    }

    fn log(&self) -> &Log {
        self.log.as_ref().expect("it is open")
    }

    fn below(&mut self, limit: usize) -> usize {
        self.random = self.random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.random >> 33) as usize % limit
    }

    fn step(&mut self) {
        match self.below(20) {
            0..=1 => self.append_plainly(),
            2..=4 if self.ongoing.len() < 4 => self.begin(),
            5..=10 if !self.ongoing.is_empty() => self.append(),
            11..=13 if !self.ongoing.is_empty() => self.prepare(),
            14..=15 if !self.prepared.is_empty() => self.end(true),
            16 if !self.prepared.is_empty() => self.end(false),
            17 if !self.ongoing.is_empty() => self.give_up(),
            18 => self.end_again(),
            19 => self.restart(),
            _ => {}
        }
    }

    fn values(&mut self) -> std::ops::Range<u64> {
        let first = self.next_value;
        self.next_value += 1 + self.below(6) as u64;
        first..self.next_value
    }

    fn append_plainly(&mut self) {
        let (shard, values) = (self.below(SHARDS as usize), self.values());
        self.shards[shard].append(batch(values.clone())).wait().expect("appended");
        self.model.shards[shard].extend(values.map(|value| (value, None)));
    }

    fn begin(&mut self) {
        let number = self.model.fates.len();
        self.model.fates.push(Fate::Open);
        let transaction = self.log().transaction(&id(&format!("job/{number}"))).expect("begun");
        self.ongoing.push((number, transaction));
    }

    fn append(&mut self) {
        let (one, shard, values) = (self.below(self.ongoing.len()), self.below(SHARDS as usize), self.values());
        let (number, transaction) = &self.ongoing[one];
        transaction.append(&self.shards[shard], batch(values.clone())).wait().expect("appended");
        self.model.shards[shard].extend(values.map(|value| (value, Some(*number))));
    }

    fn prepare(&mut self) {
        let one = self.below(self.ongoing.len());
        let (number, mut transaction) = self.ongoing.swap_remove(one);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        self.prepared.push((number, runtime.block_on(transaction.prepare()).expect("prepared")));
    }

    fn end(&mut self, commit: bool) {
        let one = self.below(self.prepared.len());
        let (number, reference) = self.prepared.swap_remove(one);
        let ended = match commit {
            true => self.log().commit_transaction(&reference),
            false => self.log().abort_transaction(&reference),
        };
        ended.wait().expect("ended");
        self.model.fates[number] = if commit { Fate::Committed } else { Fate::Aborted };
        self.ended.push((number, reference));
    }

    fn give_up(&mut self) {
        let one = self.below(self.ongoing.len());
        let (number, transaction) = self.ongoing.swap_remove(one);
        transaction.abort().wait().expect("aborted");
        self.model.fates[number] = Fate::Aborted;
    }

    /// A second word about what has ended: the same is taken, the opposite is not.
    fn end_again(&mut self) {
        if self.ended.is_empty() {
            return;
        }
        let one = self.below(self.ended.len());
        let (number, reference) = &self.ended[one];
        let is_committed = self.model.fates[*number] == Fate::Committed;
        assert_eq!(self.log().commit_transaction(reference).wait().is_ok(), is_committed);
        assert_eq!(self.log().abort_transaction(reference).wait().is_ok(), !is_committed);
    }

    /// The end of the process, in order or not, with or without what makes the next start fast.
    fn restart(&mut self) {
        let kind = self.below(4);
        let crashed = (kind > 0).then(|| self.fixture.crashed());
        let ongoing = std::mem::take(&mut self.ongoing);
        ongoing.iter().for_each(|(number, _)| self.model.fates[*number] = Fate::Aborted);
        self.shards.clear();
        self.log = None;
        // Later than the log: there is nobody left to be told.
        drop(ongoing);
        if let Some(crashed) = crashed {
            self.fixture = crashed;
        }
        if kind > 1 {
            self.fixture.forget_shortcuts();
        }
        let (log, shards) = open(&self.fixture, SHARDS);
        let mut expected: Vec<_> = self.prepared.iter().map(|(_, reference)| reference.clone()).collect();
        expected.sort_by_key(|reference| reference.producer);
        assert_eq!(log.open_transactions("job/"), expected);
        (self.log, self.shards) = (Some(log), shards);
    }

    fn check(&mut self) {
        for shard in 0..SHARDS as usize {
            let handle = Arc::clone(&self.shards[shard]);
            assert_eq!(seen(&handle, 0, Isolation::ReadUncommitted), self.model.all(shard));
            let committed = self.model.committed(shard);
            assert_eq!(seen(&handle, 0, Isolation::ReadCommitted), committed);
            // From anywhere, what is seen is the rest of it.
            let from = self.below(handle.end().0 as usize + 1) as u64;
            assert!(committed.ends_with(&seen(&handle, from, Isolation::ReadCommitted)), "from {from}");
        }
    }
}

#[test]
fn committed_readers_see_what_a_naive_model_says() {
    for seed in 0..SEEDS {
        // A failure names the seed: the schedule of a seed is always the same.
        let named = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..STEPS {
                world.step();
                world.check();
            }
            let open = world.model.fates.iter().filter(|fate| **fate == Fate::Open).count();
            assert_eq!(open, world.ongoing.len() + world.prepared.len());
        });
        assert!(named.is_ok(), "seed {seed}");
    }
}
