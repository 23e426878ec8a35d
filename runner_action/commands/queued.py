"""`restart` of a run with a job that waits for a machine that is gone.

"Re-run failed jobs" keeps the launch job's outputs, and with them the label of a machine that may
have ended since: GitHub queues the job for a day and then cancels it. Only the launch job creates a
machine, and GitHub re-runs nothing of a run that has not ended. So such a run is cancelled, if
nothing else of it goes on, and then re-run from its launch job. The reasons are in
docs/decisions/0045.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from runner_action.agent import restart as policy
from runner_action.agent.inheriting import DERIVED
from runner_action.agent.restart import Job, Run
from runner_action.ci.base import MARK_TITLE, runners_marked
from runner_action.commands.rerun import Outcome, rerun
from runner_action.errors import ForgeError
from runner_action.forges.base import Rerunning, Try
from runner_action.model import Runner
from runner_action.plain import code, markdown
from runner_action.request import RestartRequest
from runner_action.waiting import Clock

log = logging.getLogger(__name__)
EXPIRED = "while awaiting a runner"
"""What GitHub writes when it cancels a job that waited for a day, as quoted in
https://github.com/BoundaryML/baml/pull/4680"""
NO_MACHINE = "no machine"
"""Beginning of the annotation, titled as all of cml-runner's, of a job that runs elsewhere in place
of a machine of an earlier attempt (docs/restart.md)."""
SURE, UNSURE = 120.0, 600.0
"""Seconds that a job must have waited: if the list of runners shows that there is none for it, and
if the token may not read that list, as the job's own."""


@dataclass(frozen=True)
class Finding:
    """The jobs whose machine is gone, and what to re-run; if nothing, why not."""

    jobs: tuple[Job, ...]
    verdict: policy.Verdict
    launch: policy.Launch


@dataclass(frozen=True)
class Sight:
    """What is known of a run. `ages`: seconds since its jobs were queued, by ID; `launches`: the
    names of the runners that each launch job created, by its name; `runners`: None if the token may
    not list them; `given_up`: IDs of the jobs that ended for want of a machine."""

    run: Run
    ages: Mapping[int, float]
    launches: Mapping[str, Sequence[str]]
    runners: Sequence[Runner] | None = None
    given_up: Collection[int] = frozenset()


def find(sight: Sight, limit: int) -> Finding:
    """Whether and what to re-run. `limit`: `restart-limit`. Pure."""
    run = sight.run
    stuck = tuple(job for job in run.jobs if _is_stuck(job, sight))
    names = _launchers(stuck, sight)
    launch = policy.Launch(name=names[0]) if len(names) == 1 else policy.Launch()
    if why_not := _too_early(stuck, sight):
        return Finding(stuck, policy.Verdict(why_not=why_not), launch)
    verdict = policy.decide(run, run.attempt, limit, launch, others_lost=len(names) != 1)
    # The failed jobs alone would wait again.
    order = tuple(what for what in verdict.order if what != policy.FAILED_JOBS)
    return Finding(stuck, replace(verdict, order=order), launch)


def _too_early(stuck: Sequence[Job], sight: Sight) -> str:
    """Why nothing may be done yet; empty if it may."""
    if not stuck:
        return "no job of it waits for a machine that is gone, as far as this token shows"
    alive = [job for job in sight.run.jobs if job.status != "completed" and job not in stuck]
    if alive:
        return f"other jobs of it go on: {', '.join(code(job.name) for job in alive)}"
    waited = max(sight.ages.get(job.id, 0.0) for job in stuck)
    most = UNSURE if sight.runners is None else SURE
    if waited < most and not sight.run.done:
        return f"its job has waited for {waited:.0f} s, and a runner may come within {most:.0f} s"
    return ""


def _is_stuck(job: Job, sight: Sight) -> bool:
    """Whether the job waits, or has waited, for a machine that is gone. Which runners have labels
    that the user chose, only the list of runners tells."""
    own = any(map(DERIVED.fullmatch, job.labels))
    if job.id in sight.given_up:
        return own or bool(sight.launches)
    if job.status != "queued" or job.runner:
        return False
    if sight.runners is None:
        return own
    wanted = {label.lower() for label in job.labels}
    there = any(
        runner.online and wanted <= {label.lower() for label in runner.labels}
        for runner in sight.runners
    )
    return not there and (own or bool(sight.launches))


