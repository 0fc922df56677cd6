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
        from tasteloop.evaluation.record import EVALUATION_FILE
        from tasteloop.redaction import redact_strings
        from tasteloop.verdicts import VERDICT_FILE, Verdict

        recorded = record(
            Path(bundle.path),
            Path(evaluation.path) / EVALUATION_FILE,
            Verdict.read(Path(verdict.path) / VERDICT_FILE),
            redact_strings(json.loads(settings)),
            Path(verdict.path) / "report.html",
        )
        outputs.update(version=recorded.version, mlflow_run=recorded.run_id)
    return recorded.version
