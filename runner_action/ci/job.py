"""The CI job of a launch: the name it gives the launch, and the ID tokens of its CI."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping

from runner_action.ci.ordinals import Ordinals, shared_folder
from runner_action.forges import job_environments
from runner_action.forges.jobs import JobEnvironment
from runner_action.model import App, Run, Secret


def run_of(environ: Mapping[str, str], asker: Secret | App) -> Run:
    """The run that the environment of a CI job describes; outside CI a random one.

    Its key is derived from values that stay the same in a step and in the cleanup after the job,
    which finds the step's machines by it, and that differ between steps, jobs of a matrix and
    attempts. Launches of the same step are told apart by their ordinals.

    The credentials of `asker` are part of it, as the other values are public before the launch.
    Someone who could compute its label could wait for its machine, or register a runner first and
    get its jobs.
    """
    jobs = [job for job in job_environments(environ) if job.distinct()]
    job = jobs[0] if jobs else JobEnvironment(environ)
    step = "\0".join(job.distinct()) or secrets.token_hex(16)
    secret = asker.key if isinstance(asker, App) else asker
    key = hmac.new(secret.reveal().encode(), step.encode(), hashlib.sha256).hexdigest()
    return Run(
        derived_name=f"cml-{key[:10]}", key=key, title=job.title() or "by hand", job=job.job()
    )


def ordinals_of(environ: Mapping[str, str], run: Run) -> Ordinals:
    """The ordinals of this step's launches. Outside CI every launch has a key of its own."""
    folders = [job.shared_folder for job in job_environments(environ) if job.distinct()]
    return Ordinals(shared_folder(folders[0]) if folders else None, run.key)


def id_tokens(environ: Mapping[str, str]) -> Callable[[str], str] | None:
    """A function that returns the job's ID token for an audience, or raises CredentialsError; None
    if the job may not request one."""
    sources = (job.id_tokens() for job in job_environments(environ))
    return next(filter(None, sources), None)
