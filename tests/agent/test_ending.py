"""A machine deletes itself on Google Cloud and Azure, each way, against services that check what
they are told; how long it tries, and that it says no secret."""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request
from werkzeug.serving import make_server

from runner_action.agent import azure, ending, gcp
from runner_action.agent.gcp import signed
from runner_action.agent.lifecycle import GONE, Phase, State
from runner_action.agent.reasons import Reason
from runner_action.agent.spec import AgentSpec
from runner_action.agent.watchdog import Beat, write_beat
from runner_action.sandbox.machine.metadata import FakeMetadata
from tests.agent.test_spec import SPEC

INSTANCE, RULE = (
    "projects/314/zones/us-east1-b/instances/4000",
    "projects/314/global/firewalls/cml-1-ssh",
)
ABOUT = {
    "instance/zone": "projects/314/zones/us-east1-b",
    "instance/id": "4000",
    "instance/name": "cml-1",
}
OWN = "canary-own-token"
EMAIL = "launcher@octo-train.iam.gserviceaccount.com"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and its public half, as PEM files."""
    folder = tmp_path_factory.mktemp("key")
    make = (
        "openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out key.pem && openssl pkey"
        " -in key.pem -pubout -out public.pem"
    )
    subprocess.run(["sh", "-c", make], cwd=folder, check=True, stderr=subprocess.DEVNULL)
    return folder


def key(pair: Path) -> dict[str, str]:
    return {
        "client_email": EMAIL,
        "private_key_id": "k1",
        "private_key": (pair / "key.pem").read_text(),
    }


class Compute:
    """Takes DELETE with the machine's own token, or one signed with the key. `own`: the status
    for the former; `statuses` come before all others."""

    def __init__(self, pair: Path) -> None:
        self.pair = pair
        self.own = 200
        self.key = 200
        self.statuses: list[int] = []
        self.deleted: list[str] = []
        self.claims: list[dict[str, Any]] = []
        app = Flask("compute")
        app.add_url_rule("/compute/v1/<path:what>", "delete", self._delete, methods=["DELETE"])
        self._server = make_server("127.0.0.1", 0, app, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _status(self, token: str) -> int:
        if self.statuses:
            return self.statuses.pop(0)
        if token == OWN:
            return self.own
        return self.key if self._verified(token) else 401

    def _delete(self, what: str) -> Any:
        kind, _, token = request.headers["Authorization"].partition(" ")
        assert kind == "Bearer"
        status = self._status(token)
        if status == 200:
            self.deleted.append(what)
        return {"error": {"message": "No."}}, status

    def _verified(self, token: str) -> bool:
        head, claims, signature = token.split(".")
        (self.pair / "signature").write_bytes(decoded(signature))
        verify = ["openssl", "dgst", "-sha256", "-verify", "public.pem", "-signature", "signature"]
        done = subprocess.run(
            verify,
            cwd=self.pair,
            input=f"{head}.{claims}".encode(),
            stdout=subprocess.DEVNULL,
            check=False,
        )
        assert json.loads(decoded(head)) == {"alg": "RS256", "typ": "JWT", "kid": "k1"}
        self.claims.append(json.loads(decoded(claims)))
        return done.returncode == 0


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeMetadata]:
    fake = FakeMetadata()
    fake.fate("m1").about.update(ABOUT)
    yield fake
    fake.close()


@pytest.fixture
def compute(pair: Path) -> Iterator[Compute]:
    fake = Compute(pair)
    yield fake
    fake.close()


def own_account(metadata: FakeMetadata) -> None:
    metadata.fate("m1").about["instance/service-accounts/default/token"] = json.dumps(
        {"access_token": OWN, "expires_in": 3000}
    )


def google(metadata: FakeMetadata, **facts: Any) -> str | None:
    """One try. None: it is being deleted."""
    return ending.each(gcp.Deletion(facts, metadata.url("m1"), ending.ask), "delete")


def test_as_its_own_account(metadata: FakeMetadata, compute: Compute) -> None:
    own_account(metadata)
    assert google(metadata, api=compute.url) is None
    assert compute.deleted == [INSTANCE]


def test_with_the_key_it_was_given(metadata: FakeMetadata, compute: Compute, pair: Path) -> None:
    assert google(metadata, api=compute.url, key=key(pair), rule=True) is None
    assert compute.deleted == [RULE, INSTANCE]
    claims = compute.claims[-1]
    assert (claims["iss"], claims["sub"], claims["aud"]) == (
        EMAIL,
        EMAIL,
        "https://compute.googleapis.com/",
    )
    assert abs(claims["iat"] - time.time()) < 30
    assert claims["exp"] - claims["iat"] <= 3600


@pytest.mark.parametrize("own", ["refused", "broken"])
def test_with_the_key_where_its_own_account_does_not_work(
    own: str, metadata: FakeMetadata, compute: Compute, pair: Path
) -> None:
    own_account(metadata)
    compute.own = 403
    if own == "broken":
        metadata.fate("m1").about["instance/service-accounts/default/token"] = "no JSON"
    assert google(metadata, api=compute.url, key=key(pair)) is None
    assert compute.deleted == [INSTANCE]


def test_a_machine_that_is_gone_already_is_as_good(
    metadata: FakeMetadata, compute: Compute, pair: Path
) -> None:
    compute.key = 404
    assert google(metadata, api=compute.url, key=key(pair)) is None


def test_nobody_may_delete_it(metadata: FakeMetadata, compute: Compute, pair: Path) -> None:
    assert google(metadata, api=compute.url) == "its service account: OSError: HTTP 404"
    compute.key = 403
    assert "the key: HTTP 403: " in (google(metadata, api=compute.url, key=key(pair)) or "")
    assert compute.deleted == []


def test_a_key_that_is_none(pair: Path) -> None:
    with pytest.raises(OSError, match="openssl failed with exit code 1"):
        signed({**key(pair), "private_key": "canary-key"}, 0)


# --- the entry


def home(folder: Path, compute: Compute, **facts: Any) -> Path:
    (folder / "spec.json").write_text(dataclasses.replace(SPEC, cloud="gcp").to_json())
    (folder / "deletion.json").write_text(json.dumps({"api": compute.url, **facts}))
    (folder / "gone").write_text(GONE)
    return folder


def environ(metadata: FakeMetadata, **more: str) -> dict[str, str]:
    return {"CML_RUNNER_METADATA": metadata.url("m1"), "RUNNER_ALLOW_RUNASROOT": "1", **more}


class Clock:
    """Its own, which sleeping moves. `until`: a time from which on `then` has happened."""

    def __init__(self, until: float = 0, then: Callable[[], object] = lambda: None) -> None:
        self.at = 0.0
        self.slept = list[float]()
        self._until = until
        self._then = then

    def now(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += seconds
        if self.at >= self._until:
            self._then()


def end(place: Path, metadata: FakeMetadata, clock: Clock, cloud: str = "gcp") -> None:
    ending.end(place, cloud, environ(metadata), 5, clock.now, clock.sleep)


@pytest.mark.parametrize("status", [401, 403, 429, 503])
def test_one_refusal_does_not_end_all_tries(
    status: int,
    metadata: FakeMetadata,
    compute: Compute,
    pair: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    compute.statuses = [status]
    end(home(tmp_path, compute, key=key(pair)), metadata, Clock())
    assert compute.deleted == [INSTANCE], "tried again"
    output = capfd.readouterr().out
    assert '"stage": "deleting"' in output
    assert "PRIVATE KEY" not in output


@pytest.mark.parametrize("broken", ["refused", "no JSON"])
def test_google_stops_the_bill_of_one_that_is_off_so_it_is_not_tried_for_ever(
    broken: str,
    metadata: FakeMetadata,
    compute: Compute,
    pair: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    place, clock = home(tmp_path, compute, key=key(pair)), Clock()
    compute.key = 403
    if broken == "no JSON":
        (place / "deletion.json").write_text("not JSON")
    end(place, metadata, clock)
    assert 200 < clock.at <= 300
    assert clock.slept == sorted(clock.slept), "the pauses grow"
    lines = [line for line in capfd.readouterr().out.splitlines() if "not-deleted" in line]
    assert len(lines) == 1, "the same is not told again and again"
    assert ("HTTP 403" if broken == "refused" else "JSONDecodeError") in lines[0]


@pytest.mark.parametrize(
    ("state", "waits"),
    [
        (State(Phase.LEAVING, 1.0, 1.0, Reason.START_FAILED), True),
        (State(Phase.STARTING, 1.0, 1.0), True),
        (State(Phase.LEAVING, 1.0, 1.0, Reason.IDLE), False),
        (State(Phase.LEAVING, 1.0, 1.0, Reason.TAKEN), False),
        (State(Phase.BUSY, 1.0, 1.0), False),
    ],
)
def test_a_machine_that_failed_lets_the_launcher_read_its_console_first(
    state: State, waits: bool, metadata: FakeMetadata, compute: Compute, pair: Path, tmp_path: Path
) -> None:
    place, clock = home(tmp_path, compute, key=key(pair)), Clock()
    write_beat(place, Beat(state, time.monotonic()))
    end(place, metadata, clock)
    assert compute.deleted == [INSTANCE]
    assert clock.slept == ([5] if waits else [])


@pytest.mark.parametrize("broken", ["gone", "unreadable", "no JSON", "no spec"])
def test_a_machine_whose_spec_cannot_be_read_is_deleted_all_the_same(
    broken: str, metadata: FakeMetadata, compute: Compute, pair: Path, tmp_path: Path
) -> None:
    place = home(tmp_path, compute, key=key(pair))
    spec = place / "spec.json"
    spec.unlink()
    if broken == "unreadable":
        spec.mkdir()
    elif broken != "gone":
        spec.write_text("{" if broken == "no JSON" else "{}")
    end(place, metadata, Clock())
    assert compute.deleted == [INSTANCE]


def test_as_the_unit_calls_it(
    metadata: FakeMetadata, compute: Compute, pair: Path, tmp_path: Path
) -> None:
    place = home(tmp_path, compute, key=key(pair))
    command = [sys.executable, "-m", "runner_action.agent.ending", "gcp"]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        command,
        cwd=place,
        env={**environ(metadata), "PYTHONPATH": str(root), "PATH": os.environ["PATH"]},
        check=False,
    )
    assert (done.returncode, compute.deleted) == (0, [INSTANCE])


# --- Azure

GROUP, OTHER = (
    "/subscriptions/s1/resourcegroups/cml-1-abcd",
    {"actions": ["Microsoft.Storage/*"], "notActions": []},
)
DELETES = {"actions": ["Microsoft.Resources/subscriptions/resourcegroups/*"], "notActions": []}


class Azure:
    """Resource Manager, its token service, and what they were told. `roles`: pages of what each
    token may."""

    def __init__(self) -> None:
        self.deleted: list[str] = []
        self.forms: list[dict[str, str]] = []
        self.status = 202
        self.code = "AuthorizationFailed"
        self.token_status = 200
        self.roles: dict[str, list[list[dict[str, list[str]]]]] = {}
        self.proofs = 0
        app = Flask(__name__)
        app.add_url_rule(
            "/subscriptions/s1/resourcegroups/<group>", "delete", self._delete, methods=["DELETE"]
        )
        app.add_url_rule(
            f"{GROUP}/providers/Microsoft.Authorization/permissions",
            "permissions",
            self._permissions,
        )
        app.add_url_rule("/tenant/oauth2/v2.0/token", "token", self._token, methods=["POST"])
        self._server = make_server("127.0.0.1", 0, app, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _delete(self, group: str) -> Any:
        assert request.args["api-version"]
        assert request.args["forceDeletionTypes"] == "Microsoft.Compute/virtualMachines"
        bearer = request.headers["Authorization"]
        status = 403 if bearer == "Bearer canary-weak" else self.status
        if status in (200, 202, 204):
            self.deleted.append(f"{group} by {bearer}")
        return {"error": {"code": self.code}} if status != 204 else "", status

    def _permissions(self) -> Any:
        self.proofs += 1
        pages = self.roles.get(request.headers["Authorization"].removeprefix("Bearer canary-"))
        if pages is None:
            return {"error": {"code": "AuthorizationFailed"}}, 403
        page = int(request.args.get("page", "0"))
        more = (
            {"nextLink": f"{self.url}{request.path}?api-version=2022-04-01&page={page + 1}"}
            if page + 1 < len(pages)
            else {}
        )
        return {"value": pages[page], **more}

    def _token(self) -> Any:
        self.forms.append(request.form.to_dict())
        known = request.form["client_secret"] == "canary-secret"
        return (
            ({"access_token": "canary-bought"}, self.token_status)
            if known
            else ({"error": "invalid_client"}, 401)
        )


@pytest.fixture
def manager() -> Iterator[Azure]:
    fake = Azure()
    yield fake
    fake.close()


def about_azure(metadata: FakeMetadata, **identities: str) -> None:
    about = {"azure": json.dumps({"subscriptionId": "s1", "resourceGroupName": "cml-1-abcd"})}
    metadata.fate("m1").about.update(
        {
            **about,
            **{
                f"/x/{name}": json.dumps({"access_token": token})
                for name, token in identities.items()
            },
        }
    )


def azures(
    metadata: FakeMetadata, manager: Azure, *identities: str, secret: str = "", what: str = "delete"
) -> str | None:
    """One try. None: it is being deleted, or may be."""
    return ending.each(
        azure.Deletion(
            facts_of(manager, *identities, secret=secret), metadata.url("m1"), ending.ask
        ),
        what,
    )


def facts_of(manager: Azure, *identities: str, secret: str = "") -> dict[str, Any]:
    key = {"authority": manager.url, "tenant": "tenant", "client": "c", "secret": secret}
    return {
        "api": manager.url,
        "identities": [f"/x/{name}" for name in identities],
        **({"key": key} if secret else {}),
    }


def azure_home(folder: Path, manager: Azure, *identities: str, secret: str = "") -> Path:
    (folder / "spec.json").write_text(
        dataclasses.replace(SPEC, cloud="azure", start_timeout=600).to_json()
    )
    (folder / "deletion.json").write_text(json.dumps(facts_of(manager, *identities, secret=secret)))
    return folder


def test_azure_by_the_first_identity_that_may(metadata: FakeMetadata, manager: Azure) -> None:
    about_azure(metadata, weak="canary-weak", strong="canary-strong")
    assert azures(metadata, manager, "gone", "weak", "strong") is None
    assert manager.deleted == ["cml-1-abcd by Bearer canary-strong"]
    assert (azures(metadata, manager, "weak") or "").startswith("weak: HTTP 403: ")


def test_azure_by_the_secret_behind_identities_that_may_not(
    metadata: FakeMetadata, manager: Azure
) -> None:
    about_azure(metadata, weak="canary-weak")
    assert azures(metadata, manager, "gone", "weak", secret="canary-secret") is None
    assert manager.deleted == ["cml-1-abcd by Bearer canary-bought"]
    assert manager.forms[0]["scope"] == f"{manager.url}/.default"
    metadata.fate("m1").without_tokens = True
    assert azures(metadata, manager, "weak", secret="canary-secret") is None, (
        "nor does a service that gives no token keep it from the next"
    )


@pytest.mark.parametrize(
    ("status", "code", "accepted"),
    [
        *((status, "", True) for status in (200, 202, 204)),
        (404, "ResourceGroupNotFound", True),
        (404, "SubscriptionNotFound", False),
        (409, "ScopeLocked", False),
        (409, "ResourceGroupBeingDeleted", False),
        (409, "Conflict", False),
        *((status, "X", False) for status in (301, 400, 401, 403, 408, 429, 500, 503)),
    ],
)
def test_what_counts_as_accepted(
    status: int, code: str, accepted: bool, metadata: FakeMetadata, manager: Azure
) -> None:
    about_azure(metadata, strong="canary-strong")
    manager.status, manager.code = status, code
    why = azures(metadata, manager, "strong")
    assert (why is None) is accepted
    assert accepted or code in str(why)


@pytest.mark.parametrize("trouble", ["403", "429", "500", "0", "token service", "instance"])
def test_azure_is_asked_for_ever(
    trouble: str,
    metadata: FakeMetadata,
    manager: Azure,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """An hour of it here, in pauses of a minute at most; each time with every credential."""
    about_azure(metadata, weak="canary-weak")
    place, url = azure_home(tmp_path, manager, "weak", secret="canary-secret"), manager.url

    def mend() -> None:
        manager.status = manager.token_status = 202
        metadata.fate("m1").about["azure"] = json.dumps(
            {"subscriptionId": "s1", "resourceGroupName": "cml-1-abcd"}
        )
        azure_home(tmp_path, manager, "weak", secret="canary-secret")
        manager.token_status = 200

    if trouble == "token service":
        manager.token_status = 503
    elif trouble == "instance":
        del metadata.fate("m1").about["azure"]
    elif trouble == "0":
        manager.url = "http://127.0.0.1:1"
        azure_home(tmp_path, manager, "weak", secret="canary-secret")
        manager.url = url
    else:
        manager.status = int(trouble)
    clock = Clock(3600, mend)
    end(place, metadata, clock, "azure")
    assert manager.deleted == ["cml-1-abcd by Bearer canary-bought"]
    assert 3600 <= clock.at <= 3660
    assert clock.slept == sorted(clock.slept)
    assert max(clock.slept) == 60
    output = capfd.readouterr().out
    assert output.count("not-deleted") < 5
    assert "canary-secret" not in output


def prove(place: Path, metadata: FakeMetadata, clock: Clock, stages: list[str]) -> str | None:
    """None: it may. Else why it must not become a runner."""
    spec = AgentSpec.from_json((place / "spec.json").read_text())
    try:
        ending.prove(
            spec,
            place,
            environ(metadata),
            lambda stage, **_: stages.append(stage),
            clock.now,
            clock.sleep,
        )
    except ending.Unproven as error:
        return str(error)
    return None


@pytest.mark.parametrize(
    ("pages", "may"),
    [
        ([[DELETES]], True),
        ([[{"actions": ["*"], "notActions": ["Microsoft.Authorization/*/Write"]}]], True),
        ([[{"actions": ["*/delete"]}]], True),
        ([[OTHER, DELETES]], True),
        ([[OTHER], [DELETES]], True),
        ([[]], False),
        ([[OTHER]], False),
        ([[{"actions": ["*/read"], "notActions": []}]], False),
        ([[{**DELETES, "notActions": ["*/delete"]}]], False),
        ([[{**DELETES, "notActions": ["*/delete"]}], [DELETES]], True),
        (
            [
                [
                    {
                        "actions": ["Microsoft.Resources/subscriptions/resourceGroups/deleted"],
                        "notActions": [],
                    }
                ]
            ],
            False,
        ),
    ],
)
def test_what_it_may_is_read_from_azures_own_word(
    pages: list[list[dict[str, list[str]]]], may: bool, metadata: FakeMetadata, manager: Azure
) -> None:
    about_azure(metadata, strong="canary-strong")
    manager.roles = {"strong": pages}
    why = azures(metadata, manager, "strong", what="may")
    assert why == (None if may else f"strong: it lacks the permission {azure.DELETE}")


def test_the_proof_is_tried_for_half_of_the_start_timeout(
    metadata: FakeMetadata, manager: Azure, tmp_path: Path
) -> None:
    about_azure(metadata, weak="canary-weak")
    place = azure_home(tmp_path, manager, "weak", secret="canary-other")
    clock = Clock()
    stages = list[str]()
    why = prove(place, metadata, clock, stages)
    assert why is not None
    assert why.startswith(azure.CANNOT_DELETE)
    assert "weak: HTTP 403" in why
    assert "the service principal: OSError: HTTP 401 from the token service" in why
    assert 280 < clock.at <= 300
    assert max(clock.slept) == 10
    assert stages == ["unproven"]


def test_a_role_that_begins_to_work_is_seen_by_the_next_try(
    metadata: FakeMetadata, manager: Azure, tmp_path: Path
) -> None:
    about_azure(metadata, weak="canary-weak")
    clock = Clock(200, lambda: manager.roles.update(weak=[[DELETES]]))
    assert prove(azure_home(tmp_path, manager, "weak"), metadata, clock, []) is None
    assert 200 <= clock.at <= 210


def test_the_secret_proves_what_the_identity_may_not_and_nothing_is_waited_for(
    metadata: FakeMetadata, manager: Azure, tmp_path: Path
) -> None:
    about_azure(metadata, weak="canary-weak")
    manager.roles = {"weak": [[OTHER]], "bought": [[DELETES]]}
    clock = Clock()
    assert (
        prove(azure_home(tmp_path, manager, "weak", secret="canary-secret"), metadata, clock, [])
        is None
    )
    assert clock.slept == []


def test_where_a_power_off_stops_the_bill_nothing_is_proven(
    metadata: FakeMetadata, compute: Compute, tmp_path: Path
) -> None:
    assert prove(home(tmp_path, compute), metadata, Clock(), []) is None


def test_azure_with_nothing_says_so(metadata: FakeMetadata, manager: Azure) -> None:
    about_azure(metadata)
    assert azures(metadata, manager) == "it has no credentials"
