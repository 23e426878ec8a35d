"""The files by which a machine starts the agent and ends itself: the systemd units and the script
for cloud-init from the folder `machine/`, without their comments. Pure.

Where a machine that is powered off still costs money, it deletes itself before any power-off,
whoever causes that. systemd first stops all units and waits for each, whether a unit, a person or a
job calls `poweroff`, or somebody presses the power button. So the deletion is what a unit does when
it is stopped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from runner_action.model import ProviderName
from runner_action.providers import traits_of

WITHOUT_LIMIT = {"poweroff.target.d/cml-runner.conf": "[Unit]\nJobTimeoutSec=infinity\n"}
"""Further files where the machine tries to delete itself without a time limit. By default
poweroff.target forces the power-off after half an hour:
https://github.com/systemd/systemd/blob/main/units/poweroff.target"""
AGENT = "cml-runner.service"
WATCHDOG_TIMER = "cml-runner-watchdog.timer"
WIPE = "cml-runner-wipe.service"
DELETE = "cml-runner-delete.service"
ONLINE = "After=network-online.target"


@cache
def text_of(name: str) -> str:
    """A file of `machine/`, without its comments."""
    text = files("runner_action.bootstrap").joinpath("machine", name).read_text("utf-8")
    return "".join(line for line in text.splitlines(True) if not line.startswith("#"))


def equip_script(*, own_image: bool, docker: bool) -> str:
    """What installs the packages that jobs expect. `own_image`: the user chose the image, of which
    nothing is known; `docker`: with Docker."""
    text = files("runner_action.bootstrap").joinpath("machine", "equip.sh").read_text("utf-8")
    if not own_image:
        text = re.sub(r"^#\{\n.*?^#\}\n", "", text, flags=re.S | re.M)
    text = "".join(line for line in text.splitlines(True) if not line.startswith("#"))
    return text.replace("@DOCKER@", "docker.io docker-cli docker-buildx apparmor" if docker else "")


def boot_script(packed: str, named: str) -> str:
    """The script for cloud-init. `packed`: the files that it unpacks, in Base64; `named`: Python
    code behind the text of each file, which may replace something in it."""
    return text_of("boot.sh").replace("@FILES@", packed).replace("@NAMED@", named)


def units(cloud: ProviderName, *, has_script: bool, deletes: bool) -> dict[str, str]:
    """The units by name. `has_script`: the user's startup script may install packages, so the agent
    waits until cloud-init has configured their sources. `deletes`: the machine must delete itself,
    as it costs money while it is powered off."""
    traits = traits_of(cloud)
    agent = text_of(AGENT)
    places = "".join(f" {path}" for path in traits.wiped_too)
    names = "".join(f" -o -path {path}" for path in traits.wiped_too)
    texts = {
        AGENT: agent.replace(ONLINE, f"{ONLINE} cloud-config.service") if has_script else agent,
        WIPE: text_of(WIPE).replace("@PLACES@", places).replace("@NAMES@", names),
        "cml-runner-end.service": text_of("cml-runner-end.service"),
        "cml-runner-watchdog.service": text_of("cml-runner-watchdog.service"),
        "cml-runner-failed.service": text_of("cml-runner-failed.service"),
        WATCHDOG_TIMER: text_of(WATCHDOG_TIMER),
    }
    return _with_deletion(texts, cloud) if deletes else texts


def _with_deletion(units: Mapping[str, str], cloud: ProviderName) -> dict[str, str]:
    """The units with the one that deletes the machine. It is wanted by the agent's unit, and by the
    timer, which every boot starts."""
    texts = {name: text.replace("poweroff-force", "poweroff") for name, text in units.items()}
    for name in (AGENT, WATCHDOG_TIMER):
        texts[name] = f"[Unit]\nWants={DELETE}\n\n{texts[name]}"
    further = WITHOUT_LIMIT if traits_of(cloud).deletion_without_limit else {}
    return {**texts, DELETE: text_of(DELETE).replace("@CLOUD@", cloud), **further}
