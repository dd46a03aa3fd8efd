"""Streaming equals batch: generated queries over generated data give DuckDB's rows, however they are run and whenever they are killed.

`COULEE_ORACLE_SEEDS=500` tries so many other seeds, which takes about 3 s each; `COULEE_ORACLE_SEED=17` repeats one. See oracle/__init__.py.
"""

import os
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from oracle import batch, shrink
from oracle.case import case
from oracle.check import check
from oracle.report import report
from oracle.running import BATCH_ROWS, ways

# The seeds of every build are fixed, so that it does not depend on chance.
BUILD_SEEDS = 14
GIVEN = os.environ.get("COULEE_ORACLE_SEEDS")
FIRST = int(os.environ.get("COULEE_ORACLE_SEED", random.randrange(1 << 32) if GIVEN else 0))
COUNT = int(GIVEN or (1 if "COULEE_ORACLE_SEED" in os.environ else BUILD_SEEDS))
SEEDS = range(FIRST, FIRST + COUNT)
# What was run, and how many processes it killed.
ran = []


@pytest.mark.parametrize("seed", SEEDS)
def test_any_query_run_any_way_gives_the_rows_of_batch(tmp_path, seed):
    made = case(seed)
    expected = batch.answers(made)
    with ThreadPoolExecutor(2) as pool:
        every = ways(seed)
        outcomes = list(pool.map(lambda way: check(made, expected, way, tmp_path / str(way.number)), every))
    ran.extend((way, kills) for way, (_, kills) in zip(every, outcomes, strict=True))
    for way, (problem, _) in zip(every, outcomes, strict=True):
        if problem:
            command = f"COULEE_ORACLE_SEED={seed} python -m pytest tests/python/test_oracle.py"
            whole = report(seed, made, way, problem, command)
            smallest = shrink.shrink(made, way, problem, tmp_path)
            pytest.fail(f"{whole}\n\nThe smallest case found:\n{report(seed, *smallest, command)}", pytrace=False)


@pytest.mark.skipif(COUNT < BUILD_SEEDS, reason="a few seeds do not run everything")
def test_the_seeds_have_run_every_way():
    lives = [life for way, _ in ran for life in way.lives]
    assert {(life.parallelism, life.batch_rows) for life in lives} == {(p, rows) for p in (1, 2, 3) for rows in BATCH_ROWS}
    assert {way.source for way, _ in ran} == {"json", "csv", "parquet", "stream"}
    assert {way.sink for way, _ in ran} == {"json", "csv", "parquet", "stream"}
    killed = [kills for way, kills in ran if len(way.lives) > 1]
    assert sum(kills > 0 for kills in killed) > len(killed) / 2, killed


def test_the_seeds_of_the_build_have_every_kind_of_query():
    made = [case(seed) for seed in range(BUILD_SEEDS)]
    texts = [query.text("flink") for one in made for query in one.queries] + [flink for one in made for flink, _ in one.setup]
    words = ["TUMBLE(", "HOP(", "CUMULATE(", "SESSION(", " JOIN ", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN", "IN (SELECT", " EXISTS (", "NOT EXISTS (", "(SELECT M"]
    words += ["UNION ALL", "UNION SELECT", "INTERSECT", "EXCEPT", "SELECT DISTINCT", "(DISTINCT", "FILTER (", "HAVING", "ORDER BY", "LIMIT", "OFFSET", " OVER (", "ROWS BETWEEN", "RANGE BETWEEN", "LAG(", "ROW_NUMBER()"]
    missing = [word for word in words if not any(word in text for text in texts)]
    assert not missing, missing
