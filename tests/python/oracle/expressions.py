"""The grammar of scalar expressions: each production gives one expression in both systems' SQL, with its type as Flink has it.

A production is a function of a `Maker` and a depth, listed under the family that it gives. It returns None where what it drew does not fit (a type
that overflows), and another is tried. To add a function: write a production and list it. Where DuckDB's function differs, the DuckDB text says so
in its own terms; where the two cannot be brought together, the function stays out and the reason stands in `LEFT_OUT`.
"""

import datetime

from .data import MILLISECOND, WORDS
from .sql_types import BIGINT, BOOLEAN, DATE, DOUBLE, INT, STRING, TIME, Expr, as_decimal, common, decimal, expr, wider

# What is not generated, and why.
LEFT_OUT = {
    "quotients of decimals": "DuckDB's are DOUBLE",
    "CAST of DOUBLE to STRING": "Java and C++ print floating numbers in other ways",
    "FIRST_VALUE, LAST_VALUE, ARRAY_AGG": "depend on the order of rows, which parallel subtasks do not keep",
    "LISTAGG itself": "the same; its length is generated",
    "overflow and division by zero": "errors of their rows here, infinite or wider in DuckDB; tests/flink covers them",
    "UPPER('ß'), characters beyond the BMP": "Java's case mapping and lengths; tests/flink covers them",
}
MOST_TEXT = 60


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


def literal_time(value):
    return f"TIMESTAMP '{value.strftime('%Y-%m-%d %H:%M:%S.')}{value.microsecond // 1000:03}'"


class Maker:
    """Makes random expressions over the columns of a scope."""

    def __init__(self, dice, scope):
        self.dice, self.scope = dice, scope

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


def _args(made, of="flink"):
    return ", ".join(getattr(e, of) for e in made)


def _fits(type_, bound):
    return bound <= type_.most


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
    return expr(f"{name}({_args(made)})", f"COALESCE({_args(made, 'duck')})", type_, max(e.bound for e in made))


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


# Whole numbers.


def sum_of_ints(maker, depth):
    a, b = maker.make("int", depth), maker.make("int", depth)
    type_, bound = wider(a.type, b.type), a.bound + b.bound
    sign = maker.dice.choice("+-")
    # DuckDB's literals are as narrow as the column beside them.
    duck = f"(CAST({a.duck} AS {type_.duck}) {sign} {b.duck})"
    return expr(f"({a.flink} {sign} {b.flink})", duck, type_, bound) if _fits(type_, bound) else None


def product_of_ints(maker, depth):
    a, b = maker.make("int", depth), maker.make("int", depth)
    type_, bound = wider(a.type, b.type), a.bound * b.bound
    duck = f"(CAST({a.duck} AS {type_.duck}) * CAST({b.duck} AS {type_.duck}))"
    return expr(f"({a.flink} * {b.flink})", duck, type_, bound) if _fits(type_, bound) else None


def quotient_of_ints(maker, depth):
    """Cut off towards 0, as DuckDB's `//`."""
    a, by = maker.make("int", depth), maker.dice.choice([2, 3, 7, 100, -3])
    return expr(f"({a.flink} / {by})", f"({a.duck} // ({by}))", wider(a.type, INT), a.bound)


def remainder(maker, depth):
    a, by = maker.make("int", depth), maker.dice.choice([2, 3, 5, 10])
    text = f"MOD({a.flink}, {by})" if maker.dice.random() < 0.5 else f"({a.flink} % {by})"
    return expr(text, f"({a.duck} % {by})", INT, by - 1)


def negative(maker, depth):
    a = maker.make("int", depth)
    return expr(f"(- {a.flink})", f"(- {a.duck})", a.type, a.bound)


def absolute(maker, depth):
    a = maker.make("int", depth)
    return expr(f"ABS({a.flink})", f"ABS({a.duck})", a.type, a.bound)


