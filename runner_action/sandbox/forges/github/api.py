"""A GitHub with one repository, its organisation and enterprise, over HTTP: runners, tokens,
just-in-time configuration, downloads, and a queue of jobs.

REST below `/api/v3` as an Enterprise Server has it, in GitHub's own words (held against its API
description by the tests). What the real service and its runner say to each other is private;
`/_runner` and `runner_standin` speak a language of their own.
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
from runner_action.sandbox.forges.github import pools, runs
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
"""How long a token to register or remove runners is good.
https://docs.github.com/en/rest/actions/self-hosted-runners"""
ASKING = "canary-request-token"
"""By which a job with `permissions: id-token: write` asks for id tokens."""


class FakeGitHub(Served):
    """`tokens`: accepted token -> `admin`, `readonly`, `job` (the job's own) or `scopes:` and
    those of a classic one. `jit`: whether it has just-in-time configurations, as Enterprise
    Servers had not always."""

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
        # runners are administered by GitHub's own API; else by the service behind it, which has
        # pools
        self.admin_flow = True
        self.id_tokens: dict[str, str] = {}
        """Each, and the audience it was asked for."""
        self.released = {
            VERSION: "2026-11-20T12:00:00Z",
            "2.335.0": "2026-11-10T12:00:00Z",
            "2.330.0": "2026-02-01T12:00:00Z",
        }
        """When versions of the runner program were. They are all the same program."""
        self._archive = tarball()
        self.assets = {bundle().name: bundle().content}
        """Of the release of cml-runner at `agent_downloads`, by name."""
        app = Flask("github")
        self._routes(app)
        super().__init__(app, "/api/v3", tls, host)
        self.repo_url = f"{self.url}/{self.repository}"
        self.agent_downloads = f"{self.url}/octo/cml-runner/releases/download/v1.2.3"
        self.organisation_url = f"{self.url}/{self.organisation}"
        self.enterprise_url = f"{self.url}/enterprises/{self.enterprise}"

    # --- routes

    def _routes(self, app: Flask) -> None:
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
        for path, view in (
            ("/", lambda: {"repository_url": f"{self.url}/api/v3/repos"}),
            ("/repos/actions/runner/releases/tags/<tag>", self._release),
        ):
            app.add_url_rule(f"/api/v3{path}", path, self._guarded(view))
        for method, path, view in self.github_app.routes():
            app.add_url_rule(
                f"/api/v3{path}", f"{method} {path}", self._faulty(view), methods=[method]
            )
        app.add_url_rule("/id-token", "id-token", self._id_token)
        app.add_url_rule(
            "/actions/runner/releases/download/v<version>/<name>", "download", self._elsewhere
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
        app.add_url_rule(
            "/api/v3/actions/runner-registration",
            "registration",
            self._faulty(self._registration),
            methods=["POST"],
        )
        whole = "/tenant/_apis/distributedtask/pools/<int:pool>/agents/<int:runner_id>"
        app.add_url_rule(whole, "pool", self._faulty(self._delete_from_pool), methods=["DELETE"])
        for method, path, view in runs.routes(self.forge):
            app.add_url_rule(path, f"{method} {path}", self._guarded(view), methods=[method])
        for verb in ("open", "poll", "watch", "completed", "close"):
            app.add_url_rule(
                f"/_runner/{verb}",
                verb,
                self._runner_side,
                methods=["POST"],
                defaults={"verb": verb},
            )

    def _guarded(self, view: Callable[..., Any]) -> Callable[..., Any]:
        """The token, the repository and the faults come before every answer."""

        def guarded(**given: Any) -> Any:
            scheme, _, token = request.headers.get("Authorization", "").partition(" ")
            if scheme == "RemoteAuth":
                return self.app.make_response(view(**self._by_removal_token(token, given)))
            kind = "app" if self.github_app.knows(token) else self.tokens.get(token)
            if kind is None:
                return refused(401, "Bad credentials")
            # A path that belongs to nobody, such as that of actions/runner itself, is open to all.
            owned = bool(given.pop("owner", None))
            given.pop("name", None)
            if owned and (told := refusal(kind, self._root, self.github_app, self._places)):
                return told
            answer = self.app.make_response(view(**given))
            if request.method == "GET" and answer.status_code == 200:
                answer.add_etag()
                answer.make_conditional(request)
            if kind.startswith("scopes:"):
                answer.headers.update(
                    {
                        "X-OAuth-Scopes": kind.removeprefix("scopes:"),
                        "X-Accepted-OAuth-Scopes": SCOPES.get(self._root.partition("/")[0], ""),
                    }
                )
            return answer

        return self._faulty(guarded)

    def _by_removal_token(self, token: str, given: dict[str, Any]) -> dict[str, Any]:
        """What is left of the address for a view: such a token takes runners of its own place
        off the list, and does nothing else."""
        if (
            not self.admin_flow
            or request.method != "DELETE"
            or "runner_id" not in given
            or self.forge.owner_of(token, "remove") != self._root
        ):
            abort(self.app.make_response(refused(401, "Bad credentials")))
        return {"runner_id": given["runner_id"]}

    def _faulty(self, view: Callable[..., Any]) -> Callable[..., Any]:
        def faulty(**given: Any) -> Any:
            if failing := self.fault():
                return failing
            answer = view(**given)
            return self.fault(late=True) or answer

        return faulty

    @property
    def _places(self) -> Sequence[str]:
        """Whose runners there can be."""
        return (
            f"repos/{self.repository}",
            f"orgs/{self.organisation}",
            f"enterprises/{self.enterprise}",
        )

    @property
    def _root(self) -> str:
        """Whose runners a request is about, such as `orgs/octo`."""
        return (
            request.path.removeprefix("/api/v3/")
            .partition("/actions")[0]
            .partition("/check-runs")[0]
        )

    # --- GitHub's REST

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
        """In full."""
        return owner or f"repos/{self.repository}"

    def _joining(self, kind: str) -> Any:
        expires = datetime.fromtimestamp(time.time() + self.joining_lasts, UTC).strftime(
            "%Y-%m-%dT%H:%M:%S.000Z"
        )
        return {
            "token": self.forge.new_token(kind, self._root, self.joining_lasts),
            "expires_at": expires,
        }, 201

    def _groups(self) -> Any:
        own = {
            "visibility": "all",
            "inherited": False,
            "allows_public_repositories": False,
            "runners_url": f"{request.base_url}/1/runners",
        }
        return runs.paged(
            "runner_groups",
            [
                {"id": number, "name": name, "default": number == 1, **own}
                for name, number in self.groups.items()
            ],
        )

    def _downloads(self) -> Any:
        return downloads(self.url, self._archive.sha256)

    def _jit(self) -> Any:
        asked = request.get_json()
        if not self._has_jit:
            return refused(404, "Not Found")
        if self.forge.by_name(asked["name"]):
            return refused(409, "Already exists - A runner with the name already exists.")
        if asked["runner_group_id"] not in self.groups.values():
            return refused(404, "Not Found")
        seat = self.forge.seat(
            asked["name"],
            asked["labels"],
            ephemeral=True,
            owner=self._root,
            group=asked["runner_group_id"],
        )
        where = f"{self.url}/{self._root.removeprefix('repos/').removeprefix('orgs/')}"
        whole, seat.secret = github_jit.encoded(
            seat.id, seat.name, self.url, where, asked.get("work_folder", "_work")
        )
        return {"runner": shown(seat), "encoded_jit_config": whole}, 201

    def _seat(self, runner_id: int) -> Seat | None:
        """If it is one of those that the request is about."""
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
        """The project's releases, as far as a launch reads them."""
        version = tag.removeprefix("v")
        if version not in self.released:
            return refused(404, "Not Found")
        return release(self.url, version, self.released[version], self._archive.sha256)

    def _id_token(self) -> Any:
        """https://docs.github.com/actions/reference/security/oidc"""
        if (
            request.headers.get("Authorization") != f"Bearer {ASKING}"
            or request.args.get("api-version") != "2.0"
        ):
            return refused(401, "Unauthorized")
        token = f"canary-id-token-{secrets.token_urlsafe(20)}"
        self.id_tokens[token] = request.args["audience"]
        return {"count": len(token), "value": token}

    # --- for the stand-in

    def _elsewhere(self, version: str, name: str) -> Any:
        """What a release holds lies elsewhere (release-assets.githubusercontent.com), at an
        address that is good for a while. Here it is the same host."""
        return redirect(f"/release-assets/{version}/{name}?se={time.time() + JOINING_SECONDS:.0f}")

    def _download(self, version: str, name: str) -> Any:
        return (
            Response(self._archive.content, content_type="application/octet-stream")
            if version in self.released
            else ("", 404)
        )

    def _agent(self, tag: str, name: str) -> Any:
        """Assets of our own release, which GitHub keeps elsewhere and sends everybody there."""
        return (
            redirect(f"{self.url}/release-assets/{name}")
            if tag == "v1.2.3" and name in self.assets
            else ("Not Found", 404)
        )

    def _registration(self) -> Any:
        """`config.sh` registers and removes with a token that was made for that, at the address
        that it is told."""
        asked = request.get_json()
        token = request.headers.get("Authorization", "").partition(" ")[2]
        given = self.forge.owner_of(token, asked["runner_event"])
        if given is None or ("url" in asked and pools.root_of(asked["url"]) != self._owner(given)):
            return refused(404, "Not Found")
        owner = self._owner(given)
        if asked["runner_event"] == "remove":
            own = self.forge.new_token("nothing" if self.admin_flow else "pools", owner, 600.0)
            return {
                "url": f"{self.url}/tenant/",
                "token_schema": "OAuthAccessToken",
                "token": own,
                "use_v2_flow": self.admin_flow,
            }
        return pools.register(asked, self.forge, owner, self._owner, self.groups)

    def _delete_from_pool(self, pool: int, runner_id: int) -> Any:
        found = pools.delete(
            request, self.forge, lambda seat: self._owner(seat.owner), pool, runner_id
        )
        return refused(*found) if found[1] else ""

    def _runner_side(self, verb: str) -> Any:
        asked = request.get_json()
        seat = self.forge.by_id(asked["id"])
        if seat is None or seat.secret != asked["secret"]:
            return refused(401, "The runner no longer exists.")
        seat.heard = time.monotonic()
        if verb == "watch":
            return {"cancelled": seat.job is not None and seat.job.cancelled}
        if verb == "poll":
            job = self.forge.next_job(seat, wait=2)
            return {
                "job": {**job.for_runner(self.repository), "server_url": self.url} if job else None
            }
        if verb == "completed":
            self.forge.complete(
                seat, asked["conclusion"], [(title, text) for title, text in asked["notes"]]
            )
        if verb in ("open", "close"):
            self.forge.set_online(seat, verb == "open")
        return {}
