"""Story 4, this machine as the runner: the agent in the foreground, without root, without an end
of the machine.

The same agent as on a cloud's machine, but in this process: the runner program is kept in a
cache, what else it writes is removed at the end, and a guard sees to it that the runner never
outlives it.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
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
from runner_action.model import App, Download, Identity, Launched, Registration, Run
from runner_action.request import LaunchRequest
from runner_action.runners import console
from runner_action.runners.reuse import Reusing, labels_with, launched_of, refuse_taken
from runner_action.waiting import SystemClock

log = logging.getLogger(__name__)
SYSTEMS = {"Linux": "linux", "Darwin": "macos"}
MACHINES = {"x86_64": "x64", "amd64": "x64", "aarch64": "arm64", "arm64": "arm64"}
Hearing = Callable[[Callable[[], None]], AbstractContextManager[None]]


def live(
    request: LaunchRequest,
    run: Run,
    forge: Forge,
    environ: Mapping[str, str],
    folder: Path,
    hearing: Hearing,
    online: Callable[[Launched], None],
) -> int:
    """Until the runner has left; the agent's exit code. `folder` holds the cache and what is
    written meanwhile; `hearing` passes signals on to the agent; `online` is called as soon as
    the runner, or the one that serves instead, is there.
    """
    asked = request.labels
    if (
        platform.system() == "Linux"
    ):  # jobs are the same user, and could read the token from this process
        close_memory()
    system, architecture = platform_of(platform.system(), platform.machine())
    refuse_root(environ)
    listed = forge.runners()
    if reused := Reusing(request, run, forge, SystemClock()).claim(listed):
        online(launched_of(reused[0], request.labels, 0.0))
        return 0
    identity = Identity(name=request.name or run.derived_name, key=run.key)
    refuse_taken(listed, {identity.name})
    download = forge.download(architecture, request.runner_version, system)
    if request.dry_run:
        log.info(
            "This machine would become runner %s with %s; nothing was done.",
            identity.name,
            download.url.rsplit("/", 1)[-1],
        )
        return 0
    archive, request = (
        kept(download, folder),
        replace(request, labels=labels_with(request.labels, run)),
    )
    home = folder / identity.name
    if left := remove_home(home):
        hint = "Unmount or remove it yourself, or give the runner another `name`."
        raise MachineFailed(f"An earlier run left {left}", hint)
    joining = register(request, forge, identity, architecture, system)
    try:
        spec = bootstrap.spec_of(
            request,
            identity.name,
            joining,
            replace(download, url=archive.as_uri(), token=None),
            forge.api_url,
            None,
        )
        # On this machine the token need not be left anywhere: it is in this process only.
        spec = replace(
            spec, api_token=None if isinstance(request.token, App) else request.token.reveal()
        )
        home.mkdir(parents=True)
        if request.checkpoint_script:
            (home / "checkpoint.sh").write_text(bootstrap.runnable(request.checkpoint_script))
        return _agent(
            spec,
            home,
            environ,
            hearing,
            lambda: online(
                Launched(
                    runner_name=identity.name,
                    label=run.derived_name,
                    labels=asked,
                    reused=False,
                    launch_seconds=0.0,
                )
            ),
        )
    finally:
        if left := remove_home(home):
            log.warning("Not everything of the runner could be removed, there is left %s", left)
        forget(forge, identity.name, joining)


def remove_home(home: Path) -> str:
    """Removes what a runner wrote, and what its jobs left; says what could not be removed, if
    anything."""
    unmount(home)
    return "; ".join(remove_tree(home)[:3])


def unmount(folder: Path) -> None:
    """Takes off what jobs mounted in user space there and left, which nobody needs to be root for.

    https://man7.org/linux/man-pages/man1/fusermount3.1.html
    """
    tool = shutil.which("fusermount3") or shutil.which("fusermount")
    mounts = Path("/proc/self/mountinfo")
    if tool is None or not mounts.exists():
        return
    # Fields are parted by blanks; blanks and backslashes of a name are told by their octal numbers.
    for line in reversed(mounts.read_bytes().split(b"\n")[:-1]):
        place = re.sub(rb"\\(\d{3})", lambda octal: bytes([int(octal[1], 8)]), line.split(b" ")[4])
        if b" - fuse" in line and place.startswith(os.fsencode(folder.resolve()) + b"/"):
            subprocess.run([tool, "-u", "-z", place], capture_output=True, check=False)


def _agent(
    spec: AgentSpec,
    home: Path,
    environ: Mapping[str, str],
    hearing: Hearing,
    online: Callable[[], None],
) -> int:
    def say(stage: str, **facts: object) -> None:
        level, text = console.sentence(stage, facts)
        for secret in spec.secrets():
            text = text.replace(secret, "***")
        log.log(level, "%s", text)
        if stage == "online":
            online()

    agent = Agent(spec, home, dict(environ), say, guard=guard.COMMAND)
    with hearing(agent.signal):
        return agent.live()


def refuse_root(environ: Mapping[str, str]) -> None:
    """Jobs of root would own this machine; actions/runner refuses that too, but not before it is
    registered."""
    if os.geteuid() == 0 and not environ.get("RUNNER_ALLOW_RUNASROOT"):
        raise InputError(
            [
                (
                    "root may not run jobs: start this as an ordinary user, or set"
                    " RUNNER_ALLOW_RUNASROOT=1 in a container"
                )
            ]
        )


def platform_of(system: str, machine: str) -> tuple[str, str]:
    """Our words for what Python calls this machine. Raises InputError where the forge's runner
    does not run."""
    if system not in SYSTEMS or machine.lower() not in MACHINES:
        raise InputError(
            [
                (
                    f"{system} on {machine} cannot be a runner: it needs Linux or macOS on x64 or"
                    " arm64; or say where a machine comes from with `cloud`"
                )
            ]
        )
    return SYSTEMS[system], MACHINES[machine.lower()]


def kept(download: Download, folder: Path) -> Path:
    """The runner program's archive in the cache, fetched unless it is there; its checksum is
    right. Raises MachineFailed."""
    archive = folder / download.url.rsplit("/", 1)[-1]
    if archive.exists() and _digest(archive) == download.sha256:
        log.info("The runner program %s is in the cache.", archive.name)
        return archive
    log.info("Downloading %s.", archive.name)
    folder.mkdir(parents=True, exist_ok=True)
    fresh = archive.with_suffix(f".{os.getpid()}")
    try:
        with (
            open_archive(
                download.url, download.token.reveal() if download.token else None
            ) as source,
            fresh.open("wb") as file,
        ):
            shutil.copyfileobj(source, file, 1 << 20)
        if (digest := _digest(fresh)) != download.sha256:
            raise MachineFailed(
                f"{download.url} has checksum {digest}, expected {download.sha256}.",
                "Try again; if it repeats, report it to GitHub or GitLab.",
            )
        return fresh.replace(archive)
    except OSError as error:
        raise MachineFailed(
            f"{download.url} could not be downloaded: {error}", "Check the network and the proxy."
        ) from None
    finally:
        fresh.unlink(missing_ok=True)


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def register(
    request: LaunchRequest, forge: Forge, identity: Identity, architecture: str, system: str
) -> Registration:
    token = None if request.single else forge.registration_token()
    made = (
        Registration(token=token)
        if token
        else forge.register_one(
            identity.name, request.labels, architecture, system, request.max_lifetime
        )
    )
    return (
        replace(made, removal_token=forge.removal_token())
        if isinstance(request.token, App)
        else made
    )


def forget(forge: Forge, name: str, joining: Registration) -> None:
    """The agent has done this in order; this is for when it could not."""
    try:
        if forge.deregister(name, joining.runner_id, twins=True):
            log.info("Deregistered runner %s.", name)
    except ForgeError as error:
        log.error("Runner %s is still registered: %s", name, error)
