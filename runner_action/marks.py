"""What is made for a runner says whose it is: tags at the cloud, a mark at the forge. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from runner_action.model import (
    EXPIRY_TAG,
    ONLINE_BY_TAG,
    OWNER_TAG,
    REPOSITORY_TAG,
    RUN_TAG,
    Identity,
    Instance,
    ProviderName,
    Repository,
    Runner,
    moment,
)

MOMENT = "%Y-%m-%dT%H:%M:%SZ"
TAG_VALUE = 256
"""Characters that AWS and Azure take as a tag's value.
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_Tag.html and
https://learn.microsoft.com/azure/azure-resource-manager/management/tag-resources#limitations"""


def is_named_as(name: str, real: str) -> bool:
    """Whether `real`, a name that its cloud never changes, is one that a launch called `name`
    gives: with a digest behind it."""
    return bool(re.match(rf"{re.escape(name)}-[0-9a-f]{{8}}(-|$)", real))


def address_tag(repository: Repository) -> str:
    """A repository's address as a tag's value: of one that is too long for that, as with
    GitLab's groups it may be, the beginning and a digest."""
    if len(repository.url) <= TAG_VALUE:
        return repository.url
    return (
        f"{repository.url[: TAG_VALUE - 65]}-{hashlib.sha256(repository.url.encode()).hexdigest()}"
    )


def tags(
    identity: Identity,
    repository: Repository,
    run: str,
    online_by: datetime,
    expiry: datetime,
    metadata: Mapping[str, str],
) -> dict[str, str]:
    """Tags of everything made for a runner: ours last, so that metadata can never hide them.
    Times are in UTC."""
    ours = {
        "Name": identity.name,
        OWNER_TAG: "runner",
        **identity.marks,
        REPOSITORY_TAG: address_tag(repository),
        RUN_TAG: run[:TAG_VALUE],
        ONLINE_BY_TAG: online_by.strftime(MOMENT),
        EXPIRY_TAG: expiry.strftime(MOMENT),
    }
    return {**metadata, **ours}


@dataclass(frozen=True, kw_only=True)
class Mark:
    """What a forge's runner says of the launch that made it, in a label of its own: a forge
    keeps nothing else for us.

    Its digest binds it to the launch's name, with which the names of all its runners begin, and
    to the repository: on another runner, whoever put it there, it says nothing.
    """

    provider: ProviderName
    online_by: datetime
    name: str

    def label(self, repository: Repository) -> str:
        text = f"{OWNER_TAG}-{self.provider}-{self.online_by:%Y%m%d%H%M%S}"
        bound = "\0".join((text, self.name, repository.url))
        return f"{text}-{hashlib.sha256(bound.encode()).hexdigest()[:8]}"

    @classmethod
    def of(cls, runner: Runner, repository: Repository) -> Mark | None:
        """None: the runner is not ours."""
        parts = runner.name.split(" ")[0].split(
            "-"
        )  # at GitLab a turn has its claim behind its name
        names = ["-".join(parts[:number]) for number in range(len(parts), 0, -1)]
        for label in runner.labels:
            if match := re.fullmatch(
                rf"{OWNER_TAG}-({'|'.join(ProviderName)})-(\d{{14}})-[0-9a-f]{{8}}", label
            ):
                when = moment(match[2])
                marks = [
                    cls(provider=ProviderName(match[1]), online_by=when, name=name)
                    for name in names
                    if when
                ]
                if found := next((mark for mark in marks if mark.label(repository) == label), None):
                    return found
        return None


def marks_of(
    runners: Iterable[Runner], repository: Repository, provider: ProviderName
) -> dict[int, Mark]:
    """By a runner's id, of those whose machines this provider has."""
    return {
        one.id: mark
        for one in runners
        if (mark := Mark.of(one, repository)) and mark.provider is provider
    }


def is_alone(runner: Runner, machines: Iterable[Instance]) -> bool:
    """Offline, and no machine could be its own. A forge may still show one that is busy as
    offline."""
    return (
        not runner.online
        and not runner.busy
        and not any(runner.name in one.runner_names for one in machines)
    )
