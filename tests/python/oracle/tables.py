"""Queries as of tables, whose results change as rows come: groups, distinct rows, set operations, subqueries, sorted rows. See queries.py."""

from dataclasses import replace

from . import aggregates, joins
from .expressions import Maker
from .relations import Query
from .sql_types import Expr


def grouped(queries, source, inner=False):
    """An aggregation without a window."""
    dice, maker = queries.dice, Maker(queries.dice, source.scope, source.rows, source.updating)
    keys = queries.keys(maker, source)
    if inner and not keys:
        # Open: a query that reads no column of an aggregate without keys is refused.
        keys = [column for column in source.scope if column.exact and column.family != "double"][:1]
    where = queries.where(maker)
    calls = [aggregates.call(maker) for _ in range(dice.choice([1, 2, 4]))]
    over = Maker(dice, [*keys, *calls])
    items = [*calls, *keys[:2], *(over.any(1) for _ in range(dice.choice([0, 1])))]
    dice.shuffle(items)
    items = [item for item in items if item.exact] or [aggregates.count_rows(maker)] if inner else items
    having = (over.condition(1),) if dice.random() < 0.25 else ()
    return Query(source, tuple(items), queries.names(items), where, grouped=True, keys=tuple(keys), having=having)


def distinct(queries, source, inner=False):
    """The distinct rows of a projection."""
    items = _comparable(queries, source)
    return Query(source, items, queries.names(items), queries.where(Maker(queries.dice, source.scope)), distinct=True)


def limited(queries, source, inner=False):
    """Sorted rows, and the first of them. Rows that are equal in all keys are the same, so that it does not matter which are left."""
    dice = queries.dice
    items = _comparable(queries, source)
    names = queries.names(items)
    order = tuple((name, dice.choice(["", "ASC", "DESC"]), dice.choice(["", "", "NULLS FIRST", "NULLS LAST"])) for name in dice.sample(names, len(names)))
    limit = dice.choice([0, 1, 7, 40, 1000]) if inner or dice.random() < 0.8 else None
    offset = dice.choice([0, 0, 1, 10]) if limit is not None else 0
    return Query(source, items, names, queries.where(Maker(dice, source.scope)), order=order, limit=limit, offset=offset)


def subqueries(queries, source, inner=False):
    """A projection with conditions that subqueries decide, and columns that subqueries give."""
    dice = queries.dice
    outer = source if source.clause else source.qualified(queries.name("l"))
    maker, where, setup, values = Maker(dice, outer.scope), list(queries.where(Maker(dice, outer.scope))), outer.setup, []
    for kind in dice.choice([["semi"], ["semi"], ["semi", "semi"], ["scalar"], ["column"], ["semi", "column"]]):
        if kind == "semi":
            made, needed = joins.semi_join(queries, outer, 1)
        else:
            # Open: a query that does not read such a column is refused if the subquery does not depend on the row.
            made, needed = joins.scalar(queries, outer, 1, correlated=True if inner and kind == "column" else None)
        setup = joins.merged(setup, needed)
        if kind == "column":
            values.append(made)
            continue
        if kind == "scalar":
            other, sign = maker.make(made.family, 1), dice.choice(["<", ">=", "="])
            made = Expr(f"({other.flink} {sign} {made.flink})", f"({other.duck} {sign} {made.duck})", None)
        where.append(made)
    items = [*values, *_items(maker)]
    return Query(replace(outer, setup=setup), tuple(items), queries.names(items), tuple(where))


def set_operation(queries, depth):
    """UNION, INTERSECT or EXCEPT of two projections, as a query in brackets."""
    return queries.combined(depth, queries.dice.choice(["UNION", "INTERSECT", "EXCEPT"]))


def _items(maker):
    """Exact expressions, and some columns as they are."""
    made = [item for item in (maker.any(1) for _ in range(maker.dice.choice([1, 2]))) if item.exact]
    plain = [column for column in maker.scope if column.exact]
    return made + [maker.dice.choice(plain) for _ in range(2) if plain] or [maker.literal("int")]


def _comparable(queries, source):
    """Columns that are equal in one system if they are in the other: no floating numbers, whose zeros have two signs. Few, so that rows are equal at times."""
    items = [item for item in _items(Maker(queries.dice, source.scope)) if item.family != "double"]
    return tuple(items[: queries.dice.choice([1, 2, 4])] or [Maker(queries.dice, ()).literal("int")])


QUERIES = [grouped, grouped, distinct, limited, subqueries, subqueries]
