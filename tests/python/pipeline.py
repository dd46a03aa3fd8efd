"""The program of `examples/src/bin/pipeline`, and what it must deliver: computed here from the seed, without it."""

import json
import os
import re
import resource
import signal
import subprocess
from pathlib import Path

import duckdb
from conftest import BINARY, ROOT

PIPELINE = Path(os.environ.get("COULEE_PIPELINE", Path(BINARY).with_name("pipeline")))

# As in input.rs, graph.rs and sessions.rs.
START_MS, DISORDER_MS = 1_704_067_200_000, 500
INPUTS = {"readings": (1, 3, 10, 1), "commands": (2, 2, 50, 5)}  # number, shards, step in ms, one record for so many
WINDOW_MS, LARGE, GAP_MS = 1_000, 900, 100
MASK = (1 << 64) - 1


def mix(x):
    z = (x + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def records(name, seed, per_shard):
    """(shard, sequence, event time in ms, sensor, value), in order."""
    number, shards, step, thinning = INPUTS[name]
    for shard in range(shards):
        for i in range(per_shard // thinning):
            dice = mix(seed ^ mix(number << 56 | shard << 48 | i))
            at = START_MS + i * step + dice % DISORDER_MS
            yield shard, i, at, f"s{(dice >> 16) % 8 + 8 * (i * step // 2_000 % 4)}", (dice >> 32) % 1_000


class Oracle:
    """What must come out, as sorted lists."""

    def __init__(self, seed, per_shard):
        readings, commands = (list(records(name, seed, per_shard)) for name in ("readings", "commands"))
        self.readings = readings
        self.large = sorted((shard, i, sensor, value) for shard, i, _, sensor, value in readings if value >= LARGE)
        windows = {}
        for _, _, at, sensor, value in readings:
            windows.setdefault((at - at % WINDOW_MS, sensor), []).append(value)
        self.windows = sorted((start, sensor, len(v), sum(v), max(v)) for (start, sensor), v in windows.items())
        by_sensor = {}
        for _, _, at, sensor, value in readings + commands:
            by_sensor.setdefault(sensor, []).append((at, value))
        self.sessions = []
        for sensor, events in by_sensor.items():
            events.sort()
            first = 0
            for i in range(1, len(events) + 1):
                if i == len(events) or events[i][0] - events[i - 1][0] > GAP_MS:
                    part = events[first:i]
                    self.sessions.append((sensor, part[0][0], part[-1][0], len(part), sum(v for _, v in part)))
                    first = i
        self.sessions.sort()


def failpoints():
    """The points that the code of the commit protocol has, of which the pipeline passes each. Points named `….test.…` serve unit tests, which let threads panic."""
    found = set()
    for room in ("log", "checkpoint", "runtime", "connectors"):
        for file in (ROOT / room / "src").rglob("*.rs"):
            found.update(re.findall(r'fail_point!\(\s*"([^"]+)"', file.read_text()))
    return sorted(name for name in found if ".test." not in name)


def no_core():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


class Pipeline:
    """One data folder, and the runs on it."""

    def __init__(self, folder, seed, per_shard, **options):
        self.folder, self.seed, self.per_shard, self.options = Path(folder), seed, per_shard, options
        self.data = self.folder / "data"
        self.data.mkdir(parents=True, exist_ok=True)
        self.stderr = self.folder / "stderr"
        self.stdout = self.folder / "stdout"

    def start(self, failpoints="", wrapper=(), preexec=no_core, env=None, **options):
        options = {"data": self.data, "seed": self.seed, "records": self.per_shard, **self.options, **options}
        arguments = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", str(value))]
        environment = {**os.environ, "COULEE_FAILPOINTS": failpoints, **(env or {})}
        with open(self.stdout, "wb") as out, open(self.stderr, "wb") as err:
            command = [*map(str, wrapper), str(PIPELINE), "run", *arguments]
            return subprocess.Popen(command, stdout=out, stderr=err, env=environment, preexec_fn=preexec)

    def run(self, timeout=90, **options):
        """A run to its end; its exit code, negative for a signal."""
        process = self.start(**options)
        try:
            return process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            raise AssertionError(f"not at its end after {timeout} s: {self.said()}") from None

    def killed_after(self, seconds, **options):
        """Starts a run and kills it; whether it was still running."""
        process = self.start(**options)
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return True
        assert code == 0, self.said()
        return False

    def finish(self, **options):
        options = {"rate": 0, "produce_rate": 0, "snapshot_ms": 0, **options}
        assert self.run(**options) == 0, self.said()

    def said(self):
        return self.stderr.read_text(errors="replace")

    def ask(self, command, *arguments):
        done = subprocess.run([PIPELINE, command, "--data", self.data, *arguments], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def stream(self, name):
        for line in self.ask("read", "--stream", name):
            shard, sequence, timestamp, value = line.split("\t", 3)
            yield int(shard), int(sequence), int(timestamp), json.loads(value)

    def windows(self, folder=None):
        files = Path(folder or self.data / "out")
        query = f"SELECT epoch_ms(window_start), sensor, readings, total, highest FROM read_parquet('{files}/**/*.parquet')"
        return sorted(duckdb.connect().sql(query).fetchall())

    def check(self, note="", out=None):
        """Every output equals what it must be: nothing lost, nothing twice. And nothing is left lying about."""
        oracle = Oracle(self.seed, self.per_shard)
        input_ = [(s, i, at, v["sensor"], v["value"]) for s, i, at, v in self.stream("readings")]
        assert input_ == oracle.readings, f"the input is not what it should be {note}"
        same(self.windows(out), oracle.windows, "windows", note)
        large = sorted((v["shard"], v["sequence"], v["sensor"], v["value"]) for *_, v in self.stream("large"))
        same(large, oracle.large, "large", note)
        columns = ("sensor", "first_ms", "last_ms", "records", "total")
        sessions = sorted(tuple(v[column] for column in columns) for *_, v in self.stream("sessions"))
        same(sessions, oracle.sessions, "sessions", note)
        assert json.loads(self.stdout.read_text())["late"] == 0, note
        assert self.ask("transactions") == [], f"open transactions {note}"
        self.check_tidy(note)

    def check_tidy(self, note=""):
        files = [path.relative_to(self.data) for path in self.data.rglob("*") if path.is_file()]
        strange = [str(path) for path in files if path.name.endswith(".tmp") or path.parts[0] in ("spool", "scratch")]
        strange += [str(path) for path in files if path.parts[0] == "out" and not path.name.startswith("part-")]
        assert not strange, f"left behind {note}: {strange[:10]}"


def same(found, expected, what, note):
    if found == expected:
        return
    lost, extra = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    twice = sorted({row for row in found if found.count(row) > 1}) if len(found) > len(expected) else []
    raise AssertionError(
        f"{what} {note}: {len(found)} rows instead of {len(expected)}; lost {lost[:5]} ({len(lost)}), "
        f"wrong {extra[:5]} ({len(extra)}), twice {twice[:5]} ({len(twice)})"
    )
