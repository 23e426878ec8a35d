"""`python -m tests.matrix --agent`: the kill matrix of the agent, all of it or a sample."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

from tests.matrix.agent.points import Effect, Fate, Point, Story, points, sample, stories
from tests.matrix.agent.sites import unreached
from tests.matrix.agent.trial import AGENT, Outcome, attempt, record
from tests.matrix.nursery import Nursery
from tests.matrix.warm import warm

NURSERY: list[Nursery] = []
"""Of this worker."""
WAITING = (Fate.HUNG, Fate.ENDLESS, Fate.BROKEN, Fate.DOWN, Fate.BARRED)
"""Most of their time is waiting: they begin first."""
ALIVE, UNTOLD = "alive past its bound", "job lost untold"


def _prepare() -> None:
    NURSERY.append(Nursery())


def _record(story: Story) -> list[Effect]:
    return record(story, NURSERY[0])


def _attempt(point: Point) -> Outcome:
    return attempt(point, NURSERY[0])


def words() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.matrix --agent", description=__doc__)
    parser.add_argument("--sample", type=int, help="so many points, spread over effects and fates")
    parser.add_argument(
        "--seed", type=int, default=None, help="of the sample; by default another one each time"
    )
    parser.add_argument(
        "--every", action="store_true", help="also the effects of a story that another one has"
    )
    parser.add_argument("--workers", type=int, default=4 * (os.cpu_count() or 1))
    parser.add_argument("--story", default="", help="stories whose name this pattern finds")
    parser.add_argument("--only", default="", help="points whose name this pattern finds")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--log", action="store_true", help="what was said where there is a problem")
    parser.add_argument("--logs", action="store_true", help="what was said everywhere")
    return parser


def main(argv: Sequence[str]) -> int:
    given = words().parse_args(argv)
    seed = given.seed if given.seed is not None else int(time.time())
    began = time.monotonic()
    told = [story for story in stories() if re.search(given.story, str(story))]
    warm(tuple(sorted({story.cloud for story in told})))
    with ProcessPoolExecutor(
        given.workers, multiprocessing.get_context("fork"), _prepare
    ) as workers:
        recorded = dict(zip(told, workers.map(_record, told), strict=True))
        every = [
            point
            for point in points(recorded, every=given.every)
            if re.search(given.only, str(point))
        ]
        chosen = sample(every, given.sample, seed) if given.sample else every
        if given.list:
            print(*chosen, sep="\n")
            return 0
        chosen.sort(key=lambda point: point.fate not in WAITING)
        done = as_completed([workers.submit(_attempt, point) for point in chosen])
        outcomes = []
        for one in (future.result() for future in done):
            outcomes.append(one)
            tell(one, log=given.log, every=given.logs)
            if len(outcomes) % 50 == 0:
                seconds = time.monotonic() - began
                print(f"{len(outcomes)} of {len(chosen)} after {seconds:.0f} s", flush=True)
    effects = [effect for found in recorded.values() for effect in found]
    missed = [] if given.story else unreached(AGENT, effects)
    for site in missed:
        print(f"no story reaches {site}")
    share = f" (of {len(every)}, seed {seed})" if given.sample else ""
    return report(outcomes, share, time.monotonic() - began) or int(bool(missed))


def tell(one: Outcome, *, log: bool, every: bool) -> None:
    if one.problems:
        print(f"PROBLEM {one.point}: {'; '.join(one.problems)}", flush=True)
    elif every:
        print(f"{one.point}: {one.seconds:.0f} s", flush=True)
    if every or (log and one.problems):
        print(one.log, flush=True)


def counted(outcomes: Iterable[Outcome], words: str) -> int:
    return sum(any(words in text for text in one.problems) for one in outcomes)


def report(outcomes: Sequence[Outcome], share: str, seconds: float) -> int:
    bad = [one for one in outcomes if one.problems]
    other = [
        one for one in bad if not any(text.startswith((ALIVE, UNTOLD)) for text in one.problems)
    ]
    absent = [one for one in outcomes if not one.came]
    for one in absent:
        print(f"did not come up: {one.point}")
    fates = Counter(one.point.fate.value for one in bad)
    if fates:
        print(f"problems by fate: {dict(fates.most_common())}")
    print(
        f"{len(outcomes)} points{share}, {counted(bad, ALIVE)} machines alive past their bound,"
        f" {counted(bad, UNTOLD)} jobs lost untold, {len(other)} other problems,"
        f" {len(absent)} did not come up, in {seconds:.0f} s"
    )
    return 1 if bad or len(absent) > max(len(outcomes) // 20, 1) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
