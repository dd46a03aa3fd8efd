"""Queries over files that nobody has declared: DuckDB reads the same files and is the oracle."""

import gzip
import json
import re
import subprocess

import duckdb
import pytest
from conftest import BINARY, coulee

# DuckDB's types, as DESCRIBE 'file' prints them here.
TYPES = {"VARCHAR": "STRING", "TIMESTAMP": "TIMESTAMP", "TIMESTAMP WITH TIME ZONE": "TIMESTAMP_LTZ", "JSON": "STRING"}

FILES = {
    "plain.csv": "a,b,c\n1,x,2.5\n2,y,3\n",
    "semicolon.csv": "a;b\n1,5;x\n2,5;y\n",
    "tab.tsv": "a\tb\n1\t2024-01-01\n2\t2024-01-02\n",
    "pipe.csv": "a|b\ntrue|2024-01-01 10:00:00\nfalse|2024-01-02 11:30:00\n",
    "headless.csv": "1,x\n2,y\n3,z\n",
    "all_text.csv": "a,b\nx,y\nz,w\n",
    "quoted.csv": 'name,"the, text",n\n"A ""b""","one, two",1\n"two\nlines",z,2\n',
    "bom.csv": "\ufeffa,b\n1,x\n",
    "blank_lines.csv": "a,b\n\n1,x\n\n2,y\n",
    "nulls.csv": "a,b,c\n1,,x\n,,y\n3,,\n",
    "mixed.csv": "a,b\n1,1\n2.5,x\n-3,3\n",
    "crlf.csv": "a,b\r\n1,x\r\n2,y\r\n",
    "one_column.csv": "a\n1\n2\n",
    "plain.ndjson": '{"a":1,"b":"x","c":true}\n{"a":2,"b":null,"c":false}\n',
    "mixed.ndjson": '{"a":1,"b":1.5}\n{"a":2.5,"b":2}\n{"b":-1e3}\n',
    "missing.jsonl": '{"a":1}\n{"b":"2024-01-01","a":2}\n',
    "nested.json": '{"r":{"x":1,"y":"q"},"l":[1,2],"e":[]}\n{"r":{"x":2,"y":null},"l":[],"e":[]}\n',
    "array.json": '[\n {"a":1,"b":"x"},\n {"a":2,"b":"y"}\n]\n',
    "bom.json": '\ufeff{"a":1}\n\n{"a":2}\n',
    "times.json": '{"t":"2024-01-01 10:00:00","d":"2024-01-01"}\n{"t":"2024-01-02 11:00:00","d":"1969-12-31"}\n',
}


