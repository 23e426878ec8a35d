"""The metadata services of EC2, Google Cloud and Azure, as far as they tell a machine of its end
and of itself. One server; a machine's address holds its id.

From the vendors' pages: EC2 wants a session token got by PUT; Google wants its header and
answers a hanging question when the value changes; Azure wants its header and a version it knows,
and takes an acknowledgement by POST. None of them answers what came through a proxy.

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
"""The longest life of a session token of EC2's service."""
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
"""Of Azure's service, by category: some of those it knows."""


@dataclass
class Fate:
    """What its cloud has told one machine."""

    ends: datetime | None = None
    rebalance: bool = False
    acknowledged: list[str] = field(default_factory=list)
    asked: int = 0
    without_tokens: bool = False
    """Azure's service answers questions for a token with an error."""
    about: dict[str, str] = field(default_factory=dict)
    """What Google's service tells a machine of itself, by path; what Azure's does, by identity
    or `azure`."""

    @property
    def etag(self) -> str:
        """Google's, of the value that tells of the end."""
        return f"{0xA7 + bool(self.ends):016x}"


class FakeMetadata:
    """`notice(machine, seconds)` announces its end on whatever cloud it asks."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._fates: dict[str, Fate] = {}
        self.tokens: dict[str, tuple[str, float]] = {}
        """Session tokens of EC2's service: of which machine, and until when by the
        monotonic clock."""
        self._changed = threading.Condition()
        self.taken: Callable[[str, float], None] = lambda _machine, _seconds: None
        """Takes the machine that was announced, when its seconds are over."""
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
        """Whether a session token of EC2's service is good: on the machine that asked for
        it, and for as long as it wanted."""
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
        wanted = request.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "")
        if request.headers.get("X-Forwarded-For"):
            return "", 403
        if not wanted.isdigit() or not 1 <= int(wanted) <= TOKEN_SECONDS:
            return "", 400
        token = secrets.token_urlsafe(40)
        self.tokens[token] = (machine, time.monotonic() + int(wanted))
        return token, {"X-aws-ec2-metadata-token-ttl-seconds": wanted}

    def _ec2(self, machine: str, what: str) -> Any:
        if not self.knows(machine, request.headers.get("X-aws-ec2-metadata-token")):
            return "", 401
        fate = self.fate(machine)
        fate.asked += 1
        if what == "spot/instance-action" and fate.ends:
            return {"action": "terminate", "time": fate.ends.strftime("%Y-%m-%dT%H:%M:%SZ")}
        if what == "events/recommendations/rebalance" and fate.rebalance:
            return {"noticeTime": "2026-11-23T08:00:00Z"}
        return "", 404

    def _gcp(self, machine: str) -> Any:
        """A question with `wait_for_change` is answered when the value is another than that
        of `last_etag`; without one, than that of the moment."""
        if not _for_google():
            return "", 403
        fate = self.fate(machine)
        fate.asked += 1
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
        found = self.fate(machine).about.get(what)
        return (found, {"Metadata-Flavor": "Google"}) if found else ("", 404)

    def _instance(self, machine: str) -> Any:
        """Of Azure: about itself, or a token of one of its identities for one resource."""
        identity = request.path.endswith("/token")
        if not _for_azure("identity" if identity else "instance") or (
            identity and not request.args.get("resource")
        ):
            return {"error": "Bad request"}, 400
        if self.fate(machine).without_tokens and "msi_res_id" in request.args:
            return {
                "error": "unknown",
                "error_description": "Failed to retrieve token from the Active directory.",
            }, 500
        found = self.fate(machine).about.get(request.args.get("msi_res_id", "azure"))
        return found or (
            {"error": "invalid_request", "error_description": "Identity not found"},
            400,
        )

    def _azure(self, machine: str) -> Any:
        if not _for_azure("scheduledevents"):
            return {"error": "Bad request"}, 400
        fate = self.fate(machine)
        fate.asked += 1
        if request.method == "POST":
            fate.acknowledged += [one["EventId"] for one in request.get_json()["StartRequests"]]
            self.taken(machine, 0.0)  # who says that it is ready is not waited for
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
    """Whether a request is meant for Google's service, and came to it straight."""
    return request.headers.get("Metadata-Flavor") == "Google" and not request.headers.get(
        "X-Forwarded-For"
    )


def _for_azure(category: str) -> bool:
    """Whether a request is meant for Azure's service, came to it straight, and names a version
    that this category has."""
    straight = request.headers.get("Metadata") == "true" and not request.headers.get(
        "X-Forwarded-For"
    )
    return straight and request.args.get("api-version") in VERSIONS[category]
