"""What a process learns from its environment of the CI job that it is part of, whichever CI runs
it. GitHub's and GitLab's answers are in `forges/NAME/job.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from runner_action.model import CiJob

ReadFile = Callable[[str], str | None]
"""Text of a file, or None if there is none."""


@dataclass(frozen=True)
class JobEnvironment:
    """One CI's view of the environment. Each default is the answer outside its jobs."""

    environ: Mapping[str, str]

    @property
    def is_here(self) -> bool:
        """Whether this process belongs to a job of this CI, whose log it writes to."""
        return False

    @property
    def passes_inputs(self) -> bool:
        """Whether the CI passes a step's inputs as `INPUT_*`."""
        return False

    @property
    def succeeded(self) -> bool:
        """Whether the job is known to have succeeded, in what runs after it."""
        return False

    @property
    def checkout(self) -> str:
        """Folder of the job's repository; empty if unknown."""
        return ""

    @property
    def certificates_file(self) -> str:
        """File of the authorities by which the CI's own server is trusted; empty for none."""
        return ""

    def distinct(self) -> tuple[str, ...]:
        """What is the same when this step is repeated and different for any other step, job of a
        matrix or attempt; empty outside the CI's jobs."""
        return ()

    def title(self) -> str:
        """The job, for people."""
        return ""

    def job(self) -> CiJob | None:
        return None

    def stranger(self, read_file: ReadFile) -> str | None:
        """Who asked for this job, in words, if it is for code of somebody who may not write to
        the repository; None for the repository's own code."""
        return None

    def is_public(self, read_file: ReadFile) -> bool:
        """Whether anybody may fork the job's repository, as far as the CI says."""
        return False

    def triggering_run(self, read_file: ReadFile) -> tuple[int, str] | None:
        """Id of the run whose end started this one, and the variable that led there."""
        return None

    def id_tokens(self) -> Callable[[str], str] | None:
        """A function from an audience to the job's id token; None where the job has none to ask
        for. The function raises CredentialsError."""
        return None
