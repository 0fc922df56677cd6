"""The generator keeps to the model that docs/case-study.md states, and its truth stays out of what
is learned from.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from numpy.typing import NDArray
from scipy.stats import chisquare, norm

from tasteloop.behaviour.events import EVENTS_SCHEMA
from tasteloop.behaviour.items import ITEMS_SCHEMA
from tasteloop.datasets.ingest import IngestSettings, ingest, source_fingerprint
from tasteloop.datasets.reading import Behaviour
from tasteloop.datasets.synthetic import (
    ACTS,
    APPEAL,
    KINDS_OF_ACT,
    LABELS_AN_ITEM,
    TASTES,
    SyntheticSettings,
    Truth,
    affinity,
    drift_time,
    generate,
    liking,
    meeting,
)
from tasteloop.errors import TasteloopError
from tasteloop.files import sha256_tree

SMALL = SyntheticSettings(users=60, items=200, labels=6, mean_events=20)
LARGE = SyntheticSettings(users=1500, items=400, labels=8, mean_events=12)
SURE = 1e-4  # below it the stated model is refused; each test also shows a wrong model refused


@pytest.fixture(scope="module")
def drawn() -> Behaviour:
    return generate(LARGE)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic") / "dataset"
    ingest(IngestSettings(behaviour="synthetic", reviews=None, synthetic=SMALL), out)
    return out


def lives(drawn: Behaviour) -> Truth:
    """The truth with users as they are named before they get pseudonyms."""
    table = drawn.truth[TASTES]
    labels = sorted(table["label"].unique())
    wide = table.pivot("label", index=["user", "since"], values="taste").sort("user", "since")
    parts = {str(user): rows for (user,), rows in wide.group_by("user")}
    return Truth(
        labels,
        {user: rows["since"].to_numpy() for user, rows in parts.items()},
        {user: rows.select(labels).to_numpy() for user, rows in parts.items()},
    )


def membership(drawn: Behaviour, labels: list[str]) -> NDArray[np.float64]:
    assert drawn.items is not None
    return np.array(
        [[label in bears for label in labels] for bears in drawn.items["labels"]], float
    )


def test_one_seed_decides_everything() -> None:
    first, again, other = (
        generate(SMALL),
        generate(SMALL),
        generate(SMALL.model_copy(update={"seed": 1})),
    )
    assert first.events.equals(again.events)
    assert first.items is not None and again.items is not None
    assert first.items.equals(again.items)
    assert first.truth[TASTES].equals(again.truth[TASTES])
    assert not first.events.equals(other.events)


def test_users_leave_the_items_as_they_were() -> None:
    few, many = generate(SMALL), generate(SMALL.model_copy(update={"users": 90}))
    assert few.items is not None and many.items is not None
    assert few.items.equals(many.items)
    assert few.truth[APPEAL].equals(many.truth[APPEAL])


def test_the_data_set_keeps_the_contract(dataset: Path) -> None:
    events, items = (
        pl.read_parquet(dataset / "events.parquet"),
        pl.read_parquet(dataset / "items.parquet"),
    )
    assert dict(events.schema) == dict(EVENTS_SCHEMA.to_polars())
    assert dict(items.schema) == dict(ITEMS_SCHEMA.to_polars())
    assert set(events["kind"]) == {*KINDS_OF_ACT, "search"}
    assert events["value"].drop_nulls().is_between(0, 1).all()
    assert set(events["item"].drop_nulls()) <= set(items["item"])
    assert items["labels"].list.len().is_between(1, 3).all()
    reasons = set(pl.read_parquet(dataset / "quarantine.parquet")["reason"])
    assert reasons <= {"few_user_events"}, "nothing that is generated breaks a rule"
    pairs = events.drop_nulls("item").select("user", "item")
    assert pairs.is_duplicated().mean() < 0.01, "an item is met once"


def test_the_truth_is_of_the_same_pseudonyms(dataset: Path) -> None:
    truth, users = Truth.read(dataset), pl.read_parquet(dataset / "events.parquet")["user"].unique()
    assert set(users) <= set(truth.since)
    assert all(len(user) == 32 and "synthetic" not in user for user in truth.since)
    tastes = truth.at(users.to_list(), [drift_time(SMALL)] * len(users))
    assert np.allclose(tastes.sum(1), 1)
    before = truth.at(users.to_list(), [drift_time(SMALL) - 1] * len(users))
    assert ((before != tastes).any(1) == truth.changed(users.to_list())).all()


def test_nothing_that_is_learned_from_depends_on_the_truth(dataset: Path, tmp_path: Path) -> None:
    from tasteloop.behaviour.prepare import prepare
    from tasteloop.behaviour.snapshots import PrepareSettings

    blind = tmp_path / "blind"
    shutil.copytree(dataset, blind)
    shutil.rmtree(blind / "truth")
    settings = PrepareSettings(horizon=5, minimum_future=2)
    prepare(dataset, settings, tmp_path / "with")
    prepare(blind, settings, tmp_path / "without")
    assert sha256_tree(tmp_path / "with") == sha256_tree(tmp_path / "without")
    with pytest.raises(TasteloopError, match=r"truth is known of synthetic data only"):
        Truth.read(blind)


def test_tastes_are_dirichlet(drawn: Behaviour) -> None:
    """Mean α_k / α_0 and variance m (1 - m) / (α_0 + 1), within 4.5 standard errors."""
    truth = lives(drawn)
    tastes = np.array([rows[0] for rows in truth.tastes.values()])
    weight = np.arange(1, LARGE.labels + 1) ** -LARGE.label_skew
    mean = dict(
        zip(list(drawn.truth[TASTES]["label"][: LARGE.labels]), weight / weight.sum(), strict=True)
    )
    expected = np.array([mean[label] for label in truth.labels])
    variance = expected * (1 - expected) / (LARGE.concentration + 1)
    assert (np.abs(tastes.mean(0) - expected) < 4.5 * np.sqrt(variance / len(tastes))).all()
    assert tastes.var(0) == pytest.approx(variance, rel=0.2)
    assert (np.abs(tastes.mean(0) - expected[::-1]) > 4.5 * np.sqrt(variance / len(tastes))).any()


def test_the_stated_share_changes_taste(drawn: Behaviour) -> None:
    changed = lives(drawn).changed([f"synthetic user {n}" for n in range(LARGE.users)])
    error = np.sqrt(LARGE.drift_share * (1 - LARGE.drift_share) / LARGE.users)
    assert abs(changed.mean() - LARGE.drift_share) < 4.5 * error
    since = drawn.truth[TASTES]["since"].unique().sort().to_list()
    assert since[1:] == [drift_time(LARGE)]


def test_items_bear_one_to_three_labels(drawn: Behaviour) -> None:
    assert drawn.items is not None
    counts = np.bincount(drawn.items["labels"].list.len().to_numpy()[LARGE.labels :], minlength=4)[
        1:
    ]
    assert chisquare(counts, np.array(LABELS_AN_ITEM) * counts.sum()).pvalue > SURE
    assert chisquare(counts, np.full(3, counts.sum() / 3)).pvalue < SURE


def first_items(drawn: Behaviour) -> pl.DataFrame:
    """Each user's first item: the only one that nothing met before could rule out."""
    return (
        drawn.events.drop_nulls("item")
        .sort("time", maintain_order=True)
        .group_by("user", maintain_order=True)
        .first()
    )


