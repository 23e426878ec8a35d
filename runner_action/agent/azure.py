"""Azure: scheduled events, of which a preemption gives at least thirty seconds, or less once we say that we are done; and a machine's own deletion, with
its whole resource group, as one that powers itself off goes on costing."""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple
from urllib.parse import quote, urlencode

from . import metadata

PATH = "/metadata/scheduledevents?api-version=2020-07-01"
HOST = "http://169.254.169.254"
SECONDS = 30.0
ENDS = ("Preempt", "Terminate", "Reboot", "Redeploy")
"""Events that the machine does not survive as a runner; a `Freeze` it does."""


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
        self._seen = [event["EventId"] for event in ends if event["EventType"] in ("Preempt", "Terminate")]
        return metadata.Notice("%s %s" % (ends[0]["EventType"], ends[0].get("NotBefore", "")), SECONDS)

    def done(self) -> None:
        if self._seen:
            asked = json.dumps({"StartRequests": [{"EventId": one} for one in self._seen]})
            self._service.ask("POST", PATH, {"Metadata": "true", "Content-Type": "application/json"}, asked)


class Deletion:
    """`facts`: `api`, the address of Resource Manager; `identities`, ids of the machine's own; `key`, a service principal's, or none."""

    def __init__(self, facts: Dict[str, Any], base: str, ask: Callable[..., Tuple[int, str]]) -> None:
        self._api, self._key, self._identities = facts["api"], facts.get("key"), facts.get("identities", ())
        self._service, self._ask = metadata.Metadata(base or HOST), ask

    def try_once(self) -> Optional[str]:
        """None: it is being deleted. Else why it never will be; raises OSError if it is worth another try."""
        about, why = json.loads(self._about("/metadata/instance/compute?api-version=2021-02-01")), "it has no identity, and was given no secret"
        group = "/subscriptions/%s/resourcegroups/%s" % (about["subscriptionId"], about["resourceGroupName"])
        path = group + "?api-version=2021-04-01&forceDeletionTypes=Microsoft.Compute/virtualMachines"
        for bearer in self._bearers():
            status, text = self._ask("DELETE", self._api + path, {"Authorization": "Bearer " + bearer})
            if status in (200, 202, 204, 404) or (status == 409 and "Locked" not in text):  # it is being deleted already
                return None
            why = "HTTP %d: %s" % (status, " ".join(text.split())[:300])
            if status not in (401, 403):
                raise OSError(why)
        return why

    def _about(self, path: str) -> str:
        status, text = self._service.ask("GET", path, {"Metadata": "true"})
        if status != 200:
            raise OSError("HTTP %d" % status)
        return text

    def _bearers(self) -> Iterator[str]:
        """https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token and …/v2-oauth2-client-creds-grant-flow"""
        for identity in self._identities:
            path = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=%s/&msi_res_id=%s" % (quote(self._api, ""), quote(identity, ""))
            status, text = self._service.ask("GET", path, {"Metadata": "true"})
            if status not in (200, 400):  # 400: there is no such identity any more
                raise OSError("HTTP %d" % status)
            if status == 200:
                yield json.loads(text)["access_token"]
        if self._key:
            who = {"client_id": self._key["client"], "client_secret": self._key["secret"]}
            form = {"grant_type": "client_credentials", "scope": self._api + "/.default", **who}
            url = "%s/%s/oauth2/v2.0/token" % (self._key["authority"], self._key["tenant"])
            status, text = self._ask("POST", url, {"Content-Type": "application/x-www-form-urlencoded"}, urlencode(form).encode())
            if status != 200:
                raise OSError("HTTP %d of the token service" % status)
            yield json.loads(text)["access_token"]
