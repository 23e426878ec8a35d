"""The notices of the three clouds, by HTTP from the fake metadata services: none, then one, and
what a cloud wants besides."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from runner_action.agent import aws, azure, gcp
from runner_action.agent.metadata import CLOUDS, Metadata, Notice, Notices
from runner_action.sandbox.machine.metadata import FakeMetadata

MODULES = {"aws": aws, "azure": azure, "gcp": gcp}
GIVEN = {"aws": 120, "azure": 30, "gcp": 30}
"""Seconds of a notice. EC2's page recommends a look every five seconds."""


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeMetadata]:
    # A proxy that nobody answers at: the metadata service is never asked through one.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    fake = FakeMetadata()
    yield fake
    fake.close()


def notices(cloud: str, service: FakeMetadata) -> Notices:
    created: Notices = MODULES[cloud].Notices(service.url("m1"))
    return created


def test_every_cloud_that_gives_notice_has_its_module() -> None:
    assert set(MODULES) == set(CLOUDS)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_no_notice_then_one(cloud: str, service: FakeMetadata) -> None:
    poller = notices(cloud, service)
    assert poller.look() is None
    service.notice("m1", 30)  # between two questions
    began = time.monotonic()
    notice = poller.look()
    assert notice is not None
    assert notice.seconds == pytest.approx(30, abs=2)
    took = poller.every + time.monotonic() - began
    assert took < GIVEN[cloud] / 10, "a notice must be seen in time"


def test_a_notice_given_before_the_first_look(service: FakeMetadata) -> None:
    service.notice("m1", 30)
    for cloud in CLOUDS:
        assert notices(cloud, service).look() is not None


def test_google_answers_as_soon_as_it_changes(service: FakeMetadata) -> None:
    poller = notices("gcp", service)
    assert poller.look() is None
    threading.Timer(0.5, service.notice, ("m1", 30)).start()
    began = time.monotonic()
    assert poller.look() == Notice("preempted", 30.0)
    assert 0.3 < time.monotonic() - began < 3


def test_azure_is_told_when_all_is_done(service: FakeMetadata) -> None:
    poller = notices("azure", service)
    poller.done()
    assert service.fate("m1").acknowledged == []
    service.notice("m1", 30)
    poller.look()
    poller.done()
    assert service.fate("m1").acknowledged == ["event-m1"]


def test_amazon_recommends_before_it_takes(service: FakeMetadata) -> None:
    service.fate("m1").rebalance = True
    poller = notices("aws", service)
    assert poller.look() == Notice("rebalance recommendation", None)
    service.notice("m1", 120)
    notice = poller.look()
    assert notice is not None
    assert notice.why.startswith("spot terminate")


def test_a_token_that_is_no_longer_good_is_renewed(service: FakeMetadata) -> None:
    poller = notices("aws", service)
    poller.look()
    service.tokens.clear()
    service.notice("m1", 120)
    with pytest.raises(OSError, match="HTTP 401"):
        poller.look()
    assert poller.look() is not None


PAGE = b"""<?xml version="1.0" encoding="iso-8859-1"?>
<html><head><title>503 - Service Unavailable</title></head></html>
"""
"""As EC2's error pages, of several lines."""


class Flaky:
    """EC2's metadata service, whose first answers to `method` are these."""

    def __init__(self, method: str, *answers: tuple[int, bytes]) -> None:
        left: dict[str, list[tuple[int, bytes]]] = {"PUT": [], "GET": [], method: list(answers)}
        self.tokens: list[str] = []
        flaky = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                self.answer("PUT", 200, b"good-token")

            def do_GET(self) -> None:
                token = self.headers.get("X-aws-ec2-metadata-token", "")
                flaky.tokens.append(token)
                good = token == "good-token"
                self.answer("GET", 200 if good else 401, flaky.notice if good else b"")

            def answer(self, method: str, status: int, body: bytes) -> None:
                status, body = left[method].pop(0) if left[method] else (status, body)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    notice = b'{"action": "terminate", "time": "2030-01-01T00:00:00Z"}'


