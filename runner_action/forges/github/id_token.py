"""The ID token of a GitHub job. https://docs.github.com/actions/reference/security/oidc"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from runner_action.errors import CredentialsError


def of_job(environ: Mapping[str, str]) -> Callable[[str], str] | None:
    """A function that takes an audience, returns the job's ID token, and raises CredentialsError;
    None if the workflow has no `permissions: id-token: write`."""
    url = environ.get("ACTIONS_ID_TOKEN_REQUEST_URL")
    secret = environ.get("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
    if not (url and secret):
        return None

    def request_token(audience: str) -> str:
        import requests  # installed with PyGithub; no other command needs it

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
                reason = type(error).__name__
                if isinstance(error, requests.RequestException):
                    reason = retrying.reason(error)
                if isinstance(error, requests.HTTPError):
                    reason = f"HTTP {error.response.status_code}"
                raise CredentialsError(
                    f"GitHub gave no ID token: {reason}.",
                    "The job needs `permissions: id-token: write`.",
                ) from None

    return request_token
