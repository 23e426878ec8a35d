"""The clouds' metadata services, asked with the standard library and never through a proxy; and
the notices they give."""

from __future__ import annotations

import dataclasses
import http.client
from typing import Dict, Optional, Tuple
from urllib.parse import urlsplit

CLOUDS = ("aws", "azure", "gcp")
"""Those that give notice, each with a module of its name. The others send SIGTERM, as at last
they all do: an ACPI power button makes systemd stop the service."""


@dataclasses.dataclass(frozen=True)
class Notice:
    """The cloud takes the machine in `seconds`; None: it only thinks that it might."""

    why: str
    seconds: Optional[float] = None


class Metadata:
    """One service: `base` is its address. Raises OSError if it does not answer, which it always
    does on its own cloud."""

    def __init__(self, base: str) -> None:
        parts = urlsplit(base)
        self._host = parts.netloc
        self._path = parts.path.rstrip("/")
        self.etag = "0"
        """Of the last answer: by it Google's service knows what it told. `0` is no value's,
        so that the first question does not wait."""

    def ask(
        self,
        method: str,
        path: str,
        headers: Dict[str, str],
        body: Optional[str] = None,
        timeout: float = 5,
    ) -> Tuple[int, str]:
        """Status and text."""
        connection = http.client.HTTPConnection(self._host, timeout=timeout)
        try:
            connection.request(method, self._path + path, body, headers)
            answer = connection.getresponse()
            self.etag = answer.getheader("ETag") or "0"
            return answer.status, answer.read().decode("utf-8", "replace")
        except http.client.HTTPException as error:
            raise OSError(str(error)) from None
        finally:
            connection.close()


class Notices:
    """What one cloud has to say about the machine's end. `every`: seconds between two looks."""

    every = 2.0

    def look(self) -> Optional[Notice]:
        """The notice there is now; may take some seconds. Raises OSError or ValueError if the
        service does not make sense."""
        raise NotImplementedError

    def done(self) -> None:
        """All is saved: the cloud need not wait for the notice to run out."""
