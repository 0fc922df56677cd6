"""Take over an InferenceService that an earlier release of tasteloop made.

It kept its state in annotations, and named predictors by version. What runs is taken as it is: a
predictor `v1` is a slot like any other until a canary is promoted, and its annotations stay until
its pods change anyway.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from serving.cluster.manifest import MODE, build_pod, check_settings, dump_settings
from serving.cluster.state import Release, Slot, State

RELEASES = "tasteloop/releases"
SETTINGS = "tasteloop/settings"
_OF_THE_SCALING = (
    "name",
    "minReplicas",
    "maxReplicas",
    "scaleMetric",
    "scaleTarget",
    "canaryTrafficPercent",
)


def adopt_service(service: Mapping[str, Any]) -> State | None:
    """The state that the annotations of an InferenceService tell; None where they tell none."""
    metadata, spec = service["metadata"], service["spec"]
    annotations = metadata.get("annotations", {})
    if RELEASES not in annotations:
        return None
    known = json.loads(annotations[RELEASES])
    settings = check_settings(
        metadata["name"],
        metadata["namespace"],
        **{**json.loads(annotations[SETTINGS]), "mode": annotations[MODE]},
    )
    predictor = spec["predictor"]

    def make_slot(role: str, running: Mapping[str, Any] | None) -> Slot | None:
        if not known.get(role):
            return None
        release = Release(**known[role])
        if running is None:
            return Slot(predictor["name"], release, build_pod(settings, release))
        pod = {key: value for key, value in running.items() if key not in _OF_THE_SCALING}
        return Slot(running["name"], release, pod)

    canaries = spec.get("canary", [])
    stable = make_slot("stable", predictor if settings.mode == "Standard" else None)
    assert stable is not None  # a release that is stable was always written
    tried = make_slot("tried", canaries[0]["predictor"] if canaries else None)
    percent = known.get("percent", 0)
    return State(
        dump_settings(settings),
        stable,
        tried,
        percent,
        max(math.ceil(settings.replicas * percent / 100), 1) if tried else 0,
        settings.replicas if tried else 0,
        before=make_slot("before", None),
        annotations={key: annotations[key] for key in (RELEASES, SETTINGS)},
    )
