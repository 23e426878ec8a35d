"""Tags at the cloud and marks at the forge, which say which launch created a resource. Pure."""

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
"""Characters that AWS and Azure allow in a tag's value.
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_Tag.html and
https://learn.microsoft.com/azure/azure-resource-manager/management/tag-resources#limitations"""


def is_named_as(name: str, real: str) -> bool:
    """Whether `real`, a name that no one can change, is one that the launch `name` chooses: `name`
    and a digest."""
    return bool(re.match(rf"{re.escape(name)}-[0-9a-f]{{8}}(-|$)", real))


def address_key(url: str) -> str:
    """What all spellings of an address have in common: GitHub and GitLab compare hosts and paths
    without regard to case.

    https://docs.github.com/en/rest/repos/repos ("The name is not case sensitive") and
    https://docs.gitlab.com/user/reserved_names/
    """
    return url.lower()


def address_tag(repository: Repository) -> str:
    """A repository's address as a tag's value, in lower case. One that is too long, as in nested
    groups of GitLab, is shortened to its beginning and a digest."""
    url = address_key(repository.url)
    if len(url) <= TAG_VALUE:
        return url
    return f"{url[: TAG_VALUE - 65]}-{hashlib.sha256(url.encode()).hexdigest()}"


def tags(
    identity: Identity,
    repository: Repository,
    run: str,
    online_by: datetime,
    expiry: datetime,
    metadata: Mapping[str, str],
) -> dict[str, str]:
    """Tags of everything that is created for a runner. `metadata` are the user's, which cannot
    replace any of the others. Times are in UTC."""
    return {
        **metadata,
        "Name": identity.name,
        OWNER_TAG: "runner",
        **identity.marks,
        REPOSITORY_TAG: address_tag(repository),
        RUN_TAG: run[:TAG_VALUE],
        ONLINE_BY_TAG: online_by.strftime(MOMENT),
        EXPIRY_TAG: expiry.strftime(MOMENT),
    }


_LABEL = re.compile(rf"{OWNER_TAG}-({'|'.join(ProviderName)})-(\d{{14}})-[0-9a-f]{{8}}")


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A runner's label that describes the launch that created it, because a forge stores nothing
    else about a runner.

    Its digest binds it to the name of the launch, with which the names of its runners begin, and
    to the repository. On any other runner, no matter who put it there, it means nothing.
    """

    provider: ProviderName
    online_by: datetime
    name: str

    def label(self, repository: Repository) -> str:
        text = f"{OWNER_TAG}-{self.provider}-{self.online_by:%Y%m%d%H%M%S}"
        bound = "\0".join((text, self.name, address_key(repository.url)))
        return f"{text}-{hashlib.sha256(bound.encode()).hexdigest()[:8]}"

    @classmethod
    def of(cls, runner: Runner, repository: Repository) -> Mark | None:
        """None: no launch of cml-runner created the runner."""
        # At GitLab the name of a turn is followed by its claim.
        parts = runner.name.split(" ")[0].split("-")
        names = ["-".join(parts[:number]) for number in range(len(parts), 0, -1)]
        for label in runner.labels:
            match = _LABEL.fullmatch(label)
            online_by = moment(match[2]) if match else None
            if not (match and online_by):
                continue
            for name in names:
                mark = cls(provider=ProviderName(match[1]), online_by=online_by, name=name)
                if mark.label(repository) == label:
                    return mark
        return None


def marks_of(
    runners: Iterable[Runner], repository: Repository, provider: ProviderName
) -> dict[int, Mark]:
    """The marks of runners whose machines are at this provider, by the runner's ID."""
    marks = {runner.id: Mark.of(runner, repository) for runner in runners}
    return {number: mark for number, mark in marks.items() if mark and mark.provider is provider}


def is_alone(runner: Runner, machines: Iterable[Instance]) -> bool:
    """Whether the runner is offline and none of the machines can be its own. A busy runner may be
    listed as offline, so it does not count."""
    has_machine = any(runner.name in machine.runner_names for machine in machines)
    return not runner.online and not runner.busy and not has_machine