def cast_to_int(maker, depth):
    """What is behind the point is cut off, where DuckDB rounds."""
    type_ = maker.dice.choice([INT, BIGINT])
    a = maker.make(maker.dice.choice(["int", "decimal", "double"]), depth)
    duck = a.duck if a.family == "int" else f"trunc({a.duck})"
    return expr(f"CAST({a.flink} AS {type_.flink})", duck, type_, a.bound) if _fits(type_, a.bound) else None


def length(maker, depth):
    a = maker.make("text", depth)
    return expr(f"CHAR_LENGTH({a.flink})", f"length({a.duck})", INT, a.bound)


def position(maker, depth):
    a, part = maker.make("text", depth), quoted(maker.dice.choice(["a", "b", "é", " ", "zz", "-"]))
    form = maker.dice.choice(["POSITION({p} IN {a})", "LOCATE({p}, {a})", "INSTR({a}, {p})"])
    return expr(form.format(p=part, a=a.flink), f"position({part} IN {a.duck})", INT, a.bound)


def part_of_time(maker, depth):
    name, duck, bound = maker.dice.choice(
        [
            ("YEAR", "year", 9999),
            ("QUARTER", "quarter", 4),
            ("MONTH", "month", 12),
            ("WEEK", "week", 53),
            ("DAYOFYEAR", "dayofyear", 366),
            ("DAYOFMONTH", "day", 31),
            ("DAYOFWEEK", "1 + dayofweek", 7),
            ("HOUR", "hour", 23),
            ("MINUTE", "minute", 59),
            ("SECOND", "second", 59),
        ]
    )
    timed = name in ("HOUR", "MINUTE", "SECOND")
    a = maker.make("time" if timed or maker.dice.random() < 0.5 else "date", depth)
    unit = {"DAYOFYEAR": "DOY", "DAYOFMONTH": "DAY", "DAYOFWEEK": "DOW"}.get(name, name)
    flink = f"EXTRACT({unit} FROM {a.flink})" if maker.dice.random() < 0.5 else f"{name}({a.flink})"
    return expr(flink, f"{duck}({a.duck})", BIGINT, bound)


def between_times(maker, depth):
    """Whole units from one time to another."""
    unit, bound = maker.dice.choice([("MINUTE", 10**8), ("HOUR", 10**6), ("DAY", 10**5)])
    a, b = maker.make("time", depth), maker.make("time", depth)
    return expr(f"TIMESTAMPDIFF({unit}, {a.flink}, {b.flink})", f"date_sub('{unit}', {a.duck}, {b.duck})", INT, bound)


# Decimals.


def sum_of_decimals(maker, depth):
    a, b = maker.make("decimal", depth), maker.make(maker.dice.choice(["decimal", "int"]), depth)
    if maker.dice.random() < 0.5:
        a, b = b, a
    x, y = as_decimal(a.type), as_decimal(b.type)
    scale = max(x.scale, y.scale)
    precision = max(x.precision - x.scale, y.precision - y.scale) + scale + 1
    sign = maker.dice.choice("+-")
    if precision > 30:
        return None
    return expr(f"({a.flink} {sign} {b.flink})", f"({a.duck} {sign} {b.duck})", decimal(precision, scale), a.bound + b.bound)


def product_of_decimals(maker, depth):
    a, b = maker.make("decimal", depth), maker.make(maker.dice.choice(["decimal", "int"]), depth)
    x, y = as_decimal(a.type), as_decimal(b.type)
    # Flink's rule has one digit more than SQL's.
    type_ = decimal(x.precision + y.precision + 1, x.scale + y.scale)
    if type_.precision > 30:
        return None
    # DuckDB multiplies two decimals of up to 18 digits each in 64 bits.
    held = decimal(max(19, x.precision), x.scale) if y.precision <= 18 else x
    duck = f"(CAST({a.duck} AS {held.duck}) * CAST({b.duck} AS {y.duck}))"
    return expr(f"({a.flink} * {b.flink})", duck, type_, a.bound * b.bound)


