"""Authorities that a forge's certificate may be from besides the usual ones, as Requests wants
them: in a file."""

from __future__ import annotations

import os
import tempfile
import weakref
from pathlib import Path

import requests


def bundle(certificates: str | None, owner: object) -> str | None:
    """The path of a file with the usual authorities and these (PEM); gone with its owner. None
    if there are none."""
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
