"""The launch story against a forge and a cloud in memory: order, ladder, waiting, and above all
that nothing is left."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from runner_action import bootstrap, claim
from runner_action.ci.report import summary
from runner_action.commands.launch import Launch
from runner_action.errors import (
    AuthError,
    CapacityError,
    ConfigurationError,
    CredentialsError,
    ForgeError,
    MachineFailed,
    QuotaError,
    RunnerActionError,
    TimedOut,
)
from runner_action.inputs import Raw, parse
from runner_action.model import CiJob, Identity, Instance, Machine, Report, Run
from runner_action.request import CloudRequest, LaunchRequest
from runner_action.runners.readiness import LOOK_EVERY
from runner_action.runners.siblings import Siblings
from tests.fakes import FakeClock, FakeForge, FakeProvider, unpacked

RUN = Run(derived_name="cml-0123456789", key="fedcba9876543210", title="octo/train run 1")


def request(*argv: str) -> LaunchRequest:
    words = ["--repo=https://github.com/octo/train", "--token=canary-token", "--cloud=aws", *argv]
    flags: dict[str, list[str]] = {}
    for word in words:
        name, _, text = word.removeprefix("--").partition("=")
        flags.setdefault(name, []).append(text or "true")
    return parse(Raw(flags=flags, environ={}), lambda _: None)[0]


def cloud_of(*argv: str) -> CloudRequest:
    cloud = request(*argv).cloud
    assert cloud
    return cloud


RESTARTING = ("--restart-token=canary-other", "--agent-downloads=http://127.0.0.1:1/nobody")
"""With the address of the agent, as the image of a release has it: AWS has no room for what
restarts jobs on GitHub."""


class Story:
    """A launch in a world where machines come online after `boot` seconds, unless told
    otherwise."""

    def __init__(self, *argv: str, boot: float = 3.0) -> None:
        self.clock = FakeClock()
        self.forge = FakeForge()
        self.boot = boot
        self.booting: list[tuple[float, str, list[str]]] = []
        self.provider = FakeProvider(self._born)
        self.clock.each = self._time_passes
        self.request, self.run = request(*argv), RUN

    def _born(self, instance: Instance, machine: Machine) -> None:
        spec = self.spec(instance.name)
        name = str(spec["name"]).replace(
            bootstrap.INSTANCE, instance.id[-8:]
        )  # as the machine does
        self.booting.append((self.clock.at + self.boot, name, spec["labels"]))

    def _time_passes(self) -> None:
        for due, name, labels in list(self.booting):
            if self.clock.at >= due:
                self.booting.remove((due, name, labels))
                if name in self.forge.listed:  # it was registered before
                    self.forge.listed[name] = replace(self.forge.listed[name], online=True)
                else:
                    self.forge.add(name, labels)

    def launch(self) -> Report:
        return Launch(
            self.request,
            Siblings(self.run),
            lambda: self.forge,
            lambda: self.provider,
            self.clock,
            self.clock.at,
        ).launch()

    def spec(self, name: str = "cml-0123456789") -> dict[str, Any]:
        found: dict[str, Any] = json.loads(
            unpacked(self.provider.machines[name].user_data)["var/lib/cml-runner/spec.json"]
        )
        return found


@pytest.mark.parametrize(
    ("boot", "argv", "read"), [(20.0, [], True), (3.0, [], False), (20.0, ["--docker=none"], False)]
)
def test_a_launch_reports_what_its_machine_installed_and_what_it_lacks(
    boot: float, argv: list[str], read: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A machine that was online at once has installed nothing: no call for that."""
    caplog.set_level("INFO")
    story = Story(*argv, boot=boot)
    story.provider.consoles["cml-0123456789"] = (
        'cml-runner: {"stage": "equipped", "seconds": 14.2, "why": "exit code 3: no jq"}'
    )
    report = story.launch()
    text = summary(report, story.request)
    assert ("installing packages 14.2" in text) is read
    assert ("Installing packages took the machine 14 s." in caplog.text) is read
    assert ("Some packages could not be installed: no jq" in caplog.text) is read


