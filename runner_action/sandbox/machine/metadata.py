"""The metadata services of EC2, Google Cloud and Azure, as far as they give notice of a machine's
end, or describe the machine. One server; a machine's URL contains its id.

From the vendors' pages: EC2 requires a session token, which it gives by PUT. Google requires its
header, and holds a request until the value changes. Azure requires its header and a version that it
knows, and accepts an acknowledgement by POST. None of them answers a request from a proxy.

https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
https://cloud.google.com/compute/docs/metadata/querying-metadata
https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service
https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from flask import Flask, request
from werkzeug.serving import make_server

TOKEN_SECONDS = 21600
"""The longest that a session token of EC2's service may be valid."""
VERSIONS = {
    "instance": (
        "2019-06-01",
        "2020-09-01",
        "2021-01-01",
        "2021-02-01",
        "2021-08-01",
        "2025-04-07",
    ),
    "identity": ("2018-02-01",),
    "scheduledevents": ("2019-08-01", "2020-07-01"),
}
"""Some of the versions that Azure's service knows, by category."""


@dataclass
class Fate:
    """What the metadata service says to one machine. `polls`: how often it was asked for a
    notice."""

    ends: datetime | None = None
    rebalance: bool = False
    acknowledged: list[str] = field(default_factory=list)
    polls: int = 0
    without_tokens: bool = False
    """Azure's service answers requests for a token with an error."""
    about: dict[str, str] = field(default_factory=dict)
    """What describes the machine: on Google Cloud by path, on Azure by identity or `azure`."""

    @property
    def etag(self) -> str:
        """Google's ETag of the value `preempted`."""
        return f"{0xA7 + bool(self.ends):016x}"


