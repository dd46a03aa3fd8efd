"""Random queries: projections and aggregations over tables, views, subqueries, unions, joins, and the results of other queries.

A query is over a relation with event time (windows.py), or over any (tables.py, joins.py).
"""

from dataclasses import replace

from . import aggregates, batch, joins, over, tables, windows
from .expressions import Maker
from .relations import Query, Relation
from .sql_types import TIME, Expr


class Queries:
    """Makes the queries of a case."""

    def __init__(self, dice, tables, database):
        self.dice, self.database, self.count = dice, database, 0
        self.tables = [Relation(tuple(c.expr for c in table.columns), table.time, table.name) for table in tables]

    def name(self, prefix):
        self.count += 1
        return f"{prefix}{self.count}"

    def query(self):
        """A query of a random shape."""
        if self.dice.random() < 0.5:
            source = self.dice.choice([joins.join, Queries.any_relation])(self, self.dice.choice([1, 1, 2]))
            return self.dice.choice([*tables.QUERIES, Queries.projection])(self, source)
        source = self.relation(self.dice.choice([0, 0, 1, 1, 2]))
        kind = self.dice.random()
        if kind < 0.25:
            return self.projection(source)
        return over.over(self, source) if kind < 0.5 else self.aggregation(source)

    def rows_of(self, relation, most):
        """How many rows DuckDB finds in a relation; it stops counting beyond `most`."""
        return batch.size(self.database, relation, most)

    def any_relation(self, depth):
        """A relation that may have no event time, and whose rows may be taken back."""
        if depth <= 0 or self.dice.random() < 0.3:
            return self.relation(max(depth, 0))
        if self.dice.random() < 0.35:
            return tables.set_operation(self, depth)
        source = self.dice.choice([joins.join, Queries.any_relation])(self, depth - 1)
        query = self.dice.choice(tables.QUERIES)(self, source, inner=True)
        return self._named(query.text("flink"), query.text("duck"), query.items, query.names, query.source.setup, source.rows, updating=True)

    def relation(self, depth):
        """A table, or a query over relations: as a view or in brackets."""
        if depth == 0:
            return self.dice.choice(self.tables)
        kind = self.dice.choice(["projection", "union", "aggregation", "over", "joined"])
        if kind == "union":
            return self.combined(depth, "UNION ALL")
        if kind == "joined":
            query = joins.timed(self, depth)
            return self._named(query.text("flink"), query.text("duck"), query.items, query.names, query.source.setup, query.source.rows, "rt")
        source = self.relation(depth - 1)
        make = {"projection": Queries.projection, "aggregation": Queries.aggregation, "over": over.over}[kind]
        query = make(self, source, inner=True)
        rows = source.rows * (query.window.copies if query.window else 1)
        return self._named(query.text("flink"), query.text("duck"), query.items, query.names, source.setup, rows, "rt")

    def _named(self, flink, duck, items, names, setup, rows, time="", updating=False):
        """A query as a relation."""
        scope = tuple(replace(item, flink=name, duck=name) for item, name in zip(items, names, strict=True))
        scope += (Expr(time, time, TIME),) if time else ()
        made = Relation(scope, time, rows=rows, updating=updating)
        if self.dice.random() < 0.5:
            return replace(made, flink_query=flink, duck_query=duck, setup=setup)
        name = self.name("v")
        return replace(made, name=name, setup=(*setup, (f"CREATE VIEW {name} AS {flink}", f"CREATE VIEW {name} AS {duck}")))

    def combined(self, depth, word):
        """UNION ALL of two projections with event time, or another set operation of two without it. Their columns have the same types."""
        timed = word == "UNION ALL"
        draw = self.relation if timed else self.any_relation
        one = self.projection(draw(depth - 1), inner=True)
        if not timed:
            kept = [(item, name) for item, name in zip(one.items, one.names, strict=True) if item.family != "double"][-3:]
            items, names = zip(*kept, strict=True) if kept else ((Maker(self.dice, ()).literal("int"),), one.names[:1])
            one = replace(one, items=tuple(items), names=tuple(names), time=None)
        other = draw(depth - 1)
        maker = Maker(self.dice, other.scope)
        items = []
        for item in one.items:
            made = maker.make(item.family, 1)
            text = f"CAST({made.flink} AS {item.type.flink})"
            if made.type != item.type and not _holds(item.type, made):
                text, made = "CAST(NULL AS " + item.type.flink + ")", replace(made, duck="NULL", bound=0)
            items.append(Expr(text, f"CAST({made.duck} AS {item.type.duck})", item.type, made.bound))
        two = Query(other, tuple(items), one.names, time=Expr(other.time, other.time, TIME) if timed else None)
        bounds = zip(one.items, items, strict=True)
        merged = tuple(replace(a, bound=max(a.bound, b.bound)) for a, b in bounds)
        texts = [f"{one.text(of)} {word} {two.text(of)}" for of in ("flink", "duck")]
        setup = joins.merged(one.source.setup, other.setup)
        return self._named(*texts, merged, one.names, setup, one.source.rows + other.rows, "rt" if timed else "", not timed)

    def projection(self, source, inner=False):
        maker = Maker(self.dice, source.scope)
        where = self.where(maker)
        items = [maker.any(2) for _ in range(self.dice.choice([1, 3, 5]))]
        if inner or self.dice.random() < 0.3:
            items += [self.dice.choice(source.scope) for _ in range(3) if source.scope]
        time = Expr(source.time, source.time, TIME) if inner and source.time else None
        items = _exact(items) if inner else items
        return Query(source, tuple(items), self.names(items), where, time=time)

    def aggregation(self, source, inner=False):
        dice, maker = self.dice, Maker(self.dice, source.scope, source.rows)
        window = windows.window(dice, inner)
        columns = dice.choice(windows.COLUMNS)
        if isinstance(window, windows.Session):
            columns = ["window_start", "window_end"]
        elif window.kind == "CUMULATE" and columns == ["window_start"]:
            # It does not say which window it is.
            columns = ["window_start", "window_end"]
        if inner:
            columns = [*columns, "window_time"] if "window_time" not in columns else columns
        keys = self.keys(maker, source)
        where = self.where(maker)
        calls = [aggregates.call(maker) for _ in range(dice.choice([1, 2, 4]))]
        bounds = window.columns(source, columns)
        scope = [*keys, *calls, *bounds]
        over = Maker(dice, scope)
        items = [dice.choice(calls), *calls[1:], *keys[:2], *(over.any(1) for _ in range(dice.choice([0, 1, 2])))]
        if dice.random() < 0.8:
            items += bounds[:2]
        dice.shuffle(items)
        items = _exact(items) or [keys[0] if keys else bounds[0]] if inner else items
        having = (over.condition(1),) if dice.random() < 0.15 else ()
        time = Expr("window_time", "window_time", TIME) if inner else None
        return Query(source, tuple(items), self.names(items), where, window, tuple(columns), keys=tuple(keys), having=having, time=time)

    def where(self, maker):
        """No condition, or one, most of which let some rows through."""
        return (maker.condition(self.dice.choice([1, 2])),) if self.dice.random() < 0.4 else ()

    def keys(self, maker, source):
        """Columns and expressions of columns; a literal would be a position."""
        keys = []
        for _ in range(self.dice.choice([0, 1, 1, 2, 3])):
            plain = [column for column in source.scope if column.exact and column.family != "double"]
            if not plain:
                break
            key = self.dice.choice(plain)
            if self.dice.random() < 0.3:
                made = maker.make(self.dice.choice(["int", "text", "bool", "decimal"]), 1)
                if maker.reads_a_column(made):
                    key = made
            if key.flink not in [other.flink for other in keys] and key.flink != source.time:
                keys.append(key)
        return keys

    def names(self, items):
        """Names that no other query has: DuckDB looks for one among the results, too."""
        prefix = self.name("c")
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
