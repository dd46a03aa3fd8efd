//! `coulee`: arguments, settings and the terminal. What it does is done by `coulee-server`, in process or behind gRPC.
//!
//! Data goes to the standard output, everything else to the standard error. It exits with 0 when all went well, 1 when a job
//! or a server failed, 2 when the input was wrong, 130 when it was interrupted.

mod args;
mod failure;
mod settings;

// The terminal.
mod figures;
mod live;
mod rows;
mod screen;
mod summary;

// The commands.
mod connectors;
mod jobs;
mod produce;
mod run;
mod savepoints;
mod serve;
mod states;
mod streams;
mod tail;
mod target;

use std::future::Future;
use std::process::ExitCode;

use clap::Parser;

use args::{Args, Command};
use failure::Failure;
use settings::Settings;

/// For Rust and RocksDB alike. Gives memory back that the C library keeps, and random updates of a large state cost 14 % less.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = Args::parse();
    match start(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if let Some(message) = failure.message() {
                // A standard error that is closed leaves nobody to tell.
                let _ = screen::note(&format!("error: {message}"));
            }
            ExitCode::from(failure.code())
        }
    }
}

fn start(args: Args) -> Result<(), Failure> {
    coulee_server::faults_from_environment()?;
    let settings = Settings::load(args.config.as_deref(), args.log.clone())?;
    log_to_stderr(settings.log.as_deref().unwrap_or(default_log(&args.command)))?;
    match args.command {
        Command::Run(run) => on_threads(run::run(run, settings)),
        Command::Server(server) => on_threads(serve::serve(server, settings)),
        Command::Job(job) => on_threads(jobs::jobs(job, settings)),
        Command::Savepoint(savepoint) => on_threads(savepoints::savepoints(savepoint, settings)),
        Command::Stream(stream) => on_threads(streams::streams(stream, settings)),
        Command::Produce(produce) => on_threads(produce::produce(produce, settings)),
        Command::Tail(tail) => on_threads(tail::tail(tail, settings)),
        Command::Connectors(connectors) => on_threads(connectors::connectors(connectors)),
    }
}

/// Runs a command on a runtime, which is made only now: `--help` needs none.
fn on_threads(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("coulee")
        // Plans are trees that are walked recursively.
        .thread_stack_size(8 << 20)
        .build()
        .map_err(|error| Failure::Failed(format!("cannot start threads: {error}")))?;
    let result = runtime.block_on(command);
    // A read of the standard input cannot be taken back: it must not keep the process.
    runtime.shutdown_background();
    result
}

/// Which logs a command writes when nobody said. `run` tells itself why a job failed.
fn default_log(command: &Command) -> &'static str {
    match command {
        Command::Run(_) => "warn,coulee::job=off",
        _ => "warn",
    }
}

fn log_to_stderr(filter: &str) -> Result<(), Failure> {
    let parsed = tracing_subscriber::EnvFilter::try_new(filter).map_err(|error| {
        Failure::Input(format!(
            "--log '{filter}': {error}; expected something like 'info' or 'warn,coulee_runtime=debug'"
        ))
    })?;
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt().with_env_filter(parsed).with_writer(std::io::stderr).with_ansi(is_terminal).init();
    Ok(())
}