class FakeMetadata:
    """All services. `notice(machine, seconds)` announces the machine's end, on any cloud."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._fates: dict[str, Fate] = {}
        self.tokens: dict[str, tuple[str, float]] = {}
        """Session tokens of EC2's service: the machine, and the end on the monotonic clock."""
        self._changed = threading.Condition()
        self.taken: Callable[[str, float], None] = lambda _machine, _seconds: None
        """Takes the machine when the seconds of its notice are over."""
        self.app = app = Flask("metadata")
        app.add_url_rule("/<machine>/latest/api/token", "token", self._token, methods=["PUT"])
        app.add_url_rule("/<machine>/latest/meta-data/<path:what>", "ec2", self._ec2)
        app.add_url_rule("/<machine>/computeMetadata/v1/instance/preempted", "gcp", self._gcp)
        app.add_url_rule("/<machine>/computeMetadata/v1/<path:what>", "about", self._about)
        app.add_url_rule("/<machine>/metadata/instance/compute", "instance", self._instance)
        app.add_url_rule("/<machine>/metadata/identity/oauth2/token", "identity", self._instance)
        app.add_url_rule(
            "/<machine>/metadata/scheduledevents", "azure", self._azure, methods=["GET", "POST"]
        )
        self._server = make_server("127.0.0.1", 0, app, threaded=True)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def knows(self, machine: str, token: str | None) -> bool:
        """Whether a session token of EC2's service is valid: for the machine that requested it,
        and for the time that it requested."""
        owner, until = self.tokens.get(token or "", ("", 0.0))
        return owner == machine and time.monotonic() < until

    def url(self, machine: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/{machine}"

    def fate(self, machine: str) -> Fate:
        return self._fates.setdefault(machine, Fate())

    def notice(self, machine: str, seconds: float) -> None:
        with self._changed:
            self.fate(machine).ends = datetime.now(timezone.utc) + timedelta(seconds=seconds)
            self._changed.notify_all()
        self.taken(machine, seconds)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    # --- views

    def _token(self, machine: str) -> Any:
        ttl = request.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        if request.headers.get("X-Forwarded-For"):
            return "", 403
        if not ttl.isdigit() or not 1 <= int(ttl) <= TOKEN_SECONDS:
            return "", 400
        token = secrets.token_urlsafe(40)
        self.tokens[token] = (machine, time.monotonic() + int(ttl))
        return token, {"X-aws-ec2-metadata-token-ttl-seconds": ttl}

    def _ec2(self, machine: str, what: str) -> Any:
        if not self.knows(machine, request.headers.get("X-aws-ec2-metadata-token")):
            return "", 401
        fate = self.fate(machine)
        fate.polls += 1
        if what == "spot/instance-action" and fate.ends:
            return {"action": "terminate", "time": fate.ends.strftime("%Y-%m-%dT%H:%M:%SZ")}
        if what == "events/recommendations/rebalance" and fate.rebalance:
            return {"noticeTime": "2026-11-23T08:00:00Z"}
        return "", 404

    def _gcp(self, machine: str) -> Any:
        """Holds a request with `wait_for_change` until the value differs from that of `last_etag`;
        without `last_etag`, from the current one."""
        if not _for_google():
            return "", 403
        fate = self.fate(machine)
        fate.polls += 1
        if request.args.get("wait_for_change") == "true":
            end = time.monotonic() + float(request.args.get("timeout_sec", 3600))
            with self._changed:
                known = request.args.get("last_etag", fate.etag)
                while fate.etag == known and time.monotonic() < end:
                    self._changed.wait(0.1)
        return "TRUE" if fate.ends else "FALSE", {"Metadata-Flavor": "Google", "ETag": fate.etag}

    def _about(self, machine: str, what: str) -> Any:
        if not _for_google():
            return "", 403
        text = self.fate(machine).about.get(what)
        return (text, {"Metadata-Flavor": "Google"}) if text else ("", 404)

    def _instance(self, machine: str) -> Any:
        """On Azure: describes the machine, or gives a token of one of its identities for one
        resource."""
        identity = request.path.endswith("/token")
        if not _for_azure("identity" if identity else "instance"):
            return {"error": "Bad request"}, 400
        if identity and not request.args.get("resource"):
            return {"error": "Bad request"}, 400
        if self.fate(machine).without_tokens and "msi_res_id" in request.args:
            return {
                "error": "unknown",
                "error_description": "Failed to retrieve token from the Active directory.",
            }, 500
        text = self.fate(machine).about.get(request.args.get("msi_res_id", "azure"))
        unknown = {"error": "invalid_request", "error_description": "Identity not found"}
        return text or (unknown, 400)

    def _azure(self, machine: str) -> Any:
        if not _for_azure("scheduledevents"):
            return {"error": "Bad request"}, 400
        fate = self.fate(machine)
        fate.polls += 1
        if request.method == "POST":
            starts = request.get_json()["StartRequests"]
            fate.acknowledged += [start["EventId"] for start in starts]
            self.taken(machine, 0.0)  # Azure does not wait after the acknowledgement
            return {}
        event = {
            "EventId": f"event-{machine}",
            "EventType": "Preempt",
            "ResourceType": "VirtualMachine",
            "Resources": [machine],
            "EventStatus": "Scheduled",
            "NotBefore": fate.ends.strftime("%a, %d %b %Y %H:%M:%S GMT") if fate.ends else "",
            "Description": "",
            "EventSource": "Platform",
            "DurationInSeconds": -1,
        }
        return {"DocumentIncarnation": 1 + bool(fate.ends), "Events": [event] if fate.ends else []}


def _for_google() -> bool:
    """Whether a request has the header of Google's service, and did not come through a proxy."""
    return request.headers.get("Metadata-Flavor") == "Google" and _direct()


def _for_azure(category: str) -> bool:
    """Whether a request has the header of Azure's service and a version of this category, and did
    not come through a proxy."""
    known = request.args.get("api-version") in VERSIONS[category]
    return known and request.headers.get("Metadata") == "true" and _direct()


def _direct() -> bool:
    return not request.headers.get("X-Forwarded-For")
