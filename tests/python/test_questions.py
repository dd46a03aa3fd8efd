"""The questions of examples/flights/questions, each answered by the real binary and by DuckDB."""

import json

import duckdb
import pytest
from conftest import ROOT, coulee

FOLDER = ROOT / "examples/flights/questions"
HOUR = "time_bucket(INTERVAL 1 HOUR, departed_at)"
# The same questions in DuckDB's SQL; columns in the order of the script's.
ANSWERS = {
    "carriers": "SELECT carrier, count(*), avg(dep_delay) AS mean, max(dep_delay) FROM flights GROUP BY carrier HAVING count(*) > 500 ORDER BY mean DESC",
    "top_three_per_hour": f"""
        SELECT hour, carrier, late FROM (SELECT *, row_number() OVER (PARTITION BY hour ORDER BY late DESC, carrier) AS place
        FROM (SELECT {HOUR} AS hour, carrier, count(*) AS late FROM flights WHERE dep_delay > 15 AND departed_at IS NOT NULL GROUP BY ALL)) WHERE place <= 3""",
    "rolling_hour": """
        SELECT start + INTERVAL 1 HOUR, origin, count(*), avg(dep_delay) FROM (SELECT *, unnest(generate_series(
        time_bucket(INTERVAL 15 MINUTE, departed_at) - INTERVAL 45 MINUTE, departed_at, INTERVAL 15 MINUTE)) AS start FROM flights) GROUP BY ALL""",
    "busy_aircraft": """
        SELECT tailnum, min(departed_at), count(*), sum(distance) FROM (SELECT *, sum(CASE WHEN gap <= INTERVAL 6 HOUR THEN 0 ELSE 1 END)
        OVER (PARTITION BY tailnum ORDER BY departed_at ROWS UNBOUNDED PRECEDING) AS session FROM (SELECT *, departed_at - lag(departed_at)
        OVER (PARTITION BY tailnum ORDER BY departed_at) AS gap FROM flights WHERE tailnum IS NOT NULL AND departed_at IS NOT NULL))
        GROUP BY tailnum, session HAVING count(*) >= 4""",
    "destinations": "SELECT CAST(scheduled_at AS DATE) AS day, count(DISTINCT dest), count(DISTINCT tailnum) FROM flights GROUP BY day ORDER BY day",
    "slower_than_usual": """
        SELECT f.carrier, f.flight, f.origin, f.dest, f.scheduled_at, f.air_time, mean FROM flights AS f JOIN (SELECT origin, dest, avg(air_time) AS mean
        FROM flights GROUP BY origin, dest) AS usual ON f.origin = usual.origin AND f.dest = usual.dest AND f.air_time > 1.5 * mean""",
    "never_on_time": "SELECT DISTINCT dest FROM flights AS f WHERE NOT EXISTS (SELECT 1 FROM flights AS g WHERE g.dest = f.dest AND g.dep_delay <= 0)",
}


def shown(value):
    """As both can be compared: times as texts without a zero fraction, numbers rounded."""
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return round(float(value), 6) if isinstance(value, (int, float)) else value


@pytest.fixture(scope="module")
def flights():
    with duckdb.connect() as db:
        source = ROOT / "examples/data/flights-2013-01.ndjson.gz"
        db.execute(f"CREATE TABLE flights AS SELECT * REPLACE (CAST(scheduled_at AS TIMESTAMP) AS scheduled_at, CAST(departed_at AS TIMESTAMP) AS departed_at) FROM read_json('{source}', format = 'newline_delimited')")
        yield db


@pytest.mark.parametrize("parallelism", [1, 3])
@pytest.mark.parametrize("question", sorted(path.stem for path in FOLDER.glob("*.sql")))
def test_a_question_has_duckdbs_answer(flights, question, parallelism):
    expected = [tuple(map(shown, row)) for row in flights.execute(ANSWERS[question]).fetchall()]
    done = coulee("run", FOLDER / f"{question}.sql", "--output", "json", "--parallelism", parallelism, cwd=ROOT)
    found = [tuple(map(shown, json.loads(line).values())) for line in done.stdout.splitlines() if line.startswith("{")]
    assert expected, "the question has an answer"
    if "ORDER BY" in ANSWERS[question].split(")")[-1]:
        assert found == expected
    assert sorted(found) == sorted(expected)
