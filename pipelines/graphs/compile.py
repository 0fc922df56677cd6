"""The graphs by name, and a graph as IR YAML, which a Kubeflow Pipelines server runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kfp import compiler
from kfp.dsl.base_component import BaseComponent

from pipelines.graphs.monitoring import monitoring
from pipelines.graphs.scoring import scoring
from pipelines.graphs.training import training
from pipelines.settings import Settings
from tasteloop.errors import TasteloopError

Graph = Callable[[Settings], BaseComponent]

GRAPHS: dict[str, Graph] = {
    "training": training,
    "monitoring": monitoring,
    "scoring": scoring,
}


def graph_of(name: str) -> Graph:
    """The pipeline of that name.

    Raises:
        TasteloopError: there is no such pipeline.
    """
    if name not in GRAPHS:
        raise TasteloopError(f"no pipeline {name!r}; known: {', '.join(GRAPHS)}")
    return GRAPHS[name]


def compile_to(settings: Settings, path: Path, graph: Graph = training) -> None:
    """Write a pipeline's graph for these settings as IR YAML; needs no torch.

    >>> import tempfile
    >>> from pipelines.settings import load_settings
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "training.yaml"
    ...     compile_to(load_settings("local"), path)
    ...     path.read_text().splitlines()[1]
    '# Name: tasteloop-training'
    """
    write_graph(graph(settings), path)


def write_graph(graph: BaseComponent, path: Path) -> None:
    """Write a graph, which was built before, as IR YAML."""
    path.parent.mkdir(parents=True, exist_ok=True)
    compiler.Compiler().compile(graph, str(path))
