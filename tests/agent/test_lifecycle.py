"""Histories: events in, phase and reason out. No clock, no process, no fake."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from runner_action.agent import reasons
from runner_action.agent.events import (
    JOB_LIMIT,
    RUN_LIMIT,
    SYSTEM,
    UNIT,
    Event,
    Failed,
    Interrupted,
    JobFinished,
    JobStarted,
    Online,
    Refused,
    RunnerExited,
    Settled,
    Signalled,
    Tick,
    stops,
)
from runner_action.agent.lifecycle import (
    DISK_PATIENCE,
    HANG,
    LIMIT_MARGIN,
    LOST,
    MARGIN,
    NOTICE_PATIENCE,
    RELAUNCHES,
    SILENCE,
    SINGLE_GRACE,
    UNFIT_RETRY,
    UPLOAD,
    URGENT_SECONDS,
    Phase,
    State,
    advance,
    born,
    resumed,
    watchdog,
)
from runner_action.agent.reasons import ONCE, Reason
from runner_action.agent.spec import AgentSpec
from tests.agent.test_spec import SPEC

WEEK = 7 * 86400


def policy_of(
    idle_timeout: int | None,
    first_job_timeout: int | None,
    max_lifetime: int | None,
    start_timeout: int,
    single: bool,
    owned: bool = True,
) -> AgentSpec:
    """A spec with what the lifecycle depends on. `owned`: the machine is a cloud's."""
    return replace(
        SPEC,
        idle_timeout=idle_timeout,
        first_job_timeout=first_job_timeout,
        max_lifetime=max_lifetime,
        start_timeout=start_timeout,
        single=single,
        cloud="aws" if owned else "",
    )


POLICY = policy_of(
    idle_timeout=300, first_job_timeout=300, max_lifetime=86400, start_timeout=600, single=False
)
SINGLE = policy_of(
    idle_timeout=300, first_job_timeout=300, max_lifetime=86400, start_timeout=600, single=True
)
NEVER = policy_of(
    idle_timeout=None, first_job_timeout=None, max_lifetime=86400, start_timeout=600, single=False
)
PATIENT = policy_of(
    idle_timeout=300, first_job_timeout=3600, max_lifetime=86400, start_timeout=600, single=False
)
LONG = policy_of(
    idle_timeout=300,
    first_job_timeout=300,
    max_lifetime=4 * WEEK,
    start_timeout=600,
    single=False,
)
LOCAL = policy_of(
    idle_timeout=None,
    first_job_timeout=None,
    max_lifetime=None,
    start_timeout=600,
    single=False,
    owned=False,
)
NIGH = 86400 - LIMIT_MARGIN
WORKING: list[Event] = [Online(30), JobStarted(40, "train")]
IDLE_AGAIN: list[Event] = [*WORKING, JobFinished(1000), Settled(1002)]

