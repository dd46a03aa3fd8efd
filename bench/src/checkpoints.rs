//! What checkpoints cost: the same job without any (one an hour), with one a second, and with ten a second, in turn.

use crate::Result;
use crate::nexmark::{BID, COUNT, SINK, job};

/// Events of a run: some ten seconds, so that there are checkpoints enough.
const EVENTS: u64 = 150_000_000;
const ROUNDS: usize = 3;

pub fn run() -> Result<()> {
    println!("| checkpoint | seconds, best of {ROUNDS} | against none | goal |\n| --- | ---: | ---: | ---: |");
    let intervals = [("none", "1 h", ""), ("every second", "1 s", "5 %"), ("every 100 ms", "100 ms", "15 %")];
    let mut best = [f64::MAX; 3];
    for _ in 0..ROUNDS {
        for (best, (_, interval, _)) in best.iter_mut().zip(intervals) {
            let script = format!(
                "SET 'execution.checkpointing.interval' = '{interval}';
                CREATE TABLE bid ({BID}) WITH ('connector' = 'nexmark', 'nexmark.event' = 'bid', 'events.num' = '{EVENTS}');
                {SINK}\n{COUNT}"
            );
            *best = best.min(job(None, &script, 1)?.wall.as_secs_f64());
        }
    }
    for (seconds, (name, _, goal)) in best.iter().zip(intervals) {
        println!("| {name} | {seconds:.2} | {:+.1} % | {goal} |", (seconds / best[0] - 1.0) * 100.0);
    }
    Ok(())
}
