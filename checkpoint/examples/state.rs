//! The state store under load, one scenario per process so that memory can be read from outside; `coulee-bench state` runs them all.
//!
//! ```text
//! state fill   DIR KEYS             that many values of 400 bytes, in key order
//! state update DIR KEYS SECONDS     reads and rewrites uniformly random keys, with a commit a second
//! state commit DIR KEYS             commits of 10 MB of random changes
//! state die    DIR KEYS             commits 30 MB in commits of 3 MB and dies without closing anything
//! state open   DIR                  opens the store
//! state idle   DIR STORES           opens that many stores, commits once to each, and lets them be
//! ```

#![expect(clippy::disallowed_methods, reason = "it measures")]

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use coulee_checkpoint::{Changes, CheckpointRecord, JobStore, StateKey, StoreResources, StoreSettings, TableId};
use coulee_model::{CheckpointId, KeyGroup, OperatorId, Timestamp};

/// As in the product.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

const VALUE_BYTES: usize = 400;
/// Keys of one batch of an operator.
const BATCH: usize = 8_192;
/// Subtasks that read at once.
const PARALLELISM: u64 = 2;
const OPERATOR: OperatorId = OperatorId(7);
const TABLE: TableId = TableId(1);

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize| -> Result<u64> { Ok(arguments.get(i).ok_or("an argument is missing")?.parse()?) };
    let [scenario, dir, ..] = arguments.as_slice() else { return Err("state SCENARIO DIR …".into()) };
    let dir = Path::new(dir);
    match scenario.as_str() {
        "fill" => fill(dir, number(2)?),
        "update" => update(dir, number(2)?, Duration::from_secs(number(3)?)),
        "commit" => commit(dir, number(2)?),
        "die" => die(dir, number(2)?),
        "open" => open(dir),
        "idle" => idle(dir, number(2)?),
        other => Err(format!("no scenario '{other}'").into()),
    }
}

fn store(dir: &Path) -> Result<JobStore> {
    let settings = StoreSettings { write_buffer_bytes: 64 << 20, block_cache_bytes: 128 << 20 };
    Ok(JobStore::open(dir, &settings)?)
}

/// Key groups and keys are spread as the runtime spreads them: by a hash.
fn key(i: u64) -> StateKey {
    let hash = mix(i);
    StateKey::new(OPERATOR, TABLE, KeyGroup((hash >> 56) as u16), &hash.to_be_bytes())
}

