"""Bad input: each gets an error that names the place, what was expected, and what to do; it never panics."""

import os

import pytest
from conftest import coulee

FLIGHTS = """CREATE TABLE flights (
  departed_at TIMESTAMP(3),
  carrier STRING,
  dep_delay INT,
  WATERMARK FOR departed_at AS departed_at - INTERVAL '15' MINUTE
) WITH ('connector' = 'filesystem', 'path' = 'in.ndjson', 'format' = 'json');
"""
GOOD = '{"departed_at":"2013-01-01 10:00:00","carrier":"UA","dep_delay":%d}\n'

CASES = {
    "a misspelt statement": ("CREAT TABLE t (x INT);", ["job.sql:1:1", "^"]),
    "an unknown option": (
        FLIGHTS.replace("'path'", "'pth'") + "SELECT * FROM flights;",
        ["table 'flights'", "unknown option 'pth'", "did you mean 'path'"],
    ),
    "an unknown connector": (FLIGHTS.replace("'filesystem'", "'filesistem'"), ["did you mean 'filesystem'"]),
    "an unknown format": (FLIGHTS.replace("'json'", "'xml'") + "SELECT * FROM flights;", ["'xml'", "json"]),
    "an unknown table": (FLIGHTS + "SELECT * FROM fligts;", ["job.sql:7:15", "fligts", "flights", "^"]),
    "an unknown column": (FLIGHTS + "SELECT carier FROM flights;", ["job.sql:7:8", "carier", "carrier", "^"]),
    "an unknown function": (FLIGHTS + "SELECT uper(carrier) FROM flights;", ["job.sql:7:8", "uper", "upper", "^"]),
    "a watermark on a text": (
        FLIGHTS.replace("WATERMARK FOR departed_at AS departed_at", "WATERMARK FOR carrier AS carrier"),
        ["job.sql:5:", "carrier", "TIMESTAMP"],
    ),
    "updates into files": (
        "SET 'execution.runtime-mode' = 'streaming';\n"
        + FLIGHTS
        + "CREATE TABLE counts (carrier STRING, n BIGINT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');\n"
        + "INSERT INTO counts SELECT carrier, COUNT(*) FROM flights GROUP BY carrier;",
        ["job.sql:9", "rows that are appended", "window"],
    ),
    "an order without an end": (
        "CREATE TABLE s (carrier STRING) WITH ('connector' = 'stream', 'format' = 'json');\nSELECT * FROM s ORDER BY carrier;",
        ["job.sql:2", "ORDER BY"],
    ),
    "a missing file": (FLIGHTS.replace("in.ndjson", "nowhere.ndjson") + "SELECT * FROM flights;", ["nowhere.ndjson"]),
}


def run(folder, script, *args, lines=3, **kwargs):
    (folder / "job.sql").write_text(script)
    if not (folder / "in.ndjson").exists():
        (folder / "in.ndjson").write_text("".join(GOOD % n for n in range(lines)))
    return coulee("run", "--data-dir", folder / "data", *args, "job.sql", cwd=folder, **kwargs)


@pytest.mark.parametrize("name", CASES)
def test_an_error_names_the_place_and_what_to_do(tmp_path, name):
    script, words = CASES[name]
    done = run(tmp_path, script, check=False)
    assert done.returncode in (1, 2), done.stdout + done.stderr
    for word in words:
        assert word in done.stderr, f"{word!r} is missing in:\n{done.stderr}"
    assert "panicked" not in done.stderr


SELECT = "SELECT carrier, dep_delay FROM flights;"


@pytest.mark.parametrize(
    "line", ['{"departed_at":"2013-01-01 10:00:00","carrier":"UA","dep_del', '{"carrier":"UA","dep_delay":"soon"}']
)
def test_a_malformed_record_is_kept_with_its_reason(tmp_path, line):
    (tmp_path / "in.ndjson").write_text(GOOD % 1 + line + "\n" + GOOD % 2)
    done = run(tmp_path, FLIGHTS + SELECT, "--output", "csv")
    assert [row for row in done.stdout.splitlines() if row.startswith("UA")] == ["UA,1", "UA,2"]
    assert "1 record" in done.stderr and "rejected" in done.stderr
    kept = coulee("tail", "--data-dir", tmp_path / "data", "flights_dead_letter", "--from", "earliest", "--limit", "1")
    assert "in.ndjson:2" in kept.stdout and '"reason"' in kept.stdout


def test_on_error_fail_names_file_and_line(tmp_path):
    (tmp_path / "in.ndjson").write_text(GOOD % 1 + "{oops\n")
    script = FLIGHTS.replace("'format' = 'json'", "'format' = 'json', 'format.on-error' = 'fail'") + SELECT
    done = run(tmp_path, script, check=False)
    assert done.returncode == 1
    assert "in.ndjson:2" in done.stderr


SINK = """CREATE TABLE out (carrier STRING, dep_delay INT)
WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'parquet');
INSERT INTO out SELECT carrier, dep_delay FROM flights;
"""


def test_a_path_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "out").write_text("a file where a folder should be")
    done = run(tmp_path, FLIGHTS + SINK, check=False)
    assert done.returncode in (1, 2) and str(tmp_path / "out") in done.stderr


def test_a_data_folder_of_a_newer_version_is_refused(tmp_path):
    run(tmp_path, FLIGHTS + SINK)
    marker = tmp_path / "data/coulee.json"
    marker.write_text(marker.read_text().replace("1", "99"))
    done = run(tmp_path, FLIGHTS + SINK, check=False)
    assert done.returncode in (1, 2) and "newer" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_loses_nothing(tmp_path):
    """The data folder is on a disk of 24 MiB that fills up; with space again, the job goes on to the right result."""
    import subprocess

    disk = tmp_path / "data"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", disk], capture_output=True).returncode != 0:
        pytest.skip("no mount here")
    try:
        wide = '{"departed_at":"2013-01-01 10:00:00","carrier":"%064d","dep_delay":%d}\n'
        (tmp_path / "in.ndjson").write_text("".join(wide % (n, n) for n in range(200_000)))
        script = FLIGHTS + "CREATE TABLE copy (carrier STRING, dep_delay INT);\nINSERT INTO copy SELECT carrier, dep_delay FROM flights;\n"
        done = run(tmp_path, script, check=False)
        assert done.returncode == 1, done.stderr
        assert "space" in done.stderr.lower()
        assert "panicked" not in done.stderr
        subprocess.run(["mount", "-o", "remount,size=400m", disk], check=True)
        run(tmp_path, script)
        tailed = coulee("tail", "--data-dir", disk, "copy", "--from", "earliest", "--limit", "1000000")
        import json

        found = sorted(json.loads(line)["dep_delay"] for line in tailed.stdout.splitlines())
        assert found == list(range(200_000))
    finally:
        subprocess.run(["umount", "-l", disk])
