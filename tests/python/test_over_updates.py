"""OVER in an order that cannot be waited for, and over rows that change: each change of the input updates what was emitted."""

import json

import duckdb
from conftest import wait_until

SCRIPT = """
CREATE TABLE trades (id BIGINT, symbol STRING, price INT, PRIMARY KEY (id) NOT ENFORCED) WITH ('connector' = 'upsert-stream', 'stream' = 'trades');
CREATE TABLE shares (id BIGINT, so_far INT, n BIGINT, before INT, total INT, PRIMARY KEY (id) NOT ENFORCED)
WITH ('connector' = 'upsert-stream', 'stream' = 'shares');
INSERT INTO shares
SELECT id, SUM(price) OVER w, ROW_NUMBER() OVER w, LAG(price) OVER w, SUM(price) OVER (PARTITION BY symbol)
FROM trades WINDOW w AS (PARTITION BY symbol ORDER BY price DESC, id);
"""
TRADES = """
CREATE TABLE source (id BIGINT, symbol STRING, price INT) WITH ('connector' = 'filesystem', 'path' = '{path}', 'format' = 'json');
CREATE TABLE trades (id BIGINT, symbol STRING, price INT, PRIMARY KEY (id) NOT ENFORCED) WITH ('connector' = 'upsert-stream', 'stream' = 'trades');
INSERT INTO trades SELECT id, symbol, price FROM source;
"""
EXPECTED = """
SELECT id, CAST(sum(price) OVER w AS INT) AS so_far, row_number() OVER w AS n, lag(price) OVER w AS before,
    CAST(sum(price) OVER (PARTITION BY symbol) AS INT) AS total
FROM (SELECT unnest(rows, recursive := true) FROM (SELECT ? AS rows)) WINDOW w AS (PARTITION BY symbol ORDER BY price DESC, id) ORDER BY id
"""


def _trades(start, count, step):
    return [{"id": n, "symbol": "abc"[n % 3], "price": n * step % 17} for n in range(start, start + count)]


def _latest(server):
    """The table that the stream of results holds."""
    held = {}
    done = server.run("tail", "shares", "--from", "earliest", check=False)
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            row = json.loads(line)
            held[row["id"]] = row
    return [held[key] for key in sorted(held)]


def _expected(rows):
    cursor = duckdb.execute(EXPECTED, [rows])
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def test_every_change_of_a_row_reaches_the_columns_of_the_others(server, tmp_path):
    (tmp_path / "shares.sql").write_text(SCRIPT)
    server.run("job", "submit", tmp_path / "shares.sql")
    held = {}
    # The second load changes rows of the first, and moves them in the order of their prices.
    for name, rows in {"first": _trades(0, 60, 7), "second": _trades(20, 60, 11)}.items():
        path = tmp_path / f"{name}.ndjson"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        (tmp_path / f"{name}.sql").write_text(TRADES.format(path=path))
        server.run("job", "submit", tmp_path / f"{name}.sql")
        held |= {row["id"]: row for row in rows}
        expected = _expected(list(held.values()))
        wait_until(lambda expected=expected: _latest(server) == expected)
        if name == "first":
            server.process.kill()
            server.process.wait()
            server.process = server()
