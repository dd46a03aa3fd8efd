"""Nexmark's queries over its generated events give DuckDB's rows, also with the events in two splits and two subtasks.

The queries are in `tests/nexmark/queries.txt`, in the form of the golden streams (see golden.py).
"""

import json
import re
from decimal import Decimal

import duckdb
import pytest
from conftest import ROOT, coulee
from golden import Case, _line, _shown

EVENTS = 10_000
TABLES = {
    "person": "id BIGINT, name STRING, emailAddress STRING, creditCard STRING, city STRING, state STRING, `dateTime` TIMESTAMP(3), extra STRING",
    "auction": "id BIGINT, itemName STRING, description STRING, initialBid BIGINT, reserve BIGINT, `dateTime` TIMESTAMP(3), expires TIMESTAMP(3), seller BIGINT, category BIGINT, extra STRING",
    "bid": "auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING, `dateTime` TIMESTAMP(3), extra STRING",
}
# A hundred seconds of event time, so that every window is there several times.
OPTIONS = f"'connector' = 'nexmark', 'events.num' = '{EVENTS}', 'first-event.rate' = '100'"
CASES = [Case(block) for block in (ROOT / "tests/nexmark/queries.txt").read_text().split("\n====\n")[1:]]


def _created():
    watermark = "WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '4' SECOND"
    return [f"CREATE TABLE {name} ({columns}, {watermark}) WITH ({OPTIONS}, 'nexmark.event' = '{name}')" for name, columns in TABLES.items()]


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """DuckDB with the same events."""
    folder = tmp_path_factory.mktemp("nexmark")
    script = _created()
    for name, columns in TABLES.items():
        script.append(f"CREATE TABLE {name}_copy ({columns}) WITH ('connector' = 'filesystem', 'path' = '{name}', 'format' = 'parquet')")
        script.append(f"INSERT INTO {name}_copy SELECT * FROM {name}")
    coulee("run", "-e", ";\n".join(script), "--data-dir", folder / "data", cwd=folder)
    with duckdb.connect() as db:
        for name in TABLES:
            db.execute(f"CREATE TABLE {name} AS SELECT * FROM read_parquet('{folder / name}/**/*.parquet')")
        yield db


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.sentence.split(":")[0])
@pytest.mark.parametrize("parallelism", [1, 2])
def test_a_query_gives_the_rows_of_batch(tmp_path, database, case, parallelism):
    # What the benchmark has in a file, without every third key.
    (tmp_path / "side_input.csv").write_text("".join(f"{key},{key}\n" for key in range(10_000) if key % 3))
    *before, query = (statement for statement in re.split(r";\s*\n", case.get("flink")))
    script = [f"SET 'parallelism.default' = '{parallelism}'", "SET 'table.dml-sync' = 'true'", *_created(), *before]
    done = coulee("run", "-e", ";\n".join([*script, query]), "--output", "json", "--data-dir", tmp_path / "data", cwd=tmp_path)
    found = sorted(_line(json.loads(line, parse_float=Decimal)) for line in done.stdout.splitlines() if line.startswith("{"))
    cursor = database.execute(case.get("duckdb"))
    names = [column[0] for column in cursor.description]
    expected = sorted(_line(dict(zip(names, map(_shown, row), strict=True))) for row in cursor.fetchall())
    assert expected
    assert found == expected
