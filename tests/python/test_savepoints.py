"""Savepoints with the real binary: taken at rest and at work, restored on another data folder and at another parallelism."""

import pytest
from conftest import coulee, wait_until
from hours import delivered as delivered_in
from hours import expected, hours


def script(tmp_path, rate=None, settings=None, sink=None):
    return hours(tmp_path / ("slow" if rate else "fast") / "hours.sql", tmp_path / "out", settings, rate, sink)


def delivered(tmp_path):
    return delivered_in(tmp_path / "out")


@pytest.mark.parametrize("parallelism", [1, 3])
def test_a_savepoint_goes_on_elsewhere_at_another_parallelism(server, tmp_path, parallelism):
    server.run("job", "submit", script(tmp_path, rate=9000), "--parallelism", "2")
    wait_until(lambda: "checkpoint   none yet" not in server.run("job", "show", "hours").stdout)
    wait_until(lambda: list((tmp_path / "out").rglob("*.parquet")))
    server.run("job", "stop", "hours")
    assert len(delivered(tmp_path)) < len(expected()), "it was stopped in the middle"
    taken = server.run("savepoint", "create", "hours", "--name", "v1", "--note", "before the move", "--to", tmp_path / "kept")
    url = taken.stdout.strip()
    assert url == f"{tmp_path}/kept/hours/savepoints/v1.json"
    listed = server.run("savepoint", "list", "hours").stdout
    assert "v1" in listed and "before the move" in listed
    described = server.run("savepoint", "describe", "v1").stdout
    assert "state/CURRENT" in described and url in described

    elsewhere = ["run", script(tmp_path), "--data-dir", tmp_path / "elsewhere", "--parallelism", parallelism, "--from"]
    coulee(*elsewhere, url)
    assert delivered(tmp_path) == expected(), "each row is delivered once, before or after the move"
    again = coulee(*elsewhere, url, check=False)
    assert again.returncode == 2 and "--fresh" in again.stderr


def test_a_savepoint_of_a_running_job_is_copied_restored_and_deleted(server, tmp_path):
    server.run("job", "submit", script(tmp_path, rate=9000))
    wait_until(lambda: list((tmp_path / "out").rglob("*.parquet")))
    first = server.run("savepoint", "create", "hours", "--name", "v1").stdout.strip()
    assert first == f"{tmp_path}/data/savepoints/hours/savepoints/v1.json"
    taken = server.run("savepoint", "create", "hours", "--name", "v1", check=False)
    assert taken.returncode != 0 and "v1" in taken.stderr, "a name is given once"
    server.run("job", "cancel", "hours")
    copied = server.run("savepoint", "export", "v1", "--to", tmp_path / "copies").stdout.strip()
    server.run("savepoint", "delete", "v1")
    assert "v1" not in server.run("savepoint", "list").stdout
    gone = server.run("job", "start", "hours", "--from", "v1", "--fresh", check=False)
    assert gone.returncode == 2 and "savepoint list" in gone.stderr
    refused = server.run("job", "start", "hours", "--from", copied, check=False)
    assert refused.returncode == 2 and "has state of its own" in refused.stderr
    # What was delivered since the savepoint is delivered again: here into an empty folder, with the whole job after it.
    for file in (tmp_path / "out").rglob("*.parquet"):
        file.unlink()
    server.run("job", "start", "hours", "--from", copied, "--fresh", "--parallelism", "2")
    wait_until(lambda: "finished" in server.run("job", "show", "hours").stdout)
    rest = delivered(tmp_path)
    assert 0 < len(rest) < len(expected()) and len(set(rest)) == len(rest), "what was delivered before is not delivered again"
    assert set(rest) <= set(expected())


def test_a_lost_disk_is_replaced_by_the_newest_snapshot(server, tmp_path):
    settings = {"execution.checkpointing.dir": tmp_path / "copies", "execution.snapshot.interval": "1 s"}
    server.run("job", "submit", script(tmp_path, 9000, settings))
    wait_until(lambda: list((tmp_path / "copies/hours/snapshots").glob("*.json")))
    wait_until(lambda: "snapshot     " in server.run("job", "show", "hours").stdout)
    assert "snapshot" in server.run("savepoint", "list", "hours").stdout
    server.process.kill()
    server.process.wait()
    coulee("run", script(tmp_path, settings=settings), "--data-dir", tmp_path / "elsewhere", "--from", tmp_path / "copies/hours")
    # What the first machine delivered after that snapshot is delivered again; nothing is missing and nothing is wrong.
    assert sorted(set(delivered(tmp_path))) == expected()


def test_a_sink_that_waits_for_snapshots_needs_some(tmp_path):
    path = script(tmp_path, sink={"sink.commit-on": "snapshot"})
    done = coulee("run", path, "--data-dir", tmp_path / "data", check=False)
    assert done.returncode == 2 and "execution.checkpointing.dir" in done.stderr
