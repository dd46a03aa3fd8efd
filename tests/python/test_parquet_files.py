"""Parquet files of other writers: what pyarrow writes for pandas and Spark, read into tables of other types, and back.

Expected rows are those of DuckDB, or computed here by hand.
"""

import datetime as dt
import decimal
import json

import pyarrow as pa
import pyarrow.parquet as pq
from conftest import coulee

D = decimal.Decimal
UTC = dt.timezone.utc


def rows(folder, columns, select="*", check=True):
    """What the binary reads of `in/*.parquet` with these columns, by row; and what it says on the standard error."""
    script = f"""CREATE TABLE t ({columns}) WITH ('connector' = 'filesystem', 'path' = 'in/*.parquet', 'format' = 'parquet');
        SELECT {select} FROM t;"""
    done = coulee("run", "-e", script, "--output", "json", "--data-dir", folder / "data", cwd=folder, check=check)
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def write(folder, name, columns, **options):
    (folder / "in").mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), folder / "in" / f"{name}.parquet", **options)


def test_timestamps_of_pandas_and_spark(tmp_path):
    times = [dt.datetime(2024, 5, 1, 12, 0, 0, 123456), dt.datetime(1582, 10, 4, 1), dt.datetime(9999, 12, 31, 23, 59, 59, 999999), None]
    write(tmp_path, "a", {
        "n": [1, 2, 3, 4],
        "micros": pa.array(times, pa.timestamp("us")),
        "zoned": pa.array(times, pa.timestamp("us", "Europe/Berlin")),
    })
    got, _ = rows(tmp_path, "n INT, micros TIMESTAMP(6), zoned TIMESTAMP_LTZ(3)", "n, CAST(micros AS STRING) AS m, CAST(zoned AS STRING) AS z")
    got.sort(key=lambda row: row["n"])

    def instant(text):
        return text and dt.datetime.fromisoformat(text.rstrip("Z"))

    assert [instant(row.get("m")) for row in got] == times
    assert [instant(row.get("z")) for row in got] == [time and time.replace(microsecond=time.microsecond // 1000 * 1000) for time in times]


def test_int96_of_spark(tmp_path):
    times = [dt.datetime(2024, 5, 1, 12, 0, 0, 123456), dt.datetime(1969, 12, 31, 23, 59, 59, 999999)]
    write(tmp_path, "a", {"n": [1, 2], "at": pa.array(times, pa.timestamp("us")), "list": pa.array([[times[0]], []], pa.list_(pa.timestamp("us")))},
          use_deprecated_int96_timestamps=True)
    assert "int96" in str(pq.ParquetFile(tmp_path / "in/a.parquet").schema)
    got, _ = rows(tmp_path, "n INT, at TIMESTAMP(6), list ARRAY<TIMESTAMP(6)>")
    got.sort(key=lambda row: row["n"])
    assert [row["at"] for row in got] == ["2024-05-01T12:00:00.123456", "1969-12-31T23:59:59.999999"]
    assert [row["list"] for row in got] == [["2024-05-01T12:00:00.123456"], []]


def test_columns_that_other_files_have_or_lack(tmp_path):
    write(tmp_path, "old", {"id": pa.array([1], pa.int64()), "gone": ["x"]})
    write(tmp_path, "new", {"later": ["y"], "nothing": pa.nulls(1), "ID": pa.array([2.0], pa.float64())})
    got, _ = rows(tmp_path, "id INT, later STRING, nothing DECIMAL(10, 2)")
    assert sorted(got, key=lambda row: row["id"]) == [{"id": 1, "later": None, "nothing": None}, {"id": 2, "later": "y", "nothing": None}]


def test_values_that_do_not_fit_are_rejected_and_the_others_are_rows(tmp_path):
    write(tmp_path, "a", {
        "id": [1, 2, 3, 4],
        "small": pa.array([1, 300, 3, 4], pa.int64()),
        "text": pa.array([b"ok", b"ok", b"\xff", b"ok"], pa.binary()),
        "price": pa.array([D("2.345"), D("1.000"), D("1.000"), D("99999.999")], pa.decimal128(10, 3)),
    })
    got, said = rows(tmp_path, "id INT, small TINYINT, text STRING, price DECIMAL(5, 2)", "id, small, text, CAST(price AS STRING) AS price")
    assert got == [{"id": 1, "small": 1, "text": "ok", "price": "2.35"}]
    assert "3" in said and "rejected" in said
    kept = coulee("tail", "t_dead_letter", "--data-dir", tmp_path / "data", "--from", "earliest", cwd=tmp_path).stdout
    assert kept.count("a.parquet:row") == 3
    assert "expected TINYINT, found BIGINT 300" in kept and "DECIMAL(5, 2)" in kept


def test_numbers_of_other_kinds(tmp_path):
    write(tmp_path, "a", {
        "u": pa.array([2**32 - 1], pa.uint32()),
        "f": pa.array([7.0], pa.float64()),
        "d": pa.array([D("12.50")], pa.decimal128(30, 2)),
        "x": pa.array([2.345], pa.float64()),
        "wide": pa.array([D("1.5")], pa.decimal256(50, 1)),
        "half": pa.array([1], pa.int8()),
    })
    got, _ = rows(tmp_path, "u BIGINT, f INT, d DOUBLE, x DECIMAL(10, 2), wide DECIMAL(10, 1), half DOUBLE",
                  "u, f, d, CAST(x AS STRING) AS x, CAST(wide AS STRING) AS wide, half")
    assert got == [{"u": 2**32 - 1, "f": 7, "d": 12.5, "x": "2.35", "wide": "1.5", "half": 1.0}]


def test_texts_of_any_layout(tmp_path):
    texts = ["a", None, "a longer text that no view holds inline"]
    write(tmp_path, "a", {
        "n": [1, 2, 3],
        "large": pa.array(texts, pa.large_string()),
        "coded": pa.array(texts).dictionary_encode(),
        "viewed": pa.array(texts, pa.string_view()),
        "fixed": pa.array([b"abc", None, b"def"], pa.binary(3)),
    })
    got, _ = rows(tmp_path, "n INT, large STRING, coded STRING, viewed STRING, fixed STRING")
    got.sort(key=lambda row: row["n"])
    for column in ("large", "coded", "viewed"):
        assert [row.get(column) for row in got] == texts
    assert [row.get("fixed") for row in got] == ["abc", None, "def"]


def test_lists_maps_and_rows(tmp_path):
    pair = pa.struct([("B", pa.string()), ("a", pa.int64())])
    columns = {
        "n": [1, 2],
        "list": pa.array([[1, None, 3], None], pa.large_list(pa.int64())),
        "map": pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int64())),
        "pairs": pa.array([[{"key": "k", "value": 2}], None], pa.list_(pa.struct([("key", pa.string()), ("value", pa.int64())]))),
        "row": pa.array([{"B": "x", "a": 1}, None], pair),
    }
    table = "n INT, list ARRAY<INT>, map MAP<STRING, INT>, pairs MAP<STRING, BIGINT>, `row` ROW<a INT, b STRING, c INT>"
    expected = [
        {"n": 1, "list": [1, None, 3], "map": {"k": 1}, "pairs": {"k": 2}, "row": {"a": 1, "b": "x", "c": None}},
        {"n": 2, "list": None, "map": {}, "pairs": None, "row": None},
    ]
    for name, options in {"compliant": {}, "legacy": {"use_compliant_nested_type": False}}.items():
        (tmp_path / name).mkdir()
        write(tmp_path / name, "a", columns, **options)
        got, _ = rows(tmp_path / name, table)
        assert sorted(got, key=lambda row: row["n"]) == expected, name


