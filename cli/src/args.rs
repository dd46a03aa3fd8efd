//! The command line.

use std::path::PathBuf;

use clap::{Args as Arguments, Parser, Subcommand, ValueEnum};

const EXAMPLES: &str = "\
Examples:
  coulee run job.sql                              run a script here, on an empty folder
  coulee run job.sql --data-dir data              the same, and resume it when it is run again
  coulee run -e \"SELECT * FROM TABLE(...)\"        run statements from the command line
  coulee server                                   run jobs for others, on 127.0.0.1:7878
  coulee job submit job.sql                       give a script to the server
  coulee produce flights < flights.ndjson         append lines to a stream
  coulee tail flights --follow                    see what comes";

/// Stream processing in one binary: SQL jobs over a durable log, exactly once, from an empty folder.
#[derive(Debug, Parser)]
#[command(name = "coulee", version, about, after_help = EXAMPLES)]
pub struct Args {
    /// The settings file; coulee.toml in this folder if it is there.
    #[arg(long, global = true, env = "COULEE_CONFIG", value_name = "FILE", help_heading = "Everywhere")]
    pub config: Option<PathBuf>,
    /// Which logs go to the standard error: error, warn, info, debug, or more precisely 'warn,coulee_runtime=debug' [default: warn].
    #[arg(long, global = true, env = "COULEE_LOG", value_name = "FILTER", help_heading = "Everywhere")]
    pub log: Option<String>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a SQL script in this process.
    Run(RunArgs),
    /// Run jobs for others.
    Server(Server),
    /// Submit jobs to a server, and look after them.
    Job(Jobs),
    /// Take savepoints of jobs, and look after them.
    Savepoint(Savepoints),
    /// List and create streams.
    Stream(Streams),
    /// Append lines of the standard input to a stream.
    Produce(Produce),
    /// Print the records of a stream.
    Tail(Tail),
    /// List the connectors, or the options of one.
    #[command(alias = "options")]
    Connectors(Connectors),
}

/// How the rows of a SELECT are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Aligned columns.
    Table,
    /// One JSON object per line.
    Json,
    /// Comma-separated, with a header.
    Csv,
}

const RUN_HELP: &str = "\
A job is known by its name. Run again on the same --data-dir, an unfinished job resumes from its last checkpoint, and one
that has finished is left alone. Ctrl-C stops all jobs with a last checkpoint; a second one quits at once.

Relative paths in the script are relative to the current folder.";

#[derive(Debug, Arguments)]
#[command(after_help = RUN_HELP)]
pub struct RunArgs {
    /// The script; - is the standard input.
    #[arg(value_name = "FILE.sql")]
    pub file: Option<PathBuf>,
    /// Statements to run, after those of the file if there is one.
    #[arg(short, long, value_name = "SQL")]
    pub execute: Vec<String>,
    /// Where streams and state are kept; a temporary folder if absent.
    #[arg(long, env = "COULEE_DATA_DIR", value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    #[command(flatten)]
    pub script: ScriptOptions,
    /// How the rows of a SELECT are printed.
    #[arg(long, value_enum, default_value = "table")]
    pub output: Output,
}

#[derive(Debug, Arguments)]
pub struct ScriptOptions {
    /// The job's name; the file's stem if absent.
    #[arg(long)]
    pub name: Option<String>,
    /// Subtasks per operator, unless the script says otherwise [default: 1].
    #[arg(long, env = "COULEE_PARALLELISM", value_name = "N")]
    pub parallelism: Option<u32>,
    /// The snapshot that a job of the script begins with which has no state yet: a name, or a URL as `coulee savepoint list` shows it.
    #[arg(long, value_name = "NAME|URL")]
    pub from: Option<String>,
    /// Drop stored state of operators that a job no longer has; otherwise the job is refused.
    #[arg(long)]
    pub allow_non_restored_state: bool,
    /// Start over: forget the state of the script's jobs, what they delivered to local folders, and the streams that the script made;
    /// with --from, the state only.
    #[arg(long)]
    pub fresh: bool,
}

