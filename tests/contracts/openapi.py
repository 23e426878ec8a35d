"""The forges' own API descriptions as judges: every request of ours and every answer of our
fakes must fit them.

GitHub's comes from npm (`@octokit/openapi`, installed by `make test`); where npm is missing the
tests are skipped, and say so, and in CI they fail. GitLab's is in no package: it stands in
`tests/descriptions`.
"""

from __future__ import annotations

import io
import json
import os
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, cast
from urllib.response import addinfourl

import requests
from openapi_core import OpenAPI
from openapi_core.contrib.requests import RequestsOpenAPIRequest, RequestsOpenAPIResponse
from requests.structures import CaseInsensitiveDict

from runner_action.agent import forge
from tests.descriptions import described
from tests.judges import missing

FOLDER = Path(__file__).parents[1] / "node_modules" / "@octokit" / "openapi" / "generated"


def description(name: str, *paths: str) -> dict[str, Any]:
    """GitHub's description of that name, as far as these paths go."""
    file = FOLDER / f"{name}.json"
    if not file.exists():
        judge = "GitHub's API description is missing; `npm ci --prefix tests` installs it"
        assert not os.environ.get("CI"), judge
        missing(judge)
    return trimmed(json.loads(file.read_text("utf-8")), *paths)


def gitlab_description() -> dict[str, Any]:
    whole = described("gitlab-openapi-v3-corrected.json")
    # Grape calls a string what it has no type for; ids of groups are numbers:
    # https://docs.gitlab.com/api/groups/#get-a-single-group
    for group in ("API_Entities_GroupDetail", "API_Entities_BasicGroupDetails"):
        whole["components"]["schemas"][group]["properties"]["id"] = {"type": "integer"}
    # A role is a number, and a user may have none:
    # https://docs.gitlab.com/api/projects/#get-a-single-project
    for access in ("API_Entities_ProjectAccess", "API_Entities_GroupAccess"):
        schema = whole["components"]["schemas"][access]
        schema["nullable"] = True
        schema["properties"] = {name: {"type": "integer"} for name in schema["properties"]}
    # A project is its number or its path everywhere, be it said or not:
    # https://docs.gitlab.com/api/jobs/#get-a-single-job
    for path, entry in whole["paths"].items():
        for parameter in [
            one
            for operation in entry.values()
            for one in operation.get("parameters", ())
            if "/projects/{id}" in path
        ]:
            if (parameter["in"], parameter["name"]) == ("path", "id"):
                parameter["schema"] = {"type": "string"}
    # gitlab-runner itself sends this token in the body (UnregisterRunnerRequest of its
    # network/gitlab.go), where no log of addresses has it.
    leaving = whole["paths"]["/api/v4/runners"]["delete"]
    (token,) = leaving.pop("parameters")
    schema = {"type": "object", "properties": {"token": token["schema"]}, "required": ["token"]}
    leaving["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    whole["paths"] = {path.removeprefix("/api/v4"): entry for path, entry in whole["paths"].items()}
    return trimmed(
        whole,
        "/runners",
        "/jobs",
        "/version",
        "/personal_access_tokens/self",
        "/projects/{id}",
        "/groups/{id}",
    )


def gitlab_judge(base: str, undeclared: tuple[int, ...] = (401, 404)) -> Contract:
    """For the GitLab at that address."""
    return Contract(gitlab_description(), f"{base}/api/v4", undeclared)


def trimmed(whole: dict[str, Any], *paths: str) -> dict[str, Any]:
    """The paths that hold one of `paths`, and what these refer to."""
    chosen = {
        path: entry for path, entry in whole["paths"].items() if any(part in path for part in paths)
    }
    kept: dict[str, Any] = {
        "openapi": whole["openapi"],
        "info": whole["info"],
        "paths": chosen,
        "components": {},
    }
    todo, seen = list(_references(chosen)), set()
    while todo:
        reference = todo.pop()
        if reference in seen:
            continue
        seen.add(reference)
        _, kind, group, key = reference.split("/")
        found = rewritten(whole[kind][group][key], nullable)
        kept["components"].setdefault(group, {})[key] = found
        todo += _references(found)
    return kept


def rewritten(node: Any, change: Callable[[dict[str, Any]], None]) -> Any:
    """A copy of a schema with `change` made to each part of it."""
    if isinstance(node, list):
        return [rewritten(value, change) for value in node]
    if not isinstance(node, dict):
        return node
    made = {key: rewritten(value, change) for key, value in node.items()}
    change(made)
    return made


def nullable(part: dict[str, Any]) -> None:
    """A word that may be null has null among its values: GitHub forgets it."""
    if (
        part.get("nullable") is True
        and isinstance(part.get("enum"), list)
        and None not in part["enum"]
    ):
        part["enum"] = [*part["enum"], None]


def closed(part: dict[str, Any]) -> None:
    """Fields are refused that the schema does not name: a request must not hold words of our
    own."""
    if (
        part.get("type") == "object"
        and part.get("properties")
        and "additionalProperties" not in part
    ):
        part["additionalProperties"] = False


def _references(node: object) -> Iterator[str]:
    if isinstance(node, list):
        node = dict(enumerate(node))
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "$ref" and isinstance(value, str):
                yield value
            else:
                yield from _references(value)


class Contract:
    """While entered, every call below `base` and its answer is checked, be it made with requests
    or with urllib. `undeclared`: statuses GitHub sends but does not describe."""

    def __init__(
        self, document: dict[str, Any], base: str, undeclared: tuple[int, ...] = ()
    ) -> None:
        for entry in document["paths"].values():
            for operation in entry.values():
                if isinstance(operation, dict) and "requestBody" in operation:
                    operation["requestBody"] = rewritten(operation["requestBody"], closed)
        self._api = OpenAPI.from_dict(cast("Any", {**document, "servers": [{"url": base}]}))
        self._base, self._undeclared = base, undeclared
        self.seen: list[str] = []
        self._listening = Listening(self)

    def concerns(self, url: str | None) -> bool:
        return (url or "").startswith(self._base)

    def judge(self, asked: requests.PreparedRequest, answer: requests.Response) -> None:
        request = RequestsOpenAPIRequest(asked)
        self._api.validate_request(request)
        if answer.status_code not in self._undeclared:
            self._api.validate_response(request, RequestsOpenAPIResponse(answer))
        self.seen.append(f"{asked.method} {answer.status_code}")

    def __enter__(self) -> Contract:
        plain = self._plain = requests.Session.send

        def send(
            session: requests.Session, asked: requests.PreparedRequest, **more: Any
        ) -> requests.Response:
            answer = plain(session, asked, **more)
            if self.concerns(asked.url):
                self.judge(asked, answer)
            return answer

        requests.Session.send = send  # type: ignore[method-assign,assignment]
        urllib.request.install_opener(urllib.request.build_opener(Listening(self)))
        forge.OPENER.add_handler(self._listening)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        requests.Session.send = self._plain  # type: ignore[method-assign]
        urllib.request.install_opener(urllib.request.build_opener())
        for chain in (forge.OPENER.process_response["http"], forge.OPENER.handlers):  # type: ignore[attr-defined]
            chain.remove(self._listening)


class Listening(urllib.request.BaseHandler):
    """What the agent says goes by the judge too; it has no library but urllib."""

    def __init__(self, contract: Contract) -> None:
        self._contract = contract

    def http_response(self, asked: urllib.request.Request, answer: Any) -> Any:
        if not self._contract.concerns(asked.full_url):
            return answer
        with answer:
            body = answer.read()
        told = requests.Response()
        told.status_code = answer.status
        told._content = body
        told.headers = CaseInsensitiveDict(answer.headers)
        self._contract.judge(
            requests.Request(
                asked.get_method(), asked.full_url, asked.headers, data=asked.data
            ).prepare(),
            told,
        )
        again = addinfourl(io.BytesIO(body), answer.headers, asked.full_url, answer.status)
        again.msg = answer.reason  # type: ignore[attr-defined]  # which urllib itself reads
        return again
