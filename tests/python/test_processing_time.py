"""Processing time: windows over it, what the clock says, and functions of chance."""

import datetime
import json
import re
import uuid

import pytest
from conftest import coulee, wait_until

TICKS = """
CREATE TABLE ticks (n BIGINT, `at` AS PROCTIME());
CREATE TABLE counts (w TIMESTAMP(3), n BIGINT);
"""


def lines(numbers):
    return "".join(f'{{"n":{n}}}\n' for n in numbers)


def tailed(server, stream):
    out = server.run("tail", stream, "--from", "earliest").stdout
    return [json.loads(line) for line in out.splitlines()]


def utc_now():
    return datetime.datetime.now(datetime.timezone.utc).replace(tzinfo=None)


def instant(text):
    return datetime.datetime.fromisoformat(text.replace("Z", "").replace("T", " "))


@pytest.mark.parametrize("query", [
    "SELECT window_start, COUNT(*) FROM TABLE(TUMBLE(TABLE ticks, DESCRIPTOR(`at`), INTERVAL '1' SECOND)) GROUP BY window_start, window_end",
    "SELECT TUMBLE_START(`at`, INTERVAL '1' SECOND), COUNT(*) FROM ticks GROUP BY TUMBLE(`at`, INTERVAL '1' SECOND)",
    "SELECT SESSION_START(`at`, INTERVAL '1' SECOND), COUNT(*) FROM ticks GROUP BY SESSION(`at`, INTERVAL '1' SECOND)",
    # A row is in four of them.
    "SELECT window_start, COUNT(*) FROM TABLE(HOP(TABLE ticks, DESCRIPTOR(`at`), INTERVAL '1' SECOND, INTERVAL '4' SECOND)) GROUP BY window_start, window_end",
])
def test_windows_fire_by_the_clock_while_nothing_comes(server, tmp_path, query):
    (tmp_path / "job.sql").write_text(f"{TICKS}INSERT INTO counts {query};")
    server.run("job", "submit", tmp_path / "job.sql")
    before = utc_now()
    server.run("produce", "ticks", input=lines(range(100)))
    wanted = 400 if "HOP" in query else 100
    wait_until(lambda: sum(row["n"] for row in tailed(server, "counts")) == wanted)
    starts = [instant(row["w"]) for row in tailed(server, "counts")]
    assert all(before - datetime.timedelta(seconds=5) <= start <= utc_now() for start in starts)
    assert len(set(starts)) == len(starts) and all(start.microsecond == 0 for start in starts if "SESSION" not in query)


def test_windows_lose_and_double_no_row_when_the_server_is_killed(server, tmp_path):
    (tmp_path / "job.sql").write_text(f"""SET 'execution.checkpointing.interval' = '100 ms';
{TICKS}INSERT INTO counts SELECT window_start, COUNT(*)
FROM TABLE(TUMBLE(TABLE ticks, DESCRIPTOR(`at`), INTERVAL '2' SECOND)) GROUP BY window_start, window_end;""")
    server.run("job", "submit", tmp_path / "job.sql")
    for round in range(3):
        server.run("produce", "ticks", input=lines(range(100 * round, 100 * round + 100)))
        server.process.kill()
        server.process.wait()
        server.process = server()
    wait_until(lambda: sum(row["n"] for row in tailed(server, "counts")) >= 300)
    assert sum(row["n"] for row in tailed(server, "counts")) == 300
    starts = [row["w"] for row in tailed(server, "counts")]
    assert sorted(set(starts)) == sorted(starts), "a window fires once"


def selected(tmp_path, query, before=""):
    (tmp_path / "rows.ndjson").write_text(lines(range(1_000)))
    script = f"{before}SELECT {query} FROM 'rows.ndjson'"
    out = coulee("run", "-e", script, "--output", "json", cwd=tmp_path).stdout
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def test_the_clock_is_that_of_the_session(tmp_path):
    before = utc_now()
    columns = "PROCTIME() AS p, CURRENT_TIMESTAMP AS c, NOW() AS n, LOCALTIMESTAMP AS l, CURRENT_DATE AS d, LOCALTIME AS t"
    found = selected(tmp_path, columns, "SET 'table.local-time-zone' = 'Asia/Kolkata'; ")
    after = utc_now()
    ahead = datetime.timedelta(hours=5, minutes=30)
    millis = datetime.timedelta(milliseconds=1)
    for row in found:
        for instants in (row["p"], row["c"], row["n"]):
            assert before - millis <= instant(instants) <= after, row
        assert before - millis <= instant(row["l"]) - ahead <= after
        local = [before + ahead, after + ahead]
        assert row["d"] in {str(time.date()) for time in local}
        assert min(time.strftime("%H:%M:%S") for time in local) <= row["t"] or local[0].date() != local[1].date()
    assert len(found) == 1_000


def test_chance_differs_from_row_to_row(tmp_path):
    found = selected(tmp_path, "UUID() AS u, RAND() AS r, RAND_INTEGER(10) AS i")
    assert len({row["u"] for row in found}) == 1_000 and all(uuid.UUID(row["u"]).version == 4 for row in found)
    assert len({row["r"] for row in found}) > 990 and all(0 <= row["r"] < 1 for row in found)
    # That a digit is never drawn has a chance of 10^-45.
    assert {row["i"] for row in found} == set(range(10))


def test_the_first_row_of_a_key_by_processing_time_stays(server, tmp_path):
    """Deduplication as Flink's documentation writes it."""
    (tmp_path / "job.sql").write_text("""
CREATE TABLE orders (id BIGINT, n BIGINT, arrived AS PROCTIME());
CREATE TABLE firsts (id BIGINT, n BIGINT, PRIMARY KEY (id) NOT ENFORCED) WITH ('connector' = 'upsert-stream');
INSERT INTO firsts SELECT id, n FROM (
  SELECT *, ROW_NUMBER() OVER (PARTITION BY id ORDER BY arrived ASC) AS row_num FROM orders) WHERE row_num = 1;""")
    server.run("job", "submit", tmp_path / "job.sql")
    server.run("produce", "orders", input="".join(f'{{"id":{n % 7},"n":{n}}}\n' for n in range(70)))
    server.run("produce", "orders", input="".join(f'{{"id":{n % 9},"n":{n}}}\n' for n in range(70, 160)))
    first = {n: n for n in range(7)} | {7: 70, 8: 71}
    wait_until(lambda: {row["id"]: row["n"] for row in tailed(server, "firsts")} == first)


def test_a_value_that_is_another_each_time_is_refused_over_rows_that_change(tmp_path):
    (tmp_path / "rows.ndjson").write_text(lines(range(10)))
    script = "SELECT n, COUNT(*), UUID() FROM 'rows.ndjson' GROUP BY n"
    done = coulee("run", "-e", script, cwd=tmp_path, check=False)
    assert done.returncode != 0 and re.search(r"1:21: UUID has another value", done.stderr), done.stderr
