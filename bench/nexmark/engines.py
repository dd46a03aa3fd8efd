"""What runs a query of Nexmark over files: the command line of each engine, from the same events, at parallelism 2, with a checkpoint every second.

An engine's `command` writes what it needs into a scratch folder and gives the command to be run there, or None for a query that it has not.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARALLELISM = 2
TABLES = {
    "person": "id BIGINT, name STRING, emailAddress STRING, creditCard STRING, city STRING, state STRING, `dateTime` TIMESTAMP(3), extra STRING",
    "auction": "id BIGINT, itemName STRING, description STRING, initialBid BIGINT, reserve BIGINT, `dateTime` TIMESTAMP(3), expires TIMESTAMP(3), seller BIGINT, category BIGINT, extra STRING",
    "bid": "auction BIGINT, bidder BIGINT, price BIGINT, channel STRING, url STRING, `dateTime` TIMESTAMP(3), extra STRING",
}
WATERMARK = "WATERMARK FOR `dateTime` AS `dateTime` - INTERVAL '4' SECOND"


def queries():
    """Each query's name, its statements for Flink and Coulee, and its text for DuckDB: `tests/nexmark/queries.txt`."""
    for block in (ROOT / "tests/nexmark/queries.txt").read_text().split("\n====\n")[1:]:
        sentence, flink, duckdb = re.split(r"^---- \w+\n", block, flags=re.MULTILINE)
        yield sentence.split(":")[0], re.split(r";\s*\n", flink.strip()), duckdb.strip()


class Coulee:
    """A job of its own data folder, into a sink that takes every change and drops it."""

    name = "coulee"

    def __init__(self):
        self.binary = os.environ.get("COULEE", str(ROOT / "target/release/coulee"))

    def command(self, query, events, scratch):
        script = [f"SET 'parallelism.default' = '{PARALLELISM}'", "SET 'execution.runtime-mode' = 'streaming'", *declared(events)]
        (scratch / "q.sql").write_text(";\n".join([*script, *inserted(query.flink)]) + ";\n")
        return [self.binary, "run", "--data-dir", str(scratch / "data"), "--fresh", "q.sql"]


class Flink:
    """Flink's SQL client with a cluster inside its process: RocksDB, incremental checkpoints, mini-batches of half a second."""

    name = "flink"
    version = "2.3.0"
    settings = {
        "execution.target": "local",
        "parallelism.default": str(PARALLELISM),
        "table.dml-sync": "true",
        "state.backend.type": "rocksdb",
        "execution.checkpointing.interval": "1 s",
        "execution.checkpointing.incremental": "true",
        "table.exec.mini-batch.enabled": "true",
        "table.exec.mini-batch.allow-latency": "500 ms",
        "table.exec.mini-batch.size": "50000",
        "table.optimizer.distinct-agg.split.enabled": "true",
        "table.local-time-zone": "UTC",
        "restart-strategy.type": "none",
        "taskmanager.memory.managed.size": "1 gb",
        "taskmanager.numberOfTaskSlots": str(PARALLELISM),
    }

    def __init__(self):
        venv = Path(os.environ.get("COULEE_FLINK_VENV", Path.home() / ".cache/coulee-flink-venv"))
        folder = next(venv.glob("lib/python*/site-packages/pyflink"))
        jars = [*folder.glob("lib/*.jar"), *folder.glob("opt/flink-*.jar"), *fetched()]
        self.classpath = ":".join(map(str, jars))

    def command(self, query, events, scratch):
        conf = scratch / "conf"
        conf.mkdir()
        settings = {**self.settings, "execution.checkpointing.dir": (scratch / "checkpoints").as_uri()}
        (conf / "config.yaml").write_text("".join(f"{key}: {value}\n" for key, value in settings.items()))
        (scratch / "q.sql").write_text(";\n".join([*declared(events), *inserted(query.flink)]) + ";\n")
        opened = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in ("java.lang", "java.util", "java.nio", "java.net", "java.time", "sun.nio.ch")]
        return ["env", f"FLINK_CONF_DIR={conf}", "java", *opened, "-Xmx6g", "-cp", self.classpath, "org.apache.flink.table.client.SqlClient", "-f", str(scratch / "q.sql")]


