from typing import NamedTuple

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def rehearse(
    bundle: dsl.Input[dsl.Model],
    version: str,
    rehearsal: dsl.Output[dsl.Artifact],
) -> NamedTuple("Rehearsal", [("Output", bool), ("reason", str)]):
    """Serve a version's bundle in a real server and compare its answers over HTTP with the
    trainer's.
    """
    from components.step import step

    with step("rehearse", rehearsal=rehearsal.path) as outputs:
        from pathlib import Path

        from serving.release.registry import attach_rehearsal
        from serving.release.rehearsal import rehearse
        from tasteloop.verdicts import REHEARSAL_FILE

        out = Path(rehearsal.path)
        result = rehearse(Path(bundle.path), out)
        attach_rehearsal(version, out / REHEARSAL_FILE)
        outputs.update(passed=result.passed, reason=result.reason)
    return result.passed, result.reason
