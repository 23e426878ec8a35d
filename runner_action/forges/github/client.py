"""GitHub through PyGithub, for a repository, an organisation or an enterprise; calls that it
lacks there go through its requester.

https://docs.github.com/en/rest/actions/self-hosted-runners
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any
from urllib.parse import quote

from runner_action.agent.restart import FAILED_JOBS, LAUNCH_JOB, Job, Run
from runner_action.claim import CLAIM
from runner_action.errors import ForgeError, InputError
from runner_action.forges.github.answers import NotThere, Taken
from runner_action.forges.github.asking import PAGE, Asking, Patience
from runner_action.forges.github.claims import Claims
from runner_action.forges.github.levels import api_url_of, beyond, in_the_cloud, root_of
from runner_action.forges.github.origin import fork_of_run
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

log = logging.getLogger(__name__)
DEFAULT_GROUP = 1
"""Id of the runner group `Default`, the only one a repository has."""
SYSTEMS = {"linux": ("linux", "Linux"), "macos": ("osx", "macOS")}
"""Our word for an operating system -> that of GitHub's downloads, and its label. A runner gets
its labels for system and architecture by itself at registration, but not with a just-in-time
configuration."""
UPDATE_DAYS = timedelta(days=30)
"""GitHub gives no jobs to a runner that does not update itself, and lags behind a release for
longer.
https://docs.github.com/en/actions/reference/runners/self-hosted-runners#runner-software-updates-on-self-hosted-runners"""
QUESTIONS = 5
"""What a look at runners that are awaited may cost; a longer list is asked for at every so many
looks only."""


@dataclass(frozen=True)
class Joining:
    """How runners join: into which group, and whether with GitHub's own labels."""

    group: str | None = None
    default_labels: bool = True


