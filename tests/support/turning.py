"""Behaviour that changes its taste, and the settings with which a monitor sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from tasteloop.behaviour.events import EVENTS_SCHEMA
from tests.support.homes import LABELS, START, settings

HOUR = 3600
WINDOW = 240  # hours: forty users


def chosen(folder: Path, **more: Any) -> list[str]:
    """The options of a run and its monitor on a MovieLens folder with short windows."""
    return settings(
        ingest__behaviour=str(folder),
        ingest__reviews=None,
        gate__floors={"interests.micro_f1": 0.01},
        gate__beats=[],
        watch__windows={"hours": WINDOW, "horizon_hours": 1, "lateness_hours": 1},
        watch__drift={"draws": 199, "texts": 50},
        decision__minimum=20,
        decision__alpha=0.05,
        decision__windows=2,
        retraining__recent_days=15,
        **{"retraining__forgetting": 1.0, **more},
    )


def turned(users: int = 80) -> pl.DataFrame:
    """As many users again after the data, and all want horror."""
    rows = []
    for u in range(users):
        for n in range(30):
            item = (4 * (u + n) + LABELS.index("Horror")) % 40 if n % 3 else (u + n) % 40
            at = START + 6 * HOUR * (80 + u) + 600 * n
            rows.append(
                (f"{u:032x}", str(item), "rate", at * 1_000_000, 1.0 if n % 3 else 0.25, None)
            )
    last = START + 6 * HOUR * (80 + users) + WINDOW * HOUR  # closes the last window
    rows.append(("f" * 32, "1", "rate", last * 1_000_000, 1.0, None))
    return pl.DataFrame(rows, schema=dict(EVENTS_SCHEMA.to_polars()), orient="row")