HISTORIES: list[tuple[str, AgentSpec, list[Event], Phase, Reason | None]] = [
    ("still starting", POLICY, [Tick(599)], Phase.STARTING, None),
    ("never online", POLICY, [Tick(600)], Phase.LEAVING, Reason.NEVER_ONLINE),
    ("online", POLICY, [Online(30), Tick(31)], Phase.IDLE, None),
    (
        "the idle time starts when online, not at birth",
        POLICY,
        [Online(299), Tick(598)],
        Phase.IDLE,
        None,
    ),
    ("never got a job", POLICY, [Online(30), Tick(330)], Phase.LEAVING, Reason.NO_JOB),
    (
        "the first job may come later than the next",
        PATIENT,
        [Online(30), Tick(3629)],
        Phase.IDLE,
        None,
    ),
    ("but not for ever", PATIENT, [Online(30), Tick(3630)], Phase.LEAVING, Reason.NO_JOB),
    (
        "after the first job the shorter patience holds",
        PATIENT,
        [*IDLE_AGAIN, Tick(1302)],
        Phase.LEAVING,
        Reason.IDLE,
    ),
    ("idle for ever", NEVER, [Online(30), Tick(86399)], Phase.IDLE, None),
    ("busy is not idle", POLICY, [*WORKING, Tick(5000)], Phase.BUSY, None),
    ("the idle time starts anew after a job", POLICY, [*IDLE_AGAIN, Tick(1301)], Phase.IDLE, None),
    ("idle after a job", POLICY, [*IDLE_AGAIN, Tick(1302)], Phase.LEAVING, Reason.IDLE),
    (
        "known by the runner's own word, before its hook",
        POLICY,
        [Online(30), JobStarted(329, "train"), Tick(331)],
        Phase.BUSY,
        None,
    ),
    (
        "the hook is read first",
        POLICY,
        [Online(30), JobStarted(40, "train", ref=("octo/train", 7, 1)), JobStarted(40, "train")],
        Phase.BUSY,
        None,
    ),
    (
        "a runner that ends while it has a job has lost it, whatever its code",
        POLICY,
        [*WORKING, RunnerExited(50, 2)],
        Phase.LEAVING,
        Reason.CRASHED,
    ),
    ("two jobs", POLICY, [*IDLE_AGAIN, JobStarted(1100), Tick(9000)], Phase.BUSY, None),
    ("a job whose end no hook told", POLICY, [*WORKING, Settled(50), Tick(349)], Phase.IDLE, None),
    ("and then idle", POLICY, [*WORKING, Settled(50), Tick(350)], Phase.LEAVING, Reason.IDLE),
    (
        "the runner's line before its hook's",
        POLICY,
        [Online(30), Settled(35), Tick(40)],
        Phase.IDLE,
        None,
    ),
    (
        "a new listener knows nothing of the job",
        POLICY,
        [*WORKING, Online(50)],
        Phase.LEAVING,
        Reason.CRASHED,
    ),
    (
        "nor of one whose last step is over but that nobody has reported",
        POLICY,
        [*WORKING, JobFinished(50), Online(60)],
        Phase.LEAVING,
        Reason.CRASHED,
    ),
    ("a job by its hook alone", POLICY, [JobStarted(20), Tick(700)], Phase.BUSY, None),
    (
        "nothing works on the job any more",
        POLICY,
        [*WORKING, Tick(50, works=False), Tick(50 + LOST, works=False)],
        Phase.LEAVING,
        Reason.CRASHED,
    ),
    (
        "or it only looked so",
        POLICY,
        [*WORKING, Tick(50, works=False), Tick(100), Tick(50 + LOST, works=False)],
        Phase.BUSY,
        None,
    ),
    (
        "each job has its time",
        POLICY,
        [
            *WORKING,
            Tick(50, works=False),
            Settled(100),
            JobStarted(110, "next"),
            Tick(51 + LOST, works=False),
        ],
        Phase.BUSY,
        None,
    ),
    (
        "a runner hung after its job",
        POLICY,
        [*WORKING, JobFinished(50), Tick(51, works=False), Tick(50 + HANG, works=False)],
        Phase.LEAVING,
        Reason.HUNG,
    ),
    (
        "it has its time",
        NEVER,
        [*WORKING, JobFinished(50), Tick(51, works=False), Tick(49 + HANG, works=False)],
        Phase.DONE,
        None,
    ),
    (
        "and more while it sends its logs",
        NEVER,
        [*WORKING, JobFinished(50), Tick(49 + UPLOAD)],
        Phase.DONE,
        None,
    ),
    ("or hangs", NEVER, [*WORKING, JobFinished(50), Tick(50 + UPLOAD)], Phase.LEAVING, Reason.HUNG),
    (
        "the end of a job that nobody began",
        POLICY,
        [Online(30), JobFinished(40), Tick(50)],
        Phase.IDLE,
        None,
    ),
    ("lifetime while idle", NEVER, [Online(30), Tick(86400)], Phase.LEAVING, Reason.LIFETIME),
    (
        "lifetime while busy: before its end, for the restart",
        POLICY,
        [*WORKING, Tick(NIGH)],
        Phase.LEAVING,
        Reason.LIFETIME,
    ),
    ("not before that", POLICY, [*WORKING, Tick(NIGH - 1)], Phase.BUSY, None),
    (
        "a short lifetime has a short margin",
        policy_of(300, 300, 600, 600, False),
        [*WORKING, Tick(539)],
        Phase.BUSY,
        None,
    ),
    (
        "lifetime while starting",
        policy_of(300, 300, 100, 600, False),
        [Tick(100)],
        Phase.LEAVING,
        Reason.LIFETIME,
    ),
    (
        "the forge's limit of a job is near",
        LONG,
        [*WORKING, Tick(40 + JOB_LIMIT - LIMIT_MARGIN)],
        Phase.LEAVING,
        Reason.JOB_LIMIT,
    ),
    (
        "every job has its own",
        LONG,
        [*IDLE_AGAIN, JobStarted(1100), Tick(40 + JOB_LIMIT - LIMIT_MARGIN)],
        Phase.BUSY,
        None,
    ),
    (
        "a limit that comes with the job",
        LONG,
        [Online(30), JobStarted(40, "x", 3600), Tick(40 + 3300)],
        Phase.LEAVING,
        Reason.JOB_LIMIT,
    ),
    (
        "the forge's limit of a run",
        LONG,
        [Online(30), JobStarted(40, "x", JOB_LIMIT, 9000), Tick(9000 - LIMIT_MARGIN)],
        Phase.LEAVING,
        Reason.JOB_LIMIT,
    ),
    ("no job, no limit", LOCAL, [Online(30), Tick(RUN_LIMIT * 2)], Phase.IDLE, None),
    ("start failed", POLICY, [Failed(5, "no tar")], Phase.LEAVING, Reason.START_FAILED),
    (
        "runner crashed idle",
        POLICY,
        [Online(30), RunnerExited(40, 1)],
        Phase.LEAVING,
        Reason.CRASHED,
    ),
    (
        "runner crashed busy: out of memory",
        POLICY,
        [*WORKING, RunnerExited(50, -9)],
        Phase.LEAVING,
        Reason.CRASHED,
    ),
    ("runner ended before it was online", POLICY, [RunnerExited(10, 0)], Phase.STARTING, None),
    (
        "and again and again",
        POLICY,
        [RunnerExited(10, 1)] * (RELAUNCHES + 1),
        Phase.LEAVING,
        Reason.CRASHED,
    ),
    (
        "a lasting runner that ends well has ended all the same",
        POLICY,
        [Online(30), RunnerExited(40, 0)],
        Phase.LEAVING,
        Reason.CRASHED,
    ),
    (
        "code 1: terminated",
        POLICY,
        [Online(30), RunnerExited(40, 1)],
        Phase.LEAVING,
        Reason.CRASHED,
    ),
    (
        "ends before its job is reported",
        POLICY,
        [*WORKING, JobFinished(50), RunnerExited(51, 2)],
        Phase.LEAVING,
        Reason.CRASHED,
    ),
    ("code 2: retryable", POLICY, [Online(30), RunnerExited(40, 2)], Phase.STARTING, None),
    (
        "code 3: updating",
        POLICY,
        [Online(30), RunnerExited(40, 3), Online(60), Tick(200)],
        Phase.IDLE,
        None,
    ),
    ("code 4: updating, single", SINGLE, [Online(30), RunnerExited(40, 4)], Phase.STARTING, None),
    (
        "code 5: session conflict, which may pass",
        POLICY,
        [RunnerExited(10, 5), Tick(599)],
        Phase.STARTING,
        None,
    ),
    ("or not", POLICY, [RunnerExited(10, 5), Tick(600)], Phase.LEAVING, Reason.NEVER_ONLINE),
    (
        "code 6: configuration refreshed",
        POLICY,
        [Online(30), RunnerExited(40, 6), Online(50)],
        Phase.IDLE,
        None,
    ),
    (
        "but not again and again",
        POLICY,
        [RunnerExited(10, 6)] * (RELAUNCHES + 1),
        Phase.LEAVING,
        Reason.CRASHED,
    ),
    (
        "but a runner that gets jobs in between may be started for ever",
        POLICY,
        [*IDLE_AGAIN, RunnerExited(1010, 2)] * (RELAUNCHES + 5),
        Phase.STARTING,
        None,
    ),
    (
        "code 7: the version is refused",
        POLICY,
        [RunnerExited(10, 7)],
        Phase.LEAVING,
        Reason.VERSION,
    ),
    (
        "registration gone",
        POLICY,
        [Online(30), RunnerExited(40, 1, True)],
        Phase.LEAVING,
        Reason.REMOVED,
    ),
    (
        "disk full for a moment",
        POLICY,
        [*WORKING, Tick(50, True), Tick(80, False), Tick(115, True)],
        Phase.BUSY,
        None,
    ),
    (
        "disk full",
        POLICY,
        [*WORKING, Tick(50, True), Tick(50 + DISK_PATIENCE, True)],
        Phase.LEAVING,
        Reason.DISK_FULL,
    ),
    (
        "no longer fit for jobs: it takes no other",
        NEVER,
        [*IDLE_AGAIN, Failed(1003, "no GPU"), Tick(1003)],
        Phase.LEAVING,
        Reason.UNFIT,
    ),
    (
        "found while the runner still reports its job, which is not cut short",
        NEVER,
        [*WORKING, JobFinished(50), Failed(51, "no GPU"), Tick(60)],
        Phase.DONE,
        None,
    ),
    (
        "but the next does not start",
        NEVER,
        [*WORKING, JobFinished(50), Failed(51, "no GPU"), Settled(60), Tick(60)],
        Phase.LEAVING,
        Reason.UNFIT,
    ),
    (
        "or ends at once",
        NEVER,
        [*IDLE_AGAIN, JobStarted(1003), Failed(1004, "no GPU"), Tick(1004)],
        Phase.LEAVING,
        Reason.UNFIT,
    ),
    (
        "the forge has just given an unfit one a job",
        NEVER,
        [*IDLE_AGAIN, Failed(1003, "no GPU"), Tick(1003), Refused(1004), Tick(1005)],
        Phase.IDLE,
        None,
    ),
    (
        "which ends as it starts",
        NEVER,
        [
            *IDLE_AGAIN,
            Failed(1003, "no GPU"),
            Refused(1004),
            JobStarted(1005),
            Tick(1004 + UNFIT_RETRY),
        ],
        Phase.LEAVING,
        Reason.UNFIT,
    ),
    (
        "found while it leaves for another reason and is refused",
        POLICY,
        [
            *IDLE_AGAIN,
            Tick(1302),
            Failed(1303, "no GPU"),
            Refused(1304),
            Tick(1304 + UNFIT_RETRY),
        ],
        Phase.LEAVING,
        Reason.UNFIT,
    ),
    (
        "a signal means the pod's end: while idle",
        POLICY,
        [Online(30), Signalled(40)],
        Phase.LEAVING,
        Reason.TAKEN,
    ),
    ("while busy", POLICY, [*WORKING, Signalled(50)], Phase.LEAVING, Reason.TAKEN),
    ("while starting", POLICY, [Signalled(1)], Phase.LEAVING, Reason.TAKEN),
    (
        "the system shuts down: did the cloud say so?",
        POLICY,
        [*WORKING, Signalled(50, SYSTEM), Tick(51)],
        Phase.BUSY,
        None,
    ),
    (
        "it did not",
        POLICY,
        [*WORKING, Signalled(50, SYSTEM), Tick(50 + NOTICE_PATIENCE)],
        Phase.LEAVING,
        Reason.SHUT_DOWN,
    ),
    (
        "it did",
        POLICY,
        [*WORKING, Signalled(50, SYSTEM), Interrupted(51, "spot", 30), Tick(52)],
        Phase.LEAVING,
        Reason.TAKEN,
    ),
    (
        "systemd stops the unit alone",
        POLICY,
        [*WORKING, Signalled(50, UNIT)],
        Phase.LEAVING,
        Reason.STOPPED,
    ),
    (
        "a job kills what it does not know",
        POLICY,
        [*WORKING, Signalled(50, ""), Signalled(51, ""), Tick(60)],
        Phase.BUSY,
        None,
    ),
    (
        "on a machine that is not ours it is a wish",
        LOCAL,
        [*WORKING, Signalled(50)],
        Phase.LEAVING,
        Reason.ASKED,
    ),
    (
        "notice: the cloud takes the machine",
        POLICY,
        [*WORKING, Interrupted(50, "spot", 120)],
        Phase.LEAVING,
        Reason.TAKEN,
    ),
    (
        "notice while idle",
        POLICY,
        [Online(30), Interrupted(50, "spot", 120)],
        Phase.LEAVING,
        Reason.TAKEN,
    ),
    (
        "a recommendation is no notice",
        POLICY,
        [*WORKING, Interrupted(50, "rebalance", None), Tick(60)],
        Phase.BUSY,
        None,
    ),
    (
        "eviction: 422 does not stop the leaving",
        POLICY,
        [*WORKING, Interrupted(50, "spot", 120), Refused(51)],
        Phase.LEAVING,
        Reason.TAKEN,
    ),
    (
        "the forge has just given it a job",
        POLICY,
        [*IDLE_AGAIN, Tick(1302), Refused(1303), JobStarted(1304)],
        Phase.BUSY,
        None,
    ),
    (
        "or it was cancelled at once",
        POLICY,
        [*IDLE_AGAIN, Tick(1302), Refused(1303), Tick(1602)],
        Phase.IDLE,
        None,
    ),
    (
        "busy for the forge without ever having a job: it hangs",
        POLICY,
        [*IDLE_AGAIN, Tick(1302), Refused(1303), Tick(1603), Refused(1604), Tick(1904)],
        Phase.LEAVING,
        Reason.HUNG,
    ),
    (
        "launches count on it, again and again",
        POLICY,
        [
            *IDLE_AGAIN,
            Tick(1302),
            Refused(1303, claimed=True),
            Tick(1603),
            Refused(1604, claimed=True),
            Tick(1903),
        ],
        Phase.IDLE,
        None,
    ),
    (
        "and then none",
        POLICY,
        [*IDLE_AGAIN, Tick(1302), Refused(1303, claimed=True), Tick(1603)],
        Phase.LEAVING,
        Reason.IDLE,
    ),
    (
        "a refusal does not keep one at the end of its life",
        POLICY,
        [*WORKING, Tick(86400), Refused(86401)],
        Phase.LEAVING,
        Reason.LIFETIME,
    ),
    ("single: online and waiting", SINGLE, [Online(30), Tick(329)], Phase.IDLE, None),
    ("single: never got a job", SINGLE, [Online(30), Tick(330)], Phase.LEAVING, Reason.NO_JOB),
    (
        "single: job done, runner still sends its log",
        SINGLE,
        [*WORKING, JobFinished(50), Settled(51), Tick(60)],
        Phase.DONE,
        None,
    ),
    (
        "single: runner ends by itself",
        SINGLE,
        [*WORKING, JobFinished(50), Settled(54), RunnerExited(55, 0)],
        Phase.LEAVING,
        Reason.SINGLE,
    ),
    (
        "single: its job takes time to be reported",
        SINGLE,
        [*WORKING, JobFinished(50), Tick(50 + SINGLE_GRACE)],
        Phase.DONE,
        None,
    ),
    (
        "single: runner hung before it has reported its job",
        SINGLE,
        [*WORKING, JobFinished(50), Tick(51, works=False), Tick(50 + HANG, works=False)],
        Phase.LEAVING,
        Reason.HUNG,
    ),
    (
        "single: runner hung after its report",
        SINGLE,
        [*WORKING, JobFinished(50), Settled(200), Tick(200 + SINGLE_GRACE)],
        Phase.LEAVING,
        Reason.SINGLE,
    ),
    (
        "single: hooks were lost, the runner ends well",
        SINGLE,
        [Online(30), JobStarted(40), Settled(50), RunnerExited(55, 0)],
        Phase.LEAVING,
        Reason.SINGLE,
    ),
    (
        "single: a report counts more than a code",
        SINGLE,
        [*WORKING, Settled(50), RunnerExited(55, 1, True)],
        Phase.LEAVING,
        Reason.SINGLE,
    ),
    (
        "single: ends well without any job",
        SINGLE,
        [Online(30), RunnerExited(400, 0)],
        Phase.LEAVING,
        Reason.CRASHED,
    ),
    (
        "single: ends well in the middle of its job",
        SINGLE,
        [*WORKING, RunnerExited(50, 0)],
        Phase.LEAVING,
        Reason.CRASHED,
    ),
    (
        "single: ends before it has reported its job",
        SINGLE,
        [*WORKING, JobFinished(50), RunnerExited(55, 0)],
        Phase.LEAVING,
        Reason.CRASHED,
    ),
    ("single: crashed", SINGLE, [*WORKING, RunnerExited(50, 1)], Phase.LEAVING, Reason.CRASHED),
    (
        "single: 422 at its end does not keep it",
        SINGLE,
        [*WORKING, JobFinished(50), Settled(50), RunnerExited(51, 0), Refused(52)],
        Phase.LEAVING,
        Reason.SINGLE,
    ),
    (
        "leaving is final",
        POLICY,
        [Online(30), RunnerExited(40, 1), JobStarted(41), Online(42), Tick(43)],
        Phase.LEAVING,
        Reason.CRASHED,
    ),
]