def rows(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


def comparable(value):
    """Times as texts in one form, numbers as numbers."""
    if hasattr(value, "isoformat"):
        value = value.isoformat(sep=" ") if hasattr(value, "hour") else value.isoformat()
    if isinstance(value, str):
        return re.sub(r"(?<=\d)T(?=\d)", " ", value).removesuffix(".000")
    if isinstance(value, dict):
        return {key: comparable(part) for key, part in value.items()}
    if isinstance(value, list):
        return [comparable(part) for part in value]
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def duck(folder, query):
    with duckdb.connect() as db:
        db.execute(f"SET file_search_path = '{folder}'")
        found = db.execute(query)
        names = [column[0] for column in found.description]
        return [{name: comparable(value) for name, value in zip(names, row)} for row in found.fetchall()]


def ours(folder, query, **more):
    done = coulee("run", "-e", query, "--output", "json", cwd=folder, **more)
    return [comparable(row) for row in rows(done.stdout)]


def sorted_rows(found):
    return sorted(json.dumps(row, sort_keys=True) for row in found)


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_the_rows_that_duckdb_reads(tmp_path, name):
    (tmp_path / name).write_text(FILES[name], newline="")
    expected = duck(tmp_path, f"FROM '{name}'")
    assert expected
    assert sorted_rows(ours(tmp_path, f"SELECT * FROM '{name}'")) == sorted_rows(expected)


@pytest.mark.parametrize("name", ["plain.csv", "tab.tsv", "pipe.csv", "headless.csv", "mixed.csv", "plain.ndjson", "times.json", "missing.jsonl", "mixed.ndjson"])
def test_columns_have_the_types_that_duckdb_finds(tmp_path, name):
    (tmp_path / name).write_text(FILES[name], newline="")
    with duckdb.connect() as db:
        described = db.execute(f"DESCRIBE FROM '{tmp_path / name}'").fetchall()
    expected = [(column, TYPES.get(kind, kind)) for column, kind, *_ in described]
    ddl = coulee("run", "-e", f"DESCRIBE '{name}'", cwd=tmp_path).stdout
    columns = [line.strip().rstrip(",").split() for line in ddl.split("(\n")[1].split("\n)")[0].splitlines()]
    assert [(column.strip("`"), kind.split("(")[0]) for column, kind in columns] == expected


def test_described_ddl_declares_the_same_table(tmp_path):
    (tmp_path / "my events.json").write_text('{"id":1,"group":{"a b":1,"order":[true]},"x`y":2.5}\n')
    ddl = coulee("run", "-e", "DESCRIBE 'my events.json'", cwd=tmp_path).stdout
    assert ddl.startswith("CREATE TABLE my_events (")
    done = coulee("run", "-e", f"{ddl} SELECT * FROM my_events", "--output", "json", cwd=tmp_path)
    assert rows(done.stdout) == rows(coulee("run", "-e", "SELECT * FROM 'my events.json'", "--output", "json", cwd=tmp_path).stdout)
    assert rows(done.stdout) == [{"id": 1, "group": {"a b": 1, "order": [True]}, "x`y": 2.5}]


def test_what_was_inferred_is_said_once_on_stderr(tmp_path):
    (tmp_path / "a.csv").write_text("n,s\n1,x\n")
    done = coulee("run", "-e", "SELECT n FROM 'a.csv'; SELECT s FROM 'a.csv'", cwd=tmp_path)
    assert done.stderr.count("'a.csv' (csv) is (n BIGINT, s STRING), inferred from 1 row") == 1
    assert "inferred" not in done.stdout


def test_parquet_has_the_types_of_its_footer(tmp_path):
    made = "SELECT 1::INTEGER AS i, 2::BIGINT AS b, 1.50::DECIMAL(9, 2) AS d, TIMESTAMP '2024-01-01 10:00:00.123456' AS t, DATE '2024-01-01' AS day, [1, 2] AS l, {'x': 1, 'y': 'z'} AS r, map {'k': 1} AS m, 'text' AS s, 7::UTINYINT AS u"
    duckdb.execute(f"COPY ({made}) TO '{tmp_path}/x.parquet' (FORMAT parquet)")
    ddl = " ".join(coulee("run", "-e", "DESCRIBE 'x.parquet'", cwd=tmp_path).stdout.split())
    ddl = ddl.replace(" NOT NULL", "")
    for column in ["i INT,", "b BIGINT,", "d DECIMAL(9, 2),", "t TIMESTAMP(6),", "`day` DATE,", "l ARRAY<INT>,", "r ROW<x INT, y STRING>,", "m MAP<STRING, INT>,", "s STRING,", "u SMALLINT"]:
        assert column in ddl, column
    assert rows(coulee("run", "-e", "SELECT i, b, s, l, r, m, u FROM 'x.parquet'", "--output", "json", cwd=tmp_path).stdout) == [
        {"i": 1, "b": 2, "s": "text", "l": [1, 2], "r": {"x": 1, "y": "z"}, "m": {"k": 1}, "u": 7}
    ]


def test_folders_patterns_and_compressed_files(tmp_path):
    (tmp_path / "logs").mkdir()
    for part in range(3):
        lines = "".join(f'{{"part":{part},"n":{n}}}\n' for n in range(100))
        with gzip.open(tmp_path / f"logs/{part}.json.gz", "wt") as file:
            file.write(lines)
    query = "SELECT part, COUNT(*) AS c, SUM(n) AS s FROM '{}' GROUP BY part"
    expected = sorted_rows(duck(tmp_path, query.format("logs/*.json.gz")))
    for place in ["logs", "logs/", "logs/*.json.gz", f"{tmp_path}/logs/**"]:
        assert sorted_rows(ours(tmp_path, query.format(place))) == expected, place


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", ["-", "/dev/stdin"])
def test_standard_input(tmp_path, name, compressed):
    text = "".join(f'{{"n":{n}}}\n' for n in range(200_000)).encode()
    sent = gzip.compress(text) if compressed else text
    done = subprocess.run([BINARY, "run", "-e", f"SELECT COUNT(*) AS c, SUM(n) AS s FROM '{name}'", "--output", "json"], input=sent, capture_output=True, cwd=tmp_path, timeout=60, check=True)
    assert rows(done.stdout.decode()) == [{"c": 200_000, "s": 200_000 * 199_999 // 2}]


def test_in_joins_views_subqueries_and_insert(tmp_path):
    (tmp_path / "a.csv").write_text("id,v\n1,10\n2,20\n3,30\n")
    (tmp_path / "b.json").write_text('{"id":1,"w":"x"}\n{"id":3,"w":"y"}\n')
    query = "WITH big AS (SELECT * FROM 'a.csv' WHERE v > 5) SELECT big.id, v, w FROM big LEFT JOIN 'b.json' AS b ON big.id = b.id WHERE big.id IN (SELECT id FROM 'a.csv')"
    expected = sorted_rows(duck(tmp_path, query))
    assert sorted_rows(ours(tmp_path, query)) == expected
    assert sorted_rows(ours(tmp_path, f"CREATE VIEW v AS {query}; SELECT * FROM v")) == expected
    assert duck(tmp_path, "SELECT a.id, w FROM 'a.csv' JOIN 'b.json' ON a.id = b.id ORDER BY 1") == ours(tmp_path, "SELECT a.id, w FROM 'a.csv' JOIN 'b.json' ON a.id = b.id ORDER BY 1")
    out = "CREATE TABLE o (id BIGINT, v BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');"
    coulee("run", "-e", f"{out} INSERT INTO o SELECT id, v FROM 'a.csv'", cwd=tmp_path)
    assert sorted_rows(ours(tmp_path, "SELECT * FROM 'out'")) == sorted_rows(duck(tmp_path, "FROM 'a.csv'"))
    assert "Scan(table=a.csv)" in coulee("run", "-e", "EXPLAIN SELECT * FROM 'a.csv'", cwd=tmp_path).stdout


def test_a_later_row_that_does_not_fit_is_rejected_and_says_how_to_give_the_type(tmp_path):
    lines = [f'{{"a":{n}}}\n' for n in range(30_000)] + ['{"a":"x"}\n']
    (tmp_path / "big.json").write_text("".join(lines))
    done = coulee("run", "-e", "SELECT COUNT(a) AS n FROM 'big.json'", "--output", "json", cwd=tmp_path)
    assert rows(done.stdout) == [{"n": 30_000}]
    assert "field 'a': expected BIGINT, found text \"x\"" in done.stderr
    assert "DESCRIBE 'big.json' prints them as CREATE TABLE, to be edited" in done.stderr


def test_ragged_records_are_rejected_and_counted(tmp_path):
    (tmp_path / "r.csv").write_text("a,b\n1,x\n2\n3,y,z\n4,w\n")
    done = coulee("run", "-e", "SELECT a FROM 'r.csv' ORDER BY a", "--output", "json", cwd=tmp_path)
    assert rows(done.stdout) == [{"a": 1}, {"a": 4}]
    assert "2 records of 'r.csv' were rejected" in done.stderr


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("empty.csv", "", "there is no record to infer columns from"),
        ("empty.json", "\n\n", "there is no record to infer columns from"),
        ("scalars.json", "1\n2\n", "none of the first 2 records is a JSON object"),
        ("twice.csv", "a,a\n1,x\n", "the header has the column 'a' twice"),
        ("not.parquet", "PAR0", "is not a readable Parquet file"),
        ("empty.parquet", "", "is empty, and no Parquet file"),
    ],
)
def test_what_has_no_columns_is_refused_at_its_place(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    done = coulee("run", "-e", f"SELECT 1 AS one\nFROM '{name}'", cwd=tmp_path, check=False)
    assert done.returncode != 0
    assert message in done.stderr
    assert "command-line:2:6" in done.stderr


def test_a_view_with_a_name_twice_and_windows_without_end_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("id,v\n1,10\n")
    view = "CREATE VIEW w AS SELECT * FROM 'a.csv' AS x JOIN 'a.csv' AS y ON x.id = y.id"
    done = coulee("run", "-e", f"{view}; SELECT 1 AS one FROM 'a.csv'", cwd=tmp_path, check=False)
    assert done.returncode != 0 and "view 'w' has the column 'id' twice" in done.stderr and "command-line:1:13" in done.stderr
    table = "CREATE TABLE t (ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH ('connector' = 'filesystem', 'path' = 'a.csv', 'format' = 'csv');"
    hop = "SELECT window_end, COUNT(*) AS n FROM HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '0.001' SECOND, INTERVAL '1' HOUR) GROUP BY window_start, window_end"
    done = coulee("run", "-e", f"{table}\n{hop}", cwd=tmp_path, check=False)
    assert done.returncode != 0 and "each row would be in 3600000 windows" in done.stderr and "command-line:2:" in done.stderr


@pytest.mark.parametrize("column", ["l", "r"])
def test_the_maximum_of_what_has_no_order_is_refused(tmp_path, column):
    (tmp_path / "n.json").write_text('{"l":[1],"r":{"x":1}}\n')
    done = coulee("run", "-e", f"SELECT\n MAX({column}) AS m FROM 'n.json'", cwd=tmp_path, check=False)
    assert done.returncode != 0 and "MAX orders values" in done.stderr and "command-line:2:" in done.stderr
    assert coulee("run", "-e", "SELECT MAX(n.r.x) AS m FROM 'n.json' AS n", cwd=tmp_path).stdout.split()[-1] == "1"


@pytest.mark.parametrize("query", ["SELECT r.x FROM 'n.json'", "SELECT DISTINCT n.r.x FROM 'n.json' AS n", "SELECT DISTINCT r.x FROM 'n.json' ORDER BY x"])
def test_a_field_names_its_column(tmp_path, query):
    (tmp_path / "n.json").write_text('{"r":{"x":1}}\n')
    assert rows(coulee("run", "-e", query, "--output", "json", cwd=tmp_path).stdout) == [{"x": 1}]


def test_the_text_of_a_view_is_shown_whole(tmp_path):
    (tmp_path / "a.csv").write_text("id\n1\n")
    shown = coulee("run", "-e", "CREATE VIEW v AS SELECT id FROM 'a.csv' WHERE id > 0; SHOW CREATE VIEW v", cwd=tmp_path).stdout
    assert "CREATE VIEW v AS SELECT id FROM 'a.csv' WHERE id > 0" in shown


def test_files_that_are_not_there_and_files_of_several_formats(tmp_path):
    done = coulee("run", "-e", "SELECT * FROM 'nope.csv'", cwd=tmp_path, check=False)
    assert "command-line:1:15" in done.stderr and "nope.csv: No such file" in done.stderr
    (tmp_path / "a.csv").write_text("n\n1\n")
    (tmp_path / "b.json").write_text('{"n":1}\n')
    done = coulee("run", "-e", "SELECT * FROM '.'", cwd=tmp_path, check=False)
    assert "has files of several formats" in done.stderr
