"""The part of google-cloud-compute that we use. Importing its package loads a hundred services,
which takes seconds; this loads seven."""

# ruff: noqa: E402
from __future__ import annotations

import importlib.util
import sys
import types as python

PACKAGE = "google.cloud.compute_v1"


def _without_the_rest() -> None:
    """Makes the package's modules importable one by one, without its `__init__`, which imports all
    of them. A package that is loaded already is used as it is."""
    if PACKAGE in sys.modules:
        return
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        raise ImportError("google-cloud-compute is not installed", name=PACKAGE)
    package = python.ModuleType(PACKAGE, "google-cloud-compute, loaded in part by cml-runner.")
    package.__spec__ = spec
    package.__path__ = list(spec.submodule_search_locations or ())
    sys.modules[PACKAGE] = package


_without_the_rest()

from google.cloud.compute_v1.services.accelerator_types import AcceleratorTypesClient
from google.cloud.compute_v1.services.firewalls import FirewallsClient
from google.cloud.compute_v1.services.images import ImagesClient
from google.cloud.compute_v1.services.instances import InstancesClient
from google.cloud.compute_v1.services.machine_types import MachineTypesClient
from google.cloud.compute_v1.services.zone_operations import ZoneOperationsClient
from google.cloud.compute_v1.services.zones import ZonesClient
from google.cloud.compute_v1.types import compute as types

__all__ = [
    "AcceleratorTypesClient",
    "FirewallsClient",
    "ImagesClient",
    "InstancesClient",
    "MachineTypesClient",
    "ZoneOperationsClient",
    "ZonesClient",
    "types",
]
