"""A GitLab with one group and one project, over HTTP: runners, the jobs of pipelines, the API of
gitlab-runner, and its downloads.

The tests check every response of its REST API against GitLab's own API description. Scopes, roles
and refusals are as in GitLab's documentation. It may be served below a path (`prefix`), as some
self-managed instances are.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from flask import Flask, Response, request

from runner_action.sandbox.forges.gitlab import pipelines
from runner_action.sandbox.forges.gitlab.releases import (
    RELEASES,
    VERSION,
    checksums,
    program_of,
)
from runner_action.sandbox.forges.gitlab.variables import Project
from runner_action.sandbox.forges.jobs import Seat
from runner_action.sandbox.forges.memory import Forge
from runner_action.sandbox.served import Served

GROUP, PROJECT = "octo", "octo/train"
PLACES = {("groups", GROUP): 8, ("groups", "8"): 8, ("projects", PROJECT): 5, ("projects", "5"): 5}
SHORTEST_JOB = 600
MOST_TAGS = 50
TAG_LENGTH = 255
TEXT_LENGTH = 1024
"""Limits of a runner: its shortest maximum timeout in seconds, its tags, the characters of a tag,
and of its description or note.
https://gitlab.com/gitlab-org/gitlab/-/blob/master/app/models/ci/runner.rb, tag.rb beside it"""
MOST_OF_A_PAGE = 100
"""https://docs.gitlab.com/api/rest/#pagination"""
READ_RUNNERS = ("api", "read_api", "manage_runner")
BOT = re.compile(r"(project|group)_\d+_bot_")
NEVER_A_USER = {
    "error": "insufficient_scope",
    "error_description": (
        "The request requires higher privileges than provided by the access token."
    ),
}


