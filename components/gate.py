from typing import NamedTuple

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def gate(
    evaluation: dsl.Input[dsl.Artifact],
    settings: str,
    verdict: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
) -> NamedTuple("Gate", [("Output", bool), ("reason", str)]):
    """Decide whether the evaluated bundle may become champion, and say why."""
    from components.step import step

    with step("gate", evaluation=evaluation.path, verdict=verdict.path) as outputs:
        import shutil
        from pathlib import Path

        from tasteloop.evaluation.record import EVALUATION_FILE, Evaluation
        from tasteloop.files import write_json
        from tasteloop.verdicts import VERDICT_FILE
        from validation.gate.gates import GateSettings, decide
        from validation.pages.evaluation import write_report

        measured = Evaluation.read(Path(evaluation.path) / EVALUATION_FILE)
        decision = decide(measured, GateSettings.model_validate_json(settings))
        out = Path(verdict.path)
        write_json(out / VERDICT_FILE, decision.json())
        shutil.copy(write_report(measured, decision, out / "report.html"), page.path)
        reason = "; ".join(decision.reasons)
        outputs.update(passed=decision.passed, promote=decision.promote, reason=reason)
    return decision.promote, reason
