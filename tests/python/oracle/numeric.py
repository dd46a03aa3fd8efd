"""Productions of numbers: see expressions.py."""

from .sql_types import BIGINT, DOUBLE, INT, as_decimal, decimal, expr, fits, quoted, wider


# Whole numbers.


def sum_of_ints(maker, depth):
    a, b = maker.make("int", depth), maker.make("int", depth)
    type_, bound = wider(a.type, b.type), a.bound + b.bound
    sign = maker.dice.choice("+-")
    # DuckDB's literals are as narrow as the column beside them.
    duck = f"(CAST({a.duck} AS {type_.duck}) {sign} {b.duck})"
    return expr(f"({a.flink} {sign} {b.flink})", duck, type_, bound) if fits(type_, bound) else None


def product_of_ints(maker, depth):
    a, b = maker.make("int", depth), maker.make("int", depth)
    type_, bound = wider(a.type, b.type), a.bound * b.bound
    duck = f"(CAST({a.duck} AS {type_.duck}) * CAST({b.duck} AS {type_.duck}))"
    return expr(f"({a.flink} * {b.flink})", duck, type_, bound) if fits(type_, bound) else None


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
    return expr(f"CAST({a.flink} AS {type_.flink})", duck, type_, a.bound) if fits(type_, a.bound) else None


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


# What is drawn from; what stands there twice is drawn twice as often.
INTS = [
    sum_of_ints,
    sum_of_ints,
    product_of_ints,
    quotient_of_ints,
    remainder,
    negative,
    absolute,
    cast_to_int,
    length,
    position,
    part_of_time,
    between_times,
]
DECIMALS = [sum_of_decimals, sum_of_decimals, product_of_decimals, cast_to_decimal, negative_decimal]
DOUBLES = [arithmetic_of_doubles, arithmetic_of_doubles, cast_to_double, rounded_double]
