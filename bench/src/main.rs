//! Benchmarks: what a job or the log does per second, beside a named peer or the physical limit, in one run.
//!
//! ```text
//! make bench                    all of them
//! make bench BENCH=log          one of: log, nexmark, light, state, keyed, checkpoints, latency, timers
//! ```
//!
//! Figures of jobs are those of the whole process `coulee` (the binary beside this one): wall time, processor time, peak memory.

#![expect(clippy::disallowed_methods, reason = "benchmarks measure, and repeat nothing")]

mod checkpoints;
mod keyed;
mod latency;
mod light;
mod log;
mod nexmark;
mod process;
mod state;
mod timers;

use std::process::ExitCode;

/// As in the product.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

type Benchmark = fn() -> Result<()>;

fn main() -> ExitCode {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    if cfg!(debug_assertions) {
        eprintln!("bench: this is not a release build; its figures mean little");
    }
    let all: [(&str, Benchmark); 8] = [
        ("log", log::run),
        ("nexmark", nexmark::run),
        ("light", light::run),
        ("state", state::run),
        ("keyed", keyed::run),
        ("checkpoints", checkpoints::run),
        ("latency", latency::run),
        ("timers", timers::run),
    ];
    // A scenario of a benchmark, in a process of its own.
    if let [scenario, folder] = &wanted[..]
        && let Some(scenario) = scenario.strip_prefix("keyed:")
    {
        return match keyed::scenario(scenario, folder) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("bench: {error}");
                ExitCode::FAILURE
            }
        };
    }
    if let Some(unknown) = wanted.iter().find(|name| all.iter().all(|(known, _)| known != name)) {
        eprintln!(
            "bench: no benchmark '{unknown}'; there are log, nexmark, light, state, keyed, checkpoints, latency, timers"
        );
        return ExitCode::from(2);
    }
    for (name, run) in all {
        if wanted.is_empty() || wanted.iter().any(|w| w == name) {
            println!("## {name}\n");
            if let Err(error) = run() {
                eprintln!("bench: {name}: {error}");
                return ExitCode::FAILURE;
            }
            println!();
        }
    }
    ExitCode::SUCCESS
}
