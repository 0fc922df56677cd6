"""The benchmark of searches in others' words: its texts, its judgements and its table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.quality.other_words import Text, judge, main, markdown, measure, read_texts
from tasteloop.behaviour.snapshots import Snapshots
from tasteloop.errors import TasteloopError
from tasteloop.language.phrases import CHINESE_FILM_LABELS, normalise
from tasteloop.language.training_phrases import TRAINING
from tasteloop.runtime.session import Session

LABELS = ["Horror", "Western"]
BEFORE = np.array([0.4, 0.5])


def test_there_are_as_many_texts_as_the_table_says() -> None:
    texts = read_texts(CHINESE_FILM_LABELS)
    assert len(texts) == len({text.text for text in texts}) == 639
    assert sum(text.language == "zh" for text in texts) == 147
    assert all(text.wants or text.refuses or text.kind == "neither" for text in texts)


def test_no_text_is_a_phrase_that_is_learned() -> None:
    learned = {normalise(phrase) for phrases in TRAINING.values() for phrase in phrases.all()}
    assert not learned & {normalise(text.text) for text in read_texts(CHINESE_FILM_LABELS)}


@pytest.mark.parametrize(
    ("wants", "refuses", "now", "expected"),
    [
        (["Western"], [], [0.4, 0.6], {"wish": True}),
        (["Western"], [], [0.9, 0.52], {"wish": False}),
        (["Western"], [], [0.4, 0.95], {"wish": True}),
        ([], ["Horror"], [0.3, 0.5], {"refusal": True, "never raises": True}),
        ([], ["Horror"], [0.4, 0.5], {"refusal": False, "never raises": True}),
        ([], ["Horror"], [0.6, 0.5], {"refusal": False, "never raises": False}),
        (
            ["Western"],
            ["Horror"],
            [0.1, 0.9],
            {"wish": True, "refusal": True, "never raises": True},
        ),
        ([], [], [0.42, 0.48], {"no taste": True}),
        ([], [], [0.42, 0.60], {"no taste": False}),
    ],
)
def test_answers_are_judged(
    wants: list[str], refuses: list[str], now: list[float], expected: dict[str, bool]
) -> None:
    text = Text("kind", "en", "words", tuple(wants), tuple(refuses))
    assert dict(judge(text, LABELS, BEFORE, np.array(now))) == expected


def test_a_refusal_of_what_nobody_sees_need_not_fall() -> None:
    text = Text("refusal", "en", "words", (), ("Horror",))
    unseen = np.array([0.01, 0.5])
    assert dict(judge(text, LABELS, unseen, unseen)) == {"never raises": True}


def test_every_text_with_labels_of_the_bundle_is_asked(
    tiny_bundle: Path, tiny_snapshots: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    session = Session.load(tiny_bundle)
    first, second, *_ = session.labels
    path = tmp_path / "texts.jsonl"
    path.write_text(
        f'{{"kind": "wish", "language": "en", "text": "{first}", "wants": ["{first}"], "refuses": []}}\n'
        f'{{"kind": "refusal", "language": "en", "text": "no {second}", "wants": [], "refuses": ["{second}"]}}\n'
        '{"kind": "wish", "language": "en", "text": "x", "wants": ["unknown"], "refuses": []}\n',
        "utf-8",
    )
    monkeypatch.setattr(
        "benchmarks.quality.other_words.read_texts", lambda labels: read_texts(labels, path)
    )

    rows = measure(Snapshots.read(tiny_snapshots), session, draws=20)

    assert {row["n"] for row in rows} == {1}
    assert {row["question"] for row in rows} <= {"wish", "refusal", "never raises"}
    assert len({line.count(" | ") for line in markdown(rows).splitlines()[2:]}) == 1


def test_a_bundle_of_other_labels_is_told(
    tiny_bundle: Path, tiny_snapshots: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = Session.load(tiny_bundle)
    session.labels = ["toys"]
    with pytest.raises(TasteloopError, match=r"knows none of the genres .* \['toys'\]"):
        measure(Snapshots.read(tiny_snapshots), session)
    assert main(["--bundle", "no bundle", "--snapshots", str(tiny_snapshots)]) == 2
    assert "no bundle" in capsys.readouterr().err
