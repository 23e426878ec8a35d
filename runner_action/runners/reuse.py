"""What the runners that are there mean for a launch: some of them serve, one holds the name,
another launch of the same is under way."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta

from runner_action import claim
from runner_action.errors import ForgeError, InputError, ProviderError
from runner_action.forges.base import Forge
from runner_action.marks import Mark
from runner_action.model import (
    ID_END,
    OWNER_TAG,
    Identity,
    Instance,
    Launched,
    Plan,
    Run,
    Runner,
    runner_name,
)
from runner_action.plain import is_plain
from runner_action.providers.base import Provider
from runner_action.request import LaunchRequest, Reuse
from runner_action.waiting import Clock, wait_for

log = logging.getLogger(__name__)
LABEL = re.compile(r"cml-[0-9a-f]{10}")
"""A label that only the runners of one launch have (`Run.derived_name`)."""
NUMBER = re.compile(rf"-(\d{{1,3}}|[0-9a-f]{{{ID_END}}}|\d{{1,2}}-[0-9a-z]{{5}})")
"""What a launch adds to the name that was asked for: a number, or the end of an instance's id,
on Kubernetes of a pod's name."""


def refuse_taken(runners: Sequence[Runner], mine: Collection[str]) -> None:
    """An online runner of that name is somebody's; an offline one was left behind and is
    replaced at registration. Raises InputError."""
    taken = sorted(runner.name for runner in runners if runner.name in mine and runner.online)
    if taken:
        raise InputError(
            [
                (
                    f"name {', '.join(taken)} is in use by an online runner; choose another"
                    " `name`, or set `reuse`"
                )
            ]
        )


def fitting(
    runners: Sequence[Runner], name: str | None, labels: Sequence[str], reuse: Reuse
) -> list[Runner]:
    """Runners that may serve instead of new ones, the best first: online, of that name or with
    all labels; with `reuse-idle` also idle.

    Not those of a single job, which is another launch's, nor those with a name or a label that no
    output may have: whoever made them so shall not make launches fail.
    """
    if reuse is Reuse.NEVER:
        return []
    fits = [
        runner
        for runner in runners
        if runner.online
        and not runner.ephemeral
        and all(map(is_plain, (runner.name, *runner.labels)))
        and (_is_named(runner, name) or runner.labels.issuperset(labels))
        and not (reuse is Reuse.IDLE and runner.busy)
    ]
    return sorted(fits, key=lambda runner: (runner.busy, runner.name))


def _is_named(runner: Runner, name: str | None) -> bool:
    return (
        name is not None
        and runner.name.startswith(name)
        and (runner.name == name or bool(NUMBER.fullmatch(runner.name[len(name) :])))
    )


def launched_of(
    runner: Runner, asked: Sequence[str], seconds: float, instance: Instance | None = None
) -> Launched:
    """What is told of a runner that serves. Its label is that of the launch that made it; a
    stranger's has none, and the first that was asked for is told, which others may have too."""
    own = sorted(filter(LABEL.fullmatch, runner.labels))
    label = (
        own[0]
        if own
        else next(
            (label for label in asked if label in runner.labels), min(runner.labels, default="")
        )
    )
    others = tuple(sorted(runner.labels - {*own}))
    return Launched(
        runner_name=runner.name,
        label=label,
        labels=others,
        reused=True,
        launch_seconds=seconds,
        instance=instance,
    )


def labels_with(labels: Sequence[str], run: Run) -> tuple[str, ...]:
    """All labels of a runner of this run."""
    return tuple(dict.fromkeys((*labels, run.derived_name)))


