"""A stand-in for actions/runner 2.336, with its command line, files, output, hooks, signals and
exit codes. Its server is the embedded GitHub.

It runs on the machine as bin/Runner.Listener, which starts bin/Runner.Worker (`worker_standin`) for
each job. Standard library only, Python 3.9 or later.
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
from http import HTTPStatus
from pathlib import Path
from typing import Any

PREFIX = "ACTIONS_RUNNER_INPUT_"
SUCCESS = 0
TERMINATED = 1
RETRYABLE = 2
SERVER_GONE_SECONDS = 20.0
FALL_SECONDS = 2.0
"""From the start of a job until a listener falls that is to do so."""


class NoRunner(Exception):
    """The server does not know this runner, or no longer knows it; or it answers `status`."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


def call(
    server: str, path: str, body: dict[str, Any], authorization: str = "", method: str = "POST"
) -> dict[str, Any]:
    headers = {"Content-Type": "application/json", "Authorization": authorization}
    data = json.dumps(body).encode()
    request = urllib.request.Request(server + path, data, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            content: dict[str, Any] = json.loads(response.read() or "{}")
            return content
    except urllib.error.HTTPError as error:
        text = error.read().decode()
        error.close()
        raise NoRunner(text, error.code) from None


def tenant(server: str, body: dict[str, Any], login: str) -> dict[str, Any]:
    """Asks where and how the runner is registered: three times, but once if that is not found
    (ConfigurationManager.cs, GetTenantCredential), which waits for seconds in between."""
    path = "/api/v3/actions/runner-registration"
    for left in (2, 1, 0):
        try:
            return call(server, path, body, login)
        except (NoRunner, OSError) as error:
            last = error
        if isinstance(last, NoRunner):
            # .NET's name of the status.
            name = HTTPStatus(last.status).phrase.replace(" ", "")
            print(f"Http response code: {name} from 'POST {server + path}' (Request Id: {left})")
            print(last)
            if last.status == HTTPStatus.NOT_FOUND:
                break
        time.sleep(0.2)
    raise last


def inputs_from_environment() -> dict[str, str]:
    """Takes arguments from the environment and removes them there, as the real one does."""
    values = {
        key[len(PREFIX) :].lower(): os.environ.pop(key)
        for key in list(os.environ)
        if key.startswith(PREFIX)
    }
    return {key: value for key, value in values.items() if value}


def parser(command: str) -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    options = {
        "configure": ("url", "name", "labels", "work", "token", "runnergroup"),
        "remove": ("token",),
        "run": ("jitconfig", "startuptype"),
    }[command]
    flags = {
        "configure": ("unattended", "ephemeral", "replace", "no-default-labels", "disableupdate"),
        "remove": ("local",),
        "run": ("once",),
    }[command]
    for option in options:
        arguments.add_argument("--" + option)
    for flag in flags:
        arguments.add_argument("--" + flag, action="store_true")
    return arguments


def configure(options: argparse.Namespace) -> int:
    if Path(".runner").exists():
        print(
            "Cannot configure the runner because it is already configured. To reconfigure the"
            " runner, run 'config.cmd remove' or './config.sh remove' first."
        )
        return TERMINATED
    server = "/".join(options.url.split("/")[:3])
    body = {
        "runner_event": "register",
        "url": options.url,
        "name": options.name,
        "labels": (options.labels or "").split(","),
        "ephemeral": options.ephemeral,
        "replace": options.replace,
        "group": options.runnergroup or "Default",
        "default_labels": not options.no_default_labels,
    }
    login = "RemoteAuth " + options.token
    registration = tenant(server, body, login)
    print(
        "√ Connected to GitHub\n\n√ Runner successfully added\n√ Runner connection is good\n\n√"
        " Settings Saved."
    )
    remember(
        {
            **registration,
            "agentName": options.name,
            "server": server,
            "url": options.url,
            "ephemeral": options.ephemeral,
        }
    )
    return SUCCESS


def unpack(jitconfig: str) -> None:
    """Writes each file byte for byte. Raises ValueError for invalid Base64 or JSON, as the real one
    does."""
    for name, content in json.loads(base64.b64decode(jitconfig, validate=True)).items():
        Path(name).write_bytes(base64.b64decode(content, validate=True))


def settings() -> dict[str, Any]:
    """The runner's settings. The case of their names does not matter, as for Newtonsoft's
    Json.NET."""
    content = json.loads(Path(".runner").read_text("utf-8-sig"))
    lower = {key.lower(): value for key, value in content.items()}
    return {
        **lower,
        "agentid": int(lower["agentid"]),
        "ephemeral": str(lower.get("ephemeral", "")).lower() == "true",
    }


def secret() -> str:
    """The secret by which the server recognizes this runner. With a just-in-time configuration it
    depends on every byte of the key, whose eight numbers must belong together."""
    credentials = json.loads(Path(".credentials").read_text("utf-8"))
    if "data" in credentials:
        return str(credentials["data"])
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
    return hashlib.sha256(credentials["Data"]["ClientId"].encode() + key).hexdigest()


def remember(runner: dict[str, Any]) -> None:
    """Writes the two files of the real one, the first with its byte order mark."""
    settings = {name: runner[name] for name in ("agentId", "poolId", "agentName", "ephemeral")}
    settings.update({"serverUrl": runner["server"], "gitHubUrl": runner["url"]})
    Path(".runner").write_text(json.dumps(settings), "utf-8-sig")
    credentials = {"scheme": "OAuth", "data": runner["secret"]}
    Path(".credentials").write_text(json.dumps(credentials), "utf-8")
    Path(".credentials").chmod(0o600)


def root_of(url: str) -> str:
    """The owner in GitHub's API, such as `orgs/octo`, of the URL of a repository, organization or
    enterprise."""
    path = url.partition("://")[2].partition("/")[2]
    if path.startswith("enterprises/"):
        return path
    return ("repos/" if "/" in path else "orgs/") + path


def remove(options: argparse.Namespace) -> int:
    if not Path(".runner").exists():
        print(
            "Cannot connect to server, because config files are missing. Skipping removing runner"
            " from the server."
        )
        return SUCCESS
    runner = settings()
    if "data" not in json.loads(Path(".credentials").read_text("utf-8")):
        # ConfigurationManager.cs: a just-in-time runner was never configured with a URL for this.
        # actions/runner#2920
        print("Failed: Removing runner from the server")
        return TERMINATED
    login = "RemoteAuth " + options.token
    body = {"runner_event": "remove", "url": runner["githuburl"]}
    found = tenant(runner["serverurl"], body, login)
    if found["use_v2_flow"]:
        path = "/api/v3/%s/actions/runners/%d" % (root_of(runner["githuburl"]), runner["agentid"])
        call(runner["serverurl"], path, {}, login, "DELETE")
    else:
        path = f"_apis/distributedtask/pools/{runner['poolid']}/agents/{runner['agentid']}"
        path += "?api-version=6.0-preview"
        call(found["url"], path, {}, "Bearer " + found["token"], "DELETE")
    forget()
    print("√ Runner removed successfully")
    return SUCCESS


def forget() -> None:
    for name in (".runner", ".credentials", ".credentials_rsaparams"):
        if Path(name).exists():
            Path(name).unlink()


class Listener:
    """Listens for jobs, and starts a worker for each, one at a time."""

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
                if job["fate"] == "orphans":  # actions/runner#4598
                    return SUCCESS
                if not self.work(job):
                    return RETRYABLE
                if self.settings["ephemeral"]:
                    forget()
                    return SUCCESS
        self.say("close")
        print("Exiting...")
        return SUCCESS

    def work(self, job: dict[str, Any]) -> bool:
        """Runs a job, and checks meanwhile whether it was cancelled. The worker gets signals
        itself, as it is in the same process group. Returns whether the job was reported."""
        falls = FALL_SECONDS if job["fate"] == "falls" else float("inf")
        falls += time.monotonic()
        log("Running job: %s" % job["name"])
        message = json.dumps({**job, "runner": self.settings["agentname"]}).encode()
        worker = subprocess.Popen(
            ["./bin/Runner.Worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(message)
        worker.stdin.close()
        cancelled = False
        while worker.poll() is None:
            if time.monotonic() > falls:  # actions/runner#2286
                worker.kill()
                print("An error occurred: Object reference not set to an instance.", flush=True)
                return False
            try:
                if self.say("watch")["cancelled"] and not cancelled:
                    cancelled = True
                    worker.send_signal(signal.SIGUSR1)
            except (NoRunner, OSError):
                pass
            time.sleep(0.2)
        result = json.loads(worker.stdout.read() or b'{"conclusion": "failure", "notes": []}')
        for _ in range(20):
            try:
                self.say("completed", **result)
                break
            except OSError:
                time.sleep(0.5)
        results = {"success": "Succeeded", "failure": "Failed"}
        shown = results.get(result["conclusion"], "Canceled")
        log("Job %s completed with result: %s" % (job["name"], shown))
        return True


def log(text: str) -> None:
    print("%s: %s" % (datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ"), text), flush=True)


def main(argv: list[str]) -> int:
    command = argv[0]
    options, unknown = parser(command).parse_known_args(argv[1:])
    if unknown:
        print(
            "Unrecognized command-line input arguments for command %s: '%s'. For usage refer to:"
            " .\\config.cmd --help" % (command, ", ".join(unknown))
        )
        return TERMINATED
    for key, value in inputs_from_environment().items():
        setattr(options, key, value)
    try:
        if command == "configure":
            return configure(options)
        if command == "remove":
            return remove(options)
        if options.jitconfig:
            unpack(options.jitconfig)
        if not Path(".runner").exists():
            print("Runner is not configured.")
            return TERMINATED
        return Listener().listen()
    except (NoRunner, OSError, ValueError) as error:
        print("An error occurred: %s" % error)
        return TERMINATED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
