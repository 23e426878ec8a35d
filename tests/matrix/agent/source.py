"""Lets a machine import the agent from its source instead of from the shortened copy that it was
given, and makes it less patient. Runs in every Python of a machine in the agent's matrix."""

from __future__ import annotations

import dataclasses
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any


class Faster(importlib.machinery.SourceFileLoader):
    constants: dict[str, dict[str, float]] = {}  # noqa: RUF012
    seconds: dict[str, float] = {}  # noqa: RUF012
    """To leave, by reason."""
    lifetime = 0.0
    """Instead of the one that was given, which is at least some minutes."""

    def exec_module(self, module: ModuleType) -> None:
        super().exec_module(module)
        for name, value in self.constants.get(self.name, {}).items():
            setattr(module, name, value)
        if self.name == "agent.reasons":
            for reason in module.Reason:
                reason.seconds = self.seconds.get(reason.name, self.seconds[""])
        if self.name == "agent.spec":
            given = module.AgentSpec.from_json
            module.AgentSpec.from_json = lambda text: dataclasses.replace(
                given(text), max_lifetime=self.lifetime
            )


class Source(importlib.abc.MetaPathFinder):
    def __init__(self, agent: Path) -> None:
        self._agent = agent

    def find_spec(
        self, fullname: str, path: object = None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        first, _, name = fullname.partition(".")
        if first != "agent":
            return None
        staged = not name and not Path("agent").is_dir() and Path("agent.py").exists()
        file = self._agent / f"{'stage' if staged else name or '__init__'}.py"
        places = [str(self._agent)] if not name and not staged else None
        return importlib.util.spec_from_file_location(
            fullname,
            file,
            loader=Faster(fullname, str(file)),
            submodule_search_locations=places,
        )


def inject(settings: dict[str, Any]) -> None:
    Faster.constants = settings["constants"]
    Faster.seconds = settings["seconds"]
    Faster.lifetime = settings["lifetime"]
    sys.meta_path.insert(0, Source(Path(settings["agent"])))
