"""Streams of what changes in a cluster, to whoever watches it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

from runner_action.sandbox.kubernetes.rules import Failed
from runner_action.sandbox.kubernetes.shelf import Choice, Json, Shelf

Change = tuple[str, Json]


class Watches:
    """All streams of one shelf."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf
        self._closed = False
        self._cuts = 0

    def cut(self) -> None:
        """All streams end now."""
        with self._shelf.changed:
            self._cuts += 1
            self._shelf.changed.notify_all()

    def close(self) -> None:
        """All streams end now, and those that begin later too."""
        self._closed = True
        self.cut()

    def stream(self, resource: str, chosen: Choice, since: int, seconds: float) -> Iterator[bytes]:
        """Lines of JSON for so many seconds. `since`: the version that was seen last; 0: what is
        there is told first."""
        end = time.monotonic() + seconds
        cuts = self._cuts
        shelf = self._shelf
        if not since:
            told = [("ADDED", one) for one in shelf.of(resource) if chosen(one)]
            return self._lines(resource, chosen, told, shelf.version, cuts, end)
        if since < shelf.horizon:
            gone = f"too old resource version: {since} ({shelf.horizon})"
            told = [("ERROR", Failed(410, "Expired", gone).status)]
            return self._lines(resource, chosen, told, since, cuts, 0)
        return self._lines(resource, chosen, [], since, cuts, end)

    def _lines(
        self,
        resource: str,
        chosen: Choice,
        told: list[Change],
        seen: int,
        cuts: int,
        end: float,
    ) -> Iterator[bytes]:
        """The first, empty piece sends the head: a client waits for that."""
        yield b""
        while True:
            for kind, one in told:
                yield json.dumps({"type": kind, "object": one}).encode() + b"\n"
            with self._shelf.changed:
                if not self._news(seen, cuts, end):
                    return
                told = self._shelf.since(seen, resource, chosen)
                seen = self._shelf.version

    def _news(self, seen: int, cuts: int, end: float) -> bool:
        """Waits for a change; False if the stream is over before."""
        over = end - time.monotonic()
        changed = self._shelf.changed.wait_for(
            lambda: self._closed or cuts != self._cuts or self._shelf.version > seen, max(0, over)
        )
        return changed and over > 0 and not self._closed and cuts == self._cuts
