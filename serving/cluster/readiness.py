"""What KServe's controller has still to do for an InferenceService, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.cluster.manifest import MODE
from tasteloop.errors import TasteloopError


def unready(found: Mapping[str, Any]) -> str | None:
    """What the controller has still to do for an object, in words; None where it is done.

    Raises:
        TasteloopError: it cannot be done.
    """
    status = found.get("status") or {}
    model = status.get("modelStatus") or {}
    if model.get("transitionStatus") in ("BlockedByFailedLoad", "InvalidSpec"):
        why = model.get("lastFailureInfo") or {}
        raise TasteloopError(
            f"the model cannot be loaded: {why.get('reason', '')} {why.get('message', '')}".strip()
        )
    if status.get("observedGeneration", 0) < found["metadata"].get("generation", 1):
        return "KServe has not seen the change yet"
    annotations = found["metadata"].get("annotations", {})
    mode = status.get("deploymentMode")
    if mode and mode != annotations.get(MODE):
        raise TasteloopError(
            f"KServe runs it in mode {mode}, not {annotations.get(MODE)}: it is not offered there"
        )
    conditions = {c["type"]: c for c in status.get("conditions", [])}
    for kind in ("Ready", *(["CanaryReady"] if "CanaryReady" in conditions else [])):
        condition = conditions.get(kind, {"status": "Unknown"})
        if condition["status"] != "True":
            why = condition.get("message") or condition.get("reason") or "no reason given"
            return f"{kind} is {condition['status']}: {why}"
    return _split(found, status)


def _split(found: Mapping[str, Any], status: Mapping[str, Any]) -> str | None:
    """Whether the requests are shared out as the object says."""
    for canary in found["spec"].get("canary", []):
        name, percent = canary["predictor"]["name"], canary["trafficPercent"]
        seen = next((c for c in status.get("canaryStatuses", []) if c["name"] == name), None)
        if seen is None or not seen["ready"]:
            return f"canary {name} is not ready"
        if seen["trafficPercent"] != percent:
            return f"canary {name} gets {seen['trafficPercent']} percent, not {percent}"
    percent = found["spec"]["predictor"].get("canaryTrafficPercent")
    if percent is not None:
        traffic = (status.get("components") or {}).get("predictor", {}).get("traffic", [])
        latest = sum(t.get("percent", 0) for t in traffic if t.get("latestRevision"))
        if latest != percent:
            return f"the newest revision gets {latest} percent, not {percent}"
    return None
