"""A step more costs its function, its shell, its declaration with the graph's line, its settings.

The toy step audits a data set: it refuses one with few events. No `from __future__ import
annotations` here, because kfp reads the annotations of a shell and of a graph's parameters.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import polars as pl
import pytest
import yaml
from kfp import dsl
from pydantic import BaseModel

from components.image import IMAGE
from pipelines import settings as pipeline_settings
from pipelines.graphs import training
from pipelines.graphs.compile import compile_to
from pipelines.graphs.step import OUTPUT, Refusal, Step
from pipelines.local import runner
from pipelines.local import step as single_step
from pipelines.local.facts import RunEnd
from pipelines.settings import Settings, load_settings

# 1. The function, in the room of its subject.


class AuditSettings(BaseModel, frozen=True, extra="forbid"):
    fewest_events: int = 10


@dataclass(frozen=True)
class AuditResult:
    passed: bool
    reason: str


def audit_events(dataset: Path, settings: AuditSettings) -> AuditResult:
    count = pl.read_parquet(dataset / "events.parquet").height
    return AuditResult(count >= settings.fewest_events, f"{count} events")


# 2. The shell, which would be components/audit.py.


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def audit(
    dataset: dsl.Input[dsl.Dataset], settings: str, report: dsl.Output[dsl.Artifact]
) -> NamedTuple("Audit", [("Output", bool), ("reason", str)]):
    """Check that a data set has enough events."""
    from components.step import step

    with step("audit", report=report.path) as outputs:
        from pathlib import Path

        result = audit_events(Path(dataset.path), AuditSettings.model_validate_json(settings))
        Path(report.path).write_text(result.reason)
        outputs.update(passed=result.passed, reason=result.reason)
    return result.passed, result.reason


# 3. The declaration and the graph's line, which would be in pipelines/graphs/training.py.

AUDIT = Step(
    audit,
    section="audit",
    size="heavy",
    caching="always",
    answer="passed",
    refusal=Refusal("audit failed", exit_code=4),
)


def graph_with_audit(settings: Settings):
    @dsl.pipeline(name="tasteloop-audited")
    def graph():
        ingested = training.INGEST.task(settings)
        audited = AUDIT.task(settings, dataset=ingested.outputs["dataset"])
        with dsl.If(audited.outputs[OUTPUT] == True, name="audit passed"):  # noqa: E712
            training.PREPARE.task(settings, dataset=ingested.outputs["dataset"])

    return graph


# 4. The settings, which would be a field in pipelines/settings.py.


class SettingsWithAudit(Settings, frozen=True):
    audit: AuditSettings = AuditSettings()


@pytest.fixture
def audited(monkeypatch):
    """The pipeline with the toy step."""
    steps = (*training.STEPS[:1], AUDIT, *training.STEPS[1:])
    monkeypatch.setattr(pipeline_settings, "Settings", SettingsWithAudit)
    monkeypatch.setattr(training, "STEPS", steps)
    monkeypatch.setattr(single_step, "STEPS", steps)


@pytest.fixture
def dataset(tmp_path):
    directory = tmp_path / "dataset"
    directory.mkdir()
    pl.DataFrame({"user": ["a", "b", "c"]}).write_parquet(directory / "events.parquet")
    return directory


def test_the_graph_gives_it_its_settings_its_pod_and_its_cache(audited, tmp_path):
    settings = load_settings("cluster", ["audit.fewest_events=7", "cluster.heavy.memory=64Gi"])

    compile_to(settings, tmp_path / "graph.yaml", graph_with_audit)

    graph = next(yaml.safe_load_all((tmp_path / "graph.yaml").read_text()))
    task = graph["root"]["dag"]["tasks"]["audit"]
    container = graph["deploymentSpec"]["executors"]["exec-audit"]["container"]
    section = task["inputs"]["parameters"]["settings"]["runtimeValue"]["constant"]
    assert json.loads(section) == {"fewest_events": 7}
    assert container["resources"]["resourceMemoryLimit"] == "64Gi"
    assert task["cachingOptions"]["enableCache"]
    condition = graph["root"]["dag"]["tasks"]["condition-1"]["triggerPolicy"]["condition"]
    assert "pipelinechannel--audit-Output" in condition


@pytest.mark.parametrize(("fewest", "exit_code"), [(2, 0), (7, 4)])
def test_it_runs_alone_with_its_options_and_its_exit_code(
    audited, dataset, tmp_path, fewest, exit_code
):
    printed = []
    arguments = ["--dataset", str(dataset), "--out", str(tmp_path / "out")]
    arguments += ["--set", f"audit.fewest_events={fewest}", "--json"]

    code = single_step.main("audit", arguments, lambda results, as_json: printed.append(results))

    report = tmp_path / "out" / "report"
    assert code == exit_code
    assert printed == [{"report": str(report), "passed": code == 0, "reason": "3 events"}]
    assert report.read_text() == "3 events"


def test_it_is_listed_with_what_it_does(audited, capsys):
    assert single_step.main(None, [], lambda results, as_json: None) == 0
    assert (
        "  audit            Check that a data set has enough events.\n" in capsys.readouterr().out
    )


def test_a_run_in_which_it_said_no_has_its_outcome_and_exit_code(audited):
    outputs = {"ingest": {}, "audit": {"passed": False, "reason": "3 events"}}

    end = runner.end_of(outputs)

    assert end == RunEnd(outcome="audit failed", reason="3 events", code=4)