def test_a_job_is_known_until_its_runner_has_reported_it() -> None:
    """What ends meanwhile interrupts it; what it has reported, nothing interrupts."""
    notice = Interrupted(51, "spot", 30)
    assert live(POLICY, [*WORKING, JobFinished(50), notice]).job == "train"
    assert live(POLICY, [*WORKING, JobFinished(50), notice, Settled(52)]).job == ""
    assert live(POLICY, [*WORKING, notice, Settled(52)]).job == "train", "since it was stopped"


def live(policy: AgentSpec, events: list[Event]) -> State:
    state = born(0)
    for event in events:
        state = advance(state, event, policy)
    return state


@pytest.mark.parametrize(
    ("policy", "events", "phase", "reason"),
    [line[1:] for line in HISTORIES],
    ids=[line[0] for line in HISTORIES],
)
def test_history(
    policy: AgentSpec, events: list[Event], phase: Phase, reason: Reason | None
) -> None:
    state = live(policy, events)
    assert (state.phase, state.reason) == (phase, reason)


def test_every_reason_has_a_history_and_a_line_in_the_table() -> None:
    assert len(HISTORIES) >= 40
    assert {line[4] for line in HISTORIES} | {Reason.AGENT_CRASHED, None} == {*Reason, None}
    table = {
        words[0]: words for line in (reasons.__doc__ or "").splitlines() if (words := line.split())
    }
    for reason in Reason:
        often = {0: "no", ONCE: "once"}.get(reason.restarts, "yes")
        columns = [
            often,
            "yes" if reason.may_refuse else "no",
            str(reason.seconds),
            str(reason.exit_code),
        ]
        assert table[reason.name][-4:] == columns, reason


