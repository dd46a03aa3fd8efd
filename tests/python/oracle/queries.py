"""Random queries: projections and windowed aggregations over tables, views, subqueries, unions, and the windows of other windows."""

from dataclasses import dataclass, replace

from . import aggregates
from .expressions import Maker
from .sql_types import TIME, Expr

# The first millisecond of the window of a time, for any sign of either.
MACROS = """
CREATE MACRO tumble_start(event_time, size_ms, offset_ms) AS
    epoch_ms(CAST(floor((epoch_ms(event_time) - offset_ms) / size_ms) AS BIGINT) * size_ms + offset_ms)
"""
WINDOW_COLUMNS = [["window_start", "window_end"], ["window_start", "window_end"], ["window_start"], ["window_end"], ["window_start", "window_end", "window_time"], ["window_time"]]


@dataclass(frozen=True)
class Relation:
    """What stands behind FROM: a name that both systems know, or a query in brackets. `setup` are the statements that make the name."""

    scope: tuple
    time: str
    name: str = ""
    flink_query: str = ""
    duck_query: str = ""
    setup: tuple = ()

    @property
    def flink(self):
        return self.name or f"({self.flink_query})"

    @property
    def duck(self):
        return self.name or f"({self.duck_query})"

    def windowed(self, window):
        """Both systems' FROM for the relation's rows with their windows."""
        size, offset = window
        data = f"TABLE {self.name}" if self.name else self.flink
        spans = [f"INTERVAL '{size[0]}' {size[1]}"] + ([f"INTERVAL '{offset[0]}' {offset[1]}"] if offset else [])
        flink = f"TABLE(TUMBLE({data}, DESCRIPTOR({self.time}), {', '.join(spans)}))"
        size_ms, offset_ms = millis(size), millis(offset) if offset else 0
        start = f"tumble_start({self.time}, {size_ms}, {offset_ms})"
        ends = f"{start} + to_milliseconds({size_ms}) AS window_end, {start} + to_milliseconds({size_ms - 1}) AS window_time"
        # A row without an event time is in no window.
        return flink, f"(SELECT *, {start} AS window_start, {ends} FROM {self.duck} WHERE {self.time} IS NOT NULL)"


def millis(span):
    return span[0] * {"SECOND": 1_000, "MINUTE": 60_000, "HOUR": 3_600_000, "DAY": 86_400_000}[span[1]]


@dataclass(frozen=True)
class Query:
    """A SELECT. `items` are its columns in order, `names` their names; `keys` and `having` are those of a windowed one."""

    source: Relation
    items: tuple
    names: tuple
    where: tuple = ()
    window: tuple = None
    window_columns: tuple = ()
    keys: tuple = ()
    having: tuple = ()
    # The event time of the result: an expression of both, and its name.
    time: Expr = None

    def text(self, of):
        selected = [f"{getattr(item, of)} AS {name}" for item, name in zip(self.items, self.names, strict=True)]
        if self.time:
            selected.append(f"{self.time.flink} AS rt")
        source = getattr(self.source, of)
        if self.window:
            source = self.source.windowed(self.window)[of == "duck"]
        parts = [f"SELECT {', '.join(selected)} FROM {source}" + (" AS q" if not self.source.name or self.window else "")]
        if self.where:
            parts.append("WHERE " + " AND ".join(getattr(e, of) for e in self.where))
        if self.window:
            parts.append("GROUP BY " + ", ".join([*self.window_columns, *(getattr(key, of) for key in self.keys)]))
        if self.having:
            parts.append("HAVING " + " AND ".join(getattr(e, of) for e in self.having))
        return " ".join(parts)

    @property
    def types(self):
        return [item.type for item in self.items]


