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
TTL = {"X-aws-ec2-metadata-token-ttl-seconds": "21600"}


class Notices(metadata.Notices):
    """https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html,
    which recommends a poll every five seconds, and …/rebalance-recommendations.html"""

    def __init__(self, base: str = "") -> None:
        self._service = metadata.Metadata(base or "http://169.254.169.254")
        self._token = ""

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

    def _get(self, path: str) -> str:
        """Reads a path of IMDSv2; empty if it does not exist, as is normal until the end. Any
        failure, such as that the session token has expired, forgets the token."""
        token, self._token = self._token, ""
        if not token:
            token = self._service.read("PUT", "/latest/api/token", TTL)
        text = self._service.read(
            "GET", "/latest/meta-data/" + path, {"X-aws-ec2-metadata-token": token}
        )
        self._token = token
        return text
