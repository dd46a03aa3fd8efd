"""The types of columns and expressions: their names in both systems, their literals, and how wide they are."""

from dataclasses import dataclass

INTEGERS = ("TINYINT", "SMALLINT", "INT", "BIGINT")
BITS = {"TINYINT": 8, "SMALLINT": 16, "INT": 32, "BIGINT": 64}
# The digits that a whole number has as a DECIMAL, as in Flink.
DIGITS = {"TINYINT": 3, "SMALLINT": 5, "INT": 10, "BIGINT": 19}


@dataclass(frozen=True)
class Type:
    name: str
    precision: int = 0
    scale: int = 0

    @property
    def family(self):
        """What the grammar asks for: 'int', 'decimal', 'double', 'text', 'bool', 'date' or 'time'."""
        if self.name in INTEGERS:
            return "int"
        return {"DECIMAL": "decimal", "DOUBLE": "double", "STRING": "text", "BOOLEAN": "bool", "DATE": "date", "TIMESTAMP": "time"}[self.name]

    @property
    def flink(self):
        if self.name == "DECIMAL":
            return f"DECIMAL({self.precision}, {self.scale})"
        return f"TIMESTAMP({self.precision})" if self.name == "TIMESTAMP" else self.name

    @property
    def duck(self):
        if self.name == "DECIMAL":
            return f"DECIMAL({self.precision}, {self.scale})"
        return {"INT": "INTEGER", "STRING": "VARCHAR"}.get(self.name, self.name)

    @property
    def most(self):
        """The largest whole number of an integer type."""
        return 2 ** (BITS[self.name] - 1) - 1


TINYINT, SMALLINT, INT, BIGINT = (Type(name) for name in INTEGERS)
DOUBLE, STRING, BOOLEAN, DATE = Type("DOUBLE"), Type("STRING"), Type("BOOLEAN"), Type("DATE")
TIME = Type("TIMESTAMP", 3)


def decimal(precision, scale):
    return Type("DECIMAL", precision, scale)


def wider(a, b):
    """The wider of two integer types."""
    return a if BITS[a.name] >= BITS[b.name] else b


def as_decimal(of):
    """A whole number's type as a decimal; a decimal's is its own."""
    return of if of.name == "DECIMAL" else decimal(DIGITS[of.name], 0)


def common(types):
    """The type of a CASE whose branches have these types; None where there is none of at most 30 digits."""
    first = types[0]
    if first.family == "int":
        for other in types[1:]:
            first = wider(first, other)
        return first
    if first.family != "decimal":
        return first
    scale = max(t.scale for t in types)
    precision = max(t.precision - t.scale for t in types) + scale
    return decimal(precision, scale) if precision <= 30 else None


@dataclass(frozen=True)
class Expr:
    """An expression of both systems.

    `bound`: no value is larger (numbers, without sign) or longer (text, in characters). `exact`: both systems give the same bits; of other values
    only approximations are compared, so they are no keys and stand in no condition.
    """

    flink: str
    duck: str
    type: Type
    bound: int = 0
    exact: bool = True

    @property
    def family(self):
        return self.type.family


def expr(flink, duck, type_, bound=0, exact=True):
    """An expression whose DuckDB form is brought to the type that Flink's has."""
    return Expr(flink, f"CAST({duck} AS {type_.duck})", type_, bound, exact)


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


def args(made, of="flink"):
    """Expressions as arguments."""
    return ", ".join(getattr(e, of) for e in made)


def fits(type_, bound):
    """Whether an integer type holds all numbers up to a bound."""
    return bound <= type_.most
