"""OVER: aggregates of the rows around each row, numbers of rows and values of other rows, in the order of event time. See queries.py."""

from dataclasses import replace

from . import aggregates, windows
from .expressions import Maker
from .relations import Query
from .sql_types import BIGINT, BOOLEAN, TIME, Expr, expr

SPANS = [(1, "SECOND"), (5, "SECOND"), (1, "MINUTE"), (1, "HOUR"), (2, "DAY")]


def over(queries, source, inner=False):
    """A projection with columns of the rows before. `source` has an event time."""
    dice, by = queries.dice, queries.keys(Maker(queries.dice, source.scope), source)
    # Equal rows may come in any order: what depends on it is computed of columns that are equal in them.
    sure = tuple(column for column in source.scope if column.exact and column.family != "double")
    ahead = not inner and dice.random() < 0.3
    # Equal rows get different numbers and frames, in one order the same ones in both systems; in two orders, which go together is open.
    falls = {column.flink: dice.choice(["ASC", "DESC"]) for column in sure}
    calls = [_call(dice, source, by, sure, falls, ahead) for _ in range(dice.choice([1, 1, 2, 3]))]
    made = Maker(dice, source.scope)
    items = [*calls, *(made.any(1) for _ in range(dice.choice([0, 1, 2]))), *(dice.choice(source.scope) for _ in range(2))]
    items = [item for item in items if item.exact] or [calls[0]] if inner else items
    has_time = Expr(f"{source.time} IS NOT NULL", f"{source.time} IS NOT NULL", BOOLEAN)
    time = Expr(source.time, source.time, TIME) if inner else None
    return Query(source, tuple(items), queries.names(items), (has_time, *queries.where(made)), time=time)


def _call(dice, source, by, sure, falls, ahead):
    """A call with its OVER clause. `falls`: the direction of each column in its order; `ahead`: it may be of rows that follow."""
    time = f"{source.time} ASC NULLS FIRST"
    in_rows = bool(sure) and dice.random() < 0.5
    maker = Maker(dice, sure if in_rows else source.scope, source.rows)
    rest = [column.flink for column in sure if column.flink != source.time] if in_rows else []
    order = ", ".join([time, *(f"{column} {falls[column]} NULLS FIRST" for column in rest)])
    kind = dice.choice(["aggregate", "aggregate", "aggregate", "number", "lag" if in_rows else "aggregate"])
    if kind == "lag":
        of, rows, name = maker.any(1), dice.choice([0, 1, 2, 5]), dice.choice(["LAG", "LEAD"]) if ahead else "LAG"
        call, frame = Expr(f"{name}({of.flink}, {rows})", f"{name}({of.duck}, {rows})", of.type, of.bound, of.exact), ""
    elif kind == "number":
        name = "ROW_NUMBER" if in_rows else dice.choice(["RANK", "DENSE_RANK"])
        call, frame = Expr(f"{name}()", f"{name.lower()}()", BIGINT, source.rows), ""
    else:
        call = _aggregate(maker)
        if in_rows:
            start = dice.choice(["UNBOUNDED PRECEDING", "CURRENT ROW", "1 PRECEDING", "4 PRECEDING", "30 PRECEDING"])
            end = dice.choice(["CURRENT ROW", "UNBOUNDED FOLLOWING", "1 FOLLOWING", "6 FOLLOWING"]) if ahead else "CURRENT ROW"
            frame = f" ROWS BETWEEN {start} AND {end}"
        else:
            span = windows.interval(dice.choice(SPANS))
            ends = ["CURRENT ROW", "UNBOUNDED FOLLOWING", f"{windows.interval(dice.choice(SPANS))} FOLLOWING"] if ahead else ["CURRENT ROW"]
            bounded = f" RANGE BETWEEN {span} PRECEDING AND {dice.choice(ends)}"
            frame = dice.choice(["", bounded, bounded])
    texts = []
    for of in ("flink", "duck"):
        keys = ", ".join(getattr(key, of) for key in by)
        partition = f"PARTITION BY {keys} " if keys else ""
        texts.append(f"{getattr(call, of)} OVER ({partition}ORDER BY {order}{frame})")
    return expr(*texts, call.type, call.bound, call.exact)


def _bare(made):
    """DuckDB's call without the cast around it."""
    return made.duck.removeprefix("CAST(").removesuffix(f" AS {made.type.duck})")


def _aggregate(maker):
    """A single call in both systems: OVER stands behind it."""
    while True:
        made = aggregates.call(maker)
        if not _bare(made).startswith(("average_to_six", "length")):
            return replace(made, duck=_bare(made))
