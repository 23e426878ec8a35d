"""What a cluster knows: all objects, and what was changed of them."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
Choice = Callable[[Json], bool]


@dataclass
class Change:
    """One version: what an object was before, and is after it."""

    version: int
    resource: str
    before: Json | None
    after: Json | None


KINDS_OF_CHANGE = {(True, True): "MODIFIED", (False, True): "ADDED", (True, False): "DELETED"}
"""By whether the object was a chosen one before, and is one now."""


class Shelf:
    """All objects, and what was changed of them; who looks or changes holds the lock of
    `changed`. Only copies go in and out."""

    def __init__(self, kept: int = 5000) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.version = 100
        self.horizon = 100
        self._kept = kept
        self._history: list[Change] = []
        self._objects: dict[tuple[str, str, str], Json] = {}

    def peek(self, resource: str) -> list[Json]:
        """No copies: to be read only."""
        return [one for (kind, _, _), one in self._objects.items() if kind == resource]

    def of(self, resource: str, space: str | None = None) -> list[Json]:
        return [
            copied(one)
            for (kind, where, _), one in self._objects.items()
            if kind == resource and space in (None, where)
        ]

    def get(self, resource: str, space: str, name: str) -> Json | None:
        found = self._objects.get((resource, space, name))
        return copied(found) if found else None

    def owned(self, number: str) -> list[tuple[str, Json]]:
        """What the object with that uid owns, with its resource."""
        whole = [
            (resource, one) for resource in ("pods", "secrets", "jobs") for one in self.of(resource)
        ]
        return [(resource, one) for resource, one in whole if number in owners(one)]

    def put(self, resource: str, one: Json) -> Json:
        """Made, or changed if it is not the same."""
        meta = one["metadata"]
        one = copied(one)
        key = resource, meta["namespace"], meta["name"]
        before = self._objects.get(key)
        if before:
            meta["resourceVersion"] = before["metadata"]["resourceVersion"]
        if one == before:
            return one
        fresh = {"uid": meta.get("uid", str(uuid.uuid4())), "creationTimestamp": now()}
        if resource not in ("secrets", "events"):
            fresh["generation"] = (
                1
                if before is None
                else before["metadata"]["generation"]
                + (before["spec"] != one["spec"] and resource == "jobs")
            )
        one["metadata"] = {
            **one["metadata"],
            **fresh,
            **(
                {part: before["metadata"][part] for part in ("uid", "creationTimestamp")}
                if before
                else {}
            ),
        }
        self._note(resource, before, one)
        self._objects[key] = one
        return copied(one)

    def drop(self, resource: str, one: Json) -> None:
        """Its last words are as given."""
        before = self._objects.pop(
            (resource, one["metadata"]["namespace"], one["metadata"]["name"]), None
        )
        if before:
            self._note(resource, copied(one), None)

    def _note(self, resource: str, before: Json | None, after: Json | None) -> None:
        self.version += 1
        for one in filter(None, [after or before]):
            one["metadata"]["resourceVersion"] = str(self.version)
        self._history.append(Change(self.version, resource, before, after))
        if len(self._history) > self._kept:
            self.horizon = self._history.pop(0).version
        self.changed.notify_all()

    def expire(self) -> None:
        """As though much had happened since anyone looked."""
        self.version += 1
        self.horizon = self.version

    def since(self, version: int, resource: str, chosen: Choice) -> list[tuple[str, Json]]:
        """What who looks for the chosen ones has to be told: an object that ceases to be one is
        gone for them."""
        told = []
        for change in self._history:
            if change.version > version and change.resource == resource:
                was, is_now = (
                    one is not None and chosen(one) for one in (change.before, change.after)
                )
                last = change.after or change.before
                if (was or is_now) and last:
                    told.append((KINDS_OF_CHANGE[was, is_now], copied(last)))
        return told


def copied(one: Json) -> Json:
    return dict(json.loads(json.dumps(one)))


def now(later: float = 0) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + later))


def owners(one: Json) -> list[str]:
    return [ref["uid"] for ref in one["metadata"].get("ownerReferences", ())]
