"""A project of the embedded GitLab, and the groups that it is in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

PROJECT = "octo/train"
Place = tuple[str, int]
"""`projects` or `groups`, and an ID."""
PROJECT_ID = 5
INNERMOST_ID = 8
"""The group that the project is in; the groups around it follow."""


@dataclass(frozen=True)
class Tree:
    project: str = PROJECT

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """Their paths, the innermost first."""
        parts = self.project.split("/")[:-1]
        return tuple("/".join(parts[:end]) for end in range(len(parts), 0, -1))

    @cached_property
    def paths(self) -> dict[Place, str]:
        groups = enumerate(self.groups, INNERMOST_ID)
        return {("projects", PROJECT_ID): self.project} | {
            ("groups", number): path for number, path in groups
        }

    @cached_property
    def ids(self) -> dict[tuple[str, str], int]:
        """By kind, and by path or ID as a text."""
        entries = self.paths.items()
        return {(kind, path): number for (kind, number), path in entries} | {
            (kind, str(number)): number for kind, number in self.paths
        }

    def around(self, place: Place) -> tuple[Place, ...]:
        """The place itself, and the groups that it is in."""
        inside = self.paths[place]
        groups = [other for other in self.paths if other[0] == "groups"]
        return (place, *(other for other in groups if self.is_in(inside, self.paths[other])))

    @staticmethod
    def is_in(path: str, group: str) -> bool:
        return path.startswith(f"{group}/")