def cast_to_decimal(maker, depth):
    """Rounded half away from zero in both."""
    a = maker.make(maker.dice.choice(["int", "decimal"]), depth)
    scale = maker.dice.choice([0, 1, 3])
    precision = len(str(a.bound + 1)) + scale
    return expr(f"CAST({a.flink} AS DECIMAL({precision}, {scale}))", a.duck, decimal(precision, scale), a.bound + 1)


def negative_decimal(maker, depth):
    a = maker.make("decimal", depth)
    form = maker.dice.choice(["(- {})", "ABS({})"])
    return expr(form.format(a.flink), form.format(a.duck), a.type, a.bound)


# Floating numbers: few operations on eighths, so that each result is exact.


def arithmetic_of_doubles(maker, depth):
    a, b = maker.make("double", 0), maker.make(maker.dice.choice(["double", "int"]), 0)
    if a.bound > 10**4 or b.bound > 10**7:
        return None
    sign = maker.dice.choice("+-*")
    bound = a.bound * b.bound if sign == "*" else a.bound + b.bound
    return expr(f"({a.flink} {sign} {b.flink})", f"({a.duck} {sign} {b.duck})", DOUBLE, bound)


def cast_to_double(maker, depth):
    a = maker.make("int", depth)
    return expr(f"CAST({a.flink} AS DOUBLE)", a.duck, DOUBLE, a.bound) if a.bound < 2**40 else None


def rounded_double(maker, depth):
    a, name = maker.make("double", depth), maker.dice.choice(["FLOOR", "CEIL", "ABS"])
    # Adding 0 makes no negative zero, which a text or a key could tell from zero.
    return expr(f"({name}({a.flink}) + 0)", f"({name}({a.duck}) + 0)", DOUBLE, a.bound + 1)


# Texts.


def concatenation(maker, depth):
    made = [maker.make("text", depth) for _ in range(maker.dice.choice([2, 3]))]
    bound = sum(e.bound for e in made)
    if bound > MOST_TEXT:
        return None
    duck = " || ".join(e.duck for e in made)
    # CONCAT with a null is null; DuckDB's CONCAT passes over it.
    flink = f"CONCAT({_args(made)})" if maker.dice.random() < 0.5 else "(" + " || ".join(e.flink for e in made) + ")"
    return expr(flink, duck, STRING, bound)


def concat_ws(maker, depth):
    made = [maker.make("text", depth) for _ in range(2)]
    bound = sum(e.bound for e in made) + 1
    return expr(f"CONCAT_WS('-', {_args(made)})", f"concat_ws('-', {_args(made, 'duck')})", STRING, bound) if bound <= MOST_TEXT else None


def changed_text(maker, depth):
    """Functions of one text whose results are no longer than it, and that have one form in both systems."""
    a = maker.make("text", depth)
    start, count = maker.dice.choice([1, 2, 4]), maker.dice.choice([0, 1, 3])
    flink, duck = maker.dice.choice(
        [
            ("UPPER({})", "upper({})"),
            ("LOWER({})", "lower({})"),
            ("REVERSE({})", "reverse({})"),
            ("TRIM({})", "trim({}, ' ')"),
            ("LTRIM({})", "ltrim({}, ' ')"),
            ("TRIM(BOTH 'a' FROM {})", "trim({}, 'a')"),
            (f"SUBSTRING({{}}, {start}, {count})", f"substring({{}}, {start}, {count})"),
            (f"SUBSTRING({{}} FROM {start})", f"substring({{}}, {start})"),
            (f"LEFT({{}}, {count})", f"left({{}}, {count})"),
            (f"RIGHT({{}}, {count})", f"right({{}}, {count})"),
            ("REPLACE({}, 'a', '')", "replace({}, 'a', '')"),
            ("REPLACE({}, 'ab', 'é')", "replace({}, 'ab', 'é')"),
            ("TRANSLATE({}, 'abé', 'xy')", "translate({}, 'abé', 'xy')"),
            ("REGEXP_REPLACE({}, '[0-9]', '*')", "regexp_replace({}, '[0-9]', '*', 'g')"),
        ]
    )
    return expr(flink.format(a.flink), duck.format(a.duck), STRING, a.bound)


