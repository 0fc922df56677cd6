from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def promote(version: str, champion: str = ""):
    """Make a version the champion, if the live one still has the digest that it was compared with."""
    from components.step import step

    with step("promote") as outputs:
        from serving.registry import promote

        promote(version, expected=champion or None)
        outputs.update(version=version)
