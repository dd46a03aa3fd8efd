"""What follows a failure: restart strategies, a disk for the state alone that fills up, and a savepoint that does not fit the changed script."""

import hashlib
import json
import os
import shutil
import subprocess

import pytest
from conftest import wait_until
from hours import delivered, expected, has_ended, hours, shown

# The store's faults are felt at once.
BRIEF = {"s3.connection.timeout": "200 ms"}
PREFIX = "restart-strategy"
OFTEN = {"execution.checkpointing.interval": "200 ms"}


def strategy(kind, **settings):
    return {f"{PREFIX}.type": kind, **{f"{PREFIX}.{kind}.{key.replace('_', '-')}": value for key, value in settings.items()}}


STRATEGIES = {
    "none": (strategy("none"), 1),
    "fixed-delay": (strategy("fixed-delay", attempts=2, delay="50 ms"), 3),
    "exponential-delay": (
        strategy("exponential-delay", initial_backoff="20 ms", max_backoff="100 ms", backoff_multiplier=2, attempts_before_reset_backoff=4),
        5,
    ),
}


def test_each_strategy_makes_its_attempts_and_keeps_the_cause(lake, server, tmp_path):
    """The sinks of three jobs cannot be reached; a fourth job has nothing to do with that."""
    lake.rate = 1.0
    for name, (settings, _) in STRATEGIES.items():
        server.run("job", "submit", hours(tmp_path / f"{name}.sql", f"s3://lake/{name}", settings, sink=BRIEF))
    server.run("job", "submit", hours(tmp_path / "healthy.sql", tmp_path / "out"))
    wait_until(lambda: has_ended(server, "healthy"))
    assert delivered(tmp_path / "out") == expected() and shown(server, "healthy")["attempts"] == 1
    for name, (_, attempts) in STRATEGIES.items():
        wait_until(lambda: has_ended(server, name, "failed"))
        found = shown(server, name)
        assert (found["attempts"], found["restarts"]) == (attempts, attempts - 1), name
        assert f"s3://lake/{name}" in found["cause"] and "the object store does not answer" in found["cause"], found["cause"]
        text = server.run("job", "show", name).stdout
        assert f"cause        {found['cause']}" in text
        assert ("restarts after a failure; the last at" in text) == (attempts > 1), text
    # Failed jobs stay so with the next server, and their causes are kept.
    causes = {name: shown(server, name)["cause"] for name in STRATEGIES}
    server.process.kill()
    server.process.wait()
    server.process = server()
    assert {name: shown(server, name)["cause"] for name in STRATEGIES} == causes
    # With the cause gone, each is started again by hand.
    lake.rate = 0
    for name in STRATEGIES:
        server.run("job", "start", name)
        wait_until(lambda: has_ended(server, name))
        assert delivered_to(lake, tmp_path, name) == expected()


def delivered_to(lake, tmp_path, name):
    lake.fetch(tmp_path / "fetched")
    return delivered(tmp_path / "fetched" / name)


def test_a_job_recovers_by_itself_and_counts_attempts_anew_with_each_checkpoint(lake, server, tmp_path):
    settings = strategy("exponential-delay", initial_backoff="50 ms", max_backoff="200 ms", attempts_before_reset_backoff=20)
    server.run("job", "submit", hours(tmp_path / "hours.sql", "s3://lake/hours", {**settings, **OFTEN}, rate=9000, sink=BRIEF))
    wait_until(lambda: lake.keys("hours/"))
    restarts = 0
    for _ in range(2):
        lake.rate = 1.0
        wait_until(lambda: shown(server, "hours")["restarts"] >= restarts + 2)
        waiting = shown(server, "hours")
        assert waiting["state"] == "running" and waiting["last_failure"]["cause"], waiting
        restarts = waiting["restarts"]
        lake.rate = 0
        checkpoint = waiting["progress"]["checkpoint"]
        wait_until(lambda: shown(server, "hours")["progress"]["checkpoint"] > checkpoint)
    wait_until(lambda: has_ended(server, "hours"))
    assert delivered_to(lake, tmp_path, "hours") == expected()


