"""`launch`: reuses runners, or creates machines and waits until their runners are online; rolls
everything back if anything fails.

Whatever does not depend on each other runs in parallel: the list of runners is read while the
cloud looks up image and network. All requests are made in threads, so that a signal, which only
the main thread receives, can cancel the launch at any moment.
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
from runner_action.runners.context import Context
from runner_action.runners.group import Joining, RunnerGroup, groups_of
from runner_action.runners.ladder import Ladder
from runner_action.runners.lookup import Findings, LookUp, Planned, placements, planned
from runner_action.runners.readiness import Readiness
from runner_action.runners.reuse import Reusing, instance_of, labels_with, launched_of, unused
from runner_action.runners.rollback import SETTLE_SECONDS, roll_back
from runner_action.runners.siblings import Siblings
from runner_action.stopping import Signals
from runner_action.waiting import Clock

log = logging.getLogger(__name__)
LEFT = (
    "Not everything could be deleted; see the errors above. The cleanup step of this job, the"
    " machine's own shutdown, or `cml-runner reap` will delete the rest."
)
QUICK = 10.0
"""A machine that was online in fewer seconds has installed nothing."""
TURN_SECONDS = 30.0
"""How long a launch that is done waits for the end of its turn."""
NO_LABELS = (
    "No `labels` given: only jobs whose `runs-on` is the output `label` run on this machine."
)


@dataclass(frozen=True)
class Attempt:
    """What a launch has begun to create, and what deletes it again."""

    groups: Sequence[RunnerGroup]
    context: Context
    ladder: Ladder


@dataclass(frozen=True)
class Turn:
    """With `reuse`: the wait until no other launch with these labels is under way."""

    reusing: Reusing
    waiting: Future[list[Runner]]


class Launch:
    """One launch. Its collaborators are arguments: it does not know which cloud and which forge
    they are."""

    def __init__(
        self,
        request: LaunchRequest,
        siblings: Siblings,
        forge: Callable[[], Forge],
        provider: Callable[[], Provider],
        clock: Clock,
        began: float,
        remember: Callable[[Sequence[str]], None] = lambda _: None,
        signals: Signals | None = None,
    ) -> None:
        """`forge` and `provider` build the clients, in parallel, as each loads large libraries.
        `remember` stores the names of the runners that are about to be created, and no names
        after a complete rollback. `began`: when the process started, by the clock's `monotonic`.
        """
        self.request = request
        self.run = siblings.run
        self.clock = clock
        self.began = began
        self.remember = remember
        self._siblings = siblings
        self._build_forge = forge
        self._build_provider = provider
        assert request.cloud, "without a cloud, commands/local.py is run"
        self.cloud: CloudRequest = request.cloud
        self.stages: dict[str, float] = {}
        self.installing = 0.0
        self.waited = 0.0
        """Seconds until it was this launch's turn, and until there was room for its machines."""
        self._attempt: Attempt | None = None
        self._turn: Turn | None = None
        self._signals = signals or Signals(clock)
        self._stopping = False
        self._threads = ThreadPoolExecutor(8 + request.count, "launch")

    def launch(self, publish: Callable[[Report], None] = lambda _: None) -> Report:
        """Passes the report of the runners that are online to `publish`, and returns it. Raises
        the first error, or Cancelled, after the rollback."""
        try:
            try:
                report = self._launch()
                publish(report)
            finally:
                self._signals.shield()  # the rollback is not interrupted
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
        lookup = LookUp(request, self.run, forge, planning.result(), self._threads)
        run = self._unused(listing)
        groups = groups_of(request, run, forge.together, len(reused))
        findings = lookup.findings(placing)
        self._stage("prepared")
        plan, ladder = findings.plan, findings.placements
        if request.dry_run:
            return Report(
                launched=(), plan=plan, ladder=ladder, memory=findings.memory, stages=self.stages
            )
        context = Context(request.repository, forge, findings.provider, self.clock)
        sweeping = submit(self._siblings.sweep, request, context)
        attempt = self._create(groups, context, findings)
        with Sweep(context):
            launched = (*self._await_online(attempt), *reused)
        sweeping.result()
        tried = tuple(attempt.ladder.tried)
        return Report(
            launched=launched,
            plan=plan,
            ladder=ladder,
            tried=tried,
            memory=findings.memory,
            stages=self.stages,
            installing=self.installing,
        )

    # --- existing runners

    def _unused(self, listing: Future[Sequence[Runner]]) -> Run:
        """The run of this launch; another one if an earlier launch of the step has its name."""
        another = self._siblings.another
        self.run = unused(self.run, self.request.name, listing.result(), another)
        return self.run

    def _reuse(
        self, forge: Forge, listing: Future[Sequence[Runner]], planning: Future[Planned]
    ) -> tuple[Launched, ...]:
        """Claims existing runners instead of new ones. If `reuse` is set and there are too few, it
        waits for this launch's turn, and claims those that other launches created until then."""
        request, submit = self.request, self._threads.submit
        reusing = Reusing(request, self._unused(listing), forge, self.clock)
        claimed = submit(reusing.claim, listing.result()).result()
        if request.reuse is Reuse.ANY and len(claimed) < request.count and not request.dry_run:
            waiting = submit(reusing.wait_turn, lambda: self._stopping)
            self._turn = Turn(reusing, waiting)
            claimed = waiting.result()
            self.waited = self._seconds()
        return tuple(self._threads.map(lambda runner: self._reused(runner, planning), claimed))

    def _reused(self, runner: Runner, planning: Future[Planned]) -> Launched:
        """The report of a reused runner, with its machine if the cloud finds it."""
        instance = None
        try:
            planned = planning.result()
            instance = instance_of(runner, planned.plan, planned.provider)
        except ProviderError as error:
            # The runner can be used without the cloud's credentials.
            log.warning("Could not look up the machine of runner %s: %s", runner.name, error)
        return launched_of(runner, self.request, self._seconds(), instance)

    def _end_turn(self) -> None:
        if self._turn:
            wait([self._turn.waiting], timeout=SETTLE_SECONDS)
            if self._turn.reusing.took_turn:
                self._turn.reusing.end_turn()

    def _patience(self) -> float:
        """Seconds to wait for the end of the turn, which would expire anyway."""
        return max(min(self._signals.left(), TURN_SECONDS), 0)

    # --- creation

    def _create(
        self, groups: Sequence[RunnerGroup], context: Context, findings: Findings
    ) -> Attempt:
        """Creates all groups in parallel. Raises the first error."""
        ladder = Ladder(findings.placements, findings.provider, lambda: self._stopping)
        attempt = self._attempt = Attempt(groups, context, ladder)
        self.remember([group.identity.name for group in groups])
        for group in groups:
            group.creating = self._threads.submit(self._create_group, group, attempt, findings)
        for group in groups:
            assert group.creating
            group.creating.result()
        self._stage("created")
        if self.cloud.patience:
            self.waited += self.stages["created"] - self.stages["prepared"]
        return attempt

    def _create_group(self, group: RunnerGroup, attempt: Attempt, findings: Findings) -> None:
        online_by = self.clock.now() + timedelta(seconds=self.request.launch_timeout)
        name, forge = group.identity.name, attempt.context.forge
        mark = Mark(provider=self.cloud.provider, online_by=online_by, name=name)
        labels = labels_with(self.request, self.run)
        own_label = mark.label(self.request.repository)
        request = replace(self.request, labels=(*labels, own_label))
        if self._stopping:
            return
        group.label = own_label
        registration = self._register(group, request, forge, findings)
        group.registration = replace(registration, label=own_label)
        data = self._user_data(group, group.registration, request, forge, findings)
        lifetime = (request.max_lifetime or 0) + request.launch_timeout
        lease = self.clock.now() + timedelta(seconds=lifetime)
        title, metadata = self.run.title, self.cloud.metadata
        all_tags = tags(group.identity, request.repository, title, online_by, lease, metadata)
        machine = Machine(identity=group.identity, user_data=data, tags=all_tags, lifetime=lifetime)
        attempt.ladder.climb(group, machine)
        for runner, instance in group.runners.items():
            log.info("Created %s (%s) for runner %s.", instance.id, instance.zone, runner)

    def _register(
        self, group: RunnerGroup, request: LaunchRequest, forge: Forge, findings: Findings
    ) -> Registration:
        if findings.token:
            return Registration(token=findings.token, removal_token=findings.removal_token)
        group.joining = Joining.BY_THE_LAUNCH
        name, architecture = group.identity.name, findings.plan.architecture
        registration = forge.register_one(
            name, request.labels, architecture, longest=request.max_lifetime
        )
        return replace(registration, removal_token=findings.removal_token)

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

    def _await_online(self, attempt: Attempt) -> tuple[Launched, ...]:
        provider = attempt.context.provider
        expected: dict[str, tuple[Instance, Registration]] = {}
        for group in attempt.groups:
            for name, instance in group.runners.items():
                assert group.registration
                expected[name] = (instance, group.registration)
        readiness = Readiness(expected, attempt.context, lambda: self._stopping)
        timeout = self.request.start_timeout + self.waited - self._seconds()
        self._threads.submit(readiness.wait, max(timeout, 1.0)).result()
        self._stage("online")
        instances = {name: instance for name, (instance, _) in expected.items()}
        settling = self._threads.submit(self._settle, provider, list(instances.values()))
        boot = self.stages["online"] - self.stages["created"]
        if bootstrap.equips(self.request) and boot >= QUICK:
            self._threads.submit(self._equipped, provider, *list(instances.values())[:1]).result()
        launched = tuple(
            self._threads.map(
                lambda name: self._launched(name, instances[name], provider), instances
            )
        )
        settling.result()
        return launched

    def _equipped(self, provider: Provider, instance: Instance) -> None:
        """Reports what a machine has installed and what it lacks, by its console. The others have
        the same image."""
        try:
            equipped = console.equipped(provider.console(instance))
        except ProviderError as error:
            log.debug("%s", error)
            return
        if equipped and equipped.seconds >= 1:
            self.installing = equipped.seconds
            log.info("Installing packages took the machine %.0f s.", equipped.seconds)
        if equipped and equipped.missing:
            log.warning("Some packages could not be installed: %s", equipped.missing)

    def _settle(self, provider: Provider, instances: Sequence[Instance]) -> None:
        try:
            provider.settle(instances)
        except ProviderError as error:  # no reason to delete a runner that is online
            log.warning("%s", error)

    def _launched(self, name: str, instance: Instance, provider: Provider) -> Launched:
        try:
            instance = provider.look(instance)
            if self.cloud.ssh_public_key:
                user = console.login(provider.console(instance)) or instance.login
                log.info("To log in to %s: ssh -i KEY %s@%s", name, user, instance.address)
        except ProviderError as error:  # the runner is online: it can do without its address
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
        """Deletes what was created, in the time that a signal leaves. Returns the result as a
        sentence for people."""
        self._stopping = True
        attempt = self._attempt
        begun = [group for group in attempt.groups if group.creating] if attempt else []
        if not attempt or not begun:
            return "Nothing had been created."
        log.info("Rolling back: deleting what was created.")
        if roll_back(begun, attempt.context, left=self._signals.left):
            return LEFT
        self.remember([])
        return "Everything that was created has been deleted."

    # --- time

    def _seconds(self) -> float:
        return round(self.clock.monotonic() - self.began, 2)

    def _stage(self, name: str) -> None:
        self.stages[name] = self._seconds()
