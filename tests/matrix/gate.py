"""Stands between a launcher and the embedded world: writes down every call, and at one of them
lets something happen."""

from __future__ import annotations

import base64
import io
import json
import os
import signal
import socket
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from runner_action.bootstrap import INSTANCE
from runner_action.model import ProviderName, id_end
from runner_action.sandbox.forges.jobs import DEFAULT_LABELS
from runner_action.sandbox.served import Application, Start
from runner_action.sandbox.world import World
from tests.fakes import unpacked
from tests.matrix.points import KILLED, Call, Fate, name_of

SIGNALS = {
    Fate.KILL_BEFORE: signal.SIGKILL,
    Fate.KILL_AFTER: signal.SIGKILL,
    Fate.CLEANED: signal.SIGKILL,
    Fate.TERM_BEFORE: signal.SIGTERM,
    Fate.TERM_AFTER: signal.SIGTERM,
    Fate.INT_AFTER: signal.SIGINT,
    Fate.HUP_AFTER: signal.SIGHUP,
}
BEFORE = (Fate.KILL_BEFORE, Fate.TERM_BEFORE)
HEARD_SECONDS = 0.05
"""What a signal gets to be heard before the call goes on."""
SILENT_SECONDS = 120.0
"""Longer than any client waits for an answer."""
Told = tuple[str, list[tuple[str, str]], bytes]


class Gate:
    """`at`: the call and what happens there. `cancelled`: the launcher gets SIGTERM when it asks
    for the first time whether its runner is online."""

    def __init__(self, world: World, at: tuple[Call, Fate] | None, *, cancelled: bool) -> None:
        self.world = world
        self.at = at
        self.cancelled = cancelled
        self.names: list[str] = []
        self.came = False
        self.signalled: float | None = None
        self.sent: list[int] = []
        """Numbers of signals: by the one that it heard first the launcher ends."""
        self.pid: int | None = None
        self.open = True
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._arriving = threading.Lock()
        self._born = threading.Event()
        self._registered: set[str] = set()
        for service, server in world.services().items():
            server.between = self._between(service)

    def begin(self, pid: int) -> None:
        self.pid = pid
        self._born.set()

    def end(self) -> None:
        """The launcher has ended: whoever calls now is somebody else."""
        self.open = False

    def _between(
        self, service: str
    ) -> Callable[[Application, dict[str, Any], Start], Iterable[bytes]]:
        def between(app: Application, environ: dict[str, Any], start: Start) -> Iterable[bytes]:
            if not self.open:
                return app(environ, start)
            self._born.wait(10)
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            name = name_of(
                service,
                environ["REQUEST_METHOD"],
                environ["PATH_INFO"],
                environ.get("QUERY_STRING", ""),
                body,
            )
            fate = self._fate(name)
            if self.cancelled and self._asks_for_runners(name):
                self.cancelled = False
                self._signal(signal.SIGTERM)
            if service == self.world.kind:
                self.arrive()
            return answered(service, fate, app, environ, body, start, self._send, self._silence)

        return between

    def arrive(self) -> None:
        with self._arriving:
            arrive(self.world, self._registered)

    def _asks_for_runners(self, name: str) -> bool:
        return (
            bool(machines(self.world))
            and name.split(" ")[1] == "GET"
            and ("/runners" in name)
            and "downloads" not in name
        )

    def _fate(self, name: str) -> Fate | None:
        with self._lock:
            self._counts[name] += 1
            self.names.append(name)
            if self.at is None or self.at[0].name != name:
                return None
            call, fate = self.at
            lasting = fate in (Fate.REFUSED, Fate.MUTE) and self._counts[name] > call.number
            if self._counts[name] != call.number and not lasting:
                return None
            self.came = True
            return fate

    def _send(self, number: int) -> None:
        """A call of its sweep's, for which it has not waited, has nobody to whom anything could
        happen."""
        self.came = self._signal(number)

    def _signal(self, number: int) -> bool:
        """Whether there was anybody to hear it."""
        assert self.pid
        if not lives(self.pid):
            return False
        self.signalled = self.signalled or time.monotonic()
        self.sent.append(number)
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)
        time.sleep(HEARD_SECONDS)
        return True

    def _silence(self) -> None:
        """Until the caller has ended, or every client would have given up."""
        end = time.monotonic() + SILENT_SECONDS
        while self.open and time.monotonic() < end:
            time.sleep(0.2)


