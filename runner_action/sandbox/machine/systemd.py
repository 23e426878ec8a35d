"""The part of systemd that our units use, for one machine in one folder, with real processes,
signals and exit codes.

Absolute paths in arguments and the working directory are below the machine's root. Executables are
those of this computer, except for python3, which is the machine's own.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from runner_action.sandbox.machine.image import tools
from runner_action.sandbox.machine.unit import Unit, command, seconds

PYTHON = "/usr/bin/python3"
ORDERLY, FORCED = "poweroff", ("poweroff-force", "poweroff-immediate")
"""An orderly power-off first stops the units, each within its time limit; a forced one kills all
processes and runs no ExecStop.
https://www.freedesktop.org/software/systemd/man/latest/systemd.unit.html#FailureAction="""
STOP_SECONDS = 90.0
"""systemd's DefaultTimeoutStopSec."""
PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Called in a child before exec: the kernel will kill it when its parent thread ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def descendants(pid: int) -> Iterator[int]:
    """All living descendants of a process, in whatever session."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if state != "Z":
                children.setdefault(int(parent), []).append(int(entry.name))
    todo = [pid]
    while todo:
        pids = children.get(todo.pop(), [])
        yield from pids
        todo += pids


@dataclass
class Service:
    """A running service: its current process, and systemd's job for it (`stop`, `restart` or
    "")."""

    unit: Unit
    process: subprocess.Popen[bytes] | None = None
    job: str = ""
    over: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    """Held while a main process starts: it sees the job, or the job sees it."""


class Systemd:
    """The units of one machine. `power_off(why, forced)` is called for a unit's action or by
    systemctl; `off` is set once the machine begins to shut down."""

    def __init__(
        self,
        root: Path,
        python: str,
        timer_factor: float,
        metadata: str,
        power_off: Callable[[str, bool], None],
    ) -> None:
        self._root = root
        self._python = python
        self._factor = timer_factor
        self.power_off = power_off
        self._services: dict[str, Service] = {}
        self._metadata = metadata
        self.off = threading.Event()
        self._starts: dict[str, tuple[float, int]] = {}
        """When each unit's count of starts began, and the count."""

    def _path(self, name: str) -> Path | None:
        """The unit's file in the first of systemd's folders that has it, even if masked."""
        for place in ("etc", "run", "usr/lib"):
            file = self._root / place / "systemd/system" / name
            if file.exists() or file.is_symlink():
                return file
        return None

    def unit(self, name: str) -> Unit | None:
        path = self._path(name)
        return Unit(path) if path and not path.is_symlink() else None

    def masked(self, name: str) -> bool:
        path = self._path(name)
        return bool(path and path.is_symlink())

    def mask(self, name: str, *, runtime: bool) -> None:
        """Masks a unit, even one that does not exist. Raises FileExistsError."""
        link = self._root / ("run" if runtime else "etc") / "systemd/system" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to("/dev/null")

    def enable(self, name: str) -> None:
        """Later boots of this disk start the unit."""
        unit = self.unit(name)
        for target in unit.names("WantedBy") if unit else ():
            link = self._root / "etc/systemd/system" / f"{target}.wants" / name
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(f"../{name}")

    def start_enabled(self) -> None:
        """As at a boot."""
        for link in self._root.glob("etc/systemd/system/*.wants/*"):
            self.start(link.name)

    def jobs(self) -> list[tuple[str, str]]:
        """The queued and running jobs: a unit's name, and `start`, `stop` or `restart`."""
        going_off = [("shutdown.target", "start")] if self.off.is_set() else []
        services = list(self._services.items())
        return going_off + [(name, service.job) for name, service in services if service.job]

    def facts(self, name: str) -> dict[str, str]:
        """Properties of a unit, as `systemctl show` names them."""
        service = self._services.get(name)
        unit = self.unit(name)
        process = service.process if service and not service.over.is_set() else None
        return {
            "MainPID": str(process.pid) if process and process.poll() is None else "0",
            "RefuseManualStop": unit.get("RefuseManualStop", "no") if unit else "no",
        }

    def processes(self, name: str, *, main: bool) -> list[int]:
        """The pids of a service: its main process, or all that are left of its control group."""
        service = self._services.get(name)
        if service is None or service.process is None or service.over.is_set():
            return []
        return [service.process.pid] if main else list(self._group(service))

    def start(self, name: str) -> None:
        """Starts a unit, and the units in its Wants= that are not running."""
        unit = self.unit(name)
        if unit is None:
            return
        for dependency in unit.names("Wants") - set(self._services):
            self.start(dependency)
        target = self._run_timer if name.endswith(".timer") else self._run_service
        threading.Thread(target=target, args=(unit,), daemon=True).start()

    def stop(self, name: str, job: str = "stop") -> bool:
        """Stops a service: SIGTERM to its main process, or ExecStop, and SIGKILL after
        TimeoutStopSec. Returns when it has stopped; False if it was not running."""
        service = self._services.get(name)
        if service is None or service.over.is_set():
            return False
        with service.lock:
            service.job = job
        unit = service.unit
        if unit.get("RemainAfterExit") == "yes":
            bound = unit.bound("TimeoutStopSec", STOP_SECONDS)
            codes = [self._exec(service, line, bound=bound) for line in unit.all("ExecStop")]
            result = "success" if all(map(unit.ends_well, codes)) else "signal"
            for line in unit.all("ExecStopPost"):
                self._exec(service, line, {"SERVICE_RESULT": result}, bound)
            service.over.set()
        elif service.process and service.process.poll() is None:
            service.process.send_signal(signal.SIGTERM)
            service.process.send_signal(signal.SIGCONT)  # systemd.kill(5)
            if not service.over.wait(unit.bound("TimeoutStopSec", STOP_SECONDS)):
                service.process.kill()
        service.over.wait()
        return True

    def stop_all(self) -> None:
        """Stops all services for a shutdown, at the same time, except that a service stops before
        those that it was started after."""
        self.off.set()
        services = dict(self._services)

        def later(name: str) -> None:
            for other, service in services.items():
                if name in service.unit.names("After") or other in services[name].unit.names(
                    "Before"
                ):
                    service.over.wait()
            self.stop(name)

        threads = [threading.Thread(target=later, args=(name,), daemon=True) for name in services]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _run_timer(self, unit: Unit) -> None:
        """Runs the timer's service: first after OnBootSec or OnActiveSec, then again and again, the
        given time after each run."""
        first = unit.get("OnBootSec") or unit.get("OnActiveSec") or "0"
        pause = unit.get("OnUnitInactiveSec") or unit.get("OnUnitActiveSec")
        time.sleep(seconds(first) * self._factor)
        while True:
            service = self.unit(unit.name.replace(".timer", ".service"))
            if service:
                self._run_service(service)
            if not pause:
                return
            time.sleep(seconds(pause) * self._factor)

    def _run_service(self, unit: Unit) -> None:
        service = self._services[unit.name] = Service(unit)
        code = 1  # a start that is refused is a failure, too
        while self._may_start(unit):
            bound = None
            if unit.get("Type") == "oneshot":
                bound = unit.bound("TimeoutStartSec", float("inf"))
            code = self._exec(service, unit.get("ExecStart"), bound=bound, main=True)
            if unit.get("RemainAfterExit") == "yes":
                return
            self._after(service, code)
            if not self._starts_again(service, code):
                break
            print(f"machine: {unit.name} is started again", flush=True)
        # These actions are also taken when the unit was stopped:
        # https://www.freedesktop.org/software/systemd/man/latest/systemd.unit.html#FailureAction=
        if unit.ends_well(code):
            self._act(unit, "SuccessAction", f"{unit.name} ended")
        elif not self.off.is_set():
            for name in unit.all("OnFailure"):
                self.start(name)
        service.job = ""
        service.over.set()

    def _after(self, service: Service, code: int) -> None:
        """What systemd does after the main process of a service has ended, even if it then starts
        it again."""
        unit = service.unit
        well = unit.ends_well(code)
        if unit.get("Type") != "oneshot" and unit.get("KillMode") != "process":
            self._kill_rest(service)
        ended = "signal" if code < 0 else "exit-code"
        results = {"SERVICE_RESULT": "success" if well else ended, "EXIT_STATUS": str(code)}
        for line in unit.all("ExecStopPost"):
            self._exec(service, line, results, unit.bound("TimeoutStopSec", STOP_SECONDS))
        if not well:
            self._act(unit, "FailureAction", f"{unit.name} ended with {code}")

    def _starts_again(self, service: Service, code: int) -> bool:
        """Whether the service is started again after this exit code."""
        unit = service.unit
        abnormal = code < 0 and not unit.ends_well(code)
        return abnormal and not service.job and unit.get("Restart") == "on-abnormal"

    def _may_start(self, unit: Unit) -> bool:
        """Counts a start, or refuses it and takes the unit's action."""
        most, span = unit.most_starts
        began, starts = self._starts.get(unit.name, (0.0, 0))
        if time.monotonic() - began > span * self._factor:
            began, starts = time.monotonic(), 0
        if starts >= most:
            self._act(unit, "StartLimitAction", f"{unit.name} was started {starts} times")
            return False
        self._starts[unit.name] = began, starts + 1
        return True

    def _act(self, unit: Unit, key: str, why: str) -> None:
        action = unit.get(key)
        if action in (ORDERLY, *FORCED) and not self.off.is_set():
            self.power_off(why, action in FORCED)

    def _group(self, service: Service) -> set[int]:
        """The control group of a service: all processes of the machine but those of the other
        services."""
        # Listed before the others: a process that starts meanwhile belongs to one of them.
        group = set(descendants(os.getpid()))
        for other in list(self._services.values()):
            process = other.process
            if other is not service and process and process.poll() is None:
                group -= {process.pid, *descendants(process.pid)}
        return group

    def _kill_rest(self, service: Service) -> None:
        """Kills what a service leaves behind."""
        for pid in self._group(service):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass

    def _exec(
        self,
        service: Service,
        line: str,
        extra: dict[str, str] | None = None,
        bound: float | None = None,
        main: bool = False,
    ) -> int:
        """Runs a command of a service and returns its exit code. Kills it after `bound` seconds. A
        `main` process does not start while its service is being stopped."""
        unit = service.unit
        program, *arguments = (word.replace(PYTHON, self._python) for word in command(line))
        argv = [program, *map(self.below, arguments)]
        folder = self.below(unit.get("WorkingDirectory", "/"))
        added = dict(shlex.split(entry)[0].split("=", 1) for entry in unit.all("Environment"))
        with service.lock:
            if main and service.job:
                return -signal.SIGTERM
            process = service.process = subprocess.Popen(
                argv,
                cwd=folder,
                env={**self.environment(), **added, **(extra or {})},
                preexec_fn=die_with_parent,
            )
        try:
            return process.wait(bound)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def below(self, word: str) -> str:
        return str(self._root) + word if word.startswith("/") else word

    def environment(self) -> dict[str, str]:
        """The environment of all services, without the parent's variables. Jobs may run as root,
        as the sandbox creates no users."""
        own = (f"{self._root}/usr/local/bin", f"{self._root}/usr/bin")
        path = ":".join([*own, str(tools(self._root.parents[1]))])
        bundle = self._root / "etc/ssl/certs/ca-certificates.crt"
        trusted = {"SSL_CERT_FILE": str(bundle)} if bundle.exists() else {}
        return {
            "PATH": path,
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "RUNNER_ALLOW_RUNASROOT": "1",
            "CML_RUNNER_METADATA": self._metadata,
            **trusted,
        }
