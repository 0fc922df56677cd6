from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def fit_recommender(
    model: dsl.Input[dsl.Model],
    snapshots: dsl.Input[dsl.Dataset],
    settings: str,
    bundle: dsl.Output[dsl.Model],
):
    """Fit the additive recommender on top of the model and close the bundle that is evaluated and
    served.
    """
    from components.step import step

    with step("fit-recommender", bundle=bundle.path):
        from pathlib import Path

        from tasteloop.recommender.fitting import RecommenderSettings
        from tasteloop.runtime.assemble import fit_recommender

        fit_recommender(
            Path(model.path),
            Path(snapshots.path),
            RecommenderSettings.model_validate_json(settings),
            Path(bundle.path),
        )
