"""What a cluster's kubelets do: pods of theirs become processes, and what becomes of these is
said in the pods' status."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner_action.sandbox.kubernetes.nodes import OVER, containers, lasting
from runner_action.sandbox.kubernetes.shelf import Json, now
from runner_action.sandbox.machine.systemd import descendants

if TYPE_CHECKING:
    from runner_action.sandbox.kubernetes.api import FakeKubernetes
    from runner_action.sandbox.kubernetes.control import Control


@dataclass
class Kept:
    """What a kubelet remembers of a pod: since when it has it, how often its image could not be
    pulled, when to try again, when to kill."""

    since: float
    pulls: int = 0
    again: float = 0
    kill: float | None = None


class Kubelets:
    """Of all nodes: they bring pods to life, say how they are, and end them."""

    def __init__(self, fake: FakeKubernetes, control: Control) -> None:
        self._fake = fake
        self._shelf = fake.shelf
        self._control = control
        self._pods: dict[str, Kept] = {}
        self._addresses = itertools.count(1)

    def end(self, number: str, seconds: float) -> None:
        """Told to; after so many seconds it is killed."""
        assert self._fake.machines
        self._pods[number].kill = time.monotonic() + seconds + 1
        self._fake.machines.end(number)

    def turn(self, pod: Json) -> None:
        number = pod["metadata"]["uid"]
        machines = self._fake.machines
        kept = self._pods.setdefault(number, Kept(time.monotonic()))
        lives = machines is not None and number in machines.living
        if pod["status"]["phase"] in OVER:
            return
        if lives and machines and not machines.runs(number):
            self._ended(pod, machines.living[number].process.returncode)
        elif "deletionTimestamp" in pod["metadata"]:
            if machines and kept.kill and time.monotonic() > kept.kill:
                kill(machines.living[number].process.pid)
        elif self._fake.kubelet_refusals:
            reason, message = self._fake.kubelet_refusals.pop(0)
            why = f"Pod was rejected: {message}"
            pod["status"].update(phase="Failed", reason=reason, message=why, startTime=now())
            self._control.note(pod, reason, message, "kubelet", warning=True)
            self._shelf.put("pods", pod)
        elif pod["status"]["phase"] == "Pending":
            self._start(pod, kept)

    def _start(self, pod: Json, kept: Kept) -> None:
        """As far as it gets: secrets, images, processes."""
        spec = pod["spec"]
        factor = self._fake.factor
        waited = time.monotonic() - kept.since
        first = "PodInitializing" if spec.get("initContainers") else "ContainerCreating"
        secrets = {
            one["metadata"]["name"]: one.get("data", {})
            for one in self._shelf.of("secrets", pod["metadata"]["namespace"])
        }
        wanted = list(mounted(spec))
        pod["status"].setdefault("startTime", now())
        pod["status"].update(hostIP="10.1.0.1", hostIPs=[{"ip": "10.1.0.1"}])
        if missing := [one for one in wanted if one[1] not in secrets and not one[2]]:
            self._show(pod, lambda _: {"waiting": {"reason": first}})
            if waited >= factor:
                why = (
                    f'MountVolume.SetUp failed for volume "{missing[0][0]}" : secret'
                    f' "{missing[0][1]}" not found'
                )
                self._control.note(pod, "FailedMount", why, "kubelet", warning=True)
            return
        broken = next(
            (one["image"] for one in containers(spec) if one["image"] in self._fake.broken_images),
            None,
        )
        if broken:
            self._no_image(pod, kept, broken, first)
            return
        for one in containers(spec):
            pulled = (
                f'Successfully pulled image "{one["image"]}" in 1.2s (1.2s including waiting).'
                " Image size: 104857600 bytes."
            )
            said = {"Pulling": f'Pulling image "{one["image"]}"', "Pulled": pulled}
            for reason, message in {
                **said,
                "Created": f"Created container: {one['name']}",
                "Started": f"Started container {one['name']}",
            }.items():
                self._control.note(pod, reason, message, "kubelet")
        if self._fake.machines:
            inside = {"pod": pod, "secrets": {name: secrets.get(name, {}) for _, name, _ in wanted}}
            self._fake.machines.boot(pod["metadata"]["uid"], json.dumps(inside).encode())
        address = f"10.0.0.{next(self._addresses)}"
        pod["status"].update(phase="Running", podIP=address, podIPs=[{"ip": address}])
        started = now()
        whole = {
            "terminated": {
                "exitCode": 0,
                "reason": "Completed",
                "startedAt": started,
                "finishedAt": started,
            }
        }
        self._show(
            pod, lambda one: {"running": {"startedAt": started}} if lasting(one, spec) else whole
        )

    def _no_image(self, pod: Json, kept: Kept, image: str, first: str) -> None:
        """Tried and said; backed off from, twice as long each time, and said."""
        why = self._fake.broken_images[image]
        name = next(one["name"] for one in containers(pod["spec"]) if one["image"] == image)
        if time.monotonic() >= kept.again:
            kept.pulls += 1
            kept.again = time.monotonic() + min(300, 10 * 2 ** (kept.pulls - 1)) * self._fake.factor
            waiting = {"reason": "ErrImagePull", "message": why}
            said = [
                ("Pulling", f'Pulling image "{image}"'),
                ("Failed", f'Failed to pull image "{image}": {why}'),
                ("Failed", "Error: ErrImagePull"),
            ]
        else:
            waiting = {
                "reason": "ImagePullBackOff",
                "message": f'Back-off pulling image "{image}": ErrImagePull: {why}',
            }
            said = [
                ("BackOff", f'Back-off pulling image "{image}"'),
                ("Failed", "Error: ImagePullBackOff"),
            ]
        for reason, message in said:
            self._control.note(pod, reason, message, "kubelet", warning=reason == "Failed")
        self._show(
            pod, lambda one: {"waiting": waiting if one["name"] == name else {"reason": first}}
        )

    def _ended(self, pod: Json, code: int) -> None:
        code = code if code >= 0 else 128 - code
        leaving = "deletionTimestamp" in pod["metadata"]
        reason = "OOMKilled" if code == 137 and not leaving else "Error"
        if code == 0:
            reason = "Completed"
        pod["status"]["phase"] = "Succeeded" if code == 0 else "Failed"
        times = {"startedAt": pod["status"]["startTime"], "finishedAt": now()}
        state = {"terminated": {"exitCode": code, "reason": reason, **times}}
        whole = {"terminated": {"exitCode": 0, "reason": "Completed", **times}}
        assert self._fake.machines
        evicted = self._fake.machines.folder / pod["metadata"]["uid"] / "evicted"
        if evicted.exists():
            pod["status"].update(phase="Failed", reason="Evicted", message=evicted.read_text())
        mark = self._fake.machines.folder / pod["metadata"]["uid"] / "failed"
        failed = mark.read_text() if mark.exists() else ""
        self._show(
            pod, lambda one: state if lasting(one, pod["spec"]) or one["name"] == failed else whole
        )
        if leaving:
            self._control.gone(pod)

    def _show(self, pod: Json, state: Callable[[Json], Json]) -> None:
        """The containers' states, and the conditions that follow from them."""
        spec = pod["spec"]
        status = pod["status"]
        for kind in ("initContainers", "containers"):
            if spec.get(kind):
                shown = [
                    container_status(one, state(one), lasts=lasting(one, spec))
                    for one in spec[kind]
                ]
                status[
                    "initContainerStatuses" if kind == "initContainers" else "containerStatuses"
                ] = shown
        unready = " ".join(one["name"] for one in status["containerStatuses"] if not one["ready"])
        over = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(status["phase"])
        initial = spec.get("initContainers") and status["phase"] == "Pending"
        condition(
            status,
            "Initialized",
            "False" if initial else "True",
            "ContainersNotInitialized" if initial else "",
        )
        for kind in ("ContainersReady", "Ready"):
            message = f"containers with unready status: [{unready}]" if unready and not over else ""
            condition(
                status,
                kind,
                "False" if unready else "True",
                (over or "ContainersNotReady") if unready else "",
                message,
            )
        self._shelf.put("pods", pod)


