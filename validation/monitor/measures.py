"""All measures of drift that are declared, and the severities of the decision by default.

To add one, write a `Measure` into `behaviour_measures`, `word_measures` or `prediction_measures`,
or a `QualityMeasure` into `qualities`. The reference stores what MEASURES computes, and is made
again where the declared set is another one. Findings, the default severities of the decision and
the page of a window read the declarations.

Units of effects: shares moved (total variation); standard deviations moved (Wasserstein); for
embeddings how well windows can be told apart, and the kernel's distance; for qualities the loss.
"""

from __future__ import annotations

from validation.monitor.behaviour_measures import BEHAVIOUR
from validation.monitor.measure import Measure, Severity
from validation.monitor.prediction_measures import PREDICTIONS
from validation.monitor.qualities import QUALITIES, QualityMeasure
from validation.monitor.word_measures import WORDS

MEASURES: tuple[Measure, ...] = (*BEHAVIOUR, *WORDS, *PREDICTIONS)


def declared() -> tuple[Measure, ...]:
    """The measures that a reference stores."""
    return MEASURES


def default_severities() -> dict[str, Severity]:
    """By measure, in the order of the declarations.

    >>> default_severities()["labels"]
    Severity(watch=0.1, act=0.2, answer='retrain')
    """
    everything: list[Measure | QualityMeasure] = [*MEASURES, *QUALITIES]
    return {
        measure.name: measure.severity for measure in everything if measure.severity is not None
    }
