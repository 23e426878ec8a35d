"""GitHub through PyGithub, at repository level; calls that it lacks there go through its requester.

https://docs.github.com/en/rest/actions/self-hosted-runners
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, cast
from urllib.parse import urlsplit

import requests
from github import Auth, Github, GithubException, GithubRetry
from github.PaginatedList import PaginatedList
from github.SelfHostedActionsRunner import SelfHostedActionsRunner
from github.WorkflowJob import WorkflowJob

from runner_action.agent.restart import FAILED_JOBS, LAUNCH_JOB, Job, Run
from runner_action.errors import AuthError, ForgeError, RunnerBusy
from runner_action.model import CiJob, Download, LaunchJob, Registration, Repository, Runner, Secret

# PyGithub prints its warnings to standard error by itself; what they say is told by the errors here, with what to do.
logging.getLogger("github").handlers[:] = [logging.NullHandler()]

DEFAULT_GROUP = 1
"""Id of the runner group `Default`, the only one a repository has."""
SYSTEMS = {"linux": ("linux", "Linux"), "macos": ("osx", "macOS")}
"""Our word for an operating system -> that of GitHub's downloads, and its label. A runner gets its labels for system and
architecture by itself at registration, but not with a just-in-time configuration."""
SCOPES = (
    "It needs scope `repo` (classic), or `Administration: write` on the repository (fine-grained or App). "
    "The job's own GITHUB_TOKEN can never register runners: store a token as a secret and pass it as `token: ${{ secrets.PERSONAL_ACCESS_TOKEN }}`."
)


def api_url_of(repository: Repository) -> str:
    """github.com and ghe.com have a host of their own for the API; an Enterprise Server has it under a path."""
    host = urlsplit(repository.url).netloc
    if host == "github.com":
        return "https://api.github.com"
    if host.endswith(".ghe.com"):
        return f"https://api.{host}"
    return f"{repository.server}/api/v3"


class GitHub:
    """One repository. Safe to use from several threads: each has its own client, as PyGithub's holds one connection."""

    together = True

    def __init__(self, repository: Repository, token: Secret, api_url: str | None = None) -> None:
        self.api_url = api_url or api_url_of(repository)
        self._token, self._repository = token, repository.path
        self._runs = f"/repos/{repository.path}/actions/runs"
        self._path = f"/repos/{repository.path}/actions/runners"
        self._local = threading.local()

    @property
    def _github(self) -> Github:
        if not hasattr(self._local, "github"):
            # Some tries for what passes by itself (7 s in all); no pauses between calls, of which a launch makes a handful.
            retry = GithubRetry(total=4, backoff_factor=0.5)
            self._local.github = Github(
                auth=Auth.Token(self._token.reveal()),
                base_url=self.api_url,
                retry=retry,
                per_page=100,
                timeout=15,
                seconds_between_requests=None,
                seconds_between_writes=None,
                user_agent="cml-runner",
            )
        return cast("Github", self._local.github)

    def _ask(self, verb: str, path: str, body: object | None = None) -> Any:
        with translated(f"{verb} {path}"):
            return self._github.requester.requestJsonAndCheck(verb, path, input=body)[1]

    def runners(self, *, labels: bool = True, offline: bool = False) -> Sequence[Runner]:
        with translated("listing runners"):
            listed: PaginatedList[SelfHostedActionsRunner] = PaginatedList(SelfHostedActionsRunner, self._github.requester, self._path, list_item="runners")
            return [
                Runner(id=one.id, name=one.name, labels=frozenset(str(label["name"]) for label in one.labels), online=one.status == "online", busy=one.busy)
                for one in listed
            ]

    def online(self, registrations: Mapping[str, Registration]) -> Collection[str]:
        return [one.name for one in self.runners() if one.online and one.name in registrations]

    def download(self, architecture: str, version: str, system: str = "linux") -> Download:
        offered = self._ask("GET", f"{self._path}/downloads")
        one = next((one for one in offered if (one["os"], one["architecture"]) == (SYSTEMS[system][0], architecture)), None)
        if one is None:
            raise ForgeError(f"GitHub offers no runner program for {SYSTEMS[system][1]} on {architecture}.", "Choose another `cloud-type`.")
        found = one["filename"].removesuffix(".tar.gz").rsplit("-", 1)[-1]
        if version not in ("latest", found):
            return self._released(architecture, version, system)
        if not one.get("sha256_checksum"):
            return self._released(architecture, found, system)
        token = Secret(one["temp_download_token"]) if one.get("temp_download_token") else None
        return Download(url=one["download_url"], sha256=one["sha256_checksum"], version=found, token=token)

    def _released(self, architecture: str, version: str, system: str) -> Download:
        """A version other than the one offered now, from the project's releases, whose assets carry their digest."""
        release = self._ask("GET", f"/repos/actions/runner/releases/tags/v{version}")
        wanted = f"actions-runner-{SYSTEMS[system][0]}-{architecture}-{version}.tar.gz"
        asset = next((one for one in release["assets"] if one["name"] == wanted), None)
        digest = (asset or {}).get("digest") or ""
        if asset is None or not digest.startswith("sha256:"):
            raise ForgeError(f"The release v{version} of actions/runner has no {wanted} with a checksum.", "Leave `runner-version` out, or choose a newer one.")
        return Download(url=asset["browser_download_url"], sha256=digest.removeprefix("sha256:"), version=version)

    def registration_token(self) -> Secret:
        return Secret(self._ask("POST", f"{self._path}/registration-token")["token"])

    def removal_token(self) -> Secret:
        return Secret(self._ask("POST", f"{self._path}/remove-token")["token"])

    def launch_job(self, job: CiJob) -> LaunchJob | None:
        """Known by the runner it is on: GitHub tells a job neither its id nor its name."""
        listed = self._ask("GET", f"/repos/{self._repository}/actions/runs/{job.run_id}/attempts/{job.attempt}/jobs?per_page=100")["jobs"]
        here = [one for one in listed if one["runner_name"] == job.runner_name and one["status"] == "in_progress"]
        return LaunchJob(run_id=job.run_id, id=here[0]["id"], name=here[0]["name"]) if len(here) == 1 else None

    def register_one(self, name: str, labels: Sequence[str], architecture: str, system: str = "linux", longest: int | None = None) -> Registration:
        """Just in time, for one job; after that GitHub forgets it."""
        own = ("self-hosted", SYSTEMS[system][1], architecture.upper())
        body = {"name": name, "runner_group_id": DEFAULT_GROUP, "labels": list(dict.fromkeys([*own, *labels])), "work_folder": "_work"}
        path = f"{self._path}/generate-jitconfig"
        answer = again(lambda: self._ask("POST", path, body), lambda: self.deregister(name))
        return Registration(jit_config=Secret(answer["encoded_jit_config"]), runner_id=answer["runner"]["id"])

    # --- for `restart`

    def run(self, run_id: int, now: datetime) -> Run:
        told = self._ask("GET", f"{self._runs}/{run_id}")
        with translated("listing jobs"):
            listed: PaginatedList[WorkflowJob] = PaginatedList(WorkflowJob, self._github.requester, f"{self._runs}/{run_id}/jobs", list_item="jobs")
            jobs = [Job(one.id, one.name, one.status, one.conclusion or "", one.runner_name or "", tuple(one.labels)) for one in listed]
        age = now - datetime.fromisoformat(told["created_at"])
        return Run(told["id"], told["run_attempt"], told["status"] == "completed", age.total_seconds(), tuple(jobs))

    def annotations(self, job_id: int) -> Sequence[tuple[str, str]]:
        """A job is a check run with the same id."""
        noted = self._ask("GET", f"/repos/{self._repository}/check-runs/{job_id}/annotations?per_page=100")
        return [(one["title"] or "", one["message"] or "") for one in noted]

    def rerun(self, what: str, run_id: int, job_id: int | None) -> str | None:
        whole = f"{self._runs}/{run_id}/{'rerun-failed-jobs' if what == FAILED_JOBS else 'rerun'}"
        try:
            self._ask("POST", f"/repos/{self._repository}/actions/jobs/{job_id}/rerun" if what == LAUNCH_JOB else whole)
        except ForgeError as error:
            return str(error)
        return None

    # --- at the end

    def deregister(self, name: str, runner_id: int | None = None) -> bool:
        known = [runner_id] if runner_id else [one.id for one in self.runners() if one.name == name]
        try:
            for one in known:
                self._ask("DELETE", f"{self._path}/{one}")
        except NotThere:
            return False
        return bool(known)


