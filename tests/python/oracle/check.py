"""Runs a case one way and says what is wrong with it, if anything."""

from dataclasses import dataclass

from .compare import difference
from .running import Failure, Run


@dataclass(frozen=True)
class Problem:
    """`kind`: 'failed', 'types' or 'rows'. `query`: its place in the case, where it is one query's."""

    kind: str
    query: int
    text: str


def check(case, expected, way, folder):
    """The first problem, or None; and how many processes were killed."""
    run = Run(case, way, folder)
    try:
        found, types = run.rows()
    except Failure as failure:
        return Problem("failed", None, str(failure)), run.kills
    for index, query in enumerate(case.queries):
        declared = [type_.flink for type_ in query.types]
        # What follows them is the event time of a query that another one reads.
        if types[index][: len(declared)] != declared:
            wrong = [f"  {item.flink}: {one} instead of {two}" for item, one, two in zip(query.items, types[index], declared, strict=False) if one != two]
            return Problem("types", index, "\n".join(["types as DESCRIBE shows them:", *wrong])), run.kills
        text = difference(found[index], expected[index], [item.exact for item in query.items])
        if text:
            return Problem("rows", index, text), run.kills
    return None, run.kills
