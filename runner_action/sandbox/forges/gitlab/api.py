"""A GitLab over HTTP with one project, in a group or in nested ones: runners, the jobs of
pipelines, the API of gitlab-runner, and its downloads.

The tests check every response of its REST API against GitLab's own API description. Scopes, roles
and refusals are as in GitLab's documentation. It may be served below a path (`prefix`), as some
self-managed instances are.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flask import Flask, request

from runner_action.sandbox.forges.gitlab import pipelines, releases, rules
from runner_action.sandbox.forges.gitlab.releases import VERSION, program_of
from runner_action.sandbox.forges.gitlab.rest import at, invalid, paged, status_of
from runner_action.sandbox.forges.gitlab.tree import PROJECT, PROJECT_ID, Place, Tree
from runner_action.sandbox.forges.gitlab.variables import Project
from runner_action.sandbox.forges.jobs import Seat
from runner_action.sandbox.forges.memory import Forge
from runner_action.sandbox.served import Served

READ_RUNNERS = ("api", "read_api", "manage_runner")
BOT = re.compile(r"(project|group)_\d+_bot_")


class FakeGitLab(Served):
    """`tokens`: each accepted token, and its scopes. `shared`: ids of the instance's own runners,
    which are on every list. `project`: its path, from the outermost group on. `rules`: what is
    refused."""

    def __init__(
        self,
        tokens: Mapping[str, Sequence[str]],
        prefix: str = "",
        version: str = VERSION,
        tls: tuple[str, str] | None = None,
        host: str = "127.0.0.1",
        project: str = PROJECT,
    ) -> None:
        self.tokens = tokens
        self.prefix = prefix
        self.version = version
        self.rules = rules.Rules()
        self.tree = Tree(project)
        self.users: dict[str, str] = {}
        """The user of a token, if that is not a project's bot."""
        self.forge = Forge()
        self.places: dict[int, Place] = {}
        self.shared: set[int] = set()
        self.longest: dict[int, int] = {}
        self.levels: dict[int, str] = {}
        """The `access_level` of runners that have one."""
        self.protected = True
        """Whether the branch of the pipelines is protected."""
        self.registration_tokens = {
            kind: self.forge.new_token(kind) for kind in ("projects", "groups")
        }
        self.poll = 2.0
        """Seconds for which a request for a job is held; GitLab holds it for 50."""
        self.program = program_of(VERSION)
        self.sha256 = hashlib.sha256(self.program).hexdigest()
        app = Flask("gitlab")
        self.jobs = pipelines.Jobs(self.forge, self.tree.ids, lambda: self.project)
        self.jobs.tells_status = lambda: self.at_least(rules.STATUS_SINCE)
        self.jobs.graceful = lambda: self.at_least(rules.GRACEFUL_SINCE)
        self.jobs.may_force = lambda: self.rules.role(self._sent) >= rules.MAINTAINER
        self._routes(app)
        super().__init__(app, f"{prefix}/api/v4", tls, host)
        self.server_url = f"{self.url}{prefix}"
        self.repo_url = f"{self.server_url}/{project}"
        self.group_url = f"{self.server_url}/{self.tree.groups[0]}"
        self.downloads = f"{self.url}/runner-downloads"

    @property
    def project(self) -> Project:
        return Project(self.server_url, PROJECT_ID, self.tree.project, self.protected)

    def at_least(self, version: rules.Version) -> bool:
        return rules.numbers(self.version) >= version

    # --- routes

    def _routes(self, app: Flask) -> None:
        api = f"{self.prefix}/api/v4"
        for method, path, view, scopes in self._for_users():
            app.add_url_rule(
                api + path,
                f"{method} {path}",
                self._guarded(view, scopes, f"{method} {path}"),
                methods=[method],
            )
        with_runner_token: list[tuple[str, str, Callable[..., Any]]] = [
            ("POST", "/runners", self._register),
            ("DELETE", "/runners", self._leave),
            ("POST", "/runners/verify", self._verify),
            (
                "POST",
                "/jobs/request",
                lambda: self.jobs.ask(self.poll, self.longest, self._may_take),
            ),
            *self.jobs.for_runners(),
        ]
        for method, path, view in with_runner_token:
            app.add_url_rule(
                api + path,
                f"{method} {path}",
                lambda view=view, **arguments: self.fault() or view(**arguments),
                methods=[method],
            )
        releases.routes(app, lambda: (self.program, self.sha256))

    def _for_users(self) -> list[pipelines.Route]:
        read = ("api", "read_api")
        return [
            ("GET", "/version", self._version, (*read, "read_user")),
            ("GET", "/personal_access_tokens/self", self._token, ()),
            ("GET", "/user", self._user, (*read, "read_user")),
            ("GET", "/projects/<path:place>", self._place, read),
            ("GET", "/groups/<path:place>", self._place, read),
            ("GET", "/projects/<path:place>/runners", self._list, read),
            ("GET", "/groups/<path:place>/runners", self._list, read),
            ("POST", "/user/runners", self._create, ("api", "create_runner")),
            ("GET", "/runners/<int:number>", self._one, READ_RUNNERS),
            ("PUT", "/runners/<int:number>", self._change, ("api", "manage_runner")),
            ("GET", "/runners/<int:number>/jobs", self._running, READ_RUNNERS),
            ("DELETE", "/runners/<int:number>", self._delete, ("api", "manage_runner")),
            *self.jobs.for_users(),
        ]

    def _guarded(
        self, view: Callable[..., Any], scopes: tuple[str, ...], call: str
    ) -> Callable[..., Any]:
        """The view, after the faults and the checks of token and scope."""

        def guarded(**arguments: Any) -> Any:
            if failing := self.fault():
                return failing
            version = rules.numbers(self.version)
            if refused := self.rules.refuse(self._sent, request.method, call, version):
                return refused
            if self._sent not in self.tokens:
                return {"message": "401 Unauthorized"}, 401
            if scopes and not set(scopes).intersection(self._scopes()):
                if rules.GRANULAR in self._scopes():
                    return rules.NOT_IN_GRANULAR, 403
                return {**rules.NEVER_A_USER, "scope": " ".join(scopes)}, 403
            response = view(**arguments)
            return self.fault(late=True) or response

        return guarded

    # --- for users

    @property
    def _sent(self) -> str:
        return request.headers.get("PRIVATE-TOKEN", "")

    def _scopes(self) -> list[str]:
        return rules.held(self.tokens[self._sent], rules.numbers(self.version))

    def _sees(self, path: str) -> bool:
        within = self.rules.within.get(self._sent, path)
        return path == within or self.tree.is_in(path, within)

    def _version(self) -> Any:
        return {"version": self.version, "revision": "0"}

    def _token(self) -> Any:
        if {rules.GRANULAR, "read_user"} - {*self._scopes()} == {"read_user"}:
            return rules.NOT_IN_GRANULAR, 403
        return {
            "id": 1,
            "name": "cml",
            "revoked": False,
            "created_at": at(0),
            **rules.shown(self._scopes()),
            "user_id": 1,
            "active": True,
            "expires_at": None,
        }

    def _user(self) -> Any:
        """The token's user; for the token of a project or a group, a bot with a generated name."""
        name = self.users.get(self._sent, "project_1_bot_0123456789abcdef")
        return {
            "id": 1,
            "username": name,
            "name": name,
            "state": "active",
            "bot": bool(BOT.match(name)),
        }

    def _kind(self) -> str:
        return request.path.removeprefix(f"{self.prefix}/api/v4/").partition("/")[0]

    def _here(self, place: str) -> Place | None:
        """The project or group of the call; None if the token does not see it."""
        kind = self._kind()
        number = self.tree.ids.get((kind, place))
        if number is None or not self._sees(self.tree.paths[kind, number]):
            return None
        return kind, number

    def _nowhere(self) -> Any:
        return {"message": f"404 {self._kind().title()[:-1]} Not Found"}, 404

    def _place(self, place: str) -> Any:
        here = self._here(place)
        if here is None:
            return self._nowhere()
        kind, number = here
        path = self.tree.paths[here]
        entry: dict[str, Any] = {
            "id": number,
            "name": path.rpartition("/")[2],
            "path": path.rpartition("/")[2],
            "web_url": f"{self.server_url}/{path}",
        }
        if kind == "projects":
            entry["path_with_namespace"] = path
            entry["build_timeout"] = self.rules.build_timeout
            role = {"access_level": self.rules.role(self._sent), "notification_level": 3}
            entry["permissions"] = {"project_access": role, "group_access": None}
        if "api" in self._scopes():
            entry["runners_token"] = self.registration_tokens[kind]
        return entry

    def _list(self, place: str) -> Any:
        here = self._here(place)
        if here is None:
            return self._nowhere()
        if self.rules.role(self._sent) < rules.MAINTAINER:
            return {"message": "403 Forbidden"}, 403
        # In GitLab's order, newest first; the list also has the runners of the groups around it.
        # https://docs.gitlab.com/api/runners/#list-projects-runners
        around = self.tree.around(here)
        seats = [
            seat
            for seat in reversed(self.forge.seats())
            if seat.id in self.shared or self._place_of(seat) in around
        ]
        return paged([self._shown(seat) for seat in seats])

    def _place_of(self, seat: Seat) -> Place:
        return self.places.get(seat.id, ("projects", PROJECT_ID))

    def _create(self) -> Any:
        """https://docs.gitlab.com/api/users/#create-a-runner"""
        body = request.get_json()
        key = {"project_type": "project_id", "group_type": "group_id"}.get(body["runner_type"], "")
        place = ("projects" if key == "project_id" else "groups", body.get(key))
        if place not in self.tree.paths:
            return {"error": f"{key} is missing or unknown"}, 400
        there = sum(self._place_of(seat) == place for seat in self.forge.seats())
        refused = self.rules.refuse_creation(self._sent, place[0], there)
        return refused or self._created(body, place)

    def _created(self, body: Mapping[str, Any], place: Place) -> Any:
        """Registers a runner of a project or group. Returns its id and token, or a refusal."""
        if problems := invalid(body):
            return {"message": problems}, 400
        seat = self.forge.seat(
            body.get("description", ""),
            body.get("tag_list", []),
            ephemeral=False,
            untagged=body.get("run_untagged", True),
        )
        # gitlab-runner shows the first characters of a token.
        seat.secret = f"glrt-{seat.secret[:12]}-canary-{seat.secret[12:]}"
        self.places[seat.id] = place
        if longest := body.get("maximum_timeout"):
            self.longest[seat.id] = longest
        self.levels[seat.id] = body.get("access_level", "not_protected")
        return {"id": seat.id, "token": seat.secret, "token_expires_at": None}, 201

    def _refused(self, number: int) -> Any:
        """The refusal of a call about one runner; None if it may be made."""
        seat = self.forge.by_id(number)
        if seat is None:
            return {"message": "404 Runner Not Found"}, 404
        path = self.tree.paths[self._place_of(seat)]
        role = self.rules.role(self._sent)
        if number in self.shared or role < rules.MAINTAINER or not self._sees(path):
            return {"message": "403 Forbidden - No access granted"}, 403
        return None

    def _one(self, number: int) -> Any:
        seat = self.forge.by_id(number)
        if seat is None or self._refused(number):
            return self._refused(number)
        kind, place = self._place_of(seat)
        path = self.tree.paths[kind, place]
        owner = {"id": place, "name": path, "web_url": f"{self.server_url}/{path}"}
        more = {
            "tag_list": sorted(seat.labels),
            "run_untagged": seat.untagged,
            "maintenance_note": seat.note or None,
            "access_level": self.levels.get(number, "not_protected"),
            "projects": [owner] if kind == "projects" else [],
            "groups": [owner] if kind == "groups" else [],
        }
        return {**self._shown(seat), **more, "maximum_timeout": self.longest.get(number)}

    def _change(self, number: int) -> Any:
        seat = self.forge.by_id(number)
        if seat is None or self._refused(number):
            return self._refused(number)
        body = request.get_json()
        if problems := invalid({"run_untagged": True, **body}):
            return {"message": problems}, 400
        seat.note = body.get("maintenance_note", seat.note)
        seat.paused = body.get("paused", seat.paused)
        return self._one(number)

    def _running(self, number: int) -> Any:
        seat = self.forge.by_id(number)
        if seat is None or self._refused(number):
            return self._refused(number)
        if seat.job is None:
            return paged([])
        return paged([{"id": seat.job.id, "status": "running", "name": seat.job.name}])

    def _delete(self, number: int) -> Any:
        if refused := self._refused(number):
            return refused
        self.forge.remove(number, force=True)
        return "", 204

    # --- for machines

    def _register(self) -> Any:
        """Registers with a registration token: removed in 18.0, unless an administrator keeps
        it."""
        body = request.get_json()
        for kind, token in self.registration_tokens.items():
            if token == body["token"]:
                if self.at_least(rules.REGISTRATION_TOKENS_END):
                    return {"message": "410 Gone"}, 410
                return self._created(
                    body, next(place for place in self.tree.paths if place[0] == kind)
                )
        return {"message": "403 Forbidden - invalid token supplied"}, 403

    def _seat_of_token(self) -> Seat | None:
        token = (request.get_json(silent=True) or request.args).get("token")
        return next((seat for seat in self.forge.seats() if seat.secret == token), None)

    def _may_take(self, seat: Seat) -> bool:
        """A protected runner gets only jobs of protected branches and tags.
        https://docs.gitlab.com/ci/runners/configure_runners/#prevent-runners-from-revealing-sensitive-information"""
        return self.protected or self.levels.get(seat.id) != "ref_protected"

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

    def _type(self, seat: Seat) -> str:
        if seat.id in self.shared:
            return "instance_type"
        return "group_type" if self._place_of(seat)[0] == "groups" else "project_type"

    def _shown(self, seat: Seat) -> dict[str, Any]:
        """A runner as GitLab's API returns it."""
        entry = {
            "id": seat.id,
            "description": seat.name,
            "ip_address": "127.0.0.1",
            "active": not seat.paused,
            "paused": seat.paused,
            "is_shared": seat.id in self.shared,
            "runner_type": self._type(seat),
            "name": "gitlab-runner" if seat.online else None,
            "online": seat.online,
            "created_at": at(0),
            "status": status_of(seat),
        }
        if self.at_least(rules.EXECUTION_SINCE):
            entry["job_execution_status"] = "active" if seat.job else "idle"
        return entry
