"""A unit file of systemd."""

from __future__ import annotations

import configparser
import re
import shlex
import signal
from pathlib import Path

SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|min|h|d|s)?")
SPANS = {"ms": 0.001, "s": 1.0, "": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
CLEAN_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGPIPE)


def seconds(text: str) -> float:
    """The seconds of a time span such as `30s`, `1min 30s`, `90`, `infinity`."""
    if text == "infinity":
        return float("inf")
    return sum(float(number) * SPANS[unit] for number, unit in SPAN.findall(text))


def command(line: str) -> list[str]:
    """The words of an ExecStart= and the like, with `$$` and `%%` as what they stand for.
    https://www.freedesktop.org/software/systemd/man/latest/systemd.service.html#Command%20lines
    """
    return shlex.split(line.lstrip("-").replace("$$", "$").replace("%%", "%"))


class Unit:
    """A unit file. A key may occur more than once, so values are lists."""

    def __init__(self, path: Path) -> None:
        self.name = path.name
        parser = configparser.RawConfigParser(strict=False, dict_type=_Repeated)
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read_string(path.read_text())
        self._values = {
            key: str(value).split("\n")
            for section in parser.sections()
            for key, value in parser.items(section)
        }

    def all(self, key: str) -> list[str]:
        return self._values.get(key, [])

    def get(self, key: str, default: str = "") -> str:
        return self.all(key)[-1] if self.all(key) else default

    def names(self, key: str) -> set[str]:
        return {name for line in self.all(key) for name in line.split()}

    def bound(self, key: str, default: float) -> float | None:
        """The time limit of a command in seconds; None if there is none."""
        limit = seconds(self.get(key)) if self.get(key) else default
        return None if limit == float("inf") else limit

    @property
    def most_starts(self) -> tuple[int, float]:
        """How often the unit may be started in how many seconds, by whomever; those begin with a
        start. https://github.com/systemd/systemd/blob/v257/src/basic/ratelimit.c"""
        span = self.get("StartLimitIntervalSec", "10s")
        return int(self.get("StartLimitBurst", "5")), seconds(span)

    def ends_well(self, code: int) -> bool:
        """Whether systemd considers this exit code, or this signal (negative), a success.
        https://www.freedesktop.org/software/systemd/man/latest/systemd.service.html#SuccessExitStatus=
        """
        clean = [] if self.get("Type") == "oneshot" else CLEAN_SIGNALS
        also = [
            signal.Signals[word]
            for word in self.get("SuccessExitStatus").split()
            if word.startswith("SIG")
        ]
        return code == 0 or -code in (*clean, *also)


class _Repeated(dict):  # type: ignore[type-arg]
    """Allows a key to occur more than once; configparser joins its values with line ends."""

    def __setitem__(self, key: object, value: object) -> None:
        if isinstance(value, list) and isinstance(self.get(key), list):
            self[key].extend(value)
        else:
            super().__setitem__(key, value)
