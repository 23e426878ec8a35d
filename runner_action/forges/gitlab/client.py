"""`Forge` for GitLab: a project or a group.

Every runner is created with a token of its own, with which its machine registers and deregisters:
the machine needs no token of the user's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from runner_action.errors import AuthError, ForgeError
from runner_action.forges.gitlab import programs
from runner_action.forges.gitlab.api import Api
from runner_action.forges.gitlab.claims import ANY_REF, Claims
from runner_action.forges.gitlab.errors import NotThere, translated
from runner_action.forges.gitlab.facts import TRAITS
from runner_action.forges.gitlab.permissions import HINT, has_api, opens
from runner_action.forges.gitlab.runner_list import RunnerList
from runner_action.forges.gitlab.timeouts import SHORTEST_JOB, before_jobs, short_jobs
from runner_action.model import CiJob, Download, LaunchJob, Registration, Repository, Runner, Secret
from runner_action.waiting import Clock


class GitLab:
    """The runners of one project or group."""

    together = False

    def __init__(
        self,
        repository: Repository,
        token: Secret,
        api_url: str | None = None,
        certificates: str | None = None,
        downloads: str = programs.DOWNLOADS,
        access_level: str = ANY_REF,
    ) -> None:
        """`api_url`: where the CI job says the API is; None: look it up. `certificates`: PEM text
        of authorities to trust besides the usual ones. `access_level`: of the runners that are
        created or claimed."""
        self._api = Api(repository, token, api_url, certificates)
        self._list = RunnerList(self._api, repository)
        self._claims = Claims(self._api, self._list, access_level)
        self._access_level = access_level
        self._downloads = downloads.rstrip("/")

    @property
    def api_url(self) -> str:
        return self._api.url

    # --- the list of runners

    def runners(self, *, labels: bool = True, offline: bool = False) -> Sequence[Runner]:
        return self._list.runners(labels=labels, offline=offline)

    def online(self, registrations: Mapping[str, Registration]) -> Collection[str]:
        return self._list.online(registrations)

    def claim(self, runner: Runner, mark: str, clock: Clock, *, shared: bool) -> bool:
        return self._claims.claim(runner, mark, clock, shared=shared)

    def take_turn(self, turn: str, mark: str, clock: Clock, *, labels: Sequence[str] = ()) -> bool:
        return self._claims.take_turn(turn, mark, clock, labels=labels)

    def end_turn(self, turn: str, holder: str) -> None:
        self._claims.end_turn(turn, holder)

    # --- registering and deregistering

    def registration_token(self) -> None:
        """Each runner is registered by itself."""

    def removal_token(self) -> None:
        """Each machine deregisters with the token it registered with."""

    def register_one(
        self,
        name: str,
        labels: Sequence[str],
        architecture: str,
        system: str = "linux",
        longest: int | None = None,
    ) -> Registration:
        body: dict[str, Any] = {
            "description": name,
            "tag_list": list(labels),
            "run_untagged": False,
            "locked": self._list.place.kind == "projects",
            "access_level": self._access_level,
        }
        if longest:
            body["maximum_timeout"] = max(longest, SHORTEST_JOB)
        runner = self._list.replace(body)
        return Registration(
            runner_token=Secret(runner["token"]),
            runner_id=runner["id"],
            before_jobs=before_jobs(self._list.fields, longest),
        )

    def deregister(
        self,
        name: str,
        runner_id: int | None = None,
        *,
        twins: bool = False,
        label: str | None = None,
    ) -> bool:
        return self._list.deregister(name, runner_id, twins=twins, label=label)

    # --- the rest of a launch

    def download(self, architecture: str, version: str, system: str = "linux") -> Download:
        program = programs.program(system, architecture)
        versions = [version]
        if version == programs.LATEST:
            versions = programs.candidates(self._instance())
        with ThreadPoolExecutor(len(versions), "releases") as threads:
            found = list(threads.map(self._checksums, versions))
        for candidate, (_, sums) in zip(versions, found, strict=True):
            if program in sums:
                place = programs.place(self._downloads, candidate)
                return Download(url=f"{place}/{program}", sha256=sums[program], version=candidate)
        status, _ = found[-1]
        raise ForgeError(
            f"{self._sums(versions[-1])} has no checksum of {program} (status {status}).",
            "Check `runner-version` and `runner-downloads`.",
        )

    def _instance(self) -> tuple[int, ...] | None:
        """The version of GitLab, if it has to be known: gitlab.com is always of the newest."""
        if self._api.base == TRAITS.hosted:
            return None
        with suppress(ForgeError, LookupError, ValueError):
            return self._api.version
        return None

    def _sums(self, version: str) -> str:
        return f"{programs.place(self._downloads, version)}/release.sha256"

    def _checksums(self, version: str) -> tuple[int, Mapping[str, str]]:
        """The status of the release's list of checksums, and the list; empty if there is none."""
        sums = self._sums(version)
        with translated(f"GET {sums}"):
            response = self._api.fetch(sums)
        return response.status_code, programs.checksums(response.text if response.ok else "")

    def reach(self, token: Secret) -> str | None:
        with suppress(NotThere):  # before 15.5
            scopes = self._api.get_as(token, "/personal_access_tokens/self")["scopes"]
            if not has_api(scopes):
                raise AuthError(
                    f"The token has scope {', '.join(scopes)}; restarts need `api`.", HINT
                )
        return opens(self._api.get_as(token, "/user"))

    def cautions(self, longest: int | None) -> Sequence[str]:
        return short_jobs(self._list.fields, longest)

    def launch_job(self, job: CiJob) -> LaunchJob | None:
        """All of it is in the job's environment."""
        if not job.id:
            return None
        return LaunchJob(run_id=job.run_id, id=job.id, name=job.name, project=job.project)
