"""The `systemctl` of one machine. Its processes send requests through a pipe, and get the messages
and exit codes that systemd 247 and 257 were seen to give.

https://github.com/systemd/systemd/blob/v257/src/systemctl/systemctl-start-unit.c
https://github.com/systemd/systemd/blob/v257/src/systemctl/systemctl-util.c
(translate_bus_error_to_exit_status)
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from runner_action.sandbox.machine.systemd import Systemd

SCRIPT = """#!/bin/sh
answer=$(mktemp -u '{wire}.XXXXXXXXXX')
mkfifo -m 600 "$answer" || exit 1
echo "$answer $*" > '{wire}'
{{ read -r code; if [ "$code" = 0 ]; then cat; else cat >&2; fi; }} < "$answer"
rm -f "$answer"
exit "$code"
"""
NO_PERMISSION, NOT_INSTALLED = 4, 5
REFUSED = (
    "Failed to {verb} {unit}: Operation refused, unit {unit} may be requested by dependency only"
    " (it is configured to refuse manual start/stop)."
)
NOT_LOADED = "Failed to {verb} {unit}: Unit {unit} not loaded."
MASKED = "Failed to {verb} {unit}: Unit {unit} is masked."
Answer = tuple[int, str]


class Systemctl:
    """Installs the command in `folder` of the machine at `root`, and answers it."""

    def __init__(self, systemd: Systemd, root: Path, folder: Path) -> None:
        self._systemd = systemd
        self._root = root
        wire = root / "systemctl"
        os.mkfifo(wire, 0o622)
        scripts = {verb: f'#!/bin/sh\nexec {folder}/systemctl {verb} "$@"\n' for verb in OFF}
        for name, text in {**scripts, "systemctl": SCRIPT.format(wire=wire)}.items():
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
        requests = os.fdopen(os.open(wire, os.O_RDWR))
        threading.Thread(target=self._serve, args=(requests,), daemon=True).start()

    def _serve(self, requests: TextIO) -> None:
        for line in requests:
            threading.Thread(target=self._reply, args=line.split(None, 1), daemon=True).start()

    def _reply(self, wire: str, arguments: str) -> None:
        code, text = self.answer(arguments.split())
        with open(wire, "w") as out:  # waits until the script opens it
            out.write(f"{code}\n{text}" + "\n" * bool(text))

    def answer(self, argv: list[str]) -> Answer:
        """The exit code and the output: for code 0 on standard output, else on standard error."""
        verb = argv[0]
        if verb in OFF:
            self._systemd.power_off(f"systemctl {verb}", "--force" in argv or "-f" in argv)
            return 0, ""
        if verb in SHOWS:
            return SHOWS[verb](self._systemd, argv)
        return self._change_all(verb, argv)

    def _change_all(self, verb: str, argv: list[str]) -> Answer:
        """Of the verbs that change units or their files."""
        names = [word for word in argv[1:] if not word.startswith("-")]
        if verb == "mask":
            try:
                for name in names:
                    self._systemd.mask(name, runtime="--runtime" in argv)
            except FileExistsError as error:
                return 1, f"Failed to mask unit: File '{error.filename2}' already exists."
        elif verb == "kill":
            self._kill(argv)
        elif verb not in (*FILES, *CHANGES):
            return 1, f"Unknown command verb {verb}."
        for name in names if verb == "enable" else ():
            self._systemd.enable(name)
        if verb not in CHANGES and "--now" not in argv:
            return 0, ""
        change = {"enable": "start", "disable": "stop", "mask": "stop"}.get(verb, verb)
        wait = "--no-block" not in argv
        answers = [self._change(change, name, wait=wait) for name in names]
        return max(answers, key=lambda answer: answer[0], default=(0, ""))

    def _change(self, verb: str, name: str, *, wait: bool) -> Answer:
        """Starts, stops or restarts one unit, or refuses as systemd does."""
        unit = self._systemd.unit(name)
        if unit is None:
            if self._systemd.masked(name) and verb != "stop":
                return 1, MASKED.format(verb=verb, unit=name)
            return NOT_INSTALLED, NOT_LOADED.format(verb=verb, unit=name)
        if verb != "start" and unit.get("RefuseManualStop") in ("yes", "true", "1", "on"):
            return NO_PERMISSION, REFUSED.format(verb=verb, unit=name)
        job = threading.Thread(target=CHANGES[verb], args=(self._systemd, name), daemon=True)
        job.start()
        if wait:
            job.join()
        return 0, ""

    def _kill(self, argv: list[str]) -> None:
        """Sends a signal to the processes of units, which no unit can refuse."""
        options = dict(word.partition("=")[::2] for word in argv if word.startswith("-"))
        number = signal.Signals["SIG" + options.get("--signal", "TERM").removeprefix("SIG")]
        main = "main" in (options.get("--kill-who"), options.get("--kill-whom"))
        for name in (word for word in argv[1:] if not word.startswith("-")):
            for pid in self._systemd.processes(name, main=main):
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass


def _restart(systemd: Systemd, name: str) -> None:
    if systemd.stop(name, job="restart"):
        systemd.start(name)


def _list_jobs(systemd: Systemd, argv: list[str]) -> Answer:
    states = {"start": "waiting"}
    lines = [
        f"{number} {name} {kind} {states.get(kind, 'running')}"
        for number, (name, kind) in enumerate(systemd.jobs(), 100)
    ]
    if not lines and "--no-legend" not in argv:
        lines = ["No jobs running."]
    return 0, "\n".join(lines)


def _is_system_running(systemd: Systemd, argv: list[str]) -> Answer:
    return (0, "stopping") if systemd.off.is_set() else (0, "running")


def _is_active(systemd: Systemd, argv: list[str]) -> Answer:
    """Of cloud-init's units, which are over when a boot script's services run."""
    return (0, "") if argv[-1].startswith("cloud-") else (3, "")


def _show(systemd: Systemd, argv: list[str]) -> Answer:
    """`show --property=A --property=B [--value] UNIT`."""
    (name,) = (word for word in argv[1:] if not word.startswith("-"))
    facts = systemd.facts(name)
    properties = [word.partition("=")[2] for word in argv if word.startswith("--property=")]
    form = "{1}" if "--value" in argv else "{0}={1}"
    return 0, "\n".join(form.format(key, facts.get(key, "")) for key in properties)


OFF = ("poweroff", "reboot", "shutdown")
FILES = ("enable", "disable", "daemon-reload")
CHANGES: dict[str, Callable[[Systemd, str], object]] = {
    "start": Systemd.start,
    "stop": Systemd.stop,
    "restart": _restart,
    "try-restart": _restart,
    "reload-or-restart": _restart,
}
SHOWS = {
    "is-active": _is_active,
    "is-system-running": _is_system_running,
    "list-jobs": _list_jobs,
    "show": _show,
}
