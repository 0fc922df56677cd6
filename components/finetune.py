from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def finetune(
    snapshots: dsl.Input[dsl.Dataset],
    settings: str,
    model: dsl.Output[dsl.Model],
    checkpoints: str = "step",
    store: str = "",
    trainjob: str = "",
):
    """Fine-tune the encoder with a head for interests and one for sentiment, those that the data
    can teach.

    `checkpoints` names the directory, below those of all runs, from which a killed run resumes;
    `store` is the URL of an object store where it is instead. `trainjob`, as JSON, trains there and
    not in this step.
    """
    from components.step import step

    with step("finetune", model=model.path):
        from pathlib import Path

        from tasteloop.home import Home
        from tasteloop.storage import discard

        work = Home.current().checkpoints / checkpoints
        remote = f"{store}/{checkpoints}" if store else None
        if trainjob:
            from serving.cluster.trainjob import run

            run(trainjob, Path(snapshots.path), settings, Path(model.path), remote or str(work))
        else:
            from tasteloop.encoder.settings import TrainingSettings
            from tasteloop.encoder.training import finetune

            checked = TrainingSettings.model_validate_json(settings)
            finetune(Path(snapshots.path), checked, Path(model.path), work, remote)
            if remote:
                discard(remote)
