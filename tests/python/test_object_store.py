"""Snapshots and deliveries to S3 itself, through a proxy that fails, and that does not answer at all: the job goes on, what is wrong is told, and
what arrives is exact."""

import json
import shutil
import signal
import subprocess
import time

import duckdb
import pytest
from conftest import BINARY, coulee, wait_until
from hours import delivered, expected, has_ended, hours, shown

COPIES = {"execution.checkpointing.dir": "s3://lake/state", "execution.snapshot.interval": "1 s"}
ON_SNAPSHOT = {"sink.commit-on": "snapshot"}
OFTEN = {"execution.checkpointing.interval": "200 ms"}
# Of a request to the sink's own store, as AWS_TIMEOUT for the snapshots.
IMPATIENT = {"s3.connection.timeout": "1 s"}


def newest(lake):
    return max(lake.keys("state/hours/snapshots/"), default="")


def test_a_lost_disk_is_replaced_from_s3_and_no_row_is_there_twice(lake, server, tmp_path):
    """The sink waits for snapshots, so that what was delivered is what the snapshot knows."""
    slow = hours(tmp_path / "slow/hours.sql", tmp_path / "out", COPIES, rate=6000, sink=ON_SNAPSHOT)
    fast = hours(tmp_path / "fast/hours.sql", tmp_path / "out", COPIES, sink=ON_SNAPSHOT)
    server.run("job", "submit", slow)
    wait_until(lambda: list((tmp_path / "out").rglob("*.parquet")))
    assert "snapshot     " in server.run("job", "show", "hours").stdout
    server.process.kill()
    server.process.wait()
    before = delivered(tmp_path / "out")
    assert 0 < len(before) < len(expected()), "the disk is lost in the middle"
    shutil.rmtree(tmp_path / "data")
    server.process = server()
    submitted = server.run("job", "submit", fast, "--from", "s3://lake/state/hours", "--parallelism", "2")
    assert "hours" in submitted.stdout + submitted.stderr
    wait_until(lambda: has_ended(server, "hours"))
    assert delivered(tmp_path / "out") == expected()


def test_savepoints_in_s3_are_made_listed_described_copied_and_deleted(lake, server, tmp_path):
    places = {**COPIES, "execution.checkpointing.savepoint-dir": "s3://lake/kept"}
    server.run("job", "submit", hours(tmp_path / "slow/hours.sql", tmp_path / "out", places, rate=2000))
    wait_until(lambda: list((tmp_path / "out").rglob("*.parquet")))
    # Of the running job, and of the job at rest.
    first = server.run("savepoint", "create", "hours", "--name", "v1", "--note", "at work").stdout.strip()
    server.run("job", "stop", "hours")
    url = server.run("savepoint", "create", "hours", "--name", "v2").stdout.strip()
    assert (first, url) == ("s3://lake/kept/hours/savepoints/v1.json", "s3://lake/kept/hours/savepoints/v2.json")
    listed = server.run("savepoint", "list", "hours").stdout
    assert url in listed and "at work" in listed
    described = server.run("savepoint", "describe", url).stdout
    assert "state/CURRENT" in described and url in described
    copied = server.run("savepoint", "export", "v2", "--to", "s3://lake/copies").stdout.strip()
    assert copied == "s3://lake/copies/hours/savepoints/v2.json"
    server.run("savepoint", "delete", "v1")
    assert lake.keys("kept/hours/savepoints/") == ["kept/hours/savepoints/v2.json"]
    # The copy is complete by itself.
    for key in lake.keys("kept/"):
        lake.client.delete_object(Bucket="lake", Key=key)
    half = delivered(tmp_path / "out")
    coulee("run", hours(tmp_path / "fast/hours.sql", tmp_path / "out"), "--data-dir", tmp_path / "elsewhere", "--from", copied)
    assert len(half) < len(expected()) and delivered(tmp_path / "out") == expected()


