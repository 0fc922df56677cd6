from typing import NamedTuple

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def champion(
    bundle: dsl.Input[dsl.Model],
) -> NamedTuple("Champion", [("Output", bool), ("version", str), ("digest", str)]):
    """Tell whether the bundle is another than the live one, and which version that is, to compare
    with.
    """
    from components.step import step

    with step("champion") as outputs:
        from pathlib import Path

        from serving.release.registry import champion
        from tasteloop.bundle.manifest import verify

        live = champion()
        changed = live is None or live.digest != verify(Path(bundle.path))
        version, digest = (live.version, live.digest) if live and changed else ("", "")
        outputs.update(version=version, digest=digest, changed=changed)
    return changed, version, digest
