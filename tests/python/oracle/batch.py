"""DuckDB's answers to a case: the independent source."""

import duckdb

from . import aggregates, queries
from .data import arrow


def answers(case):
    """The rows of each query of a case, as lists of tuples."""
    with duckdb.connect() as db:
        db.execute(aggregates.MACROS)
        db.execute(queries.MACROS)
        for table in case.tables:
            # Read by the query below by its name.
            rows = arrow(table.columns, table.rows)
            db.register(f"{table.name}_rows", rows)
            types = ", ".join(f"CAST({column.name} AS {column.type.duck}) AS {column.name}" for column in table.columns)
            db.execute(f"CREATE TABLE {table.name} AS SELECT {types} FROM {table.name}_rows")
        for _, statement in case.setup:
            db.execute(statement)
        return [db.execute(query.text("duck")).fetchall() for query in case.queries]
