"""Deleting what a launch created: its Job, with which the cluster's own garbage collector deletes
pods and Secret."""

from __future__ import annotations

import logging

from runner_action.errors import ProviderError, TimedOut
from runner_action.model import LAUNCH_TAG
from runner_action.providers.base import made_by
from runner_action.providers.kubernetes.cluster import Cluster
from runner_action.providers.kubernetes.errors import translated
from runner_action.providers.kubernetes.pods import job_as_instance, tags_of
from runner_action.providers.kubernetes.requests import GRACE_SECONDS
from runner_action.waiting import Clock, wait_for

log = logging.getLogger(__name__)


class Ending:
    """Deletes Jobs of one namespace."""

    def __init__(self, cluster: Cluster, clock: Clock) -> None:
        self._cluster = cluster
        self._clock = clock

    def delete(self, job: str, launch: str) -> bool:
        """Deletes the Job if the launch with this token created it, and waits until it and its
        pods are gone. An accepted deletion cannot be undone. False: there is none."""
        with translated(f"deleting the Job {job}"):
            there = self._cluster.there("batch/jobs", job)
            if there is None:
                return False
            if not made_by(launch, job_as_instance(there)):
                log.warning("The Job %s was not deleted: this launch did not create it.", job)
                return False
            uid = there["metadata"]["uid"]
            if not self._cluster.delete("batch/jobs", job, uid, "Foreground"):
                return False
            what = f"the pods of {job} to be deleted"
            wait_for(
                lambda: True if self._gone(job, uid) else None,
                what,
                clock=self._clock,
                timeout=GRACE_SECONDS + 30,
                first=0.2,
                most=2,
            )
        return True

    def delete_secret(self, job: str, launch: str) -> None:
        """Deletes the Secret of a Job if that launch created it."""
        there = self._cluster.there("secrets", job)
        if there is not None and tags_of(there).get(LAUNCH_TAG) == launch:
            self._cluster.delete("secrets", job, there["metadata"]["uid"])

    def after_failure(self, job: str, launch: str) -> None:
        """The same as `delete`; an error is logged, as the failure that led here is the one to
        report."""
        try:
            self.delete(job, launch)
        except (ProviderError, TimedOut) as error:
            log.error(
                "Could not confirm that the Job %s was deleted: %s Its pods end themselves after"
                " their start timeout.",
                job,
                error,
            )

    def _gone(self, job: str, uid: str) -> bool:
        there = self._cluster.there("batch/jobs", job)
        return there is None or there["metadata"]["uid"] != uid
