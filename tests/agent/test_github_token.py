"""Whether GitHub still believes in the job of a machine with an API token."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import pytest

from runner_action.agent.github_token import CHECK, Forge
from tests.agent.test_spec import SPEC

STARTED = ["started", "octo/train", "7", "1", "train"]


class Claimed(Forge):
    """With these responses to the questions whether a launch counts on the runner."""

    def __init__(self, *responses: tuple[int, str] | Exception) -> None:
        self.responses = list(responses)

    def ask(self, method: str, path: str, *rest: Any, **more: Any) -> tuple[int, str]:
        response = self.responses.pop(0)
        if isinstance(response, Exception):
            raise response
        return response


CLAIM = 200, '{"labels": [{"name": "cml-claim-0123456789-9999999999"}]}'


@pytest.mark.parametrize("failed", [(503, "busy"), (403, "no"), OSError("reset")])
@pytest.mark.parametrize(("last", "claimed"), [(CLAIM, True), ((200, "{}"), False)])
def test_one_response_that_is_none_does_not_free_a_runner(
    failed: tuple[int, str] | Exception, last: tuple[int, str], claimed: bool
) -> None:
    assert Claimed(failed, last).is_claimed("GET", "") is claimed
    assert Claimed(last).is_claimed("GET", "") is claimed
    assert not Claimed(failed, failed).is_claimed("GET", "")


class Asked(Forge):
    """With answers in place of GitHub. The processes of this machine show nothing."""

    status = "in_progress"
    asked = 0

    def ask(self, method: str, path: str, *rest: Any, **more: Any) -> tuple[int, str]:
        self.asked += 1
        job = {"id": 1, "name": "train", "status": self.status, "conclusion": None}
        job.update(runner_name=self._spec.name, labels=[])
        return 200, json.dumps({"jobs": [job]})


def runner(tmp_path: Path) -> Asked:
    spec = dataclasses.replace(
        SPEC, api_token="t", repository_url="https://github.com/octo/train", launch_project=""
    )
    return Asked(spec, tmp_path, {}, {})


def later(forge: Asked) -> None:
    forge._checked = time.monotonic() - CHECK


def test_a_job_that_has_ended_for_github_is_not_worked_on(tmp_path: Path) -> None:
    forge = runner(tmp_path)
    forge.hook(STARTED, 0.0, 0.0)
    forge.status = "completed"
    assert forge.works(1), "GitHub is not asked all the time"
    assert forge.asked == 0
    later(forge)
    assert not forge.works(1)
    assert not forge.works(1), "and again, since one answer decides nothing"
    assert forge.asked == 2


def test_a_job_that_runs_is_asked_for_every_few_minutes(tmp_path: Path) -> None:
    forge = runner(tmp_path)
    forge.hook(STARTED, 0.0, 0.0)
    later(forge)
    assert forge.works(1)
    assert forge.works(1)
    assert forge.asked == 1


def test_what_has_ended_says_nothing_about_the_next_job(tmp_path: Path) -> None:
    forge = runner(tmp_path)
    forge.hook(STARTED, 0.0, 0.0)
    forge.status = "completed"
    forge.heard("Z: Running job: next", 0.0)
    later(forge)
    assert forge.works(1)


def test_another_repository_of_an_organization_is_not_asked_for(tmp_path: Path) -> None:
    forge = runner(tmp_path)
    forge.hook(["started", "octo/other", *STARTED[2:]], 0.0, 0.0)
    later(forge)
    assert forge.works(1)
    assert forge.asked == 0
