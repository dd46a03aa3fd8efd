"""The terminal: what a person types by mistake, and what a first day needs to hear."""

import pytest
from conftest import coulee

TO_FILES = """
CREATE TABLE numbers (n INT) WITH ('connector' = 'filesystem', 'path' = 'in.ndjson', 'format' = 'json');
CREATE TABLE copies (n INT) WITH ('connector' = 'filesystem', 'path' = 'out', 'format' = 'json');
INSERT INTO copies SELECT n FROM numbers;
"""


@pytest.fixture
def numbers(tmp_path):
    (tmp_path / "in.ndjson").write_text('{"n":1}\n{"n":2}\n')
    (tmp_path / "job.sql").write_text(TO_FILES)
    return tmp_path


def test_help_is_a_command():
    assert "Usage: coulee" in coulee("help").stdout
    assert "--data-dir" in coulee("help", "run").stdout


def test_run_alone_says_what_it_takes(tmp_path):
    done = coulee("run", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "nothing to run" in done.stderr and "-e" in done.stderr and "job.sql" in done.stderr


def test_a_mistyped_data_folder_is_not_made(tmp_path):
    for command in (["stream", "ls"], ["stream", "delete", "x"], ["tail", "x"], ["job", "ls"]):
        done = coulee(*command, "--data-dir", "typo", cwd=tmp_path, check=False)
        assert done.returncode == 2 and "no data folder" in done.stderr and "typo" in done.stderr, (command, done.stderr)
    assert not (tmp_path / "typo").exists()


def test_a_second_run_beside_files_of_the_first_is_told(numbers):
    first = coulee("run", "job.sql", cwd=numbers)
    assert "warning" not in first.stderr and "data folder: " in first.stderr
    second = coulee("run", "job.sql", cwd=numbers)
    assert "warning: out holds 1 file already" in second.stderr and "--data-dir" in second.stderr
    coulee("run", "job.sql", "--data-dir", "data", "--name", "kept", cwd=numbers)
    again = coulee("run", "job.sql", "--data-dir", "data", "--name", "kept", cwd=numbers)
    assert "already finished" in again.stderr and "warning" not in again.stderr


def test_a_query_and_an_error_need_no_word_about_folders(numbers):
    query = TO_FILES.rsplit("INSERT", 1)[0] + "SELECT n FROM numbers;"
    done = coulee("run", "-e", query, "--output", "json", cwd=numbers)
    assert sorted(done.stdout.split()) == ['{"n":1}', '{"n":2}'] and "data folder" not in done.stderr
    wrong = coulee("run", "-e", "SELEC 1", cwd=numbers, check=False)
    assert wrong.returncode == 2 and "data folder" not in wrong.stderr


def test_the_cause_of_a_failure_is_told_once_with_its_place_in_the_script(numbers):
    query = TO_FILES.rsplit("INSERT", 1)[0].replace("in.ndjson", "absent.ndjson") + "SELECT n FROM numbers;"
    (numbers / "query.sql").write_text(query)
    (numbers / "job.sql").write_text(TO_FILES.replace("in.ndjson", "absent.ndjson"))
    for script in ("query.sql", "job.sql"):
        done = coulee("run", script, cwd=numbers, check=False)
        assert done.returncode == 1
        assert done.stderr.count("absent.ndjson: No such file") == 1, done.stderr
        assert f"{script}:2:1: table 'numbers': cannot read" in done.stderr
        assert "coulee_" not in done.stderr, "names of modules are for logs that somebody asked for"


def test_a_row_that_fails_a_job_is_told_with_the_place_of_its_table(numbers):
    (numbers / "in.ndjson").write_text('{"n":1}\n{"n":"x"}\n')
    query = "CREATE TABLE t (n INT) WITH ('connector' = 'filesystem', 'path' = 'in.ndjson', 'format' = 'json', "
    (numbers / "q.sql").write_text("\n" + query + "'format.on-error' = 'fail');\nSELECT n FROM t;")
    done = coulee("run", "q.sql", cwd=numbers, check=False)
    assert done.returncode == 1 and "q.sql:2:1: table 't': " in done.stderr and "in.ndjson:2" in done.stderr
    assert done.stderr.count("in.ndjson:2") == 1


def test_a_stream_can_be_deleted(tmp_path):
    coulee("stream", "create", "readings", "--data-dir", "data", cwd=tmp_path)
    coulee("produce", "readings", "--data-dir", "data", cwd=tmp_path, input='{"n":1}\n{"n":2}\n')
    done = coulee("stream", "delete", "readings", "--data-dir", "data", cwd=tmp_path)
    assert "stream 'readings' deleted with 2 records" in done.stderr
    assert "readings" not in coulee("stream", "ls", "--data-dir", "data", cwd=tmp_path).stdout
    gone = coulee("stream", "delete", "readings", "--data-dir", "data", cwd=tmp_path, check=False)
    assert gone.returncode == 2 and "readings" in gone.stderr


def test_a_stream_that_a_running_job_writes_is_not_deleted(server, tmp_path):
    (tmp_path / "job.sql").write_text("""
        CREATE TABLE ticks (n BIGINT) WITH ('connector' = 'datagen', 'rows-per-second' = '10');
        CREATE TABLE copies (n BIGINT);
        INSERT INTO copies SELECT n FROM ticks;""")
    server.run("job", "submit", str(tmp_path / "job.sql"))
    refused = server.run("stream", "delete", "copies", check=False)
    assert refused.returncode == 2 and "coulee job stop job" in refused.stderr
    server.run("job", "stop", "job")
    server.run("stream", "delete", "copies")
