"""Flights per hour and carrier, as a job whose parts the tests choose, and DuckDB's answer to the same question."""

import json

import duckdb
from conftest import FLIGHTS

SCRIPT = """
CREATE TABLE flights (carrier STRING, departed_at TIMESTAMP(3), dep_delay DOUBLE, WATERMARK FOR departed_at AS departed_at - INTERVAL '1' DAY)
WITH ('connector' = 'filesystem', 'path' = '{flights}', 'format' = 'json'{rate});
CREATE TABLE hours (hour TIMESTAMP(3), carrier STRING, flights BIGINT, delay DOUBLE)
WITH ('connector' = 'filesystem', 'path' = '{out}', 'format' = 'parquet', 'sink.rolling-policy.rollover-interval' = '200 ms'{sink});
INSERT INTO hours SELECT window_start, carrier, COUNT(*), SUM(dep_delay)
FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(departed_at), INTERVAL '1' HOUR)) GROUP BY window_start, window_end, carrier;
"""
EXPECTED = f"""
SELECT date_trunc('hour', CAST(departed_at AS TIMESTAMP)) AS hour, carrier, count(*), sum(dep_delay)
FROM read_json('{FLIGHTS}') WHERE departed_at IS NOT NULL GROUP BY ALL
"""


def options(pairs):
    return "".join(f", '{key}' = '{value}'" for key, value in pairs.items())


def hours(path, out, settings=None, rate=None, sink=None):
    """Writes the script to `path`: with SET for each of the settings, so many rows per second, and more options of the sink."""
    text = "".join(f"SET '{key}' = '{value}';\n" for key, value in (settings or {}).items())
    limit = options({"scan.rate-limit": rate}) if rate else ""
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text + SCRIPT.format(flights=FLIGHTS, rate=limit, out=out, sink=options(sink or {})))
    return path


def delivered(folder):
    return sorted(duckdb.connect().sql(f"SELECT hour, carrier, flights, delay FROM read_parquet('{folder}/**/*.parquet')").fetchall())


def expected():
    return sorted(duckdb.connect().sql(EXPECTED).fetchall())


def shown(server, job):
    """What is known of a job, as a dictionary."""
    return json.loads(server.run("job", "show", job, "--json").stdout)


def has_ended(server, job, state="finished"):
    found = shown(server, job)
    assert found["state"] in ("running", state), found["cause"]
    return found["state"] == state
