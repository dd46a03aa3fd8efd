"""Scripts as programs and people of other systems write them: very long conditions, other editors' files, preambles of Flink's client."""

import json

import pytest
from conftest import coulee

TABLES = """CREATE TABLE t (n INT, s STRING) WITH ('connector' = 'filesystem', 'path' = 'in.json', 'format' = 'json');
CREATE TABLE o (n INT) WITH ('connector' = 'blackhole');
"""


def rows(folder, script, *args, check=True):
    (folder / "in.json").write_text("".join(json.dumps({"n": n, "s": f"x{n}"}) + "\n" for n in range(10)))
    if isinstance(script, str):
        script = script.encode()
    (folder / "job.sql").write_bytes(script)
    return coulee("run", *args, "job.sql", "--output", "json", cwd=folder, check=check)


LONG = {
    "or": (" OR ".join(f"n = {i}" for i in range(5, 5_000)), [5, 6, 7, 8, 9]),
    "like": (" OR ".join(f"s LIKE '%{i}%'" for i in range(5, 5_000)), [5, 6, 7, 8, 9]),
    "and": (" AND ".join(f"n <> {i}" for i in range(5, 5_000)), [0, 1, 2, 3, 4]),
    "in": ("n IN (" + ", ".join(str(i) for i in range(5, 20_000)) + ")", [5, 6, 7, 8, 9]),
}


@pytest.mark.parametrize("name", LONG)
def test_a_condition_of_thousands_of_terms_runs(tmp_path, name):
    condition, expected = LONG[name]
    done = rows(tmp_path, f"{TABLES}SELECT n FROM t WHERE {condition}")
    assert sorted(json.loads(line)["n"] for line in done.stdout.splitlines()) == expected


def test_a_sum_of_thousands_of_terms_is_an_error_with_its_place(tmp_path):
    done = rows(tmp_path, f"{TABLES}SELECT\n{' + '.join(['n'] * 5_000)} FROM t", check=False)
    assert done.returncode == 2
    assert "job.sql:4:" in done.stderr and "more than 500 operations follow each other" in done.stderr
    # The line is cut around the place.
    assert max(len(line) for line in done.stderr.splitlines()) < 250


def test_no_statement_takes_the_server_with_it(server, tmp_path):
    deep = ["(" * 100_000 + "1" + ")" * 100_000, "NOT " * 100_000 + "TRUE", "n " + "IS NULL " * 100_000, " + ".join(["n"] * 100_000)]
    for expression in deep:
        (tmp_path / "deep.sql").write_text(f"{TABLES}INSERT INTO o SELECT {expression} FROM t;")
        refused = server.run("job", "submit", str(tmp_path / "deep.sql"), check=False)
        assert refused.returncode == 2 and "more than" in refused.stderr
        assert server.process.poll() is None
    for name, (condition, _) in LONG.items():
        script = TABLES.replace("'in.json'", f"'{tmp_path}/in.json'") + f"INSERT INTO o SELECT n FROM t WHERE {condition};"
        (tmp_path / f"{name}.sql").write_text(script)
        (tmp_path / "in.json").write_text('{"n": 1, "s": "x1"}\n')
        server.run("job", "submit", str(tmp_path / f"{name}.sql"))
    assert server.process.poll() is None
    assert all(name in server.run("job", "ls").stdout for name in LONG)


def test_a_script_of_another_editor_is_read(tmp_path):
    text = TABLES + "/* ;\n */ SELECT n AS `a;b`,\u00a0'--' AS s -- Tägliches; '\n\tFROM t WHERE n = 1"
    expected = [{"a;b": 1, "s": "--"}]
    for encoded in [
        ("\ufeff" + text.replace("\n", "\r\n")).encode(),
        ("\ufeff" + text.replace("\n", "\r\n")).encode("utf-16-le"),
        ("\ufeff" + text).encode("utf-16-be"),
    ]:
        done = rows(tmp_path, encoded)
        assert [json.loads(line) for line in done.stdout.splitlines()] == expected
    bad = rows(tmp_path, "\ufeffSHOW TABLES;\r\n\r\nSELECT nope FROM t;", check=False)
    assert bad.returncode == 2 and "job.sql:3:" in bad.stderr
    latin = rows(tmp_path, "SHOW TABLES;\n-- T\u00e4glich\n".encode("latin-1"), check=False)
    assert latin.returncode == 2 and "line 2 is not UTF-8" in latin.stderr


def test_a_preamble_of_flinks_client_is_answered(tmp_path):
    preamble = """SET 'sql-client.execution.result-mode' = 'tableau';
SET execution.runtime-mode = batch;
SET parallelism.default = 2;
SET 'table.local-time-zone' = 'UTC';
SET 'state.backend.type' = 'rocksdb';
USE CATALOG default_catalog;
"""
    done = rows(tmp_path, preamble + TABLES + "SELECT n FROM t WHERE n = 3;")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [{"n": 3}]
    for line, key in [(1, "sql-client.execution.result-mode"), (5, "state.backend.type")]:
        assert f"job.sql:{line}: '{key}'" in done.stderr
    for acts in ("execution.runtime-mode", "parallelism.default", "local-time-zone"):
        assert acts not in done.stderr


@pytest.mark.parametrize("script", ["", " ;\n", "-- nothing"])
def test_a_script_without_a_statement_is_an_error(tmp_path, script):
    done = rows(tmp_path, script, check=False)
    assert done.returncode == 2 and "there is no statement here" in done.stderr
    assert coulee("run", "-e", script, check=False).returncode == 2
