from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def prepare(
    dataset: dsl.Input[dsl.Dataset],
    settings: str,
    snapshots: dsl.Output[dsl.Dataset],
    data: str = "{}",
):
    """Cut behaviour into snapshots by global time: the history before each, the labels and items
    after it.
    """
    from components.step import step

    with step("prepare", snapshots=snapshots.path):
        from pathlib import Path

        from tasteloop.behaviour.partitions import DataSettings
        from tasteloop.behaviour.prepare import prepare
        from tasteloop.behaviour.snapshots import PrepareSettings
        from tasteloop.interests.discovery import find_interests

        engine = DataSettings.model_validate_json(data)
        prepare(
            Path(dataset.path),
            PrepareSettings.model_validate_json(settings),
            Path(snapshots.path),
            engine,
            find_interests,
        )
