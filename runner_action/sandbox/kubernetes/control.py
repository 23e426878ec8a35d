"""What a cluster does behind its API server: Job controller, scheduler, kubelets and garbage
collector, as one thread.

They know nothing but the objects on the shelf, and have their turns under its lock.
"""

from __future__ import annotations

import threading
import uuid
from typing import TYPE_CHECKING

from runner_action.sandbox.kubernetes.jobs import Jobs
from runner_action.sandbox.kubernetes.kubelet import Kubelets, condition, kill
from runner_action.sandbox.kubernetes.nodes import OVER, against, unplaced
from runner_action.sandbox.kubernetes.queues import Queues
from runner_action.sandbox.kubernetes.shelf import Json, copied, now, owners

if TYPE_CHECKING:
    from runner_action.sandbox.kubernetes.api import FakeKubernetes

TICK = 0.02


class Control:
    def __init__(self, fake: FakeKubernetes) -> None:
        self._fake = fake
        self._shelf = fake.shelf
        self.jobs = Jobs(fake, self)
        self.kubelets = Kubelets(fake, self)
        self.queues = Queues(self)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join(5)

    def _live(self) -> None:
        while not self._over.wait(TICK):
            with self._shelf.changed:
                self._collect()
                for job in self.queues.turn(self._shelf.of("jobs")):
                    self._shelf.put("jobs", job)
                for job in self._shelf.of("jobs"):
                    self.jobs.turn(job)
                for pod in self._shelf.of("pods"):
                    if not pod["spec"].get("nodeName"):
                        self._schedule(pod)
                    if pod["spec"].get("nodeName"):
                        self.kubelets.turn(pod)

    def note(
        self, about: Json, reason: str, message: str, source: str, *, warning: bool = False
    ) -> None:
        """An event. The same again is counted, once a second at most."""
        meta = about["metadata"]
        for one in self._shelf.peek("events"):
            if (one["involvedObject"]["uid"], one["reason"], one["message"]) == (
                meta["uid"],
                reason,
                message,
            ):
                if one["lastTimestamp"] != now():
                    self._shelf.put(
                        "events", {**one, "count": one["count"] + 1, "lastTimestamp": now()}
                    )
                return
        whom = {
            "kind": about["kind"],
            "apiVersion": about["apiVersion"],
            "resourceVersion": meta["resourceVersion"],
        }
        whom.update({key: meta[key] for key in ("namespace", "name", "uid")})
        said = {
            "reason": reason,
            "message": message,
            "type": "Warning" if warning else "Normal",
            "count": 1,
            "involvedObject": whom,
        }
        when = {
            "firstTimestamp": now(),
            "lastTimestamp": now(),
            "reportingComponent": source,
            "reportingInstance": "",
        }
        name = {
            "metadata": {
                "name": f"{meta['name']}.{uuid.uuid4().hex[:16]}",
                "namespace": meta["namespace"],
            }
        }
        self._shelf.put(
            "events",
            {
                "kind": "Event",
                "apiVersion": "v1",
                **name,
                **said,
                **when,
                "source": {"component": source},
            },
        )

    # --- deletion

    def delete_job(self, job: Json, policy: str) -> None:
        """Orphan: what it owns stays; Foreground: it goes last; Background: the collector finds
        the rest."""
        if policy == "Foreground":
            marks = {
                "deletionTimestamp": now(),
                "deletionGracePeriodSeconds": 0,
                "finalizers": ["foregroundDeletion"],
            }
            job["metadata"] = {**marks, **job["metadata"]}
            self._shelf.put("jobs", job)
            return
        if policy == "Orphan":
            for resource, one in self._shelf.owned(job["metadata"]["uid"]):
                one["metadata"]["ownerReferences"] = [
                    ref
                    for ref in one["metadata"]["ownerReferences"]
                    if ref["uid"] != job["metadata"]["uid"]
                ]
                self._shelf.put(resource, one)
        self._shelf.drop("jobs", job)

    def delete_pod(self, pod: Json, grace: int | None) -> None:
        """At once if nothing of it runs; otherwise its processes are told to end, and it goes
        with them. A later deletion may only hasten it."""
        meta = pod["metadata"]
        number = pod["metadata"]["uid"]
        grace = pod["spec"]["terminationGracePeriodSeconds"] if grace is None else grace
        hurry = min(grace, meta.get("deletionGracePeriodSeconds", grace))
        meta.update(deletionTimestamp=now(hurry), deletionGracePeriodSeconds=hurry)
        machines = self._fake.machines
        runs = machines is not None and machines.runs(number)
        if runs and machines and hurry == 0:
            kill(machines.living[number].process.pid)
        if not runs or hurry == 0 or pod["status"]["phase"] in OVER:
            self.gone(pod)
            return
        self._shelf.put("pods", pod)
        self.kubelets.end(number, hurry)

    def disrupt(self, pod: Json, grace: int | None) -> None:
        """What an eviction leaves on a pod, and then does."""
        condition(
            pod["status"],
            "DisruptionTarget",
            "True",
            "EvictionByEvictionAPI",
            "Eviction API: evicting",
        )
        self.delete_pod(self._shelf.put("pods", pod), grace)

    def gone(self, pod: Json) -> None:
        self.jobs.count(pod)
        self._shelf.drop("pods", pod)

    def _collect(self) -> None:
        """What only absent owners own goes, and a Job being deleted in the foreground when it
        owns nothing any more."""
        whole = [
            (resource, one)
            for resource in ("pods", "secrets", "jobs")
            for one in self._shelf.peek(resource)
        ]
        present = {
            one["metadata"]["uid"]
            for _, one in whole
            if "foregroundDeletion" not in one["metadata"].get("finalizers", ())
        }
        for resource, one in whole:
            if owners(one) and not set(owners(one)) & present:
                if resource == "pods" and "deletionTimestamp" not in one["metadata"]:
                    self.delete_pod(copied(one), None)
                elif resource == "jobs":
                    self.delete_job(copied(one), "Background")
                elif resource == "secrets":
                    self._shelf.drop(resource, one)
        for job in self._shelf.peek("jobs"):
            if "deletionTimestamp" in job["metadata"] and not any(
                job["metadata"]["uid"] in owners(one) for _, one in whole
            ):
                self._shelf.drop("jobs", job)

    # --- the scheduler

    def _schedule(self, pod: Json) -> None:
        nodes = list(self._fake.nodes)
        unfit = [against(node, pod, self._shelf.peek("pods")) for node in nodes]
        node = next((node for node, reasons in zip(nodes, unfit, strict=True) if not reasons), None)
        if node:
            pod["spec"]["nodeName"] = node.name
            condition(pod["status"], "PodScheduled", "True")
            self._shelf.put("pods", pod)
            self.note(
                pod,
                "Scheduled",
                f"Successfully assigned {pod['metadata']['namespace']}/{pod['metadata']['name']} to"
                f" {node.name}",
                "default-scheduler",
            )
            return
        message = unplaced(unfit)
        condition(pod["status"], "PodScheduled", "False", "Unschedulable", message)
        self._shelf.put("pods", pod)
        self.note(pod, "FailedScheduling", message, "default-scheduler", warning=True)
