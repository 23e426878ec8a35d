"""Azure: scheduled events, of which a preemption gives at least thirty seconds, or less once we
say that we are done; and a machine's own deletion, with its whole resource group, as one that
powers itself off goes on costing."""

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
"""Events that the machine does not survive as a runner; a `Freeze` it does."""

CANNOT_DELETE = (
    "A machine at Azure that powers itself off goes on costing, so it must be able to delete"
    " itself, and this one could not."
)
DELETE = "Microsoft.Resources/subscriptions/resourceGroups/delete"
"""All that the deletion of a group asks for, whatever is in it.
https://learn.microsoft.com/azure/azure-resource-manager/management/delete-resource-group"""


class Notices(metadata.Notices):
    """https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events"""

    every = 1.0

    def __init__(self, base: str = "") -> None:
        self._service = metadata.Metadata(base or HOST)
        self._seen: List[str] = []

    def look(self) -> Optional[metadata.Notice]:
        # The first question switches the service on, which may take two minutes.
        status, text = self._service.ask("GET", PATH, {"Metadata": "true"}, timeout=130)
        if status != 200:
            raise OSError("HTTP %d" % status)
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
            asked = json.dumps({"StartRequests": [{"EventId": one} for one in self._seen]})
            self._service.ask(
                "POST", PATH, {"Metadata": "true", "Content-Type": "application/json"}, asked
            )


class Deletion:
    """`facts`: `api`, the address of Resource Manager; `identities`, ids of the machine's own;
    `key`, a service principal's, or none. All of them are tried. What is asked for is answered
    None, or as it was refused."""

    seconds: Optional[float] = None
    """For ever: off, the machine costs as much as it does running. If Azure itself takes it, that
    is the end of it anyway."""
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
            yield identity.rsplit("/", 1)[-1], partial(self._own, identity)
        if self._key:
            yield "the service principal", partial(self._bought, self._key)

    def delete(self, bearer: str) -> Optional[str]:
        """Only what Azure has accepted counts. At a conflict (409) that may be a lock, or whatever
        else holds the group: if it is being deleted, the machine goes with it, and if not, the next
        try finds that out."""
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
        return "it may not " + DELETE

    def _group(self) -> str:
        about = json.loads(self._about("/metadata/instance/compute?api-version=2021-02-01"))
        return "%s/subscriptions/%s/resourcegroups/%s" % (
            self._api,
            about["subscriptionId"],
            about["resourceGroupName"],
        )

    def _call(self, method: str, url: str, bearer: str) -> Tuple[int, str]:
        return self._ask(method, url, {"Authorization": "Bearer " + bearer})

    def _about(self, path: str) -> str:
        status, text = self._service.ask("GET", path, {"Metadata": "true"})
        if status != 200:
            raise OSError(answer(status, text))
        return text

    def _own(self, identity: str) -> str:
        """https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token"""
        asked = (quote(self._api, ""), quote(identity, ""))
        path = (
            "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=%s/&msi_res_id=%s"
            % asked
        )
        return str(json.loads(self._about(path))["access_token"])

    def _bought(self, key: Dict[str, str]) -> str:
        """https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow"""
        who = {"client_id": key["client"], "client_secret": key["secret"]}
        form = {"grant_type": "client_credentials", "scope": self._api + "/.default", **who}
        url = "%s/%s/oauth2/v2.0/token" % (key["authority"], key["tenant"])
        status, text = self._ask(
            "POST",
            url,
            {"Content-Type": "application/x-www-form-urlencoded"},
            urlencode(form).encode(),
        )
        if status != 200:  # its text may quote what was sent
            raise OSError("HTTP %d of the token service" % status)
        return str(json.loads(text)["access_token"])


def allows(role: Dict[str, List[str]], action: str) -> bool:
    """https://learn.microsoft.com/azure/role-based-access-control/role-definitions#actions-format"""

    def named(kind: str) -> bool:
        return any(fnmatchcase(action.lower(), one.lower()) for one in role.get(kind, ()))

    return named("actions") and not named("notActions")


def answer(status: int, text: str) -> str:
    return "HTTP %d: %s" % (status, " ".join(text.split())[:600])
