"""Nexmark's queries side by side: processor time and memory of Coulee, Flink, clink and DuckDB over the same files.

    bench/nexmark/compare.py --events 5000000 --format parquet
    bench/nexmark/compare.py --engines coulee,duckdb --queries q4,q5 --runs 3

A run is a process of its own: its figures are those of the whole process, start-up and planning included. What is printed is the best of the runs:
seconds of processor time per million events, and the most memory that was resident.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from engines import ENGINES, PARALLELISM, ROOT, TABLES, Coulee, queries


@dataclass
class Query:
    name: str
    flink: list
    duckdb: str


@dataclass
class Events:
    """Where the events are: a folder of each kind with as many files as subtasks, each in the order of time."""

    folder: Path
    format: str
    number: int


def made(folder, number, form):
    """The events, written once by Coulee's generator."""
    events = Events(folder / f"{number}-{form}", form, number)
    if events.folder.exists():
        return events
    scratch = Path(tempfile.mkdtemp(dir=folder))
    source = f"'connector' = 'nexmark', 'events.num' = '{number}', 'nexmark.splits' = '{PARALLELISM}'"
    sink = f"'connector' = 'filesystem', 'format' = '{form}', 'sink.rolling-policy.file-size' = '100gb', 'sink.rolling-policy.rollover-interval' = '1 d'"
    script = [f"SET 'parallelism.default' = '{PARALLELISM}'", "SET 'table.dml-sync' = 'true'"]
    for name, columns in TABLES.items():
        script.append(f"CREATE TABLE {name} ({columns}) WITH ({source}, 'nexmark.event' = '{name}')")
        script.append(f"CREATE TABLE {name}_files ({columns}) WITH ({sink}, 'path' = '{scratch / 'events' / name}')")
        script.append(f"INSERT INTO {name}_files SELECT * FROM {name}")
    command = [Coulee().binary, "run", "-e", ";\n".join(script), "--data-dir", scratch / "data"]
    done = subprocess.run(command, cwd=scratch, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"compare: the events were not written: {done.stderr}")
    (scratch / "events").rename(events.folder)
    shutil.rmtree(scratch)
    return events


def measured(command, folder, limit):
    """Processor seconds, wall seconds and most resident bytes of a command and the processes it waits for; None if it fails, with its last lines."""
    with open(folder / "output", "wb") as output:
        begun = time.monotonic()
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        while True:
            pid, status, used = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() - begun > limit:
                os.killpg(process.pid, signal.SIGKILL)
                os.wait4(process.pid, 0)
                return None, f"over {limit} s"
            time.sleep(0.02)
        wall = time.monotonic() - begun
    said = (folder / "output").read_text(errors="replace")
    if status or "[ERROR]" in said:
        return None, said[-600:]
    return (used.ru_utime + used.ru_stime, wall, used.ru_maxrss * 1024), ""


def best(engine, query, events, runs, limit, folder):
    found, why = [], ""
    for _ in range(runs):
        with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as scratch:
            scratch = Path(scratch)
            (scratch / "side_input.csv").write_text("".join(f"{key},{key}\n" for key in range(10_000)))
            command = engine.command(query, events, scratch)
            if command is None:
                return None, "it has no such query"
            figures, why = measured(command, scratch, limit)
            if figures is None:
                break
            found.append(figures)
    return (min(found) if found else None), why


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--format", choices=["parquet", "json"], default="parquet")
    parser.add_argument("--engines", default="coulee,duckdb,clink,flink")
    parser.add_argument("--queries", help="such as q4,q5; all by default")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--limit", type=int, default=600, help="seconds after which a run is given up")
    parser.add_argument("--folder", type=Path, default=ROOT / "bench/nexmark/data", help="where the events are kept")
    parser.add_argument("--verbose", action="store_true", help="why a query failed")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    events = made(options.folder.resolve(), options.events, options.format)
    engines = [ENGINES[name]() for name in options.engines.split(",")]
    wanted = options.queries.split(",") if options.queries else None
    print("| query |" + "".join(f" {engine.name} CPU-s | s | MB |" for engine in engines))
    print("| --- |" + " ---: | ---: | ---: |" * len(engines))
    million = options.events / 1e6
    for name, flink, duckdb in queries():
        if wanted and name not in wanted:
            continue
        line = f"| {name} |"
        for engine in engines:
            figures, why = best(engine, Query(name, flink, duckdb), events, options.runs, options.limit, options.folder)
            if figures:
                line += f" {figures[0] / million:.2f} | {figures[1]:.1f} | {figures[2] / 1e6:.0f} |"
            else:
                line += " – | | |"
                if options.verbose:
                    print(f"{name} {engine.name}: {why}")
        print(line, flush=True)


if __name__ == "__main__":
    main()
