"""Tiny but real: an encoder that is made here, behaviour with a pattern in it, and the bundle
trained on them.
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, settings

from tasteloop.behaviour.events import EVENTS_SCHEMA
from tasteloop.behaviour.items import ITEMS_SCHEMA, REVIEWS_SCHEMA
from tasteloop.files import write_json, write_parquet

LABELS = ("Comedy", "Crime", "Drama", "War")
WORDS = (
    "mostly",
    "of",
    "events",
    "liked",
    "disliked",
    "tried",
    "viewed",
    "no",
    "history",
    "good",
    "bad",
    "film",
)

settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("fuzz", parent=settings.get_profile("any machine"), max_examples=20_000)
settings.load_profile("any machine")  # `make fuzz` asks for the other with --hypothesis-profile

# kfp asks `inspect.stack` for its caller's name in every setter of a task; under pytest's many
# frames the source lines that come with it, and that it does not want, take a second each time.
inspect.stack = lambda context=1: inspect.getouterframes(sys._getframe(1), 0)


@pytest.fixture(scope="session")
def tiny_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer BERT, 32 wide, with random weights and a word-piece vocabulary of letters and a
    few words.
    """
    import torch
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import BertConfig, BertModel

    letters = [chr(c) for c in range(33, 127)]
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    tokens = [
        *special,
        *WORDS,
        *(x.lower() for x in LABELS),
        *letters,
        *("##" + c for c in letters),
    ]
    vocabulary = {token: n for n, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
    )
    folder = tmp_path_factory.mktemp("encoder")
    model = BertModel(config, add_pooling_layer=False)
    config.save_pretrained(folder)
    save_file(
        {k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors"
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 users who each like two of four labels, 40 items, 120 reviews: a data set directory as
    ingest writes it.
    """
    rng = np.random.default_rng(0)
    items = [f"i{n}" for n in range(40)]
    bears = [[LABELS[n % 4]] if n % 3 else [LABELS[n % 4], LABELS[(n + 1) % 4]] for n in range(40)]
    events = []
    for user in range(60):
        tastes = {LABELS[user % 4], LABELS[(user + 1) % 4]}
        start = 1_700_000_000_000_000 + user * 40_000_000_000
        for n, item in enumerate(rng.permutation(40)[:30]):
            liked = bool(tastes & set(bears[item])) == (rng.random() < 0.9)
            time = start + n * 60_000_000
            events.append((f"{user:032x}", items[item], "rate", time, 1.0 if liked else 0.25, None))
    reviews = [(f"r{n}", f"{'good' if n % 2 else 'bad'} film {n}", n % 2, None) for n in range(120)]
    out = tmp_path_factory.mktemp("dataset")
    write_parquet(
        out / "events.parquet",
        pl.DataFrame(events, schema=dict(EVENTS_SCHEMA.to_polars()), orient="row"),
    )
    table = [(i, f"Title {n}", bears[n], None, "film", None) for n, i in enumerate(items)]
    write_parquet(
        out / "items.parquet",
        pl.DataFrame(table, schema=dict(ITEMS_SCHEMA.to_polars()), orient="row"),
    )
    write_parquet(
        out / "reviews.parquet",
        pl.DataFrame(reviews, schema=dict(REVIEWS_SCHEMA.to_polars()), orient="row"),
    )
    write_json(out / "ingest.json", {"source": "made in a test", "sha256": "0" * 64})
    return out


@pytest.fixture(scope="session")
def tiny_snapshots(tiny_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tasteloop.behaviour.snapshots import PrepareSettings, prepare

    out = tmp_path_factory.mktemp("prepared") / "snapshots"
    prepare(tiny_dataset, PrepareSettings(horizon=5, stride=5), out)
    return out


@pytest.fixture(scope="session")
def tiny_model(
    tiny_encoder: Path, tiny_snapshots: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    from tasteloop.encoder.training import TrainingSettings, finetune

    folder = tmp_path_factory.mktemp("trained")
    settings = TrainingSettings(
        encoder=str(tiny_encoder),
        epochs=2,
        frozen_layers=0,
        learning_rate=1e-3,
        batch_size=16,
        tensorboard=False,
    )
    finetune(tiny_snapshots, settings, folder / "model", folder / "work")
    return folder / "model"


@pytest.fixture(scope="session")
def tiny_bundle(
    tiny_model: Path, tiny_snapshots: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A sealed bundle that answers for all three models."""
    from tasteloop.recommender.fitting import RecommenderSettings
    from tasteloop.runtime.assemble import fit_recommender

    out = tmp_path_factory.mktemp("bundled") / "bundle"
    fit_recommender(tiny_model, tiny_snapshots, RecommenderSettings(), out)
    assert json.loads((out / "golden.json").read_text())["questions"]
    return out
