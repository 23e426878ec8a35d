"""What a notice is enough for: whole lives in the embedded world at GitHub's pace, for each cloud
and kind of job. Prints the table of docs/restart.md.

    python -m benchmarks.taken [CLOUD ...]
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from runner_action.sandbox.forges.jobs import REAL, Job, Run
from runner_action.sandbox.world import TOKEN, World

NOTICES = {"aws": 120.0, "gcp": 30.0, "azure": 30.0}
"""Seconds that each cloud gives."""
ALWAYS_SECONDS = 3
CHECKPOINT_SECONDS = 5


class Case(NamedTuple):
    """`obeys`: the job's step ends on SIGINT; else it is killed. `completed`: seconds from the end
    of the last job until the run is completed."""

    cloud: str
    obeys: bool
    checkpoint: bool
    completed: float


class Outcome(NamedTuple):
    """`restarted`: seconds after the notice; None if not."""

    saved: bool
    always: bool
    restarted: float | None


def cases(clouds: Sequence[str]) -> list[Case]:
    return [case for cloud in clouds for case in cases_of(cloud)]


def cases_of(cloud: str) -> list[Case]:
    kinds = [(True, False), (False, False), (True, True)]
    completed = [20.0] if NOTICES[cloud] < 60 else [20.0, 60.0]
    return [Case(cloud, *kind, seconds) for kind in kinds for seconds in completed]


def launcher(world: World, folder: Path, case: Case, job: Job) -> str:
    script = f"sleep {CHECKPOINT_SECONDS}; touch {world.folder}/saved"
    flags = [f"--cloud={case.cloud}", "--labels=train", "--idle-timeout=8", "--cloud-spot"]
    if case.checkpoint:
        flags.append(f"--checkpoint-script={base64.b64encode(script.encode()).decode()}")
    own = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    files = {name: str(folder / name) for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
    environ = world.job_environ(job.run_id, job.id, job.name, job.attempt, job.runner_name)
    token = {"CML_RUNNER_RESTART_TOKEN": TOKEN}
    done = subprocess.run(
        [sys.executable, "-m", "runner_action", *flags],
        env={**own, **environ, **files, **token},
        capture_output=True,
        check=False,
    )
    return "failure" if done.returncode else "success"


def training(world: World, folder: Path, case: Case) -> Run:
    forge = world.forge
    run = forge.queue_run()
    forge.add_job(
        run, "launch", ["ubuntu-latest"], hosted=lambda job: launcher(world, folder, case, job)
    )
    deaf = "" if case.obeys else "trap '' INT TERM; "
    first = f"mkdir {world.folder}/first 2>/dev/null && {{ {deaf}while :; do sleep 1; done; }}"
    always = f"sleep {ALWAYS_SECONDS}; touch {world.folder}/always"
    forge.add_job(run, "train", ["train"], 0.2, f"{first}\ntrue", needs=["launch"], always=always)
    return forge.begin(run)


def live(case: Case) -> Outcome:
    with (
        tempfile.TemporaryDirectory() as folder,
        World(cloud=case.cloud, timer_factor=0.02) as world,
    ):
        world.forge.pace = replace(REAL, run=case.completed)
        run = training(world, Path(folder), case)
        machines = world.machines
        wait(lambda: any("job-started" in machines.console(one) for one in machines.living), 120)
        (machine,) = machines.living
        world.interrupt(machine, NOTICES[case.cloud])
        began = time.monotonic()
        wait(lambda: run.attempt == 2 or not machines.runs(machine), NOTICES[case.cloud] + 20)
        after = time.monotonic() - began
        saved, always = ((world.folder / name).exists() for name in ("saved", "always"))
        return Outcome(saved, always, after if run.attempt == 2 else None)


def wait(condition: object, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:  # type: ignore[operator]
        time.sleep(0.1)


def yes(value: bool) -> str:
    return "yes" if value else "no"


def main(clouds: Sequence[str]) -> int:
    titles = "cloud, notice|the job's step|run completed after|checkpoint|always step|restarted"
    print("| " + titles.replace("|", " | ") + " |")
    print("|" + " --- |" * 6)
    for case in cases(clouds):
        outcome = live(case)
        again = "no" if outcome.restarted is None else f"after {outcome.restarted:.0f} s"
        step = "ends on SIGINT" if case.obeys else "is killed"
        saved = yes(outcome.saved) if case.checkpoint else "none"
        print(
            f"| {case.cloud}, {NOTICES[case.cloud]:.0f} s | {step} | {case.completed:.0f} s"
            f" | {saved} | {yes(outcome.always)} | {again} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(NOTICES)))
