"""One record must not stop a job: rows that fail in decoding, in an expression or in delivery, under each policy of their table."""

import json
import subprocess

import duckdb
import pytest
from conftest import BINARY, coulee

# `a` is a number in a text, `d` a divisor, `at` in the hour from 10:00 on.
ROWS = [
    {"id": 1, "a": "10", "d": 2, "at": "2024-05-01 10:00:00"},
    {"id": 2, "a": "soon", "d": 1, "at": "2024-05-01 10:01:00"},
    {"id": 3, "a": "30", "d": 0, "at": "2024-05-01 10:02:00"},
    {"id": 4, "a": "40", "d": 4, "at": "2024-05-01 10:03:00"},
    {"id": 5, "a": "-50", "d": 5, "at": "2024-05-01 11:04:00"},
]
COLUMNS = "id INT, a STRING, d INT, at TIMESTAMP(3)"


def table(columns=COLUMNS, watermark="WATERMARK FOR at AS at - INTERVAL '5' SECOND", options=""):
    return f"CREATE TABLE t ({columns}, {watermark}) WITH ('connector' = 'filesystem', 'path' = 'in.ndjson', 'format' = 'json'{options});\n"


def windowed(select, tail="GROUP BY window_start, window_end"):
    return f"SELECT {select} FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(at), INTERVAL '1' HOUR)) {tail};"


def run(folder, script, *args, rows=ROWS, **kwargs):
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / "in.ndjson").write_text("".join(line + "\n" for line in lines))
    (folder / "job.sql").write_text(script)
    return coulee("run", "--data-dir", folder / "data", "--output", "json", *args, "job.sql", cwd=folder, **kwargs)


