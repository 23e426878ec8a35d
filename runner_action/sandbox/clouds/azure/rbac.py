"""Azure's role-based access control: who may do what, where and since when; and the addresses of
Resource Manager, none of them without an action.

Nobody may anything that was not granted to him.
https://learn.microsoft.com/azure/role-based-access-control/overview
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

Json = dict[str, Any]
ACTION = re.compile(r"Microsoft\.[A-Za-z]+(/[A-Za-z]+)*/(read|write|delete|action)")
"""https://learn.microsoft.com/azure/role-based-access-control/resource-provider-operations"""
CONTRIBUTOR = ("*",)
NOT_OF_CONTRIBUTOR = (
    "Microsoft.Authorization/*/Delete",
    "Microsoft.Authorization/*/Write",
    "Microsoft.Authorization/elevateAccess/Action",
)
"""https://learn.microsoft.com/azure/role-based-access-control/built-in-roles/privileged#contributor,
as far as it matters here."""


@dataclass(frozen=True)
class Route:
    """An address of Resource Manager, and the action that Azure asks for there. Raises ValueError
    without one: an address that asks for nothing lets a role pass that real launches fail with."""

    method: str
    pattern: re.Pattern[str]
    action: str
    view: Callable[..., Any]

    def __post_init__(self) -> None:
        if not ACTION.fullmatch(self.action):
            raise ValueError(
                f"{self.method} {self.pattern.pattern} needs the action that Azure documents for"
                f" it, not {self.action!r}"
            )


@dataclass(frozen=True)
class Assignment:
    """One role of one principal. `begins`: when it takes effect, in seconds of the rights'
    clock."""

    principal: str
    actions: tuple[str, ...]
    not_actions: tuple[str, ...]
    scope: str
    begins: float

    def covers(self, scope: str) -> bool:
        return f"{scope.lower()}/".startswith(f"{self.scope.lower().rstrip('/')}/")

    def allows(self, action: str) -> bool:
        return _any(action, self.actions) and not _any(action, self.not_actions)


@dataclass
class Rights:
    """`denied`: actions that a deny assignment keeps from everybody, whatever their roles are."""

    now: Callable[[], float] = time.monotonic
    assignments: list[Assignment] = field(default_factory=list)
    denied: set[str] = field(default_factory=set)

    def grant(
        self, principal: str, *actions: str, scope: str, but: Iterable[str] = (), after: float = 0.0
    ) -> None:
        """`after`: seconds until it takes effect, as Azure's take up to ten minutes.
        https://learn.microsoft.com/azure/role-based-access-control/troubleshooting"""
        self.assignments.append(
            Assignment(principal.lower(), actions, tuple(but), scope, self.now() + after)
        )

    def revoke(self, principal: str) -> None:
        self.assignments = [one for one in self.assignments if one.principal != principal.lower()]

    def may(self, principal: str, action: str, scope: str) -> bool:
        return action not in self.denied and any(
            one.allows(action) for one in self._of(principal, scope)
        )

    def permissions(self, principal: str, scope: str) -> list[Json]:
        """https://learn.microsoft.com/rest/api/authorization/permissions/list-for-resource-group"""
        none: dict[str, list[str]] = {"dataActions": [], "notDataActions": []}
        return [
            {"actions": [*one.actions], "notActions": [*one.not_actions], **none}
            for one in self._of(principal, scope)
        ]

    def _of(self, principal: str, scope: str) -> list[Assignment]:
        return [
            one
            for one in self.assignments
            if one.principal == principal.lower() and one.begins <= self.now() and one.covers(scope)
        ]


def _any(action: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(action.lower(), pattern.lower()) for pattern in patterns)


Answer = tuple[Json, int]
Needed = tuple[str, str]
"""An action, and the scope it is asked for at."""


def error(status: int, code: str, message: str) -> Answer:
    """As Azure words it."""
    return {"error": {"code": code, "message": message}}, status


def refused(principal: str, asked: Needed, missing: Needed) -> Answer:
    """`missing` may be another than what was asked for.
    https://learn.microsoft.com/azure/role-based-access-control/troubleshooting"""
    client = (
        f"The client '{principal}' with object id '{uuid.uuid5(uuid.NAMESPACE_URL, principal)}'"
    )
    if missing == asked:
        why = (
            f"{client} does not have authorization to perform action '{asked[0]}' over scope"
            f" '{asked[1]}' or the scope is invalid."
        )
        return error(
            403,
            "AuthorizationFailed",
            f"{why} If access was recently granted, please refresh your credentials.",
        )
    why = (
        f"{client} has permission to perform action '{asked[0]}' on scope '{asked[1]}'; however, it"
        " does not have permission to perform action(s) "
    )
    why += (
        f"'{missing[0]}' on the linked scope(s) '{missing[1]}' (respectively) or the linked"
        " scope(s) are invalid."
    )
    return error(403, "LinkedAuthorizationFailed", why)


def implied(action: str, body: Json, group: str) -> Iterator[Needed]:
    """What Azure asks for besides when a machine is made, and where: network card, address and disk
    that come with it, and what they are joined to."""
    if action != "Microsoft.Compute/virtualMachines/write" or not body:
        return
    for kind in (
        "Microsoft.Compute/disks/write",
        "Microsoft.Network/networkInterfaces/write",
        "Microsoft.Network/networkInterfaces/join/action",
    ):
        yield kind, group
    yield "Microsoft.Network/networkSecurityGroups/join/action", group
    if "publicIPAddressConfiguration" in json.dumps(body):
        yield "Microsoft.Network/publicIPAddresses/write", group
        yield "Microsoft.Network/publicIPAddresses/join/action", group
    for card in body["properties"]["networkProfile"]["networkInterfaceConfigurations"]:
        for address in card["properties"]["ipConfigurations"]:
            yield (
                "Microsoft.Network/virtualNetworks/subnets/join/action",
                address["properties"]["subnet"]["id"],
            )
    for identity in body.get("identity", {}).get("userAssignedIdentities", ()):
        yield "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action", identity
    storage = body["properties"]["storageProfile"]
    if encryption := storage["osDisk"]["managedDisk"].get("diskEncryptionSet"):
        yield "Microsoft.Compute/diskEncryptionSets/read", encryption["id"]
    if image := storage["imageReference"].get("id"):
        kind = "galleries/images/versions" if "/galleries/" in image.lower() else "images"
        yield f"Microsoft.Compute/{kind}/read", image
