from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def promote(
    bundle: dsl.Input[dsl.Model],
    dataset: dsl.Input[dsl.Dataset],
    snapshots: dsl.Input[dsl.Dataset],
    version: str,
    settings: str,
    champion: str = "",
):
    """Make a version the champion, if the live one still has the digest that it was compared with.

    What later windows are compared with, its reference, is saved before under TASTELOOP_HOME; where
    artifacts do not stay on this machine (a cluster), also what it learned from, for a retraining.
    """
    from components.step import step

    with step("promote") as outputs:
        import os
        from pathlib import Path

        from components.step import RUN
        from serving.release.promotion import promote
        from validation.monitor.reference import WatchSettings, keep_data, keep_reference

        watch = WatchSettings.model_validate_json(settings)
        reference = keep_reference(Path(bundle.path), Path(snapshots.path), watch)
        if RUN not in os.environ:
            keep_data(Path(bundle.path), Path(dataset.path), Path(snapshots.path))
        promote(version, expected=champion or None)
        outputs.update(version=version, reference=reference)