def found(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


def letters(folder, stream="t_dead_letter"):
    done = coulee("tail", "--data-dir", folder / "data", stream, "--from", "earliest", check=False)
    if done.returncode != 0:
        return []
    return [json.loads(line) for line in done.stdout.splitlines()]


# Where an expression may stand: the script, the rows that come out, the ids of the rows that fail, and words of their expression.
PLACES = {
    "select": (table() + "SELECT id, CAST(a AS INT) AS n FROM t;", [{"id": 1, "n": 10}, {"id": 3, "n": 30}, {"id": 4, "n": 40}, {"id": 5, "n": -50}], [2], "CAST(a AS INT)"),
    "where": (table() + "SELECT id FROM t WHERE 8 / d > 1;", [{"id": 1}, {"id": 2}, {"id": 4}], [3], "/ "),
    "computed column": (table(COLUMNS + ", n AS CAST(a AS INT)") + "SELECT id, n + 1 AS n FROM t WHERE d < 3;", [{"id": 1, "n": 11}, {"id": 3, "n": 31}], [2], "CAST(a AS INT)"),
    "group key": (table() + windowed("CAST(a AS INT) > 0 AS positive, COUNT(*) AS n", "GROUP BY window_start, window_end, CAST(a AS INT) > 0"), [{"positive": True, "n": 3}, {"positive": False, "n": 1}], [2], "CAST(a AS INT)"),
    "aggregate argument": (table() + windowed("COUNT(*) AS n, SUM(8 / d) AS s"), [{"n": 3, "s": 14}, {"n": 1, "s": 1}], [3], "8 / "),
    "filter of an aggregate": (table() + windowed("COUNT(*) AS n, COUNT(*) FILTER (WHERE 8 / d > 2) AS many"), [{"n": 3, "many": 2}, {"n": 1, "many": 0}], [3], "8 / "),
}


@pytest.mark.parametrize("name", PLACES)
@pytest.mark.parametrize("parallelism", [1, 2])
def test_an_expression_that_fails_rejects_its_row_alone(tmp_path, name, parallelism):
    script, rows, ids, words = PLACES[name]
    done = run(tmp_path, script, "--parallelism", parallelism)
    key = lambda row: json.dumps(row, sort_keys=True)
    assert sorted(found(done), key=key) == sorted(rows, key=key), done.stderr
    kept = letters(tmp_path)
    assert [json.loads(letter["raw"]).get("a") for letter in kept] == [ROWS[id - 1]["a"] for id in ids] or [
        json.loads(letter["raw"]).get("d") for letter in kept
    ] == [ROWS[id - 1]["d"] for id in ids]
    for letter, id in zip(kept, ids):
        assert letter["stage"] == "expression" and words in letter["expression"], letter
        assert letter["origin"].endswith(f"in.ndjson:{id}"), letter
        assert letter["reason"] in ("division by zero", "cannot cast 'soon' to INT"), letter
    assert f"{len(ids)} row of 't' failed in an expression" in done.stderr


@pytest.mark.parametrize("operation", ["9223372036854775807 - 1 + id", "-9223372036854775807 + 2 - id", "4611686018427387904 * (id - 1)"])
def test_a_whole_number_that_overflows_rejects_its_row(tmp_path, operation):
    # Of ids 1 to 5: what Python's whole numbers, which have no bound, say of the same operation.
    exact = {id: eval(operation, {"id": id}) for id in range(1, 6)}
    fits = {id: n for id, n in exact.items() if -(2**63) <= n < 2**63}
    done = run(tmp_path, table() + f"SELECT id, {operation.replace('id', 'CAST(id AS BIGINT)')} AS n FROM t;")
    assert found(done) == [{"id": id, "n": n} for id, n in fits.items()], done.stderr
    assert len(letters(tmp_path)) == 5 - len(fits)


def test_guards_hold(tmp_path):
    script = table() + windowed("SUM(8 / d) FILTER (WHERE d <> 0) AS s, SUM(CASE WHEN d > 0 THEN 8 / d ELSE 0 END) AS c") + """
SELECT id FROM t WHERE d <> 0 AND 8 / d > 1;
SELECT id, COALESCE(8 / NULLIF(d, 0), -1) AS q FROM t WHERE id = 3;"""
    done = run(tmp_path, script)
    assert found(done) == [{"s": 14, "c": 14}, {"s": 1, "c": 1}, {"id": 1}, {"id": 2}, {"id": 4}, {"id": 3, "q": -1}], done.stderr
    assert letters(tmp_path) == []


def test_what_is_computed_of_a_window_may_fail_as_well(tmp_path):
    having = windowed("COUNT(*) AS n", "GROUP BY window_start, window_end HAVING 8 / SUM(d) > 0")
    projection = windowed("COUNT(*) AS n, 8 / (SUM(d) - 5) AS q", "GROUP BY window_start, window_end")
    done = run(tmp_path, table() + having + "\n" + projection, rows=ROWS[2:3] + ROWS[4:])
    # The first window's divisors have the sum 0, the second one's 5.
    assert found(done) == [{"n": 1}, {"n": 1, "q": -1}], done.stderr
    kept = letters(tmp_path)
    assert [letter["reason"] for letter in kept] == ["division by zero"] * 2
    assert all("row of 'query/calc" in letter["origin"] for letter in kept), kept


BAD = {
    "decode": ('{"id": 6, "a": "6", "d": "six"}', "SELECT id, d FROM t;"),
    "expression": ({"id": 6, "a": "6", "d": 0, "at": "2024-05-01 11:05:00"}, "SELECT id, 8 / d AS q FROM t;"),
}
GOOD = [row for row in ROWS if row["d"] != 0]


@pytest.mark.parametrize("stage", BAD)
def test_each_policy_at_each_stage_of_reading(tmp_path, stage):
    bad, query = BAD[stage]
    for policy in ("dead-letter", "skip", "fail"):
        folder = tmp_path / policy
        folder.mkdir()
        script = table(options=f", 'format.on-error' = '{policy}'") + query
        done = run(folder, script, rows=[*GOOD, bad], check=False)
        kept = letters(folder)
        if policy == "fail":
            assert done.returncode == 1, done.stderr
            words = ["in.ndjson:5", "d"] + (["table 't'", "8 / d: division by zero"] if stage == "expression" else [])
            assert all(word in done.stderr for word in words), done.stderr
            assert kept == []
            continue
        assert done.returncode == 0, done.stderr
        assert [row["id"] for row in found(done)] == [1, 2, 4, 5]
        assert ("failed in an expression" if stage == "expression" else "rejected") in done.stderr
        assert [(letter["stage"], letter["origin"].rsplit("/")[-1]) for letter in kept] == (
            [(stage, "in.ndjson:5")] if policy == "dead-letter" else []
        )


SINK = """CREATE TABLE out (id INT, a STRING) PARTITIONED BY (a)
WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'parquet', 'format.on-error' = '%s');
INSERT INTO out SELECT id, a FROM t;"""


@pytest.mark.parametrize("policy", ["dead-letter", "skip", "fail"])
def test_each_policy_in_delivery(tmp_path, policy):
    long = {"id": 6, "a": "u" * 300, "d": 1, "at": "2024-05-01 11:05:00"}
    odd = {"id": 7, "a": "a/b\0c", "d": 1, "at": "2024-05-01 11:05:00"}
    done = run(tmp_path, table() + SINK % policy, rows=[*ROWS, long, odd], check=False)
    kept = letters(tmp_path, "out_dead_letter")
    # A result that does not arrive is an error of the run, unless the table says that it may go.
    assert done.returncode == (0 if policy == "skip" else 1), done.stderr
    words = "partition column 'a' is too long"
    assert (words in done.stderr) and ("in.ndjson:6" in done.stderr or policy != "fail"), done.stderr
    if policy == "fail":
        assert kept == [] and "table 'out'" in done.stderr
        return
    rows = duckdb.sql(f"SELECT id FROM read_parquet('{tmp_path}/out/**/*.parquet', hive_partitioning=true) ORDER BY id").fetchall()
    assert rows == [(1,), (2,), (3,), (4,), (5,), (7,)]
    assert (tmp_path / "out/a=a%2Fb%00c").is_dir()
    assert "1 row could not be delivered to 'out'" in done.stderr
    expected = [("delivery", 6)] if policy == "dead-letter" else []
    assert [(letter["stage"], json.loads(letter["raw"])["id"]) for letter in kept] == expected
    assert all(letter["origin"].endswith("in.ndjson:6") for letter in kept)


def test_a_job_that_rejects_everything_exits_with_an_error(tmp_path):
    undecoded = run(tmp_path, table() + "SELECT id FROM t;", rows=["{oops", "no"], check=False)
    assert undecoded.returncode == 1 and "every record was rejected" in undecoded.stderr
    failed = run(tmp_path, table() + "SELECT CAST(a AS INT) AS n FROM t;", rows=ROWS[1:2], check=False)
    assert failed.returncode == 1 and "every record was rejected" in failed.stderr


def test_a_time_that_is_no_time_does_not_end_the_job(tmp_path):
    columns = "id INT, at_ms BIGINT, at AS TO_TIMESTAMP_LTZ(at_ms, 3)"
    millis = 1_714_564_800_000
    rows = [{"id": n, "at_ms": millis * factor} for n, factor in enumerate([1, 1_000_000, 1, 1_000, 1])]
    done = run(tmp_path, table(columns) + windowed("window_start AS w, COUNT(*) AS n"), rows=rows)
    assert {"w": "2024-05-01T12:00:00", "n": 3} in [{**row, "w": row["w"].replace(" ", "T")[:19]} for row in found(done)]


def killed_after_a_checkpoint(folder):
    """Runs the job and kills it once it has taken a checkpoint."""
    command = [BINARY, "run", "--data-dir", str(folder / "data"), "job.sql"]
    process = subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    for line in process.stderr:
        if "checkpoint" in line and "checkpoint none" not in line and "checkpoint 0" not in line:
            break
    process.kill()
    process.wait()
    return process.returncode


def test_a_job_that_is_killed_counts_and_keeps_each_row_once(tmp_path):
    count = 3_000
    at = "2024-05-01 10:00:00"
    rows = [{"id": n, "a": "x" * 300 if n % 50 == 1 else "ok", "d": n % 10, "at": at} for n in range(count)]
    script = "SET 'execution.checkpointing.interval' = '100 ms';\n" + table(options=", 'scan.rate-limit' = '1000'")
    script += SINK.replace("SELECT id, a FROM t", "SELECT id + 0 * (8 / d), a FROM t") % "dead-letter"
    # `run` would wait for the end: write the files as it does, then kill it in mid-stream.
    (tmp_path / "in.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "job.sql").write_text(script)
    assert killed_after_a_checkpoint(tmp_path) < 0, "the job was to be killed before its end"
    done = run(tmp_path, script, rows=rows, check=False)
    assert "resumes from checkpoint" in done.stderr
    expected = {"t": [n for n in range(count) if n % 10 == 0], "out": [n for n in range(count) if n % 50 == 1]}
    for name, ids in expected.items():
        kept = sorted(json.loads(letter["raw"])["id"] for letter in letters(tmp_path, f"{name}_dead_letter"))
        assert kept == ids, name
    assert f"{len(expected['t'])} rows of 't' failed in an expression" in done.stderr
    assert f"{len(expected['out'])} rows could not be delivered to 'out'" in done.stderr
    delivered = duckdb.sql(f"SELECT id FROM read_parquet('{tmp_path}/out/**/*.parquet') ORDER BY id").fetchall()
    assert [id for (id,) in delivered] == [n for n in range(count) if n % 10 and n % 50 != 1]
