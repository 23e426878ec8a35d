"""The words: what a launch is made of. The same word stands in the schema, the README, the code
and the logs.

All types are frozen and keyword-only: a value that was checked once stays as it was checked.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

ID_END = 8
"""How much of an instance's id goes into a runner's name."""
OWNER_TAG = "cml-runner"
"""Tag (and its prefix) of everything we create; nothing without it is ever touched."""
NAME_TAG = f"{OWNER_TAG}:name"
LAUNCH_TAG = f"{OWNER_TAG}:launch"
REPOSITORY_TAG = f"{OWNER_TAG}:repository"
RUN_TAG = f"{OWNER_TAG}:run"
ONLINE_BY_TAG, EXPIRY_TAG = f"{OWNER_TAG}:online-by", f"{OWNER_TAG}:expiry"
"""When its runner must be online, and when its lease ends."""


class Secret:
    """A text that shows itself to nobody: `str`, `repr` and formatting give `***`; only
    `reveal()` gives the text."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __str__(self) -> str:
        return "***"

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


def secret_of(text: str | None) -> Secret | None:
    """None for no text."""
    return Secret(text) if text else None


@dataclass(frozen=True, kw_only=True)
class App:
    """A GitHub App as the one who asks. Its key never leaves the launcher."""

    id: str
    """Its number, or its client id."""
    key: Secret
    """PEM."""


class ProviderName(StrEnum):
    AWS = "aws"
    AZURE = "azure"
    GCP = "gcp"
    KUBERNETES = "kubernetes"


class ForgeName(StrEnum):
    GITHUB = "github"
    GITLAB = "gitlab"


@dataclass(frozen=True, kw_only=True)
class Repository:
    """Where jobs come from: the address a person sees in the browser, without credentials and
    `.git`."""

    url: str

    @property
    def server(self) -> str:
        """Scheme and host, such as `https://github.com`."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def path(self) -> str:
        """What follows the host, such as `owner/name`."""
        return urlsplit(self.url).path.strip("/")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who a runner is, known before anything is paid for.

    `name` is the runner at the forge and the instance at the cloud; `key` tells this run from
    any other with the same name, so that a repeated request finds its own instance and nobody
    else's.
    """

    name: str
    key: str

    def client_token(self, *parts: str) -> str:
        """The same with a second half that shows that it is one of ours (`is_client_token`)."""
        token = self.token(*parts)
        return token + _seal(token)

    def token(self, *parts: str) -> str:
        """Client token for one request about this runner: 32 hexadecimal digits, the same for
        the same parts."""
        return hashlib.sha256("\0".join((self.name, self.key, *parts)).encode()).hexdigest()[:32]

    @property
    def marks(self) -> dict[str, str]:
        """Tags by which what this launch made is told from all else, even from another launch's
        of the same name."""
        return {NAME_TAG: self.name, LAUNCH_TAG: self.token()}


def is_client_token(text: str) -> bool:
    """Nobody but a launch gives one of that kind to what it creates."""
    return len(text) == 64 and text[32:] == _seal(text[:32])


def _seal(token: str) -> str:
    return hashlib.sha256(f"{OWNER_TAG}\0{token}".encode()).hexdigest()[:32]


@dataclass(frozen=True, kw_only=True)
class CiJob:
    """The CI job that launches, as its environment tells: the id of the job itself is not among
    it on GitHub. `run_id`: workflow run or pipeline."""

    repository_url: str
    run_id: int
    attempt: int = 1
    runner_name: str = ""
    id: int = 0
    name: str = ""
    project: str = ""
    """GitLab tells a job these three."""


@dataclass(frozen=True, kw_only=True)
class LaunchJob:
    """The same job as the forge knows it."""

    run_id: int
    id: int
    name: str
    project: str = ""
    """Path of its repository, if the runners are not that repository's alone."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Who launches. `derived_name`: label of its runners, and their name unless the user gives
    one; `key`: tells this run from all others; `title`: for people."""

    derived_name: str
    key: str
    title: str
    job: CiJob | None = None


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Machines of one type in one zone, of which the cloud has some or none."""

    instance_type: str
    zone: str


@dataclass(frozen=True, kw_only=True)
class Placement:
    """One rung of the ladder: what one create call asks for, in the cloud's own words. Providers
    add what their call needs."""

    region: str
    spot: bool
    pools: tuple[Pool, ...]
    """In the order in which they are wanted."""

    def __str__(self) -> str:
        types = dict.fromkeys(pool.instance_type for pool in self.pools)
        zones = dict.fromkeys(pool.zone for pool in self.pools)
        return (
            f"{', '.join(types)} {'spot' if self.spot else 'on demand'} in"
            f" {', '.join(filter(None, zones)) or self.region}"
        )


@dataclass(frozen=True, kw_only=True)
class Place:
    """A region, or one zone of it."""

    region: str
    zone: str | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The provider's answer to a request, made without the network: native words only."""

    places: tuple[Place, ...]
    instance_types: tuple[str, ...]
    architecture: str
    """`x64` or `arm64`, as GitHub's and GitLab's runner downloads call them."""
    image: str
    disk_gb: int
    spots: tuple[bool, ...]
    """Whether to ask for spot machines, in order."""
    spot_price: float | None
    notes: tuple[str, ...] = ()
    """What the user should know, such as retired hardware."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What every instance of a launch needs besides its placement."""

    identity: Identity
    user_data: bytes
    """Complete user data, compressed if it pays: at most what the cloud takes."""
    tags: Mapping[str, str]
    lifetime: int = 0
    """Seconds after which the cloud may end it by itself, where it can; 0 for never."""


