"""A script that is edited between runs, with the real binary: state is used by the operator whose it is, or refused at the statement."""

import json

import pytest
from conftest import wait_until
from hours import shown

DEFINITIONS = """CREATE TABLE readings (at TIMESTAMP(3), sensor STRING, value BIGINT, WATERMARK FOR at AS at - INTERVAL '0' SECOND)
WITH ('scan.watermark.idle-timeout' = '100 ms');
CREATE TABLE minutes (at TIMESTAMP(3), sensor STRING, n BIGINT);
CREATE TABLE days (at TIMESTAMP(3), n BIGINT);
CREATE TABLE copies (sensor STRING, value BIGINT);
"""
MINUTES = """INSERT INTO minutes SELECT window_start, sensor, COUNT(*)
FROM TABLE(TUMBLE(TABLE readings, DESCRIPTOR(at), INTERVAL '1' MINUTE)) WHERE value > 0
GROUP BY window_start, window_end, sensor;
"""
DAYS = """INSERT INTO days SELECT window_start, COUNT(*)
FROM TABLE(TUMBLE(TABLE readings, DESCRIPTOR(at), INTERVAL '1' DAY)) GROUP BY window_start, window_end;
"""
COPIES = "INSERT INTO copies SELECT sensor, value FROM readings;\n"


def statement_set(*inserts):
    return DEFINITIONS + "EXECUTE STATEMENT SET BEGIN\n" + "".join(inserts) + "END;"


def submit(server, folder, text, *options, check=True):
    (folder / "counts.sql").write_text(text)
    return server.run("job", "submit", folder / "counts.sql", *options, check=check)


def produce(server, *times, value=1):
    rows = [{"at": f"2024-05-01 {at}", "sensor": "a", "value": value} for at in times]
    server.run("produce", "readings", input="".join(json.dumps(row) + "\n" for row in rows))


def read(server):
    return shown(server, "counts")["progress"]["rows_read"]


def tailed(server, stream):
    return [json.loads(line) for line in server.run("tail", stream, "--from", "earliest").stdout.splitlines()]


def stop_with_open_windows(server, folder, text):
    """Runs a script until three rows are in its open windows, and stops it."""
    submit(server, folder, text)
    produce(server, "10:00:01", "10:00:02", "10:00:03")
    wait_until(lambda: read(server) == 3)
    server.run("job", "stop", "counts")


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        ("'1' MINUTE", "'2' MINUTE", "the window was TUMBLE(readings.at, 1 min) and is TUMBLE(readings.at, 2 min)"),
        ("value > 0", "value > 1", "the input was readings WHERE (readings.value > 0) and is readings WHERE (readings.value > 1)"),
        ("COUNT(*)", "SUM(value)", "the aggregates was count(*): Int64 and is sum(readings.value): Int64"),
    ],
)
def test_a_query_that_means_something_else_is_refused_where_it_stands(server, tmp_path, before, after, change):
    text = statement_set(DAYS, MINUTES)
    stop_with_open_windows(server, tmp_path, text)
    edited = text.replace(MINUTES, MINUTES.replace(before, after))
    assert edited != text
    refused = submit(server, tmp_path, edited, check=False)
    assert refused.returncode == 2, refused.stderr
    line = edited.splitlines().index(MINUTES.replace(before, after).splitlines()[0]) + 1
    for words in (f"counts.sql:{line}:13: ", "operator 'minutes/window'", change, "run the former query, or forget the state with --fresh"):
        assert words in refused.stderr, refused.stderr
    # Nothing is lost: the former query goes on.
    submit(server, tmp_path, text)
    produce(server, "10:00:04", "10:01:00")
    wait_until(lambda: tailed(server, "minutes"))
    assert [row["n"] for row in tailed(server, "minutes")] == [4]


def test_edits_that_do_not_matter_go_on(server, tmp_path):
    stop_with_open_windows(server, tmp_path, statement_set(MINUTES, DAYS))
    # The other order, a third statement in front, another alias, a column of the table that no window uses, and another way to write the condition.
    minutes = MINUTES.replace("COUNT(*)", "COUNT(*) AS how_many").replace("value > 0", "value > 0 AND 0 < value")
    went = submit(server, tmp_path, statement_set(COPIES, DAYS, minutes))
    assert "operator 'sink:copies' is new and begins without state" in went.stderr
    produce(server, "10:00:04", "10:01:00")
    wait_until(lambda: tailed(server, "minutes"))
    assert [(row["sensor"], row["n"]) for row in tailed(server, "minutes")] == [("a", 4)], "three of before, and one"
    wait_until(lambda: len(tailed(server, "copies")) == 2)
    assert not tailed(server, "days"), "its window is open, with all five rows"