def test_a_poisoned_commit_fails_the_job_and_the_next_server_goes_on(server, tmp_path, monkeypatch):
    server.process.kill()
    server.process.wait()
    monkeypatch.setenv("COULEE_FAILPOINTS", "job.commit.before=2*off->return")
    server.process = server()
    server.run("job", "submit", hours(tmp_path / "hours.sql", tmp_path / "out", {**strategy("fixed-delay", attempts=3, delay="10 ms"), **OFTEN}, rate=20000))
    wait_until(lambda: has_ended(server, "hours", "failed"))
    found = shown(server, "hours")
    assert (found["attempts"], found["progress"]["checkpoint"]) == (4, 2), found
    assert "failed on purpose at 'job.commit.before'" in found["cause"]
    server.process.kill()
    server.process.wait()
    monkeypatch.delenv("COULEE_FAILPOINTS")
    server.process = server()
    server.run("job", "start", "hours")
    wait_until(lambda: has_ended(server, "hours"))
    assert delivered(tmp_path / "out") == expected()


SUMS = """
SET 'restart-strategy.type' = 'fixed-delay';
SET 'restart-strategy.fixed-delay.attempts' = '1000';
SET 'restart-strategy.fixed-delay.delay' = '200 ms';
CREATE TABLE readings (k STRING, at TIMESTAMP(3), WATERMARK FOR at AS at - INTERVAL '0' SECOND);
CREATE TABLE sums (k STRING, c BIGINT)
WITH ('connector' = 'filesystem', 'path' = '{out}', 'format' = 'json', 'sink.rolling-policy.rollover-interval' = '200 ms');
INSERT INTO sums SELECT k, COUNT(*) FROM TABLE(TUMBLE(TABLE readings, DESCRIPTOR(at), INTERVAL '1' DAY)) GROUP BY window_start, window_end, k;
"""


def test_a_full_disk_of_the_state_alone_is_waited_for(server, tmp_path):
    """RocksDB has a disk of 4 MiB to itself; everything else has room."""
    line = lambda key, day="01": f'{{"k":"{key}","at":"2024-05-{day} 10:00:00"}}\n'
    # 16 random bytes each: however they are compressed, they do not fit.
    keys = sorted(hashlib.md5(str(n).encode()).hexdigest() for n in range(300_000))
    state = tmp_path / "data/jobs/sums/state"
    (tmp_path / "sums.sql").write_text(SUMS.format(out=tmp_path / "out"))
    server.run("job", "submit", tmp_path / "sums.sql")
    server.run("produce", "readings", input=line(keys[0]))
    wait_until(lambda: shown(server, "sums")["progress"]["rows_read"] == 1)
    server.run("job", "stop", "sums")
    # The state moves to the small disk.
    shutil.move(state, tmp_path / "moved")
    state.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", state], capture_output=True).returncode != 0:
        pytest.skip("no mount here: there is no small disk to fill" + ("" if os.geteuid() == 0 else ", as this is not root"))
    try:
        shutil.copytree(tmp_path / "moved", state, dirs_exist_ok=True)
        server.run("job", "start", "sums")
        server.run("produce", "readings", input="".join(map(line, keys)))
        wait_until(lambda: shown(server, "sums")["restarts"] >= 2)
        found = shown(server, "sums")
        assert found["state"] == "running", found["cause"]
        cause = found["last_failure"]["cause"]
        assert str(state) in cause and "No space left on device" in cause and "free some space" in cause, cause
        subprocess.run(["mount", "-o", "remount,size=400m", state], check=True)
        # A later day closes the first one.
        server.run("produce", "readings", input=line("later", "03"))
        wait_until(lambda: shown(server, "sums")["progress"]["rows_written"] >= len(keys))
        server.run("job", "stop", "sums")
    finally:
        server.process.kill()
        server.process.wait()
        subprocess.run(["umount", "-l", state])
    rows = [json.loads(line) for file in (tmp_path / "out").rglob("part-*") for line in file.read_text().splitlines()]
    assert sorted((row["k"], row["c"]) for row in rows) == [(key, 2 if key == keys[0] else 1) for key in keys]
