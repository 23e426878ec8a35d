"""One pod as a local process tree, as its kubelet would run it: initial containers one after the
other, sidecars, its containers, probes, grace, and an end that nothing survives.

`python -m runner_action.sandbox.kubernetes.pod FOLDER PYTHON TIMER_FACTOR [walls]` is the
supervisor; FOLDER holds `user-data`: the pod, and the Secrets that its volumes name. Its output is
the log of the container `runner`, its exit code that container's; SIGTERM is the deletion. If its
parent dies, the pod ends too.

With `walls`, which only root can have, each container has a view of its own: the volumes that it
mounts, as it mounts them, its own processes, its own user, and no rights. Without, a container
is what its paths say, and nothing more.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from runner_action.sandbox.kubernetes.inside import PATH, as_user, enter, overfull
from runner_action.sandbox.machine.machine import PR_SET_CHILD_SUBREAPER, kill_descendants
from runner_action.sandbox.machine.systemd import die_with_parent

Json = dict[str, Any]
WALLS = (
    "unshare",
    "--mount",
    "--ipc",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "--propagation",
    "private",
)
BACKOFF = 10.0
"""Seconds until a sidecar that has ended is started again; later twice as long, which is too
long for a story.
https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy"""


class Container:
    """One that was started. With walls the process is `unshare`'s, and the container's first is
    its child."""

    def __init__(self, process: subprocess.Popen[bytes], walls: bool) -> None:
        self.process = process
        self._walls = walls

    def first(self) -> int | None:
        """The number of its process 1, as seen from outside; None before there is one, or after
        its end."""
        if not self._walls:
            return self.process.pid
        try:
            children = (
                Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
                .read_text()
                .split()
            )
        except OSError:
            return None
        return int(children[0]) if children else None

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: int) -> None:
        first = self.first()
        if first and self.process.poll() is None:
            try:
                os.kill(first, number)
            except ProcessLookupError:
                pass


class Pod:
    """The kubelet's side of one pod, below `folder`: a folder for each volume, and one for each
    container's own files."""

    def __init__(self, folder: Path, python: str, factor: float, walls: bool = False) -> None:
        told = json.loads((folder / "user-data").read_bytes())
        self.pod: Json = told["pod"]
        self.spec: Json = self.pod["spec"]
        self._folder = folder
        self._python = python
        self._factor = factor
        self._walls = walls
        self._deleted = threading.Event()
        self._ends: float | None = None
        group = (self.spec.get("securityContext") or {}).get("fsGroup", 0)
        for volume in self.spec.get("volumes") or ():
            place = folder / "volumes" / volume["name"]
            place.mkdir(parents=True)
            for key, text in (
                told["secrets"].get((volume.get("secret") or {}).get("secretName"), {}).items()
            ):
                (place / key).touch(0o640)
                (place / key).write_bytes(base64.b64decode(text))
                (place / key).chmod(0o440)
                if walls:
                    os.chown(place / key, 0, group)
            for item in (volume.get("downwardAPI") or {}).get("items") or ():
                (place / item["path"]).write_text(self._fields()[item["fieldRef"]["fieldPath"]])
            if walls and "secret" not in volume:
                os.chown(place, 0, group)
                place.chmod(0o2777)
        (folder / "nothing").mkdir()
        (folder / "bin").mkdir()
        (folder / "bin/python3").symlink_to(python)

    def live(self) -> int:
        """Until its containers have ended; the exit code of the first. What is left of it is
        killed."""
        parent = os.getppid()
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._deleted.set())
        sidecars: list[Container] = []
        if failed := self._initialise(sidecars):
            kill_descendants(os.getpid())
            return failed
        containers = [self._start(one) for one in self.spec["containers"]]
        for container, made in zip(self.spec["containers"], containers, strict=True):
            threading.Thread(target=self._probe, args=(container, made), daemon=True).start()
        grace = float(self.spec.get("terminationGracePeriodSeconds", 30))
        self._outlast(containers, parent, grace)
        # Sidecars come last, within what is left of the grace; when the containers ended by
        # themselves, with a grace of their own.
        self._end(sidecars, self._ends if self._ends is not None else time.monotonic() + grace)
        code = containers[0].process.poll()
        kill_descendants(os.getpid())
        if code is None:
            return 137
        return code if code >= 0 else 128 - code

    def _initialise(self, sidecars: list[Container]) -> int:
        """Runs the init containers, one after the other, and fills `sidecars` with those that go
        on. Returns the exit code of the first that failed, or 0."""
        for one in self.spec.get("initContainers") or ():
            started = self._start(one)
            if one.get("restartPolicy") == "Always":
                sidecars.append(started)
                threading.Thread(
                    target=self._restart, args=(one, sidecars, len(sidecars) - 1), daemon=True
                ).start()
            elif failed := started.process.wait():
                (self._folder / "failed").write_text(one["name"])
                return failed
        return 0

    def _outlast(self, containers: list[Container], parent: int, grace: float) -> None:
        """Until all have ended, or, once the pod is deleted or its parent gone, for `grace`
        seconds."""
        while any(one.process.poll() is None for one in containers):
            if self._ends is None and (self._deleted.is_set() or os.getppid() != parent):
                self._ends = time.monotonic() + grace
                for made in containers:
                    made.terminate()
            if self._ends is not None and time.monotonic() > self._ends:
                break
            if why := overfull(self.spec, self._folder):
                (self._folder / "evicted").write_text(why)
                kill_descendants(os.getpid())
                break
            time.sleep(0.02)

    @staticmethod
    def _end(sidecars: list[Container], ends: float) -> None:
        for made in reversed(sidecars):
            made.terminate()
            try:
                made.process.wait(max(0.1, ends - time.monotonic()))
            except subprocess.TimeoutExpired:
                made.kill()

    # --- containers

    def _start(self, container: Json) -> Container:
        """Process 1 of a container. What ends when it ends is all of the container: here, its
        session."""
        argv = [
            self._inside(container, word)
            for word in [*(container.get("command") or ["true"]), *(container.get("args") or ())]
        ]
        out = (
            None
            if container["name"] == "runner"
            else (self._folder / f"{container['name']}.log").open("ab")
        )
        env = self._environment(container)
        where = self._inside(container, container.get("workingDir", "/"))
        Path(where).mkdir(parents=True, exist_ok=True)
        process = subprocess.Popen(
            self._walled(container, argv) if self._walls else argv,
            cwd=where,
            env=env,
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
        )
        made = Container(process, self._walls)
        while self._walls and made.first() is None and process.poll() is None:
            time.sleep(0.005)
        (self._folder / f"{container['name']}.pid").write_text(str(made.first() or ""))
        return made

    def _walled(self, container: Json, argv: list[str]) -> list[str]:
        """What a container does not mount it does not see, and what it mounts read-only it
        cannot write."""
        mounts = {one["name"]: one for one in container.get("volumeMounts") or ()}
        lines = [f"mount --bind /dev/null {shlex.quote(str(self._folder / 'user-data'))}"]
        for volume in self.spec.get("volumes") or ():
            place = shlex.quote(str(self._folder / "volumes" / volume["name"]))
            if volume["name"] not in mounts:
                lines.append(f"mount --bind {shlex.quote(str(self._folder / 'nothing'))} {place}")
            elif mounts[volume["name"]].get("readOnly") or "secret" in volume:
                lines.append(f"mount --bind {place} {place} && mount -o remount,bind,ro {place}")
        # The folder that it began in is of before; and the shell that does this must not be there
        # any more.
        lines += ['cd "$PWD"', f'exec {shlex.join(as_user(self.spec, container))} "$@"']
        return [*WALLS, "sh", "-ec", "\n".join(lines), "sh", *argv]

    def _inside(self, container: Json, text: str) -> str:
        """Its mounts, and for all else nothing: a command must not name other files."""
        for mount in sorted(
            container.get("volumeMounts") or (), key=lambda one: -len(one["mountPath"])
        ):
            text = text.replace(mount["mountPath"], str(self._folder / "volumes" / mount["name"]))
        return str(self._folder / "root") if text == "/" else text

    def _fields(self) -> dict[str, str]:
        """What containers may read of their pod."""
        fields = {
            "metadata.name": self.pod["metadata"]["name"],
            "metadata.namespace": self.pod["metadata"]["namespace"],
        }
        fields["metadata.uid"] = self.pod["metadata"]["uid"]
        for kind in ("labels", "annotations"):
            fields |= {
                f"metadata.{kind}['{key}']": value
                for key, value in (self.pod["metadata"].get(kind) or {}).items()
            }
        return fields

    def _environment(self, container: Json) -> dict[str, str]:
        """Nothing of the parent's. Without walls jobs may be root: the sandbox makes no users
        then."""
        fields = self._fields()
        given = {
            one["name"]: (
                one["value"]
                if "value" in one
                else fields[one["valueFrom"]["fieldRef"]["fieldPath"]]
            )
            for one in container.get("env") or ()
        }
        who = {"HOME": "/"} if self._walls else {"HOME": "/root", "RUNNER_ALLOW_RUNASROOT": "1"}
        base = {
            "PATH": f"{self._folder}/bin:{PATH}",
            "LANG": "C.UTF-8",
            "HOSTNAME": fields["metadata.name"],
            **who,
        }
        return base | {key: self._inside(container, value) for key, value in given.items()}

    def _restart(self, container: Json, among: list[Container], number: int) -> None:
        """A sidecar that has ended comes again, while the pod lives. One without a command is a
        stand-in's: `true`."""
        while container.get("command") and self._ends is None:
            if among[number].process.poll() is not None:
                time.sleep(BACKOFF * self._factor)
                if self._ends is None:
                    among[number] = self._start(container)
            time.sleep(0.02)

    def _probe(self, container: Json, made: Container) -> None:
        """The liveness probe, in the container: after so many failures it is told to end, and
        then killed."""
        probe = container.get("livenessProbe")
        failures = 0
        time.sleep(float((probe or {}).get("initialDelaySeconds", 0)) * self._factor)
        while probe and made.process.poll() is None:
            argv = [self._inside(container, word) for word in probe["exec"]["command"]]
            try:
                self._slow()
                done = enter(
                    self._folder,
                    self.spec,
                    container,
                    argv,
                    self._environment(container),
                    self._walls,
                    probe.get("timeoutSeconds", 1),
                )
                failures = failures + 1 if done.returncode else 0
            except subprocess.TimeoutExpired:
                failures += 1
            if failures >= probe.get("failureThreshold", 3):
                print("pod: liveness probe failed", flush=True)
                made.terminate()
                time.sleep(float(self.spec.get("terminationGracePeriodSeconds", 30)) * self._factor)
                made.kill()
            time.sleep(float(probe.get("periodSeconds", 10)) * self._factor)

    def _slow(self) -> None:
        """Raises TimeoutExpired once for a file `slow-exec`: kubelets start programs in healthy
        containers late when their node is busy (containerd's issue 5325)."""
        slow = self._folder / "slow-exec"
        if slow.exists():
            slow.unlink()
            raise subprocess.TimeoutExpired("exec", 0)


if __name__ == "__main__":
    sys.exit(
        Pod(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), sys.argv[4:] == ["walls"]).live()
    )
