"""Runs a case with the real binary, in one of many ways, and reads what it delivered."""

import csv
import json
import os
import re
import resource
import signal
import subprocess
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import duckdb

from . import data

ROOT = Path(__file__).resolve().parents[3]
BINARY = os.environ.get("COULEE", str(Path.home() / ".cache/coulee-target/debug/coulee"))
BATCH_ROWS = (1, 7, 8192)
# Rows per second of a life that is to be killed: it takes some checkpoints.
RATE = 1_500
TIMEOUT = 120


@dataclass(frozen=True)
class Life:
    """One process: how it runs, and what ends it. `kill`: a failpoint with its count, seconds as a number, or None."""

    parallelism: int
    batch_rows: int
    kill: object = None

    def __str__(self):
        end = f", killed at {self.kill}" if self.kill else ""
        return f"parallelism {self.parallelism}, {self.batch_rows} rows a batch{end}"


@dataclass(frozen=True)
class Way:
    """One way to run a case."""

    lives: tuple
    source: str
    sink: str
    shards: int
    number: int

    def __str__(self):
        lives = ", then ".join(map(str, self.lives))
        return f"way {self.number}: {self.shards} shards of {self.source} to {self.sink}; {lives}"


def failpoints():
    """The points at which a process can be killed, found in the code."""
    found = set()
    for room in ("log", "checkpoint", "runtime", "connectors"):
        for file in (ROOT / room / "src").rglob("*.rs"):
            found.update(re.findall(r'fail_point!\(\s*"([^"]+)"', file.read_text()))
    return sorted(name for name in found if ".test." not in name)


def ways(seed):
    """The ways in which a seed's case is run: each parallelism once, over some batch sizes, and one that is killed and rescaled."""
    dice = data.seeded("ways", seed)
    sizes = dice.sample(BATCH_ROWS, 3)
    quiet = [(Life(parallelism, sizes[parallelism - 1]),) for parallelism in (1, 2, 3)]
    killed = [Life(dice.randrange(1, 4), dice.choice(BATCH_ROWS), _kill(dice)) for _ in range(dice.choice([1, 2, 3]))]
    every = [*quiet, (*killed, Life(dice.randrange(1, 4), dice.choice(BATCH_ROWS)))]
    return [
        Way(lives, dice.choice(["json", "csv", "parquet", "stream"]), dice.choice(["parquet", "json", "csv", "stream"]), dice.choice([1, 2, 3, 5]), number)
        for number, lives in enumerate(every)
    ]


def _kill(dice):
    if dice.random() < 0.3:
        return round(dice.uniform(0.1, 0.5), 3)
    return f"{dice.choice(failpoints())}=kill@{dice.choice([1, 2, 3, 5])}"


class Failure(AssertionError):
    """The binary ended in another way than it should, or said that rows were lost."""


