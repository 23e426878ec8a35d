"""Story 3, restart: a workflow run ended; was it because the machine of one of our runners went
away? Then it is run again.

For a workflow `on: workflow_run`, so that no token need lie on any machine. What the run itself
shows is all there is to go by: the annotation of the launch job names the runners; the job's own
says that it was interrupted (ours, left by the agent; the runner's, when it was shut down; or
GitHub's, when it was heard of no more). The policy is the agent's.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from runner_action.agent import restart as policy
from runner_action.agent.lifecycle import ONCE, Reason
from runner_action.agent.restart import Job, Run
from runner_action.ci.base import MARK_TITLE, runners_marked
from runner_action.errors import ForgeError
from runner_action.forges.base import Rerunning
from runner_action.plain import code, markdown
from runner_action.request import RestartRequest
from runner_action.waiting import Clock

log = logging.getLogger(__name__)
Notes = Mapping[int, Sequence[tuple[str, str]]]
MARK = "interrupted: "
"""How the agent's own warning begins; the text of its reason follows (`agent/leave.py`)."""
SIGNS = (
    "lost communication with the server",
    "The runner has received a shutdown signal",
    "Operating system is shutting down",
)
"""GitHub's own words when a runner falls silent, and the runner's (JobRunner.cs) when it is shut
down."""


@dataclass(frozen=True)
class Finding:
    """The jobs that were interrupted, with the reason, and the job that launched their machine."""

    interrupted: tuple[tuple[Job, str], ...]
    launch: policy.Launch

    @property
    def restarts(self) -> int:
        """How often what has ended so is restarted: of several jobs, by the most deserving."""
        return max((restarts_of(why) for _, why in self.interrupted), default=0)


@dataclass(frozen=True)
class Outcome:
    """`restarted`: what was re-run, empty for nothing; `text`: the whole story, in Markdown."""

    restarted: str
    text: str


def failed(run: Run) -> list[Job]:
    """Jobs that a runner took and that did not end well."""
    return [
        job
        for job in run.jobs
        if job.runner and job.conclusion in ("failure", "cancelled", "timed_out")
    ]


def find(run: Run, notes: Notes, online: frozenset[str]) -> Finding:
    """Pure. `notes`: annotations by job id; `online`: runners that still live, whose jobs were
    not interrupted by their end."""
    launched = {
        name: job
        for job in run.jobs
        for title, text in notes.get(job.id, ())
        if title == MARK_TITLE
        for name in runners_marked(text)
    }
    found = []
    for job in failed(run):
        ours = job.runner in launched or job.runner.startswith("cml-")
        if ours and job.runner not in online and (why := _interruption(notes.get(job.id, ()))):
            found.append((job, why))
    launchers = [launched[job.runner] for job, _ in found if job.runner in launched]
    return Finding(
        tuple(found),
        policy.Launch(launchers[0].id, launchers[0].name) if launchers else policy.Launch(),
    )


def _interruption(notes: Sequence[tuple[str, str]]) -> str:
    ours = [text for title, text in notes if title == MARK_TITLE and text.startswith(MARK)]
    return next(
        iter([*ours, *(text for _, text in notes if any(sign in text for sign in SIGNS))]), ""
    )


def restarts_of(why: str) -> int:
    """What the agent would do (`Reason.restarts`), by its mark. A machine that ended without one
    may have been ended by its job."""
    marked = [reason.restarts for reason in Reason if why.startswith(MARK + reason.text)]
    return marked[0] if marked else ONCE


def restart(request: RestartRequest, forge: Rerunning, clock: Clock) -> Outcome:
    """Looks, decides, and re-runs at most once. Raises ForgeError if the run cannot be read."""
    run = forge.run(request.run_id, clock.now())
    if not run.done:
        return Outcome("", f"Run {run.id} is still running: nothing to restart.\n")
    if not request.allow_forks and (fork := forge.fork(run.id)):
        # All that is gone by below, the run says itself.
        why = f"it ran code of {code(fork)}, which decides itself what its annotations say"
        return Outcome("", f"Run {run.id} is not restarted: {why} (`allow-forks` allows it).\n")
    lost = failed(run)
    # Annotations of what failed; only if there is something, those of what launched.
    notes = {job.id: forge.annotations(job.id) for job in lost}
    if any(_interruption(noted) for noted in notes.values()):
        notes |= {
            job.id: forge.annotations(job.id) for job in run.jobs if job.conclusion == "success"
        }
    finding = find(run, notes, _online(forge) if lost else frozenset())
    if not finding.interrupted:
        return Outcome(
            "",
            f"Run {run.id} was not interrupted by the end of a machine of ours: not restarted.\n",
        )
    told = "".join(
        f"- {code(job.name)} on {code(job.runner)}: {markdown(why)}\n"
        for job, why in finding.interrupted
    )
    verdict = policy.decide(
        run,
        run.attempt,
        request.restart_limit,
        finding.launch,
        others_lost=False,
        restarts=finding.restarts,
    )
    if not verdict.order:
        return Outcome("", f"### Not restarted: {verdict.why_not}\n\n{told}")
    if request.dry_run:
        return Outcome("", f"### Would re-run: {verdict.order[0]} of run {run.id}\n\n{told}")
    granted, refusals = policy.request(forge.rerun, run, verdict, finding.launch)
    if not granted:
        raise ForgeError(
            f"Run {run.id} could not be re-run: {'; '.join(refusals)}",
            "The token needs `actions: write`.",
        )
    return Outcome(granted, f"### Restarted: {granted}, attempt {run.attempt + 1}\n\n{told}")


def story_of(finding: Finding) -> str:
    """The jobs, their runners and what became of them, in Markdown. A run says all of it itself."""
    return "".join(
        f"- {code(job.name)} on {code(job.runner)}: {markdown(why)}\n"
        for job, why in finding.interrupted
    )


def _online(forge: Rerunning) -> frozenset[str]:
    """Names of runners that still live, where the token may know: the job's own may not."""
    try:
        return frozenset(runner.name for runner in forge.runners() if runner.online)
    except ForgeError as error:
        log.debug("Runners are not listed: %s", error)
        return frozenset()