def test_the_job_that_runs_is_known_as_the_machine_leaves() -> None:
    assert live(POLICY, [*WORKING, Interrupted(50, "spot", 120)]).job == "train"
    assert live(POLICY, [*WORKING, RunnerExited(50, -9)]).job == "train"
    assert live(POLICY, [*IDLE_AGAIN, Interrupted(1100, "spot", 120)]).job == ""


def test_the_second_signal_is_urgent() -> None:
    once = live(POLICY, [Online(30), Signalled(40)])
    assert once.ends == 40 + Reason.TAKEN.seconds
    assert advance(once, Signalled(41), POLICY).ends == 41 + URGENT_SECONDS


SOMEWHERE: list[list[Event]] = [[], [Online(30)], WORKING, [*WORKING, JobFinished(49)]]
SIGNALS = ["", UNIT, SYSTEM]


@pytest.mark.parametrize("before", SOMEWHERE, ids=["starting", "idle", "busy", "done"])
@pytest.mark.parametrize("signals", [*itertools.product(SIGNALS, repeat=2)])
@pytest.mark.parametrize(
    "notice", [None, 0, 1, 2], ids=["no notice", "notice first", "between", "last"]
)
def test_what_signals_mean_and_a_notice_beside_them(
    before: list[Event], signals: tuple[str, ...], notice: int | None
) -> None:
    """Whatever comes first decides, but for a shutdown, which waits for a notice; a signal of
    nobody decides nothing."""
    events: list[Event] = [Signalled(50, stopping) for stopping in signals]
    if notice is not None:
        events.insert(notice, Interrupted(50, "spot", 120))
    state = live(POLICY, [*before, *events, Tick(50 + NOTICE_PATIENCE)])
    causes = [event.stops if isinstance(event, Signalled) else "notice" for event in events]
    reasons = {"notice": Reason.TAKEN, UNIT: Reason.STOPPED}
    deciding = [reasons[cause] for cause in causes if cause in reasons]
    expected = [*deciding, *([Reason.SHUT_DOWN] if SYSTEM in causes else []), None][0]
    assert state.reason is expected
    assert (state.phase is Phase.LEAVING) is (expected is not None)


