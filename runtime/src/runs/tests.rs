//! Runs against a naive map, through restarts at several parallelisms.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{Field, Int64Type, Schema};
use coulee_checkpoint::{CheckpointRecord, JobStore, StoreSettings, TableId};
use coulee_model::{Clock, ManualClock, OperatorId, Timestamp};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::job::executor::{Executor, Tokio};
use crate::metrics::SubtaskMetrics;
use crate::state::MemoryBudget;

const OPERATOR: OperatorId = OperatorId(5);
const TABLES: RunTables = RunTables { pieces: TableId(1), index: TableId(2) };

/// Sums per slice and key.
type Sums = BTreeMap<(i64, i64), i64>;

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("key", DataType::Int64, false), Field::new("sum", DataType::Int64, false)]))
}

fn batch(rows: &BTreeMap<i64, i64>) -> RecordBatch {
    let column = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as ArrayRef;
    let columns = vec![column(rows.keys().copied().collect()), column(rows.values().copied().collect())];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn add(into: &mut BTreeMap<i64, i64>, rows: &RecordBatch) {
    let column = |index: usize| rows.column(index).as_primitive::<Int64Type>().values().to_vec();
    column(0).into_iter().zip(column(1)).for_each(|(key, sum)| *into.entry(key).or_default() += sum);
}

/// The subtasks of an operator that sums.
struct Job {
    store: Arc<JobStore>,
    subtasks: Vec<Subtask>,
}

struct Subtask {
    runs: Runs,
    sets: BTreeMap<i64, RunSet>,
    /// What changed since the last checkpoint.
    tables: BTreeMap<i64, BTreeMap<i64, i64>>,
}

impl Job {
    fn open(store: &Arc<JobStore>, parallelism: u32) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(Timestamp(0)));
        let executor: Arc<dyn Executor> = Arc::new(Tokio);
        let budget = MemoryBudget::new(64 << 20);
        let open = |subtask: u32| {
            let subtask = SubtaskIndex(subtask);
            let metrics = Arc::new(SubtaskMetrics::new(OPERATOR, subtask));
            let context = OpenContext {
                operator: OPERATOR,
                subtask,
                parallelism,
                store,
                metrics,
                budget: &budget,
                clock: &clock,
                executor: &executor,
            };
            let mut tables = BTreeMap::<i64, BTreeMap<i64, i64>>::new();
            let adopt = |slice: i64, rows: &RecordBatch| {
                add(tables.entry(slice).or_default(), rows);
                Ok(())
            };
            let (runs, sets) = Runs::open(&context, TABLES, schema(), 1, adopt).unwrap();
            Subtask { runs, sets, tables }
        };
        Job { store: store.clone(), subtasks: (0..parallelism).map(open).collect() }
    }

    fn update(&mut self, slice: i64, key: i64, value: i64) {
        let keys: ArrayRef = Arc::new(Int64Array::from(vec![key]));
        let group = KeyGroup::of_hash(hash_keys(&[keys], 1).unwrap()[0]);
        let owner = self.subtasks.iter_mut().find(|subtask| subtask.runs.backend().groups().contains(&group.0));
        *owner.unwrap().tables.entry(slice).or_default().entry(key).or_default() += value;
    }

    fn checkpoint(&mut self, id: u64) {
        let mut changes = Changes::default();
        for subtask in &mut self.subtasks {
            subtask.checkpoint(CheckpointId(id), &mut changes);
        }
        let record = CheckpointRecord { id: CheckpointId(id), at: Timestamp(0), job: String::new() };
        self.store.commit(record, [changes]).unwrap();
    }

    fn sums(&self) -> Sums {
        let mut sums = Sums::new();
        for subtask in &self.subtasks {
            let mut slices = subtask.tables.clone();
            for (slice, set) in &subtask.sets {
                let table = slices.entry(*slice).or_default();
                let add = |rows: &RecordBatch| {
                    add(table, rows);
                    Ok(())
                };
                subtask.runs.rows(set, &(0..KeyGroup::COUNT), add).unwrap();
            }
            let all =
                slices.into_iter().flat_map(|(slice, table)| table.into_iter().map(move |(k, sum)| ((slice, k), sum)));
            for (place, sum) in all {
                assert!(sums.insert(place, sum).is_none(), "each key is one subtask's");
            }
        }
        sums
    }
}

impl Subtask {
    fn checkpoint(&mut self, id: CheckpointId, changes: &mut Changes) {
        for (slice, mut table) in std::mem::take(&mut self.tables) {
            let set = self.sets.entry(slice).or_default();
            while let Some(run) = self.runs.absorb(set, table.len(), usize::MAX) {
                let merge = |rows: &RecordBatch| {
                    add(&mut table, rows);
                    Ok(())
                };
                self.runs.rows(&run, &(0..KeyGroup::COUNT), merge).unwrap();
            }
            self.runs.store((slice, set), id, batch(&table), changes).unwrap();
        }
        self.runs.hand_over(changes);
    }
}

