"""A GitHub with one repository, its organization and enterprise, over HTTP: runners, tokens,
just-in-time configurations, downloads, and a queue of jobs.

Its REST API is below `/api/v3`, as on an Enterprise Server; tests check it against GitHub's API
description. The protocol between the real service and its runner is private, so `/_runner` and
`runner_standin` use one of their own.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from flask import Flask, Response, abort, redirect, request

from runner_action.bundle import bundle
from runner_action.sandbox.forges.github import jit as github_jit
from runner_action.sandbox.forges.github import pools, reruns, runs
from runner_action.sandbox.forges.github.access import SCOPES, refusal
from runner_action.sandbox.forges.github.answers import labels_of, refused, shown
from runner_action.sandbox.forges.github.app import FakeApp
from runner_action.sandbox.forges.github.archive import VERSION, tarball
from runner_action.sandbox.forges.github.releases import downloads, release
from runner_action.sandbox.forges.github.rules import JIT, LABELS, checked
from runner_action.sandbox.forges.jobs import Refusal, Seat
from runner_action.sandbox.forges.memory import Forge
from runner_action.sandbox.served import Served

JOINING_SECONDS = 3600.0
"""Seconds for which a token to register or remove runners is valid.
https://docs.github.com/en/rest/actions/self-hosted-runners"""
ID_TOKEN_REQUEST_TOKEN = "canary-request-token"
"""With it a job that has `permissions: id-token: write` requests id tokens."""