def test_a_signal_of_nobody_is_no_second_signal() -> None:
    leaves = live(POLICY, [*WORKING, Interrupted(50, "spot", 120), Signalled(51, "")])
    assert leaves.ends == 170
    # Google presses the power button as it gives the notice.
    assert advance(leaves, Signalled(52, SYSTEM), POLICY).ends == 170
    twice = live(POLICY, [*WORKING, Interrupted(50, "spot", 120), *[Signalled(52, SYSTEM)] * 2])
    assert twice.ends == 52 + URGENT_SECONDS


@pytest.mark.parametrize(
    ("jobs", "stopping"),
    [
        ("No jobs running.\n", ""),
        ("68 cloud-init.target start waiting\n69 cloud-config.service start running", ""),
        ("307 cml-runner.service stop running\n", UNIT),
        ("308 cml-runner.service restart running\n", UNIT),
        ("300 cml-runner-watchdog.service start running\n", ""),
        ("462 shutdown.target start waiting\n457 cml-runner.service stop running\n", SYSTEM),
        ("457 cml-runner.service stop running\n462 shutdown.target start waiting\n", SYSTEM),
    ],
)
def test_what_systemd_is_about_to_stop(jobs: str, stopping: str) -> None:
    """Lines of systemd 247 and 257."""
    assert stops(jobs) == stopping


