"""What the matrix is made of: the calls of a launch by name, what can happen at each, and the
points that follow. Pure."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from urllib.parse import parse_qs

from runner_action.claim import TURN

CLOUDS = ("aws", "azure", "gcp", "kubernetes")
FORGES = ("github", "gitlab")
TIMES = 2
"""Of calls that are the same, as questions asked again and again are, so many have points of
their own."""
HIDDEN = (
    (r"cml-[0-9a-f]{10}(-[0-9a-f]{8}|-[a-z0-9]{5})?", "NAME"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}", "ID"),
    (r"(?<=[/-])\d+(?=/|$)", "ID"),
)
"""What is another in every world."""


class Fate(StrEnum):
    """What happens at a call."""

    KILL_BEFORE = "killed before"
    KILL_AFTER = "killed after"
    CLEANED = "killed after, cleaned up after the job"
    TERM_BEFORE = "SIGTERM before"
    TERM_AFTER = "SIGTERM after"
    INT_AFTER = "SIGINT after"
    HUP_AFTER = "SIGHUP after"
    ERROR = "503 once"
    REFUSED = "403 from then on"
    CUT = "connection refused once"
    LOST = "done, answer lost"
    MUTE = "done, answers lost from then on"
    SILENT = "done, no answer until the caller gives up"
    TWICE = "delivered twice"


KILLED = (Fate.KILL_BEFORE, Fate.KILL_AFTER, Fate.CLEANED)
CHANGING = (Fate.MUTE, Fate.TWICE)
"""What makes a difference only to calls that change something."""


@dataclass(frozen=True, order=True)
class Story:
    """A launch. `ends`: it is cancelled while it waits for its runner, so that its end makes
    calls too."""

    cloud: str
    forge: str
    flags: tuple[str, ...] = ()
    ends: bool = False

    @property
    def count(self) -> int:
        """Of machines."""
        return 2 if "--count=2" in self.flags else 1

    def __str__(self) -> str:
        return " ".join(
            [
                self.cloud,
                self.forge,
                *(word.partition("={")[0] for word in self.flags),
                *(["cancelled"] if self.ends else []),
            ]
        )


@dataclass(frozen=True, order=True)
class Call:
    """The `number`th call of that name."""

    name: str
    number: int = 1

    def __str__(self) -> str:
        return f"{self.name} #{self.number}"


@dataclass(frozen=True, order=True)
class Point:
    story: Story
    call: Call
    fate: Fate

    def __str__(self) -> str:
        return f"{self.story}: {self.call}: {self.fate}"


def stories() -> list[Story]:
    """The plain launch first. The others are there for the calls that it has not."""
    key = "--cloud-ssh-private={key}"
    found = []
    for cloud, forge in product(CLOUDS, FORGES):
        plain = Story(cloud, forge)
        found += [plain, Story(cloud, forge, ends=True)]
        if forge == "github":
            found += [
                Story(cloud, forge, (flag,), ends)
                for flag in ("--single", "--count=2")
                for ends in (False, True)
            ]
        if cloud == "kubernetes":  # turns are the forge's, whatever the cloud
            found += [Story(cloud, forge, ("--reuse",), ends) for ends in (False, True)]
        if cloud in ("aws", "gcp") and forge == "github":
            found += [Story(cloud, forge, (key,)), Story(cloud, forge, (key,), ends=True)]
    return found


def some_stories(seed: int) -> list[Story]:
    """One of each cloud and forge."""
    chance = random.Random(seed)
    return [
        chance.choice([story for story in stories() if (story.cloud, story.forge) == pair])
        for pair in product(CLOUDS, FORGES)
    ]


def name_of(service: str, method: str, path: str, query: str, body: bytes) -> str:
    """A call's name: the same in every world. What makes another thing at the same address has
    another name."""
    asked, form = parse_qs(query), parse_qs(body.decode("latin1")) if service == "aws" else {}
    if service == "aws":
        return f"aws {form['Action'][0] if 'Action' in form else method}"
    for pattern, word in HIDDEN:
        path = re.sub(pattern, word, path)
    path = re.sub(
        r"^/(git/)?(api/v[34]|apis?|compute/v1/projects/[^/]+|subscriptions/[^/]+)", "", path
    )
    made = " (a turn)" if TURN.encode() in body else ""
    return f"{service} {method} {path}{'?watch' if 'watch' in asked else ''}{made}"


def numbered(names: Iterable[str]) -> list[Call]:
    """The recorded calls that have points: of each name the first few."""
    seen: Counter[str] = Counter()
    calls = []
    for name in names:
        seen[name] += 1
        if seen[name] <= TIMES:
            calls.append(Call(name, seen[name]))
    return calls


def changes(call: Call) -> bool:
    service, word, *_ = call.name.split(" ")
    return not word.startswith(("Describe", "Get")) if service == "aws" else word != "GET"


def points(recorded: Mapping[Story, Sequence[Call]], *, every: bool = False) -> list[Point]:
    """Every fate at every call; of a story that is not the plain one, unless it is `every`, at
    the calls that the stories before it on this cloud and forge had not."""
    found, had = list[Point](), dict[tuple[str, str], set[Call]]()
    for story, calls in recorded.items():
        known = had.setdefault((story.cloud, story.forge), set())
        for call in calls:
            fates = [fate for fate in Fate if changes(call) or fate not in CHANGING]
            # What was made twice shows at the end of a launch that takes back what it made.
            found += [
                Point(story, call, fate)
                for fate in fates
                if every or call not in known or (story.ends and fate is Fate.TWICE)
            ]
        known |= set(calls)
    return found


def sample(every: Sequence[Point], size: int, seed: int) -> list[Point]:
    """Spread over clouds, forges and fates: from each of these heaps in turn, by chance."""
    chance, heaps = random.Random(seed), dict[tuple[str, str, Fate], list[Point]]()
    for point in every:
        heaps.setdefault((point.story.cloud, point.story.forge, point.fate), []).append(point)
    order = list(heaps.values())
    for heap in order:
        chance.shuffle(heap)
    chance.shuffle(order)
    chosen: list[Point] = []
    while len(chosen) < min(size, len(every)):
        for heap in order:
            if heap and len(chosen) < size:
                chosen.append(heap.pop())
    return chosen
