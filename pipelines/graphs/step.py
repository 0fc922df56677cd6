"""The declaration of a pipeline step: what graphs, `tasteloop step` and a run's outcome know of it.

A step's work is a function in the room of its subject; its shell in `components/` calls it. The
declaration stands beside the graph (`pipelines/graphs/training.py`) and says the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from kfp import dsl
from kfp.dsl.base_component import BaseComponent

from components.image import IMAGE, image
from pipelines.graphs.pods import apply_kubernetes_settings
from pipelines.settings import ClusterSettings, FinetuneSettings, Settings, StepSettings
from serving.cluster.trainjob import SLACK
from tasteloop.words import first_paragraph

# The name of the output on which the graph's conditions depend: kfp's local runner takes a
# condition on any other output for false.
OUTPUT = "Output"

# Whether a step's earlier result for the same inputs is used again. `on one machine` is for a step
# that reads data which its inputs do not name: on one machine a fingerprint of the data is an
# input, on a cluster there is none.
Caching = Literal["never", "on one machine", "always"]
# The section of `ClusterSettings` that says what a step's pod requests.
Size = Literal["light", "heavy", "finetune", "monitor"]


@dataclass(frozen=True)
class Refusal:
    """What it means when a step refuses: the run ends there, with an outcome and an exit code of
    its own.

    The step's outputs then hold `passed` (false) and `reason`.

    Attributes:
        outcome: what the run's facts call it.
        exit_code: of `tasteloop run` and of `tasteloop step`.
    """

    outcome: str
    exit_code: int


@dataclass(frozen=True)
class Step:
    """One step of a pipeline.

    Attributes:
        component: its shell.
        section: the section of `Settings` that its input `settings` gets as JSON; None: it has no
            such input, or the graph sets another value.
        size: the section of the cluster's settings with its CPU, memory and time.
        caching: whether an earlier result is used again.
        answer: the result that decides how the pipeline goes on, by the name that the step's own
            outputs have for it; in the graph it is `OUTPUT`. None: it decides nothing.
        refusal: what it means when the answer is no; None: the run then has nothing more to do.
    """

    component: BaseComponent
    section: str | None = None
    size: Size = "light"
    caching: Caching = "never"
    answer: str | None = None
    refusal: Refusal | None = None

    @property
    def name(self) -> str:
        return str(self.component.name)

    @property
    def function(self) -> Callable[..., Any]:
        """The shell's Python function."""
        function: Callable[..., Any] = self.component.python_func
        return function

    @property
    def summary(self) -> str:
        """What it does, in one line: the first paragraph of its docstring."""
        return first_paragraph(self.function.__doc__)

    def task(self, settings: Settings, /, **inputs: Any) -> dsl.PipelineTask:
        """Add it to the graph that is built, as a task with the image, caching and pod of
        `settings`.

        The inputs `settings` and `data` come from the settings where `inputs` does not have them.
        """
        # 1. inputs
        if self.section:
            inputs.setdefault("settings", section_json(settings, self.section))
        if "data" in self.component.component_spec.inputs:
            inputs.setdefault("data", section_json(settings, "data"))
        task = self.component(**inputs)

        # 2. image and caching; on one machine the code runs as it is, so no commit is named
        cluster = settings.cluster
        task.set_container_image(image() if cluster else IMAGE)
        task.set_caching_options(
            self.caching == "always" or (self.caching == "on one machine" and not cluster)
        )

        # 3. the pod
        if cluster:
            apply_kubernetes_settings(task, self.pod_settings(cluster), cluster)
        return task

    def pod_settings(self, cluster: ClusterSettings) -> StepSettings:
        """What its pod requests of this cluster."""
        requested: StepSettings = getattr(cluster, self.size)
        if isinstance(requested, FinetuneSettings) and requested.together:
            return _pod_that_waits(requested, cluster.light)
        return requested


def section_json(settings: Settings, section: str) -> str:
    """A section of the settings as the JSON that a step reads."""
    return str(getattr(settings, section).model_dump_json())


def _pod_that_waits(training: FinetuneSettings, light: StepSettings) -> StepSettings:
    """The settings of a step's pod that waits for a TrainJob, whose own pods compute; it may take
    somewhat longer than they.
    """
    return light.model_copy(
        update={
            "retries": training.retries,
            "backoff": training.backoff,
            "timeout": training.timeout + 2 * SLACK,
        }
    )


def read_now(uri: object) -> object:
    """An input with the data that a URI has now; without this, kfp would use those of its first
    reading again.
    """
    importer = dsl.importer(artifact_uri=uri, artifact_class=dsl.Dataset, reimport=True)
    return importer.set_caching_options(False).output