KEPT = """
CREATE TABLE numbers (n BIGINT);
CREATE TABLE kept (n BIGINT) WITH ('connector' = 'filesystem', 'path' = '{out}', 'format' = 'parquet',
  'sink.rolling-policy.rollover-interval' = '200 ms', 'sink.commit-on' = 'snapshot');
INSERT INTO kept SELECT n FROM numbers;
"""


def orphans(lake):
    """Objects that nothing names. Those of snapshots that have just been replaced are among them for a while."""
    read = lambda key: json.loads(lake.client.get_object(Bucket="lake", Key=key)["Body"].read())
    objects, named = set(lake.keys("state/kept/objects/")), set()
    for key in lake.keys("state/kept/pins/") + lake.keys("state/kept/snapshots/"):
        try:
            found = read(key)
        except lake.client.exceptions.NoSuchKey:
            continue
        files = found["files"] if isinstance(found, dict) else []
        named |= {f"state/kept/objects/{file['hash'][:2]}/{file['hash']}-{file['bytes']}" for file in files}
        named |= set(found if isinstance(found, list) else [])
    assert named & objects, f"the names {sorted(named)[:3]} are not those of objects {sorted(objects)[:3]}"
    return objects - named


def test_a_store_that_fails_now_and_then_gets_every_snapshot_and_keeps_no_orphans(lake, monkeypatch, request, tmp_path):
    (tmp_path / "coulee.toml").write_text("[engine.snapshots]\ngarbage_grace_ms = 1000\n")
    monkeypatch.setenv("COULEE_CONFIG", str(tmp_path / "coulee.toml"))
    server = request.getfixturevalue("server")
    settings = "".join(f"SET '{key}' = '{value}';\n" for key, value in COPIES.items())
    (tmp_path / "kept.sql").write_text(settings + KEPT.format(out=tmp_path / "out"))
    server.run("job", "submit", tmp_path / "kept.sql")
    produced = []

    def while_rows_come(condition):
        """A job without anything new takes no snapshots."""
        server.run("produce", "numbers", input=f'{{"n":{len(produced)}}}\n')
        produced.append(len(produced))
        return condition()

    lake.rate = 0.4
    wait_until(lambda: while_rows_come(lambda: len(lake.keys("state/kept/snapshots/")) >= 2))
    # Its objects become garbage as well.
    server.run("savepoint", "create", "kept", "--name", "v1")
    server.run("savepoint", "delete", "v1")
    wait_until(lambda: while_rows_come(lambda: all(lake.met.values())))
    lake.rate = 0
    # As of an upload whose process died.
    lake.client.put_object(Bucket="lake", Key=f"state/kept/objects/00/{'0' * 32}-3", Body=b"abc")
    left = orphans(lake)
    assert left
    # Later ones come and go; none of these stays one. An upload that was under way just then may have named some by now.
    wait_until(lambda: while_rows_come(lambda: not left & orphans(lake)))
    found = shown(server, "kept")
    assert found["restarts"] == 0, f"a snapshot that fails is no reason for a restart: {found['last_failure']}"
    rows = lambda: sorted(duckdb.connect().sql(f"SELECT n FROM read_parquet('{tmp_path}/out/*.parquet')").fetchall())
    wait_until(lambda: len(rows()) >= len(produced))
    assert rows() == [(n,) for n in produced]