const SERVER_HELP: &str = "\
Jobs that were running when the last server ended are resumed. Ctrl-C or SIGTERM stops all jobs with a last checkpoint.

There is no authentication yet: let a server listen only where everybody who can reach it may use it.";

#[derive(Debug, Arguments)]
#[command(after_help = SERVER_HELP)]
pub struct Server {
    /// Where streams and state are kept [default: coulee-data].
    #[arg(long, env = "COULEE_DATA_DIR", value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
    /// Where to listen [default: 127.0.0.1:7878].
    #[arg(long, env = "COULEE_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Where to answer HTTP: /metrics for Prometheus and /healthz; off for nowhere [default: 127.0.0.1:7879].
    #[arg(long, env = "COULEE_HTTP_LISTEN", value_name = "ADDRESS|off")]
    pub http_listen: Option<String>,
    /// Subtasks per operator of jobs that do not say [default: 1].
    #[arg(long, env = "COULEE_PARALLELISM", value_name = "N")]
    pub parallelism: Option<u32>,
}

/// The engine that a command is for.
#[derive(Debug, Clone, Default, Arguments)]
pub struct Target {
    /// The server [default: http://127.0.0.1:7878].
    #[arg(long, global = true, env = "COULEE_SERVER", value_name = "URL")]
    pub server: Option<String>,
    /// Use a data folder that no server uses, instead of a server.
    #[arg(long, global = true, value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
}

#[derive(Debug, Arguments)]
pub struct Jobs {
    #[command(flatten)]
    pub target: Target,
    #[command(subcommand)]
    pub command: Job,
}

#[derive(Debug, Subcommand)]
pub enum Job {
    /// Give a script to the server; its jobs go on there.
    Submit {
        /// The script; - is the standard input.
        #[arg(value_name = "FILE.sql")]
        file: PathBuf,
        #[command(flatten)]
        script: ScriptOptions,
    },
    /// List all jobs.
    Ls,
    /// Show a job: its figures, its operators, its script, and why it shows no output when it shows none.
    Show {
        /// The job.
        name: String,
        #[command(flatten)]
        how: ShowOptions,
    },
    /// Stop a job with a last checkpoint.
    Stop {
        /// The job.
        name: String,
    },
    /// Resume a job from its last checkpoint, or begin it with a savepoint.
    Start {
        /// The job.
        name: String,
        #[command(flatten)]
        how: StartOptions,
    },
    /// End a job at once; it can be started again from its last checkpoint.
    Cancel {
        /// The job.
        name: String,
    },
}

/// How a job is started.
#[derive(Debug, Clone, Default, Arguments)]
pub struct StartOptions {
    /// The snapshot to begin with, for a job that has no state: a name, or a URL as `coulee savepoint list` shows it.
    #[arg(long, value_name = "NAME|URL")]
    pub from: Option<String>,
    /// Forget the job's state first; what it has delivered stays.
    #[arg(long)]
    pub fresh: bool,
    /// Subtasks per operator from now on; state is spread over them anew.
    #[arg(long, value_name = "N")]
    pub parallelism: Option<u32>,
    /// Drop stored state of operators that the job no longer has; otherwise the job is refused.
    #[arg(long)]
    pub allow_non_restored_state: bool,
}

/// How a job is shown.
#[derive(Debug, Clone, Default, Arguments)]
pub struct ShowOptions {
    /// Go on showing its figures until it ends.
    #[arg(long)]
    pub watch: bool,
    /// Also show each subtask, and each split of the sources.
    #[arg(long)]
    pub subtasks: bool,
    /// Print everything that is known as one JSON object: the message `Job` of coulee.proto.
    #[arg(long, conflicts_with_all = ["watch", "subtasks"])]
    pub json: bool,
}