class NotThere(ForgeError):
    """404: what was asked for does not exist, or the token may not see it."""


class Taken(ForgeError):
    """409: the name is in use."""


def again(ask: Callable[[], Any], make_room: Callable[[], object]) -> Any:
    """Asks; if the name is taken by a runner that was left behind, makes room and asks once more."""
    try:
        return ask()
    except Taken:
        make_room()
        return ask()


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """No exception of the library leaves this block, and no token: only GitHub's own message is passed on."""
    try:
        yield
    except GithubException as error:
        raise _translate(error, doing) from None
    except requests.RequestException as error:
        raise ForgeError(f"GitHub could not be reached for {doing}: {type(error).__name__}.", "Check the network, the proxy, and `repo`.") from None


def _translate(error: GithubException, doing: str) -> ForgeError:
    message = str(error.data.get("message", "")) if isinstance(error.data, dict) else ""
    said = f"GitHub answered {error.status} to {doing}" + (f": {message.rstrip('.')}." if message else ".")
    if "rate limit" in message.lower():
        return ForgeError(said, "The token has asked too often; launch fewer at once, or give this repository a token of its own.")
    if error.status == 401:
        return AuthError(f"{said} The token is wrong or expired.", SCOPES)
    if error.status == 403:
        return AuthError(f"{said} The token lacks a permission.", SCOPES)
    if error.status == 404:
        return NotThere(f"{said} The repository does not exist, or the token may not manage its runners.", SCOPES)
    if error.status == 409:
        return Taken(said, "Choose another `name`, or wait until the other runner has ended.")
    if error.status == 422 and "running a job" in message:
        return RunnerBusy(said, "The runner ends by itself after its job.")
    return ForgeError(said, "If this repeats, look at https://www.githubstatus.com.")
