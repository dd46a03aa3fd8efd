"""What the tests with the real binary share: running it, the flights job, and DuckDB's answer to it."""

import os
import re
import socket
import subprocess
import time
from pathlib import Path

import duckdb
import pytest
from faulty_s3 import FaultyS3

ROOT = Path(__file__).resolve().parents[2]
BINARY = os.environ.get("COULEE", str(Path.home() / ".cache/coulee-target/debug/coulee"))
FLIGHTS = ROOT / "examples/data/flights-2013-01.ndjson.gz"

# The same question, asked of the file in batch.
EXPECTED = f"""
    SELECT CAST(date_trunc('hour', departed_at) AS DATE) AS day, date_trunc('hour', departed_at) AS window_start,
           carrier, count(*) AS flights, avg(dep_delay) AS avg_delay, max(dep_delay) AS max_delay,
           count(*) FILTER (WHERE dep_delay > 15) / count(*) AS late_share
    FROM (SELECT CAST(departed_at AS TIMESTAMP) AS departed_at, carrier, dep_delay FROM read_json('{FLIGHTS}'))
    WHERE departed_at IS NOT NULL GROUP BY ALL
"""
COLUMNS = "CAST(day AS DATE), window_start, carrier, flights, round(avg_delay, 9), max_delay, round(late_share, 9)"


def coulee(*args, cwd=None, timeout=120, check=True, **kwargs):
    """Runs the binary to its end; returns the finished process with its output as text."""
    done = subprocess.run([BINARY, *map(str, args)], cwd=cwd, timeout=timeout, capture_output=True, text=True, **kwargs)
    if check:
        assert done.returncode == 0, f"{args} exited with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def flights_script(out, rate=None):
    """The example's script, delivering to `out`, at another rate or none."""
    text = (ROOT / "examples/flights/delays.sql").read_text()
    text = text.replace("examples/data/flights-2013-01.ndjson.gz", str(FLIGHTS))
    text = text.replace("out/delays", str(out))
    limit = "  -- Slow enough to watch.\n  'scan.rate-limit'   = '6000'\n"
    assert limit in text
    replacement = f"  'scan.rate-limit' = '{rate}'\n" if rate else "  'scan.startup.mode' = 'earliest-offset'\n"
    return text.replace(limit, replacement)


def expected_delays():
    return sorted(duckdb.sql(f"SELECT {COLUMNS} FROM ({EXPECTED})").fetchall())


def delivered_delays(out):
    return sorted(duckdb.sql(f"SELECT {COLUMNS} FROM read_parquet('{out}/**/*.parquet', hive_partitioning=true)").fetchall())


def counts(text):
    """The numbers before "late" and "no event time" in what a run says at its end."""
    found = {}
    for key, pattern in {"late": r"([\d,]+) (?:rows? )?(?:was |were )?late", "timeless": r"([\d,]+) (?:rows? )?(?:had )?no event time"}.items():
        match = re.search(pattern, text)
        found[key] = int(match.group(1).replace(",", "")) if match else None
    return found


@pytest.fixture
def flights(tmp_path):
    """A folder with the flights job: `job.sql` delivers to `out`."""
    (tmp_path / "delays.sql").write_text(flights_script(tmp_path / "out"))
    return tmp_path


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def server(tmp_path):
    """A server on a free port; a function that runs commands against it, and one that kills and restarts it."""
    port, http = free_port(), free_port()
    url = f"http://127.0.0.1:{port}"
    started = []

    def start():
        command = [BINARY, "server", "--data-dir", str(tmp_path / "data"), "--listen", f"127.0.0.1:{port}", "--http-listen", f"127.0.0.1:{http}"]
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        started.append(process)
        deadline = time.monotonic() + 30
        while coulee("job", "--server", url, "ls", check=False).returncode != 0:
            assert process.poll() is None and time.monotonic() < deadline, "the server does not answer"
        return process

    start.process = start()
    start.url = url
    start.http = f"http://127.0.0.1:{http}"
    start.run = lambda *args, **kwargs: coulee(args[0], "--server", url, *args[1:], **kwargs)
    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def lake(monkeypatch):
    """An object store with the bucket `lake`, which the environment names to servers that are started after it. A request may take a second."""
    store = FaultyS3(seed=7)
    values = {
        "AWS_ENDPOINT_URL": store.endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_TIMEOUT": "1s",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    yield store
    store.stop()


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
