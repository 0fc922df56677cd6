from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def ingest(
    settings: str, dataset: dsl.Output[dsl.Dataset], fingerprint: str = "", data: str = "{}"
):
    """Read behaviour and reviews, clean them, and replace user ids by pseudonyms.

    `fingerprint` stands for what the settings do not say (the sources' contents, the code); it is
    not read, but a cached result is used again only where it is the same. `data` names the engine.
    """
    from components.step import step

    with step("ingest", dataset=dataset.path):
        from pathlib import Path

        from tasteloop.behaviour.partitions import DataSettings
        from tasteloop.datasets.ingest import IngestSettings, ingest

        engine = DataSettings.model_validate_json(data)
        ingest(IngestSettings.model_validate_json(settings), Path(dataset.path), engine)