class Run:
    """A case in a folder of its own, run one way."""

    def __init__(self, case, way, folder):
        self.case, self.way, self.folder = case, way, Path(folder)
        self.folder.mkdir(parents=True)
        self.kills = 0

    def rows(self):
        """Runs all lives. Returns the rows of each query, and the types of its columns as DESCRIBE shows them."""
        self._write_inputs()
        shown = ""
        for life in self.way.lives:
            shown = self._live(life)
        return [self._delivered(index) for index in range(len(self.case.queries))], _described(shown, len(self.case.queries))

    def _write_inputs(self):
        dice = data.seeded("shards", self.case.seed, self.way.number)
        for table in self.case.tables:
            # One file makes a stream: its order per shard is then the table's.
            dealt = [table.rows] if self.way.source == "stream" else table.deal(dice, self.way.shards)
            names = dice.sample(range(100), len(dealt))
            for name, rows in zip(names, dealt, strict=True):
                path = self.folder / "in" / table.name / f"{name:02}.{self._format}"
                path.parent.mkdir(parents=True, exist_ok=True)
                data.write(path, self._format, table.stored, table.records(rows), dice)

    @property
    def _format(self):
        return "json" if self.way.source == "stream" else self.way.source

    def script(self, life):
        """The job. The state of a former life is found by the queries' places, which do not change."""
        lines = ["SET 'table.dml-sync' = 'true'"]
        if self.way.source == "stream":
            lines += self._load()
        # Many checkpoints where one may be the last.
        interval = "10 ms" if len(self.way.lives) > 1 else "100 ms"
        lines += [f"SET 'table.exec.mini-batch.size' = '{life.batch_rows}'", f"SET 'execution.checkpointing.interval' = '{interval}'"]
        lines += [self._source(table, life) for table in self.case.tables]
        lines += [flink for flink, _ in self.case.setup]
        for index, query in enumerate(self.case.queries):
            lines += [f"CREATE VIEW view{index} AS {query.text('flink')}", f"DESCRIBE view{index}"]
            columns = ", ".join(f"x{i} {type_.flink}" for i, type_ in enumerate(query.types))
            sink = "" if self.way.sink == "stream" else f"'connector' = 'filesystem', 'path' = 'out/{index}', 'format' = '{self.way.sink}'{self._null(self.way.sink)}, "
            lines.append(f"CREATE TABLE out{index} ({columns}) WITH ({sink}'format.on-error' = 'fail')")
        inserts = "".join(f"INSERT INTO out{index} {query.text('flink')};\n" for index, query in enumerate(self.case.queries))
        lines.append("SET 'pipeline.name' = 'oracle'")
        return ";\n".join(lines) + f";\nEXECUTE STATEMENT SET BEGIN\n{inserts}END;\n"

    def _files(self, table):
        null = self._null(self._format)
        return f"'connector' = 'filesystem', 'path' = 'in/{table.name}', 'format' = '{self._format}', 'format.on-error' = 'fail'{null}"

    def _null(self, format_):
        return f", 'csv.null-literal' = '{data.CSV_NULL}'" if format_ == "csv" else ""

    def _load(self):
        """Fills the streams from the files, each shard in the file's order; done once, whatever is killed."""
        lines, inserts = [], ""
        for table in self.case.tables:
            options = f"'stream' = '{table.name}', 'shards' = '{self.way.shards}', 'key.fields' = '{table.columns[0].name}'"
            lines.append(f"CREATE TABLE {table.name}_file ({table.declared}) WITH ({self._files(table)}, 'scan.parallelism' = '1')")
            lines.append(f"CREATE TABLE {table.name}_in ({table.declared}) WITH ({options}, 'sink.parallelism' = '1')")
            inserts += f"INSERT INTO {table.name}_in SELECT * FROM {table.name}_file;\n"
        return [*lines, "SET 'pipeline.name' = 'load'", f"EXECUTE STATEMENT SET BEGIN\n{inserts}END"]

    def _source(self, table, life):
        rate = f", 'scan.rate-limit' = '{RATE}'" if life.kill else ""
        stream = f"'stream' = '{table.name}', 'scan.bounded.mode' = 'latest-offset', 'format.on-error' = 'fail'"
        options = stream if self.way.source == "stream" else self._files(table)
        return f"CREATE TABLE {table.name} ({table.declared}, {table.event_time}) WITH ({options}{rate})"

    def _live(self, life):
        script = self.folder / "job.sql"
        script.write_text(self.script(life))
        command = [BINARY, "run", "job.sql", "--data-dir", "data", "--parallelism", str(life.parallelism)]
        environment = {**os.environ, "COULEE_FAILPOINTS": life.kill if isinstance(life.kill, str) else ""}
        with open(self.folder / "stdout", "wb") as out, open(self.folder / "stderr", "wb") as err:
            process = subprocess.Popen(command, cwd=self.folder, stdout=out, stderr=err, env=environment, preexec_fn=_no_core)
        try:
            code = process.wait(life.kill if isinstance(life.kill, float) else TIMEOUT)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            code = -signal.SIGKILL if isinstance(life.kill, float) else "none: not at its end"
        said = (self.folder / "stderr").read_text(errors="replace")
        self.kills += code in (-signal.SIGKILL, -signal.SIGABRT)
        if code != 0 and not (life.kill and code in (-signal.SIGKILL, -signal.SIGABRT)):
            raise Failure(f"exit code {code}:\n{said}")
        # Every row is on time and valid.
        if re.search(r"rejected|failed in an expression|could not be delivered|\blate\b", said):
            raise Failure(f"rows were lost:\n{said}")
        return (self.folder / "stdout").read_text(errors="replace")

    def _delivered(self, index):
        types = self.case.queries[index].types
        if self.way.sink == "stream":
            command = [BINARY, "tail", f"out{index}", "--from", "earliest", "--data-dir", "data"]
            done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=TIMEOUT)
            if done.returncode != 0:
                raise Failure(done.stderr)
            return [_row(line, types) for line in done.stdout.splitlines()]
        files = sorted((self.folder / f"out/{index}").rglob("part-*"))
        if self.way.sink == "json":
            return [_row(line, types) for file in files for line in file.read_text().splitlines()]
        if self.way.sink == "csv":
            return [row for file in files for row in _csv_rows(file, types)]
        if not files:
            return []
        names = ", ".join(f"x{i}" for i in range(len(types)))
        with duckdb.connect() as db:
            return db.execute(f"SELECT {names} FROM read_parquet({[str(file) for file in files]})").fetchall()


def _no_core():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _row(line, types):
    values = json.loads(line, parse_float=Decimal)
    return tuple(_value(values.get(f"x{i}"), type_) for i, type_ in enumerate(types))


def _csv_rows(file, types):
    """The rows behind the line of names."""
    with open(file, newline="") as lines:
        for fields in list(csv.reader(lines))[1:]:
            values = (None if field == data.CSV_NULL else field for field in fields)
            yield tuple(_value(value, type_) for value, type_ in zip(values, types, strict=True))


def _value(value, type_):
    if value is None:
        return None
    readers = {"decimal": Decimal, "double": float, "date": date.fromisoformat, "time": datetime.fromisoformat}
    if isinstance(value, str):
        # CSV has texts only.
        readers |= {"int": int, "bool": {"true": True, "false": False}.get}
    return readers.get(type_.family, lambda same: same)(value)


def _described(shown, count):
    """The types in the tables that DESCRIBE prints, one list for each of them."""
    found, columns = [], None
    for line in shown.splitlines():
        if line.startswith("name ") and "watermark" in line:
            columns, width = [], line.index("null")
            start = line.index("type")
            found.append(columns)
        elif columns is not None and line.startswith("─"):
            continue
        elif columns is not None and re.match(r"c\d+_\d+ ", line):
            columns.append(line[start:width].strip())
        else:
            columns = None
    return found[:count]

