"""`restart` of a run that ended because the machine of one of its runners was reclaimed.

The decision is based on the annotations of the run alone. That of the launch job names the runners;
that of another job shows that it was interrupted. It is written by the agent, by the runner when it
is shut down, or by GitHub when it loses contact with the runner. The policy is the agent's.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runner_action.agent import restart as policy
from runner_action.agent.inheriting import DERIVED
from runner_action.agent.reasons import ONCE, Reason
from runner_action.agent.restart import Job, Run
from runner_action.ci.base import MARK_TITLE, runners_marked
from runner_action.commands.rerun import Outcome, rerun
from runner_action.errors import ForgeError
from runner_action.forges.base import Rerunning
from runner_action.plain import code, markdown
from runner_action.request import RestartRequest
from runner_action.waiting import Clock

log = logging.getLogger(__name__)
Annotations = Sequence[tuple[str, str]]
"""Titles and messages."""
MARK = "interrupted: "
"""Beginning of the agent's warning; the text of its reason follows (`agent/leave.py`)."""
SIGNS = (
    "lost communication with the server",
    "The runner has received a shutdown signal",
    "Operating system is shutting down",
)
"""What GitHub writes when it loses contact with a runner, and what the runner writes
(JobRunner.cs) when it is shut down."""


@dataclass(frozen=True)
class Finding:
    """The interrupted jobs with their reasons, and the jobs that launched their machines."""

    interrupted: tuple[tuple[Job, str], ...]
    launches: tuple[policy.Launch, ...]

    @property
    def launch(self) -> policy.Launch:
        return self.launches[0] if self.launches else policy.Launch()

    @property
    def restarts(self) -> int:
        """How often a run may be restarted for such reasons: the most that any of them allows."""
        return max((restarts_of(why) for _, why in self.interrupted), default=0)


def failed(run: Run) -> list[Job]:
    """The jobs that failed on a runner."""
    ends = ("failure", "cancelled", "timed_out")
    return [job for job in run.jobs if job.runner and job.conclusion in ends]


def find(run: Run, annotations: Mapping[int, Annotations], online: frozenset[str]) -> Finding:
    """The interrupted jobs of a run. `annotations`: by the job's ID; `online`: names of runners
    that are still online, so that their jobs were not interrupted. Pure."""
    launchers = _launchers(run, annotations)
    interrupted = []
    for job in failed(run):
        launched = job.runner in launchers or DERIVED.match(job.runner)
        why = _interruption(annotations.get(job.id, ()))
        if launched and job.runner not in online and why:
            interrupted.append((job, why))
    known = [launchers[job.runner] for job, _ in interrupted if job.runner in launchers]
    launches = dict.fromkeys(policy.Launch(job.id, job.name) for job in known)
    return Finding(tuple(interrupted), tuple(launches))


def _launchers(run: Run, annotations: Mapping[int, Annotations]) -> dict[str, Job]:
    """The launch jobs by the names of their runners."""
    launchers = {}
    for job in run.jobs:
        for title, message in annotations.get(job.id, ()):
            names = runners_marked(message) if title == MARK_TITLE else []
            launchers.update(dict.fromkeys(names, job))
    return launchers


def _interruption(annotations: Annotations) -> str | None:
    """Why a job was interrupted: as the agent wrote it, or else the runner or GitHub; None if
    none of them did."""
    messages = [message for _, message in annotations]
    by_agent = [message for title, message in annotations if title == MARK_TITLE]
    interruptions = [message for message in by_agent if message.startswith(MARK)]
    interruptions += [message for message in messages if any(sign in message for sign in SIGNS)]
    return interruptions[0] if interruptions else None


def restarts_of(why: str) -> int:
    """How often the agent would restart (`Reason.restarts`), by its annotation. Without one it is
    once, since the job may have stopped the machine."""
    marked = [reason.restarts for reason in Reason if why.startswith(MARK + reason.text)]
    return marked[0] if marked else ONCE


def restart(run: Run, request: RestartRequest, forge: Rerunning, clock: Clock) -> Outcome:
    """Re-runs a run that has ended, if it was interrupted. Raises ForgeError if it cannot be read
    or re-run."""
    if not request.allow_forks and (fork := forge.fork(run.id)):
        # Its annotations are written by the code of the fork.
        why = f"it ran code of {code(fork)}, which controls its own annotations"
        return Outcome("", f"Run {run.id} is not restarted: {why} (`allow-forks` allows it).\n")
    finding = _look_at(run, forge)
    if not finding.interrupted:
        why = "no machine that cml-runner launched was lost"
        return Outcome("", f"Run {run.id} is not restarted, since it was not interrupted: {why}.\n")
    return _restart(run, finding, request, forge, clock)


def _look_at(run: Run, forge: Rerunning) -> Finding:
    lost = failed(run)
    annotations = {job.id: forge.annotations(job.id) for job in lost}
    # The launch jobs matter only if a job was interrupted.
    if any(_interruption(messages) for messages in annotations.values()):
        succeeded = [job for job in run.jobs if job.conclusion == "success"]
        annotations |= {job.id: forge.annotations(job.id) for job in succeeded}
    return find(run, annotations, _online(forge) if lost else frozenset())


def _restart(
    run: Run, finding: Finding, request: RestartRequest, forge: Rerunning, clock: Clock
) -> Outcome:
    jobs = jobs_of(finding)
    verdict = policy.decide(
        run,
        run.attempt,
        request.restart_limit,
        finding.launch,
        others_lost=len(finding.launches) > 1,
        restarts=finding.restarts,
    )
    why_not = verdict.why_not or policy.rival(forge, run.id)
    if why_not:
        return Outcome("", f"### Not restarted: {why_not}\n\n{jobs}")
    if request.dry_run:
        return Outcome("", f"### Would re-run: {verdict.order[0]} of run {run.id}\n\n{jobs}")
    granted = rerun(run, verdict, finding.launch, forge, clock)
    return Outcome(granted, f"### Restarted: {granted}, attempt {run.attempt + 1}\n\n{jobs}")


def jobs_of(finding: Finding) -> str:
    """The interrupted jobs, their runners and the reasons, in Markdown."""
    return "".join(
        f"- {code(job.name)} on {code(job.runner)}: {markdown(why)}\n"
        for job, why in finding.interrupted
    )


def _online(forge: Rerunning) -> frozenset[str]:
    """Names of the runners that are online; none if the token may not list them, as the job's
    own token."""
    try:
        return frozenset(runner.name for runner in forge.runners() if runner.online)
    except ForgeError as error:
        log.debug("Could not list the runners: %s", error)
        return frozenset()