def test_a_statement_that_is_gone_is_refused_or_dropped(server, tmp_path):
    stop_with_open_windows(server, tmp_path, statement_set(MINUTES, DAYS))
    refused = submit(server, tmp_path, statement_set(MINUTES), check=False)
    assert refused.returncode == 2, refused.stderr
    for words in ("counts.sql:7:13: ", "'days/window', 'sink:days'", "--allow-non-restored-state", "--fresh"):
        assert words in refused.stderr, refused.stderr
    went = submit(server, tmp_path, statement_set(MINUTES), "--allow-non-restored-state")
    assert "the state of operator 'days/window' is dropped" in went.stderr
    produce(server, "10:00:04", "10:01:00")
    wait_until(lambda: tailed(server, "minutes"))
    assert [row["n"] for row in tailed(server, "minutes")] == [4]


def test_two_statements_into_one_table_keep_apart_in_any_order(server, tmp_path):
    """Both write to `minutes`, so only an order tells their names apart."""
    hours = MINUTES.replace("'1' MINUTE", "'1' HOUR").replace("window_start, sensor,", "window_start, 'hourly',")
    stop_with_open_windows(server, tmp_path, statement_set(MINUTES, hours))
    submit(server, tmp_path, statement_set(hours, MINUTES))
    produce(server, "10:00:04", "11:00:00")
    wait_until(lambda: len(tailed(server, "minutes")) == 2)
    found = sorted((row["sensor"], row["n"]) for row in tailed(server, "minutes"))
    assert found == [("a", 4), ("hourly", 4)]


def test_a_hint_takes_the_state_to_where_the_query_has_moved(server, tmp_path):
    renamed = DEFINITIONS.replace("CREATE TABLE minutes", "CREATE TABLE per_minute")
    stop_with_open_windows(server, tmp_path, DEFINITIONS + MINUTES)
    moved = renamed + MINUTES.replace("minutes", "per_minute")
    refused = submit(server, tmp_path, moved, check=False)
    assert refused.returncode == 2 and "/*+ STATE_UID('minutes/window') */" in refused.stderr, refused.stderr
    hinted = moved.replace("SELECT", "SELECT /*+ STATE_UID('minutes/window') */")
    went = submit(server, tmp_path, hinted, "--allow-non-restored-state")
    assert "the state of operator 'sink:minutes' is dropped" in went.stderr and "minutes/window' is dropped" not in went.stderr
    produce(server, "10:00:04", "10:01:00")
    wait_until(lambda: tailed(server, "per_minute"))
    assert [row["n"] for row in tailed(server, "per_minute")] == [4]


def test_another_target_of_a_sink_is_refused(server, tmp_path):
    def script(out):
        table = f"CREATE TABLE files (sensor STRING, value BIGINT) WITH ('connector' = 'filesystem', 'path' = '{tmp_path}/{out}', 'format' = 'json');\n"
        return DEFINITIONS + table + COPIES.replace("copies", "files")

    stop_with_open_windows(server, tmp_path, script("a"))
    refused = submit(server, tmp_path, script("b"), check=False)
    assert refused.returncode == 2, refused.stderr
    assert "of operator 'sink:files'" in refused.stderr and f"the path was {tmp_path}/a and is {tmp_path}/b" in refused.stderr, refused.stderr
    assert not (tmp_path / "b").exists()
    # A policy of the sink is no part of what its state means.
    submit(server, tmp_path, script("a").replace("'format'", "'sink.rolling-policy.file-size' = '1 mb', 'format'"))


def test_the_state_is_described_alike_everywhere(server, tmp_path):
    explained = server.run("job", "submit", explain(tmp_path)).stdout
    line = "windows: (count(*)) per (window_end, sensor), freed when the watermark passes window_end; keys × open windows"
    assert f"minutes/window {line}" in explained, explained
    stop_with_open_windows(server, tmp_path, DEFINITIONS + MINUTES)
    server.run("savepoint", "create", "counts", "--name", "v1")
    for text in (server.run("job", "show", "counts").stdout, server.run("savepoint", "describe", "v1").stdout):
        for words in ("minutes/window (window)", f"keeps {line}", "TUMBLE(readings.at, 1 min)", "readings WHERE (readings.value > 0)"):
            assert words in text, text
    window = next(state for state in shown(server, "counts")["states"] if state["uid"] == "minutes/window")
    assert {"name": "time zone", "text": "UTC"} in window["facets"]


def explain(folder):
    path = folder / "explain.sql"
    path.write_text(DEFINITIONS + "EXPLAIN " + MINUTES)
    return path
