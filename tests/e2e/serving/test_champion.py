"""From the registry to the network: the champion is served under its version, whole or not at
all.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from serving.release import promotion, registry
from serving.release.rehearsal import rehearse
from tasteloop import files
from tasteloop.verdicts import Verdict
from tests.support.processes import Running, run_server

pytestmark = pytest.mark.slow


def test_the_champion_is_served(
    serve: Callable[..., Running],
    tiny_bundle: Path,
    questions: dict[str, list[dict[str, Any]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv("TASTELOOP_HOME", str(tmp_path / "home"))
    files.write_json(tmp_path / "evaluation.json", {"metrics": {}, "lineage": {}})
    recorded = registry.record(
        tiny_bundle,
        tmp_path / "evaluation.json",
        Verdict(passed=True),
        {"profile": "tiny"},
    )
    outcome = rehearse(tiny_bundle, tmp_path)
    assert outcome.passed, outcome.reason
    registry.attach_rehearsal(recorded.version, tmp_path / "rehearsal.json")
    champion = promotion.promote(recorded.version, None)

    running = serve()
    response = httpx.post(
        f"{running.http}/v1/models/recommend:predict", json={"instances": questions["recommend"]}
    ).json()
    assert response["model_version"] == recorded.version
    assert len(response["predictions"]) == len(questions["recommend"])
    metadata = httpx.get(f"{running.http}/v2/models/recommend").json()
    assert metadata["versions"] == [recorded.version]

    weights = next(champion.path.rglob("*.safetensors"))
    weights.write_bytes(weights.read_bytes() + b"\0")
    for arguments, message in (((), weights.name), (("--version", "9"), "there is no version '9'")):
        process = run_server(*arguments, "--port", "0", "--grpc-port", "0")
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 2, output
        assert output.startswith("error: ") and message in output
