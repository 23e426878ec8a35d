"""The Job controller of a cluster: which pods a Job has, and when it has failed or is complete."""

from __future__ import annotations

import json
import math
import random
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from runner_action.sandbox.kubernetes.kubelet import condition
from runner_action.sandbox.kubernetes.nodes import OVER, containers
from runner_action.sandbox.kubernetes.shelf import Json, now

if TYPE_CHECKING:
    from runner_action.sandbox.kubernetes.api import FakeKubernetes
    from runner_action.sandbox.kubernetes.control import Control

BATCH = "batch.kubernetes.io"
LONGEST_BEGIN = 58
"""Of a generated name, before its five letters."""


@dataclass
class Tally:
    """What the Job controller counts of a Job: its pods' indexes (-1 without) and how they
    ended, by uid, be they still there or not."""

    since: float
    made: dict[str, int] = field(default_factory=dict)
    ended: dict[str, bool] = field(default_factory=dict)
    finished: float | None = None

    def indexes(self, good: bool) -> list[int]:
        ended = (number for number, well in self.ended.items() if well is good)
        return [self.made[number] for number in ended if number in self.made]


class Jobs:
    """Has its turns under the shelf's lock."""

    def __init__(self, fake: FakeKubernetes, control: Control) -> None:
        self._fake = fake
        self._shelf = fake.shelf
        self._control = control
        self._jobs: dict[str, Tally] = {}

    def count(self, pod: Json) -> None:
        """A pod that goes is counted before: real ones carry a finalizer for that."""
        number = pod["metadata"]["uid"]
        for tally in self._jobs.values():
            if number in tally.made:
                tally.ended.setdefault(number, pod["status"]["phase"] == "Succeeded")

    def turn(self, job: Json) -> None:
        spec = job["spec"]
        tally = self._jobs.setdefault(job["metadata"]["uid"], Tally(time.monotonic()))
        if tally.finished is not None:
            ttl = spec.get("ttlSecondsAfterFinished")
            if (
                ttl is not None
                and time.monotonic() >= tally.finished + ttl * self._fake.factor
                and "deletionTimestamp" not in job["metadata"]
            ):
                self._control.delete_job(job, "Foreground")
            return
        pods = {
            one["metadata"]["uid"]: one
            for resource, one in self._shelf.owned(job["metadata"]["uid"])
            if resource == "pods"
        }
        for number in tally.made:
            pod = pods.get(number)
            phase = pod["status"]["phase"] if pod else "Failed"
            if phase in OVER or (pod and "deletionTimestamp" in pod["metadata"]):
                tally.ended.setdefault(number, phase == "Succeeded")
        conditions = {one["type"]: one for one in job["status"].get("conditions", ())}
        if not {"FailureTarget", "SuccessCriteriaMet"} & set(conditions) and (
            verdict := self._verdict(spec, tally)
        ):
            condition(job["status"], verdict[0], "True", verdict[1], verdict[2])
            conditions = {verdict[0]: {"reason": verdict[1], "message": verdict[2]}}
        if conditions:
            self._end_job(job, tally, list(pods.values()), *conditions.popitem())
        elif "deletionTimestamp" not in job["metadata"]:
            self._go_on(job, tally, list(pods.values()))
        self._show_job(job, tally)

    def _go_on(self, job: Json, tally: Tally, pods: list[Json]) -> None:
        """Makes pods; one that is suspended has none, whose end is no failure."""
        if not job["spec"]["suspend"]:
            job["status"].setdefault("startTime", now())
            self._drop_pods(job["spec"], tally, pods)
            self._make_pods(job, tally)
            return
        for pod in pods:
            tally.made.pop(pod["metadata"]["uid"], None)
            if "deletionTimestamp" not in pod["metadata"]:
                self._control.delete_pod(pod, None)

    def _verdict(self, spec: Json, tally: Tally) -> tuple[str, str, str] | None:
        good = tally.indexes(good=True)
        bad = Counter(tally.indexes(good=False))
        limit = spec.get("backoffLimitPerIndex")
        lost = {
            index
            for index, times in bad.items()
            if limit is not None and times > limit and index < spec["completions"]
        } - set(good)
        if (
            time.monotonic()
            >= tally.since + spec.get("activeDeadlineSeconds", float("inf")) * self._fake.factor
        ):
            return (
                "FailureTarget",
                "DeadlineExceeded",
                "Job was active longer than specified deadline",
            )
        if bad.total() > spec["backoffLimit"]:
            return (
                "FailureTarget",
                "BackoffLimitExceeded",
                "Job has reached the specified backoff limit",
            )
        if len(lost) > spec.get("maxFailedIndexes", float("inf")):
            return (
                "FailureTarget",
                "MaxFailedIndexesExceeded",
                "Job has exceeded the specified maximal number of failed indexes",
            )
        if lost and len(lost) + len(set(good)) >= int(spec["completions"]):
            return "FailureTarget", "FailedIndexes", "Job has failed indexes"
        if len(good) >= int(spec.get("completions") or spec["parallelism"]):
            return (
                "SuccessCriteriaMet",
                "CompletionsReached",
                "Reached expected number of succeeded pods",
            )
        return None

    def _end_job(self, job: Json, tally: Tally, pods: list[Json], kind: str, why: Json) -> None:
        """Its other pods go first; when they have, it has failed or is complete."""
        left = [pod for pod in pods if pod["status"]["phase"] not in OVER]
        for pod in left:
            if "deletionTimestamp" not in pod["metadata"]:
                self._control.delete_pod(pod, None)
                tally.ended.setdefault(pod["metadata"]["uid"], False)
                self._control.note(
                    job,
                    "SuccessfulDelete",
                    f"Deleted pod: {pod['metadata']['name']}",
                    "job-controller",
                )
        if not left:
            failed = kind == "FailureTarget"
            condition(
                job["status"],
                "Failed" if failed else "Complete",
                "True",
                why["reason"],
                why["message"],
            )
            if not failed:
                job["status"]["completionTime"] = now()
            self._control.note(
                job,
                why["reason"] if failed else "Completed",
                why["message"] if failed else "Job completed",
                "job-controller",
                warning=failed,
            )
            tally.finished = time.monotonic()

    def _drop_pods(self, spec: Json, tally: Tally, pods: list[Json]) -> None:
        """Those of indexes that a Job no longer has, once it was made shorter."""
        for pod in pods:
            index = tally.made.get(pod["metadata"]["uid"], -1)  # -1: of before it was suspended
            beyond = index >= spec.get("completions", math.inf)
            if beyond and "deletionTimestamp" not in pod["metadata"]:
                self._control.delete_pod(pod, None)

    def _make_pods(self, job: Json, tally: Tally) -> None:
        spec = job["spec"]
        active = [index for number, index in tally.made.items() if number not in tally.ended]
        good = tally.indexes(good=True)
        bad = Counter(tally.indexes(good=False))
        limit = spec.get("backoffLimitPerIndex", float("inf"))
        if spec["completionMode"] == "Indexed":
            wanted = [
                index
                for index in range(spec["completions"])
                if index not in [*active, *good] and bad[index] <= limit
            ]
        else:
            wanted = [-1] * (spec.get("completions", spec["parallelism"]) - len(good) - len(active))
        for index in at_once(wanted[: max(0, spec["parallelism"] - len(active))]):
            pod = pod_of(job, index)
            if why := next(filter(None, (admit(pod) for admit in self._fake.admission)), ""):
                why = why.removeprefix("Error creating: ")
                self._control.note(
                    job, "FailedCreate", f"Error creating: {why}", "job-controller", warning=True
                )
                return
            pod = self._shelf.put("pods", pod)
            tally.made[pod["metadata"]["uid"]] = index
            self._control.note(
                job, "SuccessfulCreate", f"Created pod: {pod['metadata']['name']}", "job-controller"
            )

    def _show_job(self, job: Json, tally: Tally) -> None:
        """In its status, where nothing is said of what is none."""
        pods = [
            one
            for resource, one in self._shelf.owned(job["metadata"]["uid"])
            if resource == "pods" and one["status"]["phase"] not in OVER
        ]
        active = [one for one in pods if "deletionTimestamp" not in one["metadata"]]
        good = tally.indexes(good=True)
        bad = tally.indexes(good=False)
        status = job["status"]
        ready = sum(
            any(
                one["type"] == "Ready" and one["status"] == "True"
                for one in pod["status"].get("conditions", ())
            )
            for pod in active
        )
        for key, number in {
            "active": len(active),
            "succeeded": len(good),
            "failed": len(bad),
        }.items():
            status.update({key: number})
            if not number:
                del status[key]
        status.update(ready=ready, terminating=len(pods) - len(active), uncountedTerminatedPods={})
        if job["spec"]["completionMode"] == "Indexed":
            status["completedIndexes"] = ranges(good)
            if (limit := job["spec"].get("backoffLimitPerIndex")) is not None:
                status["failedIndexes"] = ranges(
                    index
                    for index, times in Counter(bad).items()
                    if times > limit and index not in good
                )
        self._shelf.put("jobs", job)


