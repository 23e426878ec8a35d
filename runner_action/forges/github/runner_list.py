"""The list of self-hosted runners of one repository, organisation or enterprise.

https://docs.github.com/en/rest/actions/self-hosted-runners
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any
from urllib.parse import quote

from runner_action.claim import CLAIM
from runner_action.errors import InputError
from runner_action.forges.github.answers import NotThere
from runner_action.forges.github.api import PAGE, Api
from runner_action.model import Registration, Repository, Runner

DEFAULT_GROUP = 1
"""ID of the runner group `Default`, the only one that a repository has."""
REQUESTS = 5
"""How many pages of the list one poll for new runners may cost. A longer list is read at every
nth poll only."""


class RunnerList:
    def __init__(self, api: Api, repository: Repository, group: str | None) -> None:
        """`group`: name of the runner group that new runners join; None for `Default`."""
        self.path = f"{api.root}/actions/runners"
        self._api = api
        self._repository = repository
        self._group_name = group
        self._length = 0
        """Of the list when it was last read."""
        self._polls = 0

    def runners(self) -> Sequence[Runner]:
        """All of them. Also checks that the group exists."""
        entries = self._api.pages(self.path, "runners")
        self._length = len(entries)
        _ = self.group
        return [runner_of(entry) for entry in entries]

    @cached_property
    def group(self) -> int:
        """ID of the group to join. Raises InputError that lists the groups there are."""
        if self._group_name is None:
            return DEFAULT_GROUP
        groups = self._api.pages(f"{self._api.root}/actions/runner-groups", "runner_groups")
        for group in groups:
            if group["name"] == self._group_name:
                return int(group["id"])
        names = ", ".join(f"`{group['name']}`" for group in groups)
        problem = (
            f"runner-group {self._group_name}: {self._repository.url} has no group of that name;"
            f" it has {names}"
        )
        raise InputError([problem])

    def online(self, registrations: Mapping[str, Registration]) -> Collection[str]:
        """Names of those that are online. Requests each runner or the whole list, whichever
        takes fewer calls; a list of many pages not at every poll."""
        pages = (self._length + len(registrations)) // PAGE + 1
        if len(registrations) <= pages:
            return [
                name
                for name, registration in registrations.items()
                if self._is_online(name, registration)
            ]
        self._polls += 1
        if (self._polls - 1) % (pages // REQUESTS + 1):
            return []
        return [
            runner.name
            for runner in self.runners()
            if runner.online
            and runner.name in registrations
            and _is_of(runner, registrations[runner.name])
        ]

    def _is_online(self, name: str, registration: Registration) -> bool:
        runner_id = registration.runner_id
        try:
            entries = (
                [self._api.call("GET", f"{self.path}/{runner_id}")]
                if runner_id
                else self._named(name)
            )
        except NotThere:
            return False
        runners = map(runner_of, entries)
        return any(runner.online and _is_of(runner, registration) for runner in runners)

    def _named(self, name: str) -> list[dict[str, Any]]:
        entries = self._api.pages(f"{self.path}?name={quote(name)}", "runners")
        return [entry for entry in entries if entry["name"] == name]

    def remove(self, name: str, runner_id: int | None = None, label: str | None = None) -> bool:
        """Whether it was on the list. Without an ID, only a runner with the label, if there is one.
        Raises RunnerBusy."""
        registration = Registration(label=label)
        named = [] if runner_id else map(runner_of, self._named(name))
        ids = [runner.id for runner in named if _is_of(runner, registration)]
        if runner_id:
            ids = [runner_id]
        try:
            for number in ids:
                self._api.call("DELETE", f"{self.path}/{number}")
        except NotThere:
            return False
        return bool(ids)


def _is_of(runner: Runner, registration: Registration) -> bool:
    """Whether a runner of the right name is the registered one, and not a namesake of another
    launch."""
    if registration.runner_id:
        return runner.id == registration.runner_id
    return registration.label is None or registration.label in runner.labels


def runner_of(entry: Mapping[str, Any]) -> Runner:
    """The model's runner from GitHub's."""
    labels = {str(label["name"]) for label in entry["labels"]}
    claims = frozenset(filter(CLAIM.fullmatch, labels))
    return Runner(
        id=entry["id"],
        name=entry["name"],
        labels=frozenset(labels - claims),
        online=entry["status"] == "online",
        busy=entry["busy"],
        # The version is null until the runner has connected once; older servers omit it.
        contacted=entry.get("version", "") is not None,
        claims=claims,
        ephemeral=bool(entry.get("ephemeral")),
    )
