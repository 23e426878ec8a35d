"""Claims and turns at GitHub. A claim is a label of the runner; a turn is a runner that is
registered just in time and never comes online.

https://docs.github.com/en/rest/actions/self-hosted-runners. GitHub adds a label and returns all
labels in one call, and gives each name only once. So of two simultaneous launches at most one sees
its own claim alone, and only one gets the turn.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress

from runner_action import claim
from runner_action.forges.github.answers import NotThere, Taken
from runner_action.forges.github.api import Api
from runner_action.forges.github.runner_list import RunnerList
from runner_action.model import Runner
from runner_action.waiting import Clock

log = logging.getLogger(__name__)


class Claims:
    """The part of `Forge` that keeps launches apart."""

    def __init__(self, api: Api, runner_list: RunnerList) -> None:
        self._api = api
        self._list = runner_list

    def claim(self, runner: Runner, mark: str, clock: Clock, *, shared: bool) -> bool:
        path = f"{self._list.path}/{runner.id}/labels"
        try:
            labels = self._api.call("POST", path, {"labels": [mark]})["labels"]
        except NotThere:
            return False
        names = {label["name"] for label in labels}
        others = set(filter(claim.CLAIM.fullmatch, names)) - {mark}
        granted = claim.allows(others, mark, clock.now(), shared=shared)
        useless = others - claim.alive(others, clock.now())
        if not granted:
            useless.add(mark)
        for label in useless:
            with suppress(NotThere):
                self._api.call("DELETE", f"{path}/{label}")
        return granted

    def take_turn(self, turn: str, mark: str, clock: Clock, *, labels: Sequence[str] = ()) -> bool:
        body = {
            "name": turn,
            "runner_group_id": self._list.group,
            "labels": [mark, *labels],
            "work_folder": "_work",
        }
        try:
            self._api.call("POST", f"{self._list.path}/generate-jitconfig", body)
        except Taken:
            return self._holds(turn, mark, clock)
        except NotThere:
            log.warning(
                "This GitHub has no just-in-time runners, so another launch with these labels may"
                " create machines at the same time."
            )
        return True

    def _holds(self, turn: str, mark: str, clock: Clock) -> bool:
        """Whether this launch has the turn already, because a response was lost or because this
        step was killed before. Removes turns that are over."""
        turns = [runner for runner in self._list.runners() if runner.name == turn]
        for runner in turns:
            if not claim.alive(runner.claims, clock.now()):
                self._list.remove(turn, runner.id)
        holder = claim.holder_of(mark)
        return any(holder in map(claim.holder_of, runner.claims) for runner in turns)

    def end_turn(self, turn: str, holder: str) -> None:
        for runner in self._list.runners():
            if runner.name == turn and holder in map(claim.holder_of, runner.claims):
                self._list.remove(turn, runner.id)
