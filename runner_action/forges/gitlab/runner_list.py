"""The list of runners of one project or group: reads it, and creates and deletes runners.

https://docs.gitlab.com/api/users/#create-a-runner and https://docs.gitlab.com/api/runners/
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property, partial
from typing import Any, NamedTuple
from urllib.parse import quote

from runner_action.claim import claims_in
from runner_action.errors import AuthError, ForgeError, RunnerBusy
from runner_action.forges.gitlab.answers import INSUFFICIENT, NARROWER, NOT_SEEN, why_not_created
from runner_action.forges.gitlab.api import Api
from runner_action.forges.gitlab.errors import NotThere, Unanswered
from runner_action.forges.gitlab.permissions import HINT, missing_for_runners
from runner_action.model import Registration, Repository, Runner

log = logging.getLogger(__name__)
NEW_RUNNERS = (16, 0)
"""Since this version `POST /user/runners` creates a runner. Older ones have only registration
tokens."""
SIDE_BY_SIDE = 8
NOTE = "maintenance_note"
EXECUTION = "job_execution_status"
NEVER = "never_contacted"


class Place(NamedTuple):
    kind: str
    """`projects` or `groups`."""
    id: int
    fields: Mapping[str, Any]
    """GitLab's description of it."""


class Details(NamedTuple):
    """What the list does not say about a runner, or not in older versions."""

    tags: frozenset[str] = frozenset()
    claims: frozenset[str] = frozenset()
    busy: bool = False
    access_level: str = ""


