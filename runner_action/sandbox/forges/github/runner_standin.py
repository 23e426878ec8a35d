"""A stand-in for actions/runner 2.336: its command line, files, lines, hooks, signals and exit
codes; its server is the fake GitHub.

Runs on the machine as bin/Runner.Listener, which has jobs run by bin/Runner.Worker
(`worker_standin`): standard library only, any Python from 3.9.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

PREFIX = "ACTIONS_RUNNER_INPUT_"
SUCCESS = 0
TERMINATED = 1
RETRYABLE = 2
SERVER_GONE_SECONDS = 20.0


class NoRunner(Exception):
    """The server does not know this runner (any more)."""


def call(
    server: str, path: str, body: dict[str, Any], authorization: str = "", method: str = "POST"
) -> dict[str, Any]:
    headers = {"Content-Type": "application/json", "Authorization": authorization}
    asked = urllib.request.Request(server + path, json.dumps(body).encode(), headers, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=10) as answer:
            found: dict[str, Any] = json.loads(answer.read() or "{}")
            return found
    except urllib.error.HTTPError as error:
        message = json.loads(error.read() or b"{}").get("message", "")
        error.close()
        raise NoRunner(message or f"Http response code: {error.code}") from None


def inputs_from_environment() -> dict[str, str]:
    """Arguments given in the environment, which they leave at once, as in the real one."""
    found = {
        key[len(PREFIX) :].lower(): os.environ.pop(key)
        for key in list(os.environ)
        if key.startswith(PREFIX)
    }
    return {key: value for key, value in found.items() if value}


def parser(command: str) -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    words = {
        "configure": ("url", "name", "labels", "work", "token", "runnergroup"),
        "remove": ("token",),
        "run": ("jitconfig", "startuptype"),
    }[command]
    flags = {
        "configure": ("unattended", "ephemeral", "replace", "no-default-labels", "disableupdate"),
        "remove": ("local",),
        "run": ("once",),
    }[command]
    for word in words:
        options.add_argument("--" + word)
    for flag in flags:
        options.add_argument("--" + flag, action="store_true")
    return options


def configure(given: argparse.Namespace) -> int:
    if Path(".runner").exists():
        print("Cannot configure the runner because it is already configured.")
        return TERMINATED
    server = "/".join(given.url.split("/")[:3])
    asked = {
        "runner_event": "register",
        "url": given.url,
        "name": given.name,
        "labels": (given.labels or "").split(","),
        "ephemeral": given.ephemeral,
        "replace": given.replace,
        "group": given.runnergroup or "Default",
        "default_labels": not given.no_default_labels,
    }
    answer = call(server, "/api/v3/actions/runner-registration", asked, "RemoteAuth " + given.token)
    print(
        "√ Connected to GitHub\n\n√ Runner successfully added\n√ Runner connection is good\n\n√"
        " Settings Saved."
    )
    remember(
        {
            **answer,
            "agentName": given.name,
            "server": server,
            "url": given.url,
            "ephemeral": given.ephemeral,
        }
    )
    return SUCCESS


def unpack(jitconfig: str) -> None:
    """Each file as it was given, byte for byte. Raises ValueError, as the real one does for what
    is no Base64 or no JSON."""
    for name, content in json.loads(base64.b64decode(jitconfig, validate=True)).items():
        Path(name).write_bytes(base64.b64decode(content, validate=True))


def settings() -> dict[str, Any]:
    """Whatever the case of the names, as Newtonsoft's Json.NET reads them."""
    told = {
        key.lower(): value
        for key, value in json.loads(Path(".runner").read_text("utf-8-sig")).items()
    }
    return {
        **told,
        "agentid": int(told["agentid"]),
        "ephemeral": str(told.get("ephemeral", "")).lower() == "true",
    }


def secret() -> str:
    """What the server knows this runner by: of a just-in-time one all of its key, whose eight
    numbers must belong together."""
    told = json.loads(Path(".credentials").read_text("utf-8"))
    if "data" in told:
        return str(told["data"])
    key = Path(".credentials_rsaparams").read_bytes()
    n = {
        name: int.from_bytes(base64.b64decode(text), "big")
        for name, text in json.loads(key).items()
    }
    if n["p"] * n["q"] != n["modulus"] or n["inverseQ"] * n["q"] % n["p"] != 1:
        raise ValueError("The parameters of the RSA key do not belong together.")
    for prime, exponent in (("p", "dp"), ("q", "dq")):
        if n["d"] % (n[prime] - 1) != n[exponent] or n["d"] * n["exponent"] % (n[prime] - 1) != 1:
            raise ValueError("The parameters of the RSA key do not belong together.")
    return hashlib.sha256(told["Data"]["ClientId"].encode() + key).hexdigest()


def remember(told: dict[str, Any]) -> None:
    """The real one's two files, the first with its byte order mark."""
    settings = {name: told[name] for name in ("agentId", "poolId", "agentName", "ephemeral")}
    settings.update({"serverUrl": told["server"], "gitHubUrl": told["url"]})
    Path(".runner").write_text(json.dumps(settings), "utf-8-sig")
    Path(".credentials").write_text(
        json.dumps({"scheme": "OAuth", "data": told["secret"]}), "utf-8"
    )
    Path(".credentials").chmod(0o600)