def met(
    drawn: Behaviour, settings: SyntheticSettings
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """By the model, how likely each user's first item bears each label [U, K]; and whether it
    does.
    """
    truth, firsts = lives(drawn), first_items(drawn)
    bears = membership(drawn, truth.labels)
    assert drawn.items is not None
    position = {item: n for n, item in enumerate(drawn.items["item"])}
    tastes = truth.at(firsts["user"].to_list(), firsts["time"].to_list())
    chance = meeting(tastes, bears, drawn.truth[APPEAL]["appeal"].to_numpy(), settings) @ bears
    return chance, bears[[position[item] for item in firsts["item"]]]


def test_items_are_met_as_the_model_says(drawn: Behaviour) -> None:
    """Each label's count against its expectation, and each user's own: the log-likelihood ratio of
    two models.
    """
    chance, bears = met(drawn, LARGE)
    error = np.sqrt((chance * (1 - chance)).sum(0))
    assert (np.abs(bears.sum(0) - chance.sum(0)) < 4.5 * error).all()
    explained = ((bears - chance) * chance).sum() / np.sqrt((chance**3 * (1 - chance)).sum())
    assert abs(norm.sf(abs(explained))) > SURE
    wandering, _ = met(drawn, LARGE.model_copy(update={"exploration": 0.6}))
    explained = ((bears - wandering) * wandering).sum() / np.sqrt(
        (wandering**3 * (1 - wandering)).sum()
    )
    assert norm.sf(abs(explained)) < SURE, "another share of exploration is told apart"


def test_appeal_is_zipf() -> None:
    settings = LARGE.model_copy(update={"exploration": 1.0, "mean_events": 2, "users": 3000})
    drawn = generate(settings)
    appeal = drawn.truth[APPEAL].sort("appeal", descending=True)
    rank = {item: n for n, item in enumerate(appeal["item"])}
    found = np.bincount(
        [rank[item] for item in first_items(drawn)["item"]], minlength=settings.items
    )

    def fits(exponent: float) -> float:
        expected = np.arange(1, settings.items + 1) ** -exponent
        bins = np.array([0, 1, 2, 4, 8, 16, 32, 64, 128, 256])
        counts, shares = (
            np.add.reduceat(found, bins),
            np.add.reduceat(expected / expected.sum(), bins),
        )
        return float(chisquare(counts, shares * counts.sum()).pvalue)

    assert fits(settings.zipf) > SURE
    assert fits(settings.zipf + 0.3) < SURE


def test_acts_depend_on_taste_as_stated(drawn: Behaviour) -> None:
    truth, acts = lives(drawn), drawn.events.drop_nulls("item")
    assert drawn.items is not None
    position = {item: n for n, item in enumerate(drawn.items["item"])}
    bears = membership(drawn, truth.labels)
    tastes = truth.at(acts["user"].to_list(), acts["time"].to_list())
    rows = np.array([position[item] for item in acts["item"]])
    felt = np.array(
        [affinity(t[None], bears[[j]])[0, 0] for t, j in zip(tastes, rows, strict=True)]
    )
    counts = np.array([(acts["kind"] == kind).sum() for kind in KINDS_OF_ACT])

    def fits(settings: SyntheticSettings, among: NDArray[np.bool_]) -> float:
        liked = liking(felt[among], settings)[:, None]
        expected = (liked * ACTS[True] + (1 - liked) * ACTS[False]).sum(0)
        kinds = acts["kind"].to_numpy()[among]
        counts = np.array([(kinds == kind).sum() for kind in KINDS_OF_ACT])
        return float(chisquare(counts, expected).pvalue)

    for among in (felt < 0.3, felt >= 0.3, felt > 0.9):
        assert fits(LARGE, among) > SURE
    assert fits(LARGE.model_copy(update={"liking_middle": 0.8}), felt >= 0.3) < SURE
    searches = len(drawn.events) - counts.sum()
    error = np.sqrt(LARGE.searches * (1 - LARGE.searches) * len(drawn.events))
    assert abs(searches - LARGE.searches * len(drawn.events)) < 4.5 * error


def test_words_speak_of_labels(drawn: Behaviour) -> None:
    from tasteloop.datasets.synthetic import NEUTRAL, VOCABULARY

    assert drawn.items is not None
    neutral, spoken = set(NEUTRAL.split()), 0
    for labels, text in drawn.items.select("labels", "text").iter_rows():
        own = {word for label in labels for word in VOCABULARY[label].split()}
        words = text.split()
        assert all(word in neutral or word in own for word in words)
        spoken += sum(word in own for word in words)
    total = 10 * len(drawn.items)
    assert abs(spoken / total - LARGE.label_words) < 4.5 * np.sqrt(0.25 / total)


def test_vocabularies_share_no_word() -> None:
    from tasteloop.datasets.synthetic import BLAME, NEUTRAL, PRAISE, VOCABULARY

    words = [
        word for text in (*VOCABULARY.values(), NEUTRAL, PRAISE, BLAME) for word in text.split()
    ]
    assert len(words) == len(set(words))


def test_fewer_items_than_labels_are_refused() -> None:
    with pytest.raises(TasteloopError, match=r"5 items cannot bear 20 labels"):
        generate(SyntheticSettings(items=5))


def test_another_model_is_another_fingerprint() -> None:
    settings = IngestSettings(behaviour="synthetic", reviews=None)
    other = settings.model_copy(update={"synthetic": SMALL})
    assert source_fingerprint(settings) == source_fingerprint(settings) != source_fingerprint(other)
