"""The units of a machine that costs while it is off: no power-off, whoever asks for it, before the
machine's own deletion.

systemd powers off in order when a unit says `poweroff`, a person or a job does, or somebody presses
the button: it stops all units first, and waits for each. So the deletion is what a unit does when
it is stopped. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

DELETE_SERVICE = """[Unit]
After=network.target nss-lookup.target
Before=cml-runner.service cml-runner-watchdog.service

[Service]
Type=oneshot
RemainAfterExit=yes
WorkingDirectory=%s
ExecStart=/bin/true
ExecStop=/usr/bin/python3 -m agent.ending
TimeoutStopSec=infinity
StandardOutput=journal+console
"""
"""Stopped after the agent and its clean-up, and while there still is a network: what is started
after network.target is stopped before it.
https://www.freedesktop.org/software/systemd/man/latest/systemd.special.html#network.target"""

FOR_EVER = {"azure": {"poweroff.target.d/cml-runner.conf": "[Unit]\nJobTimeoutSec=infinity\n"}}
"""By cloud, where the deletion is tried for ever. systemd's own poweroff.target forces a power-off
that takes half an hour: https://github.com/systemd/systemd/blob/main/units/poweroff.target"""


def after_deletion(units: Mapping[str, str], cloud: str, home: str) -> dict[str, str]:
    """Units by their names, and drop-ins. The agent's, and the timer that every boot starts,
    bring the deletion with them."""
    found = {name: text.replace("poweroff-force", "poweroff") for name, text in units.items()}
    for name in ("cml-runner.service", "cml-runner-watchdog.timer"):
        found[name] = f"[Unit]\nWants=cml-runner-delete.service\n\n{found[name]}"
    return {**found, "cml-runner-delete.service": DELETE_SERVICE % home, **FOR_EVER.get(cloud, {})}
