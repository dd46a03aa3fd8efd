"""The real binary with faults on purpose: killed at a step of the commit protocol, it goes on as if nothing had happened."""

import os
import subprocess

import pytest
from conftest import BINARY, coulee, delivered_delays, expected_delays


@pytest.mark.parametrize("point", ["checkpoint.commit.before-write", "checkpoint.commit.after-write"])
def test_a_job_that_is_killed_around_its_commit_delivers_each_row_once(flights, point):
    command = [BINARY, "run", "--data-dir", "data", "delays.sql"]
    environment = os.environ | {"COULEE_FAILPOINTS": f"{point}=kill@2"}
    killed = subprocess.run(command, cwd=flights, env=environment, capture_output=True, text=True, timeout=120)
    assert killed.returncode < 0, f"it was to be killed: {killed.stderr}"
    assert "fails on purpose" in killed.stderr
    coulee(*command[1:], cwd=flights)
    assert delivered_delays(flights / "out") == expected_delays()


def test_a_wrong_failpoint_is_refused(tmp_path):
    done = coulee("connectors", cwd=tmp_path, check=False, env=os.environ | {"COULEE_FAILPOINTS": "x=kill@never"})
    assert done.returncode == 2 and "'never' is not a number" in done.stderr