def kill(pid: int) -> None:
    """The supervisor stands still first, so that nothing below it is made meanwhile."""
    try:
        os.kill(pid, signal.SIGSTOP)
        for one in (*descendants(pid), pid):
            os.kill(one, signal.SIGKILL)
    except ProcessLookupError:
        pass


def condition(status: Json, kind: str, value: str, reason: str = "", message: str = "") -> None:
    """Set; its time changes with its value."""
    listed = status.setdefault("conditions", [])
    before = next((one for one in listed if one["type"] == kind), None)
    when = before["lastTransitionTime"] if before and before["status"] == value else now()
    said = {key: text for key, text in (("reason", reason), ("message", message)) if text}
    made = {"type": kind, "status": value, "lastTransitionTime": when, **said}
    if before:
        listed[listed.index(before)] = made
    else:
        listed.append(made)


def mounted(spec: Json) -> Iterable[tuple[str, str, bool]]:
    """Volumes, the Secrets in them, and whether they can be without."""
    for volume in spec.get("volumes", ()):
        sources = [
            volume.get("secret"),
            *(one.get("secret") for one in volume.get("projected", {}).get("sources", ())),
        ]
        yield from (
            (
                volume["name"],
                one.get("secretName") or one.get("name"),
                bool(one.get("optional")),
            )
            for one in sources
            if one
        )


def container_status(container: Json, state: Json, *, lasts: bool) -> Json:
    runs = "running" in state
    image = container["image"]
    digest = uuid.uuid5(uuid.NAMESPACE_OID, image).hex * 2
    ready = runs or (not lasts and state.get("terminated", {}).get("exitCode") == 0)
    held = {
        "image": image,
        "imageID": "" if "waiting" in state else f"{image.partition(':')[0]}@sha256:{digest}",
        "restartCount": 0,
    }
    return {
        "name": container["name"],
        **held,
        "state": state,
        "lastState": {},
        "started": runs,
        "ready": ready,
    }