class Reusing:
    """The part of one launch that looks for runners instead of making them. `shared`: a busy one
    will do."""

    def __init__(self, request: LaunchRequest, run: Run, forge: Forge, clock: Clock) -> None:
        self._request = request
        self._forge = forge
        self._clock = clock
        self._holder = run.key[: claim.KEY_LENGTH]
        self._shared = request.reuse is Reuse.ANY
        self._turn = claim.turn(request.labels)
        self.took_turn = False
        self.claimed: dict[int, Runner] = {}

    def claim(self, listed: Sequence[Runner]) -> list[Runner]:
        """As many as are wanted, or fewer, each counted on by this launch; others are passed
        over. Nothing is claimed by a dry run."""
        request = self._request
        for runner in fitting(listed, request.name, request.labels, request.reuse):
            if len(self.claimed) == request.count:
                break
            if runner.id in self.claimed:
                continue
            if request.dry_run or self._granted(runner):
                log.info("Runner %s is online and fits.", runner.name)
                self.claimed[runner.id] = runner
            else:
                log.info(
                    "Runner %s would fit, but another launch counts on it, or it leaves.",
                    runner.name,
                )
        return list(self.claimed.values())

    def _granted(self, runner: Runner) -> bool:
        """Where others have to be launched beside it, it is needed that much later."""
        mark = self._mark(
            claim.HOLD_SECONDS + (self._request.start_timeout if self._request.count > 1 else 0)
        )
        return claim.allows(
            runner.claims, mark, self._clock.now(), shared=self._shared
        ) and self._forge.claim(runner, mark, self._clock, shared=self._shared)

    def _mark(self, seconds: int) -> str:
        return claim.claim(self._holder, self._clock.now() + timedelta(seconds=seconds))

    def wait_turn(self, stopping: Callable[[], bool]) -> list[Runner]:
        """With `reuse`, of the launches with the same labels one goes ahead; the others wait
        here until its runner is there, or it has failed. Raises TimedOut."""
        told = False

        def look() -> list[Runner] | None:
            nonlocal told
            listed = self._forge.runners()
            found = self.claim(listed)
            if stopping() or len(found) == self._request.count:
                return found
            if not self._is_anothers(listed) and self._take_turn():
                return self.claim(
                    self._forge.runners()
                )  # the launch that was before may have ended since
            if not told:
                log.info("Another launch with these labels is under way: waiting for its runner.")
            told = True
            return None

        return wait_for(
            look,
            "another launch with these labels to end",
            clock=self._clock,
            timeout=self._request.start_timeout,
        )

    def _is_anothers(self, listed: Sequence[Runner]) -> bool:
        claims = {
            mark for one in listed if one.name.split(" ")[0] == self._turn for mark in one.claims
        }
        return any(
            claim.holder_of(mark) != self._holder for mark in claim.alive(claims, self._clock.now())
        )

    def _take_turn(self) -> bool:
        """A launch ends by its start timeout, in whatever way; after that a sweep removes what
        is left of its turn."""
        assert self._request.cloud
        seconds = self._request.start_timeout + claim.HOLD_SECONDS
        until = self._clock.now() + timedelta(seconds=seconds)
        mark = Mark(provider=self._request.cloud.provider, online_by=until, name=self._turn).label(
            self._request.repository
        )
        self.took_turn = True  # it may be ours though its answer is lost
        return self._forge.take_turn(self._turn, self._mark(seconds), self._clock, labels=[mark])

    def end_turn(self) -> None:
        """However the launch ended. What cannot be removed is over by itself."""
        try:
            self._forge.end_turn(self._turn, self._holder)
        except ForgeError as error:
            log.warning(
                "%s is still registered, so that launches with these labels may wait for"
                " this one until its start timeout: %s",
                self._turn,
                error,
            )


def instance_of(runner: Runner, plan: Plan, provider: Provider) -> Instance | None:
    """The machine of a runner that is there, if it is one of ours in the regions that are asked
    for. Not known is no reason to fail."""
    try:
        for name, alone in (
            (runner.name, True),
            (re.sub(f"{NUMBER.pattern}$", "", runner.name), False),
        ):
            found = provider.find(
                {f"{OWNER_TAG}:name": name}, [place.region for place in plan.places]
            )
            named = [
                one
                for one in found
                if runner_name(Identity(name=name, key=""), one.id, alone) == runner.name
            ]
            if len(named) == 1:
                return provider.look(named[0])
    except ProviderError as error:
        log.warning("The machine of runner %s is not known: %s", runner.name, error)
    return None
