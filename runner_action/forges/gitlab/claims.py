"""Claims and turns at GitLab: a claim stands in the runner's maintenance note, a turn is a
runner that never comes, with the claim in its description.

A note is overwritten, not added to. So who finds it free writes, waits, and looks whether its
claim still stands there (M. Fischer's way to exclude each other, in L. Lamport's "A fast mutual
exclusion algorithm"); who took longer from look to write than the others wait has lost. Turns
are numbered by GitLab: the first one has it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol

from runner_action import claim
from runner_action.errors import AuthError
from runner_action.forges.gitlab.errors import NotThere
from runner_action.model import Runner
from runner_action.waiting import Clock

log = logging.getLogger(__name__)
SETTLE_SECONDS = 2.0
"""From a claim's writing to the look whether it stands; and the longest that a look may lie
before a writing."""
NOTE = "maintenance_note"


class _GitLab(Protocol):
    def _get(self, path: str, **query: Any) -> Any: ...

    def _put(self, path: str, body: Mapping[str, Any]) -> Any: ...

    def _listed(self) -> list[dict[str, Any]]: ...

    def _own(self, listed: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]: ...

    def _make(self, body: Mapping[str, Any]) -> Any: ...

    def _remove(self, number: int) -> bool: ...


class Claims:
    def claim(self: _GitLab, runner: Runner, mark: str, clock: Clock, *, shared: bool) -> bool:
        path, began = f"/runners/{runner.id}", clock.monotonic()
        try:
            note = self._get(path)[NOTE] or ""
            if not claim.allows(claim.claims_in(note), mark, clock.now(), shared=shared):
                return False
            self._put(path, {NOTE: f"{claim.CLAIM.sub('', note).strip()} {mark}".strip()})
            late = clock.monotonic() - began > SETTLE_SECONDS
            clock.sleep(SETTLE_SECONDS)
            standing = claim.claims_in(self._get(path)[NOTE] or "")
        except NotThere:
            return False
        except AuthError as error:  # one of a group's or the instance's
            log.warning(
                "Runner %s cannot be claimed, so another launch may count on it too: %s",
                runner.name,
                error,
            )
            return True
        return (
            claim.allows(standing, mark, clock.now(), shared=True)
            if shared
            else mark in standing and not late
        )

    def take_turn(
        self: _GitLab, turn: str, mark: str, clock: Clock, *, labels: Sequence[str] = ()
    ) -> bool:
        ours = claim.holder_of(mark)
        mine = int(
            self._make(
                {
                    "description": f"{turn} {mark}",
                    "tag_list": [turn, *labels],
                    "run_untagged": False,
                }
            )["id"]
        )
        for number, other in _turns(self, turn):
            if number >= mine:
                continue
            if claim.holder_of(other) != ours and claim.alive([other], clock.now()):
                self._remove(mine)
                return False
            self._remove(number)
        return True

    def end_turn(self: _GitLab, turn: str, holder: str) -> None:
        for number, mark in _turns(self, turn):
            if claim.holder_of(mark) == holder:
                self._remove(number)


def _turns(forge: _GitLab, turn: str) -> Collection[tuple[int, str]]:
    """All that were taken, with their claims."""
    listed = forge._own(forge._listed())  # noqa: SLF001
    found = (
        (one["id"], re.fullmatch(rf"{turn} ({claim.CLAIM.pattern})", one["description"] or ""))
        for one in listed
    )
    return [(number, match[1]) for number, match in found if match]
