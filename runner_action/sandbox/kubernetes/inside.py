"""A container of a pod from inside: its user, one more process in it, volumes that it may fill."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from runner_action.sandbox.kubernetes.nodes import amount
from runner_action.sandbox.kubernetes.shelf import Json

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def overfull(spec: Json, folder: Path) -> str:
    """Why a kubelet evicts the pod in this folder, at once; empty if it does not.
    https://github.com/kubernetes/kubernetes: pkg/kubelet/eviction/eviction_manager.go"""
    for volume in spec.get("volumes") or ():
        kind = volume.get("emptyDir") or {}
        limit = kind.get("sizeLimit")
        if not limit or kind.get("medium") == "Memory":
            continue
        place = folder / "volumes" / volume["name"]
        if sum(file.stat().st_size for file in place.iterdir()) > amount(limit):
            return f'Usage of EmptyDir volume "{volume["name"]}" exceeds the limit "{limit}". '
    return ""


def as_user(spec: Json, container: Json) -> list[str]:
    """A command that becomes the container's user, for good."""
    told = {**(spec.get("securityContext") or {}), **(container.get("securityContext") or {})}
    user = told.get("runAsUser", 0)
    group = told.get("runAsGroup", 0)
    rights = ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    return [
        "setpriv",
        f"--reuid={user}",
        f"--regid={group}",
        f"--groups={told.get('fsGroup', group)}",
        *rights,
        "--",
    ]


def enter(
    folder: Path,
    spec: Json,
    container: Json,
    argv: list[str],
    env: dict[str, str],
    walls: bool,
    seconds: float,
) -> subprocess.CompletedProcess[bytes]:
    """One more process in a container that runs: what its files, its processes and its user can
    do. Raises subprocess.TimeoutExpired."""
    first = (folder / f"{container['name']}.pid").read_text()
    working = container.get("workingDir", "/")
    volumes = {
        one["mountPath"]: folder / "volumes" / one["name"]
        for one in container.get("volumeMounts") or ()
    }
    where = str(volumes.get(working, folder / "root"))
    into = (
        [
            "nsenter",
            "--target",
            first,
            "--mount",
            "--ipc",
            "--pid",
            f"--wdns={where}",
            *as_user(spec, container),
        ]
        if walls
        else []
    )
    return subprocess.run(
        [*into, *argv], cwd=where, env=env, timeout=seconds, capture_output=True, check=False
    )


def execute(
    folder: Path, name: str, argv: list[str], seconds: float = 60
) -> subprocess.CompletedProcess[bytes]:
    """What `kubectl exec --container=NAME` does in the pod of a folder: whoever may `pods/exec`
    is the container's user, and sees what it mounts. Raises LookupError for a container that
    does not run."""
    spec = json.loads((folder / "user-data").read_bytes())["pod"]["spec"]
    container = next(
        (
            one
            for one in [*spec.get("initContainers", ()), *spec["containers"]]
            if one["name"] == name
        ),
        None,
    )
    mark = folder / f"{name}.pid"
    first = mark.read_text() if mark.exists() else ""
    if container is None or not first or not Path(f"/proc/{first}/ns/mnt").exists():
        raise LookupError(f'container not found ("{name}")')
    walls = os.readlink(f"/proc/{first}/ns/mnt") != os.readlink("/proc/self/ns/mnt")
    return enter(
        folder, spec, container, argv, {"PATH": f"{folder}/bin:{PATH}", "HOME": "/"}, walls, seconds
    )
