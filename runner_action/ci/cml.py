"""The log line that CML writes about a runner. Pure."""

from __future__ import annotations

from runner_action import __version__
from runner_action.model import Launched
from runner_action.plain import dumps
from runner_action.providers.aws.options import AwsOptions
from runner_action.providers.kubernetes.options import KubernetesOptions
from runner_action.request import LaunchRequest


def cml_line(launched: Launched, request: LaunchRequest) -> str:
    """The JSON line in which CML's users search for `instanceIp`: the keys are CML's, the values
    describe the instance that was created."""
    instance, cloud = launched.instance, request.cloud
    aws = cloud.options if cloud and isinstance(cloud.options, AwsOptions) else AwsOptions()
    pods = cloud.options if cloud and isinstance(cloud.options, KubernetesOptions) else None
    return dumps(
        {
            "awsSecurityGroup": aws.security_group or "",
            "awsSubnetId": ",".join(aws.subnets),
            "cloud": cloud.provider if cloud else "",
            "driver": request.forge,
            "id": instance.id if instance else "",
            "idleTimeout": request.idle_timeout if request.idle_timeout is not None else -1,
            "image": instance.image if instance else "",
            "instanceGpu": (cloud and cloud.gpu) or "",
            "instanceHddSize": cloud.disk_gb if cloud else "",
            "instanceIp": instance.address if instance else "",
            "instanceLaunchTime": instance.launched if instance else "",
            "instanceType": instance.instance_type if instance else "",
            "instancePermissionSet": (cloud and cloud.permission_set) or "",
            "labels": ",".join(launched.labels),
            "cmlVersion": __version__,
            "metadata": dict(cloud.metadata) if cloud else {},
            "name": launched.runner_name,
            "region": instance.region if instance else "",
            "repo": request.repository.url,
            "single": request.single,
            "spot": instance.spot if instance else False,
            "spotPrice": (cloud and cloud.spot_price) or -1,
            "timeouts": None,
            "kubernetesNodeSelector": dict(pods.node_selector) if pods else {},
        }
    )
