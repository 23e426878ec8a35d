"""Checks that a machine will be able to download its agent: before anything is created, since the
machine would fail only when it already costs money."""

from __future__ import annotations

import hashlib
import logging

import requests

from runner_action import retrying
from runner_action.errors import MachineFailed

log = logging.getLogger(__name__)
SECONDS = 10.0
"""Time limit for a URL that may respond faster to the machine than to the launcher."""
HINT = "`agent-downloads` must name a folder that has the file of exactly this version."


def check(url: str, sha256: str) -> None:
    """Raises MachineFailed if `url` has another file, or none. Without a response it only warns, as
    the machine may be able to reach what the launcher cannot."""
    try:
        with retrying.Session(public=True) as session:
            response = session.get(url, timeout=SECONDS)
    except requests.RequestException as error:
        log.warning(
            "Could not check that the machine's agent is at %s: %s.", url, retrying.reason(error)
        )
        return
    status = response.status_code
    if status >= 500:
        log.warning("Could not check that the machine's agent is at %s: HTTP %d.", url, status)
        return
    if not response.ok:
        raise MachineFailed(
            f"The machine could not download its agent: HTTP {status} from {url}.", HINT
        )
    digest = hashlib.sha256(response.content).hexdigest()
    if digest != sha256:
        raise MachineFailed(
            f"The machine would refuse its agent: {url} has the SHA-256 {digest}, expected"
            f" {sha256}.",
            HINT,
        )