const SAVEPOINT_HELP: &str = "\
A savepoint is a complete copy of a job's state at one checkpoint, kept until it is deleted. It is written where the job's
'execution.checkpointing.savepoint-dir' or 'execution.checkpointing.dir' says, or into the server's data folder. Begin with one:

  coulee job start JOB --from NAME --fresh        the same job, back to where it was
  coulee job submit job.sql --from URL            on another server, at any --parallelism";

#[derive(Debug, Arguments)]
#[command(after_help = SAVEPOINT_HELP)]
pub struct Savepoints {
    #[command(flatten)]
    pub target: Target,
    #[command(subcommand)]
    pub command: Savepoint,
}

#[derive(Debug, Subcommand)]
pub enum Savepoint {
    /// Take a savepoint of a job, whether it runs or rests, and print its URL.
    Create {
        /// The job.
        job: String,
        /// Its name; made from the time if absent.
        #[arg(long)]
        name: Option<String>,
        /// What to remember of it.
        #[arg(long, value_name = "TEXT")]
        note: Option<String>,
        /// A URL or a folder to put it in; where the job's settings say if absent.
        #[arg(long, value_name = "URL")]
        to: Option<String>,
    },
    /// List snapshots and savepoints, oldest first.
    #[command(alias = "ls")]
    List {
        /// Of this job only.
        job: Option<String>,
    },
    /// Show a savepoint and its files.
    Describe {
        /// Its name or URL.
        name: String,
        /// Whose, where several jobs have one of that name.
        #[arg(long)]
        job: Option<String>,
    },
    /// Delete a savepoint.
    Delete {
        /// Its name or URL.
        name: String,
        /// Whose, where several jobs have one of that name.
        #[arg(long)]
        job: Option<String>,
    },
    /// Copy a savepoint to another place, and print its URL there.
    Export {
        /// Its name or URL.
        name: String,
        /// Whose, where several jobs have one of that name.
        #[arg(long)]
        job: Option<String>,
        /// The URL or the folder to copy it to.
        #[arg(long, value_name = "URL")]
        to: String,
    },
}

#[derive(Debug, Arguments)]
pub struct Streams {
    #[command(flatten)]
    pub target: Target,
    #[command(subcommand)]
    pub command: StreamCommand,
}

#[derive(Debug, Subcommand)]
pub enum StreamCommand {
    /// List all streams.
    Ls,
    /// Make a stream.
    Create {
        /// Its name.
        name: String,
        /// How many shards it has.
        #[arg(long, default_value_t = 1)]
        shards: u32,
        /// The JSON fields that make the key of its records, separated by commas.
        #[arg(long, value_name = "FIELDS")]
        key: Option<String>,
    },
    /// Delete a stream and its records for good. A job that reads it fails; while a job writes to it, it is refused.
    Delete {
        /// Its name.
        name: String,
    },
}

#[derive(Debug, Arguments)]
pub struct Produce {
    /// The stream.
    pub stream: String,
    /// The JSON fields that make a record's key, separated by commas; those of the stream if absent.
    #[arg(long, value_name = "FIELDS")]
    pub key: Option<String>,
    /// Make the stream with so many shards if it does not exist.
    #[arg(long, value_name = "N")]
    pub shards: Option<u32>,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, Arguments)]
pub struct Tail {
    /// The stream.
    pub stream: String,
    /// Where to begin: earliest, latest, or a sequence number; the newest --limit records if absent.
    #[arg(long, value_name = "PLACE")]
    pub from: Option<String>,
    /// End after so many records [default: 10 without --from and --follow].
    #[arg(long, short = 'n', value_name = "N")]
    pub limit: Option<u64>,
    /// Wait for more.
    #[arg(long, short)]
    pub follow: bool,
    /// Also print records of transactions that are not committed yet: what a job has written since its last checkpoint.
    #[arg(long)]
    pub uncommitted: bool,
    /// Print shard, sequence number, time and key before each value, separated by tabs.
    #[arg(long, short)]
    pub verbose: bool,
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, Arguments)]
pub struct Connectors {
    /// A connector.
    pub name: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }
}
