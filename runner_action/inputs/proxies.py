"""Variables that the CI or other programs set for themselves, and that inputs take over: they are
read as those programs read them, and what cannot be used is left out with a warning. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from runner_action.plain import parts_of


def is_of_others(prop: Mapping[str, Any], source: str) -> bool:
    """Whether the text of an input is from a variable of others."""
    return "x-proxy" in prop and source in prop["x-env"]


def read(prop: Mapping[str, Any], text: str) -> str | None:
    """The text as the schema wants it; None if it cannot be used. curl, pip and Go take proxies
    without a scheme, and spaces between hosts: https://curl.se/docs/manpage.html#-x"""
    if prop["x-proxy"] == "hosts":
        text = ",".join(text.replace(",", " ").split())
    else:
        text = text if "://" in text else f"http://{text}"
        if not parts_of(text).hostname:
            return None
    return text if re.search(prop["pattern"], text) else None


def unusable(name: str, prop: Mapping[str, Any], text: str, source: str) -> Iterator[str]:
    """A warning about what is left out."""
    if is_of_others(prop, source) and read(prop, text) is None:
        yield f"{source} cannot be used on the machine and is left out; `{name}` replaces it"
