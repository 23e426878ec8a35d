"""Kubernetes as a provider: one Job for a launch, and a pod of it for each runner."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from runner_action.errors import InputError
from runner_action.model import (
    LAUNCH_TAG,
    NAME_TAG,
    OWNER_TAG,
    Deletion,
    Instance,
    Machine,
    Placement,
    Plan,
    ProviderName,
)
from runner_action.providers.base import Created, proven
from runner_action.providers.kubernetes import plan as planning
from runner_action.providers.kubernetes.cluster import Cluster, Json
from runner_action.providers.kubernetes.creation import Creation
from runner_action.providers.kubernetes.ending import Ending
from runner_action.providers.kubernetes.errors import Refused, translated
from runner_action.providers.kubernetes.ladder import placements
from runner_action.providers.kubernetes.placement import PodPlacement
from runner_action.providers.kubernetes.plan import VALUE
from runner_action.providers.kubernetes.pods import (
    JOB_LABEL,
    explanation,
    instance_of,
    job_as_instance,
    tags_of,
)
from runner_action.request import CloudRequest
from runner_action.waiting import Clock

log = logging.getLogger(__name__)
SECRET_LIMIT = 1_000_000
"""Bytes. A Secret holds 1 MiB, counted before Base64.
https://kubernetes.io/docs/concepts/configuration/secret/"""
FRESH_SECONDS = 1.0
"""How long a list of a Job's pods is reused for looks at single pods."""
LOG_LINES = 2000
"""How many lines of a log are read, from its end. (`limitBytes` counts from its beginning.)
https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#get-read-log-of-the-specified-pod"""
MANAGED = f"app.kubernetes.io/managed-by={OWNER_TAG}"


class KubernetesProvider:
    """Pods in one namespace."""

    name, regional = ProviderName.KUBERNETES, False

    def __init__(self, cluster: Cluster, clock: Clock) -> None:
        self._cluster = cluster
        self._clock = clock
        self._ending = Ending(cluster, clock)
        self._creation = Creation(cluster, clock, self._ending)
        self._listed: dict[str, tuple[float, dict[str, Json]]] = {}
        self._lock = threading.Lock()

    @property
    def user_data_limit(self) -> int:
        return SECRET_LIMIT

    def plan(self, request: CloudRequest) -> Plan:
        return planning.plan(request)

    def deletion(self, request: CloudRequest) -> Deletion | None:  # noqa: ARG002  a pod ends with its process
        return None

    def resolve(self, plan: Plan, request: CloudRequest) -> Sequence[Placement]:
        """A rung for each market, place and size. Reads the namespace, so that missing permissions
        show before anything is created. Raises InputError if there is no image to start, before
        any call."""
        if not plan.image:
            raise InputError([planning.NO_IMAGE])
        with translated("reading the namespace"):
            self._cluster.get("batch/jobs", labelSelector=MANAGED, limit="1")
        return placements(plan, request)

    def create(self, placement: Placement, machine: Machine, count: int = 1) -> Created:
        assert isinstance(placement, PodPlacement)
        return self._creation.create(placement, machine, count)

    # --- watching and deleting

    def regions(self) -> Sequence[str]:
        return ()

    def settle(self, instances: Sequence[Instance]) -> None:
        """Deletes the Secret: every runner has read it, and pods that jobs create might read it,
        too."""
        with translated("deleting the Secret of the runners"):
            for job, launch in _jobs_of(instances).items():
                self._ending.delete_secret(job, launch)

    def destroy(self, name: str, instance: Instance | None = None) -> bool:
        """Deletes all pods of the Job: they were launched together."""
        instances = [instance] if instance else self.find({NAME_TAG: name})
        deleted = [self._ending.delete(job, launch) for job, launch in _jobs_of(instances).items()]
        self._listed.clear()
        return any(deleted)

    def find(self, tags: Mapping[str, str], regions: Sequence[str] = ()) -> Sequence[Instance]:  # noqa: ARG002  one namespace
        """A Job without a pod counts too: it may still get one."""
        chosen = ",".join(
            [
                MANAGED,
                *(
                    f"{key.replace(':', '/')}={value}"
                    for key, value in tags.items()
                    if VALUE.fullmatch(value)
                ),
            ]
        )
        with translated("looking for pods of cml-runner"):
            listed = self._cluster.get("batch/jobs", labelSelector=chosen)["items"]
            jobs = [
                each for each in listed if not _over(each) and tags.items() <= tags_of(each).items()
            ]
            pods = (
                [
                    instance_of(each)
                    for each in self._cluster.get("pods", labelSelector=chosen)["items"]
                ]
                if jobs
                else []
            )
        alive = [pod for pod in pods if pod.alive and tags.items() <= pod.tags.items()]
        with_pods = {pod.group for pod in alive}
        waiting = [job_as_instance(job) for job in jobs if job["metadata"]["name"] not in with_pods]
        return proven([*alive, *waiting])

    def former(self, title: str, regions: Sequence[str]) -> None:
        """Always None: a Job is deleted with its pods."""

    def tidy(self, now: datetime) -> None:
        """Nothing to do: everything is deleted with its Job."""

    def look(self, instance: Instance) -> Instance:
        pod = self._pod(instance)
        if pod is None:
            return replace(instance, alive=False)
        return replace(instance_of(pod, instance.instance_type, instance.spot), name=instance.name)

    def _pod(self, instance: Instance) -> Json | None:
        """The pod, from a list of all pods of its Job, which is reused for a second."""
        with self._lock, translated(f"looking at {instance.id}"):
            when, pods = self._listed.get(instance.group, (float("-inf"), {}))
            if self._clock.monotonic() - when >= FRESH_SECONDS:
                listed = self._cluster.get("pods", labelSelector=f"{JOB_LABEL}={instance.group}")[
                    "items"
                ]
                pods = {pod["metadata"]["name"]: pod for pod in listed}
                self._listed[instance.group] = self._clock.monotonic(), pods
        return pods.get(instance.id)

    def cost(self, instance: Instance, now: datetime) -> None:
        """Always None: a cluster has no prices."""

    def console(self, instance: Instance) -> str:
        """The log of the runner; before there is one, what the pod waits for."""
        pod = self._pod(instance)
        with translated(f"reading the log of {instance.id}"):
            events = []
            if pod is not None and pod.get("status", {}).get("phase") == "Pending":
                events = self._cluster.get(
                    "events",
                    fieldSelector=f"involvedObject.kind=Pod,involvedObject.name={instance.id}",
                )["items"]
            waits = "".join(f"{line}\n" for line in explanation(pod, events)) if pod else ""
            try:
                return waits + self._cluster.text(
                    "pods/log", instance.id, container="runner", tailLines=str(LOG_LINES)
                )
            except Refused as error:
                if error.status not in (400, 404):  # not started, or gone
                    raise
                return waits


def _jobs_of(instances: Sequence[Instance]) -> dict[str, str]:
    """The token of the launch, by Job."""
    return {instance.group: instance.tags.get(LAUNCH_TAG, "") for instance in instances}


def _over(job: Json) -> bool:
    return any(
        condition["type"] in ("Complete", "Failed") and condition["status"] == "True"
        for condition in job.get("status", {}).get("conditions") or ()
    )