class FakeGitHub(Served):
    """`tokens`: each accepted token, and its kind: `admin`, `readonly`, `job` (the job's own),
    `actions` (that with `actions: write` and `checks: read`), or `scopes:` and the scopes of a
    classic token. `jit`: whether it supports just-in-time configurations, which older Enterprise
    Servers do not."""

    def __init__(
        self,
        tokens: Mapping[str, str],
        repository: str = "octo/train",
        host: str = "127.0.0.1",
        tls: tuple[str, str] | None = None,
        *,
        jit: bool = True,
    ) -> None:
        self.tokens = tokens
        self.repository = repository
        self._has_jit = jit
        self.organisation = repository.partition("/")[0]
        self.enterprise = "acme"
        self.groups = {"Default": 1, "gpu": 7}
        """Names and ids of the runner groups of organisation and enterprise."""
        self.github_app = FakeApp({f"repos/{repository}", f"orgs/{self.organisation}"})
        self.forge = Forge()
        self._labelling = threading.Lock()
        self.joining_lasts = JOINING_SECONDS
        self.admin_flow = True
        """GitHub's own API manages the runners; else the service behind it, which has pools."""
        self.id_tokens: dict[str, str] = {}
        """Each id token, and the audience that it was requested for."""
        self.released = {
            VERSION: "2026-11-20T12:00:00Z",
            "2.335.0": "2026-11-10T12:00:00Z",
            "2.330.0": "2026-02-01T12:00:00Z",
        }
        """When the versions of the runner program were released. All are the same program."""
        self._archive = tarball()
        self.assets = {bundle().name: bundle().content}
        """The assets of the release of cml-runner at `agent_downloads`, by name."""
        app = Flask("github")
        self._routes(app)
        super().__init__(app, "/api/v3", tls, host)
        self.repo_url = f"{self.url}/{self.repository}"
        self.agent_downloads = f"{self.url}/octo/cml-runner/releases/download/v1.2.3"
        self.organisation_url = f"{self.url}/{self.organisation}"
        self.enterprise_url = f"{self.url}/enterprises/{self.enterprise}"

    # --- routes

    def _routes(self, app: Flask) -> None:
        self._runner_routes(app)
        self._download_routes(app)
        self._private_routes(app)
        for path, view in (
            ("/", lambda: {"repository_url": f"{self.url}/api/v3/repos"}),
            ("/repos/actions/runner/releases/tags/<tag>", self._release),
        ):
            app.add_url_rule(f"/api/v3{path}", path, self._guarded(view))
        for method, path, view in self.github_app.routes():
            app.add_url_rule(
                f"/api/v3{path}", f"{method} {path}", self._faulty(view), methods=[method]
            )
        for method, path, view in (*runs.routes(self.forge), *reruns.routes(self.forge)):
            app.add_url_rule(path, f"{method} {path}", self._guarded(view), methods=[method])
        app.add_url_rule("/id-token", "id-token", self._id_token)

    def _runner_routes(self, app: Flask) -> None:
        """GitHub's API for runners."""
        public: list[tuple[str, str, Callable[..., Any]]] = [
            ("GET", "", self._list),
            ("GET", "/downloads", self._downloads),
            ("POST", "/registration-token", lambda: self._joining("register")),
            ("POST", "/remove-token", lambda: self._joining("remove")),
            ("POST", "/generate-jitconfig", checked(self._jit, JIT)),
            ("GET", "/<int:runner_id>", self._one),
            ("DELETE", "/<int:runner_id>", self._delete),
            ("POST", "/<int:runner_id>/labels", checked(self._add_labels, LABELS)),
            ("DELETE", "/<int:runner_id>/labels/<label>", self._remove_label),
        ]
        for root in ("repos/<owner>/<name>", "orgs/<owner>", "enterprises/<owner>"):
            for method, path, view in public:
                whole = f"/api/v3/{root}/actions/runners{path}"
                app.add_url_rule(whole, f"{method} {whole}", self._guarded(view), methods=[method])
            if not root.startswith("repos/"):
                whole = f"/api/v3/{root}/actions/runner-groups"
                app.add_url_rule(whole, whole, self._guarded(self._groups))

    def _download_routes(self, app: Flask) -> None:
        """Downloads of actions/runner, and of the agent."""
        app.add_url_rule(
            "/actions/runner/releases/download/v<version>/<name>", "download", self._redirected
        )
        app.add_url_rule("/release-assets/<version>/<name>", "asset", self._download)
        app.add_url_rule(
            "/octo/cml-runner/releases/download/<tag>/<name>", "agent", self._faulty(self._agent)
        )
        app.add_url_rule(
            "/release-assets/<name>",
            "agent-asset",
            self._faulty(lambda name: Response(self.assets[name])),
        )

    def _private_routes(self, app: Flask) -> None:
        """What actions/runner calls, and the API of the stand-in."""
        app.add_url_rule(
            "/api/v3/actions/runner-registration",
            "registration",
            self._faulty(self._registration),
            methods=["POST"],
        )
        whole = "/tenant/_apis/distributedtask/pools/<int:pool>/agents/<int:runner_id>"
        app.add_url_rule(whole, "pool", self._faulty(self._delete_from_pool), methods=["DELETE"])
        for verb in ("open", "poll", "watch", "completed", "close"):
            app.add_url_rule(
                f"/_runner/{verb}",
                verb,
                self._runner_side,
                methods=["POST"],
                defaults={"verb": verb},
            )

    def _guarded(self, view: Callable[..., Any]) -> Callable[..., Any]:
        """The view, after the faults and the checks of token and owner."""

        def guarded(**arguments: Any) -> Any:
            scheme, _, token = request.headers.get("Authorization", "").partition(" ")
            if scheme == "RemoteAuth":
                return self.app.make_response(view(**self._by_removal_token(token, arguments)))
            kind = "app" if self.github_app.knows(token) else self.tokens.get(token)
            if kind is None:
                return refused(401, "Bad credentials")
            # A path without an owner, such as that of actions/runner itself, is open to all.
            owned = bool(arguments.pop("owner", None))
            arguments.pop("name", None)
            if owned and (error := refusal(kind, self._root, self.github_app, self._roots)):
                return error
            response = self.app.make_response(view(**arguments))
            if request.method == "GET" and response.status_code == 200:
                response.add_etag()
                response.make_conditional(request)
            if kind.startswith("scopes:"):
                needed = SCOPES.get(self._root.partition("/")[0], "")
                response.headers["X-OAuth-Scopes"] = kind.removeprefix("scopes:")
                response.headers["X-Accepted-OAuth-Scopes"] = needed
            return response

        return self._faulty(guarded)

    def _by_removal_token(self, token: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments for a view that a removal token may call: it deletes runners of its own
        owner, and nothing else. Aborts with 401."""
        if (
            not self.admin_flow
            or request.method != "DELETE"
            or "runner_id" not in arguments
            or self.forge.owner_of(token, "remove") != self._root
        ):
            abort(self.app.make_response(refused(401, "Bad credentials")))
        return {"runner_id": arguments["runner_id"]}

    def _faulty(self, view: Callable[..., Any]) -> Callable[..., Any]:
        def faulty(**arguments: Any) -> Any:
            if failing := self.fault():
                return failing
            response = view(**arguments)
            return self.fault(late=True) or response

        return faulty

    @property
    def _roots(self) -> Sequence[str]:
        """All owners of runners."""
        return (
            f"repos/{self.repository}",
            f"orgs/{self.organisation}",
            f"enterprises/{self.enterprise}",
        )

    @property
    def _root(self) -> str:
        """The owner of the runners in a request, such as `orgs/octo`."""
        path = request.path.removeprefix("/api/v3/")
        return path.partition("/actions")[0].partition("/check-runs")[0]

    # --- GitHub's REST API

    def _list(self) -> Any:
        seats = [
            seat
            for seat in self.forge.seats()
            if request.args.get("name") in (None, seat.name) and self._owns(seat)
        ]
        return runs.paged("runners", [shown(seat) for seat in seats])

    def _owns(self, seat: Seat) -> bool:
        return self._owner(seat.owner) == self._root

    def _owner(self, owner: str) -> str:
        """The full name of an owner as in `Seat`."""
        return owner or f"repos/{self.repository}"

    def _joining(self, kind: str) -> Any:
        token = self.forge.new_token(kind, self._root, self.joining_lasts)
        end = datetime.fromtimestamp(time.time() + self.joining_lasts, UTC)
        return {"token": token, "expires_at": end.strftime("%Y-%m-%dT%H:%M:%S.000Z")}, 201

    def _groups(self) -> Any:
        common = {
            "visibility": "all",
            "inherited": False,
            "allows_public_repositories": False,
            "runners_url": f"{request.base_url}/1/runners",
        }
        return runs.paged(
            "runner_groups",
            [
                {"id": number, "name": name, "default": number == 1, **common}
                for name, number in self.groups.items()
            ],
        )

    def _downloads(self) -> Any:
        return downloads(self.url, self._archive.sha256)

    def _jit(self) -> Any:
        body = request.get_json()
        if not self._has_jit:
            return refused(404, "Not Found")
        if self.forge.by_name(body["name"]):
            return refused(409, "Already exists - A runner with the name already exists.")
        if body["runner_group_id"] not in self.groups.values():
            return refused(404, "Not Found")
        seat = self.forge.seat(
            body["name"],
            body["labels"],
            ephemeral=True,
            owner=self._root,
            group=body["runner_group_id"],
        )
        url = f"{self.url}/{self._root.removeprefix('repos/').removeprefix('orgs/')}"
        config, seat.secret = github_jit.encoded(
            seat.id, seat.name, self.url, url, body.get("work_folder", "_work")
        )
        return {"runner": shown(seat), "encoded_jit_config": config}, 201

    def _seat(self, runner_id: int) -> Seat | None:
        """The runner, if it is of the owner in the request."""
        seat = self.forge.by_id(runner_id)
        return seat if seat and self._owns(seat) else None

    def _one(self, runner_id: int) -> Any:
        seat = self._seat(runner_id)
        return shown(seat) if seat else refused(404, "Not Found")

    def _delete(self, runner_id: int) -> Any:
        try:
            gone = self._seat(runner_id) and self.forge.remove(runner_id)
        except Refusal as refusal:
            return refused(422, str(refusal))
        return ("", 204) if gone else refused(404, "Not Found")

    def _add_labels(self, runner_id: int) -> Any:
        seat = self._seat(runner_id)
        if seat is None:
            return refused(404, "Not Found")
        with self._labelling:
            seat.labels = tuple(dict.fromkeys([*seat.labels, *request.get_json()["labels"]]))
            return labels_of(seat)

    def _remove_label(self, runner_id: int, label: str) -> Any:
        seat = self._seat(runner_id)
        if seat is None or label not in seat.labels:
            return refused(404, "Not Found")
        with self._labelling:
            seat.labels = tuple(other for other in seat.labels if other != label)
            return labels_of(seat)

    def _release(self, tag: str) -> Any:
        """A release of actions/runner."""
        version = tag.removeprefix("v")
        if version not in self.released:
            return refused(404, "Not Found")
        return release(self.url, version, self.released[version], self._archive.sha256)

    def _id_token(self) -> Any:
        """https://docs.github.com/actions/reference/security/oidc"""
        if (
            request.headers.get("Authorization") != f"Bearer {ID_TOKEN_REQUEST_TOKEN}"
            or request.args.get("api-version") != "2.0"
        ):
            return refused(401, "Unauthorized")
        token = f"canary-id-token-{secrets.token_urlsafe(20)}"
        self.id_tokens[token] = request.args["audience"]
        return {"count": len(token), "value": token}

    # --- for the stand-in

    def _redirected(self, version: str, name: str) -> Any:
        """The assets of a release are on another host (release-assets.githubusercontent.com), at a
        URL that is valid for a while. Here it is the same host."""
        return redirect(f"/release-assets/{version}/{name}?se={time.time() + JOINING_SECONDS:.0f}")

    def _download(self, version: str, name: str) -> Any:
        if version not in self.released:
            return "", 404
        return Response(self._archive.content, content_type="application/octet-stream")

    def _agent(self, tag: str, name: str) -> Any:
        """An asset of our own release, again by a redirect."""
        if tag != "v1.2.3" or name not in self.assets:
            return "Not Found", 404
        return redirect(f"{self.url}/release-assets/{name}")

    def _registration(self) -> Any:
        """`config.sh` registers or removes a runner, with a token for that and a URL."""
        body = request.get_json()
        token = request.headers.get("Authorization", "").partition(" ")[2]
        token_owner = self.forge.owner_of(token, body["runner_event"])
        if token_owner is None:
            return refused(404, "Not Found")
        owner = self._owner(token_owner)
        if "url" in body and pools.root_of(body["url"]) != owner:
            return refused(404, "Not Found")
        if body["runner_event"] == "remove":
            kind = "nothing" if self.admin_flow else "pools"
            return {
                "url": f"{self.url}/tenant/",
                "token_schema": "OAuthAccessToken",
                "token": self.forge.new_token(kind, owner, 600.0),
                "use_v2_flow": self.admin_flow,
            }
        return pools.register(body, self.forge, owner, self._owner, self.groups)

    def _delete_from_pool(self, pool: int, runner_id: int) -> Any:
        status, error = pools.delete(
            request, self.forge, lambda seat: self._owner(seat.owner), pool, runner_id
        )
        return refused(status, error) if error else ""

    def _runner_side(self, verb: str) -> Any:
        body = request.get_json()
        seat = self.forge.by_id(body["id"])
        if seat is None or seat.secret != body["secret"]:
            return refused(401, "The runner no longer exists.")
        seat.heard = time.monotonic()
        if verb == "watch":
            return {"cancelled": seat.job is not None and seat.job.cancelled}
        if verb == "poll":
            job = self.forge.next_job(seat, wait=2)
            if job is None:
                return {"job": None}
            return {"job": {**job.for_runner(self.repository), "server_url": self.url}}
        if verb == "completed":
            notes = [(title, text) for title, text in body["notes"]]
            self.forge.complete(seat, body["conclusion"], notes)
        if verb in ("open", "close"):
            self.forge.set_online(seat, verb == "open")
        return {}