/// SplitMix64's finaliser.
fn mix(i: u64) -> u64 {
    let mut z = i.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A value that neither compresses nor repeats.
fn value(seed: u64) -> Bytes {
    (0..VALUE_BYTES / 8).flat_map(|i| mix(seed ^ ((i as u64) << 40)).to_le_bytes()).collect::<Vec<u8>>().into()
}

fn next_record(store: &JobStore) -> CheckpointRecord {
    let id = store.last_checkpoint().map_or(CheckpointId(1), |last| last.id.next());
    CheckpointRecord { id, at: Timestamp(id.0 as i64), job: String::new() }
}

fn fill(dir: &Path, keys: u64) -> Result<()> {
    let store = store(dir)?;
    let mut hashes: Vec<u64> = (0..keys).collect();
    hashes.sort_unstable_by_key(|i| mix(*i));
    let started = Instant::now();
    for part in hashes.chunks(100_000) {
        let mut changes = Changes::default();
        for i in part {
            changes.put(key(*i), value(*i));
        }
        store.commit(next_record(&store), [changes])?;
    }
    report(&store, "fill", keys, started.elapsed());
    Ok(())
}

/// One batch of a subtask: a sorted multi-get of random keys, and new values for all.
fn batch(store: &JobStore, keys: u64, seed: u64, changes: &mut Changes) -> Result<()> {
    let mut wanted: Vec<StateKey> = (0..BATCH as u64).map(|i| key(mix(seed << 20 | i) % keys)).collect();
    wanted.sort_unstable();
    wanted.dedup();
    let found = store.get_many(&wanted)?;
    for (i, (key, value)) in wanted.into_iter().zip(found).enumerate() {
        let mut value = value.ok_or("a key is missing")?.to_vec();
        value[..8].copy_from_slice(&(seed << 20 | i as u64).to_be_bytes());
        changes.put(key, value);
    }
    Ok(())
}

fn update(dir: &Path, keys: u64, duration: Duration) -> Result<()> {
    let store = store(dir)?;
    let started = Instant::now();
    let (mut done, mut slowest, mut seed) = (0, Duration::ZERO, std::process::id() as u64);
    let mut in_commits = Duration::ZERO;
    while started.elapsed() < duration {
        let second = Instant::now();
        seed += 1;
        let parts: Vec<Result<(Changes, u64)>> = std::thread::scope(|scope| {
            let subtask = |index: u64| {
                let store = &store;
                scope.spawn(move || {
                    let (mut changes, mut batches) = (Changes::default(), 0);
                    // The write buffer's budget brings a checkpoint early, as in a job.
                    while second.elapsed() < Duration::from_millis(900) && changes.bytes() < 24 << 20 {
                        batch(store, keys, (seed * PARALLELISM + index) << 16 | batches, &mut changes)?;
                        batches += 1;
                    }
                    Ok((changes, batches * BATCH as u64))
                })
            };
            let subtasks: Vec<_> = (0..PARALLELISM).map(subtask).collect();
            subtasks.into_iter().map(|t| t.join().unwrap_or_else(|_| Err("a subtask panicked".into()))).collect()
        });
        let mut all = Vec::new();
        for part in parts {
            let (changes, read) = part?;
            all.push(changes);
            done += read;
        }
        let stats = store.commit(next_record(&store), all)?;
        slowest = slowest.max(stats.took);
        in_commits += stats.took;
    }
    report(&store, "update", done, started.elapsed());
    println!("commits took {:.2} s, the slowest {} ms", in_commits.as_secs_f64(), slowest.as_millis());
    Ok(())
}

fn random_changes(keys: u64, bytes: usize, seed: u64) -> Changes {
    let mut changes = Changes::default();
    for i in 0..(bytes / VALUE_BYTES) as u64 {
        changes.put(key(mix(seed << 32 | i) % keys), value(seed << 32 | i));
    }
    changes
}

fn commit(dir: &Path, keys: u64) -> Result<()> {
    let store = store(dir)?;
    let mut took = Vec::new();
    for _ in 0..30 {
        let record = next_record(&store);
        let changes = random_changes(keys, 10_000_000, record.id.0);
        took.push(store.commit(record, [changes])?.took);
    }
    took.sort_unstable();
    println!("30 commits of 10 MB: median {} ms, slowest {} ms", took[15].as_millis(), took[29].as_millis());
    report(&store, "commit", 30 * 25_000, took.iter().sum());
    Ok(())
}

fn die(dir: &Path, keys: u64) -> Result<()> {
    let store = store(dir)?;
    for _ in 0..10 {
        let record = next_record(&store);
        let changes = random_changes(keys, 3_000_000, record.id.0);
        store.commit(record, [changes])?;
    }
    println!("dies at {:?}", store.last_checkpoint().map(|last| last.id));
    std::process::abort()
}

fn open(dir: &Path) -> Result<()> {
    let started = Instant::now();
    let store = store(dir)?;
    let took = started.elapsed();
    println!("opened {:?} in {} ms", store.last_checkpoint().map(|last| last.id), took.as_millis());
    Ok(())
}

fn idle(dir: &Path, stores: u64) -> Result<()> {
    let resources = StoreResources::shared(64 << 20, 64 << 20);
    let before = resident_bytes()?;
    let mut open = Vec::new();
    for i in 0..stores {
        let store = JobStore::open_with(&dir.join(i.to_string()), &StoreSettings::default(), &resources)?;
        store.commit(next_record(&store), [random_changes(1_000, 4_000, i)])?;
        open.push(store);
    }
    let each = (resident_bytes()? - before) / stores;
    let cpu = processor_ticks()?;
    let second = Instant::now();
    std::thread::sleep(Duration::from_secs(3));
    println!(
        "{stores} idle stores: {} KiB each, {} ticks of processor time in {:.1} s",
        each >> 10,
        processor_ticks()? - cpu,
        second.elapsed().as_secs_f64()
    );
    drop(open);
    Ok(())
}

fn report(store: &JobStore, what: &str, keys: u64, took: Duration) {
    println!(
        "{what}: {keys} keys in {:.1} s, {:.0} keys/s; {} MB on disk, {} MB of memory",
        took.as_secs_f64(),
        keys as f64 / took.as_secs_f64(),
        store.size_bytes() / 1_000_000,
        store.memory_bytes() / 1_000_000
    );
}

fn resident_bytes() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    Ok(line.split_whitespace().next().ok_or("no VmRSS")?.parse::<u64>()? << 10)
}

fn processor_ticks() -> Result<u64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = stat.rsplit_once(')').ok_or("no stat")?.1.split_whitespace().collect();
    Ok(fields[11].parse::<u64>()? + fields[12].parse::<u64>()?)
}
