"""What a launch looks up in a region of AWS before it creates anything: image, subnets, security
groups, offers and spot prices, in parallel."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import ClientError

from runner_action.errors import ConfigurationError
from runner_action.model import Plan
from runner_action.providers.aws import groups, requests
from runner_action.providers.aws.errors import CREDENTIALS, code_of, translated
from runner_action.providers.aws.ladder import Facts
from runner_action.providers.aws.options import options_of
from runner_action.request import CloudRequest

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ssm import SSMClient

log = logging.getLogger(__name__)
T = TypeVar("T")


class Lookup:
    """One region. `parameters` builds the client for SSM's parameters."""

    def __init__(
        self,
        region: str,
        client: EC2Client,
        parameters: Callable[[], SSMClient],
        plan: Plan,
        request: CloudRequest,
    ) -> None:
        self.region = region
        self._client = client
        self._parameters = parameters
        self._plan = plan
        self._request = request

    def run(self, now: datetime) -> tuple[Facts, dict[str, str]]:
        """What EC2 says, and the ids of our own security groups by VPC. Logs the current spot
        prices."""
        plan = self._plan
        aws = options_of(self._request)
        client = self._client
        here = [place for place in plan.places if place.region == self.region]
        with (
            translated(f"looking up image and network in {self.region}"),
            ThreadPoolExecutor(5) as side_by_side,
        ):
            images = side_by_side.submit(self._images)
            subnets = side_by_side.submit(
                client.describe_subnets, **requests.subnet_query(here, aws.subnets)
            )
            group_ids = side_by_side.submit(self._groups)
            offers = side_by_side.submit(_unless_denied, self._offers)
            prices = (
                side_by_side.submit(_unless_denied, lambda: self._prices(now))
                if True in plan.spots
                else None
            )
            by_vpc = group_ids.result()
            facts = Facts(
                region=self.region,
                images=images.result(),
                subnets=subnets.result()["Subnets"],
                groups=by_vpc if aws.security_group else None,
                offered=offers.result(),
            )
            if prices and (lowest := prices.result()):
                log.info("Spot price in %s now, USD an hour: %s.", self.region, ", ".join(lowest))
        return facts, {} if aws.security_group else by_vpc

    def _images(self) -> Sequence[Any]:
        image = self._plan.image
        if image.startswith("ssm:"):
            name = image.removeprefix("ssm:")
            try:
                image = self._parameters().get_parameter(Name=name)["Parameter"]["Value"]
            except ClientError as error:
                if code_of(error) != "ParameterNotFound":
                    raise
                raise ConfigurationError(
                    f"There is no parameter {name} in {self.region}.",
                    "Give another `cloud-image`, or leave it out.",
                ) from error
        try:
            return self._client.describe_images(
                **requests.image_query(image, self._plan.architecture)
            )["Images"]
        except ClientError as error:
            if not code_of(error).startswith("InvalidAMIID"):
                raise
            return []

    def _groups(self) -> dict[str, str]:
        """The id of the user's security group, or of ours, by VPC."""
        given, with_ssh = (
            options_of(self._request).security_group,
            self._request.ssh_public_key is not None,
        )
        if given is None:
            return groups.complete(self._client, with_ssh)
        listed = self._client.describe_security_groups(**requests.group_query(given, with_ssh))[
            "SecurityGroups"
        ]
        if not listed:
            raise ConfigurationError(
                f"There is no security group {given} in {self.region}.",
                "Give its name or its id, `sg-…`, as `cloud-aws-security-group`.",
            )
        return {group["VpcId"]: group["GroupId"] for group in listed}

    def _offers(self) -> frozenset[tuple[str, str]]:
        pages = self._client.get_paginator("describe_instance_type_offerings").paginate(
            **requests.offerings_query(self._plan.instance_types)
        )
        return frozenset(
            (offering["InstanceType"], offering["Location"])
            for page in pages
            for offering in page["InstanceTypeOfferings"]
        )

    def _prices(self, now: datetime) -> list[str]:
        """The lowest price of each type, and in which zone."""
        types: Any = list(self._plan.instance_types)
        history = self._client.describe_spot_price_history(
            InstanceTypes=types, ProductDescriptions=["Linux/UNIX"], StartTime=now
        )["SpotPriceHistory"]
        lowest: dict[str, tuple[float, str]] = {}
        for price in history:
            offer = (float(price["SpotPrice"]), price["AvailabilityZone"])
            lowest[price["InstanceType"]] = min(offer, lowest.get(price["InstanceType"], offer))
        most = self._plan.spot_price
        return [
            f"{name} {amount:.4f} in"
            f" {zone}{' (above `cloud-spot-price`)' if most and amount > most else ''}"
            for name, (amount, zone) in lowest.items()
        ]


def _unless_denied(ask: Callable[[], T]) -> T | None:
    """The answer; None if the credentials do not permit the call: an older policy may lack what
    only helps to choose."""
    try:
        return ask()
    except ClientError as error:
        if code_of(error) not in CREDENTIALS:
            raise
        log.debug("%s", error.response.get("Error", {}).get("Code"))
        return None
