"""The product: every place for a secret, every odd character, cloud, CI and road."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import product

from runner_action import inputs, providers, secret_sources
from runner_action.inputs.sources import variable_of
from runner_action.model import ForgeName, ProviderName

CLOUDS = (*(name.value for name in ProviderName), inputs.HERE)
ODD: Mapping[str, str] = {
    "nothing": "",
    "CR": "\r",
    "LF": "\n",
    "CRLF": "\r\n",
    "tab": "\t",
    "NBSP": "\u00a0",
    "U+200B": "\u200b",
    "BOM": "\ufeff",
    "NUL": "\0",
    "quote": '"',
    "apostrophe": "'",
    "typographic quotes": "\u201c\u201d",
    "percent": "%",
    "brace": "{",
    "backslash": "\\",
}
"""What stands in the middle and at the end of a canary."""


class Road(StrEnum):
    """By what a secret could come to be shown."""

    QUOTED = "quoted"  # in a refusal
    CUT = "cut"  # the same, cut in its middle
    RAISED = "raised"  # by an exception that nobody expects


@dataclass(frozen=True)
class Source:
    """Where a secret stands: in a flag, a variable, or the file that a variable names. `dress`:
    the document around it."""

    name: str
    dress: str = ""
    file: bool = False

    def __str__(self) -> str:
        return " ".join(filter(None, (self.name, "file" * self.file, self.dress)))


@dataclass(frozen=True)
class Point:
    source: Source
    odd: str
    cloud: str
    forge: ForgeName
    road: Road

    def __str__(self) -> str:
        return f"{self.source} / {self.odd} / {self.cloud} / {self.forge.value} / {self.road}"


@dataclass(frozen=True)
class Canary:
    """A secret: random letters, then something odd, then others."""

    first: str
    second: str
    odd: str

    @property
    def text(self) -> str:
        return f"{self.first}{self.odd}{self.second}{self.odd}"


def canary_of(point: Point, seed: int) -> Canary:
    letters = random.Random(f"{seed} {point}")
    first, second = ("".join(letters.choices("abcdefghkmnpqrstuvwxyz", k=28)) for _ in range(2))
    return Canary(first, second, ODD[point.odd])


def _key(canary: Canary) -> str:
    kind = "PRIVATE KEY"
    return f"-----BEGIN {kind}-----\n{canary.text}\n-----END {kind}-----\n"


def _google(canary: Canary) -> str:
    return json.dumps(
        {
            "type": "service_account",
            "client_email": "octo@train.iam.gserviceaccount.com",
            "private_key": _key(canary),
            "token_uri": "https://127.0.0.1:9/token",
        }
    )


def _kubeconfig(canary: Canary, server: str) -> str:
    """YAML, of which JSON is a part."""
    return json.dumps(
        {
            "current-context": "lab",
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
            "clusters": [{"name": "lab", "cluster": {"server": server}}],
            "users": [{"name": "lab", "user": {"token": canary.text}}],
        }
    )


DRESSES: Mapping[str, Callable[[Canary, str], str]] = {
    "": lambda canary, _: canary.text,
    "PEM": lambda canary, _: _key(canary),
    "key": lambda canary, _: _google(canary),
    "kubeconfig": _kubeconfig,
    "INI": lambda canary, _: (
        f"[default]\naws_access_key_id = AKIAOCTO\naws_secret_access_key = {canary.text}\n"
        f"aws_session_token = {canary.text}\n"
    ),
    "netrc": lambda canary, _: f"machine 127.0.0.1 login octo password {canary.text}\n",
    "proxy": lambda canary, _: f"http://octo:{canary.text}@127.0.0.1:9",
}
"""Documents with a canary, and an address that they name."""
OF_FORMATS = {"token": "", "key": "PEM", "account-key": "key", "kubeconfig": "kubeconfig"}
OF_VARIABLES = {
    "AWS_SHARED_CREDENTIALS_FILE": "INI",
    "AWS_CONFIG_FILE": "INI",
    "AZURE_CLIENT_CERTIFICATE_PATH": "PEM",
    "GOOGLE_APPLICATION_CREDENTIALS": "key",
    "KUBECONFIG": "kubeconfig",
    "NETRC": "netrc",
}
OF_THE_JOB = ("DEPLOY_ID_TOKEN", "CI_REGISTRY_PASSWORD")
"""Nothing reads them; their names say what they are."""


def sources() -> Iterator[Source]:
    for name, prop in inputs.schema()["properties"].items():
        if prop.get("writeOnly"):
            places = [f"--{name}", f"INPUT_{name.upper()}", variable_of(name)]
            for place in [*places, *prop.get("x-env", ())]:
                for dress in dict.fromkeys(("", OF_FORMATS[prop["format"]])):
                    yield Source(place, dress)
    for name in [*sorted(secret_sources.VARIABLES), *OF_THE_JOB]:
        for dress in dict.fromkeys(("", OF_VARIABLES.get(name, ""))):
            yield Source(name, dress)
    for name in sorted(name for name in secret_sources.FILES if name and "/" not in name):
        for dress in dict.fromkeys(("", OF_VARIABLES.get(name, ""))):
            yield Source(name, dress, file=True)
    yield Source("HTTPS_PROXY", "proxy")


def points() -> list[Point]:
    """All of them, but that a secret of one cloud takes only one road in launches with another. A
    variable cannot hold a NUL."""
    every = product(sources(), ODD, CLOUDS, ForgeName, Road)
    return [
        point
        for number, point in enumerate(Point(*each) for each in every)
        if (point.source.file or point.odd != "NUL")
        and (_concerns(point) or not number % len(Road))
    ]


def _concerns(point: Point) -> bool:
    """Whether the source is of this cloud, or of none."""
    owners = [
        name.value
        for name in ProviderName
        if point.source.name.startswith(providers.traits_of(name).variables)
        or f"{name.value}-" in point.source.name.lower().replace("_", "-")
    ]
    return point.cloud in (owners or CLOUDS)


def sample(number: int, seed: int) -> Sequence[Point]:
    return random.Random(seed).sample(points(), number)
