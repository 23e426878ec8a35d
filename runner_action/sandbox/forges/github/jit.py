"""A just-in-time configuration in GitHub's form: three files in Base64 inside JSON inside Base64,
one of them a 2,048-bit RSA key.

In actions/runner, src/Runner.Listener/Runner.cs (`GetJitConfig`) writes the three files unchanged,
and src/Runner.Common/RSAFileKeyManager.cs reads the key's eight numbers. Real configurations have
4,100 to 4,300 characters:
https://github.com/github-aws-runners/terraform-aws-github-runner/pull/4613 ("pushed it over the
4kb limit").
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import uuid
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

BITS = 2048
RUNNER = ".runner"
CREDENTIALS = ".credentials"
KEY = ".credentials_rsaparams"


def encoded(
    agent_id: int, name: str, server: str, repository_url: str, work: str
) -> tuple[str, str]:
    """The configuration, and the secret by which our server recognizes the runner that has it."""
    client = str(uuid.uuid4())
    runner = {
        "AgentId": str(agent_id),
        "AgentName": name,
        "PoolId": "1",
        "PoolName": "Default",
        "DisableUpdate": "False",
        "ServerUrl": f"{server}/{secrets.token_urlsafe(60)}/",
        "GitHubUrl": repository_url,
        "WorkFolder": work,
        "Ephemeral": "True",
        "UseV2Flow": "True",
        "ServerUrlV2": f"{server}/broker/",
    }
    credentials = {
        "Scheme": "OAuth",
        "Data": {
            "ClientId": client,
            "AuthorizationUrl": f"{server}/_apis/oauth2/token/{uuid.uuid4()}",
            "RequireFipsCryptography": "True",
        },
    }
    files = {RUNNER: _json(runner), CREDENTIALS: _json(credentials), KEY: _json(key_numbers())}
    whole = {file: base64.b64encode(content).decode() for file, content in files.items()}
    return base64.b64encode(_json(whole)).decode(), secret_of(client, files[KEY])


def secret_of(client: str, key: bytes) -> str:
    """Real runners sign with the key; the stand-in proves that it has every byte of it."""
    return hashlib.sha256(client.encode() + key).hexdigest()


@cache
def key_numbers() -> dict[str, str]:
    """.NET's RSAParameters, big-endian in Base64. One key for all runners, as generating it takes a
    tenth of a second."""
    key = rsa.generate_private_key(65537, BITS).private_numbers()
    public = key.public_numbers
    numbers = {
        "d": (key.d, 256),
        "dp": (key.dmp1, 128),
        "dq": (key.dmq1, 128),
        "exponent": (public.e, 3),
        "inverseQ": (key.iqmp, 128),
        "modulus": (public.n, 256),
        "p": (key.p, 128),
        "q": (key.q, 128),
    }
    return {
        name: base64.b64encode(number.to_bytes(size, "big")).decode()
        for name, (number, size) in numbers.items()
    }


def _json(content: Any) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()
