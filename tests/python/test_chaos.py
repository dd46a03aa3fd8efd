"""Exactly once, whatever happens: a real process is killed and its disk, its log and its object store fail, and the result
is what was computed from the input alone.

`COULEE_CHAOS_KILLS` and `COULEE_CHAOS_SEED` make the random campaign longer, and repeat one.
"""

import os
import random
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from pipeline import Pipeline, failpoints

KILLS = int(os.environ.get("COULEE_CHAOS_KILLS", 12))
SEED = int(os.environ.get("COULEE_CHAOS_SEED", random.randrange(1 << 32)))


def test_killed_at_random_moments_at_random_rates_and_rescaled(tmp_path):
    note = f"COULEE_CHAOS_SEED={SEED} COULEE_CHAOS_KILLS={KILLS}"
    print(note)
    dice = random.Random(SEED)
    # Longer than all lives together, at the highest rate.
    pipeline = Pipeline(tmp_path, seed=SEED, per_shard=KILLS * 800 + 1_000)
    kills = 0
    for kills in range(1, KILLS + 1):
        options = {
            "parallelism": [1, 4, 2, 3][kills % 4],
            "checkpoint_ms": dice.choice([10, 30, 100, 250]),
            "snapshot_ms": dice.choice([0, 50, 200]),
            "rate": dice.choice([1_000, 2_000, 4_000]),
            "produce_rate": dice.choice([1_000, 2_000, 4_000]),
            "memory_bytes": dice.choice([64 << 10, 64 << 20]),
        }
        assert pipeline.killed_after(dice.uniform(0.05, 0.6), **options), f"at its end after {kills} lives {note}"
    pipeline.finish(parallelism=2)
    pipeline.check(note)


# Each worker has a folder of its own and takes its share of the points.
WORKERS = 3


def shared_out(work, items):
    """Runs `work(worker, its items)` side by side."""
    with ThreadPoolExecutor(WORKERS) as pool:
        for done in [pool.submit(work, worker, items[worker::WORKERS]) for worker in range(WORKERS)]:
            done.result()


def test_killed_at_every_point_of_the_commit_protocol(tmp_path):
    points = [(name, nth) for nth in (1, 3) for name in failpoints()]
    assert len(points) >= 46

    def campaign(worker, share):
        pipeline = Pipeline(
            tmp_path / str(worker), seed=worker, per_shard=len(share) * 1_500, checkpoint_ms=20, snapshot_ms=40, rate=3_000, produce_rate=2_000
        )
        for turn, (name, nth) in enumerate(share):
            code = pipeline.run(failpoints=f"{name}=kill@{nth}", parallelism=[1, 4, 2, 3][turn % 4])
            assert code == -signal.SIGABRT, f"{name} was not reached {nth} times: exit {code}: {pipeline.said()}"
        pipeline.finish()
        pipeline.check(f"killed at {share}")

    shared_out(campaign, points)


def test_an_error_at_every_point_is_recovered_from(tmp_path):
    def campaign(worker, share):
        for name in share:
            pipeline = Pipeline(tmp_path / name, seed=worker, per_shard=400, checkpoint_ms=20, snapshot_ms=40, rate=3_000, produce_rate=2_000)
            assert pipeline.run(failpoints=f"{name}=ioerror@2", parallelism=2) == 0, f"{name}: {pipeline.said()}"
            # A snapshot is tried again while the job goes on; everything else is met by the next attempt.
            assert name.startswith("snapshot.") or "again in" in pipeline.said(), f"{name}: {pipeline.said()}"
            pipeline.check(f"an error at {name}")

    shared_out(campaign, failpoints())
