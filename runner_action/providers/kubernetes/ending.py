"""The end of what a launch made: its Job, and with it, by the cluster's own garbage collector,
pods and Secret."""

from __future__ import annotations

import logging

from runner_action.errors import ProviderError, TimedOut
from runner_action.providers.kubernetes.cluster import Cluster
from runner_action.providers.kubernetes.errors import Refused, translated
from runner_action.providers.kubernetes.requests import GRACE_SECONDS
from runner_action.waiting import Clock, wait_for

log = logging.getLogger(__name__)


class Ending:
    """Deletes Jobs of one namespace."""

    def __init__(self, cluster: Cluster, clock: Clock) -> None:
        self._cluster = cluster
        self._clock = clock

    def delete(self, job: str) -> bool:
        """Asks, and waits until pods and Job are gone. A deletion that was accepted cannot be
        taken back. False: there was nothing."""
        with translated(f"deleting the Job {job}"):
            if not self._cluster.delete("batch/jobs", job, propagationPolicy="Foreground"):
                return False
            what = f"the pods of {job} to be gone"
            wait_for(
                lambda: True if self._gone(job) else None,
                what,
                clock=self._clock,
                timeout=GRACE_SECONDS + 30,
                first=0.2,
                most=2,
            )
        return True

    def after_failure(self, job: str) -> None:
        """The failure that led here is the one that is told."""
        try:
            self.delete(job)
        except (ProviderError, TimedOut) as error:
            log.error(
                "The Job %s may be left: %s Its pods end themselves after their start timeout.",
                job,
                error,
            )

    def _gone(self, job: str) -> bool:
        try:
            self._cluster.get("batch/jobs", job)
        except Refused as error:
            if error.status != 404:
                raise
            return True
        return False
