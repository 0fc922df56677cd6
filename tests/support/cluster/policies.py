"""The objects in infra/k8s as they are written, its network policies, and the check of its pods."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import yaml

from tests.support.cluster.paths import ROOT

DOCUMENTS = [
    d
    for p in sorted((ROOT / "infra" / "k8s").rglob("*.yaml"))
    for d in yaml.safe_load_all(p.read_text())
    if d and "metadata" in d
]
POLICIES = [
    d["spec"] | {"name": d["metadata"]["name"]} for d in DOCUMENTS if d["kind"] == "NetworkPolicy"
]


def load_check_pods() -> Any:
    spec = importlib.util.spec_from_file_location("check_pods", ROOT / "infra/k8s/check_pods.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CHECK = load_check_pods()


def selects(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    wanted, expressions = selector.get("matchLabels", {}), selector.get("matchExpressions", [])
    assert wanted or expressions, "a selector of ours names its pods"
    for expression in expressions:
        value = labels.get(expression["key"])
        if expression["operator"] == "In":
            is_met = value in expression["values"]
        else:
            assert expression["operator"] == "Exists", expression
            is_met = value is not None
        if not is_met:
            return False
    return all(labels.get(key) == value for key, value in wanted.items())
