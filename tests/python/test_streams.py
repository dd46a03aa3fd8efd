"""What readers of a stream see of a job's transaction, and a changed script on a savepoint of the former."""

import json

import pytest
from conftest import wait_until
from hours import shown

COPY = """
SET 'execution.checkpointing.interval' = '1 h';
CREATE TABLE numbers (n BIGINT) WITH ('shards' = '2');
CREATE TABLE copy (n BIGINT) WITH ('shards' = '2');
INSERT INTO copy SELECT n FROM numbers;
"""


def lines(numbers):
    return "".join(f'{{"n":{n}}}\n' for n in numbers)


def tailed(server, stream, *options):
    out = server.run("tail", stream, "--from", "earliest", *options).stdout
    return sorted(json.loads(line)["n"] for line in out.splitlines())


@pytest.mark.parametrize("end", ["savepoint create", "job stop"])
def test_tail_sees_an_open_transaction_only_when_asked(server, tmp_path, end):
    (tmp_path / "copy.sql").write_text(COPY)
    server.run("job", "submit", tmp_path / "copy.sql")
    server.run("produce", "numbers", input=lines(range(100)))
    wait_until(lambda: tailed(server, "copy", "--uncommitted") == list(range(100)))
    assert tailed(server, "copy") == []
    assert server.run("tail", "copy").stdout == "", "nor are they among the newest"
    server.run(*end.split(), "copy")
    wait_until(lambda: tailed(server, "copy") == list(range(100)))
    assert tailed(server, "copy", "--uncommitted") == list(range(100))


def test_what_a_cancelled_job_had_not_committed_is_never_seen(server, tmp_path):
    (tmp_path / "copy.sql").write_text(COPY)
    server.run("job", "submit", tmp_path / "copy.sql")
    server.run("produce", "numbers", input=lines(range(10)))
    wait_until(lambda: tailed(server, "copy", "--uncommitted") == list(range(10)))
    server.run("job", "cancel", "copy")
    assert tailed(server, "copy") == []
    # It is aborted by the next attempt, which does it again.
    server.run("job", "start", "copy")
    wait_until(lambda: shown(server, "copy")["progress"]["rows_read"] == 10)
    server.run("job", "stop", "copy")
    assert tailed(server, "copy") == list(range(10))


DEFINITIONS = """
CREATE TABLE readings (at TIMESTAMP(3), sensor STRING, WATERMARK FOR at AS at - INTERVAL '0' SECOND)
WITH ('scan.watermark.idle-timeout' = '100 ms');
CREATE TABLE minutes (at TIMESTAMP(3), sensor STRING, n BIGINT);
CREATE TABLE days (at TIMESTAMP(3), n BIGINT);
"""
MINUTES = """INSERT INTO minutes SELECT window_start, sensor, COUNT(*)
FROM TABLE(TUMBLE(TABLE readings, DESCRIPTOR(at), INTERVAL '1' MINUTE)) GROUP BY window_start, window_end, sensor;
"""
DAYS = """INSERT INTO days SELECT window_start, COUNT(*)
FROM TABLE(TUMBLE(TABLE readings, DESCRIPTOR(at), INTERVAL '1' DAY)) GROUP BY window_start, window_end;
"""


def readings(*times):
    return "".join(json.dumps({"at": f"2024-05-01 {at}", "sensor": "a"}) + "\n" for at in times)


def test_state_of_an_operator_that_is_gone_is_refused_by_name_or_dropped_and_the_rest_is_used(server, tmp_path):
    (tmp_path / "counts.sql").write_text(DEFINITIONS + f"EXECUTE STATEMENT SET BEGIN {MINUTES}{DAYS}END;")
    server.run("job", "submit", tmp_path / "counts.sql")
    server.run("produce", "readings", input=readings("10:00:01", "10:00:02", "10:00:03"))
    wait_until(lambda: shown(server, "counts")["progress"]["rows_read"] == 3)
    url = server.run("savepoint", "create", "counts", "--name", "both").stdout.strip()
    server.run("job", "cancel", "counts")
    changed = tmp_path / "changed/counts.sql"
    changed.parent.mkdir()
    changed.write_text(DEFINITIONS + MINUTES)
    refused = server.run("job", "submit", changed, "--from", url, "--fresh", check=False)
    assert refused.returncode == 2, refused.stderr
    for word in ("the query has changed", "--allow-non-restored-state", "'days/window', 'sink:days'"):
        assert word in refused.stderr, refused.stderr
    assert "minutes/" not in refused.stderr, f"what fits is not blamed: {refused.stderr}"
    server.run("job", "submit", changed, "--from", url, "--fresh", "--allow-non-restored-state")
    server.run("produce", "readings", input=readings("10:00:04", "10:01:00"))
    found = lambda: [json.loads(line) for line in server.run("tail", "minutes", "--from", "earliest").stdout.splitlines()]
    wait_until(found)
    assert [(row["sensor"], row["n"]) for row in found()] == [("a", 4)], "three of before, and one"
