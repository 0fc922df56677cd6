"""A tiny encoder and a tiny data set with a pattern in it: real ones, made in a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

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


def make_encoder(folder: Path) -> None:
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
        *(label.lower() for label in LABELS),
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
    model = BertModel(config, add_pooling_layer=False)
    config.save_pretrained(folder)
    save_file(
        {k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors"
    )
    tokenizer.save(str(folder / "tokenizer.json"))


def make_dataset(folder: Path) -> None:
    """60 users who each like two of four labels, 40 items, 120 reviews: a data set directory as
    ingest writes it.
    """
    rng = np.random.default_rng(0)
    items = [f"i{n}" for n in range(40)]
    labels_of = [
        [LABELS[n % 4]] if n % 3 else [LABELS[n % 4], LABELS[(n + 1) % 4]] for n in range(40)
    ]
    events = []
    for user in range(60):
        tastes = {LABELS[user % 4], LABELS[(user + 1) % 4]}
        start = 1_700_000_000_000_000 + user * 40_000_000_000
        for n, item in enumerate(rng.permutation(40)[:30]):
            liked = bool(tastes & set(labels_of[item])) == (rng.random() < 0.9)
            time = start + n * 60_000_000
            events.append((f"{user:032x}", items[item], "rate", time, 1.0 if liked else 0.25, None))
    reviews = [
        (f"r{n}", f"{'good' if n % 2 else 'bad'} film {n}", n % 2, None, "mine") for n in range(120)
    ]
    write_parquet(
        folder / "events.parquet",
        pl.DataFrame(events, schema=dict(EVENTS_SCHEMA.to_polars()), orient="row"),
    )
    table = [(i, f"Title {n}", labels_of[n], None, "film", None) for n, i in enumerate(items)]
    write_parquet(
        folder / "items.parquet",
        pl.DataFrame(table, schema=dict(ITEMS_SCHEMA.to_polars()), orient="row"),
    )
    write_parquet(
        folder / "reviews.parquet",
        pl.DataFrame(reviews, schema=dict(REVIEWS_SCHEMA.to_polars()), orient="row"),
    )
    write_json(folder / "ingest.json", {"source": "made in a test", "sha256": "0" * 64})
