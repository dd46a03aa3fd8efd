"""DuckDB's answers to a case: the independent source."""

import duckdb

from . import aggregates, windows
from .data import arrow


def database(tables):
    """A database with these tables."""
    db = duckdb.connect()
    db.execute(aggregates.MACROS)
    db.execute(windows.MACROS)
    for table in tables:
        # Read by the query below by its name.
        rows = arrow(table.columns, table.rows)
        db.register(f"{table.name}_rows", rows)
        types = ", ".join(f"CAST({column.name} AS {column.type.duck}) AS {column.name}" for column in table.columns)
        db.execute(f"CREATE TABLE {table.name} AS SELECT {types} FROM {table.name}_rows")
    return db


def answers(case):
    """The rows of each query of a case, as lists of tuples."""
    with database(case.tables) as db:
        for _, statement in case.setup:
            db.execute(statement)
        return [db.execute(query.text("duck")).fetchall() for query in case.queries]


def size(db, relation, most):
    """How many rows a relation has: one more than `most` where they are more, or where DuckDB does not know its kind of join."""
    for _, statement in relation.setup:
        db.execute(statement.replace("CREATE VIEW", "CREATE OR REPLACE VIEW", 1))
    try:
        return db.execute(f"SELECT count(*) FROM (SELECT 1 FROM {relation.from_clause('duck')} LIMIT {most + 1})").fetchone()[0]
    except (duckdb.NotImplementedException, duckdb.BinderException):
        return most + 1
