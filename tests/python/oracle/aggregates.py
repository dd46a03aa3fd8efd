"""The grammar of aggregates: each call as Flink has it and as DuckDB has it, with its type as in Flink."""

from .sql_types import BIGINT, DOUBLE, INT, decimal, expr, quoted

# No table has more rows, and no union of two.
ROWS = 700


def _filter(maker):
    """A FILTER clause in both systems, or none."""
    if maker.dice.random() < 0.7:
        return "", ""
    condition = maker.condition(1)
    return f" FILTER (WHERE {condition.flink})", f" FILTER (WHERE {condition.duck})"


def _distinct(maker):
    return "DISTINCT " if maker.dice.random() < 0.25 else ""


def count_rows(maker):
    flink, duck = _filter(maker)
    return expr(f"COUNT(*){flink}", f"count(*){duck}", BIGINT, maker.rows)


def count(maker):
    a, distinct, (flink, duck) = maker.any(1), _distinct(maker), _filter(maker)
    if a.family == "double":
        distinct = ""
    return expr(f"COUNT({distinct}{a.flink}){flink}", f"count({distinct}{a.duck}){duck}", BIGINT, maker.rows)


def total(maker):
    """SUM has the type of whole and floating numbers, and 38 digits for decimals."""
    a, distinct, (flink, duck) = maker.make(maker.dice.choice(["int", "int", "decimal", "double"]), 1), _distinct(maker), _filter(maker)
    bound = a.bound * maker.rows
    if a.family == "double":
        # Beyond, a sum in another order may have other bits.
        exact = bound < 2**40
        if maker.updating and not exact:
            return None
        return expr(f"SUM({a.flink}){flink}", f"sum({a.duck}){duck}", DOUBLE, bound, exact)
    if a.family == "int":
        if bound > a.type.most:
            return None
        return expr(f"SUM({distinct}{a.flink}){flink}", f"sum({distinct}{a.duck}){duck}", a.type, bound)
    return expr(f"SUM({distinct}{a.flink}){flink}", f"sum({distinct}{a.duck}){duck}", decimal(38, a.type.scale), bound)


def average(maker):
    """AVG of whole and floating numbers is DOUBLE; of decimals it has six digits at least, rounded half up."""
    a, distinct, (flink, duck) = maker.make(maker.dice.choice(["int", "decimal", "double"]), 1), _distinct(maker), _filter(maker)
    if a.family == "double":
        distinct = ""
        if maker.updating and a.bound * maker.rows >= 2**40:
            return None
    call = f"AVG({distinct}{a.flink}){flink}"
    if a.family != "decimal":
        return expr(call, f"avg({distinct}{a.duck}){duck}", DOUBLE, a.bound, False)
    if a.type.scale > 6 or a.bound > 10**9:
        return None
    sums, counts = f"sum({distinct}{a.duck}){duck}", f"count({distinct}{a.duck}){duck}"
    return expr(call, f"average_to_six({sums}, {counts})", decimal(38, 6), a.bound + 1)


def extreme(maker):
    name = maker.dice.choice(["MIN", "MAX"])
    a, (flink, duck) = maker.make(maker.dice.choice(["int", "decimal", "text", "double", "time", "date"]), 1), _filter(maker)
    return expr(f"{name}({a.flink}){flink}", f"{name}({a.duck}){duck}", a.type, a.bound)


def spread(maker):
    if maker.updating:
        # What is left of large numbers that were taken back depends on the order.
        return None
    name = maker.dice.choice(["STDDEV_POP", "STDDEV_SAMP", "VAR_POP", "VAR_SAMP"])
    a, (flink, duck) = maker.make("double", 1), _filter(maker)
    return expr(f"{name}({a.flink}){flink}", f"{name}({a.duck}){duck}", DOUBLE, a.bound**2, False)


def listed(maker):
    """The length of a list, which no order changes. An empty list is null in both."""
    a, (flink, duck) = maker.make("text", 1), _filter(maker)
    separator = quoted(maker.dice.choice([",", "", "--"]))
    return expr(f"CHAR_LENGTH(LISTAGG({a.flink}, {separator}){flink})", f"length(string_agg({a.duck}, {separator}){duck})", INT, (a.bound + 2) * maker.rows)


CALLS = [count_rows, count_rows, count, count, total, total, total, average, average, extreme, extreme, spread, listed]

# AVG of decimals with exact arithmetic, rounded half up: DuckDB's own gives a DOUBLE.
MACROS = """
CREATE MACRO average_to_six(total, n) AS
    CAST(sign(total) * ((2 * abs(CAST(CAST(total AS DECIMAL(38, 6)) * 1000000 AS HUGEINT)) + n) // (2 * n)) AS DECIMAL(28, 0))
    * CAST(0.000001 AS DECIMAL(7, 6))
"""


def call(maker):
    """An aggregate call."""
    while True:
        made = maker.dice.choice(CALLS)(maker)
        if made is not None:
            return made

