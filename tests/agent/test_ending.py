"""A machine deletes itself on Google Cloud, each way, against a metadata service and a Compute Engine that check what they are told; and whatever
goes wrong, it ends without a secret said."""

from __future__ import annotations

import base64
import dataclasses
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, request
from werkzeug.serving import make_server

from runner_action.agent import azure, ending
from runner_action.agent.gcp import Deletion, signed
from runner_action.agent.lifecycle import GONE, Phase, Reason, State
from runner_action.agent.watchdog import Beat, write_beat
from runner_action.sandbox.metadata import FakeMetadata
from tests.agent.test_spec import SPEC

INSTANCE, RULE = "projects/314/zones/us-east1-b/instances/4000", "projects/314/global/firewalls/cml-1-ssh"
ABOUT = {"instance/zone": "projects/314/zones/us-east1-b", "instance/id": "4000", "instance/name": "cml-1"}
OWN = "canary-own-token"
EMAIL = "launcher@octo-train.iam.gserviceaccount.com"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and its public half, as PEM files."""
    folder = tmp_path_factory.mktemp("key")
    make = "openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out key.pem && openssl pkey -in key.pem -pubout -out public.pem"
    subprocess.run(["sh", "-c", make], cwd=folder, check=True, stderr=subprocess.DEVNULL)
    return folder


def key(pair: Path) -> dict[str, str]:
    return {"client_email": EMAIL, "private_key_id": "k1", "private_key": (pair / "key.pem").read_text()}


class Compute:
    """Takes DELETE with the machine's own token, or one signed with the key. `own`: the status for the former; `statuses` come before all others."""

    def __init__(self, pair: Path) -> None:
        self.pair, self.own, self.key = pair, 200, 200
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

    def _delete(self, what: str) -> Any:
        kind, _, token = request.headers["Authorization"].partition(" ")
        assert kind == "Bearer"
        status = self.statuses.pop(0) if self.statuses else self.own if token == OWN else self.key if self._verified(token) else 401
        if status == 200:
            self.deleted.append(what)
        return {"error": {"message": "No."}}, status

    def _verified(self, token: str) -> bool:
        head, claims, signature = token.split(".")
        (self.pair / "signature").write_bytes(decoded(signature))
        verify = ["openssl", "dgst", "-sha256", "-verify", "public.pem", "-signature", "signature"]
        done = subprocess.run(verify, cwd=self.pair, input=f"{head}.{claims}".encode(), stdout=subprocess.DEVNULL, check=False)
        assert json.loads(decoded(head)) == {"alg": "RS256", "typ": "JWT", "kid": "k1"}
        self.claims.append(json.loads(decoded(claims)))
        return done.returncode == 0


def decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


@pytest.fixture
def metadata(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeMetadata]:
    made = FakeMetadata()
    made.fate("m1").about.update(ABOUT)
    yield made
    made.close()


@pytest.fixture
def compute(pair: Path) -> Iterator[Compute]:
    made = Compute(pair)
    yield made
    made.close()


def own_account(metadata: FakeMetadata) -> None:
    metadata.fate("m1").about["instance/service-accounts/default/token"] = json.dumps({"access_token": OWN, "expires_in": 3000})


def test_as_its_own_account(metadata: FakeMetadata, compute: Compute) -> None:
    own_account(metadata)
    assert Deletion({"api": compute.url}, metadata.url("m1"), ending.ask).try_once() is None
    assert compute.deleted == [INSTANCE]


def test_with_the_key_it_was_given(metadata: FakeMetadata, compute: Compute, pair: Path) -> None:
    assert Deletion({"api": compute.url, "key": key(pair), "rule": True}, metadata.url("m1"), ending.ask).try_once() is None
    assert compute.deleted == [RULE, INSTANCE]
    told = compute.claims[-1]
    assert (told["iss"], told["sub"], told["aud"]) == (EMAIL, EMAIL, "https://compute.googleapis.com/")
    assert abs(told["iat"] - time.time()) < 30
    assert told["exp"] - told["iat"] <= 3600


