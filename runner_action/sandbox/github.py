"""A GitHub with one repository, over HTTP: runners, tokens, just-in-time configuration, downloads, and a queue of jobs.

REST below `/api/v3` as an Enterprise Server has it, in GitHub's own words (held against its API description by the tests).
What the real service and its runner say to each other is private; `/_runner` and `runner_standin` speak a language of their own.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any

from flask import Flask, Response, request

from runner_action.sandbox import runs
from runner_action.sandbox.jobs import DEFAULT_LABELS, Forge, Refusal, Seat
from runner_action.sandbox.served import Served
from runner_action.sandbox.standin import VERSION, tarball

EXPIRES = "2026-11-23T12:00:00.000Z"
GROUP = 1
ASKING = "canary-request-token"
"""By which a job with `permissions: id-token: write` asks for id tokens."""


class FakeGitHub(Served):
    """`tokens`: accepted token -> `admin` or `readonly`."""

    def __init__(self, tokens: Mapping[str, str], repository: str = "octo/train", host: str = "127.0.0.1") -> None:
        self.tokens, self.repository = tokens, repository
        self.forge = Forge()
        self.id_tokens: dict[str, str] = {}
        """Each, and the audience it was asked for."""
        self._archive = tarball()
        app = Flask("github")
        self._routes(app)
        super().__init__(app, "/api/v3", host=host)
        self.repo_url = f"{self.url}/{self.repository}"

    # --- routes

    def _routes(self, app: Flask) -> None:
        repo = "/api/v3/repos/<owner>/<name>/actions/runners"
        public: list[tuple[str, str, Callable[..., Any]]] = [
            ("GET", repo, self._list),
            ("GET", f"{repo}/downloads", self._downloads),
            ("POST", f"{repo}/registration-token", lambda **_: ({"token": self.forge.new_token("register"), "expires_at": EXPIRES}, 201)),
            ("POST", f"{repo}/remove-token", lambda **_: ({"token": self.forge.new_token("remove"), "expires_at": EXPIRES}, 201)),
            ("POST", f"{repo}/generate-jitconfig", self._jit),
            ("GET", f"{repo}/<int:runner_id>", self._one),
            ("DELETE", f"{repo}/<int:runner_id>", self._delete),
            ("GET", "/api/v3/repos/actions/runner/releases/tags/<tag>", self._release),
        ]
        for method, path, view in public:
            app.add_url_rule(path, f"{method} {path}", self._guarded(view), methods=[method])
        app.add_url_rule("/id-token", "id-token", self._id_token)
        app.add_url_rule("/actions/runner/releases/download/v<version>/<name>", "download", self._download)
        app.add_url_rule("/api/v3/actions/runner-registration", "registration", self._registration, methods=["POST"])
        for method, path, view in runs.routes(self.forge):
            app.add_url_rule(path, f"{method} {path}", self._guarded(view), methods=[method])
        for verb in ("open", "poll", "watch", "completed", "close"):
            app.add_url_rule(f"/_runner/{verb}", verb, self._runner_side, methods=["POST"], defaults={"verb": verb})

    def _guarded(self, view: Callable[..., Any]) -> Callable[..., Any]:
        """The token, the repository and the faults come before every answer."""

        def guarded(**given: Any) -> Any:
            if failing := self.fault():
                return failing
            kind = self.tokens.get(request.headers.get("Authorization", "").partition(" ")[2])
            if kind is None:
                return _refused(401, "Bad credentials")
            if kind == "readonly" and request.method != "GET":
                return _refused(403, "Resource not accessible by personal access token")
            owner, name = given.pop("owner", None), given.pop("name", None)
            if owner and f"{owner}/{name}" != self.repository:
                return _refused(404, "Not Found")
            return view(**given)

        return guarded

    # --- GitHub's REST

    def _list(self) -> Any:
        seats = [seat for seat in self.forge.seats() if request.args.get("name") in (None, seat.name)]
        return runs.paged("runners", [_shown(seat) for seat in seats])

    def _downloads(self) -> Any:
        return [
            {
                "os": system,
                "architecture": architecture,
                "filename": f"actions-runner-{system}-{architecture}-{VERSION}.tar.gz",
                "download_url": f"{self.url}/actions/runner/releases/download/v{VERSION}/actions-runner-{system}-{architecture}-{VERSION}.tar.gz",
                "sha256_checksum": self._archive.sha256,
            }
            for system, architecture in (("linux", "x64"), ("linux", "arm64"), ("osx", "arm64"))
        ]

    def _jit(self) -> Any:
        asked = request.get_json()
        if self.forge.by_name(asked["name"]):
            return _refused(409, "Already exists - A runner with the name already exists.")
        seat = self.forge.seat(asked["name"], asked["labels"], ephemeral=True)
        told = {"agentId": seat.id, "agentName": seat.name, "server": self.url, "secret": seat.secret, "work": asked.get("work_folder", "_work")}
        return {"runner": _shown(seat), "encoded_jit_config": base64.b64encode(json.dumps(told).encode()).decode()}, 201

    def _one(self, runner_id: int) -> Any:
        seat = self.forge.by_id(runner_id)
        return _shown(seat) if seat else _refused(404, "Not Found")

    def _delete(self, runner_id: int) -> Any:
        try:
            gone = self.forge.remove(runner_id)
        except Refusal as refusal:
            return _refused(422, str(refusal))
        return ("", 204) if gone else _refused(404, "Not Found")

    def _release(self, tag: str) -> Any:
        """The project's releases, as far as a launch reads them."""
        version = tag.removeprefix("v")
        if version != VERSION:
            return _refused(404, "Not Found")
        name = f"actions-runner-linux-x64-{version}.tar.gz"
        url = f"{self.url}/actions/runner/releases/download/v{version}/{name}"
        return {"tag_name": tag, "assets": [{"name": name, "digest": f"sha256:{self._archive.sha256}", "browser_download_url": url}]}

    def _id_token(self) -> Any:
        """https://docs.github.com/actions/reference/security/oidc"""
        if request.headers.get("Authorization") != f"Bearer {ASKING}" or request.args.get("api-version") != "2.0":
            return _refused(401, "Unauthorized")
        token = f"canary-id-token-{secrets.token_urlsafe(20)}"
        self.id_tokens[token] = request.args["audience"]
        return {"count": len(token), "value": token}

    # --- for the stand-in

    def _download(self, version: str, name: str) -> Any:
        return Response(self._archive.content, content_type="application/octet-stream") if version == VERSION else ("", 404)

    def _registration(self) -> Any:
        """`config.sh` registers and removes with a token that was made for it."""
        asked, kind = request.get_json(), self.forge.token_kind(request.headers.get("Authorization", "").partition(" ")[2])
        if kind != asked["runner_event"]:
            return _refused(404, "Not Found")
        old = self.forge.by_name(asked["name"])
        try:
            if asked["runner_event"] == "remove":
                return {"removed": bool(old and self.forge.remove(old.id))}
            if old and not asked["replace"]:
                return _refused(409, "A runner exists with the same name")
            if old:
                self.forge.remove(old.id)
        except Refusal as refusal:
            return _refused(422, str(refusal))
        seat = self.forge.seat(asked["name"], [*DEFAULT_LABELS, *asked["labels"]], ephemeral=asked["ephemeral"])
        return {"agentId": seat.id, "secret": seat.secret}

    def _runner_side(self, verb: str) -> Any:
        asked = request.get_json()
        seat = self.forge.by_id(asked["id"])
        if seat is None or seat.secret != asked["secret"]:
            return _refused(401, "The runner no longer exists.")
        seat.heard = time.monotonic()
        if verb == "watch":
            return {"cancelled": seat.job is not None and seat.job.cancelled}
        if verb == "poll":
            job = self.forge.next_job(seat, wait=2)
            return {"job": {**job.for_runner(self.repository), "server_url": self.url} if job else None}
        if verb == "completed":
            self.forge.complete(seat, asked["conclusion"], [(title, text) for title, text in asked["notes"]])
        if verb in ("open", "close"):
            self.forge.set_online(seat, verb == "open")
        return {}


def _shown(seat: Seat) -> dict[str, Any]:
    """A runner in GitHub's words."""
    labels = [{"id": number, "name": label, "type": "read-only" if label in DEFAULT_LABELS else "custom"} for number, label in enumerate(seat.labels, 1)]
    status = "online" if seat.online else "offline"
    return {
        "id": seat.id,
        "name": seat.name,
        "os": "linux",
        "status": status,
        "busy": seat.job is not None,
        "ephemeral": seat.ephemeral,
        "runner_group_id": GROUP,
        "labels": labels,
    }


def _refused(status: int, message: str) -> tuple[dict[str, str], int]:
    return {"message": message, "documentation_url": "https://docs.github.com/rest", "status": str(status)}, status
