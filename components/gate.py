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
        from dataclasses import asdict
        from pathlib import Path

        from tasteloop.files import read_json, write_json
        from validation.gate.gates import GateSettings, decide
        from validation.pages.evaluation import write_report

        facts = read_json(Path(evaluation.path) / "evaluation.json")
        decision = decide(facts, GateSettings.model_validate_json(settings))
        out = Path(verdict.path)
        write_json(out / "verdict.json", asdict(decision))
        shutil.copy(write_report(facts, asdict(decision), out / "report.html"), page.path)
        reason = "; ".join(decision.reasons)
        outputs.update(passed=decision.passed, promote=decision.promote, reason=reason)
    return decision.promote, reason
