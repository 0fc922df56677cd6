"""Telling a human: one CloudEvent 1.0 as JSON over HTTP (structured mode), with a timeout and a few
tries.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime

from pipelines.settings import AlertSettings
from tasteloop.errors import TasteloopError

WEBHOOK = "TASTELOOP_WEBHOOK"  # the address where no setting has it
TYPE = "tasteloop.monitor"  # begins the event's type, such as tasteloop.monitor.alert-human
_BETWEEN = 0.5  # seconds after the first try; twice as long after each


class Unreached(TasteloopError):
    """The webhook did not take the event."""


def event(
    what: str, key: str, window: str, data: Mapping[str, object], now: int
) -> dict[str, object]:
    """The CloudEvent. Its id is the same for the same evidence, so a receiver tells repetitions.

    Args:
        now: µs since 1970 UTC.
    """
    return {
        "specversion": "1.0",
        "id": f"{key}.{what}",
        "source": "/tasteloop/monitor",
        "type": f"{TYPE}.{what}",
        "subject": window,
        "time": datetime.fromtimestamp(now / 1e6, UTC).isoformat(),
        "datacontenttype": "application/json",
        "data": data,
    }


def send(
    settings: AlertSettings, what: str, key: str, window: str, data: Mapping[str, object], now: int
) -> bool:
    """Post it to `alerts.webhook`, else to the address in TASTELOOP_WEBHOOK; False where there is
    neither.

    Raises:
        Unreached: no try was answered with 2xx. A 4xx other than 408 and 429 is not tried again.
    """
    address = settings.webhook or os.environ.get(WEBHOOK)
    if not address:
        return False
    import httpx

    body = json.dumps(event(what, key, window, data, now), ensure_ascii=False).encode()
    headers = {"content-type": "application/cloudevents+json; charset=utf-8"}
    failure = ""
    for attempt in range(settings.tries):
        if attempt:
            time.sleep(_BETWEEN * 2 ** (attempt - 1))
        try:
            response = httpx.post(
                address,
                content=body,
                headers=headers,
                timeout=settings.timeout,
                follow_redirects=False,
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            failure = type(error).__name__  # its text may hold the address, and that a secret
            continue
        if response.is_success:
            return True
        failure = f"HTTP {response.status_code}"
        if 400 <= response.status_code < 500 and response.status_code not in (408, 429):
            break
    raise Unreached(
        f"the alert webhook did not take the event: {failure}; check alerts.webhook or {WEBHOOK}, and who listens there"
    )
