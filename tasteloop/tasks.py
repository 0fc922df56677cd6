"""What a model can answer, and what its data must hold for it to learn that.

The tasks of a model follow from its data: `recommend` needs behaviour alone, `interests` needs
labels on the items, and `sentiment` needs reviews. This is the one place that says so.
"""

from __future__ import annotations

from collections.abc import Collection

INTERESTS, RECOMMEND, SENTIMENT = "interests", "recommend", "sentiment"
TASKS = (INTERESTS, RECOMMEND, SENTIMENT)

_ABSENT = {
    INTERESTS: "the items of its data carry no labels, or training.tasks leaves interests out",
    SENTIMENT: "its data has no reviews (ingest.reviews), or training.tasks leaves sentiment out",
}


def tasks_of_data(labels: Collection[str], reviews: bool) -> tuple[str, ...]:
    """The tasks that a data set can teach.

    Args:
        labels: those that can be learned: some training snapshots have them and others do not.
        reviews: whether there are any.
    """
    needed = {INTERESTS: bool(labels), RECOMMEND: True, SENTIMENT: reviews}
    return tuple(task for task in TASKS if needed[task])


def tasks_of_model(trained: Collection[str]) -> tuple[str, ...]:
    """The tasks that a model answers which has a head for each of `trained`: recommend needs
    none.
    """
    return tuple(task for task in TASKS if task == RECOMMEND or task in trained)


def why_absent(task: str) -> str:
    """A sentence for whoever asks a model for a task that it does not have."""
    return f"this model has no {task}: {_ABSENT[task]}"