def test_with_the_key_where_its_own_account_may_not(metadata: FakeMetadata, compute: Compute, pair: Path) -> None:
    own_account(metadata)
    compute.own = 403
    assert Deletion({"api": compute.url, "key": key(pair)}, metadata.url("m1"), ending.ask).try_once() is None
    assert compute.deleted == [INSTANCE]


def test_a_machine_that_is_gone_already_is_as_good(metadata: FakeMetadata, compute: Compute, pair: Path) -> None:
    compute.key = 404
    assert Deletion({"api": compute.url, "key": key(pair)}, metadata.url("m1"), ending.ask).try_once() is None


def test_nobody_may_delete_it(metadata: FakeMetadata, compute: Compute, pair: Path) -> None:
    assert Deletion({"api": compute.url}, metadata.url("m1"), ending.ask).try_once() == "it has no service account, and was given no key"
    compute.key = 403
    why = Deletion({"api": compute.url, "key": key(pair)}, metadata.url("m1"), ending.ask).try_once()
    assert why is not None
    assert why.startswith("HTTP 403: ")
    assert compute.deleted == []


def test_a_key_that_is_none(pair: Path) -> None:
    with pytest.raises(OSError, match="openssl ended with exit code 1"):
        signed({**key(pair), "private_key": "canary-key"}, 0)


# --- the entry


def home(folder: Path, compute: Compute, **facts: Any) -> Path:
    (folder / "spec.json").write_text(dataclasses.replace(SPEC, cloud="gcp").to_json())
    (folder / "deletion.json").write_text(json.dumps({"api": compute.url, **facts}))
    (folder / "gone").write_text(GONE)
    return folder


def environ(metadata: FakeMetadata, **more: str) -> dict[str, str]:
    return {"CML_RUNNER_METADATA": metadata.url("m1"), "RUNNER_ALLOW_RUNASROOT": "1", **more}


def test_after_the_agent_comes_the_deletion(
    metadata: FakeMetadata, compute: Compute, pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "")
    compute.statuses = [503]
    assert ending.main(["cleanup"], environ(metadata, SERVICE_RESULT="success"), home(tmp_path, compute, key=key(pair))) == 1
    assert compute.deleted == [INSTANCE], "tried again"
    told = capsys.readouterr().out
    assert '"stage": "deleting"' in told
    assert "PRIVATE KEY" not in told


def test_an_agent_that_comes_back_keeps_its_machine(metadata: FakeMetadata, compute: Compute, pair: Path, tmp_path: Path) -> None:
    place = home(tmp_path, compute, key=key(pair))
    write_beat(place, Beat(State(Phase.BUSY, 1.0, 1.0), time.monotonic()))
    assert ending.main(["cleanup"], environ(metadata, SERVICE_RESULT="signal"), place) == 0
    assert compute.deleted == []
    assert ending.main(["cleanup"], environ(metadata, SERVICE_RESULT="signal"), place) == 1
    assert compute.deleted == [INSTANCE], "the second time it does not come back"


def test_the_watchdog_deletes_only_a_machine_that_must_end(metadata: FakeMetadata, compute: Compute, pair: Path, tmp_path: Path) -> None:
    place = home(tmp_path, compute, key=key(pair))
    write_beat(place, Beat(State(Phase.IDLE, time.monotonic(), time.monotonic()), time.monotonic()))
    assert ending.main(["watchdog"], environ(metadata), place) == 0
    assert compute.deleted == []
    write_beat(place, Beat(State(Phase.IDLE, 0.0, 0.0), time.monotonic() - 1000))
    assert ending.main(["watchdog"], environ(metadata), place) == 1
    assert compute.deleted == [INSTANCE]


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
    place = home(tmp_path, compute, key=key(pair))
    write_beat(place, Beat(state, time.monotonic()))
    began = time.monotonic()
    ending.end(place, environ(metadata), heard=0.5 if waits else 60)
    assert compute.deleted == [INSTANCE]
    assert (time.monotonic() - began >= 0.5) if waits else (time.monotonic() - began < 30)


