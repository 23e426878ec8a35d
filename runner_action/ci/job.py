"""The CI job that launches: its name for the launch, and the tokens that its CI gives it."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping

from runner_action.forges import job_environments
from runner_action.forges.jobs import JobEnvironment
from runner_action.model import App, Run, Secret


def run_of(environ: Mapping[str, str], asker: Secret | App) -> Run:
    """The run behind the environment of a CI job. Derived from what is the same when a step is
    repeated and different for all other steps, jobs of a matrix and attempts, so that a repeated
    step, and the clean-up after the job, find their own machine. Outside CI: random.

    Keyed by the credentials of `asker`: all else is public before the launch, and whoever knew its
    label could wait for its machine, or have a runner there first that takes its jobs.
    """
    inside = [job for job in job_environments(environ) if job.distinct()]
    job = inside[0] if inside else JobEnvironment(environ)
    known = "\0".join(job.distinct()) or secrets.token_hex(16)
    secret = asker.key if isinstance(asker, App) else asker
    key = hmac.new(secret.reveal().encode(), known.encode(), hashlib.sha256).hexdigest()
    return Run(
        derived_name=f"cml-{key[:10]}", key=key, title=job.title() or "by hand", job=job.job()
    )


def id_tokens(environ: Mapping[str, str]) -> Callable[[str], str] | None:
    """A function from an audience to the job's id token; None where the job cannot ask for one.
    The function raises CredentialsError."""
    sources = (job.id_tokens() for job in job_environments(environ))
    return next(filter(None, sources), None)
