"""Certificate authorities besides the usual ones, in a file as Requests needs it."""

from __future__ import annotations

import os
import tempfile
import weakref
from pathlib import Path

import requests


def bundle(certificates: str | None, owner: object) -> str | None:
    """Path of a file with the usual authorities and `certificates` (PEM), deleted together with
    `owner`; None if there are no certificates."""
    if not certificates:
        return None
    with tempfile.NamedTemporaryFile(
        "w", prefix="cml-runner-ca-", suffix=".pem", delete=False
    ) as file:
        file.write(
            Path(requests.utils.DEFAULT_CA_BUNDLE_PATH).read_text("utf-8") + "\n" + certificates
        )
    weakref.finalize(owner, os.unlink, file.name)
    return file.name
