//! Runs seeds, and shows that planted bugs are found.
#![cfg(test)]

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::{BrokenWorld, Planted, Run, simulate};
use crate::planted::Bug;

/// How many seeds an ordinary run of the tests takes.
const SEEDS: u64 = 40;

/// Within how many seeds each planted bug must be found.
const SEEDS_TO_FIND: u64 = 100;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}: '{text}' is not a number")))
}

/// How often something is repeated, beside `COULEE_SIM_SEEDS`.
fn seeds() -> std::ops::Range<u64> {
    match number("COULEE_SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("COULEE_SIM_SEEDS").unwrap_or(SEEDS),
    }
}

/// Calls `check` for every seed, on as many threads as there are processors.
fn for_each_seed(seeds: std::ops::Range<u64>, check: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(seeds.start);
    let failed = Mutex::new(None::<u64>);
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(4);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::SeqCst);
                    if seed >= seeds.end || failed.lock().is_some() {
                        return;
                    }
                    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(seed))).is_err() {
                        failed.lock().get_or_insert(seed);
                    }
                }
            });
        }
    });
    if let Some(seed) = *failed.lock() {
        panic!("repeat it by: COULEE_SIM_SEED={seed} cargo test -p coulee-runtime --lib simulation -- --nocapture");
    }
}

#[test]
fn every_job_delivers_exactly_once() {
    for_each_seed(seeds(), |seed| {
        let Run { trace, verdict } = simulate(seed, None);
        if number("COULEE_SIM_SEED").is_some() {
            println!("{}", trace.join("\n"));
        }
        if let Err(wrong) = verdict {
            let last = trace.len().saturating_sub(40);
            panic!("seed {seed}: {wrong}\n{}", trace[last..].join("\n"));
        }
    });
}

#[test]
fn a_seed_repeats_its_trace() {
    for_each_seed(0..number("COULEE_SIM_SEEDS").map_or(6, |seeds| seeds / 10), |seed| {
        let (first, second) = (simulate(seed, None).trace, simulate(seed, None).trace);
        let differs = first.iter().zip(&second).position(|(first, second)| first != second);
        if let Some(line) = differs {
            panic!("seed {seed} differs in line {line}:\n{}\n{}", first[line], second[line]);
        }
        assert_eq!(first.len(), second.len(), "seed {seed}");
        assert!(first.len() > 20, "seed {seed}: {first:?}");
    });
}

/// Nothing that differs between two processes (addresses, hash seeds, names of files) may reach the trace.
#[test]
fn another_process_has_the_same_trace() {
    const SEED: u64 = 3;
    let program = std::env::current_exe().expect("this program");
    let mut other = std::process::Command::new(program);
    let (_, module) = module_path!().split_once("::").expect("a module within the crate");
    other.args(["--exact", &format!("{module}::every_job_delivers_exactly_once"), "--nocapture"]);
    let output = other.env("COULEE_SIM_SEED", SEED.to_string()).output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let trace = simulate(SEED, None).trace.join("\n");
    assert!(text.contains(&trace), "{text}\ndiffers from\n{trace}");
}

/// The first seed that finds a bug, and what it says.
fn found(bug: Planted) -> Option<(u64, String)> {
    (0..SEEDS_TO_FIND).find_map(|seed| Some((seed, simulate(seed, Some(bug)).verdict.err()?)))
}

#[test]
fn planted_bugs_are_found() {
    let bugs = [
        Planted::Runtime(Bug::BarriersNotAligned),
        Planted::Runtime(Bug::WatermarkByMaximum),
        Planted::Runtime(Bug::IdleForEver),
        Planted::Runtime(Bug::TimersNotStored),
        Planted::Runtime(Bug::CommittablesNotStored),
        Planted::Runtime(Bug::CommitBeforeDurable),
        Planted::Runtime(Bug::SnapshotNotWaitedFor),
        Planted::Runtime(Bug::KeyGroupForgotten),
        Planted::World(BrokenWorld::DiskDoesNotSync),
        Planted::World(BrokenWorld::SourceForgetsPosition),
        Planted::World(BrokenWorld::SourceIsNotCancelSafe),
        Planted::World(BrokenWorld::EnumeratorRemembers),
        Planted::World(BrokenWorld::SinkCommitsEarly),
        Planted::World(BrokenWorld::SinkCommitsTwice),
        Planted::World(BrokenWorld::SinkRecoversNothing),
        Planted::World(BrokenWorld::SinkPreparesTooLittle),
        Planted::World(BrokenWorld::StateOutsideState),
    ];
    let missed = Mutex::new(Vec::new());
    for_each_seed(0..bugs.len() as u64, |index| {
        let bug = bugs[index as usize];
        match found(bug) {
            Some((seed, how)) => println!("{bug:?}: found by seed {seed}: {how}"),
            None => missed.lock().push(bug),
        }
    });
    assert!(missed.lock().is_empty(), "not found within {SEEDS_TO_FIND} seeds: {:?}", missed.lock());
}
