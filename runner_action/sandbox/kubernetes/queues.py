"""Kueue in a cluster: Jobs of a queue are suspended until it admits them, and again when it takes
back what they have. https://kueue.sigs.k8s.io/docs/tasks/run/jobs/"""

from __future__ import annotations

from typing import TYPE_CHECKING

from runner_action.sandbox.kubernetes.shelf import Json

if TYPE_CHECKING:
    from runner_action.sandbox.kubernetes.control import Control

LABEL = "kueue.x-k8s.io/queue-name"


def queue_of(job: Json) -> str:
    return str((job["metadata"].get("labels") or {}).get(LABEL, ""))


def frozen(before: Json, after: Json) -> list[str]:
    """What its webhook refuses of an update: another queue for a Job that is not suspended."""
    if after["spec"].get("suspend") or queue_of(before) == queue_of(after):
        return []
    return [f'metadata.labels[{LABEL}]: Invalid value: "{queue_of(after)}": field is immutable']


class Queues:
    """`room`: how many Jobs each queue admits at the same time."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self.room: dict[str, int] = {}

    def turn(self, jobs: list[Json]) -> list[Json]:
        """Admits what there is room for; returns the Jobs that are suspended no longer."""
        admitted = []
        for job in jobs:
            queue = queue_of(job)
            if not queue or not job["spec"]["suspend"]:
                continue
            running = [one for one in jobs if queue_of(one) == queue and not one["spec"]["suspend"]]
            if queue not in self.room:
                continue  # Kueue writes that into the Workload's status, and reports no event
            if len(running) >= self.room[queue]:
                self._pending(
                    job,
                    "couldn't assign flavors to pod set main: insufficient unused quota for"
                    " nvidia.com/gpu in flavor default-flavor, 1 more needed",
                )
            else:
                job["spec"]["suspend"] = False
                admitted.append(job)
        return admitted

    def preempt(self, job: Json) -> Json:
        """The queue is needed by others: the Job waits again, and its pods go."""
        self.room[queue_of(job)] = 0
        job["spec"]["suspend"] = True
        return job

    def _pending(self, job: Json, message: str) -> None:
        meta = {**job["metadata"], "name": f"job-{job['metadata']['name']}-0a1b2"}
        workload = {"kind": "Workload", "apiVersion": "kueue.x-k8s.io/v1beta1", "metadata": meta}
        self._control.note(workload, "Pending", message, "kueue-admission", warning=True)
