"""`launch` without a cloud: this machine is the runner.

Runs the same agent as on a cloud's machine, but in this process, in the foreground and without
root, and it never shuts the machine down. The runner program is kept in a cache; everything else
that it writes is removed at the end. A guard ends the runner if this process is killed.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from runner_action import bootstrap
from runner_action.agent import guard
from runner_action.agent.download import open_archive
from runner_action.agent.pod import close_memory
from runner_action.agent.removal import remove_tree
from runner_action.agent.run import Agent
from runner_action.agent.spec import AgentSpec
from runner_action.errors import ForgeError, InputError, MachineFailed
from runner_action.forges.base import Forge
from runner_action.model import App, Download, Identity, Launched, Registration, Run, Runner
from runner_action.naming import local_name
from runner_action.request import LaunchRequest
from runner_action.runners import console
from runner_action.runners.reuse import Reusing, labels_with, launched_of, refuse_taken, unused
from runner_action.runners.siblings import Siblings
from runner_action.waiting import SystemClock

log = logging.getLogger(__name__)
SYSTEMS = {"Linux": "linux", "Darwin": "macos"}
MACHINES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}
WOULD_BECOME = "This machine would become runner %s with %s; nothing was done."
PassingSignals = Callable[[Callable[[], None]], AbstractContextManager[None]]
"""While its block runs, every signal calls the function that it is given."""


@dataclass(frozen=True)
class Surroundings:
    """What the agent needs of this process. `cache` holds the runner program, and while a runner
    lives, the folder of that runner."""

    environ: Mapping[str, str]
    cache: Path
    passing_signals: PassingSignals


def live(
    request: LaunchRequest,
    siblings: Siblings,
    forge: Forge,
    surroundings: Surroundings,
    publish: Callable[[Launched], None],
) -> int:
    """Runs the agent until the runner has left; returns its exit code. Calls `publish` once the
    runner is online, or with an existing one that is reused; in that case it returns at once."""
    system, architecture = platform_of(platform.system(), platform.machine())
    refuse_root(surroundings.environ)
    if system == "linux":
        # Jobs run as the same user, and could read the token in this process.
        close_memory()
    listed = forge.runners()
    run = siblings.run if request.name else unused(siblings.run, None, listed, siblings.another)
    if reused := Reusing(request, run, forge, SystemClock()).claim(listed):
        publish(launched_of(reused[0], request, 0.0))
        return 0
    identity = Identity(name=local_name(request.name or run.derived_name), key=run.key)
    refuse_taken(listed, {identity.name})
    download = forge.download(architecture, request.runner_version, system)
    if request.dry_run:
        log.info(WOULD_BECOME, identity.name, download.url.rsplit("/", 1)[-1])
        return 0
    local = replace(download, url=cached(download, surroundings.cache).as_uri(), token=None)
    free_name(identity.name, listed, forge)
    home = surroundings.cache / identity.name
    clear_home(home)
    labelled = replace(request, labels=labels_with(request, run))
    registration = register(labelled, forge, identity, architecture, system)
    launched = _launched(identity.name, run, request)
    try:
        spec = _spec_of(labelled, identity.name, registration, local, forge.api_url)
        fill_home(home, request.checkpoint_script)
        return _run_agent(spec, home, surroundings, lambda: publish(launched))
    finally:
        if left := remove_home(home):
            log.warning("Could not remove all files of the runner: %s", "; ".join(left))
        forget(forge, identity.name, replace(registration, label=run.derived_name))


def _launched(name: str, run: Run, request: LaunchRequest) -> Launched:
    return Launched(
        runner_name=name,
        label=run.derived_name,
        labels=request.labels,
        reused=False,
        launch_seconds=0.0,
    )


def _spec_of(
    request: LaunchRequest, name: str, registration: Registration, download: Download, api_url: str
) -> AgentSpec:
    """On this machine the spec has the token, as it is only in the memory of this process."""
    spec = bootstrap.spec_of(request, name, registration, download, api_url, None)
    token = None if isinstance(request.token, App) else request.token.reveal()
    return replace(spec, api_token=token)


def clear_home(home: Path) -> None:
    """Removes what an earlier runner of this name left. Raises MachineFailed."""
    if left := remove_home(home):
        hint = "Unmount or remove it yourself, or give the runner another `name`."
        files = "; ".join(left)
        raise MachineFailed(f"An earlier run left files that cannot be removed: {files}", hint)


def fill_home(home: Path, checkpoint_script: str | None) -> None:
    """Creates the folder of a runner."""
    home.mkdir(parents=True)
    if checkpoint_script:
        (home / "checkpoint.sh").write_text(bootstrap.runnable(checkpoint_script))


def remove_home(home: Path) -> list[str]:
    """Removes what a runner and its jobs wrote. Returns up to three files that could not be
    removed, each with the reason."""
    unmount(home)
    return remove_tree(home)[:3]


def unmount(folder: Path) -> None:
    """Unmounts what jobs mounted below the folder in user space, which needs no root.

    https://man7.org/linux/man-pages/man1/fusermount3.1.html
    """
    tool = shutil.which("fusermount3") or shutil.which("fusermount")
    mounts = Path("/proc/self/mountinfo")
    if tool is None or not mounts.exists():
        return
    # Fields are separated by blanks; a blank or a backslash in a name is written in octal.
    for line in reversed(mounts.read_bytes().split(b"\n")[:-1]):
        place = re.sub(rb"\\(\d{3})", lambda octal: bytes([int(octal[1], 8)]), line.split(b" ")[4])
        if b" - fuse" in line and place.startswith(os.fsencode(folder.resolve()) + b"/"):
            subprocess.run([tool, "-u", "-z", place], capture_output=True, check=False)


def _run_agent(
    spec: AgentSpec, home: Path, surroundings: Surroundings, online: Callable[[], None]
) -> int:
    """Runs the agent, logs its entries as sentences without secrets, and returns its exit code."""

    def say(stage: str, **facts: object) -> None:
        level, text = console.sentence(stage, facts)
        for secret in spec.secrets():
            text = text.replace(secret, "***")
        log.log(level, "%s", text)
        if stage == "online":
            online()

    agent = Agent(spec, home, dict(surroundings.environ), say, guard=guard.COMMAND)
    with surroundings.passing_signals(agent.signal):
        return agent.live()


def refuse_root(environ: Mapping[str, str]) -> None:
    """Raises InputError for root, whose jobs would own this machine. actions/runner refuses it,
    too, but only after it is registered."""
    if os.geteuid() == 0 and not environ.get("RUNNER_ALLOW_RUNASROOT"):
        problem = (
            "root may not run jobs: start this as an ordinary user, or set"
            " RUNNER_ALLOW_RUNASROOT=1 in a container"
        )
        raise InputError([problem])


def platform_of(system: str, machine: str) -> tuple[str, str]:
    """The runner program's names for what Python calls this machine. Raises InputError if there is
    no program for it."""
    if system not in SYSTEMS or machine.lower() not in MACHINES:
        problem = (
            f"{system} on {machine} cannot be a runner, which needs Linux or macOS on x64 or"
            " arm64; use another machine, or set `cloud`"
        )
        raise InputError([problem])
    return SYSTEMS[system], MACHINES[machine.lower()]


def cached(download: Download, folder: Path) -> Path:
    """The runner program's archive in the cache, downloaded if it is not there, with the expected
    checksum. Raises MachineFailed."""
    archive = folder / download.url.rsplit("/", 1)[-1]
    if archive.exists() and _digest(archive) == download.sha256:
        log.info("Using the runner program %s from the cache.", archive.name)
        return archive
    log.info("Downloading %s.", archive.name)
    folder.mkdir(parents=True, exist_ok=True)
    partial = archive.with_suffix(f".{os.getpid()}")
    token = download.token.reveal() if download.token else None
    try:
        with open_archive(download.url, token) as source, partial.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
        if (digest := _digest(partial)) != download.sha256:
            raise MachineFailed(
                f"{download.url} has checksum {digest}, expected {download.sha256}.",
                "Try again; if it keeps failing, report it to GitHub or GitLab.",
            )
        return partial.replace(archive)
    except OSError as error:
        raise MachineFailed(
            f"Could not download {download.url}: {error}", "Check the network and the proxy."
        ) from None
    finally:
        partial.unlink(missing_ok=True)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def register(
    request: LaunchRequest, forge: Forge, identity: Identity, architecture: str, system: str
) -> Registration:
    """Registers the runner, or gets the token with which the agent does."""
    token = None if request.single else forge.registration_token()
    if token:
        registration = Registration(token=token)
    else:
        registration = forge.register_one(
            identity.name, request.labels, architecture, system, request.max_lifetime
        )
    if isinstance(request.token, App):
        return replace(registration, removal_token=forge.removal_token())
    return registration


def free_name(name: str, listed: Sequence[Runner], forge: Forge) -> None:
    """Deregisters a runner of this name that was left behind: it is offline (`refuse_taken`)."""
    if any(runner.name == name for runner in listed):
        forge.deregister(name)


def forget(forge: Forge, name: str, registration: Registration) -> None:
    """Deregisters the runner if the agent could not."""
    try:
        if forge.deregister(name, registration.runner_id, twins=True, label=registration.label):
            log.info("Deregistered runner %s.", name)
    except ForgeError as error:
        log.error("Runner %s is still registered: %s", name, error)
