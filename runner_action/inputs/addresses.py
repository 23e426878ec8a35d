"""Addresses of repositories, as people and programs write them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from runner_action.forges import USUAL, traits_of
from runner_action.forges.places import forge_of
from runner_action.forges.traits import Traits
from runner_action.model import ForgeName
from runner_action.plain import parts_of

OF_PAGE = "/-/"
"""Precedes a page in a project's address on GitLab.
https://docs.gitlab.com/development/routing/#project-routes"""
_REMOTE = re.compile(r'^\s*\[\s*remote\s+"origin"\s*\](?P<body>[^\[]*)', re.M | re.I)
_URL = re.compile(r"^\s*url\s*=\s*(?P<url>.+?)\s*$", re.M | re.I)


def repository_url(text: str, forge: str | None, servers: Mapping[ForgeName, str]) -> str:
    """`https://host/owner/name` from a URL, `owner/name`, or a remote for scp or ssh; any other
    text as it is. `servers`: as `places.servers_of` returns them."""
    text = re.sub(r"^<(.*)>$", r"\1", text.strip()).removeprefix("git+")
    if match := re.fullmatch(r"(?:[^@/\s]+@)([^:/\s]+):(?!//)(.+)", text):
        text = f"https://{match[1]}/{match[2].strip('/')}"
    elif match := re.fullmatch(rf"({'|'.join(ForgeName)}):([\w.-]+(?:/[\w.-]+)+)", text):
        text = f"{traits_of(ForgeName(match[1])).hosted}/{match[2]}"
    elif re.fullmatch(r"[\w.-]+(/[\w.-]+)+/?", text):
        text = _with_server(text, forge, servers)
    parts = parts_of(text)
    if parts.scheme not in ("http", "https", "ssh", "git") or not parts.hostname:
        return text
    over_ssh = parts.scheme in ("ssh", "git")
    host = parts.hostname if over_ssh or not parts.port else f"{parts.hostname}:{parts.port}"
    main, path = _main(host), parts.path.strip("/").partition(OF_PAGE)[0].removesuffix("/-")
    url = f"{'https' if over_ssh else parts.scheme}://{main}"
    name = forge if forge in [*ForgeName] else forge_of(url, servers)
    if name:
        path = _without_page(path, traits_of(ForgeName(name)))
    return f"{url}/{path.removesuffix('.git')}"


def unfit(url: str, forge: str | None) -> str:
    """Why no jobs can come from this address, which `repository_url` has returned; empty if some
    may."""
    traits = traits_of(ForgeName(forge)) if forge and forge in [*ForgeName] else None
    parts = parts_of(url)
    if not (traits and traits.nameless_paths):
        return ""
    if not f"{parts.path}/".startswith(f"/{traits.nameless_paths}"):
        return ""
    page = f"{parts.scheme}://{parts.netloc}/group/project"
    return (
        f"is an address of {traits.title}'s API: write that of the project's or group's page, such"
        f" as {page}"
    )


def _with_server(text: str, forge: str | None, servers: Mapping[ForgeName, str]) -> str:
    """A path on the job's own server, unless it begins with a host, as `github.com/octo/train`."""
    host = text.partition("/")[0]
    if _main(host) in (parts_of(traits_of(name).hosted).netloc for name in ForgeName):
        return f"https://{text}"
    name = ForgeName(forge) if forge and forge in [*ForgeName] else USUAL
    known = servers.get(name) or next(filter(None, servers.values()), "")
    return f"{known or traits_of(name).hosted}/{text}"


def _main(host: str) -> str:
    """The host of the vendor's own instance in place of its others, such as `www.github.com`."""
    for name in ForgeName:
        if host in traits_of(name).other_hosts:
            return parts_of(traits_of(name).hosted).netloc
    return host


def _without_page(path: str, traits: Traits) -> str:
    """Owner and name, from the path of a page or of the API."""
    path = re.sub(traits.api_paths, "", path) if traits.api_paths else path
    parts = path.split("/")
    return "/".join(parts[:2]) if len(parts) > 2 and parts[2] in traits.pages else path


_OF_SERVER = re.compile(r"(?:https?|ssh|git)://|[^/\s]+:(?!//)")
"""How the addresses of servers begin, with a scheme or as scp writes them."""


def origin_of(config: str) -> str:
    """The address of the remote `origin` in a checkout's `.git/config`; empty if there is none, or
    if it is no server but a folder: https://git-scm.com/docs/git-clone#_git_urls"""
    remote = _REMOTE.search(config)
    address = _URL.search(remote["body"]) if remote else None
    url = address["url"].strip('"') if address else ""
    return url if _OF_SERVER.match(url) else ""
