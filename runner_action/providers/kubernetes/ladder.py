"""From a plan to placements: which sizes on which nodes, in which order. Pure."""

from __future__ import annotations

from itertools import product

from runner_action.model import Plan, Pool
from runner_action.providers.kubernetes import plan as planning
from runner_action.providers.kubernetes.options import options_of
from runner_action.providers.kubernetes.placement import PodPlacement
from runner_action.request import CloudRequest


def placements(plan: Plan, request: CloudRequest) -> list[PodPlacement]:
    """A rung for each market, place and size, in the user's order."""
    options = options_of(request)
    sizes = [planning.size_of(word) for word in plan.instance_types]
    rungs = product(plan.spots, plan.places, sizes)
    return [
        PodPlacement(
            region=place.region,
            spot=spot,
            pools=(Pool(instance_type=str(size), zone=place.region),),
            size=size,
            architecture=plan.architecture,
            image=plan.image,
            disk_gb=plan.disk_gb,
            node_selector=options.node_selector,
            tolerations=options.tolerations,
            service_account=request.permission_set,
            containers=options.containers,
            template=planning.template_of(options.pod_template),
            schedule_timeout=options.schedule_timeout,
            queue=options.queue,
        )
        for spot, place, size in rungs
    ]
