//! The state store with more state than memory: rewriting random keys, committing, opening after a crash, and doing nothing.
//!
//! Each scenario is a process of its own, the example `state` of `coulee-checkpoint`, so that its memory is the store's and it can die.
//! Its figures are printed as they come; the physical limit is what the disk takes from `dd conv=fdatasync` of the same bytes.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::{Result, process};

/// Values of 400 bytes: 4 GB, and 1 GB.
const MANY: u64 = 10_000_000;
const FEW: u64 = 2_500_000;
const SECONDS: u64 = 30;
const STORES: u64 = 100;

pub fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (many, few) = (folder.path().join("many"), folder.path().join("few"));
    let (many, few) = (many.to_string_lossy(), few.to_string_lossy());
    scenario(&["fill", &many, &MANY.to_string()])?;
    scenario(&["update", &many, &MANY.to_string(), &SECONDS.to_string()])?;
    std::fs::remove_dir_all(&*many)?;
    scenario(&["fill", &few, &FEW.to_string()])?;
    scenario(&["commit", &few, &FEW.to_string()])?;
    // This one ends by a signal, as it is meant to.
    let died = Command::new(binary()?).args(["die", &few, &FEW.to_string()]).stderr(Stdio::null()).status()?;
    if died.success() {
        return Err("the store was closed, instead of being abandoned".into());
    }
    scenario(&["open", &few])?;
    scenario(&["idle", &folder.path().join("idle").to_string_lossy(), &STORES.to_string()])
}

fn scenario(arguments: &[&str]) -> Result<()> {
    let stderr = tempfile::tempdir()?;
    let cost = process::cost_of(Command::new(binary()?).args(arguments), stderr.path())?;
    println!(
        "    {}: {:.1} s, {:.1} s of processor time, at most {} MB of memory\n",
        arguments[0],
        cost.wall.as_secs_f64(),
        cost.cpu.as_secs_f64(),
        cost.peak_bytes / 1_000_000
    );
    Ok(())
}

fn binary() -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("examples").join("state");
    if !path.exists() {
        let command = "cargo build --release -p coulee-checkpoint --example state";
        return Err(format!("{} is missing: build it with `{command}`", path.display()).into());
    }
    Ok(path)
}
