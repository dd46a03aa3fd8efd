//! What the command line says.

use std::path::PathBuf;
use std::str::FromStr;

use coulee_runtime::{Error, Result};

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Run,
    Read,
    Transactions,
}

/// The options, each with a default.
#[derive(Debug, Clone)]
pub struct Settings {
    pub command: Command,
    /// Where everything is: `log`, `state`, `spool`, `scratch`, `snapshots`, `out`.
    pub data: PathBuf,
    /// What the inputs are made from.
    pub seed: u64,
    /// Records in each shard of `readings`; a fifth as many in each shard of `commands`.
    pub records: u64,
    pub parallelism: u32,
    pub checkpoint_ms: u64,
    /// How often a snapshot is taken; 0 for never.
    pub snapshot_ms: u64,
    /// The most rows per second that the job reads from `readings`, and a fifth as many from `commands`; 0 for no limit.
    pub rate: f64,
    /// How many records per second the producer appends to each shard of `readings`; 0 for all at once.
    pub produce_rate: u64,
    /// What the state of the job may take in memory.
    pub memory_bytes: u64,
    /// The log closes segments of this size.
    pub segment_bytes: u64,
    /// Where Parquet goes: a folder or `s3://bucket/prefix`. Absent: `out` in the data folder.
    pub out: Option<String>,
    /// The URL of an S3-compatible store.
    pub s3_endpoint: Option<String>,
    /// How many attempts in a row may fail.
    pub attempts: u32,
    /// For `read`.
    pub stream: Option<String>,
}

const USAGE: &str = "usage: pipeline run|read|transactions --data DIR [--option value]…; options of run: \
    --seed --records --parallelism --checkpoint-ms --snapshot-ms --rate --produce-rate --memory-bytes --segment-bytes \
    --out --s3-endpoint --attempts; of read: --stream";

impl Settings {
    /// # Errors
    /// `Invalid`, naming the argument.
    pub fn parse(arguments: &[String]) -> Result<Self> {
        let (command, options) = arguments.split_first().ok_or_else(|| Error::invalid(USAGE))?;
        let command = match command.as_str() {
            "run" => Command::Run,
            "read" => Command::Read,
            "transactions" => Command::Transactions,
            other => return Err(Error::invalid(format!("unknown command '{other}'; {USAGE}"))),
        };
        let mut settings = Settings {
            command,
            data: PathBuf::new(),
            seed: 1,
            records: 1_000,
            parallelism: 1,
            checkpoint_ms: 100,
            snapshot_ms: 0,
            rate: 0.0,
            produce_rate: 0,
            memory_bytes: 64 << 20,
            segment_bytes: 64 << 10,
            out: None,
            s3_endpoint: None,
            attempts: 5,
            stream: None,
        };
        for pair in options.chunks(2) {
            let [name, value] = pair else {
                return Err(Error::invalid(format!("option '{}' has no value; {USAGE}", pair[0])));
            };
            settings.set(name, value)?;
        }
        if settings.data.as_os_str().is_empty() {
            return Err(Error::invalid(format!("--data is missing; {USAGE}")));
        }
        Ok(settings)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "--data" => self.data = value.into(),
            "--seed" => self.seed = number(name, value)?,
            "--records" => self.records = number(name, value)?,
            "--parallelism" => self.parallelism = number(name, value)?,
            "--checkpoint-ms" => self.checkpoint_ms = number(name, value)?,
            "--snapshot-ms" => self.snapshot_ms = number(name, value)?,
            "--rate" => self.rate = number(name, value)?,
            "--produce-rate" => self.produce_rate = number(name, value)?,
            "--memory-bytes" => self.memory_bytes = number(name, value)?,
            "--segment-bytes" => self.segment_bytes = number(name, value)?,
            "--out" => self.out = Some(value.to_owned()),
            "--s3-endpoint" => self.s3_endpoint = Some(value.to_owned()),
            "--attempts" => self.attempts = number(name, value)?,
            "--stream" => self.stream = Some(value.to_owned()),
            _ => return Err(Error::invalid(format!("unknown option '{name}'; {USAGE}"))),
        }
        Ok(())
    }
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T> {
    value.parse().map_err(|_| Error::invalid(format!("option '{name}' is '{value}', expected a number")))
}
