"""A human is told, by a real server's account, or it is said that nobody was."""

from __future__ import annotations

import socket

import pytest

from pipelines import alerts
from pipelines.alerts import Unreached, send
from pipelines.settings import AlertSettings
from tests.support.webhooks import Webhook


def post(url: str | None, tries: int = 3) -> bool:
    settings = AlertSettings(webhook=url, timeout=2, tries=tries)
    return send(
        settings, "alert-human", "k" * 64, "0/1", {"reasons": ["Amélie"]}, 1_700_000_000_000_000
    )


def test_an_event_is_a_cloudevent() -> None:
    with Webhook([202]) as (url, got):
        assert post(url)
    ((headers, event),) = got
    assert headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert event == {
        "specversion": "1.0",
        "id": "k" * 64 + ".alert-human",
        "source": "/tasteloop/monitor",
        "type": "tasteloop.monitor.alert-human",
        "subject": "0/1",
        "time": "2023-11-14T22:13:20+00:00",
        "datacontenttype": "application/json",
        "data": {"reasons": ["Amélie"]},
    }


@pytest.mark.parametrize(
    ("codes", "tries", "asked", "reached"),
    [
        ([500, 503, 200], 3, 3, True),
        ([500, 503, 200], 2, 2, False),
        ([429, 204], 3, 2, True),
        ([404], 3, 1, False),  # asking again would not help
        ([302], 2, 2, False),  # nobody is followed
    ],
)
def test_what_may_pass_is_tried_again(
    codes: list[int], tries: int, asked: int, reached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "_BETWEEN", 0.01)
    with Webhook(codes) as (url, got):
        if reached:
            assert post(url, tries)
        else:
            with pytest.raises(
                Unreached, match=f"HTTP {codes[asked - 1] if asked <= len(codes) else codes[-1]}"
            ):
                post(url, tries)
    assert len(got) == asked and len({event["id"] for _, event in got}) == 1


def test_nobody_there_is_said_without_the_address() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/secret"
    with pytest.raises(Unreached, match="ConnectError") as told:
        post(url, tries=1)
    assert "secret" not in str(told.value)


def test_a_secret_of_the_environment_is_an_address_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with Webhook([202]) as (url, got):
        monkeypatch.setenv(alerts.WEBHOOK, url + "secret")
        assert post(None) and len(got) == 1


def test_without_a_webhook_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(alerts.WEBHOOK, raising=False)
    assert post(None) is False
