"""Engines: all say the same, the fastest good one is chosen, and nothing is read twice."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from tasteloop.bundle.arrays import mapped_arrays
from tasteloop.bundle.card import BundleCard
from tasteloop.bundle.manifest import seal
from tasteloop.bundle.names import MODELS_DIRECTORY
from tasteloop.errors import TasteloopError
from tasteloop.files import read_json
from tasteloop.runtime import engines
from tasteloop.runtime.choice import choose, overall
from tasteloop.runtime.encoders import Encoder, TextCache
from tasteloop.runtime.export import Judged, compile_bundle
from tasteloop.runtime.session import Session

HOUSE = Path(__file__).parents[3]
TEXTS = [
    "liked good film",
    "no history",
    "mostly drama 50, war 25 of 12 events; liked a b c d e f g h",
    "bad",
    "disliked x",
]


@pytest.fixture(scope="module")
def card(tiny_bundle: Path) -> BundleCard:
    return BundleCard.read(tiny_bundle)


@pytest.fixture(scope="module")
def directory(tiny_bundle: Path, card: BundleCard) -> Path:
    return tiny_bundle / MODELS_DIRECTORY / card.reading_model


def here(directory: Path) -> list[str]:
    return [name for name in engines.ON_CPU if engines.available(name, directory)]


def test_onnx_runtime_and_torch_are_here(directory: Path) -> None:
    assert {"torch-fp32", "onnxruntime-fp32", "onnxruntime-int8"} <= set(here(directory))


def test_all_engines_pool_alike(directory: Path) -> None:
    expected = Encoder(directory, "torch-fp32").pool(TEXTS, 64)
    for name in here(directory):
        pooled = Encoder(directory, name).pool(TEXTS, 64)
        assert pooled.dtype == np.float32
        assert pooled == pytest.approx(expected, abs=1e-5 if name.endswith("fp32") else 0.05), name


def test_a_text_says_the_same_alone_and_in_a_batch(directory: Path) -> None:
    for name in here(directory):
        encoder = Encoder(directory, name)
        together = encoder.pool(TEXTS, 64)
        singly = np.concatenate([encoder.pool([text], 64) for text in TEXTS])
        assert np.abs(together - singly).max() <= (0 if engines.alone(name) else 1e-5), name


def test_an_int8_batch_would_not(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Why int8 reads texts alone: the range of the batch sets the scale of all."""
    encoder = Encoder(directory, "onnxruntime-int8")
    singly = encoder.pool(TEXTS, 64)
    monkeypatch.setattr(engines, "alone", lambda name: False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert np.abs(Encoder(directory, "onnxruntime-int8").pool(TEXTS, 64) - singly).max() > 1e-5


@pytest.mark.parametrize("name", ["onnxruntime-fp32", "openvino-fp32"])
def test_several_texts_are_shared_out_among_the_threads(
    directory: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    runner = engines.Runner(name, directory)
    assert [runner.most(n) for n in (1, 3, 4, 500)] == [1, 1, 2, 32]
    by: list[str] = []
    single = runner._single
    monkeypatch.setattr(
        runner, "_single", lambda *call: by.append(threading.current_thread().name) or single(*call)
    )
    ids = np.arange(1, 25).reshape(6, 4)
    calls = [(row[None], np.ones((1, 4), np.int64)) for row in ids]
    together = np.concatenate(runner(calls))
    assert len(by) == 6 and all(thread.startswith("encode") for thread in by)
    assert together == pytest.approx(
        np.concatenate([runner([call])[0] for call in calls]), abs=1e-5
    )
    assert len(by) == 6  # one call is the whole machine's


@pytest.mark.parametrize("name", ["onnxruntime-fp32", "openvino-fp32"])
def test_signals_are_answered_after_an_engine_went_in_another_thread(
    directory: Path, name: str
) -> None:
    """As after a swap: the version that the main thread loaded ends where it was used last."""
    program = f"""
import signal, threading
import numpy as np
from pathlib import Path
from tasteloop.runtime import engines
held = [engines.Runner({name!r}, Path({str(directory)!r}))]
call = np.ones((1, 8), np.int64), np.ones((1, 8), np.int64)
def last():
    runner = held.pop()
    assert runner([call])[0].shape[0] == 1
    del runner
thread = threading.Thread(target=last)
thread.start()
thread.join()
signal.signal(signal.SIGTERM, lambda *_: print("heard"))
signal.raise_signal(signal.SIGTERM)
"""
    told = subprocess.run(
        [sys.executable, "-c", program], cwd=HOUSE, capture_output=True, text=True
    )
    assert (told.returncode, told.stdout.split()) == (0, ["heard"]), told.stderr


def test_the_card_tells_what_was_measured(card: BundleCard, directory: Path) -> None:
    runtime = card.json_value()["runtime"]
    assert set(runtime["candidates"]) == set(here(directory))
    speeds = {
        n: overall(c["texts_per_second"]) for n, c in runtime["candidates"].items() if c["good"]
    }
    assert runtime["chosen"] == max(speeds, key=lambda name: speeds[name])
    for candidate in runtime["candidates"].values():
        assert {shape.split("x")[0] for shape in candidate["texts_per_second"]} == {"1", "16"}
        below = [runtime["trainer"][task] - value for task, value in candidate["metrics"].items()]
        assert candidate["good"] == (max(below) <= 0.003 and len(below) == 2)
    for name in ("torch-fp32", "onnxruntime-fp32"):
        assert runtime["candidates"][name]["difference"] < 1e-3
        assert runtime["candidates"][name]["metrics"] == runtime["trainer"]


def test_a_runtime_that_is_not_as_good_is_not_chosen(
    tiny_bundle: Path, card: BundleCard, tmp_path: Path
) -> None:
    """The trainer's recorded probabilities are all right and what every runtime says is wrong: then
    torch answers.
    """
    shutil.copytree(tiny_bundle, tmp_path / "bundle")
    texts = [f"good film {n}" for n in range(40)]
    session = Session.open(tiny_bundle, card, "torch-fp32")
    # the opposite
    truth = (session.sentiment(texts) < session.sentiment_threshold).astype(np.float32)[:, None]
    trainer = np.where(truth > 0, 0.99, 0.01).astype(np.float32)
    judged = {"sentiment": Judged(texts, truth, trainer)}
    found = compile_bundle(tmp_path / "bundle", card, judged).model_dump()
    assert found["trainer"] == {"sentiment": 1.0}
    assert found["chosen"] == "torch-fp32"
    for name, candidate in found["candidates"].items():
        assert candidate["metrics"]["sentiment"] < 0.2
        assert candidate["difference"] > 0.4
        assert candidate["good"] == (name == "torch-fp32"), name


def test_the_recorded_runtime_answers_on_its_processor(
    tiny_bundle: Path, card: BundleCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(engines.VARIABLE, raising=False)
    assert choose(card, tiny_bundle) == card.runtime.chosen == Session.load(tiny_bundle).runtime


def test_another_processor_measures_again_and_takes_none_that_is_not_good(
    tiny_bundle: Path, card: BundleCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(engines.VARIABLE, raising=False)
    other = card.json_value()
    other["runtime"]["processor"] = "another"
    good = {name for name, c in other["runtime"]["candidates"].items() if c["good"]}
    assert choose(BundleCard.parse(other), tiny_bundle) in good
    slow, fast = "torch-fp32", "onnxruntime-fp32"
    for name, candidate in other["runtime"]["candidates"].items():
        candidate["good"] = name in (slow, fast)
        candidate["texts_per_second"] = dict.fromkeys(
            candidate["texts_per_second"], 10.0 if name == slow else 1000.0
        )
    other["runtime"]["chosen"] = fast
    assert choose(BundleCard.parse(other), tiny_bundle) == fast
    other["runtime"]["candidates"][fast]["good"] = False
    other["runtime"]["chosen"] = slow
    assert choose(BundleCard.parse(other), tiny_bundle) == slow


def test_where_the_chosen_one_is_missing_a_slow_one_answers_rather_than_torch(
    tiny_bundle: Path, card: BundleCard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(engines.VARIABLE, raising=False)
    monkeypatch.setattr(engines, "available", lambda name, directory: name == "onnxruntime-fp32")
    other = card.json_value()
    for name, candidate in other["runtime"]["candidates"].items():
        candidate["good"] = True
        speed = 10.0 if name == "onnxruntime-fp32" else 1000.0
        candidate["texts_per_second"] = dict.fromkeys(candidate["texts_per_second"], speed)
    other["runtime"]["chosen"] = "torch-bf16"
    assert choose(BundleCard.parse(other), tiny_bundle) == "onnxruntime-fp32"


def test_where_onnx_runtime_is_not_installed_torch_answers_and_says_so(
    tiny_bundle: Path,
    card: BundleCard,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.delenv(engines.VARIABLE, raising=False)
    for program in ("onnxruntime", "openvino"):
        monkeypatch.setitem(sys.modules, program, None)  # what Python does where there is none
    for chosen in ("onnxruntime-int8", "onnxruntime-fp32"):
        other = card.json_value()
        other["runtime"]["chosen"] = chosen
        other["runtime"]["candidates"][chosen]["good"] = True
        caplog.clear()
        answers = choose(BundleCard.parse(other), tiny_bundle)
        assert answers.startswith("torch-")
        assert f"{chosen}, the fastest where the bundle was made, cannot run here" in caplog.text
        assert f"; {answers} answers" in caplog.text
        assert Session.open(tiny_bundle, card, answers).sentiment(TEXTS).shape == (len(TEXTS),)
    monkeypatch.setenv(engines.VARIABLE, "onnxruntime-fp32")
    with pytest.raises(TasteloopError, match="needs onnxruntime, which is not installed"):
        Session.load(tiny_bundle)


def test_the_variable_forces(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(engines.VARIABLE, "onnxruntime-int8")
    assert Session.load(tiny_bundle).runtime == "onnxruntime-int8"
    monkeypatch.setenv(engines.VARIABLE, "onnx")
    with pytest.raises(
        TasteloopError, match="TASTELOOP_RUNTIME=onnx: no such runtime; known: torch-fp32"
    ):
        Session.load(tiny_bundle)


def test_a_forced_runtime_without_its_file_says_so(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)
    for path in bundle.rglob("encoder.onnx"):
        path.unlink()
    with pytest.raises(
        TasteloopError, match="has no encoder.onnx, which runtime onnxruntime-fp32 reads"
    ):
        Session.open(bundle, BundleCard.read(bundle), "onnxruntime-fp32")


def test_a_bundle_from_before_engines_is_read_by_torch(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)
    for path in bundle.rglob("*.onnx"):
        path.unlink()
    card = read_json(bundle / "card.json")
    del card["runtime"]
    (bundle / "card.json").write_text(json.dumps(card))
    seal(bundle)
    assert Session.load(bundle).runtime == "torch-fp32"


def test_a_changed_onnx_file_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)
    path = next(bundle.rglob("encoder.int8.onnx"))
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    with pytest.raises(TasteloopError, match=r"encoder\.int8\.onnx is changed"):
        Session.load(bundle)


WITHOUT_TORCH = """
import json, sys
from pathlib import Path
from tasteloop.runtime.session import Session
session = Session.load(Path(sys.argv[1]))
session.answer("recommend", [{"events": [{"kind": "click", "item": "i1"}]}])
session.answer("sentiment", [{"text": "good film"}])
print(json.dumps([name for name in ("torch", "transformers") if name in sys.modules]))
"""


def test_onnx_runtime_answers_without_torch(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(engines.VARIABLE, "onnxruntime-fp32")
    told = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(tiny_bundle)],
        cwd=HOUSE,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(told.stdout) == []


def test_the_cache_finds_what_was_read(directory: Path) -> None:
    encoder = Encoder(directory, "onnxruntime-fp32", cache_megabytes=1)
    first = encoder.pool([*TEXTS, TEXTS[0]], 64)
    assert np.array_equal(first[0], first[-1])
    assert (encoder.cache.hits, encoder.cache.misses, len(encoder.cache)) == (
        0,
        len(TEXTS) + 1,
        len(TEXTS),
    )
    assert np.array_equal(encoder.pool(TEXTS, 64), first[:-1])
    assert encoder.cache.hits == len(TEXTS)
    encoder.pool(TEXTS[:1], 8)  # another budget is another text
    assert encoder.cache.hits == len(TEXTS)


def test_the_cache_forgets_the_longest_unread() -> None:
    cache = TextCache[str](3)
    cache.of(["a", "b", "c"], lambda new: new)
    cache.of(["a"], lambda new: new)
    cache.of(["d"], lambda new: new)
    assert len(cache) == 3

    read: list[str] = []
    cache.of(["a", "b", "c", "d"], lambda new: [read.append(text) or text for text in new])
    assert read == ["b"]


def test_mapped_arrays_are_the_librarys_and_cannot_be_written(tiny_bundle: Path) -> None:
    from safetensors.numpy import load_file

    path = tiny_bundle / "recommender.safetensors"
    mapped, expected = mapped_arrays(path), load_file(path)
    assert set(mapped) == set(expected)
    for name, array in expected.items():
        assert mapped[name].dtype == array.dtype
        assert np.array_equal(mapped[name], array)
        assert not mapped[name].flags.writeable


def test_batches_are_of_like_lengths_and_hold_everything_once() -> None:
    from tasteloop.encoder.batches import sorted_batches

    lengths = np.array([40, 10, 11, 14, 39, 100, 12, 10])
    batches = [lengths[rows].tolist() for rows in sorted_batches(lengths, 3, 1.2)]
    assert batches == [[10, 10, 11], [12, 14], [39, 40], [100]]
    assert [lengths[rows].tolist() for rows in sorted_batches(lengths, 5)] == [
        [10, 10, 11, 12, 14],
        [39, 40, 100],
    ]
    assert list(sorted_batches(np.zeros(0, np.int64), 4)) == []
