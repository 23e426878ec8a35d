"""Whether the agent is where a machine will look for it: asked before anything is made, as the
machine would find out only when it is paid for."""

from __future__ import annotations

import hashlib
import logging

import requests

from runner_action import retrying
from runner_action.errors import MachineFailed

log = logging.getLogger(__name__)
SECONDS = 10.0
"""Of patience with an address that the machine may reach better than the launcher."""
HINT = "`agent-downloads` names the folder; the file of this very version must be there."


def check(url: str, sha256: str) -> None:
    """Raises MachineFailed if something else is there, or nothing. No answer is only told: the
    machine's way is another."""
    try:
        with retrying.Session(public=True) as session:
            answer = session.get(url, timeout=SECONDS)
    except requests.RequestException as error:
        why = retrying.reason(error)
        log.warning("Whether the machine finds its agent at %s is not known: %s.", url, why)
        return
    if answer.status_code >= 500:
        log.warning(
            "Whether the machine finds its agent at %s is not known: HTTP %d.",
            url,
            answer.status_code,
        )
    elif not answer.ok:
        raise MachineFailed(
            f"No machine would find its agent: {url} answers HTTP {answer.status_code}.", HINT
        )
    elif (found := hashlib.sha256(answer.content).hexdigest()) != sha256:
        raise MachineFailed(
            f"No machine would take its agent: {url} has the SHA-256 {found}, expected {sha256}.",
            HINT,
        )
