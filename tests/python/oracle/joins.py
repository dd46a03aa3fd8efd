"""Joins of relations, and subqueries in conditions that are joins: see queries.py."""

from dataclasses import replace

from .expressions import Maker
from .relations import Query
from .sql_types import BIGINT, TIME, Expr, expr
from .windows import interval

# No join gives more rows, so that a case takes no longer than others; and no clause of joins has more than three relations.
MOST_ROWS = 1_500
# How far times may be apart.
SPANS = [(0, "SECOND"), (1, "SECOND"), (10, "SECOND"), (90, "SECOND"), (1, "HOUR")]
KINDS = ["JOIN", "JOIN", "LEFT JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]
# Families whose values are equal in both systems if they are the same.
KEYS = ["text", "text", "int", "int", "int", "date", "decimal", "bool"]


def join(queries, depth):
    """Two or three relations, joined on keys and other conditions; or the first of them, where the result would be too large."""
    dice = queries.dice
    made = queries.any_relation(depth - 1).qualified(queries.name("l"))
    for _ in range(dice.choice([1, 1, 2])):
        other = queries.any_relation(depth - 1).qualified(queries.name("l"))
        kind = dice.choice(KINDS)
        on = _condition(dice, made, other)
        clause = tuple(f"{left} {kind} {right} ON {getattr(on, of)}" for left, right, of in zip(made.clause, other.clause, ("flink", "duck"), strict=True))
        updating = made.updating or other.updating or kind != "JOIN"
        joined = replace(made, scope=made.scope + other.scope, clause=clause, setup=merged(made.setup, other.setup), rows=MOST_ROWS, updating=updating)
        if queries.rows_of(joined, MOST_ROWS) <= MOST_ROWS:
            made = joined
    return made


def timed(queries, depth):
    """Two relations with event time, joined within a span of it: a query whose result has an event time; or a projection, where that would be too large."""
    dice = queries.dice
    left, right = (queries.relation(depth - 1) for _ in range(2))
    a, b = queries.name("l"), queries.name("l")
    one, other, kind = left.qualified(a), right.qualified(b), dice.choice(KINDS)
    keys = [equal(dice, one, other) for _ in range(dice.choice([0, 1, 1, 1, 2]))]
    ours, theirs = f"{a}.{left.time}", f"{b}.{right.time}"
    low, high = (interval(dice.choice(SPANS)) for _ in range(2))
    bounds = [f"{theirs} BETWEEN {ours} - {low} AND {ours} + {high}", f"{theirs} > {ours} AND {ours} + {high} >= {theirs}", f"{theirs} + {low} >= {ours} AND {theirs} <= {ours}", f"{ours} = {theirs}"]
    bound = dice.choice(bounds)
    keys.append(Expr(bound, bound, None))
    dice.shuffle(keys)
    on = {of: " AND ".join(getattr(key, of) for key in keys) for of in ("flink", "duck")}
    clause = tuple(f"{x} {kind} {y} ON {on[of]}" for x, y, of in zip(one.clause, other.clause, ("flink", "duck"), strict=True))
    joined = replace(one, scope=one.scope + other.scope, clause=clause, setup=merged(one.setup, other.setup), rows=MOST_ROWS)
    if queries.rows_of(joined, MOST_ROWS) > MOST_ROWS:
        return queries.projection(left, inner=True)
    maker = Maker(dice, joined.scope)
    items = [item for item in (maker.any(1), *dice.sample(joined.scope, min(3, len(joined.scope)))) if item.exact] or [maker.literal("int")]
    # Rows of a side that is padded have no time, and are in no window.
    time = {"JOIN": dice.choice([ours, theirs]), "LEFT JOIN": ours, "RIGHT JOIN": theirs, "FULL JOIN": dice.choice([ours, theirs])}[kind]
    return Query(joined, tuple(items), queries.names(items), queries.where(maker), time=Expr(time, time, TIME))


def merged(one, other):
    """The statements of both, each once."""
    return one + tuple(statement for statement in other if statement not in one)


def equal(dice, left, right, plain=False):
    """A condition on a key of each side; a `plain` one compares two columns."""
    family = dice.choice([family for family in KEYS if Maker(dice, left.scope).columns(family) and Maker(dice, right.scope).columns(family)] or ["int"])
    depth = 0 if plain else dice.choice([0, 0, 0, 1])
    a, b = (dice.choice(side.columns(family) or [side.literal(family)]) if plain else side.make(family, depth) for side in (Maker(dice, left.scope), Maker(dice, right.scope)))
    if not plain and dice.random() < 0.2:
        return Expr(f"({a.flink} IS NOT DISTINCT FROM {b.flink})", f"({a.duck} IS NOT DISTINCT FROM {b.duck})", None)
    return Expr(f"{a.flink} = {b.flink}", f"{a.duck} = {b.duck}", None)


def _condition(dice, left, right):
    """One or two keys, or none; and some other condition on both sides, most likely where there are few keys."""
    keys = [equal(dice, left, right) for _ in range(dice.choice([0, 1, 1, 1, 1, 2, 2]))]
    maker = Maker(dice, left.scope + right.scope)
    if not keys or dice.random() < 0.4:
        keys.append(maker.condition(dice.choice([1, 1, 2])))
    dice.shuffle(keys)
    return Expr(" AND ".join(e.flink for e in keys), " AND ".join(e.duck for e in keys), None)


def semi_join(queries, outer, depth):
    """A condition that a subquery decides: IN, EXISTS or NOT EXISTS. Returns it with the statements that it needs."""
    dice = queries.dice
    inner = queries.any_relation(depth - 1).qualified(queries.name("e"))
    maker = Maker(dice, inner.scope)
    if dice.random() < 0.4:
        family = dice.choice([family for family in KEYS if Maker(dice, outer.scope).columns(family) and maker.columns(family)] or ["int"])
        a, b = Maker(dice, outer.scope).make(family, dice.choice([0, 0, 1])), maker.make(family, dice.choice([0, 0, 1]))
        where = maker.condition(1) if dice.random() < 0.5 else None
        texts = [f"{getattr(a, of)} IN (SELECT {getattr(b, of)} FROM {inner.from_clause(of)}{_where([where] if where else [], of)})" for of in ("flink", "duck")]
        return Expr(*texts, None), inner.setup
    conditions = [equal(dice, outer, inner) for _ in range(dice.choice([1, 1, 2]))]
    if dice.random() < 0.5:
        conditions.append(Maker(dice, dice.choice([inner.scope, outer.scope + inner.scope])).condition(1))
    word = dice.choice(["EXISTS", "NOT EXISTS"])
    texts = [f"{word} (SELECT 1 FROM {inner.from_clause(of)}{_where(conditions, of)})" for of in ("flink", "duck")]
    return Expr(*texts, None), inner.setup


def scalar(queries, outer, depth, correlated=None):
    """A subquery of one value, which may depend on the row: by columns that are equal, as other conditions are refused. Returns it with the statements that it needs."""
    dice = queries.dice
    inner = queries.any_relation(depth - 1).qualified(queries.name("e"))
    maker = Maker(dice, inner.scope)
    if correlated is None:
        correlated = dice.random() < 0.5
    conditions = [equal(dice, outer, inner, plain=True)] if correlated else []
    if dice.random() < 0.4:
        conditions.append(maker.condition(1))
    if correlated and dice.random() < 0.3:
        call, made = "COUNT(*)", Expr("", "", BIGINT, inner.rows)
    else:
        made = maker.make(dice.choice(["int", "text", "date", "decimal"]), 1)
        call = dice.choice(["MIN", "MAX"])
    texts = []
    for of in ("flink", "duck"):
        value = call if call == "COUNT(*)" else f"{call}({getattr(made, of)})"
        texts.append(f"(SELECT {value} FROM {inner.from_clause(of)}{_where(conditions, of)})")
    return expr(*texts, made.type, made.bound), inner.setup


def _where(conditions, of):
    return " WHERE " + " AND ".join(getattr(e, of) for e in conditions) if conditions else ""