def at_once(indexes: list[int]) -> Iterable[int]:
    """One, then two, four, eight at the same time; of these here the last first.
    https://github.com/kubernetes/kubernetes/blob/master/pkg/controller/job/job_controller.go"""
    size = 1
    while indexes:
        yield from reversed(indexes[:size])
        indexes, size = indexes[size:], 2 * size


def ranges(indexes: Iterable[int]) -> str:
    """As `0,2-4`."""
    runs: list[list[int]] = []
    for index in sorted(set(indexes)):
        if runs and runs[-1][-1] == index - 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def generated(begin: str) -> str:
    """No longer than the name of a host.
    https://github.com/kubernetes/kubernetes/blob/master/staging/src/k8s.io/apiserver/pkg/storage/names/generate.go"""
    return begin[:LONGEST_BEGIN] + "".join(
        random.choices("bcdfghjklmnpqrstvwxz2456789", k=63 - LONGEST_BEGIN)
    )


def pod_of(job: Json, index: int) -> Json:
    """From the Job's template; `index`: -1 for none."""
    template = json.loads(json.dumps(job["spec"]["template"]))
    name = job["metadata"]["name"]
    end = "-" if index < 0 else f"-{index}-"
    meta = {
        **template.get("metadata", {}),
        "namespace": job["metadata"]["namespace"],
        "generateName": name[: LONGEST_BEGIN - len(end)] + end,
    }
    meta["name"] = generated(meta["generateName"])
    meta["ownerReferences"] = [
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": name,
            "uid": job["metadata"]["uid"],
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]
    if index >= 0:
        key = f"{BATCH}/job-completion-index"
        meta["labels"] = {**meta["labels"], key: str(index)}
        meta["annotations"] = {**meta.get("annotations", {}), key: str(index)}
        template["spec"]["hostname"] = f"{name}-{index}"
        for one in containers(template["spec"]):
            where = {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{key}']"}}
            one.setdefault("env", []).append({"name": "JOB_COMPLETION_INDEX", "valueFrom": where})
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": meta,
        "spec": template["spec"],
        "status": {"phase": "Pending"},
    }