def test_no_reason_begins_like_another() -> None:
    """By its words in the job's log `cml-runner restart` knows it."""
    texts = [reason.text for reason in Reason]
    pairs = itertools.permutations(texts, 2)
    assert [pair for pair in pairs if pair[1].startswith(pair[0])] == []


LEAVES: dict[Reason, list[Event]] = {
    Reason.JOB_LIMIT: [*WORKING, Tick(40 + JOB_LIMIT)],
    Reason.LIFETIME: [*WORKING, JobStarted(4 * WEEK - 1000), Tick(4 * WEEK - LIMIT_MARGIN)],
    Reason.IDLE: [*IDLE_AGAIN, Tick(1302)],
    Reason.CRASHED: [*WORKING, RunnerExited(50, -9)],
    Reason.TAKEN: [*WORKING, Interrupted(50, "spot", 120)],
    Reason.STOPPED: [*WORKING, Signalled(50, UNIT)],
}


@pytest.mark.parametrize("reason", LEAVES)
@pytest.mark.parametrize("later", [0, 1, 10, 60])
@pytest.mark.parametrize("seconds", [2, 30, 120, 3600])
def test_a_notice_moves_the_end_only_nearer_while_leaving(
    reason: Reason, later: float, seconds: float
) -> None:
    state = live(LONG, LEAVES[reason])
    assert state.reason is reason
    at = state.since + later
    noticed = advance(state, Interrupted(at, "spot", seconds), LONG)
    assert noticed.ends == min(state.ends, at + seconds)
    assert noticed.phase is Phase.LEAVING
    assert noticed.reason is (Reason.TAKEN if reason.may_refuse else reason)
    refused = advance(noticed, Refused(at + 1), LONG)
    assert refused.phase is Phase.LEAVING, "what is taken cannot stay"