def test_a_runner_comes_online() -> None:
    story = Story("--labels=cml,gpu")
    report = story.launch()
    assert [one.runner_name for one in report.launched] == ["cml-0123456789"]
    assert report.launched[0].instance is not None
    assert report.launched[0].instance.address == "203.0.113.7"
    assert report.launched[0].labels == ("cml", "gpu")
    assert report.stages["online"] == pytest.approx(story.clock.at - 1000, abs=0.1)
    assert len(story.provider.alive) == 1


def test_each_question_is_asked_once() -> None:
    story = Story(boot=0.5)
    story.launch()
    # The sweep, which is no part of the launch, asks each side once, or not at all if the launch is
    # over before.
    asked = sorted([*story.forge.calls, "runners"])[:6]
    assert asked == [
        "download",
        "registration_token",
        "removal_token",
        "runners",
        "runners",
        "runners",
    ]
    assert story.forge.calls.count("runners") <= 4
    assert sorted(call for call in story.provider.calls if call not in ("find", "tidy")) == [
        "create",
        "look",
        "resolve",
        "settle",
    ]


def test_a_sweep_that_fails_is_no_failure_of_the_launch(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    story = Story(boot=30)
    story.provider.trouble["find"] = CredentialsError("You may not look.")
    assert story.launch().launched
    assert "Could not sweep what earlier launches left: You may not look." in caplog.text


def test_a_sweep_leaves_the_machines_of_this_very_launch_alone() -> None:
    story = Story("--count=3", boot=100)
    assert len(story.launch().launched) == 3
    assert len(story.provider.alive) == 3


def test_everything_is_tagged_and_expires() -> None:
    story = Story("--cloud-metadata=team=a=b", "--max-lifetime=1h", "--start-timeout=10m")
    story.launch()
    marks = dict(story.provider.machines["cml-0123456789"].tags)
    assert marks.pop("cml-runner:expiry").startswith("2026-11-23T01:26:4")
    assert marks.pop("cml-runner:online-by").startswith("2026-11-23T00:26:4")
    assert marks == {
        "Name": "cml-0123456789",
        "cml-runner": "runner",
        **Identity(name="cml-0123456789", key=RUN.key).marks,
        "cml-runner:repository": "https://github.com/octo/train",
        "cml-runner:run": "octo/train run 1",
        "team": "a=b",
    }


def test_the_machine_gets_no_more_secrets_than_it_needs() -> None:
    restarting = Story(*RESTARTING)
    plain = Story()
    never = Story(*RESTARTING, "--no-retry")
    single = Story("--single", "--agent-downloads=http://127.0.0.1:1/nobody")
    for story in (restarting, plain, never, single):
        story.launch()
    held = ("api_token", "registration_token", "removal_token", "jit_config")
    assert [restarting.spec().get(key) for key in held] == [
        "canary-other",
        "canary-registration",
        None,
        None,
    ]
    assert [plain.spec().get(key) for key in held] == [
        None,
        "canary-registration",
        "canary-removal",
        None,
    ]
    assert [never.spec().get(key) for key in held] == [
        None,
        "canary-registration",
        "canary-removal",
        None,
    ]
    assert [single.spec().get(key) for key in held] == [None, None, "canary-removal", "canary-jit"]


def test_only_who_asks_for_this_launch_comes_where_nobody_said_who_else() -> None:
    plain, labelled = Story(), Story("--labels=gpu")
    for story in (plain, labelled):
        story.launch()
    assert [label for label in plain.spec()["labels"] if not label.startswith("cml-")] == []
    assert "--no-default-labels" in plain.spec()["options"]
    assert [label for label in labelled.spec()["labels"] if not label.startswith("cml-")] == ["gpu"]
    assert "options" not in labelled.spec()


JOB = CiJob(
    repository_url="https://github.com/octo/train",
    run_id=77,
    attempt=1,
    runner_name="GitHub Actions 7",
)


def test_the_machine_knows_which_job_launched_it() -> None:
    story = Story(*RESTARTING)
    story.run = replace(RUN, job=JOB)
    story.launch()
    assert [story.spec()[key] for key in ("launch_run", "launch_job", "launch_job_name")] == [
        77,
        4711,
        "launch",
    ]


@pytest.mark.parametrize(
    "job",
    [None, replace(JOB, repository_url="https://github.com/octo/other")],
    ids=["by hand", "of another repository"],
)
def test_a_job_that_is_not_of_this_repository_is_not_asked_for(job: CiJob | None) -> None:
    story = Story(*RESTARTING)
    story.run = replace(RUN, job=job)
    story.launch()
    assert "launch_job" not in story.forge.calls
    assert "launch_run" not in story.spec()


@pytest.mark.parametrize("argv", [(), (*RESTARTING, "--no-retry")])
def test_nor_without_a_restart(argv: tuple[str, ...]) -> None:
    story = Story(*argv)
    story.run = replace(RUN, job=JOB)
    story.launch()
    assert "launch_job" not in story.forge.calls


def test_a_launch_job_that_cannot_be_found_does_not_end_the_launch() -> None:
    story = Story(*RESTARTING)
    story.run = replace(RUN, job=JOB)
    story.forge.trouble["launch_job"] = ForgeError("The forge has a bad day", "")
    assert story.launch().launched
    assert "launch_job" not in story.spec()


def test_what_would_end_jobs_early_is_told(caplog: pytest.LogCaptureFixture) -> None:
    story = Story("--max-lifetime=1h")
    story.forge.limit = "Jobs end soon, not after"
    assert story.launch().launched
    warned = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert "Jobs end soon, not after 3600." in warned


def test_limits_that_cannot_be_looked_up_do_not_end_the_launch() -> None:
    story = Story()
    story.forge.trouble["cautions"] = ForgeError("The forge has a bad day", "")
    assert story.launch().launched


def test_a_token_that_may_not_restart_is_told_at_the_launch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Not in the night when the machine is taken."""
    story = Story(*RESTARTING, "--restart-token=canary-token")
    story.run = replace(RUN, job=JOB)
    story.forge.trouble["launch_job"] = AuthError(
        "The token lacks the permission actions=read.", ""
    )
    assert story.launch().launched
    assert (
        "will not be able to restart its job. The token lacks the permission actions=read."
        in caplog.text
    )


@pytest.mark.parametrize(("more", "told"), [((), True), (("--job-sudo=false",), False)])
def test_what_a_token_that_jobs_can_read_opens_is_told(
    more: tuple[str, ...], told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    story = Story(*RESTARTING, *more)
    story.forge.opens = "a classic token"
    assert story.launch().launched
    assert (
        "`restart-token`, which jobs can read as root, is a classic token." in caplog.text
    ) == told


def test_a_restart_token_that_is_none_ends_the_launch_before_anything_is_made() -> None:
    story = Story(*RESTARTING)
    story.forge.trouble["reach"] = AuthError("GitHub answered 401.", "Make another.")
    with pytest.raises(AuthError, match="`restart-token` was refused: GitHub answered 401"):
        story.launch()
    assert not story.provider.instances
    assert "registration_token" not in story.forge.calls or not story.forge.listed


def test_a_restart_token_that_nobody_can_judge_ends_nothing() -> None:
    story = Story(*RESTARTING)
    story.forge.trouble["reach"] = ForgeError("Cannot reach GitHub (GET /).", "")
    assert story.launch().launched


def test_without_a_restart_token_nothing_is_asked_of_it() -> None:
    story = Story()
    assert story.launch().launched
    assert "reach" not in story.forge.calls


def test_an_organisations_runner_knows_the_job_of_one_of_its_repositories() -> None:
    story = Story("--repo=https://github.com/octo", *RESTARTING)
    story.run = replace(RUN, job=JOB)
    story.launch()
    assert story.spec()["launch_job"] == 4711


def test_a_runner_that_was_online_is_not_asked_about_again() -> None:
    """It may have had its job meanwhile, and be gone, while others are still awaited."""
    story = Story("--count=2")

    def each_for_one_look_only() -> None:
        story.forge.listed.clear()
        if story.booting:
            story.forge.add(story.booting.pop()[1])

    story.clock.each = each_for_one_look_only
    assert len(story.launch().launched) == 2


def test_several_runners_are_launched_side_by_side() -> None:
    """At a forge that lets them, with one user data; else each with its own."""
    story = Story("--count=3", "--name=train")
    report = story.launch()
    base = "train-fedcba98"
    assert [one.runner_name for one in report.launched] == [
        f"{base}-00000000",
        f"{base}-00000001",
        f"{base}-00000002",
    ]
    assert story.provider.calls.count("create") == 1
    apart = Story("--count=3", "--name=train")
    apart.forge.together = False
    names = [f"{base}-1", f"{base}-2", f"{base}-3"]
    assert [one.runner_name for one in apart.launch().launched] == names
    assert [apart.spec(name)["name"] for name in names] == names


def test_several_come_from_as_many_placements_as_it_takes() -> None:
    story = Story("--count=5")
    story.provider.room = {"r1a": 2, "r1b": 1}
    report = story.launch()
    assert [one.instance.zone for one in report.launched if one.instance] == [
        "r1a",
        "r1a",
        "r1b",
        "r2a",
        "r2a",
    ]
    assert report.tried == (
        "small on demand in r1a: 2 of 5",
        "small on demand in r1b: 1 of 3",
        "small on demand in r2a: 2 of 2",
    )


def test_too_few_machines_are_taken_back() -> None:
    story = Story("--count=5")
    story.provider.room = {"r1a": 2, "r1b": 1, "r2a": 1}
    with pytest.raises(CapacityError, match="No placement had 5 such machines"):
        story.launch()
    assert story.provider.alive == []
    assert story.forge.listed == {}


def test_several_single_runners_join_with_one_token() -> None:
    story = Story("--count=2", "--single", "--no-retry")
    story.launch()
    assert "register_one" not in story.forge.calls
    spec = story.spec()
    assert (spec["single"], spec["registration_token"], spec.get("jit_config")) == (
        True,
        "canary-registration",
        None,
    )


def test_a_dry_run_creates_and_registers_nothing() -> None:
    story = Story("--dry-run")
    report = story.launch()
    assert [str(rung) for rung in report.ladder] == [
        "small on demand in r1a",
        "small on demand in r1b",
        "small on demand in r2a",
    ]
    assert "create" not in story.provider.calls
    assert set(story.forge.calls) == {"runners", "download"}


PRIVATE_KEY = """-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f
-----END PRIVATE KEY-----"""
AUTHORIZED = (
    "ci-info: +++++Authorized keys from /home/admin/.ssh/authorized_keys for user admin+++++\n"
)


@pytest.mark.parametrize(
    ("console", "user"),
    [(AUTHORIZED, "admin"), ("", "ubuntu")],
    ids=["as the machine says", "as its image is known"],
)
def test_with_a_key_the_log_says_how_to_log_in(
    console: str, user: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    story = Story(f"--cloud-ssh-private={PRIVATE_KEY}")
    story.provider.consoles["cml-0123456789"] = console
    story.launch()
    assert f"ssh -i KEY {user}@203.0.113.7" in caplog.text
    assert "PRIVATE" not in caplog.text
    without = Story()
    without.launch()
    assert "console" not in without.provider.calls


# --- reuse


@pytest.mark.parametrize(
    ("flag", "labels", "online", "busy", "reused"),
    [
        ("--reuse", ["cml", "gpu", "x"], True, False, True),
        ("--reuse", ["cml", "gpu"], True, True, True),
        ("--reuse", ["cml"], True, False, False),
        ("--reuse", ["cml", "gpu"], False, False, False),
        ("--reuse-idle", ["cml", "gpu"], True, False, True),
        ("--reuse-idle", ["cml", "gpu"], True, True, False),
    ],
)
def test_reuse(flag: str, labels: list[str], online: bool, busy: bool, reused: bool) -> None:
    story = Story("--labels=cml,gpu", flag)
    story.forge.add("other", labels, online=online, busy=busy)
    launched = story.launch().launched[0]
    assert launched.reused is reused
    assert ("create" in story.provider.calls) is not reused
    assert launched.runner_name == ("other" if reused else "cml-0123456789")


def test_reuse_by_name() -> None:
    story = Story("--reuse", "--name=train")
    story.forge.add("train", ["something", "else"])
    assert story.launch().launched[0].reused


def claimed(story: Story, name: str, holder: str, seconds: float) -> None:
    mark = claim.claim(holder, story.clock.now() + timedelta(seconds=seconds))
    story.forge.listed[name] = replace(story.forge.listed[name], claims=frozenset([mark]))


@pytest.mark.parametrize(
    ("flag", "holder", "seconds", "reused"),
    [
        ("--reuse-idle", "0123456789", 60, False),
        ("--reuse-idle", "0123456789", -1, True),
        ("--reuse-idle", RUN.key[: claim.KEY_LENGTH], 60, True),
        ("--reuse-idle", claim.LEAVING, 60, False),
        ("--reuse", "0123456789", 60, True),
        ("--reuse", claim.LEAVING, 60, False),
        ("--reuse", claim.LEAVING, -1, True),
    ],
    ids=[
        "another's",
        "another's, and over",
        "this step's, repeated",
        "leaves",
        "shared",
        "leaves, though shared",
        "wanted to leave",
    ],
)
def test_a_claim_keeps_others_away(flag: str, holder: str, seconds: float, reused: bool) -> None:
    story = Story(flag)
    story.forge.add("other", ["cml"])
    claimed(story, "other", holder, seconds)
    assert story.launch().launched[0].reused is reused


def test_a_runner_that_goes_meanwhile_is_not_reused() -> None:
    story = Story("--reuse")
    story.forge.add("other", ["cml"])
    story.forge.claim = lambda *_, **__: False  # type: ignore[method-assign]
    assert not story.launch().launched[0].reused


@pytest.mark.parametrize(
    ("name", "reused"),
    [
        ("train", True),
        ("train-2", True),
        ("train-0a1b2c3d", True),
        ("train-0-x7k2p", True),
        ("train-gpu", False),
        ("trains", False),
        ("a-train", False),
    ],
)
def test_reuse_by_the_part_of_a_name_that_was_asked_for(name: str, reused: bool) -> None:
    story = Story("--reuse", "--name=train")
    story.forge.add(name, ["something", "else"])
    assert story.launch().launched[0].reused is reused


def test_a_runner_of_a_single_job_is_another_launchs() -> None:
    story = Story("--reuse")
    story.forge.listed["other"] = replace(story.forge.add("other", ["cml"]), ephemeral=True)
    assert not story.launch().launched[0].reused


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("flag", ["--reuse", "--reuse-idle"])
def test_of_three_runners_the_missing_ones_are_launched(flag: str, together: bool) -> None:
    story = Story(flag, "--count=3", "--name=train")
    story.forge.together = together
    story.forge.add("train-1", ["cml"])
    story.forge.add("train-2", ["other"], online=False)
    launched = story.launch().launched
    assert [one.reused for one in launched] == [False, False, True]
    assert len({one.runner_name for one in launched}) == 3
    assert len(story.provider.alive) == 2
    (hold,) = story.forge.listed["train-1"].claims
    assert int(hold.rpartition("-")[2]) - story.clock.now().timestamp() > claim.HOLD_SECONDS, (
        "it waits as long as the others take"
    )


def test_a_runner_beside_a_busy_one_of_the_name() -> None:
    story = Story("--reuse-idle", "--name=train")
    story.forge.add("train", ["cml"], busy=True)
    assert [one.runner_name for one in story.launch().launched] == ["train-fedcba98"]


def test_the_label_is_that_of_the_launch_that_made_the_runner() -> None:
    made = Story("--labels=cml,gpu")
    launched = made.launch().launched[0]
    assert (launched.label, launched.labels) == (RUN.derived_name, ("cml", "gpu"))
    assert made.spec()["labels"][:-1] == ["cml", "gpu", RUN.derived_name]
    for labels, label in (
        (["cml", "cml-0000000001", "x"], "cml-0000000001"),
        (["x", "cml"], "cml"),
    ):
        story = Story("--reuse")
        story.forge.add("other", labels)
        reused = story.launch().launched[0]
        assert reused.label == label
        assert set(reused.labels) == set(labels) - {"cml-0000000001"}


def test_a_single_runner_has_the_label_too() -> None:
    story = Story("--single")
    story.launch()
    assert story.forge.listed[RUN.derived_name].labels >= {RUN.derived_name}


@pytest.mark.parametrize(
    "argv",
    [("--name=train",), ("--count=2", "--labels=cml")],
    ids=["by its name", "one of several"],
)
def test_outputs_tell_of_the_machine_that_is_reused(argv: tuple[str, ...]) -> None:
    story = Story(*argv)
    first = story.launch().launched
    again = Story("--reuse", *argv)
    again.forge, again.provider = story.forge, story.provider
    reused = again.launch().launched
    assert all(one.reused for one in reused)
    assert {
        one.runner_name: one.instance and (one.instance.id, one.instance.address) for one in reused
    } == {one.runner_name: one.instance and (one.instance.id, "203.0.113.7") for one in first}


@pytest.mark.parametrize("method", ["find", "look"])
def test_a_cloud_that_refuses_does_not_end_a_launch_that_needs_no_machine(method: str) -> None:
    story = Story("--name=train")
    story.launch()
    again = Story("--reuse", "--name=train")
    again.forge, again.provider = story.forge, story.provider
    story.provider.trouble[method] = CredentialsError("expired")
    assert [(one.reused, one.instance) for one in again.launch().launched] == [(True, None)]


def test_a_dry_run_claims_nothing() -> None:
    story = Story("--reuse-idle", "--dry-run")
    story.forge.add("other", ["cml"])
    assert story.launch().launched[0].reused
    assert "claim" not in story.forge.calls
    empty = Story("--reuse", "--dry-run")
    assert empty.launch().ladder
    assert "take_turn" not in empty.forge.calls


# --- turns


def held(story: Story, seconds: float = 300, holder: str = "0123456789") -> str:
    """Another launch with these labels is under way."""
    turn = claim.turn(story.request.labels)
    assert story.forge.take_turn(
        turn, claim.claim(holder, story.clock.now() + timedelta(seconds=seconds)), story.clock
    )
    story.forge.calls.clear()
    return turn


def test_a_launch_waits_for_the_runner_of_another() -> None:
    story = Story("--reuse")
    turn, ticks = held(story), story.clock.each

    def world() -> None:
        ticks()
        if story.clock.at > 1030 and turn in story.forge.listed:
            story.forge.add("theirs", ["cml"])
            story.forge.end_turn(turn, "0123456789")

    story.clock.each = world
    assert [one.runner_name for one in story.launch().launched] == ["theirs"]
    assert story.provider.alive == []
    assert story.forge.calls.count("runners") <= 2 + len(story.clock.slept), "one list a look"
    assert "take_turn" not in story.forge.calls


@pytest.mark.parametrize("seconds", [30, -1], ids=["ends", "had ended"])
def test_a_turn_that_was_left_behind_ends_by_itself(seconds: float) -> None:
    story = Story("--reuse")
    turn = held(story, seconds)
    assert not story.launch().launched[0].reused
    assert turn not in story.forge.listed


def test_a_machine_has_all_of_its_start_timeout_after_the_wait() -> None:
    story = Story("--reuse", "--start-timeout=60", boot=50)
    held(story, 40)
    assert not story.launch().launched[0].reused


def test_nobody_waits_for_ever() -> None:
    story = Story("--reuse", "--start-timeout=60")
    turn = held(story, 10_000)
    with pytest.raises(TimedOut, match="another launch with these labels"):
        story.launch()
    assert turn in story.forge.listed, "it is another's"


@pytest.mark.parametrize(
    "error", [ConfigurationError("no"), RuntimeError("a bug"), KeyboardInterrupt()]
)
def test_a_launch_that_fails_gives_its_turn_back(error: BaseException) -> None:
    story = Story("--reuse")
    story.provider.trouble["create"] = error
    with pytest.raises(type(error)):
        story.launch()
    assert story.forge.listed == {}


def test_a_turn_that_cannot_be_given_back_is_told(caplog: pytest.LogCaptureFixture) -> None:
    story = Story("--reuse")
    story.forge.trouble["end_turn"] = ForgeError("502.")
    assert story.launch().launched
    assert "may wait until this" in caplog.text


def test_other_labels_are_another_turn() -> None:
    assert claim.turn(["a", "b"]) == claim.turn(["b", "a"]) != claim.turn(["a"])


def test_reuse_asks_for_no_registration_token_before_it_knows() -> None:
    story = Story("--reuse")
    story.forge.add("other", ["cml"])
    story.launch()
    assert "registration_token" not in story.forge.calls


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("argv", [(), ("--name=train",)])
@pytest.mark.parametrize("count", [1, 2])
def test_a_name_that_is_registered_is_left_to_its_runner(
    argv: tuple[str, ...], count: int, online: bool
) -> None:
    """An earlier launch of the same step has it, which could store nothing."""
    story = Story(f"--count={count}", *argv)
    first = {one.runner_name for one in story.launch().launched}
    again = Story(f"--count={count}", *argv)
    again.forge = story.forge
    for name, runner in story.forge.listed.items():
        story.forge.listed[name] = replace(runner, online=online)
    second = {one.runner_name for one in again.launch().launched}
    assert len(first | second) == 2 * count
    assert first <= story.forge.listed.keys()


# --- the ladder


def test_no_capacity_means_the_next_placement() -> None:
    story = Story()
    story.provider.trouble["r1a"] = CapacityError("none in r1a")
    report = story.launch()
    assert report.launched[0].instance is not None
    assert report.launched[0].instance.zone == "r1b"
    assert report.tried == ("small on demand in r1a: none in r1a", "small on demand in r1b: yes")


def test_no_quota_means_the_next_region() -> None:
    story = Story()
    story.provider.trouble["r1a"] = QuotaError("limit of r1")
    launched = story.launch().launched[0]
    assert launched.instance is not None
    assert launched.instance.zone == "r2a"
    assert story.provider.calls.count("create") == 2


@pytest.mark.parametrize("error", [CredentialsError("no"), ConfigurationError("no")])
def test_what_no_other_placement_would_help_ends_at_once(error: RunnerActionError) -> None:
    story = Story()
    story.provider.trouble["r1a"] = error
    with pytest.raises(type(error)):
        story.launch()
    assert story.provider.calls.count("create") == 1
    assert story.provider.alive == []


def test_all_placements_full_tells_each() -> None:
    story = Story()
    story.provider.trouble.update(
        {zone: CapacityError(f"none in {zone}", "try elsewhere") for zone in ("r1a", "r1b", "r2a")}
    )
    with pytest.raises(CapacityError, match=r"none in r1a.*none in r1b.*none in r2a") as caught:
        story.launch()
    assert caught.value.hint == "try elsewhere"


# --- nothing is left


FAULTS: list[tuple[str, str, BaseException]] = [
    ("forge", "runners", AuthError("401")),
    ("forge", "download", ForgeError("404")),
    ("forge", "registration_token", AuthError("403")),
    ("provider", "resolve", ConfigurationError("no image")),
    ("provider", "create", ConfigurationError("no")),
    ("provider", "after-create", ConfigurationError("the answer was lost")),
    ("forge", "runners", KeyboardInterrupt()),
    ("provider", "after-create", RuntimeError("a bug")),
]


@pytest.mark.parametrize(
    ("where", "method", "error"),
    FAULTS,
    ids=[f"{where}.{method}: {type(error).__name__}" for where, method, error in FAULTS],
)
@pytest.mark.parametrize(
    "argv", [(), ("--single",), ("--count=3",)], ids=["lasting", "single", "three"]
)
def test_whatever_fails_nothing_is_left(
    where: str, method: str, error: BaseException, argv: tuple[str, ...]
) -> None:
    story = Story(*argv)
    getattr(story, where).trouble[method] = error
    if (method, argv) == ("registration_token", ("--single",)):
        story.forge.trouble["register_one"] = error
    with pytest.raises(type(error)):
        story.launch()
    assert story.provider.alive == []
    assert story.forge.listed == {}


def test_nothing_is_taken_back_that_was_not_begun() -> None:
    story = Story()
    story.forge.trouble["runners"] = AuthError("401")
    with pytest.raises(AuthError):
        story.launch()
    assert "destroy" not in story.provider.calls
    assert "deregister" not in story.forge.calls


def test_a_machine_that_never_comes_online_is_taken_back() -> None:
    story = Story("--start-timeout=60", boot=10_000)
    with pytest.raises(TimedOut, match="runner to come online"):
        story.launch()
    assert story.provider.alive == []
    assert story.clock.at - 1000 <= 60 + 5


def test_a_timeout_tells_how_far_the_machine_had_come(caplog: pytest.LogCaptureFixture) -> None:
    for text, words in (
        ("", "without any output on its console"),
        ("Booting", "before its agent had started"),
        (
            'cml-runner: {"stage": "agent"}\ncml-runner: {"stage": "downloaded"}\n',
            "after unpacking the runner program",
        ),
    ):
        story = Story("--start-timeout=60", boot=10_000)
        story.provider.consoles["cml-0123456789"] = text
        with pytest.raises(TimedOut, match=f"i-00000000 got stuck {words}"):
            story.launch()
        assert text in caplog.text


def test_one_of_three_not_online_takes_all_back() -> None:
    story = Story("--count=3", "--start-timeout=60")
    story.provider.born = lambda instance, machine: (
        None if instance.id.endswith("2") else story._born(instance, machine)
    )
    with pytest.raises(TimedOut):
        story.launch()
    assert story.provider.alive == []
    assert story.forge.listed == {}


def test_the_machines_own_reason_ends_the_wait() -> None:
    story = Story(boot=10_000)
    story.provider.consoles["cml-0123456789"] = (
        'boot\ncml-runner: {"stage": "agent"}\ncml-runner: {"stage": "failed", "why": "startup'
        ' script: exit code 3"}\n'
    )
    with pytest.raises(
        MachineFailed, match="failed after its agent had started: startup script: exit code 3"
    ):
        story.launch()
    assert story.clock.at - 1000 < 2 * LOOK_EVERY
    assert story.provider.alive == []


def test_a_runner_that_did_its_only_job_between_two_looks_was_online() -> None:
    """GitHub forgets it with its job, so that no look ever finds it online."""
    story = Story("--single", boot=10_000)
    said = ("agent", "online", "job-started", "job-finished", "leaving", "end")
    story.provider.consoles["cml-0123456789"] = "".join(
        f'cml-runner: {{"stage": "{stage}", "why": "single"}}\n' for stage in said
    )
    assert [one.runner_name for one in story.launch().launched] == ["cml-0123456789"]


def test_a_machine_that_was_ended_by_somebody_ends_the_wait() -> None:
    story = Story(boot=10_000)

    def end_it() -> None:
        for token, one in story.provider.instances.items():
            story.provider.instances[token] = replace(one, alive=False)

    story.clock.each = end_it
    with pytest.raises(MachineFailed, match="stopped before"):
        story.launch()


def test_taking_back_goes_on_when_a_step_of_it_fails(caplog: pytest.LogCaptureFixture) -> None:
    story = Story("--single", "--start-timeout=30", boot=10_000)
    story.provider.trouble["destroy"] = CredentialsError("expired")
    with pytest.raises(TimedOut):
        story.launch()
    assert story.forge.listed == {}
    assert "Could not delete machine" in caplog.text


def test_a_machine_of_that_name_of_another_launch_is_not_touched() -> None:
    """It may be booting, so that its runner is not listed yet."""
    theirs, mine = Story("--name=train"), Story("--name=train")
    theirs.launch()
    marks = Identity(name="train", key="other").marks
    mine.provider.instances.update(
        {
            token: replace(one, tags={**one.tags, **marks})
            for token, one in theirs.provider.instances.items()
        }
    )
    for error in (ConfigurationError("no"), CapacityError("none")):
        mine.provider.trouble["create"] = error
        with pytest.raises(type(error)):
            mine.launch()
        assert len(mine.provider.alive) == 1
    mine.forge.add("train", online=True)
    mine.forge.listed["train"] = replace(mine.forge.listed["train"], name="train", online=False)
    with pytest.raises(CapacityError):
        mine.launch()
    assert "train" in mine.forge.listed


def test_an_outage_of_the_forge_does_not_end_the_wait() -> None:
    story = Story(boot=20)
    ticks = story.clock.each

    def world() -> None:
        ticks()
        out = 5 < story.clock.at - 1000 < 15
        story.forge.trouble = {"runners": ForgeError("502")} if out else {}

    story.clock.each = world
    assert story.launch().launched
    assert story.forge.trouble == {}


def test_a_token_revoked_meanwhile_does_end_it() -> None:
    story = Story(boot=20)
    story.clock.each = lambda: story.forge.trouble.update({"runners": AuthError("401")})
    with pytest.raises(AuthError):
        story.launch()
    assert story.provider.alive == []


def test_a_cloud_that_does_not_answer_does_not_end_a_runner_that_is_online() -> None:
    story = Story(boot=30)
    story.provider.trouble.update(
        {"look": ConfigurationError("throttled"), "console": ConfigurationError("throttled")}
    )
    report = story.launch()
    assert report.launched[0].instance is not None
    assert len(story.provider.alive) == 1


def test_no_secret_is_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    for error in (ConfigurationError("no"), RuntimeError("a bug")):
        story = Story("--single")
        story.provider.trouble["after-create"] = error
        with pytest.raises(type(error)):
            story.launch()
        assert "canary" not in repr(story.request) + str(story.request)
    assert "canary" not in caplog.text
