"""The main job, end to end: the Parquet it delivers is what DuckDB computes from the same file in batch."""

import random
import signal
import subprocess
import time

import pytest
from conftest import BINARY, coulee, counts, delivered_delays, expected_delays, flights_script


@pytest.mark.parametrize("parallelism", [1, 2, 4])
def test_the_parquet_equals_duckdbs_answer(flights, parallelism):
    done = coulee("run", "--data-dir", flights / "data", "--parallelism", parallelism, flights / "delays.sql")
    assert delivered_delays(flights / "out") == expected_delays()
    said = counts(done.stdout + done.stderr)
    assert said["timeless"] == 521, done.stderr
    assert said["late"] in (0, None), done.stderr


def test_a_finished_job_says_so_and_fresh_starts_over(flights):
    run = ["run", "--data-dir", flights / "data", flights / "delays.sql"]
    coulee(*run)
    files = sorted((flights / "out").rglob("*.parquet"))
    again = coulee(*run)
    assert "finished" in again.stderr + again.stdout
    assert sorted((flights / "out").rglob("*.parquet")) == files
    coulee(*run, "--fresh")
    assert delivered_delays(flights / "out") == expected_delays()


def test_without_a_data_dir_a_temporary_folder_is_used_and_removed(flights):
    done = coulee("run", flights / "delays.sql", env={"PATH": "/usr/bin:/bin", "TMPDIR": str(flights), "HOME": str(flights)})
    assert delivered_delays(flights / "out") == expected_delays()
    assert str(flights) in done.stderr, "it says which folder"
    assert [p.name for p in flights.iterdir() if p.name not in ("out", "delays.sql")] == []


def test_killed_again_and_again_the_result_is_the_same(flights):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    # About 9 s of reading in all, so that 20 and more kills fall into the job at random moments.
    (flights / "delays.sql").write_text(flights_script(flights / "out", rate=3000))
    command = [BINARY, "run", "--data-dir", str(flights / "data"), str(flights / "delays.sql")]
    kills = 0
    while True:
        with open(flights / "stderr", "wb") as log:
            job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
        try:
            # The first twenty attempts are cut short; after that the job may come to its end.
            code = job.wait(timeout=dice.uniform(0.05, 0.9) if kills < 20 else 120)
            assert code == 0, (flights / "stderr").read_text()
            break
        except subprocess.TimeoutExpired:
            assert kills < 20, "the job does not come to its end"
            job.send_signal(signal.SIGKILL)
            job.wait()
            kills += 1
    assert kills >= 20, f"finished after {kills} kills"
    assert delivered_delays(flights / "out") == expected_delays(), f"seed {seed}"
    said = counts((flights / "stderr").read_text())
    assert said["timeless"] == 521, (flights / "stderr").read_text()
    leftovers = [p for p in (flights / "data").rglob("spool/**/*") if p.is_file()]
    assert leftovers == [], "spools are gone at the end"
    strange = [p for p in (flights / "out").rglob("*") if p.is_file() and not p.name.startswith("part-")]
    assert strange == [], "no temporary file is left"


def test_ctrl_c_stops_with_a_checkpoint_and_the_next_run_goes_on(flights):
    (flights / "delays.sql").write_text(flights_script(flights / "out", rate=20000))
    command = [BINARY, "run", "--data-dir", str(flights / "data"), str(flights / "delays.sql")]
    job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    # The job has begun once its state exists.
    deadline = time.monotonic() + 60
    while not (flights / "data/jobs/delays/state/CURRENT").exists():
        assert job.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    job.send_signal(signal.SIGINT)
    _, stderr = job.communicate(timeout=60)
    assert "coulee run" in stderr, f"it says how to go on: {stderr}"
    coulee(*command[1:])
    assert delivered_delays(flights / "out") == expected_delays()
