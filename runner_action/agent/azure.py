"""Azure: scheduled events, of which a preemption gives at least thirty seconds, or less once we say that we are done."""

from __future__ import annotations

import json
from typing import List, Optional

from . import metadata

PATH = "/metadata/scheduledevents?api-version=2020-07-01"
SECONDS = 30.0
ENDS = ("Preempt", "Terminate", "Reboot", "Redeploy")
"""Events that the machine does not survive as a runner; a `Freeze` it does."""


class Notices(metadata.Notices):
    """https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events"""

    every = 1.0

    def __init__(self, base: str = "") -> None:
        self._service = metadata.Metadata(base or "http://169.254.169.254")
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
