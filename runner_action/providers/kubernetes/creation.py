"""Creating runners: one Job for all of a launch, its Secret, and the wait for nodes, which is how a
cluster shows that it is full."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace

from runner_action.errors import CapacityError, ConfigurationError, NotOurs, ProviderError
from runner_action.model import LAUNCH_TAG, Machine
from runner_action.providers.base import Created, made_by
from runner_action.providers.kubernetes import requests, table
from runner_action.providers.kubernetes.cluster import Cluster, Json
from runner_action.providers.kubernetes.ending import Ending
from runner_action.providers.kubernetes.errors import (
    HINTS,
    SECURITY_CONTEXT,
    Refused,
    passes,
    refused,
    translated,
)
from runner_action.providers.kubernetes.options import QUEUE_SECONDS
from runner_action.providers.kubernetes.placement import PodPlacement
from runner_action.providers.kubernetes.pods import (
    JOB_LABEL,
    explanation,
    has_node,
    instance_of,
    is_controlled_by,
    is_placed,
    is_refused,
    is_settled,
    job_as_instance,
    tags_of,
    trouble,
)
from runner_action.waiting import Clock

log = logging.getLogger(__name__)
INDEX = "batch.kubernetes.io/job-completion-index"
PATIENCE_SECONDS = 3.0
"""How long a Job may be without its pods before its events are read."""
LOOK_SECONDS = 2
"""Between two looks at the clock and at events, growing to five times that. Changes of pods are
streamed."""
QUEUE_LOOK_SECONDS = 5.0
AGAIN_SECONDS = 10.0
"""Until a pod that a kubelet has refused is created again: time for a new node's device plugin."""


