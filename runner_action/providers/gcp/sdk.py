"""google-cloud-compute, as much of it as we use. Its package loads a hundred services when it is
imported, which takes seconds; this loads seven."""

# ruff: noqa: E402
from __future__ import annotations

import importlib.util
import sys
import types as python

PACKAGE = "google.cloud.compute_v1"


def _without_the_rest() -> None:
    """Lets the package's modules be imported one by one, without the package's own list of all
    of them. If it has been loaded, it is taken as it is."""
    if PACKAGE in sys.modules:
        return
    found = importlib.util.find_spec(PACKAGE)
    if found is None:
        raise ImportError("google-cloud-compute is not installed", name=PACKAGE)
    package = python.ModuleType(PACKAGE, "google-cloud-compute, loaded in part by cml-runner.")
    package.__spec__ = found
    package.__path__ = list(found.submodule_search_locations or ())
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
