"""The state of an embedded forge: registered runners, tokens, and jobs, which wait for a runner
with all of their labels."""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections.abc import Callable, Sequence

from runner_action.sandbox.forges.jobs import Hosted, Job, Note, Pace, Refusal, Run, Seat


class Forge:
    """The state, behind one condition that is notified of every change."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._seats: dict[int, Seat] = {}
        self._tokens: dict[str, tuple[str, str, float]] = {}
        self._jobs: list[Job] = []
        self._runs: dict[int, Run] = {}
        self.lost_after = 8.0
        """Seconds without a request after which a busy runner counts as lost; GitHub waits some
        ten minutes."""
        self.pace = Pace()
        """Of runs and jobs that are queued from now on."""
        self._last_id = 0
        self.ever: list[str] = []
        """The names of all runners that have ever been registered."""

    # --- for tests and the demo

    def queue_job(self, labels: Sequence[str], seconds: float = 0.5, command: str = "") -> Job:
        """A run of one job."""
        run = self.queue_run()
        self.add_job(run, f"train-{run.id}", labels, seconds, command)
        return self.begin(run).jobs[0]

    def queue_run(self, group: str = "", *, cancels: bool = False) -> Run:
        """A run without jobs, which are added before it begins. `group`, `cancels`: as in Run."""
        with self._changed:
            run = Run(1001 + len(self._runs), pace=self.pace, group=group, cancels=cancels)
            self._runs[run.id] = run
        return run

    def add_job(
        self,
        run: Run,
        name: str,
        labels: Sequence[str],
        seconds: float = 0.5,
        command: str = "",
        needs: Sequence[str] = (),
        hosted: Hosted | None = None,
        always: str = "",
    ) -> Job:
        with self._changed:
            job = Job(
                len(self._jobs) + 1,
                frozenset(labels),
                seconds,
                command,
                name,
                run.id,
                tuple(needs),
                hosted,
                attempt=run.attempt,
                always=always,
                pace=run.pace,
            )
            for jobs in (self._jobs, run.jobs, run.all_jobs):
                jobs.append(job)
        return job

    def begin(self, run: Run) -> Run:
        with self._changed:
            self._enter(run)
            self._changed.notify_all()
        return run

    def wait(self, condition: Callable[[], object], what: str, timeout: float = 20) -> None:
        """Waits until the condition holds. Raises TimeoutError, which names `what`."""
        end = time.monotonic() + timeout
        with self._changed:
            while not condition():
                left = end - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"waited {timeout} s for {what}")
                self._sweep()
                self._changed.wait(min(left, 0.1))

    def jobs(self) -> list[Job]:
        return list(self._jobs)

    def runs(self) -> list[Run]:
        return list(self._runs.values())

    # --- runners

    def seats(self) -> list[Seat]:
        with self._changed:
            return list(self._seats.values())

    def by_id(self, runner_id: int) -> Seat | None:
        return self._seats.get(runner_id)

    def by_name(self, name: str) -> Seat | None:
        return next((seat for seat in self.seats() if seat.name == name), None)

    def new_token(self, kind: str, owner: str = "", lasts: float = math.inf) -> str:
        """A token for one kind of request, for the runners of one owner (as in `Seat`), valid for
        `lasts` seconds."""
        token = f"canary-{kind}-{secrets.token_hex(8)}"
        self._tokens[token] = kind, owner, time.time() + lasts
        return token

    def owner_of(self, token: str, kind: str) -> str | None:
        """The owner of the runners that a token of this kind is for; None if it is not valid."""
        own_kind, owner, until = self._tokens.get(token, ("", "", 0.0))
        return owner if own_kind == kind and time.time() < until else None

    def seat(
        self,
        name: str,
        labels: Sequence[str],
        *,
        ephemeral: bool,
        untagged: bool = False,
        owner: str = "",
        group: int = 1,
    ) -> Seat:
        with self._changed:
            self._last_id += 1
            seat = self._seats[self._last_id] = Seat(
                self._last_id, name, tuple(dict.fromkeys(labels)), ephemeral, untagged, owner, group
            )
            self.ever.append(name)
            self._changed.notify_all()
        return seat

    def remove(self, runner_id: int, *, force: bool = False) -> bool:
        """Removes a runner. Returns whether it existed. Raises Refusal if it is busy; with `force`
        its job fails instead. A job that has only just been given is lost: nobody reports it."""
        with self._changed:
            seat = self._seats.get(runner_id)
            if seat and force:
                self._over(seat, "failure")
            if seat and seat.busy:
                raise Refusal(f'Runner "{seat.name}" is still running a job"')
            self._changed.notify_all()
            return self._seats.pop(runner_id, None) is not None

    def set_online(self, seat: Seat, online: bool) -> None:
        with self._changed:
            seat.online = online
            seat.contacted |= online
            if not online and seat.job:
                self._over(seat, "cancelled")
            self._changed.notify_all()

    # --- jobs

    def next_job(self, seat: Seat, wait: float) -> Job | None:
        """A long poll for a job that this runner can run; None after `wait` seconds."""
        end = time.monotonic() + wait
        with self._changed:
            while seat.id in self._seats:
                job = next(
                    (job for job in self._jobs if job.status == "queued" and seat.takes(job)), None
                )
                if job and seat.online:
                    job.status = "in_progress"
                    job.runner_name = seat.name
                    seat.job = job
                    seat.given = time.monotonic()
                    self._changed.notify_all()
                    return job
                if time.monotonic() >= end:
                    break
                self._changed.wait(max(end - time.monotonic(), 0.01))
        return None

    def complete(
        self, seat: Seat, conclusion: str, notes: Sequence[Note] = (), reason: str = ""
    ) -> None:
        with self._changed:
            if seat.job:
                seat.job.notes += notes
                seat.job.reason = reason
            self._over(seat, conclusion)
            self._changed.notify_all()

    def _over(self, seat: Seat, conclusion: str) -> None:
        if seat.job:
            job = seat.job
            seat.job = None
            job.conclusion = conclusion
            job.status = "completed"
            self._settle(self._runs[job.run_id])
        if seat.ephemeral:
            self._seats.pop(seat.id, None)

    def _sweep(self) -> None:
        """Fails the jobs of runners that have not sent a request for too long."""
        for seat in list(self._seats.values()):
            if seat.job and time.monotonic() - seat.heard > self.lost_after:
                text = (
                    f"The self-hosted runner: {seat.name} lost communication with the server."
                    " Verify the machine is running and has a healthy network."
                )
                seat.job.notes.append(("", text))
                seat.online = False
                self._over(seat, "failure")
        self._advance()

    # --- runs

    def run(self, run_id: int) -> Run | None:
        with self._changed:
            self._sweep()
            return self._runs.get(run_id)

    def job(self, job_id: int) -> Job | None:
        return next((job for job in self._jobs if job.id == job_id), None)

    def members(self, group: str) -> list[Run]:
        """The runs of a concurrency group that are not completed: the one in progress, and then
        the one that waits for it. Letter case does not matter."""
        with self._changed:
            alike = [run for run in self._runs.values() if run.group.lower() == group.lower()]
            return sorted(
                (run for run in alike if group and run.entered and not run.done),
                key=lambda run: run.pending,
            )

    def _enter(self, run: Run) -> None:
        """A new run or attempt cancels the run that waits in its group, and the one in progress if
        its workflow says so."""
        for other in self.members(run.group):
            if other is not run and (other.pending or run.cancels):
                self.cancel(other, force=False)
        run.entered = run.pending = True
        self._advance()

    def _advance(self) -> None:
        """Begins the runs whose group has none in progress."""
        for run in self._runs.values():
            if run.pending and all(other.pending for other in self.members(run.group)):
                run.pending = False
                self._settle(run)

    def _settle(self, run: Run) -> None:
        """Queues the jobs whose needs have succeeded, or starts them if they are hosted; skips
        those whose needs have failed."""
        if run.done:
            self._advance()
        conclusions = {job.name: job.conclusion for job in run.jobs if job.status == "completed"}
        for job in run.jobs:
            if job.status != "waiting":
                continue
            if any(conclusions.get(name, "success") != "success" for name in job.needs):
                job.conclusion = "skipped"
                job.status = "completed"
                self._settle(run)
                return
            if all(name in conclusions for name in job.needs):
                job.status = "queued"
                if job.hosted:
                    job.status = "in_progress"
                    job.runner_name = f"GitHub Actions {job.id}"
                    threading.Thread(
                        target=self._host, args=(run, job, job.hosted), daemon=True
                    ).start()

    def _host(self, run: Run, job: Job, hosted: Hosted) -> None:
        conclusion = hosted(job)
        with self._changed:
            job.conclusion = conclusion
            job.status = "completed"
            self._settle(run)
            self._changed.notify_all()

    def cancel(self, run: Run, *, force: bool) -> bool:
        """Cancels a run. Returns False if it has already ended."""
        with self._changed:
            if run.done:
                return False
            for job in run.jobs:
                seat = self.by_name(job.runner_name) if force else None
                if seat and seat.job is job:
                    self._over(seat, "cancelled")
                elif job.status in ("waiting", "queued") or (force and job.status != "completed"):
                    job.conclusion = "cancelled"
                    job.status = "completed"
                job.cancelled = True
            self._changed.notify_all()
        return True

    def rerun(self, run: Run, names: set[str] | None) -> None:
        """Starts a new attempt with the jobs of these names and their dependants, or with all
        jobs. Raises Refusal while the run is in progress."""
        with self._changed:
            if not run.done:
                raise Refusal("The workflow run containing this job is already running")
            run.attempt += 1
            run.started = time.time()
            before = run.jobs
            run.jobs = []
            again = (
                {job.name for job in before} if names is None else Run(0, before).dependants(names)
            )
            for old in before:
                if old.name in again:
                    self.add_job(
                        run,
                        old.name,
                        sorted(old.labels),
                        old.seconds,
                        old.command,
                        old.needs,
                        old.hosted,
                        old.always,
                    )
                else:
                    run.jobs.append(old)
            self._enter(run)
            self._changed.notify_all()

    # --- GitLab's way: job by job, in the same pipeline

    def cancel_job(self, job: Job, *, force: bool) -> None:
        """Cancels a job. A running one is only notified, unless by `force`. Jobs that need it are
        skipped."""
        with self._changed:
            job.cancelled = True
            seat = self.by_name(job.runner_name)
            if force and seat and seat.job is job:
                self._over(seat, "cancelled")
            elif job.status in ("waiting", "queued"):
                job.conclusion = "cancelled"
                job.status = "completed"
                self._settle(self._runs[job.run_id])
            self._changed.notify_all()

    def retry_job(self, job: Job) -> Job:
        """Puts a new job in its place, and lets the jobs that were skipped because of it wait
        again. Raises Refusal unless the job has ended and has not been retried."""
        with self._changed:
            run = self._runs[job.run_id]
            if job not in run.jobs or job.conclusion not in ("success", "failure", "cancelled"):
                raise Refusal("403 Forbidden - Job is not retryable")
            place = run.jobs.index(job)
            new = self.add_job(
                run,
                job.name,
                sorted(job.labels),
                job.seconds,
                job.command,
                job.needs,
                job.hosted,
            )
            run.jobs[place] = run.jobs.pop()
            waiting = run.dependants({job.name})
            for other in run.jobs:
                if other.name in waiting and other.conclusion == "skipped":
                    other.status = "waiting"
                    other.conclusion = ""
            self._settle(run)
            self._changed.notify_all()
        return new
