"""The types that the rest of the launcher shares, named as in docs/glossary.md.

All are frozen and keyword-only: a value that was checked once stays as it was.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any
from urllib.parse import urlsplit

ID_END = 8
"""Characters of an instance's ID that go into a runner's name."""
OWNER_TAG = "cml-runner"
"""Tag (and the prefix of all tags) of everything that a launch creates. Nothing without it is ever
touched."""
NAME_TAG = f"{OWNER_TAG}:name"
LAUNCH_TAG = f"{OWNER_TAG}:launch"
REPOSITORY_TAG = f"{OWNER_TAG}:repository"
RUN_TAG = f"{OWNER_TAG}:run"
ONLINE_BY_TAG, EXPIRY_TAG = f"{OWNER_TAG}:online-by", f"{OWNER_TAG}:expiry"
"""When the runner must be online, and when the lease ends."""


class Secret:
    """A text that is never printed: `str`, `repr` and formatting give `***`; only `reveal()`
    returns the text."""

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
    """A GitHub App that authenticates in place of a token. Its key (PEM) stays in the launcher."""

    id: str
    """Its number, or its client ID."""
    key: Secret


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
    """Where jobs come from. `url`: as in the browser's address bar, without credentials and
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
    """Identifies a runner and its machine before either is created.

    `name` is the name of the runner at the forge and of the instance at the cloud; `key` differs
    between runs with the same name, so that a repeated request finds its own instance and no
    other's.
    """

    name: str
    key: str

    def client_token(self, *parts: str) -> str:
        """`token` with a second half by which `is_client_token` recognises it."""
        token = self.token(*parts)
        return token + _seal(token)

    def token(self, *parts: str) -> str:
        """Identifies one request about this runner: 32 hexadecimal digits, always the same for the
        same parts."""
        return hashlib.sha256("\0".join((self.name, self.key, *parts)).encode()).hexdigest()[:32]

    @property
    def marks(self) -> dict[str, str]:
        """Tags that only this launch's resources have, and no other launch's of the same name."""
        return {NAME_TAG: self.name, LAUNCH_TAG: self.token()}


def is_client_token(text: str) -> bool:
    """Whether the text is an `Identity.client_token`, which only a launch gives to what it
    creates."""
    return len(text) == 64 and text[32:] == _seal(text[:32])


def _seal(token: str) -> str:
    return hashlib.sha256(f"{OWNER_TAG}\0{token}".encode()).hexdigest()[:32]


@dataclass(frozen=True, kw_only=True)
class CiJob:
    """The CI job that launches, as far as its environment describes it: on GitHub that does not
    include the job's own ID. `run_id`: of the workflow run or pipeline; `attempt`: above 1 if it
    may not be the first, even if only the first is known as such."""

    repository_url: str
    run_id: int
    attempt: int = 1
    runner_name: str = ""
    id: int = 0
    name: str = ""
    project: str = ""
    """Only GitLab sets these three."""


@dataclass(frozen=True, kw_only=True)
class LaunchJob:
    """The same job as the forge describes it."""

    run_id: int
    id: int
    name: str
    project: str = ""
    """Path of its repository, if the runners serve other repositories too."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """The run that launches. `derived_name`: label of its runners, and their name unless the user
    chooses another; `key`: unique to this launch, the nth (`ordinal`) of its step."""

    derived_name: str
    key: str
    title: str
    job: CiJob | None = None
    ordinal: int = 0

    def key_of(self, ordinal: int) -> str:
        return hashlib.sha256(f"{self.key}\0{ordinal}".encode()).hexdigest()

    def nth(self, ordinal: int) -> Run:
        """The run of one launch of the step that `self` stands for."""
        key = self.key_of(ordinal)
        return replace(self, derived_name=f"cml-{key[:10]}", key=key, ordinal=ordinal)


@dataclass(frozen=True, kw_only=True)
class Pool:
    """The machines of one type in one zone, of which the cloud may have none left."""

    instance_type: str
    zone: str


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What one create call requests, `pools` in order of preference. Providers add to this."""

    region: str
    spot: bool
    pools: tuple[Pool, ...]

    @property
    def quota(self) -> object:
        """Placements for which this is equal need the same quota."""
        return self.region, self.spot

    def __str__(self) -> str:
        types = ", ".join(dict.fromkeys(pool.instance_type for pool in self.pools))
        zones = ", ".join(filter(None, dict.fromkeys(pool.zone for pool in self.pools)))
        return f"{types} {'spot' if self.spot else 'on demand'} in {zones or self.region}"


@dataclass(frozen=True, kw_only=True)
class Place:
    """A region, or one zone of it."""

    region: str
    zone: str | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A request in the cloud's own terms, derived without any call."""

    places: tuple[Place, ...]
    instance_types: tuple[str, ...]
    architecture: str
    """`x64` or `arm64`, as GitHub's and GitLab's runner downloads call them."""
    image: str
    disk_gb: int
    spots: tuple[bool, ...]
    """Whether to request spot machines, in order of preference."""
    spot_price: float | None
    notes: tuple[str, ...] = ()
    """What the user should know, such as retired hardware."""


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What every instance of a launch needs besides its placement."""

    identity: Identity
    user_data: bytes
    """Complete, and within the cloud's limit; compressed if that makes it smaller."""
    tags: Mapping[str, str]
    lifetime: int = 0
    """Seconds after which the cloud deletes the machine, if it supports that; 0 for never."""


