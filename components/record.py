from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def record(
    bundle: dsl.Input[dsl.Model],
    evaluation: dsl.Input[dsl.Artifact],
    verdict: dsl.Input[dsl.Artifact],
    settings: str,
) -> str:
    """Register the bundle with its settings, metrics and verdict in MLflow; returns its version."""
    from components.step import step

    with step("record") as outputs:
        import json
        from pathlib import Path

        from serving.release.registry import record
        from tasteloop.files import read_json
        from tasteloop.redaction import redact_strings

        decided = Path(verdict.path)
        recorded = record(
            Path(bundle.path),
            Path(evaluation.path) / "evaluation.json",
            read_json(decided / "verdict.json"),
            redact_strings(json.loads(settings)),
            decided / "report.html",
        )
        outputs.update(version=recorded.version, mlflow_run=recorded.run_id)
    return recorded.version
