"""Google Cloud: thirty seconds' notice before a spot VM is taken."""

from __future__ import annotations

from typing import Optional

from . import metadata

WAIT = 60
SECONDS = 30.0
"""From the notice to the end. https://cloud.google.com/compute/docs/instances/preemptible#preemption_process"""


class Notices(metadata.Notices):
    """A hanging question that is answered as soon as the value changes. https://cloud.google.com/compute/docs/metadata/querying-metadata"""

    every = 0.5

    def __init__(self, base: str = "") -> None:
        self._service = metadata.Metadata(base or "http://metadata.google.internal")
        self._wait = ""

    def look(self) -> Optional[metadata.Notice]:
        path = "/computeMetadata/v1/instance/preempted" + self._wait
        status, text = self._service.ask("GET", path, {"Metadata-Flavor": "Google"}, timeout=WAIT + 10)
        if status != 200:
            raise OSError("HTTP %d" % status)
        # The first question is answered at once: the change may have been before it.
        self._wait = "?wait_for_change=true&timeout_sec=%d" % WAIT
        return metadata.Notice("preempted", SECONDS) if text.strip() == "TRUE" else None