def _launchers(stuck: Sequence[Job], sight: Sight) -> list[str]:
    """The names of the launch jobs that created the machines: those with a runner called by a
    job's label, or else all."""
    labels = {label for job in stuck for label in job.labels}
    named = [
        name
        for name, runners in sight.launches.items()
        if any(runner.startswith(label) for runner in runners for label in labels)
    ]
    return named or list(sight.launches)


def restart(
    run: Run, ended: Collection[int], request: RestartRequest, forge: Rerunning, clock: Clock
) -> Outcome:
    """Re-runs a run with a job that waits for a machine that is gone. `ended`: as `given_up` has
    it, of a run that has ended. Raises ForgeError if it cannot be read, cancelled or re-run."""
    if not request.allow_forks and (fork := forge.fork(run.id)):
        # Its labels and annotations are written by the code of the fork.
        return _left_alone(run, f"it runs code of {code(fork)} (`allow-forks` allows it)")
    tries = forge.tries(run.id, clock.now())
    ages = {one.job.id: one.age for one in tries}
    sight = Sight(run, ages, _launches(tries, forge), _runners(forge), ended)
    finding = find(sight, request.restart_limit)
    jobs = "".join(map(_line, finding.jobs))
    why_not = finding.verdict.why_not or policy.rival(forge, run.id)
    if why_not:
        return _left_alone(run, why_not, jobs)
    if request.dry_run:
        what = finding.verdict.order[0]
        return Outcome("", f"### Would re-run: {what} of run {run.id}\n\n{jobs}")
    if forge.run(run.id, clock.now()).jobs != run.jobs:
        return _left_alone(run, "a job of it has just begun or ended", jobs)
    if not run.done:
        forge.cancel(run.id)
    granted = rerun(run, finding.verdict, finding.launch, forge, clock)
    return Outcome(granted, f"### Restarted: {granted}, attempt {run.attempt + 1}\n\n{jobs}")


def waits(run: Run) -> bool:
    """Whether a job of it waits for a runner."""
    return any(job.status == "queued" and not job.runner for job in run.jobs)


def _left_alone(run: Run, why: str, jobs: str = "") -> Outcome:
    return Outcome("", f"Run {run.id} is not touched: {why}.\n" + (jobs and f"\n{jobs}"))


def _line(job: Job) -> str:
    return f"- {code(job.name)} needs a runner with {markdown(', '.join(job.labels))}\n"


def given_up(run: Run, forge: Rerunning) -> frozenset[int]:
    """The jobs that ended for want of a machine: GitHub cancelled them, or they say so."""
    ended = [job for job in run.jobs if job.conclusion in ("cancelled", "failure")]
    return frozenset(
        job.id
        for job in ended
        if any(_says_no_machine(job, *note) for note in forge.annotations(job.id))
    )


def _says_no_machine(job: Job, title: str, message: str) -> bool:
    if not job.runner:
        return EXPIRED in message
    return title == MARK_TITLE and message.startswith(NO_MACHINE)


def _launches(tries: Sequence[Try], forge: Rerunning) -> dict[str, list[str]]:
    """The names of the runners, by those of the launch jobs of all attempts. A job that succeeded
    is carried over into the next attempts, but its annotations need not be."""
    launches: dict[str, list[str]] = {}
    for job in {one.job.id: one.job for one in tries}.values():
        messages = forge.annotations(job.id) if job.conclusion == "success" else ()
        for title, message in messages:
            names = runners_marked(message) if title == MARK_TITLE else []
            if names:
                launches.setdefault(job.name, []).extend(names)
    return launches


def _runners(forge: Rerunning) -> Sequence[Runner] | None:
    try:
        return forge.runners()
    except ForgeError as error:
        log.debug("Could not list the runners: %s", error)
        return None
