"""Google Cloud: a notice thirty seconds before a spot VM is preempted; and a machine's deletion of
itself, since an instance that powers itself off is only stopped.

It uses its service account, if that has the permission; else the key it was given, with a token
that it signs itself (https://google.aip.dev/auth/4111), using openssl, which is on every image.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import time
from typing import Any, Callable, Dict, Iterator, Optional, Tuple

from . import metadata

WAIT = 60
SECONDS = 30.0
"""Seconds from the notice to the end.
https://cloud.google.com/compute/docs/instances/preemptible#preemption_process"""
HOST = "http://metadata.google.internal"
FLAVOR = {"Metadata-Flavor": "Google"}
SPAN = 600
"""Seconds for which a signed token is valid."""


class Notices(metadata.Notices):
    """Polls with a request that is answered when the value differs from the last one read, so that
    no change between two requests is missed.
    https://cloud.google.com/compute/docs/metadata/querying-metadata"""

    every = 0.5

    def __init__(self, base: str = "") -> None:
        self._service = metadata.Metadata(base or HOST)

    def look(self) -> Optional[metadata.Notice]:
        path = (
            "/computeMetadata/v1/instance/preempted?wait_for_change=true&timeout_sec=%d&last_etag="
            % WAIT
        )
        text = self._service.read("GET", path + self._service.etag, FLAVOR, timeout=WAIT + 10)
        return metadata.Notice("preempted", SECONDS) if text.strip() == "TRUE" else None


class Deletion:
    """`facts`: `api`, the address of Compute Engine; `key`, of a service account, optional; `rule`:
    whether there is a firewall rule with this machine's name."""

    seconds: Optional[float] = 300.0
    """A stopped instance costs only its disk, and the next launch deletes it; a running one costs
    the full price. New permissions take effect within minutes.
    https://cloud.google.com/iam/docs/access-change-propagation"""

    def __init__(
        self, facts: Dict[str, Any], base: str, ask: Callable[..., Tuple[int, str]]
    ) -> None:
        self._ask = ask
        self._api = facts["api"]
        self._key = facts.get("key")
        self._rule = facts.get("rule", False)
        self._service = metadata.Metadata(base or HOST)

    def credentials(self) -> Iterator[Tuple[str, Callable[[], str]]]:
        yield (
            "its service account",
            lambda: str(
                json.loads(self._about("instance/service-accounts/default/token"))["access_token"]
            ),
        )
        if self._key:
            key = self._key
            yield "the key", lambda: signed(key, int(time.time()))

    def delete(self, bearer: str) -> Optional[str]:
        """Returns None if the instance is being deleted, else the error."""
        zone = self._about("instance/zone")
        if self._rule:
            self._delete(
                "%s/global/firewalls/%s-ssh"
                % (zone.partition("/zones/")[0], self._about("instance/name")),
                bearer,
            )
        status, text = self._delete("%s/instances/%s" % (zone, self._about("instance/id")), bearer)
        return (
            None if status in (200, 404) else "HTTP %d: %s" % (status, " ".join(text.split())[:300])
        )

    def _about(self, path: str) -> str:
        status, text = self._service.ask("GET", "/computeMetadata/v1/" + path, FLAVOR)
        if status != 200:
            raise OSError("HTTP %d" % status)
        return text

    def _delete(self, path: str, bearer: str) -> Tuple[int, str]:
        return self._ask(
            "DELETE", "%s/compute/v1/%s" % (self._api, path), {"Authorization": "Bearer " + bearer}
        )


def signed(key: Dict[str, str], now: int) -> str:
    """A token signed with the key. openssl reads the key from a pipe, not a file, as the disk may
    be full."""
    email = key["client_email"]
    claims = {
        "iss": email,
        "sub": email,
        "aud": "https://compute.googleapis.com/",
        "iat": now,
        "exp": now + SPAN,
    }
    header = {"alg": "RS256", "typ": "JWT", "kid": key["private_key_id"]}
    text = b".".join(_part(json.dumps(part).encode()) for part in (header, claims))
    read, write = os.pipe()
    try:
        os.write(write, key["private_key"].encode())
        os.close(write)
        signing = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", "/dev/fd/%d" % read],
            input=text,
            stdout=-1,
            stderr=-3,
            pass_fds=(read,),
            check=False,
        )
    finally:
        os.close(read)
    if signing.returncode:
        raise OSError("openssl failed with exit code %d" % signing.returncode)
    return (text + b"." + _part(signing.stdout)).decode()


def _part(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")
