"""`Forge` for GitHub: a repository, an organisation or an enterprise.

PyGithub lacks these calls, so they go through its requester (`api.py`).
https://docs.github.com/en/rest/actions/self-hosted-runners
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from runner_action.errors import ForgeError
from runner_action.forges.github.answers import NotThere, Taken
from runner_action.forges.github.api import Api, Patience
from runner_action.forges.github.claims import Claims
from runner_action.forges.github.levels import api_url_of, beyond, in_the_cloud
from runner_action.forges.github.runner_list import RunnerList, runner_of
from runner_action.forges.github.runs import Runs
from runner_action.model import (
    App,
    CiJob,
    Download,
    LaunchJob,
    Registration,
    Repository,
    Runner,
    Secret,
)
from runner_action.waiting import Clock

log = logging.getLogger(__name__)
SYSTEMS = {"linux": ("linux", "Linux"), "macos": ("osx", "macOS")}
"""Operating system, as `Forge` calls it -> its name in GitHub's downloads, and its label. A runner
adds the labels of its system and architecture when it registers itself, but not with a just-in-time
configuration."""
UPDATE_DAYS = timedelta(days=30)
"""GitHub gives no jobs to a runner that does not update itself and is older than this.
https://docs.github.com/en/actions/reference/runners/self-hosted-runners#runner-software-updates-on-self-hosted-runners"""


@dataclass(frozen=True)
class Joining:
    """How runners register: in which group, and whether with GitHub's default labels."""

    group: str | None = None
    default_labels: bool = True


