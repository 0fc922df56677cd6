"""What KServe's controller has still to do for an InferenceService, in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.cluster.api import Condition, read_conditions
from serving.cluster.manifest import MODE
from tasteloop.errors import TasteloopError


def describe_pending(service: Mapping[str, Any]) -> str | None:
    """What the controller has still to do for an InferenceService, in words; None where it has done
    everything.

    Raises:
        TasteloopError: it cannot be done.
    """
    metadata = service["metadata"]
    status = service.get("status") or {}

    # 1. what no waiting will change
    model = status.get("modelStatus") or {}
    if model.get("transitionStatus") in ("BlockedByFailedLoad", "InvalidSpec"):
        failure = model.get("lastFailureInfo") or {}
        reason, message = failure.get("reason", ""), failure.get("message", "")
        raise TasteloopError(f"the model cannot be loaded: {reason} {message}".strip())
    if status.get("observedGeneration", 0) < metadata.get("generation", 1):
        return "KServe has not seen the change yet"
    requested_mode = metadata.get("annotations", {}).get(MODE)
    mode = status.get("deploymentMode")
    if mode and mode != requested_mode:
        raise TasteloopError(
            f"KServe runs it in mode {mode}, not {requested_mode}: it is not offered there"
        )

    # 2. pods
    conditions = {condition.type: condition for condition in read_conditions(service)}
    for kind in ("Ready", "CanaryReady"):
        if kind == "CanaryReady" and kind not in conditions:
            continue
        condition = conditions.get(kind, Condition(type=kind))
        if condition.status != "True":
            reason = condition.message or condition.reason or "no reason given"
            return f"{kind} is {condition.status}: {reason}"

    # 3. the share of the requests
    return _describe_wrong_shares(service["spec"], status)


def _describe_wrong_shares(spec: Mapping[str, Any], status: Mapping[str, Any]) -> str | None:
    """Which canary does not get its share of the requests; None where each does."""
    statuses = {canary["name"]: canary for canary in status.get("canaryStatuses", [])}
    for canary in spec.get("canary", []):
        name, percent = canary["predictor"]["name"], canary["trafficPercent"]
        reported = statuses.get(name)
        if reported is None or not reported["ready"]:
            return f"canary {name} is not ready"
        if reported["trafficPercent"] != percent:
            return f"canary {name} gets {reported['trafficPercent']} percent, not {percent}"

    percent = spec["predictor"].get("canaryTrafficPercent")
    if percent is not None:
        predictor = (status.get("components") or {}).get("predictor", {})
        latest = 0
        for target in predictor.get("traffic", []):
            if target.get("latestRevision"):
                latest += target.get("percent", 0)
        if latest != percent:
            return f"the newest revision gets {latest} percent, not {percent}"
    return None