@pytest.mark.parametrize("method", ["PUT", "GET"])
@pytest.mark.parametrize(
    "answer",
    [(503, PAGE), (503, b"Service Unavailable"), (500, b""), (403, b""), (200, PAGE)],
    ids=str,
)
def test_one_bad_answer_costs_one_look(method: str, answer: tuple[int, bytes]) -> None:
    """The page of an error is never the token, nor is anything else that is not one."""
    flaky = Flaky(method, answer)
    poller = aws.Notices(flaky.url)
    try:
        with pytest.raises((OSError, ValueError)):
            poller.look()
        notice = poller.look()
    finally:
        flaky.server.shutdown()
        flaky.server.server_close()
    assert notice is not None
    assert set(flaky.tokens) == {"good-token"}


def test_azure_s_refusal_of_an_acknowledgement_is_told(service: FakeMetadata) -> None:
    poller = notices("azure", service)
    service.notice("m1", 30)
    poller.look()
    service.close()
    with pytest.raises(OSError, match=r"refused|reset"):
        poller.done()


def test_a_token_is_good_for_its_time_and_on_its_machine(service: FakeMetadata) -> None:
    """Of the fake: as
    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-v2-how-it-works.html
    has it."""
    first, second = Metadata(service.url("m1")), Metadata(service.url("m2"))
    ttl, path = "X-aws-ec2-metadata-token-ttl-seconds", "/latest/api/token"
    for wrong in ({}, {ttl: "0"}, {ttl: "21601"}, {ttl: "-1"}, {ttl: "60s"}):
        assert first.ask("PUT", path, wrong)[0] == 400
    assert first.ask("PUT", path, {ttl: "21600", "X-Forwarded-For": "10.0.0.1"})[0] == 403
    status, token = first.ask("PUT", path, {ttl: "1"})
    assert status == 200
    headers = {"X-aws-ec2-metadata-token": token}
    assert first.ask("GET", "/latest/meta-data/spot/instance-action", headers)[0] == 404
    assert second.ask("GET", "/latest/meta-data/spot/instance-action", headers)[0] == 401
    time.sleep(1)
    assert first.ask("GET", "/latest/meta-data/spot/instance-action", headers)[0] == 401


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/computeMetadata/v1/instance/preempted", {}, 403),
        (
            "/computeMetadata/v1/instance/preempted",
            {"Metadata-Flavor": "Google", "X-Forwarded-For": "10.0.0.1"},
            403,
        ),
        ("/metadata/scheduledevents?api-version=2020-07-01", {}, 400),
        (
            "/metadata/scheduledevents?api-version=2020-07-01",
            {"Metadata": "true", "X-Forwarded-For": "10.0.0.1"},
            400,
        ),
        ("/metadata/scheduledevents", {"Metadata": "true"}, 400),
        ("/metadata/scheduledevents?api-version=2018-02-01", {"Metadata": "true"}, 400),
        ("/metadata/identity/oauth2/token?api-version=2018-02-01", {"Metadata": "true"}, 400),
    ],
)
def test_a_service_is_not_asked_by_chance(
    path: str, headers: dict[str, str], status: int, service: FakeMetadata
) -> None:
    assert Metadata(service.url("m1")).ask("GET", path, headers)[0] == status


def test_a_service_that_is_not_there_is_an_error_of_the_system() -> None:
    with pytest.raises(OSError, match="refused"):
        Metadata("http://127.0.0.1:9").ask("GET", "/", {})


HOURS = (-24.0, -7, -2, -0.1, 0, 0.1, 2, 7, 24)


@pytest.mark.parametrize("wrong", HOURS)
@pytest.mark.parametrize("left", [5, 60, 118])
def test_a_clock_that_is_wrong_gives_no_more_time_than_the_cloud(
    wrong: float, left: float, service: FakeMetadata
) -> None:
    """EC2 names the time of the end; the others say how long it takes."""
    service.notice("m1", left - wrong * 3600)
    notice = aws.Notices(service.url("m1")).look()
    assert notice
    assert notice.seconds is not None
    assert 0 < notice.seconds <= aws.MOST
    if not wrong:
        assert notice.seconds == pytest.approx(left, abs=2)
