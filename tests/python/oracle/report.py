"""What is told of a problem: how to repeat it, and the smallest case that has it."""


def report(seed, case, way, problem, command):
    """The text of a failure."""
    parts = [f"seed {seed}: {problem.kind}. To repeat it: {command}", str(way), problem.text, ""]
    for table in case.tables:
        names = ", ".join(f"{column.name} {column.type.flink}" for column in table.columns)
        parts.append(f"{table.name} ({names}), {len(table.rows)} rows, delay {table.delay_ms} ms")
        parts += [f"  {tuple(str(value) if value is not None else None for value in row)}" for row in table.rows[:10]]
    for flink, _ in case.setup:
        parts.append(f"{flink};")
    queries = case.queries if problem.query is None else [case.queries[problem.query]]
    for query in queries:
        parts += ["Flink:  " + query.text("flink"), "DuckDB: " + query.text("duck")]
    return "\n".join(parts)