#[test]
fn sums_survive_restarts_at_any_parallelism() {
    for seed in 0..20 {
        let mut random = SmallRng::seed_from_u64(seed);
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(JobStore::open(dir.path(), &StoreSettings::default()).unwrap());
        let mut job = Job::open(&store, 1);
        let (mut now, mut durable) = (Sums::new(), Sums::new());
        for checkpoint in 1..20 {
            for _ in 0..random.random_range(0..50) {
                let (slice, key) = (random.random_range(-1..2), random.random_range(0..100));
                let value = random.random_range(-5..5);
                job.update(slice, key, value);
                *now.entry((slice, key)).or_default() += value;
            }
            job.checkpoint(checkpoint);
            durable.clone_from(&now);
            if random.random_range(0..3) == 0 {
                // What came after the checkpoint is forgotten.
                job.update(0, 0, 7);
                job = Job::open(&store, random.random_range(1..4));
                now.clone_from(&durable);
            }
            assert_eq!(job.sums(), now, "seed {seed}, checkpoint {checkpoint}");
        }
    }
}

#[test]
fn a_slice_has_few_runs_and_its_rows_are_seldom_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(JobStore::open(dir.path(), &StoreSettings::default()).unwrap());
    let mut job = Job::open(&store, 1);
    let (mut written, checkpoints, rows) = (0, 512u64, 10);
    for checkpoint in 1..=checkpoints {
        for row in 0..rows {
            job.update(0, (checkpoint * rows + row) as i64, 1);
        }
        job.checkpoint(checkpoint);
        let set = &job.subtasks[0].sets[&0];
        assert!(set.len() <= 10, "{} runs after {checkpoint} checkpoints", set.len());
        written += set.runs.last().map_or(0, Run::len);
    }
    // Each row is written once, and again at most once per doubling.
    assert!(written <= (checkpoints * rows * 10) as usize, "{written} rows were written");
}

#[test]
fn a_closed_slice_leaves_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(JobStore::open(dir.path(), &StoreSettings::default()).unwrap());
    let mut job = Job::open(&store, 1);
    (0..100).for_each(|key| job.update(key % 2, key, 1));
    job.checkpoint(1);
    let Subtask { runs, sets, .. } = &mut job.subtasks[0];
    let closed = runs.retire(sets.remove(&0).unwrap());
    let mut seen = 0;
    let count = |rows: &RecordBatch| {
        seen += rows.num_rows();
        Ok(())
    };
    runs.rows(&closed, &(0..KeyGroup::COUNT), count).unwrap();
    assert_eq!(seen, 50, "it can be read until the next checkpoint");
    job.checkpoint(2);
    assert_eq!(Job::open(&store, 1).sums().len(), 50);
    assert_eq!(store.scan(OPERATOR, TABLES.pieces).count(), 1);
}

#[test]
fn what_is_left_to_the_store_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(JobStore::open(dir.path(), &StoreSettings::default()).unwrap());
    let mut job = Job::open(&store, 1);
    (0..1_000).for_each(|key| job.update(0, key, key));
    job.checkpoint(1);
    let before = job.sums();
    let set = job.subtasks[0].sets.get_mut(&0).unwrap();
    let loaded = set.loaded_bytes();
    assert_eq!(set.unload(CheckpointId(0), usize::MAX), 0, "the store does not have it yet");
    assert_eq!(set.unload(CheckpointId(1), usize::MAX), loaded);
    assert_eq!((set.loaded_bytes(), job.sums()), (0, before));
}

#[test]
fn rows_of_other_columns_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(JobStore::open(dir.path(), &StoreSettings::default()).unwrap());
    let mut job = Job::open(&store, 1);
    job.update(0, 1, 1);
    job.checkpoint(1);
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::new(Timestamp(0)));
    let executor: Arc<dyn Executor> = Arc::new(Tokio);
    let (subtask, budget) = (SubtaskIndex(0), MemoryBudget::new(1 << 20));
    let metrics = Arc::new(SubtaskMetrics::new(OPERATOR, subtask));
    let context = OpenContext {
        operator: OPERATOR,
        subtask,
        parallelism: 1,
        store: &store,
        metrics,
        budget: &budget,
        clock: &clock,
        executor: &executor,
    };
    let other = Arc::new(Schema::new(vec![Field::new("key", DataType::Utf8, false)]));
    let error = Runs::open(&context, TABLES, other, 1, |_, _| Ok(())).unwrap_err();
    assert_eq!(error.kind(), coulee_model::ErrorKind::Invalid);
    assert!(error.to_string().contains("other columns"), "{error}");
}