class RunnerList:
    def __init__(self, api: Api, repository: Repository) -> None:
        self._api = api
        self._repository = repository
        self._lock = threading.RLock()
        self._ids: dict[str, list[int]] | None = None
        """By name, as of the last reading of the list."""

    @cached_property
    def place(self) -> Place:
        """Raises NotThere."""
        path = quote(self._repository.url.removeprefix(self._api.base).strip("/"), safe="")
        for kind in ("projects", "groups"):
            with suppress(NotThere):
                fields = self._api.get(f"/{kind}/{path}")
                return Place(kind, fields["id"], fields)
        raise NotThere(
            f"GitLab has no project or group {self._repository.url}, or the token may not see it.",
            NOT_SEEN,
        )

    @property
    def fields(self) -> Mapping[str, Any]:
        """GitLab's description of the project or group, as the list of runners has read it."""
        with self._lock:
            return self.place.fields

    @cached_property
    def _checked(self) -> None:
        """Raises AuthError that names the missing scopes. Changes nothing."""
        try:
            scopes = self._api.get("/personal_access_tokens/self")["scopes"]
        except NotThere:  # before 15.5
            return
        except AuthError as error:
            if NARROWER in str(error):  # it may not even read itself
                return
            raise
        if missing := missing_for_runners(scopes, self._known_version()):
            raise AuthError(f"The token has scope {', '.join(scopes)}; it lacks {missing}.", HINT)

    def _known_version(self) -> tuple[int, ...] | None:
        with suppress(ForgeError):  # a token may be too narrow even for this
            return self._api.version
        return None

    # --- reading

    def runners(self, *, labels: bool, offline: bool = False) -> Sequence[Runner]:
        """As `Forge.runners`."""
        with self._lock, ThreadPoolExecutor(SIDE_BY_SIDE, "gitlab") as threads:
            check = threads.submit(lambda: self._checked)
            # Cached now, needed when runners are created.
            threads.submit(lambda: self._api.version)
            try:
                entries = self._entries()
            except AuthError:
                check.result()  # its error says which scope is missing
                raise
            check.result()
            if labels:
                details = list(threads.map(partial(self._details, offline=offline), entries))
            else:
                details = [Details(busy=_is_busy(entry)) for entry in entries]
        self._ids = {}
        for entry in self._of_this_kind(entries):
            self._ids.setdefault(entry["description"], []).append(entry["id"])
        return [runner_of(*pair) for pair in zip(entries, details, strict=True)]

    def _entries(self) -> list[dict[str, Any]]:
        return self._api.entries(f"/{self.place.kind}/{self.place.id}/runners")

    def _of_this_kind(self, entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """A project's without those of groups, and none of the instance. Those may take the jobs of
        this place too, but do not belong to it.
        https://docs.gitlab.com/api/runners/#list-projects-runners"""
        runner_type = f"{self.place.kind.removesuffix('s')}_type"
        return [entry for entry in entries if entry["runner_type"] == runner_type]

    def own_entries(self, wanted: Callable[[str], bool]) -> list[dict[str, Any]]:
        """The runners that belong to this project or group and have a `wanted` name, as GitLab
        describes them."""
        entries = self._of_this_kind(self._entries())
        named = (entry for entry in entries if wanted(entry["description"] or ""))
        return [entry for entry in named if self._belongs(entry["id"])]

    def _belongs(self, runner_id: int) -> bool:
        """A group's list also has the runners of the groups around it, and does not say whose each
        is."""
        if self.place.kind == "projects":
            return True
        groups = self._described(runner_id).get("groups") or ()
        return any(group["id"] == self.place.id for group in groups)

    def _named(self, name: str, tag: str | None) -> list[dict[str, Any]]:
        """Those of this name, and with this tag, if one is given."""
        entries = self.own_entries(lambda other: other == name)
        return [entry for entry in entries if tag is None or self._has_tag(entry["id"], tag)]

    def _has_tag(self, runner_id: int, tag: str) -> bool:
        return tag in self._described(runner_id).get("tag_list", ())

    def _described(self, runner_id: int) -> Mapping[str, Any]:
        """GitLab's description of a runner on the list; empty if it is gone, or of a group around
        this one, which the token may not see."""
        try:
            fields: Mapping[str, Any] = self._api.get(f"/runners/{runner_id}")
        except (NotThere, AuthError) as error:
            log.debug("%s", error)
            return {}
        return fields

    def _details(self, entry: Mapping[str, Any], *, offline: bool) -> Details:
        """Of runners that are online, or of all with `offline`."""
        if not _is_online(entry) and not offline:
            return Details()
        try:
            busy = _is_busy(entry) if EXECUTION in entry else self._has_job(entry["id"])
            fields = self._api.get(f"/runners/{entry['id']}")
        except ForgeError as error:  # a runner of the instance, which this token may not read
            log.debug("%s", error)
            return Details()
        return Details(
            frozenset(fields["tag_list"]),
            frozenset(claims_in(fields[NOTE] or "")),
            busy,
            fields.get("access_level") or "",
        )

    def _has_job(self, runner_id: int) -> bool:
        return bool(self._api.get(f"/runners/{runner_id}/jobs", status="running", per_page=1))

    def online(self, registrations: Mapping[str, Registration]) -> Collection[str]:
        """Names of those that are online. One call for each runner; a runner that does not exist
        any more has left by itself."""
        names = []
        for name, registration in registrations.items():
            with suppress(NotThere):
                if _is_online(self._api.get(f"/runners/{registration.runner_id}")):
                    names.append(name)
        return names

    # --- changing

    def replace(self, body: Mapping[str, Any]) -> Any:
        """Creates a runner, in place of any of the same name with the launch's own tag, which is
        the last."""
        name, own_tag = body["description"], body["tag_list"][-1]
        if self._ids is None:
            self.runners(labels=False)
        for left_behind in (self._ids or {}).pop(name, ()):
            if self._has_tag(left_behind, own_tag):
                self.deregister(name, left_behind)
        runner = self.create(body)
        if self._ids is not None:
            self._ids[name] = [runner["id"]]
        return runner

    def create(self, body: Mapping[str, Any]) -> Any:
        """Creates a runner, or a turn. If there is no response, it tries once more: the first
        call may have created a runner whose token no one knows, so that is deleted by its name and
        its last tag, which is the launch's own."""
        try:
            return self._create_once(body)
        except Unanswered as error:
            log.info("%s Trying again.", error)
            self.deregister(body["description"], label=body["tag_list"][-1])
            return self._create_once(body)

    def _create_once(self, body: Mapping[str, Any]) -> Any:
        place = self.place
        if self._api.version >= NEW_RUNNERS:
            owner = {"runner_type": "group_type", "group_id": place.id}
            if place.kind == "projects":
                owner = {"runner_type": "project_type", "project_id": place.id}
            try:
                return self._api.post("/user/runners", {**body, **owner})
            except AuthError as error:
                if INSUFFICIENT not in str(error):
                    raise
                why = why_not_created(place.kind, place.fields)
                raise AuthError(f"{error} {why.sentence}", why.hint) from None
        if not place.fields.get("runners_token"):
            raise AuthError(
                "The token may not read the project's registration token, which this old GitLab"
                " needs.",
                HINT,
            )
        return self._api.post("/runners", {**body, "token": place.fields["runners_token"]})

    def deregister(
        self,
        name: str,
        runner_id: int | None = None,
        *,
        twins: bool = False,
        label: str | None = None,
    ) -> bool:
        """As `Forge.deregister`. GitLab allows several runners of one name. A twin is older than
        the runner itself, because the last response counts, and no machine has its token."""
        ids = [runner_id] if runner_id else [entry["id"] for entry in self._named(name, label)]
        removed = [self._remove_idle(name, number) for number in ids]
        if twins and runner_id:
            for twin in self._twins(name, runner_id, label):
                self._remove_idle(name, twin)
        return any(removed)

    def _twins(self, name: str, runner_id: int, label: str | None) -> list[int]:
        try:
            entries = self._named(name, label)
        except ForgeError as error:
            log.warning("Could not check whether %s was registered twice: %s", name, error)
            return []
        return [
            entry["id"]
            for entry in entries
            if entry["id"] < runner_id and entry.get("status") == NEVER
        ]

    def _remove_idle(self, name: str, runner_id: int) -> bool:
        """Raises RunnerBusy: GitLab would delete the runner, and its job would fail without a
        reason."""
        with suppress(NotThere):
            if self._has_job(runner_id):
                raise RunnerBusy(
                    f"Runner {name} is still running a job.",
                    "The runner shuts down by itself after its job.",
                )
            return self.remove(runner_id)
        return False

    def remove(self, runner_id: int) -> bool:
        """Whether it was there."""
        try:
            self._api.delete(f"/runners/{runner_id}")
        except NotThere:
            return False
        return True


def runner_of(entry: Mapping[str, Any], details: Details) -> Runner:
    """The model's runner from GitLab's."""
    name = entry["description"] or ""
    return Runner(
        id=entry["id"],
        name=name,
        labels=details.tags,
        online=_is_online(entry),
        busy=details.busy,
        contacted=entry.get("status") != NEVER,
        claims=details.claims.union(claims_in(name)),
        access_level=details.access_level,
    )


def _is_online(entry: Mapping[str, Any]) -> bool:
    online = bool(entry.get("online")) or entry.get("status") == "online"
    return online and not entry.get("paused")


def _is_busy(entry: Mapping[str, Any]) -> bool:
    return entry.get(EXECUTION) == "active"
