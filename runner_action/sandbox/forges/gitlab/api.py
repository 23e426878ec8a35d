"""A GitLab with one group and one project in it, over HTTP: runners, pipelines' jobs, the API of
gitlab-runner, and its downloads.

REST as GitLab's own API description has it (the tests hold every answer against it); scopes,
roles and refusals as in its documentation. It may stand below its host (`prefix`), as
self-managed instances do.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from flask import Flask, Response, request

from runner_action.sandbox.forges.gitlab import pipelines
from runner_action.sandbox.forges.gitlab.variables import Project
from runner_action.sandbox.forges.jobs import Seat
from runner_action.sandbox.forges.memory import Forge
from runner_action.sandbox.served import Served

VERSION = "19.4.0"
GROUP, PROJECT = "octo", "octo/train"
PLACES = {("groups", GROUP): 8, ("groups", "8"): 8, ("projects", PROJECT): 5, ("projects", "5"): 5}
SHORTEST_JOB = 600
MOST_TAGS = 50
TAG_LENGTH = 255
TEXT_LENGTH = 1024
"""Of a runner, of a tag, of its description and its note.
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
    """`tokens`: accepted token -> its scopes. `shared`: ids of the instance's own runners, which
    everybody's list has."""

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
        """Token -> its user, where that is not a project's bot."""
        self.forge = Forge()
        self.places: dict[int, tuple[str, int]] = {}
        self.shared: set[int] = set()
        self.longest: dict[int, int] = {}
        self.registration_tokens = {
            kind: self.forge.new_token(kind) for kind in ("projects", "groups")
        }
        self.poll = 2.0
        """Seconds that a question for a job is held; 50 in the real one."""
        self.program = (
            b"#!/usr/bin/env python3\n"
            + files("runner_action.sandbox.forges.gitlab")
            .joinpath("runner_standin.py")
            .read_bytes()
        )
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
        users: list[tuple[str, str, Callable[..., Any], tuple[str, ...]]] = [
            (
                "GET",
                "/version",
                lambda: {"version": self.version, "revision": "0"},
                ("api", "read_api", "read_user"),
            ),
            ("GET", "/personal_access_tokens/self", self._token, ()),
            ("GET", "/user", self._user, ("api", "read_api", "read_user")),
            *(
                ("GET", f"/{kind}/<path:place>", self._place, ("api", "read_api"))
                for kind in ("projects", "groups")
            ),
            *(
                ("GET", f"/{kind}/<path:place>/runners", self._list, READ_RUNNERS)
                for kind in ("projects", "groups")
            ),
            ("POST", "/user/runners", self._create, ("api", "create_runner")),
            ("GET", "/runners/<int:number>", self._one, READ_RUNNERS),
            ("PUT", "/runners/<int:number>", self._change, ("api", "manage_runner")),
            ("GET", "/runners/<int:number>/jobs", self._running, READ_RUNNERS),
            ("DELETE", "/runners/<int:number>", self._delete, ("api", "manage_runner")),
            *self.jobs.for_users(),
        ]
        for method, path, view, scopes in users:
            app.add_url_rule(
                api + path, f"{method} {path}", self._guarded(view, scopes), methods=[method]
            )
        with_runner_token: list[tuple[str, str, Callable[..., Any]]] = [
            ("POST", "/runners", self._register),
            ("DELETE", "/runners", self._leave),
            ("POST", "/jobs/request", lambda: self.jobs.ask(self.poll, self.longest)),
            *self.jobs.for_runners(),
        ]
        for method, path, view in with_runner_token:
            app.add_url_rule(
                api + path,
                f"{method} {path}",
                lambda view=view, **given: self.fault() or view(**given),
                methods=[method],
            )
        app.add_url_rule("/runner-downloads/<place>/release.sha256", "checksums", self._checksums)
        app.add_url_rule(
            "/runner-downloads/<place>/binaries/<name>",
            "program",
            lambda place, name: Response(self.program),
        )

    def _guarded(self, view: Callable[..., Any], scopes: tuple[str, ...]) -> Callable[..., Any]:
        """Token, scope and faults come before every answer to a user."""

        def guarded(**given: Any) -> Any:
            if failing := self.fault():
                return failing
            token = request.headers.get("PRIVATE-TOKEN", "")
            if token not in self.tokens:
                return {"message": "401 Unauthorized"}, 401
            if scopes and not set(scopes).intersection(self.tokens[token]):
                return {**NEVER_A_USER, "scope": " ".join(scopes)}, 403
            answer = view(**given)
            return self.fault(late=True) or answer

        return guarded

    # --- for users

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
        """Of a project's or a group's token a bot, whose name GitLab makes."""
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
        told = {
            "id": PLACES[kind, place],
            "name": path.rpartition("/")[2],
            "path": path.rpartition("/")[2],
            "web_url": f"{self.server_url}/{path}",
        }
        may = "api" in self.tokens[request.headers["PRIVATE-TOKEN"]]
        return {
            **told,
            **({"path_with_namespace": path} if kind == "projects" else {}),
            **({"runners_token": self.registration_tokens[kind]} if may else {}),
        }

    def _list(self, place: str) -> Any:
        kind = self._kind()
        if (kind, place) not in PLACES:
            return {"message": f"404 {kind.title()[:-1]} Not Found"}, 404
        here = (kind, PLACES[kind, place])
        # Newest first, as GitLab lists them; a project's list has those of its group too.
        # https://docs.gitlab.com/api/runners/#list-projects-runners
        listed = [here, ("groups", PLACES["groups", GROUP])]
        seats = [
            seat
            for seat in reversed(self.forge.seats())
            if seat.id in self.shared or self.places.get(seat.id, ("projects", 5)) in listed
        ]
        return paged([self._shown(seat) for seat in seats])

    def _create(self) -> Any:
        """https://docs.gitlab.com/api/users/#create-a-runner"""
        asked = request.get_json()
        key = {"project_type": "project_id", "group_type": "group_id"}.get(asked["runner_type"], "")
        place = ("projects" if key == "project_id" else "groups", asked.get(key))
        if place not in {(kind, number) for (kind, _), number in PLACES.items()}:
            return {"error": f"{key} is missing or unknown"}, 400
        seat, refused = self._seated(asked, place)
        return refused or ({"id": seat.id, "token": seat.secret, "token_expires_at": None}, 201)

    def _seated(self, asked: Mapping[str, Any], place: tuple[str, int]) -> tuple[Seat, Any]:
        labels = asked.get("tag_list", [])
        untagged = asked.get("run_untagged", True)
        longest = asked.get("maximum_timeout")
        if problems := invalid(asked):
            return Seat(0, "", (), ephemeral=False), ({"message": problems}, 400)
        seat = self.forge.seat(
            asked.get("description", ""), labels, ephemeral=False, untagged=untagged
        )
        seat.secret = f"glrt-canary-{seat.secret}"
        self.places[seat.id] = place
        if longest:
            self.longest[seat.id] = longest
        return seat, None

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
        asked = request.get_json()
        if problems := invalid({"run_untagged": True, **asked}):
            return {"message": problems}, 400
        if seat and number not in self.shared:
            seat.note = asked.get("maintenance_note", seat.note)
            seat.paused = asked.get("paused", seat.paused)
        return self._one(number)

    def _running(self, number: int) -> Any:
        seat = self.forge.by_id(number)
        if seat is None:
            return {"message": "404 Runner Not Found"}, 404
        return paged(
            [{"id": seat.job.id, "status": "running", "name": seat.job.name}] if seat.job else []
        )

    def _delete(self, number: int) -> Any:
        return (
            ("", 204)
            if self.forge.remove(number, force=True)
            else ({"message": "404 Runner Not Found"}, 404)
        )

    # --- for machines

    def _register(self) -> Any:
        """The old way; gone from 18.0 unless an administrator keeps it."""
        asked = request.get_json()
        kind = next(
            (kind for kind, token in self.registration_tokens.items() if token == asked["token"]),
            None,
        )
        if kind is None or int(self.version.partition(".")[0]) >= 18:
            return (
                {"message": "410 Gone"}
                if kind
                else {"message": "403 Forbidden - invalid token supplied"}
            ), (410 if kind else 403)
        seat, refused = self._seated(asked, (kind, 5 if kind == "projects" else 8))
        return refused or ({"id": seat.id, "token": seat.secret, "token_expires_at": None}, 201)

    def _leave(self) -> Any:
        asked = request.get_json(silent=True) or request.args
        seat = next(
            (seat for seat in self.forge.seats() if seat.secret == asked.get("token")), None
        )
        if seat is None:
            return {"message": "403 Forbidden"}, 403
        self.forge.remove(seat.id, force=True)
        return "", 204

    def _checksums(self, place: str) -> Any:
        if place not in ("latest", f"v{VERSION}"):
            return "", 404
        return "".join(
            f"{self.sha256}  binaries/gitlab-runner-{system}-{chip}\n"
            for system in ("linux", "darwin")
            for chip in ("amd64", "arm64")
        )

    def _type(self, seat: Seat) -> str:
        if seat.id in self.shared:
            return "instance_type"
        place = self.places.get(seat.id, ("",))[0]
        return "group_type" if place == "groups" else "project_type"

    def _shown(self, seat: Seat) -> dict[str, Any]:
        """A runner in GitLab's words."""
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


