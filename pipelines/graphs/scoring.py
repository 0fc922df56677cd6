"""The scoring pipeline: one step, the champion's answers for every user of a file in the object
store.

It never uses an earlier result, because it depends on which version is live.
"""

# annotations stay objects here: kfp reads those of a pipeline's parameters

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

from components.score import score
from pipelines.graphs.step import Step, read_now
from pipelines.settings import Settings
from tasteloop.words import first_paragraph

SCORE = Step(score, size="heavy")


def scoring(settings: Settings) -> BaseComponent:
    """The champion's answers for a file of events; parameters: events (a URI), model, k."""
    cluster = settings.cluster
    description = first_paragraph(scoring.__doc__)

    @dsl.pipeline(
        name="tasteloop-scoring",
        pipeline_root=cluster and cluster.root,
        description=description,
    )
    def graph(events: str, model: str = "interests", k: int = 0):
        SCORE.task(settings, events=read_now(events), model=model, k=k)

    return graph
