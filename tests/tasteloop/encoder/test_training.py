"""The loop: it learns, stops, and resumes to the same weights. In company: test_company.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from tasteloop.behaviour.snapshots import Snapshots
from tasteloop.encoder import checkpoint
from tasteloop.encoder.batches import (
    TaskData,
    TokenIds,
    length_buckets,
    load_tokenizer,
    pad,
    tokenize,
    tokenize_blocks,
)
from tasteloop.encoder.calibration import apply_calibration, calibrate
from tasteloop.encoder.loop import Trained, _turn, train
from tasteloop.encoder.model import TasteModel, load, load_encoder, save
from tasteloop.encoder.settings import TrainingSettings
from tasteloop.encoder.training import _tasks, finetune
from tasteloop.errors import TasteloopError
from tasteloop.files import read_json

SETTINGS = TrainingSettings(
    epochs=2,
    batch_size=8,
    learning_rate=1e-3,
    frozen_layers=0,
    tensorboard=False,
    checkpoint_seconds=0,
)


def task(name: str = "interests", outputs: int = 2) -> TaskData:
    """Sequences of 4 to 12 tokens; the first output is whether token 40 is among them."""
    rng = np.random.default_rng(1)
    ids = [[2, *rng.integers(30, 50, rng.integers(2, 11)).tolist(), 3] for _ in range(96)]
    targets = np.zeros((96, outputs), np.float32)
    targets[:, 0] = [40 in row for row in ids]
    targets[:, -1] = rng.integers(0, 2, 96) if outputs > 1 else targets[:, 0]
    return TaskData(name, TokenIds(ids), targets, np.arange(72), np.arange(72, 96))


def fresh(encoder: Path, frozen: int = 0, heads: dict[str, int] | None = None) -> TasteModel:
    torch.manual_seed(0)
    return TasteModel(load_encoder(encoder), heads or {"interests": 2}, frozen)


def weights(model: TasteModel) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters()}


def test_loss_falls_and_the_frozen_stay(tiny_encoder: Path, tmp_path: Path) -> None:
    model = fresh(tiny_encoder, frozen=1)
    before = weights(model)
    result = train(
        model,
        [task()],
        SETTINGS.model_copy(update={"epochs": 6, "patience": 6, "frozen_layers": 1}),
        tmp_path,
    )
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert not any(
        n.startswith(("encoder.embeddings", "encoder.encoder.layer.0.")) for n in changed
    )
    assert any(n.startswith("encoder.encoder.layer.1.") for n in changed)
    assert result.history[-1]["mean"] > 0.5
    assert isinstance(result, Trained)


def test_what_the_frozen_layers_say_is_kept_or_recomputed_alike(
    tiny_encoder: Path, tmp_path: Path
) -> None:
    kept, recomputed = fresh(tiny_encoder, 1), fresh(tiny_encoder, 1)
    settings = SETTINGS.model_copy(update={"frozen_layers": 1, "epochs": 1})
    a = train(kept, [task()], settings, tmp_path / "a")
    b = train(
        recomputed, [task()], settings.model_copy(update={"cache_megabytes": 0}), tmp_path / "b"
    )
    assert np.allclose(a.logits["interests"], b.logits["interests"], atol=2e-2)  # half precision


def test_a_killed_run_carries_on_to_the_same_weights(
    tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fresh(tiny_encoder)
    train(whole, [task()], SETTINGS, tmp_path / "whole")

    saves = 0
    save_really = checkpoint.Checkpoint.save

    def save_then_die(self: Any, *arguments: Any) -> None:
        nonlocal saves
        save_really(self, *arguments)
        saves += 1
        if saves == 5:  # in the middle of the first epoch
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint.Checkpoint, "save", save_then_die)
    with pytest.raises(KeyboardInterrupt):
        train(fresh(tiny_encoder), [task()], SETTINGS, tmp_path / "killed")
    monkeypatch.setattr(checkpoint.Checkpoint, "save", save_really)
    resumed = fresh(tiny_encoder)
    train(resumed, [task()], SETTINGS, tmp_path / "killed")
    for name, value in weights(whole).items():
        assert torch.allclose(value, weights(resumed)[name], atol=1e-6), name


@pytest.mark.parametrize("damage", ["truncate", "other data"])
def test_a_checkpoint_that_does_not_fit_is_not_used(
    tiny_encoder: Path, tmp_path: Path, damage: str
) -> None:
    train(fresh(tiny_encoder), [task()], SETTINGS, tmp_path)
    settings = SETTINGS
    if damage == "truncate":
        (tmp_path / "checkpoint" / "weights.safetensors").write_bytes(b"half")
    else:
        settings = SETTINGS.model_copy(update={"seed": 7})
    result = train(fresh(tiny_encoder), [task()], settings, tmp_path)
    assert result.texts == 2 * 72, "every step was taken again"


def test_training_stops_when_validation_does(tiny_encoder: Path, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(
        update={"epochs": 50, "learning_rate": 1e-12, "head_learning_rate": 1e-12}
    )
    assert len(train(fresh(tiny_encoder), [task()], settings, tmp_path).history) < 50


def test_batches_hold_every_row_once_and_like_lengths() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 1000)
    batches = length_buckets(lengths, np.arange(1000), 10, np.random.default_rng(1))
    assert sorted(np.concatenate(batches).tolist()) == list(range(1000))
    spread = np.mean([np.ptp(lengths[b]) for b in batches])
    assert spread < 20


def test_save_then_load_changes_nothing(tiny_encoder: Path, tmp_path: Path) -> None:
    model = fresh(tiny_encoder, heads={"interests": 3, "sentiment": 1}).eval()
    save(model, tmp_path)
    ids = torch.randint(5, 50, (4, 7))
    mask = torch.tensor([[1] * n + [0] * (7 - n) for n in (7, 5, 1, 3)])
    loaded = load(tmp_path)
    with torch.inference_mode():
        assert torch.equal(model(ids, mask), loaded(ids, mask))
        assert torch.equal(
            model.logits("interests", model(ids, mask)),
            loaded.logits("interests", loaded(ids, mask)),
        )


def test_padding_changes_nothing(tiny_encoder: Path) -> None:
    model = fresh(tiny_encoder).eval()
    ids = torch.randint(5, 50, (1, 6))
    padded = torch.cat([ids, torch.zeros(1, 5, dtype=torch.int64)], 1)
    mask = torch.tensor([[1] * 6 + [0] * 5])
    with torch.inference_mode():
        assert torch.allclose(model(ids, torch.ones(1, 6)), model(padded, mask), atol=1e-5)


def test_padding_changes_nothing_where_another_id_pads(tmp_path: Path) -> None:
    """RoBERTa's positions begin after its padding's id, 1, and id 0 is a token; batches are padded
    with 0 anyway.
    """
    from transformers import RobertaConfig, RobertaModel

    config = RobertaConfig(
        vocab_size=60,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        pad_token_id=1,
    )
    torch.manual_seed(0)
    RobertaModel(config, add_pooling_layer=False).save_pretrained(tmp_path)
    model = fresh(tmp_path).eval()
    rows = [[0, *range(10, 10 + n), 2] for n in (9, 4, 1)]
    with torch.inference_mode():
        together = model(*pad(rows))
        alone = torch.cat([model(*pad([row])) for row in rows])
        theirs = RobertaModel.from_pretrained(tmp_path, add_pooling_layer=False).eval()
        expected = torch.cat(
            [theirs(torch.tensor([row])).last_hidden_state.mean(1) for row in rows]
        )
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.allclose(alone, expected, atol=1e-5)


def test_special_tokens_are_those_of_the_tokenizer_in_blocks_of_texts_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    pieces = [
        ("<s>", 0.0),
        ("<pad>", 0.0),
        ("</s>", 0.0),
        ("<unk>", 0.0),
        ("▁很", -1.0),
        ("好", -1.0),
        ("很", -2.0),
    ]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3, byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    loaded = load_tokenizer(tmp_path)
    texts = ["很好", "很好很好", "x"]
    ids = tokenize(loaded, texts, 5)
    assert ids == [[0, 4, 5, 2], [0, 4, 5, 6, 2], [0, 3, 2]]

    monkeypatch.setattr("tasteloop.encoder.batches._TEXTS", 2)
    in_blocks = TokenIds(tokenize_blocks(loaded, texts, 5))
    assert [in_blocks[text].tolist() for text in range(3)] == ids
    assert in_blocks.lengths.tolist() == [4, 5, 3]


def test_the_encoder_is_the_one_that_transformers_runs(tiny_encoder: Path) -> None:
    from transformers import AutoModel

    ids = torch.randint(5, 50, (2, 6))
    mask = torch.tensor([[1] * 6, [1] * 3 + [0] * 3])
    theirs = AutoModel.from_pretrained(tiny_encoder).eval()
    with torch.inference_mode():
        hidden = theirs(input_ids=ids, attention_mask=mask).last_hidden_state
        expected = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        assert torch.allclose(fresh(tiny_encoder).eval()(ids, mask), expected, atol=1e-5)


def test_calibration_undoes_overconfidence() -> None:
    rng = np.random.default_rng(0)
    p = rng.uniform(0.05, 0.95, (4000, 1))
    truth = (rng.random(p.shape) < p).astype(np.float32)
    shouted = (3 * np.log(p / (1 - p)) + 1).astype(np.float32)
    calibration = calibrate(shouted, truth)
    assert calibration.slope == pytest.approx(1 / 3, abs=0.03)
    assert np.abs(apply_calibration(shouted, calibration) - p).mean() < 0.02
    assert 0.4 < calibration.thresholds[0] < 0.6


def test_apart_makes_an_encoder_for_each_task(
    tiny_encoder: Path, tiny_snapshots: Path, tmp_path: Path
) -> None:
    settings = SETTINGS.model_copy(
        update={
            "encoder": str(tiny_encoder),
            "together": False,
            "epochs": 1,
            "intent_texts": 300,
        }
    )
    finetune(tiny_snapshots, settings, tmp_path / "model", tmp_path / "work")
    names = ["interests", "sentiment", "intent", "encoder"]
    report = read_json(tmp_path / "model" / "training.json")
    assert list(report["models"]) == names, "the first reads behaviour"
    assert sorted(p.name for p in (tmp_path / "model" / "models").iterdir()) == sorted(names)
    assert report["tasks"]["sentiment"]["model"] == "sentiment"
    assert report["tasks"]["intent"]["model"] == "intent"


def test_the_encoder_as_it_was_published_is_kept_beside_even_where_a_tuned_one_is_tuned_again(
    tiny_model: Path, tiny_encoder: Path, tiny_snapshots: Path, tmp_path: Path
) -> None:
    published, first = load_file(tiny_encoder / "model.safetensors"), tiny_model / "models"
    tuned = first / "interests+sentiment+intent"
    settings = SETTINGS.model_copy(
        update={"encoder": str(tuned), "epochs": 1, "intent_texts": 300, "snapshots_an_epoch": 20}
    )

    finetune(tiny_snapshots, settings, tmp_path / "model", tmp_path / "work")

    for models in (first, tmp_path / "model" / "models"):
        assert sorted(p.name for p in models.iterdir()) == ["encoder", tuned.name]
        kept = load_file(models / "encoder" / "model.safetensors")
        assert kept.keys() == published.keys()
        assert all(np.array_equal(kept[name], published[name]) for name in kept)
    again = load_file(tuned / "model.safetensors")
    assert any(not np.array_equal(again[name], published[name]) for name in published), "was tuned"


def test_more_frozen_layers_than_there_are_is_refused(tiny_encoder: Path) -> None:
    with pytest.raises(TasteloopError, match=r"frozen_layers is 3, but the encoder has 2"):
        fresh(tiny_encoder, frozen=3)


def test_each_epoch_takes_its_turn_of_the_snapshots() -> None:
    settings = SETTINGS.model_copy(update={"snapshots_an_epoch": 30})
    turns = [_turn(task(), settings, epoch) for epoch in range(3)]
    assert [len(t) for t in turns] == [30, 30, 30]
    assert len(set(np.concatenate(turns[:2]).tolist())) == 60, "nobody twice before everybody once"
    assert set(np.concatenate(turns).tolist()) == set(range(72))


def test_words_are_put_into_the_stated_share_of_training_snapshots_and_into_no_others(
    tiny_encoder: Path, tiny_snapshots: Path
) -> None:
    data, tokenizer = Snapshots.read(tiny_snapshots), load_tokenizer(tiny_encoder)

    silent, speaking = (
        next(_tasks(data, tokenizer, SETTINGS.model_copy(update={"speech_share": share})))
        for share in (0.0, 0.5)
    )

    changed = np.array(
        [
            silent.ids[row].tolist() != speaking.ids[row].tolist()
            for row in range(len(silent.targets))
        ]
    )
    assert not changed[speaking.validation].any()
    # one that wrote of an item beyond the words that a text has room for reads as before
    assert 0.35 < changed[speaking.train].mean() <= 0.5
    assert np.array_equal(silent.targets, speaking.targets)


def test_each_epoch_takes_other_clauses() -> None:
    settings = SETTINGS.model_copy(update={"epochs": 3})
    turns = [_turn(task("intent"), settings, epoch) for epoch in range(3)]
    assert sorted(np.concatenate(turns).tolist()) == list(range(72))


def test_what_phrases_teach_does_not_decide_which_epoch_is_kept(
    tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = iter([{"interests": 0.6, "intent": 0.9}, {"interests": 0.7, "intent": 0.1}])
    monkeypatch.setattr("tasteloop.encoder.loop._validate", lambda *_: ({}, next(measured, {})))
    model = fresh(tiny_encoder, heads={"interests": 2, "intent": 2})

    result = train(model, [task(), task("intent")], SETTINGS, tmp_path)

    assert [epoch["mean"] for epoch in result.history] == [0.6, 0.7]