def root_of(address: str) -> str:
    """What GitHub's API calls the place at that address, such as `orgs/octo`."""
    path = address.partition("://")[2].partition("/")[2]
    if path.startswith("enterprises/"):
        return path
    return ("repos/" if "/" in path else "orgs/") + path


def remove(given: argparse.Namespace) -> int:
    if not Path(".runner").exists():
        print(
            "Cannot connect to server, because config files are missing. Skipping removing runner"
            " from the server."
        )
        return SUCCESS
    told = settings()
    if "data" not in json.loads(Path(".credentials").read_text("utf-8")):
        # ConfigurationManager.cs: a just-in-time runner was never configured with an address to
        # ask. actions/runner#2920
        print("Failed: Removing runner from the server")
        return TERMINATED
    login = "RemoteAuth " + given.token
    asked = {"runner_event": "remove", "url": told["githuburl"]}
    answer = call(told["serverurl"], "/api/v3/actions/runner-registration", asked, login)
    if answer["use_v2_flow"]:
        place = "/api/v3/%s/actions/runners/%d" % (root_of(told["githuburl"]), told["agentid"])
        call(told["serverurl"], place, {}, login, "DELETE")
    else:
        place = f"_apis/distributedtask/pools/{told['poolid']}/agents/{told['agentid']}"
        place += "?api-version=6.0-preview"
        call(answer["url"], place, {}, "Bearer " + answer["token"], "DELETE")
    forget()
    print("√ Runner removed successfully")
    return SUCCESS


def forget() -> None:
    for name in (".runner", ".credentials", ".credentials_rsaparams"):
        if Path(name).exists():
            Path(name).unlink()


class Listener:
    """Listens for jobs and has them run by a worker, one at a time."""

    def __init__(self) -> None:
        self.settings = settings()
        self.secret = secret()
        self.stopping = False
        signal.signal(signal.SIGINT, self.stop)
        signal.signal(signal.SIGTERM, self.stop)

    def stop(self, *_: object) -> None:
        self.stopping = True

    def say(self, verb: str, **more: Any) -> dict[str, Any]:
        return call(
            "/".join(self.settings["serverurl"].split("/")[:3]),
            "/_runner/" + verb,
            {"id": self.settings["agentid"], "secret": self.secret, **more},
        )

    def listen(self) -> int:
        self.say("open")
        print("\n√ Connected to GitHub\n\nCurrent runner version: '2.336.0'")
        log("Listening for Jobs")
        heard = time.monotonic()
        while not self.stopping:
            try:
                job = self.say("poll")["job"]
                heard = time.monotonic()
            except NoRunner:
                print(
                    "The runner no longer exists on the server. Cleaning up local configuration.",
                    flush=True,
                )
                forget()
                return TERMINATED
            except OSError:
                if time.monotonic() - heard > SERVER_GONE_SECONDS:
                    return TERMINATED
                time.sleep(0.5)
                continue
            if job:
                self.work(job)
                if self.settings["ephemeral"]:
                    forget()
                    return SUCCESS
        self.say("close")
        print("Exiting...")
        return SUCCESS

    def work(self, job: dict[str, Any]) -> None:
        """Asks meanwhile whether the job was cancelled. The worker hears signals by itself: it
        is of the same group."""
        log("Running job: %s" % job["name"])
        told = json.dumps({**job, "runner": self.settings["agentname"]}).encode()
        worker = subprocess.Popen(
            ["./bin/Runner.Worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(told)
        worker.stdin.close()
        cancelled = False
        while worker.poll() is None:
            try:
                if self.say("watch")["cancelled"] and not cancelled:
                    cancelled = True
                    worker.send_signal(signal.SIGUSR1)
            except (NoRunner, OSError):
                pass
            time.sleep(0.2)
        ended = json.loads(worker.stdout.read() or b'{"conclusion": "failure", "notes": []}')
        for _ in range(20):
            try:
                self.say("completed", **ended)
                break
            except OSError:
                time.sleep(0.5)
        log(
            "Job %s completed with result: %s"
            % (
                job["name"],
                {"success": "Succeeded", "failure": "Failed"}.get(ended["conclusion"], "Canceled"),
            )
        )


def log(text: str) -> None:
    print("%s: %s" % (datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ"), text), flush=True)


def main(argv: list[str]) -> int:
    command = argv[0]
    given, unknown = parser(command).parse_known_args(argv[1:])
    if unknown:
        print(
            "Unrecognized command-line input arguments for command %s: '%s'. For usage refer to:"
            " .\\config.cmd --help" % (command, ", ".join(unknown))
        )
        return TERMINATED
    for key, value in inputs_from_environment().items():
        setattr(given, key, value)
    try:
        if command == "configure":
            return configure(given)
        if command == "remove":
            return remove(given)
        if given.jitconfig:
            unpack(given.jitconfig)
        if not Path(".runner").exists():
            print("Runner is not configured.")
            return TERMINATED
        return Listener().listen()
    except (NoRunner, OSError, ValueError) as error:
        print("An error occurred: %s" % error)
        return TERMINATED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
