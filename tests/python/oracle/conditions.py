"""Productions of conditions: see expressions.py."""

from .sql_types import BOOLEAN, Expr, args, expr, quoted


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
    return Expr(f"({a.flink} {word} ({args(items)}))", f"({a.duck} {word} ({args(items, 'duck')}))", BOOLEAN)


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


# What is drawn from; what stands there twice is drawn twice as often.
CONDITIONS = [
    comparison,
    comparison,
    comparison,
    comparison_of_numbers,
    between,
    in_list,
    is_null,
    like,
    starts_with,
    connective,
    connective,
    negation,
    distinct_from,
]
