"""What a launch looks up at the cloud and at GitHub or GitLab before it creates anything: in
parallel wherever one lookup does not need another's result."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from runner_action.bootstrap import published
from runner_action.bootstrap.fitting import Foreseen, foreseen
from runner_action.bundle import bundle
from runner_action.errors import AuthError, ForgeError
from runner_action.forges.base import Forge
from runner_action.forges.places import holds
from runner_action.model import (
    CiJob,
    Deletion,
    Download,
    LaunchJob,
    Placement,
    Plan,
    Run,
    Secret,
)
from runner_action.providers import traits_of
from runner_action.providers.base import Provider
from runner_action.request import CloudRequest, LaunchRequest
from runner_action.runners.ladder import after
from runner_action.runners.memory import recalled

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Planned:
    """The request in the cloud's terms, and the client of the cloud."""

    provider: Provider
    plan: Plan


@dataclass(frozen=True)
class Findings:
    """What a launch knows before it creates anything."""

    provider: Provider
    plan: Plan
    placements: tuple[Placement, ...]
    download: Download
    deletion: Deletion | None
    """How the machine deletes itself; None if its power-off does."""
    token: Secret | None
    """Registers any number of runners; None if each is registered individually."""
    removal_token: Secret | None
    """Deregisters a runner from a machine that has no token for the API."""
    job: LaunchJob | None
    """The job with which a restart begins; None if unknown."""
    memory: str = ""
    """Why the placements begin elsewhere than usual, as a sentence; empty if they do not."""


def planned(build: Callable[[], Provider], cloud: CloudRequest) -> Planned:
    """Builds the client and the plan, and logs the plan's notes."""
    provider = build()
    plan = provider.plan(cloud)
    for note in plan.notes:
        log.warning("%s.", note[0].upper() + note[1:])
    return Planned(provider, plan)


def placements(planning: Future[Planned], cloud: CloudRequest) -> tuple[Placement, ...]:
    """The ladder of a launch, once it is planned."""
    planned = planning.result()
    return tuple(planned.provider.resolve(planned.plan, cloud))


class LookUp:
    """The lookups of one launch, which start when it is constructed."""

    def __init__(
        self,
        request: LaunchRequest,
        run: Run,
        forge: Forge,
        planned: Planned,
        threads: ThreadPoolExecutor,
    ) -> None:
        assert request.cloud
        self._request = request
        self._cloud = request.cloud
        self._forge = forge
        self._planned = planned
        architecture, version = planned.plan.architecture, request.runner_version
        self._foreseeing = threads.submit(self._foresee)
        self._downloading = threads.submit(forge.download, architecture, version)
        self._checking = threads.submit(self._check_restart_token)
        self._cautioning = threads.submit(self._caution)
        self._finding_job = threads.submit(self._find_job, run.job)
        self._token = threads.submit(self._registration_token)
        self._removal = threads.submit(self._removal_token)
        self._recalling = threads.submit(recalled, planned.provider, planned.plan, run)

    def findings(self, placing: Future[tuple[Placement, ...]]) -> Findings:
        """Waits for all results. Raises the error of any lookup."""
        self._checking.result()
        self._cautioning.result()
        memory = self._recalling.result()
        placements = after(placing.result(), memory.reclaimed)
        sentence = memory.sentence(placements)
        if sentence:
            log.info("%s", sentence)
        download = self._downloading.result()
        deletion, _ = self._foreseeing.result()
        return Findings(
            provider=self._planned.provider,
            plan=self._planned.plan,
            placements=placements,
            download=download,
            deletion=deletion,
            token=self._token.result(),
            removal_token=self._removal.result(),
            job=self._finding_job.result(),
            memory=sentence,
        )

    def _foresee(self) -> tuple[Deletion | None, Foreseen]:
        """How the machine deletes itself, and what the user data will be. Raises InputError if it
        will not fit, MachineFailed if the machine could not fetch its agent."""
        provider, plan = self._planned.provider, self._planned.plan
        deletion = provider.deletion(self._cloud)
        expected = foreseen(self._request, provider.user_data_limit, plan.architecture, deletion)
        if expected.stage:
            log.info(
                "The user data has no room for the agent: the machine fetches it from %s.",
                expected.stage,
            )
            published.check(expected.stage, bundle().sha256)
        return deletion, expected

    def _registration_token(self) -> Secret | None:
        _, expected = self._foreseeing.result()
        if self._request.dry_run or expected.jit:
            return None
        return self._forge.registration_token()

    def _removal_token(self) -> Secret | None:
        if self._request.dry_run or self._request.restart_token:
            return None
        return self._forge.removal_token()

    def _check_restart_token(self) -> None:
        """Checks that GitHub or GitLab accepts the token, and warns of what else it allows to a
        job that reads it. Raises AuthError: at the first interruption it would be too late."""
        request = self._request
        if request.restart_token is None:
            return
        try:
            reach = self._forge.reach(request.restart_token)
        except AuthError as error:
            raise AuthError(f"`restart-token` was refused: {error}", error.hint) from None
        except ForgeError as error:
            log.debug("Could not look up what `restart-token` allows: %s", error)
            return
        if reach and request.job_sudo and not traits_of(self._cloud.provider).pods:
            log.warning("`restart-token`, which jobs can read as root, is %s.", reach)

    def _caution(self) -> None:
        """Warns of what would end jobs early. Nothing depends on it."""
        try:
            for sentence in self._forge.cautions(self._request.max_lifetime):
                log.warning("%s", sentence)
        except ForgeError as error:
            log.debug("Could not look up what limits jobs: %s", error)

    def _find_job(self, job: CiJob | None) -> LaunchJob | None:
        """The job of this launch; None if it cannot be looked up, which does not end the launch."""
        request = self._request
        if not request.restart_limit or job is None:
            return None
        if not holds(request.forge, request.repository, job.repository_url):
            return None
        try:
            return self._forge.launch_job(job)
        except AuthError as error:  # a token that may not read a run may not restart it
            if request.restart_token == request.token:
                log.warning("The machine will not be able to restart its job. %s", error)
        except ForgeError as error:
            log.debug("Could not look up the launch job: %s", error)
        return None
