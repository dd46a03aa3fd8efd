"""A case: what a seed gives. Tables with rows, and queries over them."""

from dataclasses import dataclass

from . import batch, data
from .queries import Queries

QUERIES = 5


@dataclass(frozen=True)
class Case:
    seed: int
    tables: tuple
    queries: tuple

    @property
    def setup(self):
        """The views that the queries read, each once: pairs of statements in both systems' SQL."""
        found = []
        for query in self.queries:
            found += [statement for statement in query.source.setup if statement not in found]
        return found


def case(seed):
    dice = data.seeded("case", seed)
    tables = tuple(data.table(dice, name, f"{name}_") for name in ("a", "b"))
    with batch.database(tables) as database:
        maker = Queries(dice, tables, database)
        return Case(seed, tables, tuple(maker.query() for _ in range(QUERIES)))