class FakeGitLab(Served):
    """`tokens`: each accepted token, and its scopes. `shared`: ids of the instance's own runners,
    which are on every list."""

    def __init__(
        self,
        tokens: Mapping[str, Sequence[str]],
        prefix: str = "",
        version: str = VERSION,
        tls: tuple[str, str] | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.tokens = tokens
        self.prefix = prefix
        self.version = version
        self.users: dict[str, str] = {}
        """The user of a token, if that is not a project's bot."""
        self.forge = Forge()
        self.places: dict[int, tuple[str, int]] = {}
        self.shared: set[int] = set()
        self.longest: dict[int, int] = {}
        self.registration_tokens = {
            kind: self.forge.new_token(kind) for kind in ("projects", "groups")
        }
        self.poll = 2.0
        """Seconds for which a request for a job is held; GitLab holds it for 50."""
        self.program = program_of(VERSION)
        self.sha256 = hashlib.sha256(self.program).hexdigest()
        app = Flask("gitlab")
        self.jobs = pipelines.Jobs(self.forge, PLACES, lambda: self.project)
        self._routes(app)
        super().__init__(app, f"{prefix}/api/v4", tls, host)
        self.server_url = f"{self.url}{prefix}"
        self.repo_url = f"{self.server_url}/{PROJECT}"
        self.group_url = f"{self.server_url}/{GROUP}"
        self.downloads = f"{self.url}/runner-downloads"

    @property
    def project(self) -> Project:
        return Project(self.server_url, PLACES["projects", PROJECT], PROJECT)

    # --- routes

    def _routes(self, app: Flask) -> None:
        api = f"{self.prefix}/api/v4"
        for method, path, view, scopes in self._for_users():
            app.add_url_rule(
                api + path, f"{method} {path}", self._guarded(view, scopes), methods=[method]
            )
        with_runner_token: list[tuple[str, str, Callable[..., Any]]] = [
            ("POST", "/runners", self._register),
            ("DELETE", "/runners", self._leave),
            ("POST", "/runners/verify", self._verify),
            ("POST", "/jobs/request", lambda: self.jobs.ask(self.poll, self.longest)),
            *self.jobs.for_runners(),
        ]
        for method, path, view in with_runner_token:
            app.add_url_rule(
                api + path,
                f"{method} {path}",
                lambda view=view, **arguments: self.fault() or view(**arguments),
                methods=[method],
            )
        app.add_url_rule("/runner-downloads/<place>/release.sha256", "checksums", self._checksums)
        app.add_url_rule(
            "/runner-downloads/<place>/binaries/<name>",
            "program",
            lambda place, name: Response(self._released(place)[0]),
        )

    def _for_users(self) -> list[pipelines.Route]:
        read = ("api", "read_api")
        return [
            ("GET", "/version", self._version, (*read, "read_user")),
            ("GET", "/personal_access_tokens/self", self._token, ()),
            ("GET", "/user", self._user, (*read, "read_user")),
            ("GET", "/projects/<path:place>", self._place, read),
            ("GET", "/groups/<path:place>", self._place, read),
            ("GET", "/projects/<path:place>/runners", self._list, READ_RUNNERS),
            ("GET", "/groups/<path:place>/runners", self._list, READ_RUNNERS),
            ("POST", "/user/runners", self._create, ("api", "create_runner")),
            ("GET", "/runners/<int:number>", self._one, READ_RUNNERS),
            ("PUT", "/runners/<int:number>", self._change, ("api", "manage_runner")),
            ("GET", "/runners/<int:number>/jobs", self._running, READ_RUNNERS),
            ("DELETE", "/runners/<int:number>", self._delete, ("api", "manage_runner")),
            *self.jobs.for_users(),
        ]

    def _guarded(self, view: Callable[..., Any], scopes: tuple[str, ...]) -> Callable[..., Any]:
        """The view, after the faults and the checks of token and scope."""

        def guarded(**arguments: Any) -> Any:
            if failing := self.fault():
                return failing
            token = request.headers.get("PRIVATE-TOKEN", "")
            if token not in self.tokens:
                return {"message": "401 Unauthorized"}, 401
            if scopes and not set(scopes).intersection(self.tokens[token]):
                return {**NEVER_A_USER, "scope": " ".join(scopes)}, 403
            response = view(**arguments)
            return self.fault(late=True) or response

        return guarded

    # --- for users

    def _version(self) -> Any:
        return {"version": self.version, "revision": "0"}

    def _token(self) -> Any:
        scopes = self.tokens[request.headers["PRIVATE-TOKEN"]]
        return {
            "id": 1,
            "name": "cml",
            "revoked": False,
            "created_at": _at(0),
            "scopes": list(scopes),
            "user_id": 1,
            "active": True,
            "expires_at": None,
        }

    def _user(self) -> Any:
        """The token's user; for the token of a project or a group, a bot with a generated name."""
        name = self.users.get(request.headers["PRIVATE-TOKEN"], "project_1_bot_0123456789abcdef")
        return {
            "id": 1,
            "username": name,
            "name": name,
            "state": "active",
            "bot": bool(BOT.match(name)),
        }

    def _kind(self) -> str:
        return request.path.removeprefix(f"{self.prefix}/api/v4/").partition("/")[0]

    def _place(self, place: str) -> Any:
        kind = self._kind()
        if (kind, place) not in PLACES:
            return {"message": f"404 {kind.title()[:-1]} Not Found"}, 404
        path = PROJECT if kind == "projects" else GROUP
        entry = {
            "id": PLACES[kind, place],
            "name": path.rpartition("/")[2],
            "path": path.rpartition("/")[2],
            "web_url": f"{self.server_url}/{path}",
        }
        if kind == "projects":
            entry["path_with_namespace"] = path
        if "api" in self.tokens[request.headers["PRIVATE-TOKEN"]]:
            entry["runners_token"] = self.registration_tokens[kind]
        return entry

    def _list(self, place: str) -> Any:
        kind = self._kind()
        if (kind, place) not in PLACES:
            return {"message": f"404 {kind.title()[:-1]} Not Found"}, 404
        here = (kind, PLACES[kind, place])
        # In GitLab's order, newest first; a project's list also has the runners of its group.
        # https://docs.gitlab.com/api/runners/#list-projects-runners
        places = [here, ("groups", PLACES["groups", GROUP])]
        seats = [
            seat
            for seat in reversed(self.forge.seats())
            if seat.id in self.shared or self.places.get(seat.id, ("projects", 5)) in places
        ]
        return paged([self._shown(seat) for seat in seats])

    def _create(self) -> Any:
        """https://docs.gitlab.com/api/users/#create-a-runner"""
        body = request.get_json()
        key = {"project_type": "project_id", "group_type": "group_id"}.get(body["runner_type"], "")
        place = ("projects" if key == "project_id" else "groups", body.get(key))
        if place not in {(kind, number) for (kind, _), number in PLACES.items()}:
            return {"error": f"{key} is missing or unknown"}, 400
        return self._created(body, place)

    def _created(self, body: Mapping[str, Any], place: tuple[str, int]) -> Any:
        """Registers a runner of a project or group. Returns its id and token, or a refusal."""
        if problems := invalid(body):
            return {"message": problems}, 400
        seat = self.forge.seat(
            body.get("description", ""),
            body.get("tag_list", []),
            ephemeral=False,
            untagged=body.get("run_untagged", True),
        )
        seat.secret = f"glrt-canary-{seat.secret}"
        self.places[seat.id] = place
        if longest := body.get("maximum_timeout"):
            self.longest[seat.id] = longest
        return {"id": seat.id, "token": seat.secret, "token_expires_at": None}, 201

    def _one(self, number: int) -> Any:
        seat = self.forge.by_id(number)
        if seat is None:
            return {"message": "404 Runner Not Found"}, 404
        if number in self.shared:
            return {"message": "403 Forbidden - No access granted"}, 403
        more = {
            "tag_list": sorted(seat.labels),
            "run_untagged": seat.untagged,
            "maintenance_note": seat.note or None,
        }
        return {**self._shown(seat), **more, "maximum_timeout": self.longest.get(number)}

    def _change(self, number: int) -> Any:
        seat = self.forge.by_id(number)
        body = request.get_json()
        if problems := invalid({"run_untagged": True, **body}):
            return {"message": problems}, 400
        if seat and number not in self.shared:
            seat.note = body.get("maintenance_note", seat.note)
            seat.paused = body.get("paused", seat.paused)
        return self._one(number)

    def _running(self, number: int) -> Any:
        seat = self.forge.by_id(number)
        if seat is None:
            return {"message": "404 Runner Not Found"}, 404
        if seat.job is None:
            return paged([])
        return paged([{"id": seat.job.id, "status": "running", "name": seat.job.name}])

    def _delete(self, number: int) -> Any:
        if self.forge.remove(number, force=True):
            return "", 204
        return {"message": "404 Runner Not Found"}, 404

    # --- for machines

    def _register(self) -> Any:
        """Registers with a registration token: removed in 18.0, unless an administrator keeps
        it."""
        body = request.get_json()
        for kind, token in self.registration_tokens.items():
            if token == body["token"]:
                if int(self.version.partition(".")[0]) >= 18:
                    return {"message": "410 Gone"}, 410
                return self._created(body, (kind, 5 if kind == "projects" else 8))
        return {"message": "403 Forbidden - invalid token supplied"}, 403

    def _seat_of_token(self) -> Seat | None:
        token = (request.get_json(silent=True) or request.args).get("token")
        return next((seat for seat in self.forge.seats() if seat.secret == token), None)

    def _leave(self) -> Any:
        seat = self._seat_of_token()
        if seat is None:
            return {"message": "403 Forbidden"}, 403
        self.forge.remove(seat.id, force=True)
        return "", 204

    def _verify(self) -> Any:
        """https://docs.gitlab.com/api/runners/#verify-authentication-for-a-registered-runner"""
        seat = self._seat_of_token()
        if seat is None:
            return {"message": "403 Forbidden"}, 403
        return {"id": seat.id, "token": seat.secret, "token_expires_at": None}

    def _checksums(self, place: str) -> Any:
        program, digest = self._released(place)
        if not program:
            return "", 404
        return checksums(digest)

    def _released(self, place: str) -> tuple[bytes, str]:
        """A release's program and its SHA-256; empty if there is none."""
        if place in ("latest", f"v{VERSION}"):
            return self.program, self.sha256
        if place.removeprefix("v") not in RELEASES:
            return b"", ""
        program = program_of(place.removeprefix("v"))
        return program, hashlib.sha256(program).hexdigest()

    def _type(self, seat: Seat) -> str:
        if seat.id in self.shared:
            return "instance_type"
        place = self.places.get(seat.id, ("",))[0]
        return "group_type" if place == "groups" else "project_type"

    def _shown(self, seat: Seat) -> dict[str, Any]:
        """A runner as GitLab's API returns it."""
        return {
            "id": seat.id,
            "description": seat.name,
            "ip_address": "127.0.0.1",
            "active": not seat.paused,
            "paused": seat.paused,
            "is_shared": seat.id in self.shared,
            "runner_type": self._type(seat),
            "name": "gitlab-runner" if seat.online else None,
            "online": seat.online,
            "created_at": _at(0),
            "status": _status(seat),
            "job_execution_status": "active" if seat.job else "idle",
        }


def _status(seat: Seat) -> str:
    if seat.online:
        return "online"
    return "offline" if seat.contacted else "never_contacted"


def invalid(body: Mapping[str, Any]) -> dict[str, list[str]]:
    """The errors of GitLab's model of a runner, by attribute."""
    tags = body.get("tag_list", [])
    errors = dict[str, list[str]]()
    if not body.get("run_untagged", True) and not tags:
        errors["tags_list"] = ["can not be empty when runner is not allowed to pick untagged jobs"]
    if len(tags) > MOST_TAGS:
        errors["tags_list"] = [
            f"Too many tags specified. Please limit the number of tags to {MOST_TAGS}"
        ]
    if any(len(tag) > TAG_LENGTH for tag in tags):
        errors["tags"] = [f"is too long (maximum is {TAG_LENGTH} characters)"]
    for text in ("description", "maintenance_note"):
        if len(body.get(text) or "") > TEXT_LENGTH:
            errors[text] = [f"is too long (maximum is {TEXT_LENGTH} characters)"]
    longest = body.get("maximum_timeout")
    if longest is not None and longest < SHORTEST_JOB:
        errors["maximum_timeout"] = ["needs to be at least 10 minutes"]
    return errors


def paged(items: Sequence[object]) -> Response:
    """The requested page. The host in the link is the one that GitLab is configured with, which
    need not be the one in the request."""
    size = min(int(request.args.get("per_page", 20)), MOST_OF_A_PAGE)
    page = int(request.args.get("page", 1))
    shown = json.dumps(items[(page - 1) * size : page * size])
    response = Response(shown, content_type="application/json")
    response.headers["X-Per-Page"] = str(size)
    response.headers["X-Page"] = str(page)
    if page * size < len(items):
        url = f"http://internal.test{request.path}?per_page={size}&page={page + 1}"
        response.headers["X-Next-Page"] = str(page + 1)
        response.headers["Link"] = f'<{url}>; rel="next"'
    return response


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds or time.time(), UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
