"""Why a machine leaves, and what that means for its job.

                                                                       job        may           exit
  reason         when                                                  restarted  refuse  secs  code
  IDLE           no job for idle-timeout since the last one            no         yes     45    0
  NO_JOB         no first job within first-job-timeout                 no         yes     45    0
  SINGLE         its only job is done and the runner has exited        no         no      80    0
  ASKED          SIGTERM or SIGINT on a machine that is not a cloud's  no         no      45    0
  TAKEN          the cloud gave notice; SIGTERM in a pod               yes        no      30    0
  SHUT_DOWN      the system shuts down without notice from the cloud   once       no      25    0
  STOPPED        systemd stops the agent's unit but not the system     once       no      90    0
  JOB_LIMIT      the forge's time limit of a job or run is near        yes        no      300   0
  LIFETIME       max-lifetime is near (busy) or over                   yes        no      300   0
  CRASHED        the runner exited unexpectedly, or lost its job       once       no      150   1
  HUNG           the runner does not listen again after its job        once       no      150   1
  DISK_FULL      the disk has been full for a minute                   no         no      45    1
  UNFIT          its GPU or Docker no longer works after a job         once       yes     45    1
  AGENT_CRASHED  the agent was restarted while no job ran              no         no      45    1
  VERSION        the forge refuses this version of the runner          once       no      150   3
  REMOVED        the runner was removed                                once       no      150   3
  START_FAILED   the machine cannot become a runner                    no         no      45    6
  NEVER_ONLINE   not online within start-timeout                       no         no      45    6

`job restarted`: `yes` is as often as the user allows. `once` is after the first attempt only: the
job itself or the system's maintenance may have caused this, and would cause it again. A signal that
systemd did not send is ignored, since any job with sudo can send one. `may refuse`: the machine
stays if the runner has just been given a job, or if a launch counts on it. `secs`: seconds to
leave, or those of the cloud's notice; a notice that comes later can only shorten them. GitHub
re-runs a run 20 to 60 s after its last job, which these seconds allow wherever nobody else sets
them. A second signal makes it leave at once. The steps of leaving are in `leave.py`.
"""

from __future__ import annotations

import enum

ONCE, ALWAYS = 1, 10**6
"""Attempts after which a run that ended for this reason is no longer restarted, if the user allows
as many."""


class Reason(enum.Enum):
    """Why a machine leaves: its text for users, then the columns of the table above."""

    IDLE = ("idle for too long", 0, True, 45, 0)
    NO_JOB = ("no job came", 0, True, 45, 0)
    SINGLE = ("its single job is done", 0, False, 80, 0)
    ASKED = ("asked to stop", 0, False, 45, 0)
    TAKEN = ("the machine is being taken away", ALWAYS, False, 30, 0)
    SHUT_DOWN = ("the machine was shut down without notice", ONCE, False, 25, 0)
    STOPPED = ("the system stopped the runner's service", ONCE, False, 90, 0)
    JOB_LIMIT = ("GitHub's time limit is near", ALWAYS, False, 300, 0)
    LIFETIME = ("maximum lifetime reached", ALWAYS, False, 300, 0)
    CRASHED = ("the runner exited unexpectedly", ONCE, False, 150, 1)
    HUNG = ("the runner hung after its job", ONCE, False, 150, 1)
    DISK_FULL = ("the disk is full", 0, False, 45, 1)
    UNFIT = ("the machine can run no more jobs", ONCE, True, 45, 1)
    AGENT_CRASHED = ("the agent crashed", 0, False, 45, 1)
    VERSION = ("GitHub refuses this runner version", ONCE, False, 150, 3)
    REMOVED = ("the runner was removed", ONCE, False, 150, 3)
    START_FAILED = ("start-up failed", 0, False, 45, 6)
    NEVER_ONLINE = ("not online in time", 0, False, 45, 6)

    def __init__(
        self, text: str, restarts: int, may_refuse: bool, seconds: int, exit_code: int
    ) -> None:
        self.text = text
        self.restarts = restarts
        self.may_refuse = may_refuse
        self.seconds = seconds
        self.exit_code = exit_code
