"""The grammar of scalar expressions: each production gives one expression in both systems' SQL, with its type as Flink has it.

A production is a function of a `Maker` and a depth, listed under the family that it gives in `numeric`, `texts`, `conditions` and `times`. It returns None where what it drew does not fit (a type
that overflows), and another is tried. To add a function: write a production and list it. Where DuckDB's function differs, the DuckDB text says so
in its own terms; where the two cannot be brought together, the function stays out and the reason stands in `LEFT_OUT`.
"""

import datetime

from . import conditions, numeric, texts, times
from .data import MILLISECOND, WORDS
from .sql_types import BOOLEAN, DATE, DOUBLE, INT, STRING, TIME, Expr, args, common, decimal, expr, quoted

# What is not generated, and why.
LEFT_OUT = {
    "quotients of decimals": "DuckDB's are DOUBLE",
    "CAST of DOUBLE to STRING": "Java and C++ print floating numbers in other ways",
    "FIRST_VALUE, LAST_VALUE, ARRAY_AGG": "depend on the order of rows, which parallel subtasks do not keep",
    "LISTAGG itself": "the same; its length is generated",
    "overflow and division by zero": "errors of their rows here, infinite or wider in DuckDB; tests/flink covers them",
    "UPPER('ß'), characters beyond the BMP": "Java's case mapping and lengths; tests/flink covers them",
}


def literal_time(value):
    return f"TIMESTAMP '{value.strftime('%Y-%m-%d %H:%M:%S.')}{value.microsecond // 1000:03}'"


class Maker:
    """Makes random expressions over the columns of a scope."""

    def __init__(self, dice, scope, rows=1, updating=False):
        self.dice, self.scope = dice, scope
        # For aggregates: how many rows there may be, and whether rows are taken back.
        self.rows, self.updating = rows, updating

    def columns(self, family, exact=True):
        return [column for column in self.scope if column.family == family and (column.exact or not exact)]

    def any(self, depth=2):
        """An expression of any family that is likely."""
        family = self.dice.choice(["int", "int", "decimal", "text", "text", "bool", "double", "time", "date"])
        return self.make(family, depth)

    def make(self, family, depth):
        """An expression of the family, exact. A column or a literal when the depth is used up."""
        columns = self.columns(family)
        for _ in range(20):
            if depth <= 0 or self.dice.random() < 0.15:
                if columns and self.dice.random() < 0.85:
                    return self.dice.choice(columns)
                return self.literal(family)
            made = self.dice.choice(PRODUCTIONS[family])(self, depth - 1)
            if made is not None:
                return made
        return self.dice.choice(columns) if columns else self.literal(family)

    def literal(self, family):
        dice = self.dice
        if family == "int":
            value = dice.choice([0, 1, 2, 7, dice.randrange(1000), -dice.randrange(1, 100)])
            return Expr(f"({value})" if value < 0 else str(value), f"({value})", INT, abs(value))
        if family == "decimal":
            text = f"{dice.randrange(1, 10_000) / 100:.2f}"
            # As written: the 0 in front of the point is a digit.
            return expr(text, text, decimal(len(text) - 1, 2), 100)
        if family == "double":
            value = dice.randrange(0, 80) / 8
            return Expr(f"{value}E0", f"CAST({value} AS DOUBLE)", DOUBLE, 10)
        if family == "text":
            value = dice.choice(WORDS)
            return Expr(quoted(value), quoted(value), STRING, len(value))
        if family == "bool":
            value = dice.choice(["TRUE", "FALSE"])
            return Expr(value, value, BOOLEAN)
        if family == "date":
            value = f"DATE '{datetime.date(2024, 1, 1) + datetime.timedelta(days=dice.randrange(60))}'"
            return Expr(value, value, DATE)
        value = literal_time(datetime.datetime(2024, 2, 28, 23) + MILLISECOND * dice.randrange(10**8))
        return expr(value, value, TIME)

    def reads_a_column(self, made):
        return any(column.flink in made.flink for column in self.scope)

    def condition(self, depth=2):
        """A condition that most likely depends on the row."""
        for _ in range(5):
            made = self.make("bool", depth)
            if self.reads_a_column(made):
                break
        return made

    def together(self, family, count, depth):
        """So many expressions of a family and the type that a CASE over them has."""
        made = [self.make(family, depth) for _ in range(count)]
        type_ = common([e.type for e in made])
        return (made, type_) if type_ else None


