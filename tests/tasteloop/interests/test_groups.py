"""Groups do not hang on a seed, and a last version's go on where they still fit."""

from __future__ import annotations

import numpy as np
import pytest

from tasteloop.interests.discovery import adjusted_rand
from tasteloop.interests.groups import count_for, group, overlaps
from tasteloop.interests.vectors import behaviour_vectors, joined, unit


def blobs(groups: int = 6, each: int = 40, noise: float = 0.15, seed: int = 0):
    rng = np.random.default_rng(seed)
    centres = unit(rng.standard_normal((groups, 12)))
    truth = np.repeat(np.arange(groups), each)
    return unit(centres[truth] + noise * rng.standard_normal((len(truth), 12))), truth


def test_groups_that_are_there_are_found_whatever_the_seed():
    vectors, truth = blobs()

    for seed in range(3):
        assert adjusted_rand(group(vectors, 6, seed), truth) > 0.95


def test_the_same_seed_gives_the_same_groups():
    vectors, _ = blobs(noise=0.5)

    assert np.array_equal(group(vectors, 6, 3), group(vectors, 6, 3))


def test_groups_are_numbered_from_the_largest():
    vectors, _ = blobs()
    sizes = np.bincount(group(vectors[:200], 6, 0))

    assert (np.diff(sizes) <= 0).all()


def test_groups_of_a_last_version_go_on_where_they_fit_as_well():
    vectors, _ = blobs(noise=0.25)
    before = group(vectors, 6, 0)
    changed = unit(vectors + 0.05 * np.random.default_rng(1).standard_normal(vectors.shape))
    after = group(changed, 6, 5, before)

    assert adjusted_rand(after, before) > 0.9
    assert sorted(old for old, _ in overlaps(after, before).values()) == list(range(6))


def test_a_last_version_that_fits_no_longer_is_given_up():
    vectors, truth = blobs(noise=0.1)
    nonsense = np.random.default_rng(0).integers(0, 2, len(truth))

    assert adjusted_rand(group(vectors, 6, 0, nonsense), truth) > 0.95


def test_overlaps_pair_each_group_once_and_only_where_enough_is_shared():
    new = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
    old = np.array([7, 7, 7, 8, 8, 8, 8, 9, -1, -1])

    assert overlaps(new, old) == {0: (7, 0.75), 1: (8, 0.75), 2: (9, 1.0)}
    assert overlaps(np.arange(8), np.zeros(8, np.int64)) == {}


@pytest.mark.parametrize(("items", "count"), [(10, 6), (1682, 21), (10**6, 24)])
def test_a_larger_catalogue_has_more_interests_within_bounds(items, count):
    assert count_for(items) == count


def test_items_of_the_same_people_are_near_and_popularity_alone_brings_nobody_near():
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(200), 8)
    item = rng.integers(0, 10, len(user)) + 10 * (user % 2)
    vectors, taken = behaviour_vectors(user, item, 21)
    alike = vectors @ vectors.T
    same = np.add.outer(np.arange(20) // 10, np.arange(20) // 10) != 1

    assert alike[:20, :20][same].mean() > alike[:20, :20][~same].mean() + 0.4
    assert taken[20] == 0 and not vectors[20].any()


def test_an_item_that_nobody_took_lies_where_its_words_are():
    behaviour = np.array([[1, 0], [0, 0]], np.float32)
    texts = np.array([[0, 1], [0, 1]], np.float32)
    vectors = joined(behaviour, np.array([1000, 0]), texts, 0.7)

    assert vectors[1].tolist() == [0, 0, 0, 1]
    assert vectors[0] == pytest.approx([0.69**0.5, 0, 0, 0.31**0.5], abs=0.01)
    assert joined(behaviour, np.array([1, 0]), texts * 0, 0.7)[0].tolist() == [1, 0, 0, 0]