def test_a_job_goes_on_while_the_store_of_its_snapshots_does_not_answer(lake, server, tmp_path):
    server.run("job", "submit", hours(tmp_path / "slow/hours.sql", tmp_path / "out", {**COPIES, **OFTEN}, rate=4500))
    wait_until(lambda: list((tmp_path / "out").rglob("*.parquet")))
    lake.hold("before")
    wait_until(lambda: lake.waiting > 0)
    begun = shown(server, "hours")["progress"]
    # Checkpoints, and with them deliveries, go on for as long as nothing answers.
    wait_until(lambda: shown(server, "hours")["progress"]["checkpoint"] >= begun["checkpoint"] + 3)
    wait_until(lambda: "the last one failed: snapshot store: " in server.run("job", "show", "hours").stdout)
    found = shown(server, "hours")["progress"]
    assert "operation timed out" in found["snapshot_failure"], found["snapshot_failure"]
    assert found["objects"] > begun["objects"]
    server.run("job", "stop", "hours", timeout=30)
    assert shown(server, "hours")["state"] == "stopped" and lake.held
    lake.release()
    before = newest(lake)
    server.run("job", "start", "hours")
    wait_until(lambda: newest(lake) > before)
    wait_until(lambda: has_ended(server, "hours"))
    assert delivered(tmp_path / "out") == expected()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_delivery_that_is_not_answered_is_told_and_made_up_for(lake, server, tmp_path, when):
    quick = {"restart-strategy.type": "fixed-delay", "restart-strategy.fixed-delay.attempts": 1000, "restart-strategy.fixed-delay.delay": "100 ms"}
    server.run("job", "submit", hours(tmp_path / "hours.sql", "s3://lake/out", quick, rate=9000, sink=IMPATIENT))
    wait_until(lambda: lake.keys("out/"))
    lake.hold(when)
    wait_until(lambda: lake.waiting > 0)
    wait_until(lambda: shown(server, "hours")["restarts"] >= 1)
    found = shown(server, "hours")
    for word in ("the object store does not answer as it should", "operation timed out"):
        assert word in found["last_failure"]["cause"], found["last_failure"]
    assert found["state"] == "running"
    lake.release()
    wait_until(lambda: has_ended(server, "hours"))
    lake.fetch(tmp_path / "fetched")
    assert delivered(tmp_path / "fetched/out") == expected()


def test_what_hangs_is_shown_and_a_cancel_does_not_wait_for_it(lake, monkeypatch, request, tmp_path):
    """Here a request may take so long that the test would notice whoever waits for it."""
    monkeypatch.setenv("AWS_TIMEOUT", "10min")
    server = request.getfixturevalue("server")
    server.run("job", "submit", hours(tmp_path / "waits/waits.sql", tmp_path / "out", {**COPIES, "pipeline.name": "waits"}, rate=20000, sink=ON_SNAPSHOT))
    server.run("job", "submit", hours(tmp_path / "delivers/delivers.sql", "s3://lake/out", {"pipeline.name": "delivers"}, rate=9000))
    wait_until(lambda: lake.keys("out/") and lake.keys("state/"))
    lake.hold("before")
    # Both come to a point where they wait for the store: one has processed all its input and needs its last snapshot.
    wait_until(lambda: "waits for    snapshot under way for " in server.run("job", "show", "waits").stdout)
    wait_until(lambda: "waits for    sink:hours delivering for " in server.run("job", "show", "delivers").stdout)
    for job in ("waits", "delivers"):
        begun = time.monotonic()
        server.run("job", "cancel", job, timeout=60)
        assert time.monotonic() - begun < 30, "it waited for the store"
        assert shown(server, job)["state"] == "cancelled"
    lake.release()
    for job in ("waits", "delivers"):
        server.run("job", "start", job)
        wait_until(lambda: has_ended(server, job))
    lake.fetch(tmp_path / "fetched")
    assert delivered(tmp_path / "out") == expected() == delivered(tmp_path / "fetched/out")


def test_an_interrupted_run_whose_last_snapshot_is_not_answered_says_so_and_ends(lake, tmp_path):
    script = hours(tmp_path / "hours.sql", tmp_path / "out", COPIES, rate=9000, sink=ON_SNAPSHOT)
    command = ["run", script, "--data-dir", tmp_path / "data"]
    job = subprocess.Popen([BINARY, *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: list((tmp_path / "out").rglob("*.parquet")))
    lake.hold("after")
    job.send_signal(signal.SIGINT)
    _, said = job.communicate(timeout=60)
    assert job.returncode == 130 and "resume with: coulee run" in said, said
    lake.release()
    coulee(*command)
    assert delivered(tmp_path / "out") == expected()
