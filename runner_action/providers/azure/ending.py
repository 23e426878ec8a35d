"""Deleting groups; and what earlier launches left: machines that could only stop, which at Azure costs as if they ran."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from runner_action.errors import ProviderError
from runner_action.model import OWNER_TAG
from runner_action.providers.azure.arm import COMPUTE, GROUPS, Arm
from runner_action.providers.azure.errors import translated
from runner_action.providers.azure.instance import STOPPED, group_of

log = logging.getLogger(__name__)


class Ending:
    """What makes an end of machines."""

    def __init__(self, arm: Arm) -> None:
        self._arm = arm

    def groups(self) -> Iterator[Mapping[str, Any]]:
        """Ours, but for those that are being deleted."""
        found = self._arm.listed("/resourcegroups", GROUPS, **{"$filter": f"tagName eq '{OWNER_TAG}' and tagValue eq 'runner'"})
        return (one for one in found if one["properties"].get("provisioningState") != "Deleting")

    def delete(self, group: str) -> bool:
        """False: there was nothing."""
        with translated(f"deleting {group}"):
            return self._arm.delete_group(group)

    def after_failure(self, group: str) -> None:
        """What may be there is deleted; what is not there is as good."""
        try:
            self.delete(group)
        except ProviderError as error:
            log.warning("Whether %s is left could not be told: %s", group, error)

    def sweep(self, now: datetime) -> None:
        """Deletes our groups whose machine has stopped, or whose time is over. It is no part of the launch: what does not work is told, and that is all."""
        try:
            with translated("looking for what earlier launches left"):
                ours = {one["name"].lower(): one for one in self.groups()}
                statuses = list(self._arm.listed("/providers/Microsoft.Compute/virtualMachines", COMPUTE, statusOnly="true")) if ours else []
            stopped = {group_of(one["id"]).lower() for one in statuses if _codes(one) & set(STOPPED)}
            for name, group in ours.items():
                if name in stopped or _expiry(group["tags"]) < now:
                    self.delete(group["name"])
                    log.info("Deleted %s, which an earlier launch had made: %s.", group["name"], "it had stopped" if name in stopped else "its time was over")
        except ProviderError as error:
            log.warning("%s", error)


def _codes(told: Mapping[str, Any]) -> set[str]:
    return {one["code"] for one in told["properties"].get("instanceView", {}).get("statuses", ())}


def _expiry(tags: Mapping[str, str]) -> datetime:
    """When the group's machine must be gone; never, if that cannot be read."""
    try:
        return datetime.strptime(tags.get(f"{OWNER_TAG}:expiry", ""), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return datetime.max.replace(tzinfo=UTC)
