"""Tries the whole product, or a sample, side by side."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from tests.canaries.points import Point, points
from tests.canaries.stage import Outcome, Stage, tried, useless
from tests.canaries.variables import USED, VALUES

STAGE: list[Stage] = []
"""Of this worker."""
Case = Point | tuple[str, str, str]
BATCH = 20


def _prepare() -> None:
    folder = Path(tempfile.mkdtemp(prefix="cml-runner-canaries-"))
    os.chdir(folder)  # where a library writes what a useless variable names
    STAGE.append(Stage(folder))


def _tried(cases: Sequence[Case], seed: int) -> list[Outcome]:
    return [
        tried(case, STAGE[0], seed) if isinstance(case, Point) else useless(*case, STAGE[0])
        for case in cases
    ]


def cases() -> list[Case]:
    useless_values = [
        (cloud, name, value) for cloud, names in USED.items() for name in names for value in VALUES
    ]
    return [*points(), *useless_values]


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.canaries")
    parser.add_argument("--sample", type=int, help="so many points, chosen by the seed")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--workers", type=int, default=2 * (os.cpu_count() or 1))
    parser.add_argument("--log", action="store_true", help="what launches said that have a problem")
    given = parser.parse_args(argv)
    every = cases()
    random.Random(given.seed).shuffle(every)
    chosen = every[: given.sample] if given.sample else every
    began = time.monotonic()
    done = leaks = crashes = 0
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(given.workers, context, _prepare) as workers:
        batches = [chosen[start : start + BATCH] for start in range(0, len(chosen), BATCH)]
        for batch in as_completed(workers.submit(_tried, one, given.seed) for one in batches):
            for outcome in batch.result():
                leaks += outcome.problem.startswith("leak")
                crashes += outcome.problem.startswith("exit")
                if outcome.problem:
                    print(f"PROBLEM {outcome.where}: {outcome.problem}", flush=True)
                    print(outcome.shown.text if given.log else "", end="")
            done += len(batch.result())
            if done // 500 > (done - len(batch.result())) // 500:
                seconds = time.monotonic() - began
                print(f"{done} of {len(chosen)} after {seconds:.0f} s", flush=True)
    print(f"{done} points, {leaks} leaks, {crashes} times exit 70 (seed {given.seed})")
    return int(bool(leaks or crashes))
