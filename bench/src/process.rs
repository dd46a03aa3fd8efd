//! Runs `coulee` as a process and reads from `/proc` what it cost.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;

/// What a process cost.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    pub wall: Duration,
    /// Processor time of all its threads, in user and in system mode.
    pub cpu: Duration,
    /// The most memory that was resident, in bytes.
    pub peak_bytes: u64,
}

/// The binary beside this one.
pub fn binary() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let path = own.with_file_name("coulee");
    if !path.exists() {
        return Err(format!("{} is missing: build it with `cargo build --release -p coulee`", path.display()).into());
    }
    Ok(path)
}

/// Runs `coulee` with the arguments to its end.
pub fn run(arguments: &[&str], folder: &Path) -> Result<Cost> {
    cost_of(Command::new(binary()?).args(arguments).current_dir(folder).stdout(Stdio::null()), folder)
}

/// Runs a command to its end. What it says when it fails is kept in `folder`.
pub fn cost_of(command: &mut Command, folder: &Path) -> Result<Cost> {
    let started = Instant::now();
    let mut child = command.stderr(std::fs::File::create(folder.join("stderr"))?).spawn()?;
    let mut cost = Cost::default();
    loop {
        if let Some(status) = child.try_wait()? {
            cost.wall = started.elapsed();
            if !status.success() {
                return Err(std::fs::read_to_string(folder.join("stderr"))?.into());
            }
            return Ok(cost);
        }
        cost = sample(child.id()).unwrap_or(cost);
        // Short beside what is measured; what the last milliseconds cost is lost.
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a running process has cost so far; `None` when it is just ending.
pub fn sample(pid: u32) -> Option<Cost> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let cpu = Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second());
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(Cost { wall: Duration::ZERO, cpu, peak_bytes: kib << 10 })
}
