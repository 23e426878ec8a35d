"""Story 1, launch a runner: reuse? plan, register, create, wait until online; on any failure
take everything back.

What need not wait for one another runs side by side: the forge is asked while the cloud looks up
image and network. All calls are made in threads, so that a signal, which only the main thread
hears, can interrupt the story at any moment.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import timedelta

from runner_action import bootstrap
from runner_action.bootstrap.fitting import user_data
from runner_action.commands.reap import Sweep
from runner_action.errors import Cancelled, ProviderError
from runner_action.forges.base import Forge
from runner_action.marks import Mark, tags
from runner_action.model import (
    Instance,
    Launched,
    Machine,
    Registration,
    Report,
    Run,
    Runner,
)
from runner_action.providers.base import Provider
from runner_action.request import CloudRequest, LaunchRequest, Reuse
from runner_action.runners import console
from runner_action.runners.group import Joining, RunnerGroup, groups_of
from runner_action.runners.ladder import Ladder
from runner_action.runners.lookup import Findings, LookUp, Planned, placements, planned
from runner_action.runners.readiness import Readiness
from runner_action.runners.reuse import Reusing, instance_of, labels_with, launched_of, refuse_taken
from runner_action.runners.rollback import SETTLE_SECONDS, roll_back
from runner_action.stopping import Signals
from runner_action.waiting import Clock

log = logging.getLogger(__name__)
LEFT = (
    "Not everything could be deleted, as the errors above tell. What is left is deleted by the"
    " cleanup step of this job, by the machine, which ends itself, or by `cml-runner reap`."
)
TURN_SECONDS = 30.0


NO_LABELS = (
    "No `labels` given: only jobs whose `runs-on` is the output `label` run on this machine."
)


@dataclass(frozen=True)
class Made:
    """What a launch has begun to make, and by whom it is rolled back."""

    groups: Sequence[RunnerGroup]
    forge: Forge
    provider: Provider
    ladder: Ladder


@dataclass(frozen=True)
class Turn:
    """With `reuse`: what waits until no other launch with these labels is under way."""

    reusing: Reusing
    waiting: Future[list[Runner]]


class Launch:
    """One launch. The collaborators come in: nothing here knows which cloud and which forge they
    are."""

    def __init__(
        self,
        request: LaunchRequest,
        run: Run,
        forge: Callable[[], Forge],
        provider: Callable[[], Provider],
        clock: Clock,
        began: float,
        note: Callable[[Sequence[str]], None] = lambda _: None,
        signals: Signals | None = None,
    ) -> None:
        """`forge` and `provider` build their clients when called: loading the one's library
        takes as long as asking the other. `note` is told the names of the runners that are about
        to be made, and none when all was taken back.
        """
        self.request = request
        self.run = run
        self.clock = clock
        self.began = began
        self.note = note
        self._build_forge = forge
        self._build_provider = provider
        assert request.cloud, "without a cloud it is local.py's story"
        self.cloud: CloudRequest = request.cloud
        self.stages: dict[str, float] = {}
        self.waited = 0.0
        """Seconds that passed until it was this launch's turn."""
        self._made: Made | None = None
        self._turn: Turn | None = None
        self._signals = signals or Signals(clock)
        self._stopping = False
        self._threads = ThreadPoolExecutor(8 + request.count, "launch")

    def launch(self, tell: Callable[[Report], None] = lambda _: None) -> Report:
        """The report of runners that are online, when it was told. Raises what went wrong, or
        that it was stopped, after everything was taken back."""
        try:
            try:
                report = self._launch()
                tell(report)
            finally:
                self._signals.shield()  # a signal that comes before is the last that interrupts
        except BaseException as error:
            turn = self._threads.submit(self._end_turn)
            hint = self._roll_back()
            wait([turn], timeout=self._patience())
            self._threads.shutdown(wait=False, cancel_futures=True)
            if self._signals.number:
                raise Cancelled(self._signals.number, hint) from error
            raise
        wait([self._threads.submit(self._end_turn)], timeout=self._patience())
        self._threads.shutdown(wait=False)
        return report

    def _launch(self) -> Report:
        request = self.request
        run = self.run
        submit = self._threads.submit
        if not request.labels:
            log.info(NO_LABELS)
        planning = submit(planned, self._build_provider, self.cloud)
        placing = submit(placements, planning, self.cloud)
        forge = self._build_forge()
        shared = request.reuse is not Reuse.NEVER
        listing = submit(lambda: forge.runners(labels=shared))
        reused = self._reuse(forge, listing, planning) if shared else ()
        if len(reused) == request.count:
            return Report(launched=reused)
        asked = LookUp(request, run, forge, planning.result(), self._threads)
        listed = listing.result()
        taken = {runner.name for runner in listed if shared and runner.online}
        groups = groups_of(request, run, forge.together, len(reused), taken)
        refuse_taken(listed, {group.identity.name for group in groups if not group.suffixed})
        findings = asked.findings(placing)
        self._stage("prepared")
        plan, ladder = findings.plan, findings.placements
        if request.dry_run:
            return Report(launched=(), plan=plan, ladder=ladder, stages=self.stages)
        made = self._create(groups, forge, findings)
        with Sweep(request.repository, forge, findings.provider, self.clock):
            launched = (*self._await_online(made), *reused)
        tried = tuple(made.ladder.tried)
        return Report(launched=launched, plan=plan, ladder=ladder, tried=tried, stages=self.stages)

    # --- runners that are there

    def _reuse(
        self, forge: Forge, listing: Future[Sequence[Runner]], planning: Future[Planned]
    ) -> tuple[Launched, ...]:
        """Runners that serve instead of new ones; as many as there are, and, where that is too
        few and `reuse` is set, not beside another launch."""
        request, submit = self.request, self._threads.submit
        reusing = Reusing(request, self.run, forge, self.clock)
        found = submit(reusing.claim, listing.result()).result()
        if request.reuse is Reuse.ANY and len(found) < request.count and not request.dry_run:
            waiting = submit(reusing.wait_turn, lambda: self._stopping)
            self._turn = Turn(reusing, waiting)
            found = waiting.result()
            self.waited = self._seconds()
        return tuple(self._threads.map(lambda runner: self._reused(runner, planning), found))

    def _reused(self, runner: Runner, planning: Future[Planned]) -> Launched:
        """Its machine is told where the cloud knows it."""
        instance = None
        try:
            cloud = planning.result()
            instance = instance_of(runner, cloud.plan, cloud.provider)
        except ProviderError as error:
            # The runner is there: credentials of the cloud are not worth its refusal.
            log.warning("The machine of runner %s is not known: %s", runner.name, error)
        return launched_of(runner, self.request.labels, self._seconds(), instance)

    def _end_turn(self) -> None:
        if self._turn:
            wait([self._turn.waiting], timeout=SETTLE_SECONDS)
            if self._turn.reusing.took_turn:
                self._turn.reusing.end_turn()

    def _patience(self) -> float:
        """Seconds for what is over by itself if it is not done."""
        return max(min(self._signals.left(), TURN_SECONDS), 0)

    # --- creation

    def _create(self, groups: Sequence[RunnerGroup], forge: Forge, findings: Findings) -> Made:
        """All machines of the launch side by side. The first failure ends the launch."""
        ladder = Ladder(findings.placements, findings.provider, lambda: self._stopping)
        made = self._made = Made(groups, forge, findings.provider, ladder)
        self.note([group.identity.name for group in groups])
        for group in groups:
            group.creating = self._threads.submit(self._create_group, group, made, findings)
        for group in groups:
            assert group.creating
            group.creating.result()
        self._stage("created")
        return made

    def _create_group(self, group: RunnerGroup, made: Made, findings: Findings) -> None:
        online_by = self.clock.now() + timedelta(seconds=self.request.start_timeout)
        name = group.identity.name
        mark = Mark(provider=self.cloud.provider, online_by=online_by, name=name)
        labels = labels_with(self.request.labels, self.run)
        request = replace(self.request, labels=(*labels, mark.label(self.request.repository)))
        if self._stopping:
            return
        group.registration = self._register(group, request, made.forge, findings)
        data = self._user_data(group, group.registration, request, made.forge, findings)
        lifetime = (request.max_lifetime or 0) + request.start_timeout
        expiry = self.clock.now() + timedelta(seconds=lifetime)
        title, metadata = self.run.title, self.cloud.metadata
        marks = tags(group.identity, request.repository, title, online_by, expiry, metadata)
        machine = Machine(identity=group.identity, user_data=data, tags=marks, lifetime=lifetime)
        made.ladder.climb(group, machine)
        for runner, instance in group.runners.items():
            log.info("Created %s (%s) for runner %s.", instance.id, instance.zone, runner)

    def _register(
        self, group: RunnerGroup, request: LaunchRequest, forge: Forge, findings: Findings
    ) -> Registration:
        if findings.token:
            return Registration(token=findings.token, removal_token=findings.removal_token)
        group.joining = Joining.BY_THE_LAUNCH
        name, architecture = group.identity.name, findings.plan.architecture
        own = forge.register_one(name, request.labels, architecture, longest=request.max_lifetime)
        return replace(own, removal_token=findings.removal_token)

    def _user_data(
        self,
        group: RunnerGroup,
        registration: Registration,
        request: LaunchRequest,
        forge: Forge,
        findings: Findings,
    ) -> bytes:
        name = group.identity.name
        runner = f"{name}-{bootstrap.INSTANCE}" if group.suffixed else name
        spec = bootstrap.spec_of(
            request, runner, registration, findings.download, forge.api_url, findings.job
        )
        return user_data(spec, request, findings.provider.user_data_limit, findings.deletion)

    # --- waiting

    def _await_online(self, made: Made) -> tuple[Launched, ...]:
        wanted = {
            name: (instance, group.registration)
            for group in made.groups
            for name, instance in group.runners.items()
            if group.registration
        }
        provider = made.provider
        readiness = Readiness(wanted, made.forge, provider, self.clock, lambda: self._stopping)
        timeout = self.request.start_timeout + self.waited - self._seconds()
        self._threads.submit(readiness.wait, max(timeout, 1.0)).result()
        self._stage("online")
        instances = {name: instance for name, (instance, _) in wanted.items()}
        settling = self._threads.submit(self._settle, provider, list(instances.values()))
        launched = self._threads.map(
            lambda name: self._launched(name, instances[name], provider), instances
        )
        found = tuple(launched)
        settling.result()
        return found

    def _settle(self, provider: Provider, instances: Sequence[Instance]) -> None:
        try:
            provider.settle(instances)
        except ProviderError as error:  # as with an address: no reason to end what works
            log.warning("%s", error)

    def _launched(self, name: str, instance: Instance, provider: Provider) -> Launched:
        try:
            instance = provider.look(instance)
            if self.cloud.ssh_public_key:
                user = console.login(provider.console(instance)) or instance.login
                log.info("To log in to %s: ssh -i KEY %s@%s", name, user, instance.address)
        except ProviderError as error:  # the runner is online: its address is not worth its end
            log.warning("%s", error)
        return Launched(
            runner_name=name,
            label=self.run.derived_name,
            labels=self.request.labels,
            reused=False,
            launch_seconds=self.stages["online"],
            instance=instance,
        )

    # --- rollback

    def _roll_back(self) -> str:
        """Deletes what was made and clears the list, within what a signal leaves of time.
        Returns how that went, for people."""
        self._stopping = True
        made = self._made
        begun = [group for group in made.groups if group.creating] if made else []
        if not made or not begun:
            return "Nothing had been created."
        log.info("Rolling back: deleting what was created.")
        left = self._signals.left
        if roll_back(begun, made.forge, made.provider, self.clock, left=left):
            return LEFT
        self.note([])
        return "Everything that was created has been deleted."

    # --- time

    def _seconds(self) -> float:
        return round(self.clock.monotonic() - self.began, 2)

    def _stage(self, name: str) -> None:
        self.stages[name] = self._seconds()
