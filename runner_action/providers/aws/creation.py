"""Creating the machines of one placement: by one CreateFleet for all its pools, or by
RunInstances, pool by pool."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from runner_action.errors import CapacityError, ConfigurationError, ProviderError, QuotaError
from runner_action.model import Instance, Machine, ProviderName
from runner_action.providers.aws import requests
from runner_action.providers.aws.errors import (
    PASSING,
    THROTTLING,
    code_of,
    denied,
    refused,
    translate,
)
from runner_action.providers.aws.instance import instance_of
from runner_action.providers.aws.requests import AwsPlacement
from runner_action.providers.base import Created
from runner_action.waiting import Clock, wait_for

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

log = logging.getLogger(__name__)
CREATE_SECONDS = 60.0
"""How long throttling and passing faults are waited out at one call."""
NO_TEMPLATE = "InvalidLaunchTemplateName.NotFoundException"
NOT_YET = {NO_TEMPLATE, "InvalidGroup.NotFound"}
"""What was made a moment ago is not known everywhere at once: EC2 is eventually consistent."""
NOT_THERE = "is not supported in your requested Availability Zone"
"""With it RunInstances is `Unsupported`, a fleet an InvalidFleetConfiguration:
https://github.com/compiler-explorer/infra/issues/601"""
Answer = Mapping[str, Any]


