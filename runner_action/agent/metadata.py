"""The clouds' metadata services, and the notices they give. Requests never go through a proxy."""

from __future__ import annotations

import dataclasses
import urllib.request
from typing import Any, Dict, Optional, Tuple

from .calls import Plain, call

CLOUDS = ("aws", "azure", "gcp")
"""Clouds that give notice, each with a module of its name. The others only send SIGTERM, as all
do in the end: on the ACPI power button systemd stops the service."""


@dataclasses.dataclass(frozen=True)
class Notice:
    """The cloud takes the machine in `seconds`; None: it only warns that it might."""

    why: str
    seconds: Optional[float] = None


class Metadata:
    """The metadata service at the address `base`."""

    def __init__(self, base: str) -> None:
        self._base = base.rstrip("/")
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), Plain)
        self.etag = "0"
        """Of the last response, by which Google's service knows what has been read. `0` matches
        no value, so that the first request does not wait."""

    def ask(
        self,
        method: str,
        path: str,
        headers: Dict[str, str],
        body: Optional[bytes] = None,
        timeout: float = 5,
    ) -> Tuple[int, str]:
        """Sends a request. Returns status and text; raises OSError or HTTPException without a whole
        response within `timeout` seconds."""
        request = urllib.request.Request(self._base + path, body, headers, method=method)
        status, answered, text = call(self._opener, request, timeout)
        self.etag = answered.get("ETag", "0")
        return status, text

    def read(self, *request: Any, **more: Any) -> str:
        """As `ask`, but only the text of a response; empty if there is nothing (404). Raises
        OSError for any other status."""
        status, text = self.ask(*request, **more)
        if status not in (200, 404):
            raise OSError("HTTP %d" % status)
        return text if status == 200 else ""


class Notices:
    """A cloud's notices about the end of this machine. `every`: seconds between two polls."""

    every = 5.0

    def look(self) -> Optional[Notice]:
        """The current notice, or None; may take some seconds. Raises OSError or another
        exception if the service does not respond as expected."""
        raise NotImplementedError

    def done(self) -> None:
        """Acknowledges the notice: the cloud need not wait until it expires."""
