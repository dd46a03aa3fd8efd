"""`EXPLAIN ANALYZE`: a query that has run to its end, with what each operator did; the figures are counted by hand."""

import gzip
import json
import re

import pytest
from conftest import coulee

QUERY = "EXPLAIN ANALYZE SELECT k, SUM(n) AS total FROM '{}' WHERE n > 2 GROUP BY k"


def write(folder, text):
    (folder / "in.json").write_text("".join(json.dumps({"n": n, "k": n % 2}) + "\n" for n in range(10)))
    (folder / "job.sql").write_text(text.format(folder / "in.json"))
    return folder / "job.sql"


def operators(text):
    """Rows taken in and given on, by the end of the operator's name."""
    table = text[text.index("Run\n") :].splitlines()[2:-1]
    lines = [line.split() for line in table if not line.startswith("rejected:")]
    return {re.split(r"[:/]", line[0])[-1]: line[2:4] for line in lines}


@pytest.mark.parametrize("where", ["run", "server"])
def test_a_query_shows_what_its_operators_did(where, tmp_path, request):
    path = write(tmp_path, QUERY)
    if where == "run":
        text = coulee("run", path, cwd=tmp_path).stdout
    else:
        text = request.getfixturevalue("server").run("job", "submit", path).stdout
    assert text.startswith("Stream plan\n") and "GroupAggregate(groupBy=[k]" in text, text
    did = operators(text)
    assert did["in.json"] == ["10", "10"] and did["aggregate"][0] == "7" and did["final-rows"][1] == "2", text
    assert text.splitlines()[-1].startswith("read 10 rows in "), text
    assert '{"k"' not in text, "the rows of the query are dropped"


def test_a_query_that_has_no_end_is_refused(tmp_path):
    ran = coulee("run", write(tmp_path, "CREATE TABLE t (n BIGINT);\nEXPLAIN ANALYZE SELECT n FROM t"), cwd=tmp_path, check=False)
    assert ran.returncode == 2 and "job.sql:2:9: EXPLAIN ANALYZE runs a query to its end, and an input of this one has none" in ran.stderr, ran.stderr
    assert "write it as an INSERT" in ran.stderr


def test_a_query_that_fails_says_why_and_shows_no_plan(tmp_path):
    (tmp_path / "broken.csv.gz").write_bytes(gzip.compress(b"n\n1\n")[:-8] + b"\0" * 8)
    table = "CREATE TABLE t (n INT) WITH ('connector' = 'filesystem', 'path' = 'broken.csv.gz', 'format' = 'csv');\n"
    ran = coulee("run", write(tmp_path, table + "EXPLAIN ANALYZE SELECT n FROM t"), cwd=tmp_path, check=False)
    assert ran.returncode == 1 and "broken.csv.gz" in ran.stderr and not ran.stdout, (ran.stdout, ran.stderr)
