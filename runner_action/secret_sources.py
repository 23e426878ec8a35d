"""The secrets of this process besides its inputs: those that SDKs and CIs read from variables and
files. Nothing here is an input; all of it can turn up in the text of an error."""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Iterator, Mapping
from itertools import chain

from runner_action import forges, providers
from runner_action.files import ReadFile
from runner_action.model import ForgeName, ProviderName

CLOUDS = tuple(map(providers.traits_of, ProviderName))
SERVERS = tuple(map(forges.traits_of, ForgeName))
VARIABLES = frozenset(
    chain(
        *(traits.secret_variables for traits in CLOUDS),
        *(traits.secret_variables for traits in SERVERS),
    )
)
"""Those that hold a secret whatever their value looks like."""
FILES: Mapping[str, str] = {
    "NETRC": "~/.netrc",
    **ChainMap(*(dict(traits.secret_files) for traits in CLOUDS)),
    **ChainMap(*(dict(traits.secret_files) for traits in SERVERS)),
}
"""Variables that name files with secrets, or folders with such a file, which follows; and what is
read without the variable."""
_SECRET_NAME = re.compile(
    r"(TOKEN|PASSWORD|PASSWD|SECRET|_JWT|_JWT_V\d|PRIVATE[_-]KEY|ACCESS_KEY|CREDENTIALS)(_DATA)?$"
    r"|BEARER_TOKEN_",
    re.IGNORECASE,
)
"""ID tokens of GitLab have the names that their job gives them, and some SDKs have a token for each
service."""
_PLACE = re.compile(r"[/~.]?[\w.~-]*(/[\w.~@+-]*)+|https?://\S+")
"""A path or an address, which is no secret."""
LEAST_UNKNOWN = 12
"""Characters of a secret that is only known by the name of its variable."""
_USER = re.compile(r"//([^/@\s]+)@")


def secrets_of(environ: Mapping[str, str], read_file: ReadFile) -> Iterator[str]:
    """Each secret that the variables, and the files that they name, hold."""
    for name, value in environ.items():
        if name in VARIABLES or _looks_secret(name, value):
            yield value
        if name.lower().endswith("_proxy"):
            yield from _in_address(value)
    home = environ.get("HOME", "")
    for name, usual in FILES.items():
        variable, slash, file = name.partition("/")
        named = environ.get(variable) or usual
        # Some variables name several files.
        for path in filter(str.strip, {named, *named.split(":")}):
            text = _text(f"{path.strip()}{slash}{file}", home, read_file)
            yield from filter(None, [text])


def is_of_secrets(name: str) -> bool:
    """Whether the name of a variable says that it holds a secret."""
    return name in VARIABLES or bool(_SECRET_NAME.search(name))


def _looks_secret(name: str, value: str) -> bool:
    """Whether a variable that nothing here reads holds a secret. Words such as `runner`, which a
    shorter password may be, must stay in outputs."""
    long = len(value) >= LEAST_UNKNOWN
    return long and bool(_SECRET_NAME.search(name)) and not _PLACE.fullmatch(value)


def _text(path: str, home: str, read_file: ReadFile) -> str | None:
    if path.startswith("~/"):
        path = f"{home}{path[1:]}" if home else ""
    return read_file(path) if path else None


def _in_address(address: str) -> Iterator[str]:
    """User and password of a proxy."""
    for both in _USER.findall(address):
        yield both
        yield from both.partition(":")[2:]
