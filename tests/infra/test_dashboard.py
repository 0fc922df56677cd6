"""Alerts and dashboard ask Prometheus for metrics that the code really exports, with labels that
they really have.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY, CollectorRegistry

from tests.support.cluster.paths import ROOT

MONITORING = ROOT / "infra/k8s/components/monitoring"
DASHBOARD = json.loads((MONITORING / "dashboard.json").read_text())
TARGET = {"namespace", "pod"}  # labels that Prometheus adds for the PodMonitor
# of a query: what it groups by, and what it filters by
LABELS = re.compile(r"\bby \(([^)]*)\)|\{([^}]*)\}")


def rules() -> list[dict[str, Any]]:
    [rule] = [
        d
        for d in yaml.safe_load_all((MONITORING / "prometheus.yaml").read_text())
        if d["kind"] == "PrometheusRule"
    ]
    return rule["spec"]["groups"]


def queries() -> dict[str, str]:
    """Every expression, by the alert or panel that asks it."""
    alerts = {rule["alert"]: rule["expr"] for group in rules() for rule in group["rules"]}
    panels = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", [])
    }
    return alerts | panels


def describe(registry: CollectorRegistry) -> dict[str, set[str]]:
    """The series of a registry by name, with their labels."""
    series: dict[str, set[str]] = {}
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
    for collector in list(registry._collector_to_names):
        if not hasattr(collector, "_labelnames"):  # of the process, which no query asks for
            continue
        for suffix in suffixes.get(collector._type, ("",)):
            own = {"le"} if suffix == "_bucket" else set()
            series[collector._name + suffix] = own | set(collector._labelnames)
    return series


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Every series that servers and the monitor export, with its labels."""
    import serving.http.server
    import serving.journal.writer
    import serving.release.champion_watch
    import serving.release.following
    import serving.release.loading  # noqa: F401
    from pipelines.loop import metrics
    from validation.monitor.decision import Evidence

    monitor = CollectorRegistry()
    metrics._gauge(monitor, "last_pass_timestamp_seconds", "as write_metrics() makes it")
    metrics._add_decisions(monitor, [])
    metrics._add_journal(monitor, tmp_path_factory.mktemp("journal"))
    metrics._add_window(monitor, Evidence.model_construct(end=0, findings=(), problems=()))
    return describe(REGISTRY) | describe(monitor)


def test_every_query_asks_for_metrics_that_are_exported(series: dict[str, set[str]]) -> None:
    asked = queries()
    assert len(asked) >= 20

    for title, query in asked.items():
        names = set(re.findall(r"\btasteloop_\w+", query))
        assert names, title
        assert names <= series.keys(), (title, names - series.keys())


def test_every_query_groups_and_filters_by_labels_that_the_metric_has(
    series: dict[str, set[str]],
) -> None:
    for title, query in queries().items():
        names = set(re.findall(r"\btasteloop_\w+", query))
        known = set.intersection(*(series[name] for name in names)) | TARGET
        for grouped, filtered in LABELS.findall(query):
            wanted = {label.strip() for label in grouped.split(",") if label.strip()}
            wanted |= set(re.findall(r"(\w+)\s*=", filtered))
            assert wanted <= known, (title, wanted - known)
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            grouped = {
                label.strip()
                for labels, _ in LABELS.findall(target["expr"])
                for label in labels.split(",")
            }
            assert shown <= grouped, (panel["title"], shown - grouped)


def test_a_metric_that_does_not_exist_is_seen(series: dict[str, set[str]]) -> None:
    assert "tasteloop_requests_total" in series and "tasteloop_requests" not in series
    assert series["tasteloop_request_seconds_bucket"] == {"protocol", "model", "le"}
    assert series["tasteloop_monitor_decision"] == {"outcome"}
    assert series["tasteloop_monitor_quality"] == {"measure", "bound"}


def test_alerts_hold_in_every_namespace() -> None:
    for group in rules():
        for rule in group["rules"]:
            assert 'namespace="' not in rule["expr"] and "by (namespace" in rule["expr"]
            assert "$labels.namespace" in rule["annotations"]["summary"]


def test_panels_neither_overlap_nor_leave_the_page() -> None:
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        own = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not own & cells, panel["title"]
        cells |= own
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


ALERT_TESTS = {
    "evaluation_interval": "1m",
    "tests": [
        {
            "interval": "1m",
            "input_series": [
                # a: its pods go after ten minutes; b: is well; c: one answer in five is an error
                {
                    "series": 'tasteloop_ready{namespace="a",pod="1"}',
                    "values": "1x10 _x60",
                },
                {"series": 'tasteloop_ready{namespace="b",pod="1"}', "values": "1x80"},
                {"series": 'tasteloop_ready{namespace="d",pod="1"}', "values": "0x80"},
                {
                    "series": 'tasteloop_requests_total{namespace="c",code="200"}',
                    "values": "0+80x80",
                },
                {
                    "series": 'tasteloop_requests_total{namespace="c",code="500"}',
                    "values": "0+20x80",
                },
                {
                    "series": 'tasteloop_requests_total{namespace="b",code="200"}',
                    "values": "0+80x80",
                },
            ],
            "alert_rule_test": [
                {
                    "eval_time": "60m",
                    "alertname": "TasteloopNobodyAnswers",
                    "exp_alerts": [
                        {
                            "exp_labels": {"severity": "page", "namespace": name},
                            "exp_annotations": {"summary": f"No serving pod is ready in {name}."},
                        }
                        for name in ("a", "d")
                    ],
                },
                {
                    "eval_time": "60m",
                    "alertname": "TasteloopErrors",
                    "exp_alerts": [
                        {
                            "exp_labels": {"severity": "page", "namespace": "c"},
                            "exp_annotations": {
                                "summary": "More than one request in a hundred ends in an error of "
                                "the server in c."
                            },
                        }
                    ],
                },
            ],
        },
        {
            "interval": "1m",
            "input_series": [],
            "alert_rule_test": [
                {
                    "eval_time": "10m",
                    "alertname": "TasteloopNobodyAnswers",
                    "exp_alerts": [
                        {
                            "exp_labels": {"severity": "page"},
                            "exp_annotations": {"summary": "No serving pod is ready in ."},
                        }
                    ],
                }
            ],
        },
    ],
}


def test_prometheus_itself_takes_the_rules_and_they_go_off_when_they_should(
    tmp_path: Path,
) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool (of Prometheus) on PATH")
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": rules()}))
    panels = [
        {"record": f"panel:{n}", "expr": re.sub(r"\$__rate_interval", "5m", query)}
        for n, query in enumerate(queries().values())
    ]
    groups = {"groups": [{"name": "panels", "rules": panels}]}
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump(groups))
    tests = {"rule_files": ["rules.yaml"], **ALERT_TESTS}
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump(tests))

    for arguments in (
        ["check", "rules", "rules.yaml", "panels.yaml"],
        ["test", "rules", "tests.yaml"],
    ):
        run = subprocess.run(
            [promtool, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stdout + run.stderr