@dataclass(frozen=True)
class Deletion:
    """What a machine needs to know to delete itself, on a cloud that only stops a machine that
    powers off. `key`: JSON."""

    facts: Mapping[str, Any]
    key: Secret | None = None


@dataclass(frozen=True, kw_only=True)
class Instance:
    """A machine as the cloud describes it. It can be looked up by name and tags if its ID was
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
    """When the cloud created it: RFC 3339, UTC."""
    alive: bool = True
    """False once it is being deleted or is deleted."""
    login: str = ""
    """The user of its image that may log in with a key."""
    group: str = ""
    """What contains its resources, if there is such a thing: Azure's resource group, a Job."""
    reclaimed: bool = False
    """Whether the cloud says that it took the machine back."""
    trouble: str = ""
    """Why it will not become a runner, if the cloud knows that before the machine does."""
    tags: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Those of `marks.tags`, as they were set, however the cloud spells them."""
    proven: bool = False
    """Whether a launch created it, according to what the cloud recorded then and no one can change.
    Tags alone prove nothing: anyone who may tag a machine could set them."""

    @property
    def online_by(self) -> datetime | None:
        """When its runner must be online; `expiry` is the end of its lease. None if unknown."""
        return moment(self.tags.get(ONLINE_BY_TAG, ""))

    @property
    def expiry(self) -> datetime | None:
        return moment(self.tags.get(EXPIRY_TAG, ""))

    @property
    def runner_names(self) -> tuple[str, str]:
        """Possible names of its runner: as the only runner of its launch, or as one of several."""
        return self.name, f"{self.name}-{id_end(self.id)}"


@dataclass(frozen=True, kw_only=True)
class Runner:
    """A runner as the forge lists it. `online`: and not paused. `contacted`: False if the forge
    reports that it was never online. `access_level`: of which jobs it gets, on GitLab; or empty.
    `claims`: as in `claim.py`; not among `labels`. `ephemeral`: for one job, if the forge says."""

    id: int
    name: str
    labels: frozenset[str]
    online: bool
    busy: bool
    contacted: bool = True
    access_level: str = ""
    claims: frozenset[str] = frozenset()
    ephemeral: bool = False


@dataclass(frozen=True, kw_only=True)
class Download:
    """The forge's runner program for one architecture."""

    url: str
    sha256: str
    version: str
    token: Secret | None = None
    """Short-lived token, for servers that require one for the download."""
    fixed: bool = False
    """Whether exactly this version was requested, and is recent enough not to update itself."""


@dataclass(frozen=True, kw_only=True)
class Registration:
    """What one machine needs to register its runner. Exactly one of the first three fields is set:
    GitHub's just-in-time configuration of one runner, GitHub's registration token for any number,
    GitLab's token of one. `before_jobs`: what the script of each job begins with, on GitLab."""

    jit_config: Secret | None = None
    token: Secret | None = None
    runner_token: Secret | None = None
    removal_token: Secret | None = None
    runner_id: int | None = None
    before_jobs: str = ""
    label: str | None = None
    """Its launch's mark: without an ID, a runner of that name without it is another launch's."""


@dataclass(frozen=True, kw_only=True)
class Launched:
    """One runner that is online, for the outputs and the summary."""

    runner_name: str
    label: str
    """Only the runners of its launch have it; `labels` are the others."""
    labels: tuple[str, ...]
    reused: bool
    launch_seconds: float
    instance: Instance | None = None


@dataclass(frozen=True, kw_only=True)
class Report:
    """How a launch went: the runners, the placements that were tried, and the seconds from the
    start of the launcher to each stage. `memory`: as in `Findings`."""

    launched: tuple[Launched, ...]
    plan: Plan | None = None
    ladder: tuple[Placement, ...] = ()
    tried: tuple[str, ...] = ()
    memory: str = ""
    stages: Mapping[str, float] = field(default_factory=dict)
    installing: float = 0.0
    """Seconds of these that the machine took to install packages; 0 if that is not known."""


def runner_name(identity: Identity, instance_id: str, alone: bool) -> str:
    """The runner's name: that of the launch, or, for one of several machines with the same user
    data, with the end of its instance's ID.

    The machine derives it in the same way (`bootstrap/machine/boot.sh`).
    """
    return identity.name if alone else f"{identity.name}-{id_end(instance_id)}"


def id_end(instance_id: str) -> str:
    return instance_id[-ID_END:].lstrip("-")


def moment(text: str) -> datetime | None:
    """Parses a time as tags and marks contain it, in UTC, even if a cloud allows neither capitals
    nor colons. None if the text is not a time."""
    digits = re.sub(r"\D", "", text)
    if len(digits) != 14:
        return None
    try:
        return datetime.strptime(digits, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
    except ValueError:
        return None
