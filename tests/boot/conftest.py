"""Boots need QEMU and root; where these cannot be had, they are skipped, loudly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from runner_action.model import ForgeName, ProviderName
from tests.boot.image import RELEASES, image
from tests.boot.lab import Lab, prepare, serve_archive, uptimes
from tests.e2e.engine import Missing
from tests.sandbox.conftest import USUAL


@pytest.fixture(scope="session", autouse=True)
def _network(request: pytest.FixtureRequest) -> None:
    try:
        prepare(sorted({release for item in request.session.items for release in releases(item)}))
    except Missing as missing:
        pytest.skip(f"SKIPPED LOUDLY: no machine can be booted here; missing: {missing}")


@pytest.fixture(autouse=True)
def _packages(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    """No machine installs any, unless a test has the marker `archive`."""
    if request.node.get_closest_marker("archive") is None:
        monkeypatch.setitem(USUAL, "CML_RUNNER_DOCKER", "none")
        yield
        return
    with serve_archive():
        yield


@pytest.fixture
def release(request: pytest.FixtureRequest) -> str:
    return str(getattr(request, "param", RELEASES[0]))


@pytest.fixture
def forge(request: pytest.FixtureRequest) -> str:
    return str(getattr(request, "param", ForgeName.GITHUB))


@pytest.fixture
def cloud(request: pytest.FixtureRequest) -> str:
    return str(getattr(request, "param", ProviderName.AWS))


def releases(item: pytest.Item) -> set[str]:
    """Which images a test boots."""
    given = getattr(item, "callspec", None)
    return {given.params["release"]} if given and "release" in given.params else {RELEASES[0]}


@pytest.fixture
def lab(
    release: str, forge: str, cloud: str, record_property: Callable[[str, object], None]
) -> Iterator[Lab]:
    try:
        root = image(release)
    except Missing as missing:
        pytest.skip(f"SKIPPED LOUDLY: no image of {release}; missing: {missing}")
    opened = Lab(root).open(forge, cloud)
    yield opened
    record_property("uptimes", uptimes(opened.console()))
    opened.close()


COLUMNS = ("init", "agent", "online", "Power down")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line a story: seconds from power-on, by the kernel's own count."""
    reports = [
        report
        for kind in terminalreporter.stats.values()
        for report in kind
        if isinstance(report, pytest.TestReport)
    ]
    told: dict[str, Any] = {
        report.nodeid: dict(report.user_properties).get("uptimes", {})
        for report in reports
        if report.when == "teardown"
    }
    if not any(told.values()):
        return
    terminalreporter.section("seconds after power-on, on an emulated processor")
    width = max(len(node.partition("::")[2]) for node in told)
    terminalreporter.write_line(
        f"{'story':{width}} " + " ".join(f"{name:>10}" for name in COLUMNS) + "   result"
    )
    for node, times in sorted(told.items()):
        outcomes = {report.outcome for report in reports if report.nodeid == node}
        result = next(word for word in ("failed", "skipped", "passed") if word in outcomes)
        cells = " ".join(
            f"{format(times[name], '.1f') if name in times else '':>10}" for name in COLUMNS
        )
        terminalreporter.write_line(f"{node.partition('::')[2]:{width}} {cells}   {result}")
