"""`python -m tests.matrix`: the kill matrix, all of it or a sample, and how it ended; that of the
agent with `--agent`."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

from tests.matrix.agent import __main__ as agent
from tests.matrix.nursery import Nursery
from tests.matrix.points import (
    CLOUDS,
    KILLED,
    Call,
    Fate,
    Point,
    Story,
    points,
    sample,
    some_stories,
    stories,
)
from tests.matrix.trial import Outcome, attempt, record
from tests.matrix.warm import warm

NURSERY: list[Nursery] = []
"""Of this worker."""
LEAKS = ("after the sweep", "after the clean-up", "without a word", "it made", "though the fault")
"""Words of problems that would have cost money."""
RECORDINGS = 3
"""Of each story: calls go side by side, and not every launch makes all of them."""
SLOW = (Fate.SILENT, Fate.MUTE, Fate.REFUSED)
"""Most of their time is waiting."""


def _prepare() -> None:
    NURSERY.append(Nursery())


def _record(story: Story) -> list[Call]:
    return record(story, NURSERY[0])


def _attempt(point: Point) -> Outcome:
    return attempt(point, NURSERY[0])


def main(argv: Sequence[str]) -> int:
    if "--agent" in argv:
        return agent.main([word for word in argv if word != "--agent"])
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument(
        "--sample", type=int, help="so many points, spread over clouds, forges and fates"
    )
    parser.add_argument(
        "--quick", action="store_true", help="one story of each cloud and forge, by chance"
    )
    parser.add_argument(
        "--every",
        action="store_true",
        help="also the calls of a story that another one has: some three times as many points",
    )
    parser.add_argument(
        "--seed", type=int, default=None, help="of the sample; by default another one each time"
    )
    parser.add_argument("--workers", type=int, default=10 * (os.cpu_count() or 1))
    parser.add_argument("--cloud", choices=CLOUDS, action="append")
    parser.add_argument("--only", default="", help="points whose name this pattern finds")
    parser.add_argument("--list", action="store_true")
    parser.add_argument(
        "--log", action="store_true", help="what a launcher said that has a problem"
    )
    parser.add_argument("--logs", action="store_true", help="what all launchers said")
    given = parser.parse_args(argv)
    seed = given.seed if given.seed is not None else int(time.time())
    began = time.monotonic()
    warm()
    with ProcessPoolExecutor(
        given.workers, multiprocessing.get_context("fork"), _prepare
    ) as workers:
        told = [
            story
            for story in (some_stories(seed) if given.quick else stories())
            if story.cloud in (given.cloud or CLOUDS)
        ]
        rounds = [
            dict(zip(told, workers.map(_record, told), strict=True)) for _ in range(RECORDINGS)
        ]
        recorded = {
            story: list(dict.fromkeys(call for once in rounds for call in once[story]))
            for story in told
        }
        racing = {
            (story, call)
            for story, calls in recorded.items()
            for call in calls
            if not all(call in once[story] for once in rounds)
        }
        chosen = [
            point
            for point in points(recorded, every=given.every)
            if re.search(given.only, str(point))
        ]
        every = len(chosen)
        if given.sample:
            chosen = sample(chosen, given.sample, seed)
        if given.list:
            print(*chosen, sep="\n")
            return 0
        outcomes = []
        for one in (
            future.result()
            for future in as_completed(
                [workers.submit(_attempt, point) for point in spread(chosen)]
            )
        ):
            outcomes.append(one)
            if one.problems:
                print(
                    f"PROBLEM {one.point}: {'; '.join(one.problems)}",
                    *([one.log] if given.log else []),
                    sep="\n",
                    flush=True,
                )
            if given.logs:
                print(f"{one.point}: exit code {one.code}", one.log, sep="\n", flush=True)
            if len(outcomes) % 50 == 0:
                print(
                    f"{len(outcomes)} of {len(chosen)} after {time.monotonic() - began:.0f} s",
                    flush=True,
                )
    return report(
        outcomes, recorded, racing, every, seed if given.sample else None, time.monotonic() - began
    )


def spread(chosen: Sequence[Point]) -> list[Point]:
    """Slow ones evenly among the others, and none at the end, where nobody else would have
    anything to do."""
    slow = [point for point in chosen if point.fate in SLOW]
    quick = [point for point in chosen if point.fate not in SLOW]
    places = [(0.8 * place / len(slow), point) for place, point in enumerate(slow)] + [
        (place / len(quick), point) for place, point in enumerate(quick)
    ]
    return [point for _, point in sorted(places, key=lambda one: one[0])]


def report(
    outcomes: Sequence[Outcome],
    recorded: dict[Story, list[Call]],
    racing: set[tuple[Story, Call]],
    every: int,
    seed: int | None,
    seconds: float,
) -> int:
    bad = [one for one in outcomes if one.problems]
    absent = [one for one in outcomes if not one.came]
    missed = [one for one in absent if (one.point.story, one.point.call) not in racing]
    for one in missed:
        print(f"did not come up: {one.point}")
    calls = len(
        {
            (story.cloud, story.forge, call.name)
            for story, calls in recorded.items()
            for call in calls
        }
    )
    heard = [
        one.seconds for one in outcomes if one.seconds is not None and one.point.fate not in KILLED
    ]
    dead = [one for one in outcomes if one.point.fate in KILLED]
    print(
        f"{len(recorded)} stories, {calls} kinds of calls; exit codes"
        f" {dict(Counter(one.code for one in outcomes).most_common())}"
    )
    print(
        f"{sum(bool(one.left) for one in dead)} of {len(dead)} killed launchers left something to"
        " the lease; the sweep removed it"
    )
    if heard:
        print(
            f"from signal to exit: {sorted(heard)[len(heard) // 2]:.2f} s in the middle,"
            f" {max(heard):.2f} s at worst, of {len(heard)}"
        )
    share = "" if seed is None else f" (of {every}, seed {seed})"
    leaks = sum(any(words in text for text in one.problems for words in LEAKS) for one in bad)
    print(
        f"{len(outcomes)} points{share}, {leaks} leaks, {len(bad) - leaks} other problems,"
        f" {len(missed)} did not come up, in {seconds:.0f} s"
    )
    print(
        f"{len(absent) - len(missed)} more did not come up whose call is not made in every launch"
    )
    return 1 if bad or len(missed) > max(len(outcomes) // 50, 1) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
