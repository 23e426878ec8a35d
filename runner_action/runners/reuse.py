"""What the existing runners mean for a launch: some can be reused, one may have its name, and one
may stand for another launch with the same labels."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta

from runner_action import claim
from runner_action.agent.inheriting import DERIVED
from runner_action.errors import ForgeError, InputError, ProviderError
from runner_action.forges import traits_of
from runner_action.forges.base import Forge
from runner_action.marks import Mark
from runner_action.model import (
    ID_END,
    NAME_TAG,
    Identity,
    Instance,
    Launched,
    Plan,
    Run,
    Runner,
    runner_name,
)
from runner_action.naming import KEY_PART, base_name, beginning_of, local_name
from runner_action.plain import is_plain
from runner_action.providers.base import Provider
from runner_action.request import LaunchRequest, Reuse
from runner_action.waiting import Clock, wait_for

log = logging.getLogger(__name__)
NUMBER = re.compile(rf"-(\d{{1,3}}|[0-9a-f]{{{ID_END}}}|\d{{1,2}}-[0-9a-z]{{5}})")
"""What a launch appends to the requested name: a number, or the end of an instance's ID, which on
Kubernetes is the end of a pod's name."""


UNIQUE = rf"-[0-9a-f]{{{KEY_PART}}}"
"""What `base_name` appends to a requested name."""


def refuse_taken(runners: Sequence[Runner], names: Collection[str]) -> None:
    """Raises InputError if an online runner has one of the names. An offline one was left
    behind."""
    taken = sorted(runner.name for runner in runners if runner.name in names and runner.online)
    if taken:
        in_use = f"name {', '.join(taken)} is in use by an online runner"
        raise InputError([f"{in_use}; choose another `name`, or set `reuse`"])


def unused(
    run: Run, requested: str | None, runners: Sequence[Runner], another: Callable[[], Run]
) -> Run:
    """The run, or the first of those that follow (`another`) of which no runner has the name or the
    label. If one has, an earlier launch of this step could not store that it used this run."""
    while any(
        run.derived_name in runner.labels or is_of_launch(runner.name, base_name(requested, run))
        for runner in runners
    ):
        run = another()
    return run


def is_of_launch(name: str, base: str) -> bool:
    """Whether a runner's name is one that the launch of the name `base` chooses."""
    rest = name.removeprefix(base)
    return rest != name and (not rest or bool(NUMBER.fullmatch(rest)))


def fitting(
    runners: Sequence[Runner],
    name: str | None,
    labels: Sequence[str],
    reuse: Reuse,
    label_key: Callable[[str], str],
) -> list[Runner]:
    """The runners that can be reused instead of new ones, the best first: online, and with that
    name or all labels; with `reuse-idle` also idle.

    Runners for a single job are skipped, since that job belongs to another launch. So are those
    with a name or a label that no output may have: no one can make launches fail with one.
    `label_key`: as in `Traits`.
    """
    if reuse is Reuse.NEVER:
        return []
    required = set(map(label_key, labels))
    matches = [
        runner
        for runner in runners
        if runner.online
        and not runner.ephemeral
        and all(map(is_plain, (runner.name, *runner.labels)))
        and (_is_named(runner, name) or required.issubset(map(label_key, runner.labels)))
        and not (reuse is Reuse.IDLE and runner.busy)
    ]
    return sorted(matches, key=lambda runner: (runner.busy, runner.name))


def _is_named(runner: Runner, name: str | None) -> bool:
    """Whether the runner has that name, or one that begins with it as the names of launches do."""
    if name is None:
        return False
    beginning = beginning_of(name)
    rest = runner.name.removeprefix(beginning)
    unique = rest != runner.name and re.fullmatch(rf"{UNIQUE}({NUMBER.pattern})?", rest)
    return bool(unique) or is_of_launch(runner.name, local_name(name))


def launched_of(
    runner: Runner, request: LaunchRequest, seconds: float, instance: Instance | None = None
) -> Launched:
    """The report of a reused runner."""
    own = sorted(filter(DERIVED.fullmatch, runner.labels))
    others = tuple(sorted(runner.labels - {*own}))
    return Launched(
        runner_name=runner.name,
        label=own[0] if own else _shared_label(runner, request),
        labels=others,
        reused=True,
        launch_seconds=seconds,
        instance=instance,
    )


def _shared_label(runner: Runner, request: LaunchRequest) -> str:
    """The output `label` of a runner that no launch created: the first requested label that it
    has. Other runners may have it, too."""
    label_key = traits_of(request.forge).label_key
    its_keys = set(map(label_key, runner.labels))
    shared = [label for label in request.labels if label_key(label) in its_keys]
    return shared[0] if shared else min(runner.labels, default="")


def labels_with(request: LaunchRequest, run: Run) -> tuple[str, ...]:
    """All labels of a runner of this run, each once, in the spelling that came first."""
    label_key = traits_of(request.forge).label_key
    labels: dict[str, str] = {}
    for label in (*request.labels, run.derived_name):
        labels.setdefault(label_key(label), label)
    return tuple(labels.values())