class GitHub(Runs):
    """The runners of one repository, organisation or enterprise."""

    together = True

    def __init__(
        self,
        repository: Repository,
        credentials: Secret | App,
        api_url: str | None = None,
        certificates: str | None = None,
        joining: Joining = Joining(),
        patience: Patience = Patience(),  # noqa: B008
    ) -> None:
        """`api_url`: where the CI job says the API is; None: derived from the repository's
        address. `certificates`: PEM text of authorities to trust besides the usual ones."""
        self.api_url = api_url or api_url_of(repository)
        self._api = Api(repository, credentials, self.api_url, certificates, patience)
        self._list = RunnerList(self._api, repository, joining.group)
        self._claims = Claims(self._api, self._list)
        self._repository = repository
        self._default_labels = joining.default_labels
        self._now = patience.clock.now
        self._runs = f"{self._api.root}/actions/runs"

    # --- the list of runners

    def runners(self, *, labels: bool = True, offline: bool = False) -> Sequence[Runner]:
        return self._list.runners()

    def online(self, registrations: Mapping[str, Registration]) -> Collection[str]:
        return self._list.online(registrations)

    def claim(self, runner: Runner, mark: str, clock: Clock, *, shared: bool) -> bool:
        return self._claims.claim(runner, mark, clock, shared=shared)

    def take_turn(self, turn: str, mark: str, clock: Clock, *, labels: Sequence[str] = ()) -> bool:
        return self._claims.take_turn(turn, mark, clock, labels=labels)

    def end_turn(self, turn: str, holder: str) -> None:
        self._claims.end_turn(turn, holder)

    # --- the runner program

    def download(self, architecture: str, version: str, system: str = "linux") -> Download:
        platform = (SYSTEMS[system][0], architecture)
        downloads = self._api.call("GET", f"{self._list.path}/downloads")
        matching = (
            entry for entry in downloads if (entry["os"], entry["architecture"]) == platform
        )
        entry = next(matching, None)
        if entry is None:
            raise ForgeError(
                f"GitHub offers no runner program for {SYSTEMS[system][1]} on {architecture}.",
                "Choose another `cloud-type`.",
            )
        newest = entry["filename"].removesuffix(".tar.gz").rsplit("-", 1)[-1]
        if version not in ("latest", newest):
            return self._released(architecture, version, system)
        if not entry.get("sha256_checksum"):
            return self._released(architecture, newest, system)
        token = entry.get("temp_download_token")
        return Download(
            url=entry["download_url"],
            sha256=entry["sha256_checksum"],
            version=newest,
            token=Secret(token) if token else None,
            fixed=version == newest,
        )

    def _released(self, architecture: str, version: str, system: str) -> Download:
        """From the releases of actions/runner, whose assets have a digest."""
        try:
            release = self._api.call("GET", f"/repos/actions/runner/releases/tags/v{version}")
        except NotThere:
            raise ForgeError(
                f"actions/runner has no release v{version} at {self.api_url}.",
                "Leave `runner-version` out, or choose another version.",
            ) from None
        file = f"actions-runner-{SYSTEMS[system][0]}-{architecture}-{version}.tar.gz"
        assets = {asset["name"]: asset for asset in release["assets"]}
        asset = assets.get(file, {})
        digest = asset.get("digest") or ""
        if not digest.startswith("sha256:"):
            raise ForgeError(
                f"The release v{version} of actions/runner has no {file} with a checksum.",
                "Leave `runner-version` out, or choose a newer version.",
            )
        age = self._now() - datetime.fromisoformat(release["published_at"])
        if age > UPDATE_DAYS:
            log.warning(
                "Runner %s is %d days old and will update itself, because GitHub stops giving"
                " jobs to old versions.",
                version,
                age.days,
            )
        return Download(
            url=asset["browser_download_url"],
            sha256=digest.removeprefix("sha256:"),
            version=version,
            fixed=age <= UPDATE_DAYS,
        )

    # --- registering and deregistering

    def registration_token(self) -> Secret:
        return Secret(self._api.call("POST", f"{self._list.path}/registration-token")["token"])

    def removal_token(self) -> Secret:
        return Secret(self._api.call("POST", f"{self._list.path}/remove-token")["token"])

    def cautions(self, longest: int | None) -> Sequence[str]:
        """A job has six hours on a hosted runner only.
        https://docs.github.com/en/actions/reference/limits"""
        return ()

    def launch_job(self, job: CiJob) -> LaunchJob | None:
        """Identified by its runner, because GitHub tells a job neither its ID nor its name. The
        job's repository may be any of an organisation's."""
        path = Repository(url=job.repository_url).path
        jobs = self._api.pages(
            f"/repos/{path}/actions/runs/{job.run_id}/attempts/{job.attempt}/jobs", "jobs"
        )
        running = [
            entry
            for entry in jobs
            if entry["runner_name"] == job.runner_name and entry["status"] == "in_progress"
        ]
        if len(running) != 1:
            return None
        return LaunchJob(
            run_id=job.run_id,
            id=running[0]["id"],
            name=running[0]["name"],
            project="" if path == self._repository.path else path,
        )

    def register_one(
        self,
        name: str,
        labels: Sequence[str],
        architecture: str,
        system: str = "linux",
        longest: int | None = None,
    ) -> Registration:
        """Just in time, for one job, after which GitHub removes the runner. With a registration
        token on an Enterprise Server that has no just-in-time configurations."""
        default: tuple[str, ...] = ()
        if self._default_labels:
            default = ("self-hosted", SYSTEMS[system][1], architecture.upper())
        body = {
            "name": name,
            "runner_group_id": self._list.group,
            "labels": list(dict.fromkeys([*default, *labels])),
            "work_folder": "_work",
        }
        try:
            response = retried(
                lambda: self._api.call("POST", f"{self._list.path}/generate-jitconfig", body),
                lambda: self.deregister(name, label=labels[-1] if labels else None),
            )
        except NotThere:
            if in_the_cloud(self._repository):
                raise
            token = self.registration_token()
            log.info(
                "This server has no just-in-time configurations: the machine gets a registration"
                " token."
            )
            return Registration(token=token)
        return Registration(
            jit_config=Secret(response["encoded_jit_config"]), runner_id=response["runner"]["id"]
        )

    def deregister(
        self,
        name: str,
        runner_id: int | None = None,
        *,
        twins: bool = False,
        label: str | None = None,
    ) -> bool:
        """Names are unique at GitHub, so there are no `twins`."""
        return self._list.remove(name, runner_id, label)

    def reach(self, token: Secret) -> str | None:
        scopes = self._api.scopes_of(token)
        return beyond(scopes) if scopes else None


def retried(register: Callable[[], Any], make_room: Callable[[], object]) -> Any:
    """Registers a runner. If its name is taken by a runner of the same launch, as after a lost
    response, makes room and tries once more."""
    try:
        return register()
    except Taken:
        make_room()
        return register()


__all__ = ["GitHub", "Joining", "Patience", "runner_of"]