class GitHub(Claims):
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
        """`api_url`: where the CI job says the API is; else the address tells. `certificates`:
        PEM text of authorities to trust besides the usual ones."""
        self.api_url = api_url or api_url_of(repository)
        self._asking = Asking(repository, credentials, self.api_url, certificates, patience)
        self._ask = self._asking.ask
        self._repository = repository
        self._joining = joining
        self._now = patience.clock.now
        self._root = root_of(repository)
        self._path = f"{self._root}/actions/runners"
        self._runs = f"{self._root}/actions/runs"
        self._listed = 0
        self._looks = 0

    # --- who is there

    def runners(self, *, labels: bool = True, offline: bool = False) -> Sequence[Runner]:
        listed = self._asking.pages(self._path, "runners")
        self._listed = len(listed)
        _ = self._group
        return [runner_of(one) for one in listed]

    @cached_property
    def _group(self) -> int:
        """Id of the group to join. Raises InputError that tells which there are."""
        if self._joining.group is None:
            return DEFAULT_GROUP
        groups = self._asking.pages(f"{self._root}/actions/runner-groups", "runner_groups")
        found = [one["id"] for one in groups if one["name"] == self._joining.group]
        if not found:
            known = ", ".join(f"`{one['name']}`" for one in groups)
            raise InputError(
                [
                    (
                        f"runner-group {self._joining.group}: {self._repository.url} has no group"
                        f" of that name; it has {known}"
                    )
                ]
            )
        return int(found[0])

    def online(self, registrations: Mapping[str, Registration]) -> Collection[str]:
        """A question for each runner, or, for many, the whole list: whichever is less. A list of
        many pages not at every look."""
        pages = (self._listed + len(registrations)) // PAGE + 1
        if len(registrations) <= pages:
            return [
                name
                for name, made in registrations.items()
                if self._is_online(name, made.runner_id)
            ]
        self._looks += 1
        if (self._looks - 1) % (pages // QUESTIONS + 1):
            return []
        return [
            one.name
            for one in self.runners(labels=False)
            if one.online and one.name in registrations
        ]

    def _is_online(self, name: str, number: int | None) -> bool:
        try:
            found = [self._ask("GET", f"{self._path}/{number}")] if number else self._named(name)
        except NotThere:
            return False
        return any(one["status"] == "online" for one in found)

    def _named(self, name: str) -> list[dict[str, Any]]:
        return [
            one
            for one in self._asking.pages(f"{self._path}?name={quote(name)}", "runners")
            if one["name"] == name
        ]

    # --- the runner program

    def download(self, architecture: str, version: str, system: str = "linux") -> Download:
        offered = self._ask("GET", f"{self._path}/downloads")
        one = next(
            (
                one
                for one in offered
                if (one["os"], one["architecture"]) == (SYSTEMS[system][0], architecture)
            ),
            None,
        )
        if one is None:
            raise ForgeError(
                f"GitHub offers no runner program for {SYSTEMS[system][1]} on {architecture}.",
                "Choose another `cloud-type`.",
            )
        found = one["filename"].removesuffix(".tar.gz").rsplit("-", 1)[-1]
        if version not in ("latest", found):
            return self._released(architecture, version, system)
        if not one.get("sha256_checksum"):
            return self._released(architecture, found, system)
        token = Secret(one["temp_download_token"]) if one.get("temp_download_token") else None
        return Download(
            url=one["download_url"],
            sha256=one["sha256_checksum"],
            version=found,
            token=token,
            fixed=version == found,
        )

    def _released(self, architecture: str, version: str, system: str) -> Download:
        """A version other than the one offered now, from the project's releases, whose assets
        carry their digest."""
        try:
            release = self._ask("GET", f"/repos/actions/runner/releases/tags/v{version}")
        except NotThere:
            raise ForgeError(
                f"{self.api_url} knows no release v{version} of actions/runner.",
                "Leave `runner-version` out, or choose another one.",
            ) from None
        wanted = f"actions-runner-{SYSTEMS[system][0]}-{architecture}-{version}.tar.gz"
        asset = next((one for one in release["assets"] if one["name"] == wanted), None)
        digest = (asset or {}).get("digest") or ""
        if asset is None or not digest.startswith("sha256:"):
            raise ForgeError(
                f"The release v{version} of actions/runner has no {wanted} with a checksum.",
                "Leave `runner-version` out, or choose a newer one.",
            )
        age = self._now() - datetime.fromisoformat(release["published_at"])
        if age > UPDATE_DAYS:
            log.warning(
                "Runner %s is %d days old: it will update itself, as GitHub stops giving jobs to"
                " old ones.",
                version,
                age.days,
            )
        return Download(
            url=asset["browser_download_url"],
            sha256=digest.removeprefix("sha256:"),
            version=version,
            fixed=age <= UPDATE_DAYS,
        )

    # --- joining and leaving

    def registration_token(self) -> Secret:
        return Secret(self._ask("POST", f"{self._path}/registration-token")["token"])

    def removal_token(self) -> Secret:
        return Secret(self._ask("POST", f"{self._path}/remove-token")["token"])

    def launch_job(self, job: CiJob) -> LaunchJob | None:
        """Known by the runner it is on: GitHub tells a job neither its id nor its name. Its
        repository may be any of an organisation's."""
        path = Repository(url=job.repository_url).path
        jobs = self._asking.pages(
            f"/repos/{path}/actions/runs/{job.run_id}/attempts/{job.attempt}/jobs", "jobs"
        )
        here = [
            one
            for one in jobs
            if one["runner_name"] == job.runner_name and one["status"] == "in_progress"
        ]
        project = "" if path == self._repository.path else path
        return (
            LaunchJob(run_id=job.run_id, id=here[0]["id"], name=here[0]["name"], project=project)
            if len(here) == 1
            else None
        )

    def register_one(
        self,
        name: str,
        labels: Sequence[str],
        architecture: str,
        system: str = "linux",
        longest: int | None = None,
    ) -> Registration:
        """Just in time, for one job; after that GitHub forgets it. An Enterprise Server that
        cannot do that gives a token."""
        own = (
            ("self-hosted", SYSTEMS[system][1], architecture.upper())
            if self._joining.default_labels
            else ()
        )
        body = {
            "name": name,
            "runner_group_id": self._group,
            "labels": list(dict.fromkeys([*own, *labels])),
            "work_folder": "_work",
        }
        try:
            answer = again(
                lambda: self._ask("POST", f"{self._path}/generate-jitconfig", body),
                lambda: self.deregister(name),
            )
        except NotThere:
            if in_the_cloud(self._repository):
                raise
            token = self.registration_token()
            log.info(
                "This server has no just-in-time configuration: the machine gets a registration"
                " token."
            )
            return Registration(token=token)
        return Registration(
            jit_config=Secret(answer["encoded_jit_config"]), runner_id=answer["runner"]["id"]
        )

    def deregister(self, name: str, runner_id: int | None = None, *, twins: bool = False) -> bool:
        """No two have the same name here: there are no `twins`."""
        known = [runner_id] if runner_id else [one["id"] for one in self._named(name)]
        try:
            for one in known:
                self._ask("DELETE", f"{self._path}/{one}")
        except NotThere:
            return False
        return bool(known)

    # --- for `restart`, of repositories

    def run(self, run_id: int, now: datetime) -> Run:
        told = self._ask("GET", f"{self._runs}/{run_id}")
        listed = self._asking.pages(f"{self._runs}/{run_id}/jobs", "jobs")
        jobs = [
            Job(
                one["id"],
                one["name"],
                one["status"],
                one["conclusion"] or "",
                one["runner_name"] or "",
                tuple(one["labels"]),
            )
            for one in listed
        ]
        age = now - datetime.fromisoformat(told["created_at"])
        return Run(
            told["id"],
            told["run_attempt"],
            told["status"] == "completed",
            age.total_seconds(),
            tuple(jobs),
        )

    def reach(self, token: Secret) -> str | None:
        scopes = self._asking.scopes_of(token)
        return beyond(scopes) if scopes else None

    def fork(self, run_id: int) -> str | None:
        return fork_of_run(self._ask("GET", f"{self._runs}/{run_id}"))

    def annotations(self, job_id: int) -> Sequence[tuple[str, str]]:
        """A job is a check run with the same id."""
        noted = self._ask("GET", f"{self._root}/check-runs/{job_id}/annotations?per_page=100")
        return [(one["title"] or "", one["message"] or "") for one in noted]

    def rerun(self, what: str, run_id: int, job_id: int | None) -> str | None:
        whole = f"{self._runs}/{run_id}/{'rerun-failed-jobs' if what == FAILED_JOBS else 'rerun'}"
        try:
            self._ask(
                "POST", f"{self._root}/actions/jobs/{job_id}/rerun" if what == LAUNCH_JOB else whole
            )
        except ForgeError as error:
            return str(error)
        return None


def runner_of(one: Mapping[str, Any]) -> Runner:
    """As the model has it, of what GitHub tells of one."""
    labels = {str(label["name"]) for label in one["labels"]}
    claims = frozenset(filter(CLAIM.fullmatch, labels))
    return Runner(
        id=one["id"],
        name=one["name"],
        labels=frozenset(labels - claims),
        online=one["status"] == "online",
        busy=one["busy"],
        # Its version is null until it has connected once; older servers do not say it at all.
        contacted=one.get("version", "") is not None,
        claims=claims,
        ephemeral=bool(one.get("ephemeral")),
    )


def again(ask: Callable[[], Any], make_room: Callable[[], object]) -> Any:
    """Asks; if the name is taken by a runner that was left behind, makes room and asks once
    more."""
    try:
        return ask()
    except Taken:
        make_room()
        return ask()


__all__ = ["GitHub", "Joining", "Patience"]
