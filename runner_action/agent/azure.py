"""Azure: scheduled events, of which a preemption comes at least thirty seconds ahead, or until it
is acknowledged; and a machine's deletion of itself, with its whole resource group, since a machine
that powers itself off still costs money."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple
from urllib.parse import quote, urlencode

from . import metadata

PATH = "/metadata/scheduledevents?api-version=2020-07-01"
HOST = "http://169.254.169.254"
SECONDS = 30.0
ENDS = ("Preempt", "Terminate", "Reboot", "Redeploy")
"""Events that the runner does not survive; it survives a `Freeze`."""

CANNOT_DELETE = (
    "A machine on Azure that powers itself off goes on costing money, so it must be able to delete"
    " itself, and this one cannot."
)
DELETE = "Microsoft.Resources/subscriptions/resourceGroups/delete"
"""The only permission that deleting a resource group requires, whatever is in it.
https://learn.microsoft.com/azure/azure-resource-manager/management/delete-resource-group"""


class Notices(metadata.Notices):
    """https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events"""

    every = 1.0

    def __init__(self, base: str = "") -> None:
        self._service = metadata.Metadata(base or HOST)
        self._seen: List[str] = []

    def look(self) -> Optional[metadata.Notice]:
        # The first request switches the service on, which may take two minutes.
        text = self._service.read("GET", PATH, {"Metadata": "true"}, timeout=130)
        ends = [event for event in json.loads(text).get("Events", ()) if event["EventType"] in ENDS]
        if not ends:
            return None
        self._seen = [
            event["EventId"] for event in ends if event["EventType"] in ("Preempt", "Terminate")
        ]
        return metadata.Notice(
            "%s %s" % (ends[0]["EventType"], ends[0].get("NotBefore", "")), SECONDS
        )

    def done(self) -> None:
        if self._seen:
            requests = [{"EventId": event} for event in self._seen]
            body = json.dumps({"StartRequests": requests}).encode()
            headers = {"Metadata": "true", "Content-Type": "application/json"}
            self._service.read("POST", PATH, headers, body)


class Deletion:
    """`facts`: `api`, the address of Resource Manager; `identities`, the ids of the machine's
    managed identities; `key`, of a service principal, optional. All of them are tried. `delete`
    and `may` return None, or the error."""

    seconds: Optional[float] = None
    """No limit: powered off, the machine costs as much as running. If Azure itself takes it, it is
    gone anyway."""
    must = CANNOT_DELETE

    def __init__(
        self, facts: Dict[str, Any], base: str, ask: Callable[..., Tuple[int, str]]
    ) -> None:
        self._api = facts["api"]
        self._key = facts.get("key")
        self._identities = facts.get("identities", ())
        self._service = metadata.Metadata(base or HOST)
        self._ask = ask

    def credentials(self) -> Iterator[Tuple[str, Callable[[], str]]]:
        for identity in self._identities:
            yield identity.rsplit("/", 1)[-1], partial(self._managed, identity)
        if self._key:
            yield "the service principal", partial(self._principal, self._key)

    def delete(self, bearer: str) -> Optional[str]:
        """Done only if Azure has accepted it. A conflict (409) may come from a lock or anything
        else on the group: if it is already being deleted, the machine goes with it, and otherwise
        the next attempt shows."""
        query = "?api-version=2021-04-01&forceDeletionTypes=Microsoft.Compute/virtualMachines"
        status, text = self._call("DELETE", self._group() + query, bearer)
        gone = status == 404 and "ResourceGroupNotFound" in text
        return None if gone or status in (200, 202, 204) else answer(status, text)

    def may(self, bearer: str) -> Optional[str]:
        """https://learn.microsoft.com/rest/api/authorization/permissions/list-for-resource-group"""
        url = (
            self._group() + "/providers/Microsoft.Authorization/permissions?api-version=2022-04-01"
        )
        while url:
            status, text = self._call("GET", url, bearer)
            if status != 200:
                return answer(status, text)
            page = json.loads(text)
            if any(allows(role, DELETE) for role in page["value"]):
                return None
            url = page.get("nextLink")
        return "it lacks the permission " + DELETE

    def _group(self) -> str:
        compute = json.loads(self._about("/metadata/instance/compute?api-version=2021-02-01"))
        return "%s/subscriptions/%s/resourcegroups/%s" % (
            self._api,
            compute["subscriptionId"],
            compute["resourceGroupName"],
        )

    def _call(self, method: str, url: str, bearer: str) -> Tuple[int, str]:
        return self._ask(method, url, {"Authorization": "Bearer " + bearer})

    def _about(self, path: str) -> str:
        status, text = self._service.ask("GET", path, {"Metadata": "true"})
        if status != 200:
            raise OSError(answer(status, text))
        return text

    def _managed(self, identity: str) -> str:
        """https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token"""
        params = (quote(self._api, ""), quote(identity, ""))
        path = (
            "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=%s/&msi_res_id=%s"
            % params
        )
        return str(json.loads(self._about(path))["access_token"])

    def _principal(self, key: Dict[str, str]) -> str:
        """https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow"""
        client = {"client_id": key["client"], "client_secret": key["secret"]}
        form = {"grant_type": "client_credentials", "scope": self._api + "/.default", **client}
        url = "%s/%s/oauth2/v2.0/token" % (key["authority"], key["tenant"])
        status, text = self._ask(
            "POST",
            url,
            {"Content-Type": "application/x-www-form-urlencoded"},
            urlencode(form).encode(),
        )
        if status != 200:  # its text may repeat the secret
            raise OSError("HTTP %d from the token service" % status)
        return str(json.loads(text)["access_token"])


def allows(role: Dict[str, List[str]], action: str) -> bool:
    """https://learn.microsoft.com/azure/role-based-access-control/role-definitions#actions-format"""

    def matches(kind: str) -> bool:
        return any(fnmatchcase(action.lower(), pattern.lower()) for pattern in role.get(kind, ()))

    return matches("actions") and not matches("notActions")


def answer(status: int, text: str) -> str:
    return "HTTP %d: %s" % (status, " ".join(text.split())[:600])
