"""Claims and turns at GitLab. A claim is in the runner's maintenance note; a turn is a runner that
never comes online, with the claim in its description.

A note can only be overwritten. So a launch that sees no claim writes its own, waits, and checks
whether it is still there (M. Fischer's mutual exclusion, in L. Lamport's "A fast mutual exclusion
algorithm"); a launch that took longer to write than the others wait has lost. GitLab numbers
runners in order, so the turn with the lowest ID wins.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Sequence

from runner_action import claim
from runner_action.errors import AuthError
from runner_action.forges.gitlab.api import Api
from runner_action.forges.gitlab.errors import NotThere
from runner_action.forges.gitlab.runner_list import NOTE, RunnerList
from runner_action.model import Runner
from runner_action.waiting import Clock

log = logging.getLogger(__name__)
SETTLE_SECONDS = 2.0
"""From writing a claim to checking that it is still there; and the longest time between reading a
note and writing it."""


ANY_REF = "not_protected"
"""The access level of a runner for jobs of all branches and tags."""


class Claims:
    """The part of `Forge` that keeps launches apart."""

    def __init__(self, api: Api, runner_list: RunnerList, access_level: str) -> None:
        """`access_level`: of the runners that may be claimed."""
        self._api = api
        self._list = runner_list
        self._access_level = access_level

    def claim(self, runner: Runner, mark: str, clock: Clock, *, shared: bool) -> bool:
        path = f"/runners/{runner.id}"
        began = clock.monotonic()
        try:
            fields = self._api.get(path)
            if fields.get("access_level", self._access_level) != self._access_level:
                return False
            note = fields[NOTE] or ""
            if not claim.allows(claim.claims_in(note), mark, clock.now(), shared=shared):
                return False
            self._api.put(path, {NOTE: f"{claim.CLAIM.sub('', note).strip()} {mark}".strip()})
            late = clock.monotonic() - began > SETTLE_SECONDS
            clock.sleep(SETTLE_SECONDS)
            claims = claim.claims_in(self._api.get(path)[NOTE] or "")
        except NotThere:
            return False
        except AuthError as error:  # a runner of a parent group or the instance
            log.warning(
                "Runner %s cannot be claimed, so another launch may reuse it at the same time: %s",
                runner.name,
                error,
            )
            return True
        if shared:
            return claim.allows(claims, mark, clock.now(), shared=True)
        return mark in claims and not late

    def take_turn(self, turn: str, mark: str, clock: Clock, *, labels: Sequence[str] = ()) -> bool:
        body = {
            "description": f"{turn} {mark}",
            "tag_list": [turn, *labels],
            "run_untagged": False,
        }
        holder = claim.holder_of(mark)
        own_id = int(self._list.create(body)["id"])
        for turn_id, other in self._turns(turn):
            if turn_id >= own_id:
                continue
            if claim.holder_of(other) != holder and claim.alive([other], clock.now()):
                self._list.remove(own_id)
                return False
            self._list.remove(turn_id)
        return True

    def end_turn(self, turn: str, holder: str) -> None:
        for turn_id, mark in self._turns(turn):
            if claim.holder_of(mark) == holder:
                self._list.remove(turn_id)

    def _turns(self, turn: str) -> Collection[tuple[int, str]]:
        """IDs and claims of all turns of that name."""
        pattern = re.compile(rf"{turn} ({claim.CLAIM.pattern})")
        matches = (
            (entry["id"], pattern.fullmatch(entry["description"] or ""))
            for entry in self._list.own_entries(lambda name: bool(pattern.fullmatch(name)))
        )
        return [(turn_id, match[1]) for turn_id, match in matches if match]