class Reusing:
    """The part of a launch that claims existing runners, and waits for its turn."""

    def __init__(self, request: LaunchRequest, run: Run, forge: Forge, clock: Clock) -> None:
        self._request = request
        self._forge = forge
        self._clock = clock
        self._holder = run.key[: claim.KEY_LENGTH]
        self._shared = request.reuse is Reuse.ANY
        """Whether other launches may have claimed the same runner."""
        self._label_key = traits_of(request.forge).label_key
        self._turn = claim.turn({*map(self._label_key, request.labels)})
        self.took_turn = False
        self.claimed: dict[int, Runner] = {}
        """By the ID of the runner."""

    def claim(self, listed: Sequence[Runner]) -> list[Runner]:
        """Claims up to the requested number of runners, and returns those claimed so far. A dry
        run claims nothing and returns those that match."""
        request = self._request
        for runner in fitting(listed, request.name, request.labels, request.reuse, self._label_key):
            if len(self.claimed) == request.count:
                break
            if runner.id in self.claimed:
                continue
            if runner.access_level not in ("", request.access_level):
                log.info(
                    "Runner %s matches, but its access level is %s, and"
                    " `gitlab-access-level` is %s.",
                    runner.name,
                    runner.access_level,
                    request.access_level,
                )
                continue
            if request.dry_run or self._granted(runner):
                log.info("Runner %s is online and matches.", runner.name)
                self.claimed[runner.id] = runner
            else:
                log.info(
                    "Runner %s matches, but another launch has claimed it or it is shutting down.",
                    runner.name,
                )
        return list(self.claimed.values())

    def _granted(self, runner: Runner) -> bool:
        """Claims the runner until this launch's job can start, which is later if other runners have
        to be launched first. False if another launch has claimed it, or if it is leaving."""
        launching = self._request.launch_timeout if self._request.count > 1 else 0
        mark = self._claim_for(claim.HOLD_SECONDS + launching)
        if not claim.allows(runner.claims, mark, self._clock.now(), shared=self._shared):
            return False
        return self._forge.claim(runner, mark, self._clock, shared=self._shared)

    def _claim_for(self, seconds: int) -> str:
        return claim.claim(self._holder, self._clock.now() + timedelta(seconds=seconds))

    def wait_turn(self, stopping: Callable[[], bool]) -> list[Runner]:
        """With `reuse`: waits until there are runners to claim, or until it is this launch's turn,
        and returns the claimed runners. Only one launch with the same labels has the turn; it ends
        when its runner is online or the launch has failed. Raises TimedOut."""
        logged = False

        def look() -> list[Runner] | None:
            nonlocal logged
            listed = self._forge.runners()
            claimed = self.claim(listed)
            if stopping() or len(claimed) == self._request.count:
                return claimed
            if not self._is_anothers_turn(listed) and self._take_turn():
                # The launch that had the turn may have created a runner since the list was read.
                return self.claim(self._forge.runners())
            if not logged:
                log.info("Waiting for the runner of another launch with these labels.")
            logged = True
            return None

        return wait_for(
            look,
            "another launch with these labels to finish",
            clock=self._clock,
            timeout=self._request.launch_timeout,
        )

    def _is_anothers_turn(self, listed: Sequence[Runner]) -> bool:
        turns = [runner for runner in listed if runner.name.split(" ")[0] == self._turn]
        claims = {mark for runner in turns for mark in runner.claims}
        alive = claim.alive(claims, self._clock.now())
        return any(claim.holder_of(mark) != self._holder for mark in alive)

    def _take_turn(self) -> bool:
        """Whether it is this launch's turn now. The turn is over by the launch timeout, as every
        launch is; a sweep then removes what is left of it."""
        assert self._request.cloud
        seconds = self._request.launch_timeout + claim.HOLD_SECONDS
        until = self._clock.now() + timedelta(seconds=seconds)
        mark = Mark(provider=self._request.cloud.provider, online_by=until, name=self._turn)
        label = mark.label(self._request.repository)
        self.took_turn = True  # it may have the turn even if the answer is lost
        own = self._claim_for(seconds)
        return self._forge.take_turn(self._turn, own, self._clock, labels=[label])

    def end_turn(self) -> None:
        """Ends the turn, however the launch ended. If that fails, the turn expires."""
        try:
            self._forge.end_turn(self._turn, self._holder)
        except ForgeError as error:
            log.warning(
                "Could not deregister %s, so other launches with these labels may wait until this"
                " launch's start timeout: %s",
                self._turn,
                error,
            )


def instance_of(runner: Runner, plan: Plan, provider: Provider) -> Instance | None:
    """The machine of an existing runner, if a launch created it in the regions of the plan; None
    if it cannot be found, which does not end the launch."""
    try:
        for name, alone in (
            (runner.name, True),
            (re.sub(f"{NUMBER.pattern}$", "", runner.name), False),
        ):
            identity = Identity(name=name, key="")
            regions = [place.region for place in plan.places]
            instances = [
                instance
                for instance in provider.find({NAME_TAG: name}, regions)
                if runner_name(identity, instance.id, alone) == runner.name
            ]
            if len(instances) == 1:
                return provider.look(instances[0])
    except ProviderError as error:
        log.warning("Could not look up the machine of runner %s: %s", runner.name, error)
    return None
