"""The loop around the monitor's pass: one every so many seconds, until it is stopped."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime

from pipelines.loop.contracts import PassReport, Source
from pipelines.loop.metrics import write_metrics
from pipelines.loop.monitoring import watch_once
from pipelines.loop.summaries import summarise_pass
from pipelines.settings import Settings
from tasteloop.errors import TasteloopError

log = logging.getLogger(__name__)


def watch_every(
    settings: Settings,
    seconds: float,
    say: Callable[[str], None],
    on_report: Callable[[PassReport], None] | None = None,
    source: Source | None = None,
) -> None:
    """A pass every so many seconds, a line each, until SIGTERM or Ctrl-C, which is a clean end.

    A pass that fails, or finds another monitor at work, says so, and the next one tries again. A
    retraining that is interrupted is carried on by the next monitor.
    """

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        while True:
            began = time.monotonic()
            now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
            try:
                report = watch_once(settings, source=source)
                write_metrics()
                say(f"{now}  {summarise_pass(report)}")
                if on_report:
                    on_report(report)
            except TasteloopError as error:
                say(f"{now}  {error}")
            except Exception as error:
                log.exception("a pass of the monitor broke")
                say(f"{now}  broke: {type(error).__name__}: {error}")
            time.sleep(max(1.0, seconds - (time.monotonic() - began)))
    except KeyboardInterrupt:
        say("stopped")
    finally:
        signal.signal(signal.SIGTERM, before)
