"""The CI job that this process is part of, read from its environment. GitHub's and GitLab's readers
are in `forges/NAME/job.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from runner_action.files import ReadFile
from runner_action.model import CiJob


@dataclass(frozen=True)
class JobEnvironment:
    """Reads the environment as one CI sets it. The defaults apply outside the jobs of that CI."""

    environ: Mapping[str, str]

    @property
    def is_here(self) -> bool:
        """Whether this process runs in a job of this CI and writes to its log."""
        return False

    @property
    def passes_inputs(self) -> bool:
        """Whether the CI passes a step's inputs as `INPUT_*`."""
        return False

    @property
    def succeeded(self) -> bool:
        """Whether the job is known to have succeeded, in a step that runs after it."""
        return False

    @property
    def checkout(self) -> str:
        """Folder of the job's repository; empty if unknown."""
        return ""

    @property
    def shared_folder(self) -> str:
        """Folder that all processes of this job share, and no other job; empty if unknown. It may
        have to be created."""
        return ""

    @property
    def certificates_file(self) -> str:
        """File of the authorities by which the job trusts the CI's own server; empty for none."""
        return ""

    def distinct(self) -> tuple[str, ...]:
        """Values that stay the same when this step is repeated, and differ from those of any other
        step, matrix job or attempt; empty outside the CI's jobs."""
        return ()

    def title(self) -> str:
        """The job in words. They end in a number, which is higher in a later attempt, and the rest
        is the same."""
        return ""

    def job(self) -> CiJob | None:
        return None

    def stranger(self, read_file: ReadFile) -> str | None:
        """Who started this job, in words, if it runs code of someone who may not write to the
        repository; None for the repository's own code."""
        return None

    def withheld(self) -> str:
        """Why variables that are set in the CI may be missing in this job, as a clause; empty if
        nothing is known."""
        return ""

    def is_public(self, read_file: ReadFile) -> bool:
        """Whether anyone may fork the job's repository, as far as the CI says."""
        return False

    def triggering_run(self, read_file: ReadFile) -> tuple[int, str] | None:
        """ID of the run whose end started this one, 0 if a schedule did; and the variable that says
        so."""
        return None

    def id_tokens(self) -> Callable[[str], str] | None:
        """A function that takes an audience and returns an ID token of the job; None if the job
        cannot request any. The function raises CredentialsError."""
        return None
