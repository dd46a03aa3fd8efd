"""Files that move, grow or go while a job reads them, and inputs that are no files: what a user is told, and that every row comes once."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import time

import duckdb
import pytest
from conftest import BINARY, coulee, wait_until

ROWS = 30000
SCRIPT = """
SET 'execution.checkpointing.interval' = '50 ms';
CREATE TABLE src (id INT) WITH ('connector' = 'filesystem', 'path' = '{path}', 'format' = 'json', 'scan.rate-limit' = '60000', 'scan.parallelism' = '1');
CREATE TABLE dst (id INT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'parquet', 'sink.rolling-policy.row-count' = '5000');
INSERT INTO dst SELECT id FROM src;
"""


def lines(first, last):
    return "".join('{"id":%d,"pad":"%s"}\n' % (n, "x" * 40) for n in range(first, last))


def run(folder, check=True):
    return coulee("run", "job.sql", "--data-dir", "data", cwd=folder, check=check)


def interrupt(folder):
    """Kills the job once it has delivered something, which is before its end."""
    process = subprocess.Popen([BINARY, "run", "job.sql", "--data-dir", "data"], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: list(folder.glob("out/*.parquet")) or process.poll() is not None)
    assert process.poll() is None, "the job ended before it could be interrupted"
    process.send_signal(signal.SIGKILL)
    process.wait()


def delivered(folder):
    return duckdb.sql(f"SELECT count(*), count(DISTINCT id) FROM read_parquet('{folder}/out/*.parquet') WHERE id < {2 * ROWS}").fetchall()[0]


def compress(path, into):
    into.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()


def rotate(folder):
    """As logrotate does it: 1 is compressed into 2, the current one becomes 1, and a new one begins."""
    (folder / "b.log").rename(folder / "b.log.1")
    compress(folder / "a.log", folder / "a.log.1.gz")
    for name in ("a.log", "b.log"):
        (folder / name).write_text(lines(2 * ROWS, 2 * ROWS + 5))


MOVES = {
    "rotated": rotate,
    "compressed": lambda folder: compress(folder / "b.log", folder / "b.log.gz"),
    "renamed": lambda folder: (folder / "b.log").rename(folder / "old-b.log"),
    "appended to": lambda folder: [open(folder / name, "a").write(lines(2 * ROWS, 2 * ROWS + 5)) for name in ("a.log", "b.log")],
    "added to": lambda folder: (folder / "c.log").write_text(lines(0, 100)),
}


@pytest.mark.parametrize("path", ["in", "in/*.log"])
@pytest.mark.parametrize("name", MOVES)
def test_every_row_comes_once_whatever_log_rotation_does(tmp_path, name, path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.log").write_text(lines(0, ROWS))
    (tmp_path / "in/b.log").write_text(lines(ROWS, 2 * ROWS))
    (tmp_path / "job.sql").write_text(SCRIPT.format(path=path))
    interrupt(tmp_path)
    MOVES[name](tmp_path / "in")
    run(tmp_path)
    assert delivered(tmp_path) == (2 * ROWS, 2 * ROWS)


@pytest.mark.parametrize("name", ["a.log", "b.log"])
def test_a_file_that_is_gone_is_named_and_its_return_is_enough(tmp_path, name):
    """One is read in part, the other not yet."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.log").write_text(lines(0, ROWS))
    (tmp_path / "in/b.log").write_text(lines(ROWS, 2 * ROWS))
    (tmp_path / "job.sql").write_text(SCRIPT.format(path="in"))
    interrupt(tmp_path)
    shutil.move(tmp_path / "in" / name, tmp_path / "kept")
    done = run(tmp_path, check=False)
    assert done.returncode in (1, 2), done.stderr
    assert f"in/{name} is gone" in done.stderr and "the same command goes on" in done.stderr, done.stderr
    shutil.move(tmp_path / "kept", tmp_path / "in" / name)
    run(tmp_path)
    assert delivered(tmp_path) == (2 * ROWS, 2 * ROWS)


def test_a_file_that_changed_is_named(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.log").write_text(lines(0, 2 * ROWS))
    (tmp_path / "job.sql").write_text(SCRIPT.format(path="in"))
    interrupt(tmp_path)
    (tmp_path / "in/a.log").write_text(lines(7, 2 * ROWS + 7))
    done = run(tmp_path, check=False)
    assert done.returncode in (1, 2) and "in/a.log has changed before line" in done.stderr, done.stderr


def ids(path, input=None, folder=None, extra="", **kwargs):
    table = f"CREATE TABLE src (id INT) WITH ('connector' = 'filesystem', 'path' = '{path}', 'format' = 'json'{extra}); SELECT id FROM src;"
    done = coulee("run", "-e", table, "--output", "json", cwd=folder, input=input, **kwargs)
    return sorted(json.loads(line)["id"] for line in done.stdout.splitlines())


def test_pipes_are_inputs(tmp_path):
    expected = list(range(1000))
    assert ids("/dev/stdin", input=lines(0, 1000)) == expected
    assert ids("/dev/stdin", input="") == []
    os.mkfifo(tmp_path / "fifo")
    writer = subprocess.Popen(["bash", "-c", f"cat > {tmp_path}/fifo"], stdin=subprocess.PIPE, text=True)
    writer.stdin.write(lines(0, 1000))
    writer.stdin.close()
    assert ids(tmp_path / "fifo") == expected
    (tmp_path / "in.json").write_text(lines(0, 1000))
    for source in ("cat in.json", "gzip -c in.json", "true"):
        extra = ", 'compression' = 'gzip'" if "gzip" in source else ""
        table = f"CREATE TABLE src (id INT) WITH ('connector' = 'filesystem', 'path' = '%s', 'format' = 'json'{extra}); SELECT id FROM src;"
        command = f'"{BINARY}" run -e "$(printf "$0" "$1")" --output json'
        shell = f"""bash -c '{command}' "$TABLE" <({source})"""
        done = subprocess.run(["bash", "-c", shell], cwd=tmp_path, env={**os.environ, "TABLE": table}, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        found = sorted(json.loads(line)["id"] for line in done.stdout.splitlines())
        assert found == ([] if source == "true" else expected), (source, done.stderr)


def test_what_will_not_pass_by_itself_is_said_at_once(tmp_path):
    (tmp_path / "file").write_text("{}")
    (tmp_path / "link.json").symlink_to("nowhere.json")
    for path, words in {
        "": ["option 'path' is empty"],
        "file/in.json": ["file is a file, expected a folder"],
        "none/in.json": ["there is no", "none"],
        "n" * 300: ["too long"],
        "link.json": ["link.json is a link to nowhere.json, which is not there"],
    }.items():
        started = time.monotonic()
        table = f"CREATE TABLE src (id INT) WITH ('connector' = 'filesystem', 'path' = '{path}', 'format' = 'json'); SELECT id FROM src;"
        done = coulee("run", "-e", table, cwd=tmp_path, check=False)
        assert done.returncode in (1, 2) and "panicked" not in done.stderr, done.stderr
        assert all(word in done.stderr for word in [*words, "table 'src'"]), done.stderr
        assert time.monotonic() - started < 6, "it was tried again"
