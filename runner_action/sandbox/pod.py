"""One pod as a local process tree, as its kubelet would run it: sidecars first, then its containers, probes, grace, and an end that nothing survives.

`python -m runner_action.sandbox.pod FOLDER PYTHON TIMER_FACTOR TRUSTED` is the supervisor; FOLDER holds `user-data`: the pod, and the Secrets that its volumes
name. Its output is the log of the container `runner`, its exit code that container's; SIGTERM is the deletion. If its parent dies, the pod ends too.
"""

from __future__ import annotations

import base64
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from runner_action.sandbox.machine import PR_SET_CHILD_SUBREAPER, kill_descendants
from runner_action.sandbox.systemd import die_with_parent

Json = dict[str, Any]
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Pod:
    """The kubelet's side of one pod, below `folder`: a folder for each volume, and one for each container's own files."""

    def __init__(self, folder: Path, python: str, factor: float) -> None:
        told = json.loads((folder / "user-data").read_bytes())
        self.pod: Json = told["pod"]
        self.spec: Json = self.pod["spec"]
        self._folder, self._python, self._factor = folder, python, factor
        self._deleted = threading.Event()
        for volume in self.spec.get("volumes") or ():
            place = folder / "volumes" / volume["name"]
            place.mkdir(parents=True)
            for key, text in told["secrets"].get((volume.get("secret") or {}).get("secretName"), {}).items():
                (place / key).touch(0o440)
                (place / key).chmod(0o640)
                (place / key).write_bytes(base64.b64decode(text))
                (place / key).chmod(0o440)
        (folder / "bin").mkdir()
        (folder / "bin/python3").symlink_to(python)

    def live(self) -> int:
        """Until its containers have ended; the exit code of the first. What is left of it is killed."""
        parent = os.getppid()
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._deleted.set())
        sidecars = [self._start(one) for one in self.spec.get("initContainers") or () if one.get("restartPolicy") == "Always"]
        containers = [self._start(one) for one in self.spec["containers"]]
        for container, process in zip(self.spec["containers"], containers, strict=True):
            threading.Thread(target=self._probe, args=(container, process), daemon=True).start()
        ends = None
        while any(process.poll() is None for process in containers):
            if ends is None and (self._deleted.is_set() or os.getppid() != parent):
                ends = time.monotonic() + float(self.spec.get("terminationGracePeriodSeconds", 30))
                for process in containers:
                    process.terminate()
            if ends is not None and time.monotonic() > ends:
                break
            time.sleep(0.02)
        # Sidecars come last, within what is left of the grace; when the containers ended by themselves, with a grace of their own.
        ends = ends if ends is not None else time.monotonic() + float(self.spec.get("terminationGracePeriodSeconds", 30))
        for process in reversed(sidecars):
            process.terminate()
            try:
                process.wait(max(0.1, ends - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
        code = containers[0].poll()
        kill_descendants(os.getpid())
        return 137 if code is None else code if code >= 0 else 128 - code

    # --- containers

    def _start(self, container: Json) -> subprocess.Popen[bytes]:
        """Process 1 of a container. What ends when it ends is all of the container: here, its session."""
        argv = [*(container.get("command") or ["true"]), *(container.get("args") or ())]
        out = None if container["name"] == "runner" else (self._folder / f"{container['name']}.log").open("wb")
        env = self._environment(container)
        where = self._inside(container, container.get("workingDir", "/"))
        Path(where).mkdir(parents=True, exist_ok=True)
        return subprocess.Popen(
            [self._inside(container, word) for word in argv],
            cwd=where,
            env=env,
            stdout=out,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
        )

    def _inside(self, container: Json, text: str) -> str:
        """Its mounts, and for all else nothing: a command must not name other files."""
        for mount in sorted(container.get("volumeMounts") or (), key=lambda one: -len(one["mountPath"])):
            text = text.replace(mount["mountPath"], str(self._folder / "volumes" / mount["name"]))
        return str(self._folder / "root") if text == "/" else text

    def _environment(self, container: Json) -> dict[str, str]:
        """Nothing of the parent's. Jobs may be root: the sandbox makes no users."""
        fields = {"metadata.name": self.pod["metadata"]["name"], "metadata.namespace": self.pod["metadata"]["namespace"]}
        fields["metadata.uid"] = self.pod["metadata"]["uid"]
        for kind in ("labels", "annotations"):
            fields |= {f"metadata.{kind}['{key}']": value for key, value in (self.pod["metadata"].get(kind) or {}).items()}
        given = {one["name"]: one["value"] if "value" in one else fields[one["valueFrom"]["fieldRef"]["fieldPath"]] for one in container.get("env") or ()}
        base = {"PATH": f"{self._folder}/bin:{PATH}", "HOME": "/root", "LANG": "C.UTF-8", "RUNNER_ALLOW_RUNASROOT": "1", "HOSTNAME": fields["metadata.name"]}
        return base | {key: self._inside(container, value) for key, value in given.items()}

    def _probe(self, container: Json, process: subprocess.Popen[bytes]) -> None:
        """The liveness probe: after so many failures the container is told to end, and then killed."""
        probe = container.get("livenessProbe")
        failures = 0
        time.sleep(float((probe or {}).get("initialDelaySeconds", 0)) * self._factor)
        while probe and process.poll() is None:
            argv = [self._inside(container, word) for word in probe["exec"]["command"]]
            where = self._inside(container, container.get("workingDir", "/"))
            try:
                done = subprocess.run(
                    argv, cwd=where, env=self._environment(container), timeout=probe.get("timeoutSeconds", 1), capture_output=True, check=False
                )
                failures = failures + 1 if done.returncode else 0
            except subprocess.TimeoutExpired:
                failures += 1
            if failures >= probe.get("failureThreshold", 3):
                print("pod: liveness probe failed", flush=True)
                process.terminate()
                time.sleep(float(self.spec.get("terminationGracePeriodSeconds", 30)) * self._factor)
                process.kill()
            time.sleep(float(probe.get("periodSeconds", 10)) * self._factor)


if __name__ == "__main__":
    sys.exit(Pod(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])).live())