def test_whatever_goes_wrong_the_machine_ends_and_says_why(
    metadata: FakeMetadata, compute: Compute, pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = home(tmp_path, compute, key=key(pair))
    (place / "deletion.json").write_text("not JSON")
    ending.end(place, environ(metadata), 0)
    assert "not-deleted" in capsys.readouterr().out
    compute.key = 500
    home(tmp_path, compute, key=key(pair))
    ending.end(place, environ(metadata), 0)
    told = capsys.readouterr().out
    assert "HTTP 500" in told
    assert "PRIVATE KEY" not in told
    compute.key = 403
    with pytest.raises(ZeroDivisionError):  # an agent whose clean-up fails
        ending.main(["cleanup"], _Broken(environ(metadata)), place)
    assert "HTTP 403" in capsys.readouterr().out


class _Broken(dict):  # type: ignore[type-arg]
    """An environment that breaks whoever asks how the service ended."""

    def get(self, name: str, default: Any = None) -> Any:
        return 1 // 0 if name == "SERVICE_RESULT" else super().get(name, default)


# --- Azure


class Azure:
    """Resource Manager, its token service, and what they were told."""

    def __init__(self) -> None:
        self.deleted: list[str] = []
        self.forms: list[dict[str, str]] = []
        self.status, self.code = 202, "AuthorizationFailed"
        app = Flask(__name__)
        app.add_url_rule("/subscriptions/s1/resourcegroups/<group>", "delete", self._delete, methods=["DELETE"])
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
        if status == 202:
            self.deleted.append(f"{group} by {bearer}")
        return {"error": {"code": self.code}}, status

    def _token(self) -> Any:
        self.forms.append(request.form.to_dict())
        return {"access_token": "canary-bought"} if request.form["client_secret"] == "canary-secret" else ({"error": "invalid_client"}, 401)


@pytest.fixture
def manager() -> Iterator[Azure]:
    made = Azure()
    yield made
    made.close()


def about_azure(metadata: FakeMetadata, **identities: str) -> None:
    told = {"azure": json.dumps({"subscriptionId": "s1", "resourceGroupName": "cml-1-abcd"})}
    metadata.fate("m1").about.update({**told, **{name: json.dumps({"access_token": token}) for name, token in identities.items()}})


def test_azure_by_the_first_identity_that_may(metadata: FakeMetadata, manager: Azure) -> None:
    about_azure(metadata, weak="canary-weak", strong="canary-strong")
    facts = {"api": manager.url, "identities": ["gone", "weak", "strong"]}
    assert azure.Deletion(facts, metadata.url("m1"), ending.ask).try_once() is None
    assert manager.deleted == ["cml-1-abcd by Bearer canary-strong"]
    why = azure.Deletion({**facts, "identities": ["weak"]}, metadata.url("m1"), ending.ask).try_once()
    assert why is not None
    assert why.startswith("HTTP 403: ")


def test_azure_by_a_service_principal(metadata: FakeMetadata, manager: Azure) -> None:
    about_azure(metadata)
    facts = {"api": manager.url, "key": {"authority": manager.url, "tenant": "tenant", "client": "c", "secret": "canary-secret"}}
    assert azure.Deletion(facts, metadata.url("m1"), ending.ask).try_once() is None
    assert manager.deleted == ["cml-1-abcd by Bearer canary-bought"]
    assert manager.forms[0]["scope"] == f"{manager.url}/.default"
    manager.status = 409
    assert azure.Deletion(facts, metadata.url("m1"), ending.ask).try_once() is None, "it is being deleted already"
    manager.code = "ScopeLocked"
    with pytest.raises(OSError, match="ScopeLocked"):
        azure.Deletion(facts, metadata.url("m1"), ending.ask).try_once()
    manager.status = 500
    with pytest.raises(OSError, match="HTTP 500"):
        azure.Deletion(facts, metadata.url("m1"), ending.ask).try_once()


def test_azure_with_nothing_says_so(metadata: FakeMetadata, manager: Azure) -> None:
    about_azure(metadata)
    assert azure.Deletion({"api": manager.url}, metadata.url("m1"), ending.ask).try_once() == "it has no identity, and was given no secret"
