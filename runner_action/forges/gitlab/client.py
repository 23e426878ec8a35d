"""GitLab through python-gitlab, for a project or a group; gitlab.com and self-managed, at the
root of its host or below.

https://docs.gitlab.com/api/users/#create-a-runner and https://docs.gitlab.com/api/runners/.
Every runner is made by itself, with a token of its own by which its machine joins and leaves: no
token of the user's is needed there.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property, partial
from typing import Any
from urllib.parse import quote

import gitlab
import requests

from runner_action import retrying
from runner_action.claim import claims_in
from runner_action.errors import AuthError, ForgeError, RunnerBusy
from runner_action.forges.gitlab import programs
from runner_action.forges.gitlab.claims import NOTE, Claims
from runner_action.forges.gitlab.errors import NotThere, Unanswered, translated
from runner_action.forges.gitlab.permissions import HINT, missing_for_runners, opens
from runner_action.forges.trust import bundle
from runner_action.model import CiJob, Download, LaunchJob, Registration, Repository, Runner, Secret

log = logging.getLogger(__name__)
NEW_RUNNERS = (16, 0)
"""Since this version a runner is made with `POST /user/runners`; before, registration tokens are
all there is."""
SHORTEST_JOB = 600
"""Seconds; GitLab takes no shorter `maximum_timeout`."""
SIDE_BY_SIDE = 8
TRIES = 6
"""Some six seconds in all, as the library waits twice as long each time; left to itself it would
go on for a hundred."""
EXECUTION, NEVER = "job_execution_status", "never_contacted"


class GitLab(Claims):
    """One project or group."""

    together = False

    def __init__(
        self,
        repository: Repository,
        token: Secret,
        api_url: str | None = None,
        certificates: str | None = None,
        downloads: str = programs.DOWNLOADS,
    ) -> None:
        """`api_url`: where the CI job says the API is; else it is looked for. `certificates`:
        PEM text of authorities to trust besides the usual ones."""
        self._repository = repository
        self._token = token
        self._downloads = downloads.rstrip("/")
        self._bundle = bundle(certificates, self)
        self._given_api = api_url
        self._lock = threading.RLock()
        self._known: dict[str, list[int]] | None = None

    # --- where it is

    @cached_property
    def _base(self) -> str:
        """Address of the instance: below its host if a part of the path answers as GitLab's API
        does."""
        if self._given_api:
            return self._given_api.removesuffix("/api/v4")
        parts = self._repository.path.split("/")
        bases = [
            "/".join([self._repository.server, *parts[:number]]) for number in range(len(parts))
        ]
        return (
            next((base for base in bases if self._answers(base)), bases[0])
            if len(bases) > 1 and not bases[0].endswith("//gitlab.com")
            else bases[0]
        )

    def _answers(self, base: str) -> bool:
        """Asked without the token: what stands there need not be GitLab."""
        with translated("looking for its API"):
            answer = self._fetch(f"{base}/api/v4/version", allow_redirects=False)
        return answer.status_code in (200, 401, 403) and "json" in answer.headers.get(
            "Content-Type", ""
        )

    def _fetch(self, url: str, **how: Any) -> requests.Response:
        """What needs no token, where the library does not ask."""
        with retrying.session(public=True) as session:
            return session.get(url, timeout=retrying.SECONDS, verify=self._bundle or True, **how)

    @property
    def api_url(self) -> str:
        return f"{self._base}/api/v4"

    @cached_property
    def _client(self) -> gitlab.Gitlab:
        return self._client_with(self._token)

    def _client_with(self, token: Secret) -> gitlab.Gitlab:
        # GitLab's own paging links may name a host that is not reachable from here:
        # `keep_base_url`.
        return gitlab.Gitlab(
            self._base,
            private_token=token.reveal(),
            ssl_verify=self._bundle or True,
            timeout=retrying.SECONDS,
            per_page=100,
            retry_transient_errors=True,
            keep_base_url=True,
            user_agent="cml-runner",
            # The library's own would take the token wherever a redirect says: only `Authorization`
            # is taken off by requests, and GitLab's is PRIVATE-TOKEN.
            session=retrying.Session(),
        )

    @cached_property
    def _place(self) -> tuple[str, int, Mapping[str, Any]]:
        """`projects` or `groups`, the id, and what GitLab tells of it."""
        path = quote(self._repository.url.removeprefix(self._base).strip("/"), safe="")
        for kind in ("projects", "groups"):
            try:
                found = self._get(f"/{kind}/{path}")
            except NotThere:
                continue
            return kind, found["id"], found
        raise NotThere(
            f"GitLab knows no project or group {self._repository.url}, or the token may not"
            " see it.",
            HINT,
        )

    def _get(self, path: str, **query: Any) -> Any:
        with translated(f"GET {path}"):
            return self._client.http_get(path, query_data=query, max_retries=TRIES)

    def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Once: a runner that was made while its answer was lost would stay."""
        with translated(f"POST {path}"):
            return self._client.http_post(path, post_data=dict(body), retry_transient_errors=False)

    def _put(self, path: str, body: Mapping[str, Any]) -> Any:
        with translated(f"PUT {path}"):
            return self._client.http_put(path, post_data=dict(body), max_retries=TRIES)

    # --- runners

    @cached_property
    def _checked(self) -> None:
        """Makes nothing. Raises AuthError that names the scope that is missing."""
        try:
            scopes = self._get("/personal_access_tokens/self")["scopes"]
        except NotThere:  # before 15.5
            return
        if missing := missing_for_runners(scopes):
            raise AuthError(
                f"The token has scope {', '.join(scopes)}; it lacks `{'`, `'.join(missing)}`.", HINT
            )

    def runners(self, *, labels: bool = True, offline: bool = False) -> Sequence[Runner]:
        with self._lock, ThreadPoolExecutor(SIDE_BY_SIDE, "gitlab") as side_by_side:
            checking = side_by_side.submit(lambda: self._checked)
            side_by_side.submit(
                lambda: self._version
            )  # asked for now, wanted when runners are made
            try:
                listed = self._listed()
            except AuthError:
                checking.result()  # which scope is missing says more than that something is
                raise
            checking.result()
            asking = partial(self._details, offline=offline)
            details = (
                list(side_by_side.map(asking, listed))
                if labels
                else [(frozenset[str](), frozenset[str](), _is_busy(one)) for one in listed]
            )
        self._known = {}
        for one in self._own(listed):
            self._known.setdefault(one["description"], []).append(one["id"])
        return [
            Runner(
                id=one["id"],
                name=one["description"] or "",
                labels=tags,
                online=_is_online(one),
                busy=busy,
                contacted=one.get("status") != NEVER,
                claims=claims.union(claims_in(one["description"] or "")),
            )
            for one, (tags, claims, busy) in zip(listed, details, strict=True)
        ]

    def _listed(self) -> list[dict[str, Any]]:
        kind, number, _ = self._place
        with translated("listing runners"):
            return [
                dict(one)
                for one in self._client.http_list(
                    f"/{kind}/{number}/runners",
                    iterator=True,
                    query_data={"per_page": 100},
                    max_retries=TRIES,
                )
            ]

    def _own(self, listed: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Without those of the groups above and of the instance, which may take jobs of this
        place too, and are not ours to delete.
        https://docs.gitlab.com/api/runners/#list-projects-runners"""
        kind = f"{self._place[0].removesuffix('s')}_type"
        return [one for one in listed if one["runner_type"] == kind]

    def _called(self, name: str) -> list[Mapping[str, Any]]:
        return [one for one in self._own(self._listed()) if one["description"] == name]

    def _details(
        self, one: Mapping[str, Any], *, offline: bool
    ) -> tuple[frozenset[str], frozenset[str], bool]:
        """Tags and claims, which the list does not tell, and whether it has a job, which older
        lists do not; asked of those that could serve."""
        if not _is_online(one) and not offline:
            return frozenset(), frozenset(), False
        try:
            busy = _is_busy(one) if EXECUTION in one else self._has_job(one["id"])
            told = self._get(f"/runners/{one['id']}")
            return frozenset(told["tag_list"]), frozenset(claims_in(told[NOTE] or "")), busy
        except ForgeError as error:  # one of the instance's, which are not ours to look at
            log.debug("%s", error)
            return frozenset(), frozenset(), False

    def _has_job(self, number: int) -> bool:
        return bool(self._get(f"/runners/{number}/jobs", status="running", per_page=1))

    def online(self, registrations: Mapping[str, Registration]) -> Collection[str]:
        """One question for each runner, by the id that it has since it was made. One that is
        gone has left by itself."""
        found = []
        for name, made in registrations.items():
            with suppress(NotThere):
                found += [name] if _is_online(self._get(f"/runners/{made.runner_id}")) else []
        return found

    def registration_token(self) -> None:
        """Each runner is made by itself."""

    def removal_token(self) -> None:
        """Each runner leaves with the token it joined with."""

    def register_one(
        self,
        name: str,
        labels: Sequence[str],
        architecture: str,
        system: str = "linux",
        longest: int | None = None,
    ) -> Registration:
        kind, _, _ = self._place
        if self._known is None:
            self.runners(labels=False)
        for left_behind in (self._known or {}).pop(name, ()):
            self.deregister(name, left_behind)
        common = {
            "description": name,
            "tag_list": list(labels),
            "run_untagged": False,
            "locked": kind == "projects",
        }
        if longest:
            common["maximum_timeout"] = max(longest, SHORTEST_JOB)
        made = self._make(common)
        if self._known is not None:
            self._known[name] = [made["id"]]
        return Registration(runner_token=Secret(made["token"]), runner_id=made["id"])

    def _make(self, body: Mapping[str, Any]) -> Any:
        """A runner, or a turn. Without an answer it is asked once more: the first may have been
        made, with a token that nobody knows, and is removed by its description."""
        try:
            return self._make_once(body)
        except Unanswered as error:
            log.info("%s It is asked again.", error)
            self.deregister(body["description"])
            return self._make_once(body)

    def _make_once(self, body: Mapping[str, Any]) -> Any:
        kind, number, told = self._place
        if self._version >= NEW_RUNNERS:
            whose = (
                {"runner_type": "project_type", "project_id": number}
                if kind == "projects"
                else {"runner_type": "group_type", "group_id": number}
            )
            return self._post("/user/runners", {**body, **whose})
        if not told.get("runners_token"):
            raise AuthError(
                "The token may not read the project's registration token, which this old GitLab"
                " needs.",
                HINT,
            )
        return self._post("/runners", {**body, "token": told["runners_token"]})

    @cached_property
    def _version(self) -> tuple[int, ...]:
        major, minor = self._get("/version")["version"].split(".")[:2]
        return int(major), int(minor)

    def deregister(self, name: str, runner_id: int | None = None, *, twins: bool = False) -> bool:
        """Also several of one name, which GitLab allows. A twin is older, as the last answer
        counts, and nobody has its token."""
        there = False
        for one in [runner_id] if runner_id else [one["id"] for one in self._called(name)]:
            there = self._leave(name, one) or there
        if twins and runner_id:
            try:
                older = [
                    twin["id"]
                    for twin in self._called(name)
                    if twin["id"] < runner_id and twin.get("status") == NEVER
                ]
            except ForgeError as error:
                log.warning(
                    "Whether the registration of %s was delivered twice could not be asked: %s",
                    name,
                    error,
                )
                return there
            for twin in older:
                self._leave(name, twin)
        return there

    def _leave(self, name: str, number: int) -> bool:
        with suppress(NotThere):
            # GitLab would delete it, and its job would fail without a reason.
            if self._has_job(number):
                raise RunnerBusy(
                    f"Runner {name} is still running a job.",
                    "The runner ends by itself after its job.",
                )
            return self._remove(number)
        return False

    def _remove(self, number: int) -> bool:
        """Whether it was there."""
        try:
            with translated("deleting a runner"):
                self._client.http_delete(f"/runners/{number}", max_retries=TRIES)
        except NotThere:
            return False
        return True

    # --- the rest of a launch

    def download(self, architecture: str, version: str, system: str = "linux") -> Download:
        place = programs.place(self._downloads, version)
        program = programs.program(system, architecture)
        with translated("the list of checksums"):
            answer = self._fetch(f"{place}/release.sha256")
        digest = programs.checksums(answer.text if answer.ok else "").get(program)
        if not digest:
            said = (
                f"{place}/release.sha256 has no checksum of {program} (status"
                f" {answer.status_code})."
            )
            raise ForgeError(said, "Check `runner-version` and `runner-downloads`.")
        return Download(url=f"{place}/{program}", sha256=digest, version=version)

    def reach(self, token: Secret) -> str | None:
        client = self._client_with(token)
        with suppress(NotThere), translated("GET /personal_access_tokens/self"):
            made: Any = client.http_get("/personal_access_tokens/self", max_retries=TRIES)
            if "api" not in (scopes := made["scopes"]):
                raise AuthError(f"It has scope {', '.join(scopes)}; restarts need `api`.", HINT)
        with translated("GET /user"):
            user: Any = client.http_get("/user", max_retries=TRIES)
        return opens(user)

    def launch_job(self, job: CiJob) -> LaunchJob | None:
        """GitLab tells a job all about itself."""
        return (
            LaunchJob(run_id=job.run_id, id=job.id, name=job.name, project=job.project)
            if job.id
            else None
        )


def _is_online(one: Mapping[str, Any]) -> bool:
    return (bool(one.get("online")) or one.get("status") == "online") and not one.get("paused")


def _is_busy(one: Mapping[str, Any]) -> bool:
    return one.get(EXECUTION) == "active"