def longer_text(maker, depth):
    a = maker.make("text", depth)
    flink, duck, bound = maker.dice.choice(
        [
            ("LPAD({}, 6, '*+')", "lpad({}, 6, '*+')", 6),
            ("RPAD({}, 3, '_')", "rpad({}, 3, '_')", 3),
            ("REPEAT({}, 2)", "repeat({}, 2)", 2 * a.bound),
            ("MD5({})", "md5({})", 32),
            # A character has up to three bytes.
            ("HEX({})", "hex({})", 6 * a.bound),
            ("TO_BASE64({})", "to_base64(encode({}))", 4 * a.bound + 4),
            ("SPLIT_INDEX({}, 'b', 1)", "string_split({}, 'b')[2]", a.bound),
            ("SHA256({})", "sha256({})", 64),
        ]
    )
    return expr(flink.format(a.flink), duck.format(a.duck), STRING, bound) if bound <= MOST_TEXT else None


def cast_to_text(maker, depth):
    a = maker.make(maker.dice.choice(["int", "decimal", "bool", "date"]), depth)
    duck = f"upper(CAST({a.duck} AS VARCHAR))" if a.family == "bool" else a.duck
    return expr(f"CAST({a.flink} AS STRING)", duck, STRING, 40)


def formatted_time(maker, depth):
    a = maker.make("time", depth)
    flink, duck = maker.dice.choice([("yyyy-MM-dd HH:mm", "%Y-%m-%d %H:%M"), ("HH:mm:ss.SSS", "%H:%M:%S.%g"), ("yyyyMMdd", "%Y%m%d")])
    return expr(f"DATE_FORMAT({a.flink}, '{flink}')", f"strftime({a.duck}, '{duck}')", STRING, 20)


# Conditions.


def comparison(maker, depth):
    family = maker.dice.choice(["int", "int", "decimal", "text", "double", "time", "date"])
    a, b = maker.make(family, depth), maker.make(family, depth)
    sign = maker.dice.choice(["=", "<>", "<", "<=", ">", ">="])
    return Expr(f"({a.flink} {sign} {b.flink})", f"({a.duck} {sign} {b.duck})", BOOLEAN)


def comparison_of_numbers(maker, depth):
    a, b = maker.make("int", depth), maker.make("decimal", depth)
    sign = maker.dice.choice(["=", "<", ">="])
    return Expr(f"({a.flink} {sign} {b.flink})", f"({a.duck} {sign} {b.duck})", BOOLEAN)


def between(maker, depth):
    a, b, c = (maker.make("int", depth) for _ in range(3))
    word = maker.dice.choice(["BETWEEN", "NOT BETWEEN"])
    return Expr(f"({a.flink} {word} {b.flink} AND {c.flink})", f"({a.duck} {word} {b.duck} AND {c.duck})", BOOLEAN)


def in_list(maker, depth):
    family = maker.dice.choice(["int", "text"])
    a = maker.make(family, depth)
    items = [maker.literal(family) for _ in range(maker.dice.choice([1, 2, 5]))]
    word = maker.dice.choice(["IN", "NOT IN"])
    return Expr(f"({a.flink} {word} ({_args(items)}))", f"({a.duck} {word} ({_args(items, 'duck')}))", BOOLEAN)


def is_null(maker, depth):
    a = maker.any(depth)
    word = maker.dice.choice(["IS NULL", "IS NOT NULL"])
    return Expr(f"({a.flink} {word})", f"({a.duck} {word})", BOOLEAN)


def like(maker, depth):
    a, pattern = maker.make("text", depth), quoted(maker.dice.choice(["a%", "%b", "_", "%é%", "", "%", "A_c", "__%"]))
    word = maker.dice.choice(["LIKE", "NOT LIKE"])
    return Expr(f"({a.flink} {word} {pattern})", f"({a.duck} {word} {pattern})", BOOLEAN)


