"""What the agent's matrix is made of: stories of machines, the effects of the agent in them, what
can happen at each, and the points that follow. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import product

CLOUDS = ("aws", "azure", "gcp")
FORGES = ("github", "gitlab")


class Life(StrEnum):
    """What becomes of a machine if nothing fails."""

    IDLE = "idle"
    """One job, and then none for too long."""
    SINGLE = "single"
    TAKEN = "taken"
    """The cloud gives notice during a job, which is restarted."""
    BARE = "taken without a token"
    """The same, and the job is not restarted."""
    CRASH = "crash"
    """The runner program is killed during a job, which is restarted."""
    RESUMED = "resumed"
    """The agent is killed during a job, and carries on."""


class Fate(StrEnum):
    """What happens at an effect."""

    KILLED = "killed"
    HUNG = "never returns"
    FAILS = "fails once"
    BROKEN = "fails from then on"
    HALF = "half once"
    ENDS = "exit code 1 once"
    ENDS_EVER = "exit code 1 from then on"
    ENDLESS = "does not end"
    ERROR = "503 once"
    DOWN = "503 always"
    DENIED = "403 once"
    BARRED = "403 always"
    PORTAL = "another page"
    LOST = "done, answer lost"
    SILENT = "done, no answer"
    TWICE = "done twice"
    AGAIN = "twice"
    NOISE = "noise"
    FULL = "full once"
    FULL_EVER = "full from then on"


LASTING = (Fate.BROKEN, Fate.ENDS_EVER, Fate.DOWN, Fate.BARRED, Fate.FULL_EVER)
"""Happen each time, all others once in a life."""
PASSING = (
    Fate.FAILS,
    Fate.HALF,
    Fate.ENDS,
    Fate.ERROR,
    Fate.DENIED,
    Fate.LOST,
    Fate.SILENT,
    Fate.TWICE,
    Fate.AGAIN,
    Fate.NOISE,
    Fate.FULL,
)
"""May be over when it is tried again."""
LOCAL = ("read", "write", "change")
"""Kinds of effects on the machine's own disk, which does not fail in passing. An agent that cannot
read or write as it starts may give up; one that has a runner goes on."""
ANY = (Fate.KILLED, Fate.FAILS, Fate.BROKEN)
FATES: Mapping[str, tuple[Fate, ...]] = {
    "read": (*ANY, Fate.HUNG, Fate.HALF),
    "lines": (*ANY, Fate.HUNG, Fate.HALF, Fate.AGAIN, Fate.NOISE),
    "write": (*ANY, Fate.HUNG, Fate.HALF),
    "change": (*ANY, Fate.HUNG),
    "signal": ANY,
    "start": (*ANY, Fate.ENDS, Fate.ENDS_EVER, Fate.ENDLESS),
    "request": (
        *ANY,
        Fate.HALF,
        Fate.ERROR,
        Fate.DOWN,
        Fate.DENIED,
        Fate.BARRED,
        Fate.PORTAL,
        Fate.LOST,
        Fate.SILENT,
        Fate.TWICE,
    ),
    "connect": ANY,
    "say": (*ANY, Fate.HUNG),
    "space": (Fate.FAILS, Fate.BROKEN, Fate.FULL, Fate.FULL_EVER),
}
"""By kind of effect."""


OF_PODS = (Life.IDLE, Life.SINGLE, Life.TAKEN, Life.CRASH)


@dataclass(frozen=True, order=True)
class Story:
    cloud: str
    forge: str
    life: Life

    def __str__(self) -> str:
        return f"{self.cloud} {self.forge} {self.life}"


@dataclass(frozen=True, order=True)
class Effect:
    """Its name: `program: module.function: kind target`."""

    name: str

    @property
    def program(self) -> str:
        return self.name.split(": ")[0]

    @property
    def place(self) -> str:
        """Module and function."""
        return self.name.split(": ")[1]

    @property
    def kind(self) -> str:
        return self.name.split(": ", 2)[2].split(" ")[0]

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, order=True)
class Point:
    story: Story
    effect: Effect
    fate: Fate

    def __str__(self) -> str:
        return f"{self.story}: {self.effect}: {self.fate}"


def stories() -> list[Story]:
    """Those on AWS with GitHub first. The others are there for the effects that these have not."""
    found = [Story("aws", forge, life) for forge, life in product(FORGES, Life)]
    for cloud in ("azure", "gcp"):
        found += [Story(cloud, "github", life) for life in (Life.IDLE, Life.TAKEN)]
    found += [Story("kubernetes", forge, life) for forge, life in product(FORGES, OF_PODS)]
    return found


def fates(effect: Effect) -> list[Fate]:
    """What can happen at it. No disk of a machine is so slow that it never returns: that stands for
    an agent that hangs. Only what is read can be another page."""
    hangs = effect.program in ("run", "pod run") or effect.kind == "say"
    reads = ": request GET " in effect.name or ": request PUT " in effect.name
    never = {*([] if hangs else [Fate.HUNG]), *([] if reads else [Fate.PORTAL])}
    return [fate for fate in FATES[effect.kind] if fate not in never]


def passes(point: Point) -> bool:
    """Whether this is nothing that a launch or a job fails for."""
    return point.fate in PASSING and point.effect.kind not in LOCAL


def points(recorded: Mapping[Story, Sequence[Effect]], *, every: bool = False) -> list[Point]:
    """Every fate at every effect: in the first story that has it or, if `every`, in each."""
    found, known = list[Point](), set[Effect]()
    for story, effects in recorded.items():
        for effect in effects:
            if every or effect not in known:
                found += [Point(story, effect, fate) for fate in fates(effect)]
        known |= set(effects)
    return found


def sample(every: Iterable[Point], size: int, seed: int) -> list[Point]:
    """Spread over kinds of effects and fates: from each of these heaps in turn, by chance."""
    chance, heaps = random.Random(seed), dict[tuple[str, Fate], list[Point]]()
    for point in every:
        heaps.setdefault((point.effect.kind, point.fate), []).append(point)
    order = list(heaps.values())
    for heap in order:
        chance.shuffle(heap)
    chance.shuffle(order)
    chosen: list[Point] = []
    while any(order) and len(chosen) < size:
        chosen += [heap.pop() for heap in order if heap][: size - len(chosen)]
    return chosen
