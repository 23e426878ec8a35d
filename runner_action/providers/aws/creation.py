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
    translated,
)
from runner_action.providers.aws.instance import instance_of
from runner_action.providers.aws.requests import AwsPlacement, AwsPool
from runner_action.providers.base import Created
from runner_action.waiting import Clock, wait_for

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

log = logging.getLogger(__name__)
CREATE_SECONDS = 60.0
"""How long one call is retried over throttling and transient errors."""
EARLY_SECONDS = 1.0
"""Pause before a fleet is asked for again that came too early."""
LOOKS = (0.0, 1.0, 2.0)
"""Seconds before each look at what was just created."""
TOKENS = 100
"""Client tokens of one request. Those of earlier tries cost a call each."""
NO_TEMPLATE = "InvalidLaunchTemplateName.NotFoundException"
NOT_YET = {NO_TEMPLATE, "InvalidGroup.NotFound"}
"""What was created a moment ago may not be known everywhere yet: EC2 is eventually consistent."""
NOT_THERE = "is not supported in your requested Availability Zone"
"""RunInstances reports this as `Unsupported`, CreateFleet as InvalidFleetConfiguration:
https://github.com/compiler-explorer/infra/issues/601"""
Answer = Mapping[str, Any]


class Creation:
    """Creates instances for one machine at one placement. `before` finds those that an earlier
    try of this launch created. `decode` reads the encoded reason of a refusal."""

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
        self._searched = False

    # --- one call for all pools

    def fleet(self, count: int) -> Created:
        """Up to `count` instances from all pools together. Raises CredentialsError if the
        credentials do not allow fleets."""
        placement = self._placement
        pools = [(pool.instance_type, pool.subnet_id) for pool in placement.pools]
        parts = ("fleet", str(pools), str(placement.spot), str(count))
        request = partial(requests.create_fleet, placement, self._machine, count, self._group)
        answer = self._ask(self._create_fleet, request, parts, f"creating {placement}")
        if isinstance(answer, list):
            return Created(tuple(answer))
        instances = tuple(
            self._of_fleet(entry, instance_id)
            for entry in answer.get("Instances", ())
            for instance_id in entry["InstanceIds"]
        )
        refusals = self._refusals(answer.get("Errors", ()), some=bool(instances))
        if not instances and not refusals:
            # A retry after a lost answer: EC2 does not promise to list the instances again.
            instances = tuple(self._earlier())
        created = self._created(instances, refusals, count)
        self._tag_spot_requests(instances)
        return created

    def _create_fleet(self, **request: Any) -> Answer:
        """CreateFleet; creates the launch template that all fleets of this security group share
        if it is missing."""
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

    def _refusals(self, errors: Sequence[Answer], *, some: bool) -> list[ProviderError]:
        """The error of each pool that did not give its machines. `some`: others did, so that all
        that the request names is there."""
        passing = THROTTLING | PASSING | (NOT_YET if some else set())
        refusals: list[ProviderError] = []
        for entry in errors:
            override = entry.get("LaunchTemplateAndOverrides", {}).get("Overrides", {})
            zones = [
                pool.zone
                for pool in self._placement.pools
                if pool.subnet_id == override.get("SubnetId")
            ]
            doing = (
                f"creating {override.get('InstanceType', '')} {entry.get('Lifecycle', '')} in"
                f" {''.join(zones[:1])}"
            )
            code, message = entry.get("ErrorCode", ""), entry.get("ErrorMessage", "")
            if code in passing:
                code = "InsufficientInstanceCapacity"
            elif NOT_THERE in message:
                code = "Unsupported"
            refusals.append(refused(code, message, doing, self._denied))
        return refusals

    def _tag_spot_requests(self, instances: Sequence[Instance]) -> None:
        """A fleet tags everything but these. They end with their instances, so that one without
        tags is harder to read, and nothing worse."""
        if not self._placement.spot:
            return
        ids = [instance.id for instance in instances]
        for pause in LOOKS:
            self._clock.sleep(pause)
            if self._tagged_requests_of(ids):
                break

    def _tagged_requests_of(self, instance_ids: Sequence[str]) -> bool:
        try:
            self._tag_requests_of(instance_ids)
        except (ClientError, BotoCoreError) as error:
            log.debug("Could not tag the spot requests: %s", error)
            return False
        return True

    def _tag_requests_of(self, instance_ids: Sequence[str]) -> None:
        answer = self._client.describe_instances(InstanceIds=instance_ids)
        request_ids = [
            description.get("SpotInstanceRequestId")
            for group in answer["Reservations"]
            for description in group["Instances"]
        ]
        if known := [request_id for request_id in request_ids if request_id]:
            self._client.create_tags(Resources=known, Tags=requests.pairs(self._machine.tags))  # type: ignore[arg-type]

    # --- one call a pool

    def pool_by_pool(self, count: int) -> Created:
        """Up to `count` instances, from one pool after the other."""
        instances = list[Instance]()
        refusals = list[ProviderError]()
        full: set[str] = set()
        for pool in self._placement.pools:
            if pool.instance_type in full:
                continue
            try:
                answer = self._run_in(pool, count - len(instances), several=count > 1)
            except ProviderError as error:
                refusals.append(error)
                if isinstance(error, QuotaError):
                    # Quotas are per region and family: another type may have one of its own.
                    full.add(pool.instance_type)
                elif not isinstance(error, CapacityError):
                    break
                continue
            if isinstance(answer, list):
                return Created(tuple(answer))
            instances += [self._of_run(description) for description in answer["Instances"]]
            if len(instances) >= count:
                break
        return self._created(instances, refusals, count)

    def _run_in(self, pool: AwsPool, left: int, *, several: bool) -> Answer | list[Instance]:
        """RunInstances in one pool. `several`: the launch asks for more than one in all."""
        spot = self._placement.spot
        request = partial(
            requests.run_instances, self._placement, pool, self._machine, left, self._group
        )
        parts = [pool.subnet_id, pool.instance_type, str(spot)]
        if several:
            parts.append(str(left))
        market = "spot" if spot else "on demand"
        doing = f"creating {pool.instance_type} {market} in {pool.zone}"
        return self._ask(self._client.run_instances, request, parts, doing)

    def _of_run(self, description: Answer) -> Instance:
        placement = self._placement
        return instance_of(
            description, placement.region, self._machine.identity.name, placement.login
        )

    def _created(
        self, instances: Sequence[Instance], refusals: Sequence[ProviderError], count: int
    ) -> Created:
        """Raises the refusal that decides if there is no instance at all."""
        shortage: ProviderError | None = None
        if len(instances) < count:
            shortage = worst(refusals) or CapacityError(f"AWS has no more of {self._placement}.")
        if shortage and not instances:
            raise shortage
        return Created(tuple(instances), shortage, tuple(map(str, refusals)))

    # --- asking

    def _ask(
        self,
        call: Callable[..., Any],
        request: Callable[[str], requests.Request],
        parts: Sequence[str],
        doing: str,
    ) -> Answer | list[Instance]:
        """The answer, or the instances that an earlier try of this launch created. Lost answers
        and transient errors are retried with the same client token; an earlier try, or an instance
        that has ended, has used one up."""
        ended = 0
        end = self._clock.monotonic() + CREATE_SECONDS
        for suffix in ("", "again", *map(str, range(2, TOKENS))):
            token = self._machine.identity.client_token(*parts, suffix)
            attempt = partial(self._once, call, request(token), doing)
            answer = wait_for(
                attempt, f"EC2, while {doing}", clock=self._clock, timeout=CREATE_SECONDS
            )
            if answer is ANOTHER:
                # An earlier try succeeded, with another registration token in its user data.
                if before := list(self._earlier()):
                    return before
                continue
            if _is_early(answer) and self._clock.monotonic() < end:
                self._clock.sleep(EARLY_SECONDS)
                continue
            # A client token also stands for instances that have ended since; then, once, new ones
            # are requested.
            if "FleetId" in answer or _is_alive(answer):
                return answer
            ended += 1
            if ended > 1:
                break
        raise ConfigurationError(
            f"EC2 accepted the request while {doing}, but the instance has already terminated.",
            "Read its state reason in the EC2 console.",
        )

    def _once(
        self, call: Callable[..., Any], request: requests.Request, doing: str
    ) -> Answer | None:
        """None: retry with the same client token."""
        with translated(doing):
            try:
                answer: Answer = call(**request)
            except ClientError as error:
                if code_of(error) == "IdempotentParameterMismatch":
                    return ANOTHER
                if code_of(error) in THROTTLING | PASSING | NOT_YET:
                    return None
                raise translate(error, doing, self._denied) from error
            except HTTPClientError:
                # No connection, or no answer: the token shows whether the request got through.
                return None
        return answer

    def _earlier(self) -> Sequence[Instance]:
        """The instances that an earlier try created, which may not be listed at once."""
        pauses = LOOKS[:1] if self._searched else LOOKS
        self._searched = True
        for pause in pauses:
            self._clock.sleep(pause)
            if before := self._before():
                return before
        return ()

    def _denied(self, blob: str) -> str:
        decoded = self.decode(blob)
        return denied(decoded) if decoded else ""


ANOTHER: Answer = {}
"""The client token was used with another request."""


def _is_early(answer: Answer) -> bool:
    """Whether a fleet has no instance because what was just created is not known everywhere. It
    reports that in its answer, which has used up the client token."""
    codes = {entry.get("ErrorCode", "") for entry in answer.get("Errors", ())}
    return bool(codes & NOT_YET) and not answer.get("Instances")


def _is_alive(answer: Answer) -> bool:
    """Whether RunInstances returned an instance that has not ended."""
    states = (entry for entry in answer.get("Instances", ()) if "State" in entry)
    return any(instance_of(description, "").alive for description in states)


def worst(refusals: Sequence[ProviderError]) -> ProviderError | None:
    """The refusal that decides what happens next, with the messages of all of its kind."""
    for kind in (ProviderError, QuotaError, CapacityError):
        same_kind = [
            refusal
            for refusal in refusals
            if type(refusal) is kind
            or (kind is ProviderError and not isinstance(refusal, QuotaError | CapacityError))
        ]
        if same_kind:
            return type(same_kind[0])(
                "; ".join(dict.fromkeys(str(refusal) for refusal in same_kind)), same_kind[0].hint
            )
    return None
