"""Productions of texts: see expressions.py."""

from .sql_types import STRING, args, expr

# No text that is made is longer, in characters.
MOST_TEXT = 60


def concatenation(maker, depth):
    made = [maker.make("text", depth) for _ in range(maker.dice.choice([2, 3]))]
    bound = sum(e.bound for e in made)
    if bound > MOST_TEXT:
        return None
    duck = " || ".join(e.duck for e in made)
    # CONCAT with a null is null; DuckDB's CONCAT passes over it.
    flink = f"CONCAT({args(made)})" if maker.dice.random() < 0.5 else "(" + " || ".join(e.flink for e in made) + ")"
    return expr(flink, duck, STRING, bound)


def concat_ws(maker, depth):
    made = [maker.make("text", depth) for _ in range(2)]
    bound = sum(e.bound for e in made) + 1
    return expr(f"CONCAT_WS('-', {args(made)})", f"concat_ws('-', {args(made, 'duck')})", STRING, bound) if bound <= MOST_TEXT else None


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


# What is drawn from; what stands there twice is drawn twice as often.
TEXTS = [concatenation, concat_ws, changed_text, changed_text, changed_text, longer_text, cast_to_text, formatted_time]