class Creation:
    """The provider's `create`."""

    def __init__(self, cluster: Cluster, clock: Clock, ending: Ending) -> None:
        self._cluster = cluster
        self._clock = clock
        self._ending = ending
        self._explained: dict[str, str] = {}

    def create(self, placement: PodPlacement, machine: Machine, count: int) -> Created:
        """Creates the Job, and returns its pods that got a node. The others are deleted; if none
        got one, everything that this launch created is."""
        name = requests.job_name(placement, machine)
        doing = f"creating {placement}"
        try:
            with translated(doing):
                pods, shortage = self._tried(placement, machine, count, doing)
            # What Kueue has admitted as a whole must not shrink: it would take all of it back.
            if shortage and (placement.queue or not any(map(is_placed, pods))):
                raise shortage
            with translated(doing):
                pods = self._shrink(name, pods, count)
        except BaseException:
            self._ending.after_failure(name, machine.identity.token())
            raise
        instances = tuple(
            instance_of(pod, str(placement.size), placement.spot) for pod in pods if is_placed(pod)
        )
        return Created(instances, shortage, (str(shortage),) if shortage else ())

    def _tried(
        self, placement: PodPlacement, machine: Machine, count: int, doing: str
    ) -> tuple[list[Json], ProviderError | None]:
        """Creates Job and Secret and waits for nodes; again, within the same time, while kubelets
        refuse all pods, and without user IDs if the cluster assigns them. Returns the pods, and
        why some have no node."""
        ends = self._clock.monotonic() + placement.schedule_timeout
        while True:
            job = self._job(placement, machine, count)
            self._secret(job, machine)
            if placement.queue:
                queued = self._admitted(job["metadata"]["name"], placement.queue)
                if queued:
                    return [], queued
                ends = self._clock.monotonic() + placement.schedule_timeout
            pods, shortage = self._placed(job, placement, count, doing, ends)
            if SECURITY_CONTEXT in str(shortage) and not placement.assigned_users:
                log.info("The cluster assigns user IDs: creating the pod again without any.")
                placement = replace(placement, assigned_users=True)
                self._ending.delete(job["metadata"]["name"], machine.identity.token())
                continue
            refused_ones = [pod for pod in pods if is_refused(pod)]
            if not refused_ones:
                return pods, shortage
            why = f"The node refused the pod: {trouble(refused_ones[0])}"
            left = ends - self._clock.monotonic()
            last = left < AGAIN_SECONDS or placement.queue is not None
            if last or len(refused_ones) < len(pods):
                return pods, shortage or CapacityError(why, HINTS[CapacityError])
            log.info("%s. Creating it again.", why)
            self._ending.delete(job["metadata"]["name"], machine.identity.token())
            self._clock.sleep(AGAIN_SECONDS)

    def _admitted(self, name: str, queue: str) -> ProviderError | None:
        """Puts the suspended Job, whose Secret is there by now, into the queue, and waits until it
        is admitted. Returns why it is not."""
        self._cluster.patch(
            "batch/jobs", name, {"metadata": {"labels": {table.QUEUE_LABEL: queue}}}
        )
        began = self._clock.monotonic()
        while self._cluster.get("batch/jobs", name)["spec"].get("suspend"):
            waited = self._clock.monotonic() - began
            text = self._queue_says(name, queue)
            if waited >= QUEUE_SECONDS:
                return CapacityError(
                    f"The queue {queue} has not admitted the Job within {waited:.0f} s: {text}",
                    HINTS[CapacityError],
                )
            self._say(name, f"{name} waits in the queue {queue}: {text}")
            self._clock.sleep(QUEUE_LOOK_SECONDS)
        return None

    def _queue_says(self, name: str, queue: str) -> str:
        """The last event of the Workload that Kueue has created for a Job. There is none if the
        queue does not exist or is stopped."""
        events = self._cluster.get("events", fieldSelector="involvedObject.kind=Workload")["items"]
        said = [
            str(event.get("message"))
            for event in events
            if event["involvedObject"]["name"].startswith(f"job-{name}-")
        ]
        return (
            said[-1]
            if said
            else f"Kueue says nothing of it: is there a LocalQueue {queue} (`kubectl get"
            " localqueues`), and is Kueue installed?"
        )

    def _job(self, placement: PodPlacement, machine: Machine, count: int) -> Json:
        body = requests.job(placement, machine, count)
        try:
            created = self._cluster.create("batch/jobs", body)
            _check_claims(body, created)
            return created
        except Refused as error:
            if error.status != 409:
                raise
        there = self._cluster.get("batch/jobs", body["metadata"]["name"])
        if not made_by(machine.identity.token(), job_as_instance(there)):
            raise NotOurs(f"a Job {body['metadata']['name']}")
        return there

    def _secret(self, job: Json, machine: Machine) -> None:
        """Creates the Secret. One of that name may come from a call whose answer was lost, from an
        earlier try of this launch, with another token, or with a Job of this launch that was
        deleted a moment ago: if it is ours, it is replaced where it differs. Else it is of others,
        and a pod would run their program: raises NotOurs."""
        body = requests.secret(job, machine)
        name = body["metadata"]["name"]
        there = self._create_or_get(body)
        if there is None:
            return
        owners = [owner["uid"] for owner in there["metadata"].get("ownerReferences") or ()]
        owned = owners == [job["metadata"]["uid"]]
        if not owned and tags_of(there).get(LAUNCH_TAG) != machine.identity.token():
            raise NotOurs(f"a Secret {name}", "Choose another `name`, or look who created it.")
        if not owned or there.get("data") != body["data"]:
            self._cluster.delete("secrets", name, there["metadata"]["uid"])
            self._cluster.create("secrets", body)

    def _create_or_get(self, secret: Json) -> Json | None:
        """The Secret of that name that exists already; None if it was created now."""
        try:
            self._cluster.create("secrets", secret)
        except Refused as error:
            if error.status != 409:
                raise
            return self._cluster.get("secrets", secret["metadata"]["name"])
        return None

    def _shrink(self, name: str, pods: list[Json], count: int) -> list[Json]:
        """Deletes pods without a node, so that none of this Job starts later when there is room
        again, and shrinks the Job to the indexes before the first that was not created; the Job
        controller deletes the pods after it. (It creates several at once, any of which may be
        refused, and would create the missing ones later.) Returns the pods that stay.
        https://kubernetes.io/docs/concepts/workloads/controllers/job/#elastic-indexed-jobs
        """
        if len(pods) < count:
            there = {int(pod["metadata"]["annotations"][INDEX]): pod for pod in pods}
            indexes = next(index for index in range(count) if index not in there)
            self._cluster.patch(
                "batch/jobs", name, {"spec": {"completions": indexes, "parallelism": indexes}}
            )
            pods = [pod for index, pod in there.items() if index < indexes]
        for pod in pods:
            if not has_node(pod):
                self._cluster.delete("pods", pod["metadata"]["name"], pod["metadata"]["uid"])
        return pods

    # --- waiting for nodes

    def _placed(
        self, job: Json, placement: PodPlacement, count: int, doing: str, ends: float
    ) -> tuple[list[Json], ProviderError | None]:
        """Waits until the pods have nodes that take them, or until it is `ends`. Returns them, and
        why some have none."""
        name = job["metadata"]["name"]
        began, looked = self._clock.monotonic(), 0.0
        patience = ends - began

        def pause() -> int:
            return pause_after(self._clock.monotonic() - began, patience)

        for pods in self._pods(job, pause):
            if sum(map(is_settled, pods)) >= count:
                return pods, None
            waited = self._clock.monotonic() - began
            if waited - looked < min(LOOK_SECONDS, patience):
                continue
            looked = waited
            if len(pods) < count and waited >= PATIENCE_SECONDS:
                why = self._why_no_pods(job, last=waited >= patience)
                if why:
                    return pods, refused(why, doing)
            waiting = [pod for pod in pods if not has_node(pod)]
            text = self._explain(name, waiting)
            if waited >= patience and not waiting and len(pods) >= count:
                return pods, None
            if waited >= patience:
                without = f"{count - sum(map(has_node, pods))} of {count} pods"
                if count == 1:
                    without = "the pod"
                return pods, CapacityError(
                    f"No node for {without} ({placement}) within {waited:.0f} s: {text}",
                    HINTS[CapacityError],
                )
        raise AssertionError("the pods are yielded without end")

    def _pods(self, job: Json, pause: Callable[[], int]) -> Iterator[list[Json]]:
        """Yields the pods of a Job, at each change and after each pause."""
        for pods in self._labelled(job["metadata"]["name"], pause):
            yield [pod for pod in pods if is_controlled_by(job["metadata"]["uid"], pod)]

    def _labelled(self, job: str, pause: Callable[[], int]) -> Iterator[list[Json]]:
        chosen = {"labelSelector": f"{JOB_LABEL}={job}"}
        while True:
            listed = self._cluster.get("pods", **chosen)
            pods = {pod["metadata"]["uid"]: pod for pod in listed["items"]}
            yield list(pods.values())
            for event in self._cluster.watch(
                "pods", pause(), resourceVersion=listed["metadata"]["resourceVersion"], **chosen
            ):
                if event["type"] == "ERROR":
                    break
                if event["type"] != "BOOKMARK":
                    pods[event["object"]["metadata"]["uid"]] = event["object"]
                if event["type"] == "DELETED":
                    del pods[event["object"]["metadata"]["uid"]]
                yield list(pods.values())

    def _why_no_pods(self, job: Json, *, last: bool) -> str:
        """Why the cluster creates no pods for a Job, by its events; empty if they do not say, or
        if it may pass and this is not the `last` look. An earlier Job of this launch may have had
        the same name."""
        name, uid = job["metadata"]["name"], job["metadata"]["uid"]
        events = self._cluster.get("events", fieldSelector=f"involvedObject.uid={uid}")["items"]
        failures = [event for event in events if event.get("reason") == "FailedCreate"]
        why = str(failures[-1].get("message")) if failures else ""
        if last or not passes(why):
            return why
        self._say(name, f"{name} has no pod yet: {why}")
        return ""

    def _explain(self, name: str, waiting: list[Json]) -> str:
        """What the first of the pods without a node waits for; logged when it changes."""
        if not waiting:
            return "the cluster has created no pod"
        pod, uid = waiting[0]["metadata"]["name"], waiting[0]["metadata"]["uid"]
        events = self._cluster.get("events", fieldSelector=f"involvedObject.uid={uid}")["items"]
        text = "; ".join(explanation(waiting[0], events)) or "the scheduler has not looked at it"
        who = f"{pod} waits" if len(waiting) == 1 else f"{len(waiting)} pods wait"
        self._say(name, f"{who} for a node: {text}")
        return text

    def _say(self, name: str, text: str) -> None:
        """Logs it, if it is not what was logged last of the Job of that name."""
        if self._explained.get(name) != text:
            self._explained[name] = text
            log.info("%s", text)


def _check_claims(sent: Json, created: Json) -> None:
    """Raises ConfigurationError if the cluster has dropped what its version does not have: the pod
    would start without a GPU."""
    key = "resourceClaims"
    if key in sent["spec"]["template"]["spec"] and key not in created["spec"]["template"]["spec"]:
        raise ConfigurationError(
            "This cluster has no dynamic resource allocation (resource.k8s.io/v1), so the pod would"
            " have no GPU.",
            "Use Kubernetes 1.34 or later, or write `cloud-gpu` as a model or a resource.",
        )


def pause_after(waited: float, patience: float) -> int:
    """Seconds until the next look, after so many: longer with time, but within the patience."""
    longest = LOOK_SECONDS if waited < 5 * LOOK_SECONDS else 5 * LOOK_SECONDS
    return max(1, int(min(longest, patience - waited)))
