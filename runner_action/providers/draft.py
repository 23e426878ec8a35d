"""From the user's inputs to a plan, as far as the clouds have it in common. Pure: no network, no
clock, no SDK."""

from __future__ import annotations

from collections.abc import Callable

from runner_action.errors import InputError
from runner_action.model import Place, Plan
from runner_action.request import CloudRequest, Spot

SPOTS = {Spot.NEVER: (False,), Spot.ONLY: (True,), Spot.PREFER: (True, False)}
Notes = dict[str, None]
"""What the user should know, each once, in order."""


class Draft:
    """A plan in the making. `problems` collects what is wrong with the inputs, so that the user
    gets all of it at once."""

    def __init__(
        self,
        request: CloudRequest,
        place: Callable[[str, list[str]], Place | None],
        machine_type: Callable[[str, CloudRequest, Notes, list[str]], str | None],
        architecture_of: Callable[[str], str],
    ) -> None:
        """`place` and `machine_type`: what a word of `cloud-region` or `cloud-type` means on the
        cloud; None, with the problem added to the list, if it means nothing."""
        self.request = request
        self.architecture_of = architecture_of
        self.problems: list[str] = []
        self.notes: Notes = {}
        self.places = [known for word in request.regions if (known := place(word, self.problems))]
        self.types = [
            kind
            for word in request.sizes
            if (kind := machine_type(word, request, self.notes, self.problems))
        ]
        arm = [kind for kind in self.types if architecture_of(kind) == "arm64"]
        if 0 < len(arm) < len(self.types):
            self.problems.append(
                f"cloud-type lists types of two architectures ({', '.join(arm)} arm64, the others"
                " x86-64); write those of one"
            )

    def plan(self, image: Callable[[str], str], spot_price: float | None = None) -> Plan:
        """`image`: returns the cloud's default image for an architecture. Raises InputError with
        all problems."""
        if self.problems:
            raise InputError(self.problems)
        architecture = self.architecture_of(self.types[0])
        chosen = self.request.image or image(architecture)
        return Plan(
            places=tuple(dict.fromkeys(self.places)),
            instance_types=tuple(dict.fromkeys(self.types)),
            architecture=architecture,
            image=chosen,
            disk_gb=self.request.disk_gb,
            spots=SPOTS[self.request.spot],
            spot_price=spot_price,
            notes=tuple(self.notes),
        )
