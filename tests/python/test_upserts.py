"""Streams whose records replace each other by key, and change events: written, read back, and read by other queries."""

import json

import duckdb
import pytest
from conftest import coulee

FLIGHTS = """SET 'execution.runtime-mode' = 'streaming';
SET 'table.dml-sync' = 'true';
CREATE TABLE flights (id BIGINT, carrier STRING, delay INT)
WITH ('connector' = 'filesystem', 'path' = 'flights.ndjson', 'format' = 'json');
"""
TOTALS = """CREATE TABLE totals (n BIGINT, carrier STRING, most INT, PRIMARY KEY (carrier) NOT ENFORCED)
WITH ('connector' = 'upsert-stream', 'shards' = '3', 'scan.bounded.mode' = 'latest-offset');
"""


@pytest.fixture
def folder(tmp_path):
    rows = [{"id": n, "carrier": "ABCDEFG"[n * n % 7], "delay": n * 37 % 101 - 5} for n in range(3_000)]
    (tmp_path / "flights.ndjson").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def run(folder, script, check=True, parallelism=2):
    (folder / "job.sql").write_text(f"SET 'parallelism.default' = '{parallelism}';\n{script}")
    return coulee("run", "--data-dir", folder / "data", "--output", "json", "job.sql", cwd=folder, check=check)


def rows(folder, script, **kwargs):
    shown = [json.loads(line) for line in run(folder, script, **kwargs).stdout.splitlines()]
    return sorted(tuple(row.values()) for row in shown)


def in_duckdb(folder, query):
    return sorted(duckdb.sql(query.replace("flights", f"'{folder / 'flights.ndjson'}'")).fetchall())


@pytest.mark.parametrize("parallelism", [1, 3])
def test_a_table_of_upserts_holds_the_last_rows(folder, parallelism):
    query = "SELECT COUNT(*) AS n, carrier, MAX(delay) AS most FROM flights GROUP BY carrier"
    found = rows(folder, f"{FLIGHTS}{TOTALS}INSERT INTO totals {query};\nSELECT * FROM totals;", parallelism=parallelism)
    assert found == in_duckdb(folder, query)


def test_what_no_longer_passes_a_condition_is_deleted(folder):
    # Every carrier has such a count for a while.
    having = "SELECT COUNT(*) AS n, carrier, MAX(delay) AS most FROM flights GROUP BY carrier HAVING COUNT(*) < 600"
    found = rows(folder, f"{FLIGHTS}{TOTALS}INSERT INTO totals {having};\nSELECT * FROM totals;")
    expected = in_duckdb(folder, having)
    assert found == expected and 0 < len(expected) < len(in_duckdb(folder, having.split(" HAVING")[0]))


def test_a_row_that_moves_to_another_key_takes_no_other_row_away(folder):
    """The key of the table is not the one of the query: a count is left by one carrier when another one may have it already."""
    by_count = """CREATE TABLE counts (n BIGINT, carrier STRING, PRIMARY KEY (n) NOT ENFORCED)
    WITH ('connector' = 'upsert-stream', 'scan.bounded.mode' = 'latest-offset');
    INSERT INTO counts SELECT COUNT(*), MIN(carrier) FROM flights GROUP BY carrier;
    SELECT n FROM counts;"""
    expected = in_duckdb(folder, "SELECT DISTINCT n FROM (SELECT COUNT(*) AS n FROM flights GROUP BY carrier)")
    assert rows(folder, FLIGHTS + by_count) == expected


def test_queries_over_upserts_see_the_rows_before_them(folder):
    script = f"""{FLIGHTS}{TOTALS}
    INSERT INTO totals SELECT COUNT(*), carrier, MAX(delay) FROM flights GROUP BY carrier;
    SELECT SUM(n) AS n, COUNT(*) AS carriers FROM totals WHERE carrier <> 'A';"""
    expected = in_duckdb(folder, "SELECT COUNT(*), COUNT(DISTINCT carrier) FROM flights WHERE carrier <> 'A'")
    assert rows(folder, script) == expected


def test_keys_and_values_are_laid_out_as_flinks_upsert_kafka_does(folder):
    script = f"""{FLIGHTS}{TOTALS}
    CREATE TABLE records (k STRING METADATA FROM 'key', v STRING)
    WITH ('connector' = 'stream', 'stream' = 'totals', 'format' = 'raw', 'scan.bounded.mode' = 'latest-offset');
    INSERT INTO totals SELECT 1, carrier, 7 FROM flights WHERE id = 2;
    SELECT * FROM records;"""
    [(key, value)] = rows(folder, script)
    assert (json.loads(key), json.loads(value)) == ({"carrier": "E"}, {"n": 1, "carrier": "E", "most": 7})


