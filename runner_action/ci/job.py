"""The CI job that launches: who it is, and the tokens that its CI gives it."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping

from runner_action.errors import CredentialsError
from runner_action.model import App, CiJob, Run, Secret


def run_of(environ: Mapping[str, str], asker: Secret | App) -> Run:
    """The run behind the environment of a CI job. Derived from what is the same when a step is
    repeated and different for all other steps, jobs of a matrix and attempts, so that a repeated
    step, and the clean-up after the job, find their own machine. Outside CI: random.

    Keyed by the credentials of `asker`: all else is public before the launch, and whoever knew its
    label could wait for its machine, or have a runner there first that takes its jobs.
    """
    github = (
        "GITHUB_SERVER_URL",
        "GITHUB_REPOSITORY",
        "GITHUB_RUN_ID",
        "GITHUB_RUN_ATTEMPT",
        "GITHUB_JOB",
        "GITHUB_ACTION",
        "RUNNER_NAME",
    )
    gitlab = ("CI_SERVER_URL", "CI_PROJECT_PATH", "CI_PIPELINE_ID", "CI_JOB_ID")
    keys: tuple[str, ...] = ()
    if environ.get("GITHUB_RUN_ID"):
        keys = github
    elif environ.get("CI_JOB_ID"):
        keys = gitlab
    known = "\0".join(environ.get(key, "") for key in keys) or secrets.token_hex(16)
    secret = asker.key if isinstance(asker, App) else asker
    key = hmac.new(secret.reveal().encode(), known.encode(), hashlib.sha256).hexdigest()
    title = "by hand"
    if keys == github:
        title = (
            f"{environ.get('GITHUB_REPOSITORY')} run {environ['GITHUB_RUN_ID']} attempt"
            f" {environ.get('GITHUB_RUN_ATTEMPT', '1')}"
        )
    if keys == gitlab:
        title = f"{environ.get('CI_PROJECT_PATH')} job {environ['CI_JOB_ID']}"
    return Run(derived_name=f"cml-{key[:10]}", key=key, title=title, job=_job_of(environ))


def _job_of(environ: Mapping[str, str]) -> CiJob | None:
    try:
        if environ.get("GITLAB_CI"):
            job, name = int(environ["CI_JOB_ID"]), environ["CI_JOB_NAME"]
            return CiJob(
                repository_url=environ["CI_PROJECT_URL"],
                run_id=int(environ["CI_PIPELINE_ID"]),
                id=job,
                name=name,
                project=environ["CI_PROJECT_PATH"],
            )
        return CiJob(
            repository_url=f"{environ['GITHUB_SERVER_URL']}/{environ['GITHUB_REPOSITORY']}",
            run_id=int(environ["GITHUB_RUN_ID"]),
            attempt=int(environ.get("GITHUB_RUN_ATTEMPT", "1")),
            runner_name=environ["RUNNER_NAME"],
        )
    except (KeyError, ValueError):
        return None


def id_tokens(environ: Mapping[str, str]) -> Callable[[str], str] | None:
    """What gives a GitHub job's id token for an audience; None where the workflow has no
    `permissions: id-token: write`, and on GitLab, which puts such tokens into variables. Raises
    CredentialsError. https://docs.github.com/actions/reference/security/oidc
    """
    url, secret = (
        environ.get("ACTIONS_ID_TOKEN_REQUEST_URL"),
        environ.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN"),
    )
    if not (url and secret):
        return None

    def ask(audience: str) -> str:
        import requests  # which PyGithub brings; no other command needs it

        from runner_action import retrying

        with retrying.session() as session:
            try:
                answer = session.get(
                    url,
                    params={"audience": audience},
                    headers={"Authorization": f"Bearer {secret}"},
                    timeout=retrying.SECONDS,
                )
                answer.raise_for_status()
                return str(answer.json()["value"])
            except (requests.RequestException, KeyError) as error:
                why = type(error).__name__
                if isinstance(error, requests.RequestException):
                    why = retrying.reason(error)
                if isinstance(error, requests.HTTPError):
                    why = f"HTTP {error.response.status_code}"
                raise CredentialsError(
                    f"GitHub gave no id token: {why}.",
                    "The job needs `permissions: id-token: write`.",
                ) from None

    return ask
