"""What a launch asks of the cloud and of GitHub or GitLab before it makes anything: each question
once, all that need not wait for one another side by side."""

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

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Planned:
    """What is wanted, in the cloud's words, and the client that asks for it."""

    provider: Provider
    plan: Plan


@dataclass(frozen=True)
class Findings:
    """All that creation needs to know."""

    provider: Provider
    plan: Plan
    placements: tuple[Placement, ...]
    download: Download
    deletion: Deletion | None
    """By what the machine deletes itself."""
    token: Secret | None
    """What any number of runners join with; None: each is registered by itself."""
    removal_token: Secret | None
    """What machines without a token for the API leave the list with."""
    job: LaunchJob | None
    """Which job a restart begins with."""


def planned(build: Callable[[], Provider], cloud: CloudRequest) -> Planned:
    provider = build()
    plan = provider.plan(cloud)
    for note in plan.notes:
        log.warning("%s.", note[0].upper() + note[1:])
    return Planned(provider, plan)


def placements(planning: Future[Planned], cloud: CloudRequest) -> tuple[Placement, ...]:
    found = planning.result()
    return tuple(found.provider.resolve(found.plan, cloud))


class LookUp:
    """The questions of one launch, asked as soon as it is there."""

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
        self._finding = threads.submit(self._find_job, run.job)
        self._joining = threads.submit(self._registration_token)
        self._removal = threads.submit(self._removal_token)

    def findings(self, placing: Future[tuple[Placement, ...]]) -> Findings:
        """Raises what went wrong with any of the questions."""
        self._checking.result()
        placements = placing.result()
        download = self._downloading.result()
        deletion, _ = self._foreseeing.result()
        return Findings(
            provider=self._planned.provider,
            plan=self._planned.plan,
            placements=placements,
            download=download,
            deletion=deletion,
            token=self._joining.result(),
            removal_token=self._removal.result(),
            job=self._finding.result(),
        )

    def _foresee(self) -> tuple[Deletion | None, Foreseen]:
        """Raises InputError if the user data will not fit, MachineFailed if the machine would
        not find its agent: before anything is made."""
        provider, plan = self._planned.provider, self._planned.plan
        deletion = provider.deletion(self._cloud)
        found = foreseen(self._request, provider.user_data_limit, plan.architecture, deletion)
        if found.stage:
            log.info(
                "The user data has no room for the agent: the machine fetches it from %s.",
                found.stage,
            )
            published.check(found.stage, bundle().sha256)
        return deletion, found

    def _registration_token(self) -> Secret | None:
        _, found = self._foreseeing.result()
        if self._request.dry_run or found.jit:
            return None
        return self._forge.registration_token()

    def _removal_token(self) -> Secret | None:
        if self._request.dry_run or self._request.restart_token:
            return None
        return self._forge.removal_token()

    def _check_restart_token(self) -> None:
        """That it is a token, and what a job that gets hold of it would have. Raises AuthError if
        it is none: found only when a job was interrupted, that would be too late."""
        request = self._request
        if request.restart_token is None:
            return
        try:
            reach = self._forge.reach(request.restart_token)
        except AuthError as error:
            raise AuthError(f"`restart-token` is no good: {error}", error.hint) from None
        except ForgeError as error:
            log.debug("What `restart-token` opens is not known: %s", error)
            return
        if reach and request.job_sudo and not traits_of(self._cloud.provider).pods:
            log.warning("`restart-token`, which jobs can read as root, is %s.", reach)

    def _find_job(self, job: CiJob | None) -> LaunchJob | None:
        """Which job of the run this is. Not known is no reason to fail."""
        request = self._request
        if not request.restart_limit or job is None:
            return None
        if not holds(request.forge, request.repository, job.repository_url):
            return None
        try:
            return self._forge.launch_job(job)
        except AuthError as error:  # whoever may not see a run may not run it again
            if request.restart_token == request.token:
                log.warning("The machine will not be able to restart its job. %s", error)
        except ForgeError as error:
            log.debug("The launch job is not known: %s", error)
        return None
