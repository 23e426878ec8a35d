"""Which instances were launched from a launch template of ours. Whoever may tag can change tags;
nobody can change the template that an instance was launched from."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from runner_action.model import OWNER_TAG
from runner_action.providers.aws.errors import CREDENTIALS, code_of
from runner_action.providers.aws.instance import template_of
from runner_action.waiting import Clock

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

log = logging.getLogger(__name__)
ABSENT = ("InvalidLaunchTemplateId.NotFound", "InvalidLaunchTemplateId.NotFoundException")
PAUSES = (0.0, 1.0, 2.0)
"""Seconds before each look at a template."""
UNCHECKED = (
    "Without the permission ec2:DescribeLaunchTemplates, cml-runner knows its machines by their"
    " tags alone: whoever may tag one of your machines can have it deleted. `cml-runner permissions"
    " aws` prints the policy."
)


class OwnTemplates:
    """Looks up each launch template once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[str, bool] = {}
        self._lock = threading.Lock()

    def among(self, ec2: EC2Client, descriptions: Iterable[Mapping[str, Any]]) -> set[str]:
        """The ids of our templates among those of the instances. Raises ClientError. Without the
        permission to ask it warns and trusts the tags: a machine that nobody deletes costs."""
        ids = {template_of(description) for description in descriptions} - {""}
        with self._lock:
            for template in ids - self._known.keys():
                self._known[template] = self._is_ours(ec2, template)
            return {template for template in ids if self._known[template]}

    def _is_ours(self, ec2: EC2Client, template: str) -> bool:
        """One that was just created may not be known yet."""
        for pause in PAUSES:
            self._clock.sleep(pause)
            try:
                answer = ec2.describe_launch_templates(LaunchTemplateIds=[template])
            except ClientError as error:
                if code_of(error) in ABSENT:
                    continue
                if code_of(error) in CREDENTIALS:
                    log.warning(UNCHECKED)
                    return True
                raise
            names = [entry["LaunchTemplateName"] for entry in answer["LaunchTemplates"]]
            return any(name.startswith(f"{OWNER_TAG}-") for name in names)
        return False