def test_a_column_of_another_kind_is_refused(tmp_path):
    write(tmp_path, "a", {"id": ["x"]})
    got, said = rows(tmp_path, "id INT", check=False)
    assert got == [] and "column 'id' is STRING in the file and INT in the table" in said


def test_what_is_written_is_read_by_pyarrow(tmp_path):
    (tmp_path / "in.json").write_text('{"n":1,"six":"2024-05-01 12:00:00.1234567","nine":"2024-05-01 12:00:00.123456789","t":"10:17:00.123456"}\n')
    script = """CREATE TABLE src (n INT, six TIMESTAMP(6), nine TIMESTAMP_LTZ(9), t TIME(6)) WITH ('connector' = 'filesystem', 'path' = 'in.json', 'format' = 'json');
        CREATE TABLE dst (n INT, six TIMESTAMP(6), nine TIMESTAMP_LTZ(9), t TIME(6)) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'parquet');
        INSERT INTO dst SELECT * FROM src;"""
    coulee("run", "-e", script, "--data-dir", tmp_path / "data", cwd=tmp_path)
    table = pq.read_table(next((tmp_path / "out").rglob("*.parquet")))
    assert table["six"].type == pa.timestamp("us") and table["nine"].type.unit == "ns"
    assert table["six"].cast(pa.int64()).to_pylist() == [1714564800123456]
    assert table["nine"].cast(pa.int64()).to_pylist() == [1714564800123456789]
    assert table["t"].to_pylist() == [dt.time(10, 17, 0, 123456)]