def lives(pid: int) -> bool:
    """Whether it runs: one that has ended stays a zombie until somebody asks for its exit code."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def answered(
    service: str,
    fate: Fate | None,
    app: Application,
    environ: dict[str, Any],
    body: bytes,
    start: Start,
    send: Callable[[int], None],
    silence: Callable[[], None] = lambda: None,
) -> Iterable[bytes]:
    """The answer to a call with that fate; `send`: a signal to who calls; `silence`: lasts until
    nobody waits any more."""

    def ask() -> tuple[Callable[[], Any], Iterable[bytes]]:
        heads: list[Any] = []
        content = app(
            {**environ, "wsgi.input": io.BytesIO(body)},
            lambda status, headers, _exc_info=None: heads.extend([status, headers]),
        )
        return (lambda: start(*heads)), content

    if fate in BEFORE:
        send(SIGNALS[fate])
    if fate in (Fate.KILL_BEFORE, Fate.CUT):
        return hung_up(environ)
    if fate in (Fate.ERROR, Fate.REFUSED):
        status, content = refusal(service, passing=fate is Fate.ERROR)
        start(
            status,
            [
                ("Content-Type", "text/xml" if service == "aws" else "application/json"),
                ("Content-Length", str(len(content))),
            ],
        )
        return [content]
    begin, answer = ask()
    if fate is Fate.TWICE:
        closed(answer)
        begin, answer = ask()
    if fate in SIGNALS and fate not in BEFORE:
        send(SIGNALS[fate])
    if fate in (Fate.LOST, Fate.MUTE, Fate.SILENT, *KILLED):
        closed(answer)
        if fate is Fate.SILENT:
            silence()
        return hung_up(environ)
    begin()
    return answer


def closed(answer: Iterable[bytes]) -> None:
    close = getattr(answer, "close", None)
    if close:
        close()


def hung_up(environ: dict[str, Any]) -> Iterable[bytes]:
    """The caller sees the connection end without an answer."""
    with suppress(OSError):
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    raise ConnectionAbortedError


def refusal(service: str, *, passing: bool) -> tuple[str, bytes]:
    """In the service's own words, as far as they are read."""
    number, text, message = (
        (503, "Service Unavailable", "Try again.") if passing else (403, "Forbidden", "No.")
    )
    if service == "aws":
        code = "ServiceUnavailable" if passing else "UnauthorizedOperation"
        return (
            f"{number} {text}",
            f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors></Response>".encode(),
        )
    said: dict[str, Any] = {
        "message": message,
        "reason": text,
        "code": number,
        "kind": "Status",
        "status": "Failure",
    }
    if service == "azure":
        said = {
            "error": {
                "code": "ServiceUnavailable" if passing else "AuthorizationFailed",
                "message": message,
            }
        }
    if service == "gcp":
        reason = "backendError" if passing else "forbidden"
        said = {
            "error": {
                "code": number,
                "message": message,
                "errors": [{"message": message, "domain": "global", "reason": reason}],
            }
        }
    return f"{number} {text}", json.dumps(said).encode()


# --- machines that do not boot: all that the world sees of them is a runner


def machines(world: World) -> dict[str, dict[str, Any]]:
    """Those that are there, with what they were told; nothing, where a pod's Secret did not
    come."""
    given = world.machines.user_data
    if world.kubernetes:
        # A pod has read its Secret before that is deleted.
        given.update(
            {
                one["metadata"]["name"]: base64.b64decode(one["data"]["agent.pyz"])
                for one in world.kubernetes.shelf.peek("secrets")
            }
        )
        pods = [
            one["metadata"]
            for one in world.kubernetes.shelf.peek("pods")
            if "deletionTimestamp" not in one["metadata"]
        ]
        return {
            one["name"]: spec(
                one["name"], given.get(one["labels"]["batch.kubernetes.io/job-name"], b"")
            )
            for one in pods
        }
    if world.azure:
        numbers = [
            one["properties"]["vmId"]
            for path, one in list(world.azure.things.items())
            if "/virtualmachines/" in path
        ]
        return {number: spec(number, given.get(number, b"")) for number in numbers}
    if world.provider is ProviderName.GCP:
        return {
            one["id"]: spec(one["id"], given.get(one["id"], b""))
            for one in list(world.gcp.instances.values())
        }
    return {number: spec(number, given.get(number, b"")) for number in world.ec2.alive()}


@cache
def spec(number: str, user_data: bytes) -> dict[str, Any]:
    """What the machine of that id makes of it."""
    return (
        dict(json.loads(text_of(user_data).replace(INSTANCE, id_end(number)))) if user_data else {}
    )


@cache
def text_of(user_data: bytes) -> str:
    if user_data.startswith(b"PK"):
        return zipfile.ZipFile(io.BytesIO(user_data)).read("spec.json").decode()
    return unpacked(user_data)["var/lib/cml-runner/spec.json"]


def arrive(world: World, registered: set[str]) -> None:
    """What the agents do at the forge once their machines are there: each registers once, unless
    it is registered, and goes online. Without its machine no runner is online."""
    there = {number: one for number, one in machines(world).items() if one}
    told = list(there.values())
    for number, one in there.items():
        if (
            "registration_token" in one
            and number not in registered
            and not world.forge.by_name(one["name"])
        ):
            registered.add(number)
            world.forge.seat(one["name"], [*DEFAULT_LABELS, *one["labels"]], ephemeral=False)
    newest = {seat.name: seat.id for seat in world.forge.seats()}
    theirs = {one.get("runner_id") or newest.get(one["name"]) for one in told}
    for seat in world.forge.seats():
        online = seat.id in theirs
        if seat.online is not online:
            world.forge.set_online(seat, online=online)
