"""The oracle harness: random data and random queries, answered by Coulee as a stream and by DuckDB in batch.

    seed ─▶ case.py ─┬─▶ tables (data.py): typed columns, rows, an order in which no row is late
                     └─▶ queries (queries.py) of relations and SELECTs (relations.py), expressions (expressions.py and the files that it lists) and
                         aggregates (aggregates.py), each as two texts: Flink's SQL and DuckDB's. With event time: windows and sessions
                         (windows.py), columns of the rows before (over.py). Without: joins and subqueries (joins.py), groups, distinct, combined and sorted rows (tables.py)
    case ─▶ running.py: one way to run it (parallelism, rows per batch, format, shards, kills) ─▶ delivered rows
    case ─▶ batch.py: DuckDB's rows
    compare.py: both as multisets;  shrink.py: a smaller case that still differs

`COULEE_ORACLE_SEED=17` repeats one seed. CONTRIBUTING.md ("The oracle") says how to extend the grammar.
"""
