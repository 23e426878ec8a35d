"""What becomes of a launch behind a real API server: its Job controller, scheduler and garbage
collector. The nodes have no machines."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import pytest

from runner_action.errors import CapacityError, NotOurs
from tests.real.cluster import Node, Space, end, until
from tests.real.launcher import Launcher

Json = dict[str, Any]


def job_of(space: Space) -> Json:
    (job,) = space.items("jobs")
    return job


def conditions(space: Space) -> dict[str, str]:
    found = job_of(space)["status"].get("conditions") or ()
    return {one["type"]: one.get("reason", "") for one in found if one["status"] == "True"}


def test_an_instance_is_made_found_looked_at_and_destroyed(working: Space, node: Node) -> None:
    launcher = Launcher(working)
    made = launcher.one()
    provider = launcher.provider
    assert (made.zone, made.region, made.alive) == (node.name, working.name, True)
    assert [one.id for one in provider.find({"cml-runner:name": "cml-1"})] == [made.id]
    assert provider.find({"cml-runner:name": "cml-2"}) == []
    assert provider.look(made).alive
    assert launcher.one().id == made.id, "a second try finds what is there"
    provider.settle([made])
    assert working.items("secrets") == []
    provider.settle([made])
    assert provider.destroy("cml-1", made) is True
    assert provider.destroy("cml-1", made) is False
    launcher.nothing_is_left()


def test_secret_and_pods_go_with_their_job(working: Space, node: Node) -> None:
    launcher = Launcher(working)
    made = launcher.one()
    (secret,) = working.items("secrets")
    assert secret["metadata"]["ownerReferences"][0]["uid"] == job_of(working)["metadata"]["uid"]
    launcher.provider.destroy("cml-1", made)
    launcher.nothing_is_left()


@pytest.mark.parametrize("how", ["of others", "without an owner"])
def test_what_is_not_ours_stays(working: Space, node: Node, how: str) -> None:
    launcher = Launcher(working)
    made = launcher.one()
    launcher.provider.destroy("cml-1", made)
    launcher.nothing_is_left()
    if how == "of others":
        template = {
            "spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "a", "image": "registry.invalid/a"}],
            }
        }
        spec = {"suspend": True, "template": template}
        working.add(
            {
                "kind": "Job",
                "apiVersion": "batch/v1",
                "metadata": {"name": made.group},
                "spec": spec,
            }
        )
    else:
        working.add({"kind": "Secret", "apiVersion": "v1", "metadata": {"name": made.group}})
    with pytest.raises(NotOurs, match="that this launch did not create"):
        launcher.create()
    kind = "jobs" if how == "of others" else "secrets"
    assert [one["metadata"]["name"] for one in working.items(kind)] == [made.group]


# --- no room


def test_the_schedulers_words_for_what_no_node_has(
    working: Space, node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    launcher = Launcher(working)
    with pytest.raises(CapacityError, match=r"[1-9] Insufficient amd\.com/gpu") as caught:
        launcher.create("--cloud-gpu=amd.com/gpu", patience=3)
    assert "nodes are available" in str(caught.value)
    assert "cml-1" in caplog.text
    launcher.nothing_is_left()


def test_the_schedulers_words_for_a_taint_and_what_tolerates_it(working: Space) -> None:
    taint = {"key": "dedicated", "value": "ci", "effect": "NoSchedule"}
    node = Node(working, taints=[taint])
    try:
        launcher = Launcher(working)
        with pytest.raises(CapacityError, match=r"untolerated taint.* \{dedicated: ci\}|taint"):
            launcher.create(patience=3)
        made = launcher.one("--cloud-kubernetes-tolerations=dedicated=ci:NoSchedule")
        assert made.zone == node.name
        launcher.provider.destroy("cml-1", made)
    finally:
        node.close()


def test_a_node_that_comes_later_is_waited_for(working: Space) -> None:
    launcher = Launcher(working)
    nodes: list[Node] = []

    def autoscaler() -> None:
        time.sleep(2)
        nodes.append(Node(working, room={"nvidia.com/gpu": "1"}))

    thread = threading.Thread(target=autoscaler)
    thread.start()
    try:
        made = launcher.one("--cloud-gpu=nvidia.com/gpu")
        assert made.zone == nodes[0].name
        launcher.provider.destroy("cml-1", made)
    finally:
        thread.join()
        nodes[0].close()


def test_as_many_as_there_is_room_for(working: Space) -> None:
    node = Node(working, room={"nvidia.com/gpu": "2"})
    try:
        launcher = Launcher(working)
        made = launcher.create("--cloud-gpu=nvidia.com/gpu", count=4, patience=6)
        assert len(made.instances) == 2
        assert isinstance(made.shortage, CapacityError)
        until(lambda: len(working.items("pods")) == 2, "the rest to go")
        launcher.provider.destroy("cml-1", made.instances[0])
        launcher.nothing_is_left()
    finally:
        node.close()


# --- how Jobs end


def test_a_runner_that_ends_well_completes_its_job_which_goes_after_its_time(
    working: Space, node: Node
) -> None:
    launcher = Launcher(working)
    made = launcher.one()
    end(working, made.id, "Succeeded")
    until(lambda: "Complete" in conditions(working), "the Job to be complete")
    assert launcher.provider.find({}) == []
    path = f"{working.batch}/jobs/{made.group}"
    working.admin.done("PATCH", path, {"spec": {"ttlSecondsAfterFinished": 1}})
    launcher.nothing_is_left()


def test_a_runner_that_fails_is_not_made_anew(working: Space, node: Node) -> None:
    launcher = Launcher(working)
    made = launcher.one()
    end(working, made.id, "Failed")
    until(lambda: "Failed" in conditions(working), "the Job to have failed")
    assert conditions(working)["Failed"] == "BackoffLimitExceeded"
    assert len(working.items("pods")) == 1
    assert launcher.provider.look(made).alive is False
    launcher.provider.destroy("cml-1", made)
    launcher.nothing_is_left()


def test_of_many_one_that_fails_or_is_deleted_does_not_end_the_others(
    working: Space, node: Node
) -> None:
    launcher = Launcher(working)
    made = launcher.create("--cloud-type=s", count=4).instances
    assert len({one.id for one in made}) == 4
    end(working, made[0].id, "Failed")
    working.admin.done("DELETE", f"{working.path}/pods/{made[1].id}")
    until(lambda: len(launcher.provider.find({})) == 2, "the others")
    time.sleep(2)
    assert {one.id for one in launcher.provider.find({})} == {made[2].id, made[3].id}
    assert conditions(working) == {}
    for one in made[2:]:
        end(working, one.id, "Succeeded")
    until(lambda: "Failed" in conditions(working), "the Job to have ended")
    assert launcher.provider.find({}) == []
    launcher.provider.destroy("cml-1", made[0])
    launcher.nothing_is_left()


def test_what_outlives_its_time_is_ended_by_the_cluster(working: Space, node: Node) -> None:
    launcher = Launcher(working)
    made = launcher.one()
    path = f"{working.batch}/jobs/{made.group}"
    working.admin.done("PATCH", path, {"spec": {"activeDeadlineSeconds": 1}})
    until(lambda: conditions(working).get("Failed") == "DeadlineExceeded", "the end")
    until(lambda: not launcher.provider.look(made).alive, "its pod to be gone")
    launcher.provider.destroy("cml-1", made)
    launcher.nothing_is_left()