def starts_with(maker, depth):
    a, b = maker.make("text", depth), maker.make("text", 0)
    name, duck = maker.dice.choice([("STARTSWITH", "starts_with"), ("ENDSWITH", "ends_with")])
    return Expr(f"{name}({a.flink}, {b.flink})", f"{duck}({a.duck}, {b.duck})", BOOLEAN)


def connective(maker, depth):
    a, b = maker.condition(depth), maker.condition(depth)
    word = maker.dice.choice(["AND", "OR"])
    # In a cast, as DuckDB joins chains of one connective and does not find a key among them.
    return expr(f"({a.flink} {word} {b.flink})", f"({a.duck} {word} {b.duck})", BOOLEAN)


def negation(maker, depth):
    a = maker.condition(depth)
    form = maker.dice.choice(["(NOT {})", "({} IS TRUE)", "({} IS NOT FALSE)", "({} IS FALSE)"])
    return Expr(form.format(a.flink), form.format(a.duck), BOOLEAN)


def distinct_from(maker, depth):
    family = maker.dice.choice(["int", "text", "date"])
    a, b = maker.make(family, depth), maker.make(family, depth)
    word = maker.dice.choice(["IS DISTINCT FROM", "IS NOT DISTINCT FROM"])
    return Expr(f"({a.flink} {word} {b.flink})", f"({a.duck} {word} {b.duck})", BOOLEAN)


# Dates and times.


def date_of_time(maker, depth):
    a = maker.make("time", depth)
    return expr(f"CAST({a.flink} AS DATE)", a.duck, DATE)


def time_of_date(maker, depth):
    a = maker.make("date", depth)
    return expr(f"CAST({a.flink} AS TIMESTAMP(3))", a.duck, TIME)


def floored_time(maker, depth):
    a, unit = maker.make("time", depth), maker.dice.choice(["SECOND", "MINUTE", "HOUR", "DAY", "MONTH", "YEAR"])
    return expr(f"FLOOR({a.flink} TO {unit})", f"date_trunc('{unit}', {a.duck})", TIME)


def moved_time(maker, depth):
    a = maker.make("time", depth)
    count, unit = maker.dice.choice([1, 5, 30]), maker.dice.choice(["SECOND", "MINUTE", "HOUR", "DAY"])
    sign = maker.dice.choice("+-")
    if maker.dice.random() < 0.5:
        return expr(f"({a.flink} {sign} INTERVAL '{count}' {unit})", f"({a.duck} {sign} INTERVAL {count} {unit})", TIME)
    return expr(f"TIMESTAMPADD({unit}, {sign.strip('+')}{count}, {a.flink})", f"({a.duck} {sign} INTERVAL {count} {unit})", TIME)


def _every(family):
    """The productions that any family has."""
    return [lambda maker, depth, make=make: make(maker, depth, family) for make in (column, column, case_when, case_of, coalesce, nullif, extreme)]


PRODUCTIONS = {
    "int": _every("int")
    + [sum_of_ints, sum_of_ints, product_of_ints, quotient_of_ints, remainder, negative, absolute, cast_to_int, length, position, part_of_time, between_times],
    "decimal": _every("decimal") + [sum_of_decimals, sum_of_decimals, product_of_decimals, cast_to_decimal, negative_decimal],
    "double": _every("double") + [arithmetic_of_doubles, arithmetic_of_doubles, cast_to_double, rounded_double],
    "text": _every("text") + [concatenation, concat_ws, changed_text, changed_text, changed_text, longer_text, cast_to_text, formatted_time],
    "bool": [lambda maker, depth: column(maker, depth, "bool")]
    + [comparison, comparison, comparison, comparison_of_numbers, between, in_list, is_null, like, starts_with, connective, connective, negation, distinct_from],
    "date": _every("date") + [date_of_time, date_of_time],
    "time": _every("time") + [time_of_date, floored_time, moved_time, moved_time],
}
