"""Random tables: typed columns, rows with nulls, ties and skewed keys, in an order in which none is late; and their files."""

import csv
import datetime
import json
import random
from dataclasses import dataclass, field
from decimal import Decimal

import pyarrow
import pyarrow.parquet

from .sql_types import BIGINT, BOOLEAN, DATE, DOUBLE, INT, SMALLINT, STRING, TIME, TINYINT, Expr, Type, decimal

# No letter whose other case has another length, and none outside the Basic Multilingual Plane, which Java counts as two.
WORDS = ["", "a", "ab", "abc", "B", "Zz", "zebra", "é", "Örk", "日本", "жук", " a", "b ", "a b", "x,y", 'q"q', "a'b", "%", "10", "-7"]
# Where event times begin: in daylight, across the beginning of 1970, across a leap day.
ORIGINS = ["2024-05-01 10:00:00.000", "1969-12-31 23:59:30.000", "2024-02-29 23:59:00.500"]
MILLISECOND = datetime.timedelta(milliseconds=1)
# Not 'NULL', which a text may be.
CSV_NULL = "~"


@dataclass
class Column:
    name: str
    type: Type
    bound: int
    nulls: float
    draw: object

    @property
    def expr(self):
        return Expr(self.name, self.name, self.type, self.bound)


@dataclass
class Table:
    """`rows` are tuples of Python values in an order in which no event time (`ts`, the last column) is `delay_ms` or more behind one before it."""

    name: str
    columns: list
    delay_ms: int
    # Whether the event time is computed: records hold the milliseconds since 1970.
    computed: bool = False
    rows: list = field(default_factory=list)

    @property
    def time(self):
        return self.columns[-1].name

    @property
    def stored(self):
        """The columns that records have."""
        return [*self.columns[:-1], Column(f"{self.time}_ms", BIGINT, 0, 0.0, None)] if self.computed else self.columns

    @property
    def declared(self):
        """The stored columns in Flink's SQL."""
        return ", ".join(f"{column.name} {column.type.flink}" for column in self.stored)

    @property
    def event_time(self):
        """The computed column, if there is one, and the watermark."""
        instant = f"TO_TIMESTAMP_LTZ({self.time}_ms, 3)"
        column = f"{self.time} AS CAST({instant} AS TIMESTAMP(3)), " if self.computed else ""
        return f"{column}WATERMARK FOR {self.time} AS {self.time} - INTERVAL '{self.delay_ms / 1000:.3f}' SECOND"

    def records(self, rows):
        """Rows as they are stored."""
        epoch = datetime.datetime(1970, 1, 1)
        to_ms = lambda at: None if at is None else (at - epoch) // MILLISECOND
        return [(*row[:-1], to_ms(row[-1])) for row in rows] if self.computed else rows

    def deal(self, dice, shards):
        """The rows as so many lists, each in the table's order; some may be empty."""
        dealt = [[] for _ in range(shards)]
        for row in self.rows:
            dealt[dice.randrange(shards)].append(row)
        return dealt


def _skewed(dice, values):
    """One of the values: the first half of the time."""
    return lambda: values[0] if dice.random() < 0.4 else dice.choice(values)