@dataclass(frozen=True)
class Deletion:
    """What a machine has to know to delete itself, on a cloud where one that powers itself off
    is only stopped."""

    facts: Mapping[str, Any]
    key: Secret | None = None
    """JSON."""


@dataclass(frozen=True, kw_only=True)
class Instance:
    """A machine at the cloud: enough to destroy it. Found again by name and tags if the id was
    lost."""

    provider: ProviderName
    id: str
    name: str
    region: str
    zone: str = ""
    instance_type: str = ""
    image: str = ""
    spot: bool = False
    address: str = ""
    launched: str = ""
    """When the cloud made it: RFC 3339, UTC."""
    alive: bool = True
    """False once the cloud is ending it or has ended it."""
    login: str = ""
    """The user of its image that a key lets in."""
    group: str = ""
    """What holds all that was made for it, where there is such a thing: Azure's resource group,
    Kubernetes' Job."""
    trouble: str = ""
    """Why it will not be a runner, where the cloud says that before the machine can."""
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Ours, as they were given, whatever the cloud makes of such words."""
    proven: bool = False
    """Whether what the cloud recorded at its creation, which nobody can change since, says that
    we made it. Tags alone do not: whoever may tag a machine could make it look like ours."""

    @property
    def online_by(self) -> datetime | None:
        """When its runner must be online, and `expiry`, when its lease ends. None: it does not
        say."""
        return moment(self.tags.get(ONLINE_BY_TAG, ""))

    @property
    def expiry(self) -> datetime | None:
        return moment(self.tags.get(EXPIRY_TAG, ""))

    @property
    def runner_names(self) -> tuple[str, str]:
        """What its runner may be called: as the only one of its launch, or as one of several."""
        return self.name, f"{self.name}-{id_end(self.id)}"


@dataclass(frozen=True, kw_only=True)
class Runner:
    """A runner as the forge lists it."""

    id: int
    name: str
    labels: frozenset[str]
    online: bool
    """And not paused."""
    busy: bool
    contacted: bool = True
    """False where the forge says that it was never online."""
    claims: frozenset[str] = frozenset()
    """As in `claim`; no labels of its own."""
    ephemeral: bool = False
    """For one job, where the forge says so."""


@dataclass(frozen=True, kw_only=True)
class Download:
    """The forge's runner program for one architecture."""

    url: str
    sha256: str
    version: str
    token: Secret | None = None
    """Short-lived token for servers that want one with the download."""
    fixed: bool = False
    """This very version was asked for, and is new enough to do without updating itself."""


@dataclass(frozen=True, kw_only=True)
class Registration:
    """What one machine needs to join the forge, and nothing more. Exactly one of the first three
    is set: GitHub's configuration of one runner, GitHub's token for any number, GitLab's token
    of one runner."""

    jit_config: Secret | None = None
    token: Secret | None = None
    runner_token: Secret | None = None
    removal_token: Secret | None = None
    runner_id: int | None = None


@dataclass(frozen=True, kw_only=True)
class Launched:
    """One runner that is online: what the outputs and the summary are made of."""

    runner_name: str
    label: str
    """That only runners of its launch carry."""
    labels: tuple[str, ...]
    """The others."""
    reused: bool
    launch_seconds: float
    instance: Instance | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """How a launch went: the runners, the placements that were tried, and the seconds from the
    start of the launcher to each stage."""

    launched: tuple[Launched, ...]
    plan: Plan | None = None
    ladder: tuple[Placement, ...] = ()
    tried: tuple[str, ...] = ()
    stages: Mapping[str, float] = field(default_factory=dict)


def runner_name(identity: Identity, instance_id: str, alone: bool) -> str:
    """The name at the forge: that of the launch, or, for one of several machines with the same
    user data, with the end of its instance's id.

    The machine makes it in the same way (`bootstrap/machine/boot.sh`).
    """
    return identity.name if alone else f"{identity.name}-{id_end(instance_id)}"


def id_end(instance_id: str) -> str:
    return instance_id[-ID_END:].lstrip("-")


def names(base: str, count: int, taken: Collection[str] = ()) -> tuple[str, ...]:
    """Names of the runners of one launch: the asked or derived name, numbered if there is more
    than one or it is taken."""
    numbered = (f"{base}-{number}" for number in itertools.count(1))
    wanted = itertools.chain([base], numbered) if count == 1 else numbered
    return tuple(itertools.islice((name for name in wanted if name not in taken), count))


def moment(text: str) -> datetime | None:
    """A time as our tags and marks have it, in UTC; also where a cloud takes neither capitals
    nor colons. None: it is none."""
    digits = re.sub(r"\D", "", text)
    try:
        return (
            datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
            if len(digits) == 14
            else None
        )
    except ValueError:
        return None
