from typing import NamedTuple

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def validate(
    dataset: dsl.Input[dsl.Dataset],
    settings: str,
    validation: dsl.Output[dsl.Artifact],
    page: dsl.Output[dsl.HTML],
    source: str = "",
    data: str = "{}",
) -> NamedTuple("Validation", [("Output", bool), ("reason", str)]):
    """Check a data set against its contract; an error stops the pipeline before anything is
    trained.

    `source` names where it comes from: its volume is compared with the last accepted data set of
    that name.
    """
    from components.step import step

    with step("validate", validation=validation.path) as outputs:
        import shutil
        from pathlib import Path

        from tasteloop.behaviour.partitions import DataSettings
        from tasteloop.files import atomic_write
        from tasteloop.home import Home
        from validation.data.expectations import ValidationSettings, validate
        from validation.pages.dataset import write_page_beside

        out = Path(validation.path)
        accepted = Home.current().accepted(source) if source else None
        engine = DataSettings.model_validate_json(data)
        result = validate(
            Path(dataset.path),
            ValidationSettings.model_validate_json(settings),
            out,
            accepted,
            engine,
        )
        written = write_page_beside(out)
        if accepted and result.passed:
            atomic_write(accepted, (out / "validation.json").read_bytes())
        shutil.copy(written, page.path)
        outputs.update(passed=result.passed, reason=result.reason)
    return result.passed, result.reason