def _columns(dice, prefix):
    """The columns of a table, of which some are left out, before its event time."""
    words, few = dice.sample(WORDS, 10), dice.sample(WORDS, 4)
    p, s = dice.choice([(5, 0), (6, 2), (10, 4)])
    most = 10**p - 1
    start = datetime.date(2023, 12, 25)
    kinds = [
        ("id", BIGINT, 1_000_000, lambda: dice.randrange(-1_000_000, 1_000_001)),
        ("k", STRING, 6, _skewed(dice, few)),
        ("s", STRING, 6, lambda: dice.choice(words)),
        ("i", INT, 1000, lambda: dice.choice([0, 1, -1, dice.randrange(-1000, 1001)])),
        ("n", INT, 3, _skewed(dice, [0, 1, -2, 3])),
        ("t", TINYINT, 100, lambda: dice.randrange(-100, 101)),
        ("h", SMALLINT, 3000, lambda: dice.randrange(-3000, 3001)),
        ("d", decimal(p, s), -(-most // 10**s), lambda: Decimal(dice.choice([0, 5, -5, dice.randrange(-most, most + 1)])).scaleb(-s)),
        # Eighths: their sums and products are exact, in any order.
        ("x", DOUBLE, 1000, lambda: dice.randrange(-8000, 8001) / 8),
        ("b", BOOLEAN, 0, lambda: dice.random() < 0.5),
        ("day", DATE, 0, lambda: start + datetime.timedelta(days=dice.randrange(70))),
        ("other", TIME, 0, lambda: datetime.datetime(2024, 2, 28) + MILLISECOND * dice.randrange(-(10**9), 10**9)),
    ]
    kept = [kind for kind in kinds if kind[0] in ("k", "i") or dice.random() < 0.8]
    dice.shuffle(kept)
    return [Column(prefix + name, type_, bound, dice.choice([0.0, 0.1, 0.3]), draw) for name, type_, bound, draw in kept]


def table(dice, name, prefix):
    """A random table of up to 300 rows."""
    delay_ms = dice.choice([1, 500, 5_000])
    columns = _columns(dice, prefix)
    made = Table(name, [*columns, Column(prefix + "ts", TIME, 0, 0.0, None)], delay_ms, dice.random() < 0.3)
    origin = datetime.datetime.fromisoformat(dice.choice(ORIGINS))
    span_ms, count = dice.choice([1, 60_000, 600_000]), dice.choice([0, 1, 20, 150, 150, 300, 300, 300, 300, 300])
    timeless = dice.choice([0.0, 0.05])
    # On a grid, so that many rows share a time and windows begin and end on rows.
    grid = dice.choice([1, 250, 1_000])
    placed = []
    for _ in range(count):
        at = dice.randrange(span_ms) // grid * grid
        values = [None if dice.random() < column.nulls else column.draw() for column in columns]
        place = (at + dice.randrange(delay_ms), dice.random())
        placed.append((place, (*values, None if dice.random() < timeless else origin + MILLISECOND * at)))
    made.rows = [row for _, row in sorted(placed, key=lambda pair: pair[0])]
    return made


def _text(value):
    """As JSON and CSV hold it: what JSON has no kind for is a text."""
    if isinstance(value, datetime.datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S.") + f"{value.microsecond // 1000:03}"
    return str(value) if isinstance(value, (Decimal, datetime.date)) else value


def _field(value):
    if value is None:
        return CSV_NULL
    return str(value).lower() if isinstance(value, bool) else _text(value)


def write(path, format_, columns, rows, dice):
    """Writes rows as a file of the format."""
    if format_ == "parquet":
        pyarrow.parquet.write_table(arrow(columns, rows), path, row_group_size=dice.choice([1, 50, 1000]))
        return
    with open(path, "w", newline="") as out:
        if format_ == "csv":
            writer = csv.writer(out, lineterminator=dice.choice(["\n", "\r\n"]))
            writer.writerow([column.name for column in columns])
            for row in rows:
                writer.writerow([_field(value) for value in row])
            return
        for row in rows:
            pairs = [(column.name, _text(value)) for column, value in zip(columns, row, strict=True) if value is not None or dice.random() < 0.5]
            out.write(json.dumps(dict(pairs), ensure_ascii=dice.random() < 0.5) + "\n")


def arrow(columns, rows):
    """The rows as an Arrow table."""
    kinds = {"BOOLEAN": pyarrow.bool_(), "DOUBLE": pyarrow.float64(), "STRING": pyarrow.string(), "DATE": pyarrow.date32(), "TIMESTAMP": pyarrow.timestamp("ms")}
    kinds |= {"TINYINT": pyarrow.int8(), "SMALLINT": pyarrow.int16(), "INT": pyarrow.int32(), "BIGINT": pyarrow.int64()}
    arrays = []
    for index, column in enumerate(columns):
        of = column.type
        kind = pyarrow.decimal128(of.precision, of.scale) if of.name == "DECIMAL" else kinds[of.name]
        arrays.append(pyarrow.array([row[index] for row in rows], kind))
    return pyarrow.table(arrays, names=[column.name for column in columns])


def seeded(*parts):
    """Dice that depend on nothing but these values."""
    return random.Random(":".join(map(str, parts)))
