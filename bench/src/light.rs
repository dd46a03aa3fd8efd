//! How light it is: `--help`, a small file, an idle server.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;
use crate::process::{binary, run as run_process, sample};

const RUNS: usize = 11;
const JOBS: usize = 100;
const IDLE_ADDRESS: &str = "127.0.0.1:17878";
const SCRIPT: &str = "CREATE TABLE t (at TIMESTAMP(3), k STRING, v INT, WATERMARK FOR at AS at - INTERVAL '5' SECOND)
  WITH ('connector' = 'filesystem', 'path' = 'in.ndjson', 'format' = 'json');
CREATE TABLE o (window_start TIMESTAMP(3), k STRING, n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'parquet');
INSERT INTO o SELECT window_start, k, COUNT(*) FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(at), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end, k;
";

pub fn run() -> Result<()> {
    println!("| what | median | goal |\n| --- | ---: | ---: |");
    println!("| `coulee --help` | {:.0} ms | 50 ms |", millis(help)?);
    println!("| `coulee run` on 1,000 lines | {:.0} ms | 300 ms |", millis(small_file)?);
    let (cpu, bytes) = idle_server()?;
    println!("| idle server, processor over 10 s | {:.1} % | 0 % |", cpu * 100.0);
    println!("| idle server, resident at most | {:.0} MB | 100 MB |", bytes as f64 / 1e6);
    let (jobs_cpu, jobs_bytes) = idle_jobs()?;
    println!("| {JOBS} idle jobs, processor over 10 s | {:.2} % | 1 % |", jobs_cpu * 100.0);
    println!("| each idle job, resident | {:.2} MB | 2 MB |", (jobs_bytes as f64 - bytes as f64) / JOBS as f64 / 1e6);
    Ok(())
}

fn millis(run: fn() -> Result<Duration>) -> Result<f64> {
    let mut took = (0..RUNS).map(|_| run()).collect::<Result<Vec<_>>>()?;
    took.sort();
    Ok(took[RUNS / 2].as_secs_f64() * 1e3)
}

fn help() -> Result<Duration> {
    let started = Instant::now();
    Command::new(binary()?).arg("--help").stdout(Stdio::null()).status()?;
    Ok(started.elapsed())
}

fn small_file() -> Result<Duration> {
    let folder = tempfile::tempdir_in(".")?;
    let lines: String = (0..1000)
        .map(|n| format!("{{\"at\":\"2024-01-01 00:{:02}:{:02}\",\"k\":\"k{}\",\"v\":{n}}}\n", n / 60, n % 60, n % 7))
        .collect();
    std::fs::write(folder.path().join("in.ndjson"), lines)?;
    std::fs::write(folder.path().join("job.sql"), SCRIPT)?;
    Ok(run_process(&["run", "job.sql"], folder.path())?.wall)
}

/// Jobs that window a stream to which nobody writes.
fn idle_jobs() -> Result<(f64, u64)> {
    let folder = tempfile::tempdir_in(".")?;
    let mut script = String::new();
    for job in 0..JOBS {
        script += &format!(
            "CREATE TABLE in{job} (at TIMESTAMP(3), k STRING, WATERMARK FOR at AS at - INTERVAL '5' SECOND);
            CREATE TABLE out{job} (window_start TIMESTAMP(3), k STRING, n BIGINT);
            INSERT INTO out{job} SELECT window_start, k, COUNT(*) FROM TABLE(TUMBLE(TABLE in{job}, DESCRIPTOR(at), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end, k;\n"
        );
    }
    std::fs::write(folder.path().join("jobs.sql"), script)?;
    let mut server = server(folder.path(), IDLE_ADDRESS)?;
    let submit = ["job", "submit", "jobs.sql", "--server", &format!("http://{IDLE_ADDRESS}")];
    let mut submitted = run_process(&submit, folder.path());
    for _ in 0..50 {
        if submitted.is_ok() {
            break;
        }
        // Not listening yet.
        std::thread::sleep(Duration::from_millis(100));
        submitted = run_process(&submit, folder.path());
    }
    submitted?;
    let idle = idle(server.id());
    server.kill()?;
    server.wait()?;
    idle
}

fn server(folder: &Path, address: &str) -> Result<Child> {
    let arguments = ["server", "--data-dir", "data", "--listen", address];
    let command = &mut Command::new(binary()?);
    let command = command.args(arguments).env("COULEE_HTTP_LISTEN", "off").current_dir(folder);
    Ok(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
}

/// What a process costs while nothing happens: its share of a processor, and its memory.
fn idle(pid: u32) -> Result<(f64, u64)> {
    std::thread::sleep(Duration::from_secs(3));
    let before = sample(pid).ok_or("the server has ended")?;
    std::thread::sleep(Duration::from_secs(10));
    let after = sample(pid).ok_or("the server has ended")?;
    Ok(((after.cpu - before.cpu).as_secs_f64() / 10.0, after.peak_bytes))
}

fn idle_server() -> Result<(f64, u64)> {
    let folder = tempfile::tempdir_in(".")?;
    let mut server = server(folder.path(), "127.0.0.1:0")?;
    let idle = idle(server.id());
    server.kill()?;
    server.wait()?;
    idle
}
