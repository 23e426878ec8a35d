"""The registration of a GitHub runner that fails once, in its middle or where nothing can be
written: another attempt succeeds, and the runner is never forgotten."""

from __future__ import annotations

import dataclasses
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from runner_action.agent.forge import member
from runner_action.agent.lifecycle import GONE
from tests.agent.test_spec import SPEC

REGISTERED = dataclasses.replace(SPEC, jit_config=None, registration_token="canary")
CONFIG = """#!/bin/sh
if [ -e .runner ]
then echo "Cannot configure the runner because it is already configured."
exit 1
fi
echo x >>../attempts
case $(grep -c x ../attempts) in
{cases}
esac
"""
"""As the real one: it does not configure a runner twice, and takes a key that is there for good."""
FAILS = "echo the server is busy; exit 1"
HALF = """printf '\\357\\273\\277{"agentId": %d, "poolId": 1}' >.runner
echo >.credentials; printf '{"d' >.credentials_rsaparams
"""
WHOLE = "[ ! -e .credentials_rsaparams ] || { echo a broken key; exit 1; }\n" + HALF


def forge(home: Path, *attempts: str, **spec: Any) -> Any:
    """`attempts`: what config.sh does each time."""
    folder = home / "runner"
    folder.mkdir(exist_ok=True)
    cases = "\n".join(f"{at}) {what} ;;" for at, what in enumerate(attempts, 1))
    (folder / "config.sh").write_text(CONFIG.replace("{cases}", cases))
    (folder / "config.sh").chmod(0o755)
    path = {"PATH": "/usr/bin:/bin"}
    return member(dataclasses.replace(REGISTERED, **spec), folder, path, {})


def test_what_a_half_registration_leaves_is_no_hindrance(tmp_path: Path) -> None:
    runner = forge(tmp_path, HALF % 1 + FAILS, WHOLE % 2)
    assert runner.join() == "exit code 1: the server is busy"
    assert runner.ids == {"agentId": 1, "poolId": 1}
    assert runner.join() is None
    assert runner.ids == {"agentId": 2, "poolId": 1}, "a replaced runner may have another id"
    assert forge(tmp_path)._assigned() == runner.ids, "for the watchdog"


def test_a_registration_is_believed_by_what_it_has_written(tmp_path: Path) -> None:
    runner = forge(tmp_path, "exit 0", WHOLE % 2)
    assert runner.join() == "config.sh wrote no .runner"
    assert runner.join() is None


def test_a_runner_that_may_be_registered_is_not_forgotten(tmp_path: Path) -> None:
    runner = forge(tmp_path, HALF % 1 + FAILS, FAILS)
    assert runner.join()
    assert runner.join()
    assert runner.ids == {"agentId": 1, "poolId": 1}


@pytest.fixture
def deleted() -> Any:
    """The paths that were deleted at a server, and its URL."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_DELETE(self) -> None:
            paths.append(self.path)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield paths, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_it_is_deregistered_though_its_id_could_not_be_written(
    deleted: Any, tmp_path: Path
) -> None:
    """As on a full disk."""
    paths, url = deleted
    (tmp_path / "registered").mkdir()
    runner = forge(tmp_path, WHOLE % 7, api_url=url, api_token="canary")
    assert runner.join() is None
    (tmp_path / "runner.pid").write_text("1")
    (tmp_path / "runner" / ".runner").write_text(json.dumps({"agentId": 8}))
    assert runner.leave() == GONE
    assert paths == ["/repos/octo/train/actions/runners/7"]
