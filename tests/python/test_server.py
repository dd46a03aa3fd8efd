"""A server and the commands against it, over gRPC."""

import json

from conftest import coulee, delivered_delays, expected_delays, flights_script, wait_until


def test_a_job_is_submitted_stopped_started_and_survives_the_servers_death(server, tmp_path):
    script = tmp_path / "delays.sql"
    script.write_text(flights_script(tmp_path / "out", rate=6000))
    server.run("job", "submit", script)
    wait_until(lambda: "delays" in [line.split()[0] for line in server.run("job", "ls").stdout.splitlines() if line.strip()])
    shown = server.run("job", "show", "delays").stdout
    assert "watermark" in shown.lower() and "checkpoint" in shown.lower(), shown
    server.run("job", "stop", "delays")
    assert "stopped" in server.run("job", "show", "delays").stdout.lower()
    server.run("job", "start", "delays")
    server.process.kill()
    server.process.wait()
    server.process = server()
    wait_until(lambda: "finished" in server.run("job", "show", "delays").stdout.lower())
    assert delivered_delays(tmp_path / "out") == expected_delays()


def test_lines_are_produced_and_tailed(server):
    server.run("stream", "create", "numbers", "--shards", "3")
    lines = "".join(json.dumps({"n": n, "k": f"key{n % 7}"}) + "\n" for n in range(1000))
    server.run("produce", "numbers", "--key", "k", input=lines)
    tailed = server.run("tail", "numbers", "--from", "earliest", "--limit", "1000").stdout.splitlines()
    rows = [json.loads(line) for line in tailed]
    assert sorted(row["n"] for row in rows) == list(range(1000))
    for key in range(7):
        of_key = [row["n"] for row in rows if row["k"] == f"key{key}"]
        assert of_key == sorted(of_key), "a key's records keep their order"


def test_an_unknown_job_or_stream_is_an_error_that_names_it(server):
    for command in (["job", "show", "nope"], ["job", "stop", "nope"], ["tail", "nope"]):
        done = server.run(*command, check=False)
        assert done.returncode != 0 and "nope" in done.stderr


def test_a_data_folder_in_use_is_refused_with_what_to_do(server, tmp_path):
    done = coulee("stream", "ls", "--data-dir", tmp_path / "data", check=False)
    assert done.returncode != 0
    assert str(tmp_path / "data") in done.stderr and str(server.process.pid) in done.stderr


def test_tables_and_views_survive_the_servers_death_and_are_named_by_later_scripts(server, tmp_path):
    (tmp_path / "in.ndjson").write_text("".join(json.dumps({"n": n, "k": f"k{n % 3}"}) + "\n" for n in range(9)))
    files = f"'connector' = 'filesystem', 'format' = 'json', 'path' = '{tmp_path}"
    tables = tmp_path / "tables.sql"
    tables.write_text(f"""
        CREATE TABLE numbers (n INT, k STRING) WITH ({files}/in.ndjson');
        CREATE TABLE counts (k STRING, total BIGINT) WITH ({files}/out');
        CREATE VIEW large AS SELECT * FROM numbers WHERE n > 2;
        CREATE VIEW file AS SELECT k FROM '{tmp_path}/in.ndjson' /* a table that nobody has declared */;
        CREATE TEMPORARY VIEW passing AS SELECT 1 AS one;
    """)
    server.run("job", "submit", tables)
    server.process.kill()
    server.process.wait()
    server.process = server()
    count = tmp_path / "count.sql"
    count.write_text("SHOW TABLES; INSERT INTO counts SELECT k, COUNT(*) FROM large WHERE k IN (SELECT k FROM file) GROUP BY k")
    shown = server.run("job", "submit", count).stdout
    assert all(name in shown for name in ("numbers", "counts", "large")) and "passing" not in shown, shown
    wait_until(lambda: "finished" in server.run("job", "show", "count").stdout.lower())
    rows = [json.loads(line) for file in (tmp_path / "out").glob("**/*.json") for line in file.read_text().splitlines()]
    assert sorted((row["k"], row["total"]) for row in rows) == [("k0", 2), ("k1", 2), ("k2", 2)]
