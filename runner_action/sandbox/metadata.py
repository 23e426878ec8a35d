"""The metadata services of EC2, Google Cloud and Azure, as far as they tell a machine of its end and of itself. One server; a
machine's address holds its id.

From the vendors' pages: EC2 wants a session token got by PUT; Google wants its header and answers a hanging question when the
value changes; Azure wants its header, and takes an acknowledgement by POST.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from flask import Flask, request
from werkzeug.serving import make_server


@dataclass
class Fate:
    """What its cloud has told one machine."""

    ends: datetime | None = None
    rebalance: bool = False
    acknowledged: list[str] = field(default_factory=list)
    asked: int = 0
    about: dict[str, str] = field(default_factory=dict)
    """What Google's service tells a machine of itself, by path; what Azure's does, by identity or `azure`."""


class FakeMetadata:
    """`notice(machine, seconds)` announces its end on whatever cloud it asks."""

    def __init__(self) -> None:
        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        self._fates: dict[str, Fate] = {}
        self.tokens: set[str] = set()
        """Session tokens of EC2's service."""
        self._changed = threading.Condition()
        self.app = app = Flask("metadata")
        app.add_url_rule("/<machine>/latest/api/token", "token", self._token, methods=["PUT"])
        app.add_url_rule("/<machine>/latest/meta-data/<path:what>", "ec2", self._ec2)
        app.add_url_rule("/<machine>/computeMetadata/v1/instance/preempted", "gcp", self._gcp)
        app.add_url_rule("/<machine>/computeMetadata/v1/<path:what>", "about", self._about)
        app.add_url_rule("/<machine>/metadata/instance/compute", "instance", self._instance)
        app.add_url_rule("/<machine>/metadata/identity/oauth2/token", "identity", self._instance)
        app.add_url_rule("/<machine>/metadata/scheduledevents", "azure", self._azure, methods=["GET", "POST"])
        self._server = make_server("127.0.0.1", 0, app, threaded=True)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def url(self, machine: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/{machine}"

    def fate(self, machine: str) -> Fate:
        return self._fates.setdefault(machine, Fate())

    def notice(self, machine: str, seconds: float) -> None:
        with self._changed:
            self.fate(machine).ends = datetime.now(timezone.utc) + timedelta(seconds=seconds)
            self._changed.notify_all()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    # --- views

    def _token(self, machine: str) -> Any:
        if not request.headers.get("X-aws-ec2-metadata-token-ttl-seconds", "").isdigit():
            return "", 400
        token = secrets.token_urlsafe(40)
        self.tokens.add(token)
        return token

    def _ec2(self, machine: str, what: str) -> Any:
        if request.headers.get("X-aws-ec2-metadata-token") not in self.tokens:
            return "", 401
        fate = self.fate(machine)
        fate.asked += 1
        if what == "spot/instance-action" and fate.ends:
            return {"action": "terminate", "time": fate.ends.strftime("%Y-%m-%dT%H:%M:%SZ")}
        if what == "events/recommendations/rebalance" and fate.rebalance:
            return {"noticeTime": "2026-11-23T08:00:00Z"}
        return "", 404

    def _gcp(self, machine: str) -> Any:
        if request.headers.get("Metadata-Flavor") != "Google":
            return "", 403
        fate = self.fate(machine)
        fate.asked += 1
        if request.args.get("wait_for_change") == "true":
            end = time.monotonic() + float(request.args.get("timeout_sec", 3600))
            with self._changed:
                while fate.ends is None and time.monotonic() < end:
                    self._changed.wait(0.1)
        return "TRUE" if fate.ends else "FALSE"

    def _about(self, machine: str, what: str) -> Any:
        if request.headers.get("Metadata-Flavor") != "Google":
            return "", 403
        return self.fate(machine).about.get(what) or ("", 404)

    def _instance(self, machine: str) -> Any:
        """Of Azure: about itself, or a token of one of its identities."""
        if request.headers.get("Metadata") != "true" or not request.args.get("api-version"):
            return {"error": "Bad request"}, 400
        found = self.fate(machine).about.get(request.args.get("msi_res_id", "azure"))
        return found or ({"error": "invalid_request", "error_description": "Identity not found"}, 400)

    def _azure(self, machine: str) -> Any:
        if request.headers.get("Metadata") != "true" or not request.args.get("api-version"):
            return {"error": "Bad request"}, 400
        fate = self.fate(machine)
        fate.asked += 1
        if request.method == "POST":
            fate.acknowledged += [one["EventId"] for one in request.get_json()["StartRequests"]]
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
