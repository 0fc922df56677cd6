from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def score(
    events: dsl.Input[dsl.Dataset],
    answers: dsl.Output[dsl.Dataset],
    model: str = "interests",
    k: int = 0,
) -> str:
    """Let the champion answer for every user of an events file (.parquet, .csv); returns its
    version.

    `k`: labels or items a user; 0 is the model's own default.
    """
    from components.step import step

    with step("score", answers=answers.path) as outputs:
        from pathlib import Path

        from serving.release.registry import champion
        from tasteloop.errors import TasteloopError
        from tasteloop.runtime.scoring import score

        live = champion()
        if live is None:
            raise TasteloopError("there is no champion yet; train one first")
        result = score(
            live.path, Path(events.path), Path(answers.path) / "answers.parquet", model, k or None
        )
        outputs.update(version=live.version, rows=result.rows)
    return live.version
