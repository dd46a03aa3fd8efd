"""Odd records and values of every type, end to end: what is read, what is rejected, and what comes back as it was written."""

import json

from conftest import coulee

TYPES = {
    "a": ("BOOLEAN", True),
    "b": ("TINYINT", -128),
    "c": ("BIGINT", -(2**63)),
    "d": ("DOUBLE", "NaN"),
    "e": ("DECIMAL(20, 4)", "1.5000"),
    "f": ("STRING", "x/y=z %5F"),
    "g": ("BYTES", "AP8vJWEgYg=="),
    "h": ("DATE", "1582-10-14"),
    "i": ("TIME(6)", "10:17:00.123456"),
    "j": ("TIMESTAMP(3)", "1969-12-31 23:59:59.999"),
    "k": ("TIMESTAMP(6)", "9999-12-31 23:59:59.999999"),
    "l": ("TIMESTAMP_LTZ(9)", "2024-05-01 12:00:00.123456789Z"),
}
COLUMNS = ", ".join(f"{name} {kind}" for name, (kind, _) in TYPES.items())


def run(folder, script, check=True):
    done = coulee("run", "-e", script, "--output", "json", cwd=folder, check=check)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")], done.stderr


def table(name, path, columns, options="'format' = 'json'", partitioned=""):
    return f"CREATE TABLE {name} ({columns}) {partitioned} WITH ('connector' = 'filesystem', 'path' = '{path}', {options});\n"


def test_values_of_every_type_come_back_through_every_format_and_as_partitions(tmp_path):
    record = {name: value for name, (_, value) in TYPES.items()} | {"n": 1}
    (tmp_path / "in.json").write_text(json.dumps(record) + "\n")
    # As the terminal shows them: bytes in hexadecimal digits, a timestamp with a T.
    expected = record | {"e": 1.5, "g": "00ff2f25612062"} | {name: record[name].replace(" ", "T") for name in "jkl"}
    columns, names = f"n INT, {COLUMNS}", ", ".join(TYPES)
    for kind in ("json", "csv", "parquet", "partitions"):
        options = "'format' = 'json'" if kind == "partitions" else f"'format' = '{kind}'"
        partitioned = f"PARTITIONED BY ({names})" if kind == "partitions" else ""
        delivered = table("t", f"out/{kind}", columns, options, partitioned)
        run(tmp_path, table("src", "in.json", columns) + delivered + f"INSERT INTO t SELECT n, {names} FROM src;")
        rows, _ = run(tmp_path, delivered + "SELECT * FROM t;")
        assert rows == [expected], kind


def test_an_epoch_in_nanoseconds_does_not_end_the_job_or_move_the_watermark(tmp_path):
    times = [1714564800000, 1714564800000000000, 1714564801000, -(2**63), 1714564802000]
    (tmp_path / "in.json").write_text("".join(f'{{"at":{time}}}\n' for time in times))
    for columns in ("`at` TIMESTAMP(3), ts AS `at`", "`at` BIGINT, ts AS TO_TIMESTAMP_LTZ(`at`, 3)", "ts TIMESTAMP(9)"):
        if columns.startswith("ts"):
            (tmp_path / "in.json").write_text("".join(f'{{"ts":{time}}}\n' for time in times))
        script = table("t", "in.json", f"{columns}, WATERMARK FOR ts AS ts - INTERVAL '5' SECOND") + """
            SELECT COUNT(*) AS n FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' HOUR)) GROUP BY window_start, window_end;"""
        rows, said = run(tmp_path, script)
        assert rows == [{"n": 3}], (columns, said)
        assert "2" in said and ("rejected" in said or "no event time" in said)


def test_json_files_as_people_write_them(tmp_path):
    (tmp_path / "array.json").write_text('\ufeff[\n  {"id": 1},\n  {\n    "id": 2\n  }\n]\n')
    (tmp_path / "lines.json").write_text('\r\n  \r\n{"id":3}\r\n[{"id":4},{"id":5}]\r\n{"id":"six"}\r\n' + "[" * 100_000 + "\r\n")
    for path, expected, rejected in (("array.json", [1, 2], 0), ("lines.json", [3, 4, 5], 2)):
        rows, said = run(tmp_path, table("t", path, "id INT") + "SELECT id FROM t;")
        assert sorted(row["id"] for row in rows) == expected
        assert (f"{rejected} records" in said or "rejected" in said) == (rejected > 0), said


def test_numbers_that_json_does_not_have_are_not_null(tmp_path):
    (tmp_path / "in.csv").write_text("x\nNaN\n-Infinity\n1.5\n1e400\n")
    rows, _ = run(tmp_path, table("t", "in.csv", "x DOUBLE", "'format' = 'csv'") + "SELECT x FROM t;")
    assert [row["x"] for row in rows] == ["NaN", "-Infinity", 1.5]
