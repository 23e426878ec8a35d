"""EC2: a notice two minutes before a spot instance is interrupted, and sometimes a rebalance
recommendation before that."""

from __future__ import annotations

import calendar
import json
import time
from typing import Optional

from . import metadata

MOST = 120.0
"""Seconds of a notice at most. If this machine's clock says anything else, it is wrong, and the two
minutes began after the last look."""
TOKEN_SECONDS = 21600


class Notices(metadata.Notices):
    """https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
    and …/rebalance-recommendations.html"""

    def __init__(self, base: str = "") -> None:
        self._service = metadata.Metadata(base or "http://169.254.169.254")
        self._until = 0.0

    def look(self) -> Optional[metadata.Notice]:
        text = self._get("spot/instance-action")
        if text:
            action = json.loads(text)
            end = calendar.timegm(time.strptime(action["time"], "%Y-%m-%dT%H:%M:%SZ"))
            left = end - time.time()
            return metadata.Notice(
                "spot %s at %s" % (action["action"], action["time"]),
                left if 0 < left <= MOST else MOST - self.every,
            )
        if self._get("events/recommendations/rebalance"):
            return metadata.Notice("rebalance recommendation")
        return None

    def _get(self, path: str) -> Optional[str]:
        """Reads a path of IMDSv2, with a session token. None if it does not exist, as is normal
        until the end."""
        if time.monotonic() >= self._until:
            headers = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_SECONDS)}
            self._token = self._service.ask("PUT", "/latest/api/token", headers)[1]
            self._until = time.monotonic() + TOKEN_SECONDS / 2
        status, text = self._service.ask(
            "GET", "/latest/meta-data/" + path, {"X-aws-ec2-metadata-token": self._token}
        )
        if status == 401:
            self._until = 0.0
        return text if status == 200 else None
