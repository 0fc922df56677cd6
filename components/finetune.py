from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def finetune(
    snapshots: dsl.Input[dsl.Dataset],
    settings: str,
    model: dsl.Output[dsl.Model],
    checkpoints: str = "step",
):
    """Fine-tune the encoder with its two heads, interests and sentiment, and calibrate them.

    `checkpoints` names the directory, below those of all runs, from which a killed run resumes.
    """
    from components.step import step

    with step("finetune", model=model.path):
        from pathlib import Path

        from tasteloop.files import home
        from tasteloop.training import TrainingSettings, finetune

        work = home() / "checkpoints" / checkpoints
        finetune(Path(snapshots.path), TrainingSettings.model_validate_json(settings), Path(model.path), work)
