"""Deleting groups, and which of their machines have stopped."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
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
        found = self._arm.listed(
            "/resourcegroups",
            GROUPS,
            **{"$filter": f"tagName eq '{OWNER_TAG}' and tagValue eq 'runner'"},
        )
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

    def stopped(self) -> frozenset[str]:
        """Names of groups, in small letters, whose machine has stopped: at Azure that costs as
        if it ran."""
        statuses = self._arm.listed(
            "/providers/Microsoft.Compute/virtualMachines", COMPUTE, statusOnly="true"
        )
        return frozenset(
            group_of(one["id"]).lower() for one in statuses if _codes(one) & set(STOPPED)
        )


def _codes(told: Mapping[str, Any]) -> set[str]:
    return {one["code"] for one in told["properties"].get("instanceView", {}).get("statuses", ())}