@pytest.mark.parametrize(
    ("events", "seconds"),
    [
        ([*WORKING, Interrupted(50, "AWS", 120)], 120),
        ([*WORKING, Interrupted(50, "Azure", 30)], 30),
        ([*WORKING, Interrupted(50, "late", 2)], 4),
        ([*WORKING, Interrupted(50, "rebalance", None), Interrupted(50, "AWS", 120)], 120),
        ([*WORKING, Signalled(50)], 30),
        ([*WORKING, Signalled(50), Signalled(50)], 4),
        ([*WORKING, Tick(NIGH)], 300),
        ([*WORKING, RunnerExited(50, 1)], 150),
    ],
    ids=[
        "two minutes",
        "thirty seconds",
        "too late",
        "recommended",
        "a signal",
        "two",
        "lifetime",
        "crashed",
    ],
)
def test_the_time_of_leaving_is_that_of_the_notice(events: list[Event], seconds: float) -> None:
    state = live(POLICY, events)
    assert state.ends - state.since == seconds


def test_a_machine_that_stays_has_no_end() -> None:
    state = live(POLICY, [*IDLE_AGAIN, Tick(1302), Refused(1303)])
    assert state.ends == float("inf")


GIVEN = JobStarted(1303, "eval")


HOOK = JobStarted(1310, "eval of run 7", ref=("octo/train", 7, 1))