class Clink:
    """clink in a Python process, with its own texts of the queries (`clink.txt`) and a copy of the files that has its names and types."""

    name = "clink"
    state = "rocksdb://state"

    def __init__(self):
        blocks = (Path(__file__).parent / "clink.txt").read_text().split("\n====\n")[1:]
        # Name and remark, the sink's columns, the query.
        parts = (block.strip().split("\n", 2) for block in blocks)
        self.queries = {title.split()[0]: (columns, query) for title, columns, query in parts}

    def command(self, query, events, scratch):
        if query.name not in self.queries or events.format != "parquet":
            return None
        sink, text = self.queries[query.name]
        tables = [
            f"CREATE TABLE {name} ({lowered(columns)}) WITH (connector='parquet', path='{copied(events, name)}', event_time_column='datetime', watermark_lag_ms='4000')"
            for name, columns in TABLES.items()
        ]
        (scratch / "q.sql").write_text(";\n".join([*tables, f"CREATE TABLE sink ({sink}) WITH (connector='blackhole')", f"INSERT INTO sink {text}"]) + ";\n")
        options = f"parallelism={PARALLELISM}, state_backend_uri='{self.state}', checkpoint_dir='checkpoints', checkpoint_interval_ms=1000"
        (scratch / "run.py").write_text(f"import pyclink\nwith pyclink.Engine({options}) as engine:\n    engine.execute(open('q.sql').read())\n    engine.await_all()\n")
        return [sys.executable, "run.py"]


def lowered(columns):
    return columns.replace("`", "").lower().replace("timestamp(3)", "BIGINT").replace("string", "VARCHAR")


def copied(events, name):
    """A table's files with names in lower case and times in milliseconds."""
    folder = events.folder / "clink" / name
    if not folder.exists():
        import duckdb

        folder.mkdir(parents=True)
        names = [column.split()[0].strip("`") for column in TABLES[name].split(", ")]
        columns = ", ".join(f"epoch_ms({column}) AS {column.lower()}" if column in ("dateTime", "expires") else f"{column} AS {column.lower()}" for column in names)
        for number, file in enumerate(sorted((events.folder / name).glob("*.parquet"))):
            duckdb.connect().execute(f"SET preserve_insertion_order = true; COPY (SELECT {columns} FROM '{file}') TO '{folder}/{number}.parquet'")
    return folder


class DuckDB:
    """The same question in batch: the ceiling."""

    name = "duckdb"

    def command(self, query, events, scratch):
        read = "read_parquet" if events.format == "parquet" else "read_json"
        views = ";\n".join(f"CREATE VIEW {name} AS SELECT * FROM {read}('{events.folder / name}/*')" for name in TABLES)
        (scratch / "q.sql").write_text(f"SET threads = {PARALLELISM};\n{views};\nEXPLAIN ANALYZE {query.duckdb};\n")
        (scratch / "run.py").write_text("import duckdb\nduckdb.connect().execute(open('q.sql').read()).fetchall()\n")
        return [sys.executable, "run.py"]


def declared(events):
    """The tables of events, for Flink and Coulee."""
    options = f"'connector' = 'filesystem', 'format' = '{events.format}'"
    if events.format == "json":
        options += ", 'json.timestamp-format.standard' = 'ISO-8601'"
    return [f"CREATE TABLE {name} ({columns}, {WATERMARK}) WITH ({options}, 'path' = '{events.folder / name}')" for name, columns in TABLES.items()]


def inserted(statements):
    """The query's statements, of which the last writes into a sink that drops its rows. q10 has a sink of its own."""
    *before, query = statements
    if before and before[-1].startswith("INSERT"):
        return before
    return [*before, f"CREATE TABLE sink WITH ('connector' = 'blackhole') AS {query}"]


def fetched():
    """What PyPI's package of Flink lacks, from Maven Central: what its SQL client asks for, its Parquet format and what that needs of Hadoop."""
    made = []
    repository = Path.home() / ".m2/repository"
    for group, artifact, version in [
        ("org.apache.flink", "flink-sql-gateway", Flink.version),
        ("org.apache.flink", "flink-sql-gateway-api", Flink.version),
        ("org.apache.flink", "flink-sql-parquet", Flink.version),
        ("org.apache.hadoop", "hadoop-client-api", "3.4.2"),
        ("org.apache.hadoop", "hadoop-client-runtime", "3.4.2"),
        ("commons-logging", "commons-logging", "1.2"),
        ("com.github.luben", "zstd-jni", "1.5.6-10"),
    ]:
        jar = repository / group.replace(".", "/") / artifact / version / f"{artifact}-{version}.jar"
        if not jar.exists():
            if not shutil.which("mvn"):
                sys.exit("compare: mvn is missing, which fetches parts of Flink")
            subprocess.run(["mvn", "-q", "dependency:get", f"-Dartifact={group}:{artifact}:{version}", "-Dtransitive=false"], check=True)
        made.append(jar)
    return made


ENGINES = {kind.name: kind for kind in (Coulee, Flink, Clink, DuckDB)}