EVENTS = [
    {"before": None, "after": {"id": 1, "name": "ann", "spent": 5}, "source": {"db": "shop"}, "op": "r", "ts_ms": 1},
    {"before": None, "after": {"id": 2, "name": "bob", "spent": 7}, "source": {"db": "shop"}, "op": "c", "ts_ms": 2},
    {
        "before": {"id": 1, "name": "ann", "spent": 5},
        "after": {"id": 1, "name": "ann", "spent": 9},
        "source": {"db": "shop"},
        "op": "u",
        "ts_ms": 3,
    },
    {"before": {"id": 2, "name": "bob", "spent": 7}, "after": None, "source": {"db": "shop"}, "op": "d", "ts_ms": 4},
]
CUSTOMERS = """CREATE TABLE customers (id BIGINT, name STRING, spent INT)
WITH ('connector' = 'filesystem', 'path' = 'changes.json', 'format' = 'debezium-json'{options});
"""


def test_change_events_of_a_database_are_a_table(tmp_path):
    (tmp_path / "changes.json").write_text("".join(json.dumps(event) + "\n" for event in EVENTS))
    plain = CUSTOMERS.format(options="")
    assert rows(tmp_path, plain + "SELECT * FROM customers;") == [(1, "ann", 9)]
    assert rows(tmp_path, plain + "SELECT COUNT(*) AS n, SUM(spent) AS s FROM customers;") == [(1, 9)]
    wrapped = [json.dumps({"schema": {"type": "struct"}, "payload": event}) + "\n" for event in EVENTS]
    (tmp_path / "changes.json").write_text("".join(wrapped))
    options = ", 'debezium-json.schema-include' = 'true'"
    assert rows(tmp_path, CUSTOMERS.format(options=options) + "SELECT * FROM customers;") == [(1, "ann", 9)]


def test_an_event_that_is_none_is_rejected_and_the_others_count(tmp_path):
    lines = [json.dumps(event) for event in EVENTS[:2]] + ['{"before": null, "after": {"id": 3}, "op": "u"}']
    (tmp_path / "changes.json").write_text("\n".join(lines))
    done = run(tmp_path, CUSTOMERS.format(options="") + "SELECT id FROM customers ORDER BY id;", check=False)
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == [1, 2]
    assert "REPLICA IDENTITY FULL" in done.stderr


def test_changes_are_written_to_a_stream_and_read_back(folder):
    script = f"""{FLIGHTS}
    CREATE TABLE changes (carrier STRING, n BIGINT)
    WITH ('connector' = 'stream', 'format' = 'debezium-json', 'scan.bounded.mode' = 'latest-offset');
    INSERT INTO changes SELECT carrier, COUNT(*) FROM flights GROUP BY carrier;
    SELECT * FROM changes;"""
    assert rows(folder, script) == in_duckdb(folder, "SELECT carrier, COUNT(*) FROM flights GROUP BY carrier")


@pytest.mark.parametrize(
    "table, words",
    [
        ("CREATE TABLE t (a INT) WITH ('connector' = 'upsert-stream');", ["'t'", "PRIMARY KEY (column, …) NOT ENFORCED"]),
        (
            "CREATE TABLE t (a INT, PRIMARY KEY (a) NOT ENFORCED) WITH ('connector' = 'upsert-stream', 'value.format' = 'debezium-json');",
            ["'debezium-json'", "'connector' = 'stream'"],
        ),
        (
            "CREATE TABLE t (a INT, b INT, PRIMARY KEY (a, b) NOT ENFORCED) WITH ('connector' = 'upsert-stream', 'key.format' = 'raw');",
            ["'key.format'", "one column of type STRING or BYTES"],
        ),
        (
            "CREATE TABLE t (a INT, PRIMARY KEY (a) NOT ENFORCED) WITH ('connector' = 'upsert-stream', 'format' = 'json', 'value.format' = 'csv');",
            ["'format' and 'value.format' say the same"],
        ),
    ],
)
def test_what_cannot_be_upserted_is_refused(tmp_path, table, words):
    done = run(tmp_path, table, check=False)
    assert done.returncode == 2
    assert all(word in done.stderr for word in words), done.stderr
