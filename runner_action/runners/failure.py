"""Failures of steps after which others still have to be done."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Failure:
    """What could not be done, and why, in a sentence for people."""

    message: str

    def __str__(self) -> str:
        return self.message


def failures_in(results: Iterable[Failure | None]) -> list[Failure]:
    """Runs the steps, one after the other, and returns the failures. None is a success."""
    return [result for result in results if result]


def summary_of(failures: Iterable[Failure]) -> str:
    """Their messages, on one line."""
    return " ".join(map(str, failures))
