"""The statements that a bundle is asked: what is measured is learned nowhere."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality import statements
from tasteloop.datasets import statements as composed
from tasteloop.language.phrases import normalise

PARTS = ("validation", "test")


def texts_of(part: str) -> set[str]:
    return {normalise(text) for kind in statements.statements(part) for text in kind.texts}


def test_no_statement_is_in_both_parts_or_among_those_that_are_learned() -> None:
    learned = {
        normalise(text)
        for language in composed.SOURCES.values()
        for text, _ in composed.compose(composed.STATEMENTS, language=language)
    }
    learned |= {normalise(text) for text in composed.no_opinions(3000)}

    assert texts_of("validation") & texts_of("test") == set()
    assert texts_of("test") & learned == set()
    assert texts_of("validation") & learned == set()


@pytest.mark.parametrize("part", PARTS)
def test_each_part_has_a_hundred_statements_half_of_them_favourable(part: str) -> None:
    short, foreign, none = statements.statements(part)

    for kind in (short, foreign):
        assert len(set(kind.texts)) == len(kind.texts)
        assert kind.favourable.mean() == 0.5
    assert len(short.texts) >= 100
    assert np.isnan(none.favourable).all()


def test_snippets_are_read_out_of_the_package_and_split(tmp_path: Path) -> None:
    lines = [f"{n}\t{rating}\tsentence {n}" for n, rating in enumerate([2, -3, 0.1, 0.7] * 30)]
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as files:
        for name in statements.SNIPPETS:
            content = "\n".join(lines).encode()
            member = tarfile.TarInfo(f"hutto_ICWSM_2014/{name}_GroundTruth.txt")
            member.size = len(content)
            files.addfile(member, io.BytesIO(content))
    archive = tmp_path / "package.zip"
    with zipfile.ZipFile(archive, "w") as package:
        package.writestr(f"package/{statements._ARCHIVE}", inner.getvalue())

    parts = {part: list(statements.snippets(archive, part)) for part in PARTS}

    first, none = (
        [kind for part in PARTS for kind in parts[part] if kind.name == name]
        for name in ("tweets", "tweets, no opinion")
    )
    assert sum(len(kind.texts) for kind in first) == 60, "0.1 and 0.7 are neither"
    assert sum(len(kind.texts) for kind in none) == 30
    assert not set(first[0].texts) & set(first[1].texts)
    assert np.mean(np.concatenate([kind.favourable for kind in first])) == 0.5


def test_a_row_says_how_many_are_right_and_of_what_is_confident() -> None:
    kind = statements.Texts("short", ["a", "b", "c", "d"], np.array([1.0, 1.0, 0.0, 0.0]))
    probability = np.array([0.9, 0.4, 0.1, 0.6])

    line = statements.row(kind, probability, np.array([True, False, True, True]), 0.5)

    cells = [cell.strip().split(" ")[0] for cell in line.split("|")[1:-1]]
    assert cells == ["short", "4", "0.500", "0.500", "0.750", "0.667"]
