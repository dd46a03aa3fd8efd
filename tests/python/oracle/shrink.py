"""A smaller case with the same problem: fewer queries, lives, columns, conditions and rows."""

import shutil
import time
from dataclasses import replace

from . import batch
from .check import check

SECONDS = 40


def shrink(case, way, problem, folder):
    """The smallest case and way found within some time whose problem is of the same kind, and that problem."""
    deadline, count = time.monotonic() + SECONDS, 0
    best = (case, way, problem)
    progress = True
    while progress and time.monotonic() < deadline:
        progress = False
        for smaller, lives in _smaller(*best):
            if time.monotonic() > deadline:
                break
            count += 1
            found = _problem(smaller, lives, folder / f"smaller-{count}")
            if found and found.kind == problem.kind:
                best, progress = (smaller, lives, found), True
                break
    return best


def _problem(case, way, folder):
    try:
        expected = batch.answers(case)
    except Exception:  # noqa: BLE001 - what DuckDB refuses is no case.
        return None
    found, _ = check(case, expected, way, folder)
    shutil.rmtree(folder, ignore_errors=True)
    return found


def _smaller(case, way, problem):
    """Smaller cases, those that leave out most first."""
    if len(case.queries) > 1:
        keep = case.queries if problem.query is None else [case.queries[problem.query]]
        yield from ((replace(case, queries=(query,)), way) for query in keep)
        if problem.query is None:
            return
    for index in range(len(way.lives) - 1):
        yield case, replace(way, lives=way.lives[:index] + way.lives[index + 1 :])
    for index, table in enumerate(case.tables):
        for rows in _fewer(table.rows):
            yield replace(case, tables=(*case.tables[:index], replace(table, rows=rows), *case.tables[index + 1 :])), way
    query = case.queries[0]
    for part in ("items", "where", "having", "keys"):
        values = getattr(query, part)
        for index in range(len(values) if part != "items" or len(values) > 1 else 0):
            changes = {part: values[:index] + values[index + 1 :]}
            if part == "items":
                changes["names"] = query.names[:index] + query.names[index + 1 :]
            yield replace(case, queries=(replace(query, **changes),)), way
    for changes in ({"distinct": False}, {"limit": None, "offset": 0}, {"order": (), "limit": None, "offset": 0}):
        if any(getattr(query, part) != value for part, value in changes.items()):
            yield replace(case, queries=(replace(query, **changes),)), way


def _fewer(rows):
    """The rows without each half, quarter, …"""
    size = len(rows)
    while size > 1:
        size = (size + 1) // 2
        if len(rows) // size <= 8:
            yield from (rows[:start] + rows[start + size :] for start in range(0, len(rows), size))
    if len(rows) == 1:
        yield []