class Creation:
    """`count` instances for one machine at one placement. `before` finds those that an earlier
    try of this launch has made."""

    decode: Callable[[str], str] = staticmethod(lambda _: "")

    def __init__(
        self,
        client: EC2Client,
        placement: AwsPlacement,
        machine: Machine,
        group: str,
        clock: Clock,
        before: Callable[[], Sequence[Instance]],
    ) -> None:
        self._client = client
        self._placement = placement
        self._machine = machine
        self._group = group
        self._clock = clock
        self._before = before

    # --- one call for all pools

    def fleet(self, count: int) -> Created:
        """What the pools have together. Raises CredentialsError if fleets are not for these
        credentials."""
        placement = self._placement
        pools = [(pool.instance_type, pool.subnet_id) for pool in placement.pools]
        parts = ("fleet", str(pools), str(placement.spot), str(count))
        request = partial(requests.create_fleet, placement, self._machine, count, self._group)
        answer = self._ask(self._create_fleet, request, parts, f"creating {placement}")
        if isinstance(answer, list):
            return Created(tuple(answer))
        made = tuple(
            self._of_fleet(entry, one)
            for entry in answer.get("Instances", ())
            for one in entry["InstanceIds"]
        )
        found = self._refusals(answer.get("Errors", ()))
        if not made and not found:
            # An answer that was lost, asked for again: nobody promises that it lists its instances
            # a second time.
            made = tuple(self._before())
        shortage = (
            None
            if len(made) >= count
            else worst(found) or CapacityError(f"AWS has no more of {placement}.")
        )
        if shortage and not made:
            raise shortage
        self._tag_spot_requests(made)
        return Created(made, shortage, tuple(map(str, found)))

    def _create_fleet(self, **request: Any) -> Answer:
        """Makes the launch template that all fleets of this security group share, where it is
        missing."""
        try:
            return self._client.create_fleet(**request)
        except ClientError as error:
            if code_of(error) != NO_TEMPLATE:
                raise
        try:
            self._client.create_launch_template(**requests.launch_template(self._group))
        except ClientError as error:
            if code_of(error) != "InvalidLaunchTemplateName.AlreadyExistsException":
                raise
        return self._client.create_fleet(**request)

    def _of_fleet(self, entry: Answer, instance_id: str) -> Instance:
        placement = self._placement
        override = entry.get("LaunchTemplateAndOverrides", {}).get("Overrides", {})
        pool = next(
            (pool for pool in placement.pools if pool.subnet_id == override.get("SubnetId")),
            placement.pools[0],
        )
        return Instance(
            provider=ProviderName.AWS,
            id=instance_id,
            name=self._machine.identity.name,
            region=placement.region,
            zone=pool.zone,
            instance_type=entry["InstanceType"],
            image=placement.image_id,
            spot=entry.get("Lifecycle") == "spot",
            login=placement.login,
        )

    def _refusals(self, errors: Sequence[Answer]) -> list[ProviderError]:
        """What each pool had to say that did not give its machines."""
        found: list[ProviderError] = []
        for one in errors:
            override = one.get("LaunchTemplateAndOverrides", {}).get("Overrides", {})
            zones = [
                pool.zone
                for pool in self._placement.pools
                if pool.subnet_id == override.get("SubnetId")
            ]
            doing = (
                f"creating {override.get('InstanceType', '')} {one.get('Lifecycle', '')} in"
                f" {''.join(zones[:1])}"
            )
            code, message = one.get("ErrorCode", ""), one.get("ErrorMessage", "")
            if code in THROTTLING | PASSING:
                code = "InsufficientInstanceCapacity"
            elif NOT_THERE in message:
                code = "Unsupported"
            found.append(refused(code, message, doing, self._denied))
        return found

    def _tag_spot_requests(self, made: Sequence[Instance]) -> None:
        """A fleet tags all but these. They end with their instances; without tags they are only
        harder to read."""
        if not self._placement.spot:
            return
        try:
            answer = self._client.describe_instances(InstanceIds=[one.id for one in made])
            found = [
                one.get("SpotInstanceRequestId")
                for group in answer["Reservations"]
                for one in group["Instances"]
            ]
            if known := [one for one in found if one]:
                self._client.create_tags(Resources=known, Tags=requests.pairs(self._machine.tags))  # type: ignore[arg-type]
        except (ClientError, BotoCoreError) as error:
            log.debug("The spot requests have no tags: %s", error)

    # --- one call a pool

    def pool_by_pool(self, count: int) -> Created:
        """What each pool has, until there are enough."""
        placement = self._placement
        made = list[Instance]()
        found = list[ProviderError]()
        full: set[str] = set()
        for pool in placement.pools:
            if pool.instance_type in full:
                continue
            left = count - len(made)
            request = partial(
                requests.run_instances, placement, pool, self._machine, left, self._group
            )
            parts = (
                pool.subnet_id,
                pool.instance_type,
                str(placement.spot),
                *([str(left)] if count > 1 else []),
            )
            doing = (
                f"creating {pool.instance_type} {'spot' if placement.spot else 'on demand'} in"
                f" {pool.zone}"
            )
            try:
                answer = self._ask(self._client.run_instances, request, parts, doing)
            except ProviderError as error:
                found.append(error)
                if isinstance(
                    error, QuotaError
                ):  # of the region, by family: another type may have its own
                    full.add(pool.instance_type)
                elif not isinstance(error, CapacityError):
                    break
                continue
            if isinstance(answer, list):
                return Created(tuple(answer))
            made += [
                instance_of(one, placement.region, self._machine.identity.name, placement.login)
                for one in answer["Instances"]
            ]
            if len(made) >= count:
                break
        shortage = (
            None
            if len(made) >= count
            else worst(found) or CapacityError(f"AWS has no more of {placement}.")
        )
        if shortage and not made:
            raise shortage
        return Created(tuple(made), shortage, tuple(map(str, found)))

    # --- asking

    def _ask(
        self,
        call: Callable[..., Any],
        request: Callable[[str], requests.Request],
        parts: Sequence[str],
        doing: str,
    ) -> Answer | list[Instance]:
        """The answer, or what an earlier try of this launch made. Whatever is lost or refused in
        passing is asked again with the same client token."""
        for again in ("", "again"):
            asking = partial(
                self._once, call, request(self._machine.identity.client_token(*parts, again)), doing
            )
            answer = wait_for(
                asking, f"EC2, while {doing}", clock=self._clock, timeout=CREATE_SECONDS
            )
            if answer is ANOTHER:
                # An earlier try got through, with another registration token in its user data.
                if before := list(self._before()):
                    return before
                continue
            # A token remembers instances that have ended meanwhile; then, once, fresh ones are
            # wanted.
            if (
                any(
                    instance_of(one, "").alive
                    for one in answer.get("Instances", ())
                    if "State" in one
                )
                or "FleetId" in answer
            ):
                return answer
        raise ConfigurationError(
            f"EC2 said yes while {doing}, but the instance has ended already.",
            "Look at its state reason in the EC2 console.",
        )

    def _once(
        self, call: Callable[..., Any], request: requests.Request, doing: str
    ) -> Answer | None:
        """None: not now, ask again with the same client token."""
        try:
            answer: Answer = call(**request)
        except ClientError as error:
            if code_of(error) == "IdempotentParameterMismatch":
                return ANOTHER
            if code_of(error) in THROTTLING | PASSING | NOT_YET:
                return None
            raise translate(error, doing, self._denied) from error
        except (
            HTTPClientError
        ):  # no connection, or no answer: whether it got through the token will tell
            return None
        except BotoCoreError as error:
            raise translate(error, doing) from error
        return answer

    def _denied(self, blob: str) -> str:
        decoded = self.decode(blob)
        return denied(decoded) if decoded else ""


ANOTHER: Answer = {}
"""Another request had this client token."""


def worst(found: Sequence[ProviderError]) -> ProviderError | None:
    """Of several refusals the one that decides what is done next, with the words of all of its
    kind."""
    for kind in (ProviderError, QuotaError, CapacityError):
        these = [
            one
            for one in found
            if type(one) is kind
            or (kind is ProviderError and not isinstance(one, QuotaError | CapacityError))
        ]
        if these:
            return type(these[0])(
                "; ".join(dict.fromkeys(str(one) for one in these)), these[0].hint
            )
    return None
