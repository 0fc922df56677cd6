from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    bundle: dsl.Input[dsl.Model],
    snapshots: dsl.Input[dsl.Dataset],
    settings: str,
    evaluation: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    sentiment: dsl.Output[dsl.ClassificationMetrics],
    champion: str = "",
):
    """Measure the bundle on the test window, beside the baselines and the `champion` version."""
    from components.step import step

    with step("evaluate", evaluation=evaluation.path):
        from pathlib import Path

        from components.charts import draw
        from tasteloop.evaluation.evaluate import evaluate
        from tasteloop.evaluation.record import EVALUATION_FILE, Evaluation
        from tasteloop.evaluation.settings import EvaluationSettings

        live = None
        if champion:
            from serving.release.registry import find

            live = find(champion).path
        out = Path(evaluation.path)
        evaluate(
            Path(bundle.path),
            Path(snapshots.path),
            EvaluationSettings.model_validate_json(settings),
            out,
            champion=live,
        )
        draw(Evaluation.read(out / EVALUATION_FILE), metrics, sentiment)
