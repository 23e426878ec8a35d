"""The clouds' metadata services, and the notices they give. Requests never go through a proxy."""

from __future__ import annotations

import dataclasses
import http.client
from typing import Dict, Optional, Tuple
from urllib.parse import urlsplit

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
        parts = urlsplit(base)
        self._host = parts.netloc
        self._path = parts.path.rstrip("/")
        self.etag = "0"
        """Of the last response, by which Google's service knows what has been read. `0` matches
        no value, so that the first request does not wait."""

    def ask(
        self,
        method: str,
        path: str,
        headers: Dict[str, str],
        body: Optional[str] = None,
        timeout: float = 5,
    ) -> Tuple[int, str]:
        """Sends a request. Returns status and text; raises OSError without a response."""
        connection = http.client.HTTPConnection(self._host, timeout=timeout)
        try:
            connection.request(method, self._path + path, body, headers)
            response = connection.getresponse()
            self.etag = response.getheader("ETag") or "0"
            return response.status, response.read().decode("utf-8", "replace")
        except http.client.HTTPException as error:
            raise OSError(str(error)) from None
        finally:
            connection.close()


class Notices:
    """A cloud's notices about the end of this machine. `every`: seconds between two polls."""

    every = 2.0

    def look(self) -> Optional[Notice]:
        """The current notice, or None; may take some seconds. Raises OSError or ValueError if the
        service does not respond as expected."""
        raise NotImplementedError

    def done(self) -> None:
        """Acknowledges the notice: the cloud need not wait until it expires."""
