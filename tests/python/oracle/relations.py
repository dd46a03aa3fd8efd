"""What queries are made of: relations, which stand behind FROM, and SELECTs over them. Each has a text in both systems' SQL."""

from dataclasses import dataclass, replace

from .aggregates import ROWS
from .sql_types import Expr


@dataclass(frozen=True)
class Relation:
    """What stands behind FROM: a name that both systems know, a query in brackets, or a whole clause of joins. `setup` are the statements that make the name.

    `time` is the event time, empty where there is none. `rows` is a bound of how many rows there are. Rows of an `updating` relation may be taken back while it is computed.
    """

    scope: tuple
    time: str
    name: str = ""
    flink_query: str = ""
    duck_query: str = ""
    setup: tuple = ()
    rows: int = ROWS
    updating: bool = False
    # Both systems' texts of a FROM clause whose columns are qualified.
    clause: tuple = ()

    @property
    def flink(self):
        return self.name or f"({self.flink_query})"

    @property
    def duck(self):
        return self.name or f"({self.duck_query})"

    def from_clause(self, of):
        if self.clause:
            return self.clause[of == "duck"]
        return self.name or f"{getattr(self, of)} AS q"

    def qualified(self, alias):
        """The same rows under an alias, as a clause; the columns are read as `alias.column`."""
        if self.clause:
            raise ValueError("a clause has aliases")
        scope = tuple(replace(column, flink=f"{alias}.{column.flink}", duck=f"{alias}.{column.duck}") for column in self.scope)
        return replace(self, scope=scope, time="", name="", clause=(f"{self.flink} AS {alias}", f"{self.duck} AS {alias}"))


@dataclass(frozen=True)
class Query:
    """A SELECT. `items` are its columns in order, `names` their names; `keys` and `having` are those of an aggregation."""

    source: Relation
    items: tuple
    names: tuple
    where: tuple = ()
    # Of windows.py.
    window: object = None
    window_columns: tuple = ()
    # Whether rows are aggregated without a window; by no keys, all rows together.
    grouped: bool = False
    keys: tuple = ()
    having: tuple = ()
    distinct: bool = False
    # Triples of a name, a direction and 'NULLS FIRST', 'NULLS LAST' or ''; then the numbers of LIMIT and OFFSET.
    order: tuple = ()
    limit: int = None
    offset: int = 0
    # The event time of the result: an expression of both.
    time: Expr = None

    def text(self, of):
        selected = [f"{getattr(item, of)} AS {name}" for item, name in zip(self.items, self.names, strict=True)]
        if self.time:
            selected.append(f"{self.time.flink} AS rt")
        source = self.window.source(of, self) if self.window else self.source.from_clause(of)
        parts = [f"SELECT {'DISTINCT ' * self.distinct}{', '.join(selected)} FROM {source}"]
        if self.where:
            parts.append("WHERE " + " AND ".join(getattr(e, of) for e in self.where))
        keys = [getattr(key, of) for key in self.keys]
        if self.window:
            keys = [*self.window.group(of, self), *keys]
        if keys:
            parts.append("GROUP BY " + ", ".join(keys))
        having = [getattr(e, of) for e in self.having]
        if self.grouped and not keys:
            # Open: for no rows, SQL has a row.
            having.append("COUNT(*) > 0")
        if having:
            parts.append("HAVING " + " AND ".join(having))
        return " ".join(parts) + self._ending(of)

    def _ending(self, of):
        keys = []
        for name, direction, nulls in self.order:
            # Nulls are smaller than all values in Flink.
            shown = nulls or ("" if of == "flink" else "NULLS FIRST" if direction != "DESC" else "NULLS LAST")
            if name in self.names:
                keys.append(" ".join(part for part in (name, direction, shown) if part))
        text = f" ORDER BY {', '.join(keys)}" if keys else ""
        if self.limit is not None:
            text += f" LIMIT {self.limit}" + (f" OFFSET {self.offset}" if self.offset else "")
        return text

    @property
    def is_updating(self):
        """Whether its result may change as rows come, so that it leaves when the inputs have ended."""
        return self.source.updating or bool(self.source.clause) or self.grouped or bool(self.order)

    @property
    def types(self):
        return [item.type for item in self.items]