# Of any family.


def column(maker, depth, family):
    columns = maker.columns(family)
    return maker.dice.choice(columns) if columns else None


def case_when(maker, depth, family):
    found = maker.together(family, 2, depth)
    if not found:
        return None
    (a, b), type_ = found
    when = maker.condition(depth)
    ending = maker.dice.choice(["ELSE", "NONE", "IF"])
    bound = max(a.bound, b.bound)
    if ending == "NONE":
        return expr(f"CASE WHEN {when.flink} THEN {a.flink} END", f"CASE WHEN {when.duck} THEN {a.duck} END", a.type, a.bound)
    duck = f"CASE WHEN {when.duck} THEN {a.duck} ELSE {b.duck} END"
    if ending == "IF":
        return expr(f"IF({when.flink}, {a.flink}, {b.flink})", duck, type_, bound)
    return expr(f"CASE WHEN {when.flink} THEN {a.flink} ELSE {b.flink} END", duck, type_, bound)


def case_of(maker, depth, family):
    """CASE with an operand."""
    key = maker.make("int", depth)
    found = maker.together(family, 3, depth)
    if not found:
        return None
    (a, b, c), type_ = found
    one, two = maker.dice.choice([(0, 1), (1, 3), (7, 0)])
    form = f"CASE {{}} WHEN {one} THEN {{}} WHEN {two} THEN {{}} ELSE {{}} END"
    flink, duck = (form.format(*(getattr(e, of) for e in (key, a, b, c))) for of in ("flink", "duck"))
    return expr(flink, duck, type_, max(e.bound for e in (a, b, c)))


def coalesce(maker, depth, family):
    found = maker.together(family, maker.dice.choice([2, 3]), depth)
    if not found:
        return None
    made, type_ = found
    name = "IFNULL" if len(made) == 2 and maker.dice.random() < 0.3 else "COALESCE"
    return expr(f"{name}({args(made)})", f"COALESCE({args(made, 'duck')})", type_, max(e.bound for e in made))


def nullif(maker, depth, family):
    a, b = maker.make(family, depth), maker.make(family, depth)
    return expr(f"NULLIF({a.flink}, {b.flink})", f"NULLIF({a.duck}, {b.duck})", a.type, a.bound)


def extreme(maker, depth, family):
    """GREATEST and LEAST: null if one is null, where DuckDB's pass over nulls."""
    found = maker.together(family, 2, depth)
    if not found:
        return None
    (a, b), type_ = found
    name = maker.dice.choice(["GREATEST", "LEAST"])
    duck = f"CASE WHEN {a.duck} IS NULL OR {b.duck} IS NULL THEN NULL ELSE {name}({a.duck}, {b.duck}) END"
    return expr(f"{name}({a.flink}, {b.flink})", duck, type_, max(a.bound, b.bound))


def _every(family):
    """The productions that any family has."""
    return [lambda maker, depth, make=make: make(maker, depth, family) for make in (column, column, case_when, case_of, coalesce, nullif, extreme)]


PRODUCTIONS = {
    "int": _every("int") + numeric.INTS,
    "decimal": _every("decimal") + numeric.DECIMALS,
    "double": _every("double") + numeric.DOUBLES,
    "text": _every("text") + texts.TEXTS,
    "bool": [lambda maker, depth: column(maker, depth, "bool"), *conditions.CONDITIONS],
    "date": _every("date") + times.DATES,
    "time": _every("time") + times.TIMES,
}