class Queries:
    """Makes the queries of a case."""

    def __init__(self, dice, tables):
        self.dice, self.count = dice, 0
        self.tables = [Relation(tuple(c.expr for c in table.columns), table.time, table.name) for table in tables]

    def _name(self, prefix):
        self.count += 1
        return f"{prefix}{self.count}"

    def query(self):
        """A query of a random shape."""
        source = self.relation(self.dice.choice([0, 0, 1, 1, 2]))
        if self.dice.random() < 0.3:
            return self.projection(source)
        return self.aggregation(source)

    def relation(self, depth):
        """A table, or a query over relations: as a view or in brackets."""
        if depth == 0:
            return self.dice.choice(self.tables)
        kind = self.dice.choice(["projection", "union", "aggregation"])
        if kind == "union":
            return self._union(depth)
        source = self.relation(depth - 1)
        query = self.aggregation(source, inner=True) if kind == "aggregation" else self.projection(source, inner=True)
        return self._named(query.text("flink"), query.text("duck"), query.items, query.names, source.setup)

    def _named(self, flink, duck, items, names, setup):
        """A query as a relation. Its event time is `rt`."""
        scope = tuple(replace(item, flink=name, duck=name) for item, name in zip(items, names, strict=True))
        scope += (Expr("rt", "rt", TIME),)
        if self.dice.random() < 0.5:
            return Relation(scope, "rt", "", flink, duck, setup)
        name = self._name("v")
        return Relation(scope, "rt", name, "", "", (*setup, (f"CREATE VIEW {name} AS {flink}", f"CREATE VIEW {name} AS {duck}")))

    def _union(self, depth):
        """UNION ALL of two projections, whose columns have the same types."""
        one, two = self.projection(self.relation(depth - 1), inner=True), None
        other = self.relation(depth - 1)
        maker = Maker(self.dice, other.scope)
        items = []
        for item in one.items:
            made = maker.make(item.family, 1)
            text = f"CAST({made.flink} AS {item.type.flink})"
            if made.type != item.type and not _holds(item.type, made):
                text, made = "CAST(NULL AS " + item.type.flink + ")", replace(made, duck="NULL", bound=0)
            items.append(Expr(text, f"CAST({made.duck} AS {item.type.duck})", item.type, made.bound))
        two = Query(other, tuple(items), one.names, time=Expr(other.time, other.time, TIME))
        bounds = zip(one.items, items, strict=True)
        merged = tuple(replace(a, bound=max(a.bound, b.bound)) for a, b in bounds)
        setup = one.source.setup + tuple(s for s in other.setup if s not in one.source.setup)
        texts = [f"{one.text(of)} UNION ALL {two.text(of)}" for of in ("flink", "duck")]
        return self._named(*texts, merged, one.names, setup)

    def projection(self, source, inner=False):
        maker = Maker(self.dice, source.scope)
        where = self._where(maker)
        items = [maker.any(2) for _ in range(self.dice.choice([1, 3, 5]))]
        if inner or self.dice.random() < 0.3:
            items += [self.dice.choice(source.scope) for _ in range(3)]
        time = Expr(source.time, source.time, TIME) if inner else None
        items = _exact(items) if inner else items
        return Query(source, tuple(items), self._names(items), where, time=time)

    def aggregation(self, source, inner=False):
        dice, maker = self.dice, Maker(self.dice, source.scope)
        size = dice.choice([(1, "SECOND"), (10, "SECOND"), (90, "SECOND"), (1, "MINUTE"), (7, "MINUTE"), (1, "HOUR"), (1, "DAY")])
        offset = dice.choice([None, None, (3, "SECOND"), (-4, "SECOND"), (1, "MINUTE")])
        if offset and abs(millis(offset)) >= millis(size):
            offset = None
        columns = dice.choice(WINDOW_COLUMNS)
        if inner:
            columns = [*columns, "window_time"] if "window_time" not in columns else columns
        keys = self._keys(maker, source)
        where = self._where(maker)
        calls = [aggregates.call(maker) for _ in range(dice.choice([1, 2, 4]))]
        scope = [*keys, *calls, *(Expr(name, name, TIME) for name in columns)]
        over = Maker(dice, scope)
        items = [dice.choice(calls), *calls[1:], *keys[:2], *(over.any(1) for _ in range(dice.choice([0, 1, 2])))]
        if dice.random() < 0.8:
            items += [Expr(name, name, TIME) for name in columns[:2]]
        dice.shuffle(items)
        items = _exact(items) or [keys[0] if keys else Expr(columns[0], columns[0], TIME)] if inner else items
        having = (over.condition(1),) if dice.random() < 0.15 else ()
        time = Expr("window_time", "window_time", TIME) if inner else None
        return Query(source, tuple(items), self._names(items), where, (size, offset), tuple(columns), tuple(keys), having, time)

    def _where(self, maker):
        """No condition, or one, most of which let some rows through."""
        return (maker.condition(self.dice.choice([1, 2])),) if self.dice.random() < 0.4 else ()

    def _keys(self, maker, source):
        """Columns and expressions of columns; a literal would be a position."""
        keys = []
        for _ in range(self.dice.choice([0, 1, 1, 2, 3])):
            plain = [column for column in source.scope if column.exact and column.family != "double"]
            key = self.dice.choice(plain)
            if self.dice.random() < 0.3:
                made = maker.make(self.dice.choice(["int", "text", "bool", "decimal"]), 1)
                if maker.reads_a_column(made):
                    key = made
            if key.flink not in [other.flink for other in keys] and key.flink != source.time:
                keys.append(key)
        return keys

    def _names(self, items):
        """Names that no other query has: DuckDB looks for one among the results, too."""
        prefix = self._name("c")
        return tuple(f"{prefix}_{index}" for index in range(len(items)))


def _exact(items):
    """Those that later operators may compare."""
    return [item for item in items if item.exact]


def _holds(type_, made):
    """Whether every value of an expression fits a type without an error."""
    if type_.family == "int":
        return made.bound <= type_.most
    if type_.family == "decimal":
        return made.bound < 10 ** (type_.precision - type_.scale) - 1
    return True
