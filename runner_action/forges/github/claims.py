"""Claims and turns at GitHub: a claim is a label of the runner, a turn a runner that is
registered just in time and never comes.

https://docs.github.com/en/rest/actions/self-hosted-runners. Labels are added and told in one
answer, names are given once: so of two launches at the same moment at most one is alone with its
claim, and one has the turn.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol

from runner_action import claim
from runner_action.forges.github.answers import NotThere, Taken
from runner_action.model import Runner
from runner_action.waiting import Clock

log = logging.getLogger(__name__)


class _GitHub(Protocol):
    _path: str
    _ask: Callable[..., Any]

    @property
    def _group(self) -> int: ...

    def runners(self, *, labels: bool = True) -> Sequence[Runner]: ...

    def deregister(self, name: str, runner_id: int | None = None) -> bool: ...


class Claims:
    def claim(self: _GitHub, runner: Runner, mark: str, clock: Clock, *, shared: bool) -> bool:
        path = f"{self._path}/{runner.id}/labels"
        try:
            told = self._ask("POST", path, {"labels": [mark]})["labels"]
        except NotThere:
            return False
        others = {one["name"] for one in told if claim.CLAIM.fullmatch(one["name"])} - {mark}
        granted = claim.allows(others, mark, clock.now(), shared=shared)
        for over in [*(others - claim.alive(others, clock.now())), *([] if granted else [mark])]:
            with suppress(NotThere):
                self._ask("DELETE", f"{path}/{over}")
        return granted

    def take_turn(
        self: _GitHub, turn: str, mark: str, clock: Clock, *, labels: Sequence[str] = ()
    ) -> bool:
        body = {
            "name": turn,
            "runner_group_id": self._group,
            "labels": [mark, *labels],
            "work_folder": "_work",
        }
        try:
            self._ask("POST", f"{self._path}/generate-jitconfig", body)
        except Taken:
            there = [one for one in self.runners() if one.name == turn]
            for one in there:
                if not claim.alive(one.claims, clock.now()):
                    self.deregister(turn, one.id)
            # Ours already if its answer was lost, or if this step was killed before.
            return any(claim.holder_of(mark) in map(claim.holder_of, one.claims) for one in there)
        except NotThere:
            log.warning(
                "This GitHub makes no just-in-time runners, so another launch with these labels may"
                " launch too."
            )
        return True

    def end_turn(self: _GitHub, turn: str, holder: str) -> None:
        for one in self.runners():
            if one.name == turn and holder in map(claim.holder_of, one.claims):
                self.deregister(turn, one.id)
