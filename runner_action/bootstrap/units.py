"""The files by which a machine starts the agent and ends itself: systemd's units and the script
that cloud-init runs, as they stand in `machine/`, without their comments. Pure.

Where a machine that is off still costs, there is no power-off, whoever asks for it, before the
machine's own deletion. systemd powers off in order when a unit says `poweroff`, a person or a job
does, or somebody presses the button: it stops all units first, and waits for each. So the deletion
is what a unit does when it is stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files

from runner_action.providers.traits import Traits

WITHOUT_END = {"poweroff.target.d/cml-runner.conf": "[Unit]\nJobTimeoutSec=infinity\n"}
"""Where the deletion is tried without end. systemd's own poweroff.target forces a power-off
that takes half an hour: https://github.com/systemd/systemd/blob/main/units/poweroff.target"""
AGENT = "cml-runner.service"
WATCHDOG_TIMER = "cml-runner-watchdog.timer"
WIPE = "cml-runner-wipe.service"
DELETE = "cml-runner-delete.service"
ONLINE = "After=network-online.target"


@cache
def text_of(name: str) -> str:
    """A file of `machine/`."""
    text = files("runner_action.bootstrap").joinpath("machine", name).read_text("utf-8")
    return "".join(line for line in text.splitlines(True) if not line.startswith("#"))


def boot_script(packed: str, named: str) -> str:
    """`packed`: what it unpacks, in Base64; `named`: what Python does to each text of it."""
    return text_of("boot.sh").replace("@FILES@", packed).replace("@NAMED@", named)


def units(traits: Traits, *, has_script: bool, deletes: bool) -> dict[str, str]:
    """By their names. `has_script`: a script of the user's may install packages, for which
    cloud-init says where from. `deletes`: the machine costs while it is off."""
    agent = text_of(AGENT)
    wiped = "".join(f"ExecStart=/bin/rm -f {path}\n" for path in traits.wiped_too)
    found = {
        AGENT: agent.replace(ONLINE, f"{ONLINE} cloud-config.service") if has_script else agent,
        WIPE: text_of(WIPE) + wiped,
        "cml-runner-end.service": text_of("cml-runner-end.service"),
        "cml-runner-watchdog.service": text_of("cml-runner-watchdog.service"),
        WATCHDOG_TIMER: text_of(WATCHDOG_TIMER),
    }
    return _after_deletion(found, traits) if deletes else found


def _after_deletion(units: Mapping[str, str], traits: Traits) -> dict[str, str]:
    """The agent's, and the timer that every boot starts, bring the deletion with them."""
    found = {name: text.replace("poweroff-force", "poweroff") for name, text in units.items()}
    for name in (AGENT, WATCHDOG_TIMER):
        found[name] = f"[Unit]\nWants={DELETE}\n\n{found[name]}"
    last = WITHOUT_END if traits.deletion_without_end else {}
    return {**found, DELETE: text_of(DELETE), **last}