@pytest.mark.parametrize("hook", [[], [HOOK]])
def test_a_job_given_as_the_machine_leaves_is_known(hook: list[Event]) -> None:
    """The runner says so before its hook does."""
    state = live(POLICY, [*IDLE_AGAIN, Tick(1302), GIVEN, *hook])
    assert (state.phase, bool(state.job)) == (Phase.LEAVING, True)
    stays = advance(state, Refused(1311), POLICY)
    assert (stays.phase, stays.job) == (Phase.BUSY, state.job)
    taken = live(POLICY, [*IDLE_AGAIN, Interrupted(1302, "spot", 30), GIVEN, *hook])
    assert (taken.phase, taken.reason, taken.job) == (Phase.LEAVING, Reason.TAKEN, state.job)


@pytest.mark.parametrize(
    ("phase", "goes_on"),
    [(Phase.BUSY, True), (Phase.DONE, True), (Phase.IDLE, False), (Phase.STARTING, False)],
)
def test_an_agent_started_anew_goes_on_only_if_a_job_runs(phase: Phase, goes_on: bool) -> None:
    beat = State(phase, 50, 0, job="train" if goes_on else "")
    after = resumed(beat, 90)
    assert (after == beat) is goes_on
    assert goes_on or (after.phase, after.reason) == (Phase.LEAVING, Reason.AGENT_CRASHED)


def _beat(phase: Phase, birth: float = 0) -> State:
    return State(phase, birth, birth)


def test_a_beat_of_an_earlier_start_of_the_machine_is_none() -> None:
    """However long ago: a second start may take longer than the first had lasted."""
    assert (
        watchdog(_beat(Phase.BUSY), 80, 105, POLICY, disk_full=False, restarted=True)
        == "the machine was restarted"
    )


WATCHES: list[tuple[str, State | None, float, float, bool, str | None]] = [
    ("alive", _beat(Phase.BUSY), 1000, 1010, False, None),
    ("silent", _beat(Phase.BUSY), 1000, 1000 + SILENCE, False, "the agent is silent"),
    ("silent while starting", _beat(Phase.STARTING), 5, 5 + SILENCE, False, "the agent is silent"),
    (
        "leaving takes its time",
        State(Phase.LEAVING, 900, 0, reason=Reason.JOB_LIMIT),
        1000,
        1000 + SILENCE,
        False,
        None,
    ),
    (
        "but not for ever",
        State(Phase.LEAVING, 900, 0, reason=Reason.JOB_LIMIT),
        1000,
        1300 + SILENCE,
        False,
        "the agent is silent",
    ),
    (
        "silent because it cannot write",
        _beat(Phase.BUSY),
        1000,
        1000 + SILENCE,
        True,
        "the disk is full",
    ),
    ("a full disk alone is the agent's matter", _beat(Phase.BUSY), 1000, 1010, True, None),
    ("never online", _beat(Phase.STARTING), 655, 600 + MARGIN, False, "never online"),
    ("the agent never wrote anything", None, 10, 10 + 600 + MARGIN, False, "never online"),
    ("not yet", None, 10, 100, False, None),
    ("lifetime over", _beat(Phase.BUSY), 86460, 86400 + MARGIN, False, "maximum lifetime reached"),
    (
        "a job restarted the machine",
        _beat(Phase.BUSY),
        5000,
        20,
        False,
        "the machine was restarted",
    ),
]


@pytest.mark.parametrize(
    ("beat", "beat_at", "now", "full", "why"),
    [line[1:] for line in WATCHES],
    ids=[line[0] for line in WATCHES],
)
def test_the_watchdog(
    beat: State | None, beat_at: float, now: float, full: bool, why: str | None
) -> None:
    assert watchdog(beat, beat_at, now, POLICY, full) == why