def invalid(asked: Mapping[str, Any]) -> dict[str, list[str]]:
    """What GitLab's model of a runner would refuse, by attribute."""
    tags = asked.get("tag_list", [])
    found = dict[str, list[str]]()
    if not asked.get("run_untagged", True) and not tags:
        found["tags_list"] = ["can not be empty when runner is not allowed to pick untagged jobs"]
    if len(tags) > MOST_TAGS:
        found["tags_list"] = [
            f"Too many tags specified. Please limit the number of tags to {MOST_TAGS}"
        ]
    if any(len(tag) > TAG_LENGTH for tag in tags):
        found["tags"] = [f"is too long (maximum is {TAG_LENGTH} characters)"]
    for text in ("description", "maintenance_note"):
        if len(asked.get(text) or "") > TEXT_LENGTH:
            found[text] = [f"is too long (maximum is {TEXT_LENGTH} characters)"]
    longest = asked.get("maximum_timeout")
    if longest is not None and longest < SHORTEST_JOB:
        found["maximum_timeout"] = ["needs to be at least 10 minutes"]
    return found


def paged(items: Sequence[object]) -> Response:
    """The page that was asked for. The link's host is GitLab's own idea of itself, which may be
    another than the one that was asked."""
    size = min(int(request.args.get("per_page", 20)), MOST_OF_A_PAGE)
    page = int(request.args.get("page", 1))
    answer = Response(
        json.dumps(items[(page - 1) * size : page * size]), content_type="application/json"
    )
    answer.headers["X-Per-Page"] = str(size)
    answer.headers["X-Page"] = str(page)
    if page * size < len(items):
        answer.headers["X-Next-Page"] = str(page + 1)
        answer.headers["Link"] = (
            f'<http://internal.test{request.path}?per_page={size}&page={page + 1}>; rel="next"'
        )
    return answer


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds or time.time(), UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
