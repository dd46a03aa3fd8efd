//! A program that embeds the runtime on a folder of its own, and is killed by `tests/python/test_chaos.py`.
//!
//! ```text
//! pipeline run --data DIR [--seed N] [--records N] [--parallelism N] …   produces its inputs, runs its job, ends by itself
//! pipeline read --data DIR --stream NAME                                 the committed records of a stream
//! pipeline transactions --data DIR                                       the transactions that nobody has ended
//! ```
//!
//! The inputs are a function of the seed: what is in them, and so what must come out, can be computed without the program.
//! Started again, it goes on from what is in its folder; a job that fails is started again by itself.

mod graph;
mod input;
mod run;
mod sessions;
mod settings;
mod show;
mod up_to;

use std::process::ExitCode;

use settings::{Command, Settings};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = async {
        coulee_runtime::failpoints::from_environment()?;
        let settings = Settings::parse(&arguments)?;
        match settings.command {
            Command::Run => run::run(&settings).await,
            Command::Read => show::read(&settings),
            Command::Transactions => show::transactions(&settings),
        }
    };
    match result.await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
