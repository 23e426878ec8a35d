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
from dataclasses import replace
from datetime import timedelta

from runner_action import bootstrap, console, published
from runner_action.arrival import Arrival
from runner_action.bundle import bundle
from runner_action.errors import (
    AuthError,
    Cancelled,
    CapacityError,
    ForgeError,
    ProviderError,
    QuotaError,
)
from runner_action.fitting import Foreseen, foreseen, user_data
from runner_action.forges.base import Forge
from runner_action.forges.levels import holds
from runner_action.marks import Mark, tags
from runner_action.model import (
    CiJob,
    Deletion,
    Download,
    Instance,
    Launched,
    LaunchJob,
    Machine,
    Placement,
    Plan,
    ProviderName,
    Registration,
    Report,
    Run,
    Runner,
    Secret,
)
from runner_action.providers.base import Provider
from runner_action.reap import Sweep
from runner_action.request import CloudRequest, LaunchRequest, Reuse
from runner_action.reuse import Reusing, instance_of, labels_with, launched_of, refuse_taken
from runner_action.stopping import Signals
from runner_action.takeback import SETTLE_SECONDS, Ours, all_ours, take_back
from runner_action.waiting import Clock

log = logging.getLogger(__name__)
LEFT = (
    "Not everything could be taken back, as is told above. It is left to the clean-up after this"
    " job, to the machine, which ends itself, and to `cml-runner reap`, which removes what is left."
)
TURN_SECONDS = 30.0


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
        self.request, self.run, self.clock, self.began, self.note = request, run, clock, began, note
        self._build_forge, self._build_provider = forge, provider
        assert request.cloud, "without a cloud it is local.py's story"
        self.cloud: CloudRequest = request.cloud
        self.job: Future[LaunchJob | None] | None = None
        self.removal: Future[Secret | None] | None = None
        """What machines without a token for the API leave the list with."""
        self.ours: list[Ours] = []
        self.tried: list[str] = []
        self.stages: dict[str, float] = {}
        self.turn: Future[list[Runner]] | None = None
        self.waited = 0.0
        """Seconds that passed until it was this launch's turn."""
        self._signals, self._stopping = signals or Signals(clock), False
        self._threads = ThreadPoolExecutor(5 + request.count, "launch")

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
            hint = self._take_back()
            wait([turn], timeout=self._patience())
            self._threads.shutdown(wait=False, cancel_futures=True)
            if self._signals.number:
                raise Cancelled(self._signals.number, hint) from error
            raise
        wait([self._threads.submit(self._end_turn)], timeout=self._patience())
        self._threads.shutdown(wait=False)
        return report

    def _launch(self) -> Report:
        request, side_by_side = self.request, self._threads.submit
        if not request.labels:
            log.info(
                "No `labels` given: only jobs whose `runs-on` is the output `label` run on this"
                " machine."
            )
        planning = side_by_side(self._plan)
        resolving = side_by_side(self._resolve, planning)
        self.forge = self._build_forge()
        listing = side_by_side(lambda: self.forge.runners(labels=request.reuse is not Reuse.NEVER))
        reused = self._reuse(listing, planning) if request.reuse is not Reuse.NEVER else []
        if len(reused) == request.count:
            return Report(launched=tuple(reused))
        plan = planning.result()
        foreseeing = side_by_side(self._foresee, plan)
        downloading = side_by_side(self.forge.download, plan.architecture, request.runner_version)
        joining = None if request.dry_run else side_by_side(self._token, foreseeing)
        kept = request.restart_token
        checking = side_by_side(self._check_kept, kept) if kept else None
        if kept is None and not request.dry_run:
            self.removal = side_by_side(self.forge.removal_token)
        if (
            request.restart_limit
            and self.run.job
            and holds(request.repository, self.run.job.repository_url)
        ):
            self.job = side_by_side(self._find_job, self.run.job)
        if checking:
            checking.result()
        listed = listing.result()
        online = (
            {runner.name for runner in listed if runner.online}
            if request.reuse is not Reuse.NEVER
            else ()
        )
        self.ours = all_ours(request, self.run, self.forge.together, len(reused), online)
        refuse_taken(listed, {ours.identity.name for ours in self.ours if not ours.suffixed})
        ladder, download, (deletion, _) = (
            resolving.result(),
            downloading.result(),
            foreseeing.result(),
        )
        self._stage("prepared")
        if request.dry_run:
            return Report(launched=(), plan=plan, ladder=ladder, stages=self.stages)
        self._create(plan, ladder, download, joining.result() if joining else None, deletion)
        with Sweep(request.repository, self.forge, self.provider, self.clock):
            launched_all = (*self._wait_online(), *reused)
        return Report(
            launched=launched_all,
            plan=plan,
            ladder=ladder,
            tried=tuple(self.tried),
            stages=self.stages,
        )

    # --- runners that are there

    def _reuse(self, listing: Future[Sequence[Runner]], planning: Future[Plan]) -> list[Launched]:
        """Runners that serve instead of new ones; as many as there are, and, where that is too
        few and `reuse` is set, not beside another launch."""
        request = self.request
        self.reusing = Reusing(request, self.run, self.forge, self.clock)
        found = self._threads.submit(self.reusing.claim, listing.result()).result()
        if request.reuse is Reuse.ANY and len(found) < request.count and not request.dry_run:
            self.turn = self._threads.submit(self.reusing.wait_turn, lambda: self._stopping)
            found = self.turn.result()
            self.waited = self._seconds()
        return [
            one.result()
            for one in [self._threads.submit(self._reused, runner, planning) for runner in found]
        ]

    def _reused(self, runner: Runner, planning: Future[Plan]) -> Launched:
        """Its machine is told where the cloud knows it."""
        try:
            instance = instance_of(runner, planning.result(), self.provider)
        except (
            ProviderError
        ) as error:  # the runner is there: credentials of the cloud are not worth its refusal
            log.warning("The machine of runner %s is not known: %s", runner.name, error)
            instance = None
        return launched_of(runner, self.request.labels, self._seconds(), instance)

    def _end_turn(self) -> None:
        if self.turn:
            wait([self.turn], timeout=SETTLE_SECONDS)
            if self.reusing.took_turn:
                self.reusing.end_turn()

    def _patience(self) -> float:
        """Seconds for what is over by itself if it is not done."""
        return max(min(self._signals.left(), TURN_SECONDS), 0)

    # --- steps

    def _plan(self) -> Plan:
        self.provider = self._build_provider()
        plan = self.provider.plan(self.cloud)
        for note in plan.notes:
            log.warning("%s.", note[0].upper() + note[1:])
        return plan

    def _foresee(self, plan: Plan) -> tuple[Deletion | None, Foreseen]:
        """Raises InputError if the user data will not fit, MachineFailed if the machine would
        not find its agent: before anything is made."""
        deletion = self.provider.deletion(self.cloud)
        found = foreseen(self.request, self.provider.user_data_limit, plan.architecture, deletion)
        if found.stage:
            log.info(
                "The user data has no room for the agent: the machine fetches it from %s.",
                found.stage,
            )
            published.check(found.stage, bundle().sha256)
        return deletion, found

    def _token(self, foreseeing: Future[tuple[Deletion | None, Foreseen]]) -> Secret | None:
        """None: each runner is registered by itself."""
        _, found = foreseeing.result()
        return None if found.jit else self.forge.registration_token()

    def _check_kept(self, token: Secret) -> None:
        """Of the token that machines will have: that it is one, and what a job that gets hold of
        it would have. Raises AuthError if it is none: found only when a job was interrupted, that
        would be too late."""
        try:
            reach = self.forge.reach(token)
        except AuthError as error:
            raise AuthError(f"`restart-token` is no good: {error}", error.hint) from None
        except ForgeError as error:
            log.debug("What `restart-token` opens is not known: %s", error)
            return
        if reach and self.cloud.provider is not ProviderName.KUBERNETES and self.request.job_sudo:
            log.warning("`restart-token`, which jobs can read as root, is %s.", reach)

    def _find_job(self, job: CiJob) -> LaunchJob | None:
        """Which job of the run this is, so that a restart begins with it. Not known is no reason
        to fail."""
        try:
            return self.forge.launch_job(job)
        except AuthError as error:  # whoever may not see a run may not run it again
            if self.request.restart_token == self.request.token:
                log.warning("The machine will not be able to restart its job. %s", error)
            return None
        except ForgeError as error:
            log.debug("The launch job is not known: %s", error)
            return None

    def _resolve(self, planning: Future[Plan]) -> tuple[Placement, ...]:
        plan = planning.result()  # the provider is there only after this
        return tuple(self.provider.resolve(plan, self.cloud))

    def _create(
        self,
        plan: Plan,
        ladder: Sequence[Placement],
        download: Download,
        token: Secret | None,
        deletion: Deletion | None,
    ) -> None:
        """All machines of the launch side by side. The first failure ends the launch."""
        self.note([ours.identity.name for ours in self.ours])
        for ours in self.ours:
            ours.creating = self._threads.submit(
                self._create_one, ours, plan, ladder, download, token, deletion
            )
        for ours in self.ours:
            assert ours.creating is not None
            ours.creating.result()
        self._stage("created")

    def _create_one(
        self,
        ours: Ours,
        plan: Plan,
        ladder: Sequence[Placement],
        download: Download,
        token: Secret | None,
        deletion: Deletion | None,
    ) -> None:
        online_by = self.clock.now() + timedelta(seconds=self.request.start_timeout)
        mark = Mark(
            provider=self.cloud.provider, online_by=online_by, name=ours.identity.name
        ).label(self.request.repository)
        request = replace(self.request, labels=(*labels_with(self.request.labels, self.run), mark))
        removal = self.removal.result() if self.removal else None
        if self._stopping:
            return
        if token:
            ours.registration = Registration(token=token, removal_token=removal)
        else:
            ours.alone = True
            made = self.forge.register_one(
                ours.identity.name, request.labels, plan.architecture, longest=request.max_lifetime
            )
            ours.registration = replace(made, removal_token=removal)
        name = (
            ours.identity.name
            if not ours.suffixed
            else f"{ours.identity.name}-{bootstrap.INSTANCE}"
        )
        spec = bootstrap.spec_of(
            request,
            name,
            ours.registration,
            download,
            self.forge.api_url,
            self.job.result() if self.job else None,
        )
        data = user_data(spec, request, self.provider.user_data_limit, deletion)
        lifetime = (request.max_lifetime or 0) + request.start_timeout
        expiry = self.clock.now() + timedelta(seconds=lifetime)
        marks = tags(
            ours.identity,
            request.repository,
            self.run.title,
            online_by,
            expiry,
            self.cloud.metadata,
        )
        self._climb(
            ours,
            ladder,
            Machine(identity=ours.identity, user_data=data, tags=marks, lifetime=lifetime),
        )
        for name, instance in ours.runners.items():
            log.info("Created %s (%s) for runner %s.", instance.id, instance.zone, name)

    def _climb(self, ours: Ours, ladder: Sequence[Placement], machine: Machine) -> None:
        """Placement by placement until there are enough machines. No quota: the next region, or
        on demand after spot; all else than that and no capacity ends it."""
        full: set[tuple[str, bool]] = set()
        refusal: ProviderError | None = None
        for placement in ladder:
            if self._stopping:
                break
            if (placement.region, placement.spot) in full:
                continue
            wanted = ours.count - len(ours.instances)
            log.info("Asking for %s%s.", f"{wanted} × " if wanted > 1 else "", placement)
            ours.asked = True
            try:
                made = self.provider.create(placement, machine, wanted)
            except (CapacityError, QuotaError) as error:
                ours.asked, refusal, answer = bool(ours.instances), error, str(error)
            else:
                ours.instances += made.instances
                refusal, answer = (
                    made.shortage,
                    ("yes" if ours.count == 1 else f"{len(made.instances)} of {wanted}"),
                )
                self.tried += made.refused
            self.tried.append(f"{placement}: {answer}")
            if refusal is None:
                return
            log.warning("%s", refusal)
            if not isinstance(refusal, CapacityError | QuotaError):
                raise refusal
            if isinstance(refusal, QuotaError):
                full.add((placement.region, placement.spot))
        if isinstance(refusal, QuotaError):
            raise refusal
        what = "such a machine" if ours.count == 1 else f"{ours.count} such machines"
        raise CapacityError(
            f"No placement had {what}: " + "; ".join(self.tried), refusal.hint if refusal else ""
        )

    # --- waiting

    def _wait_online(self) -> tuple[Launched, ...]:
        wanted = {
            name: (instance, ours.registration)
            for ours in self.ours
            for name, instance in ours.runners.items()
            if ours.registration
        }
        arrival = Arrival(wanted, self.forge, self.provider, self.clock, lambda: self._stopping)
        self._threads.submit(
            arrival.wait, max(self.request.start_timeout + self.waited - self._seconds(), 1.0)
        ).result()
        self._stage("online")
        settling = self._threads.submit(self._settle, [instance for instance, _ in wanted.values()])
        launched = tuple(
            self._threads.map(lambda name: self._launched(name, wanted[name][0]), wanted)
        )
        settling.result()
        return launched

    def _settle(self, instances: Sequence[Instance]) -> None:
        try:
            self.provider.settle(instances)
        except ProviderError as error:  # as with an address: no reason to end what works
            log.warning("%s", error)

    def _launched(self, name: str, instance: Instance) -> Launched:
        try:
            instance = self.provider.look(instance)
            if self.cloud.ssh_public_key:
                user = console.login(self.provider.console(instance)) or instance.login
                log.info("To log in to %s: ssh -i KEY %s@%s", name, user, instance.address)
        except ProviderError as error:  # the runner is online: its address is not worth its end
            log.warning("%s", error)
        label, labels = self.run.derived_name, self.request.labels
        return Launched(
            runner_name=name,
            label=label,
            labels=labels,
            reused=False,
            launch_seconds=self.stages["online"],
            instance=instance,
        )

    # --- taking back

    def _take_back(self) -> str:
        """Ends what was made and clears the forge's list, within what a signal leaves of time.
        Returns how that went, for people."""
        begun = [ours for ours in self.ours if ours.creating is not None]
        self._stopping = True
        if not begun:
            return "Nothing had been made."
        log.info("Taking back what was made.")
        if take_back(begun, self.forge, self.provider, self.clock, left=self._signals.left):
            return LEFT
        self.note([])
        return "What had been made was taken back."

    # --- time

    def _seconds(self) -> float:
        return round(self.clock.monotonic() - self.began, 2)

    def _stage(self, name: str) -> None:
        self.stages[name] = self._seconds()
