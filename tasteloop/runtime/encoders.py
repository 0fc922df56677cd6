"""An encoder with its tokenizer and heads, and what was made of texts that were read before."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from tasteloop.bundle.arrays import mapped_arrays
from tasteloop.encoder.batches import load_tokenizer, sorted_batches, tokenize
from tasteloop.files import read_json
from tasteloop.runtime.choice import speed
from tasteloop.runtime.engines import Ids, Matrix, Runner
from tasteloop.runtime.stages import count, stage

# A batch ends before a length beyond so many times its shortest: on two cores a batch gains less
# than it loses by padding to twice the length.
_SPREAD = 1.2


V = TypeVar("V")


class TextCache(Generic[V]):
    """Keeps a result for each text that was read, by a salted hash; safe to share between threads.

    Args:
        capacity: of so many texts, the least recently used go first; 0: none is kept.
        counted: whether hits and misses are among what is measured of a request.

    Attributes:
        hits, misses: how many texts were here, and how many had to be read.

    >>> cache = TextCache[int](2)
    >>> cache.of(["a", "bb", "a"], lambda new: [len(text) for text in new])
    [1, 2, 1]
    >>> cache.of(["a"], lambda new: [0 for _ in new])
    [1]
    """

    def __init__(self, capacity: int, counted: bool = False) -> None:
        self.capacity, self._counted = capacity, counted
        self.hits = self.misses = 0
        self._salt = os.urandom(16)  # so that no key tells a text to who reads the memory
        self._values: OrderedDict[bytes, V] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def of(
        self, texts: Sequence[str], read: Callable[[list[str]], Sequence[V]], how: str = ""
    ) -> list[V]:
        """What is made of texts [n]; one that is there twice is read once.

        Args:
            read: makes it of the texts that are not here.
            how: a further part of the key, such as the most tokens that are read.
        """
        # 1. what was read before
        keys = [self._key(f"{how} {text}") for text in texts]
        found = self._get(keys)
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in found}

        # 2. what is new
        if new:
            made = dict(zip(new, read(list(new.values())), strict=True))
            self._put(made)
            found |= made
        return [found[key] for key in keys]

    def _key(self, text: str) -> bytes:
        content = text.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(content, digest_size=16, key=self._salt).digest()

    def _get(self, keys: Sequence[bytes]) -> dict[bytes, V]:
        with self._lock:
            found = {key: self._values[key] for key in keys if key in self._values}
            for key in found:
                self._values.move_to_end(key)
            hits = sum(key in found for key in keys)
            self.hits += hits
            self.misses += len(keys) - hits
        if self._counted:
            count("cache_hits", hits)
            count("cache_misses", len(keys) - hits)
        return found

    def _put(self, made: Mapping[bytes, V]) -> None:
        with self._lock:
            for key, value in made.items():
                self._values[key] = value
                self._values.move_to_end(key)
            while len(self._values) > self.capacity:
                self._values.popitem(last=False)


class Encoder:
    """One model of a bundle: tokenizer, engine, heads.

    Args:
        directory: `models/<name>`.
        runtime: one of `RUNTIMES`.
        cache_megabytes: room for the vectors of texts that were read before; 0: none.
    """

    def __init__(self, directory: Path, runtime: str, cache_megabytes: float = 0) -> None:
        self._tokenizer = load_tokenizer(directory)
        self._lock = threading.Lock()  # a tokenizer's truncation is a setting of the object
        self._runner = Runner(runtime, directory)
        self._heads = mapped_arrays(directory / "heads.safetensors")
        self.width = int(read_json(directory / "config.json")["hidden_size"])
        a_vector = 4 * self.width + 200  # bytes; 200: key and bookkeeping
        self.cache = TextCache[Matrix](int(cache_megabytes * 2**20 / a_vector), counted=True)

    def pool(self, texts: Sequence[str], max_tokens: int) -> Matrix:
        """Pooled vectors [n, width]; a text that is there twice is read once."""

        def read(new: list[str]) -> list[Matrix]:
            # a view that is kept would keep its whole batch
            return [vector.copy() for vector in self._read(new, max_tokens)]

        return np.stack(self.cache.of(texts, read, str(max_tokens)))

    @cached_property
    def words(self) -> list[str]:
        """The whole words of the tokenizer's vocabulary, in its order: the most frequent first."""
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=False)
        return [word for word in sorted(vocabulary, key=vocabulary.__getitem__) if word.isalpha()]

    def tokens(self, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
        """Token ids of each text."""
        with self._lock:
            return tokenize(self._tokenizer, texts, max_tokens)

    def _read(self, texts: list[str], max_tokens: int) -> Matrix:
        with stage("tokenise"):
            ids = self.tokens(texts, max_tokens)
        out = np.empty((len(ids), self.width), np.float32)
        with stage("encode"):
            lengths = np.array([len(row) for row in ids])
            # the longest first
            batches = list(sorted_batches(lengths, self._runner.most(len(ids)), _SPREAD))[::-1]
            multiple = self._runner.multiple
            calls = [_padded([ids[row] for row in batch], multiple) for batch in batches]
            for batch, vectors in zip(batches, self._runner(calls), strict=True):
                out[batch] = vectors
        return out

    def speed(self, shapes: Sequence[tuple[int, int]], seconds: float) -> dict[str, float]:
        """Of its engine, see `speed`."""
        return speed(self._runner, shapes, seconds)

    def logits(self, task: str, pooled: Matrix) -> Matrix:
        """[n, width] -> [n, outputs of the task]."""
        out: Matrix = pooled @ self._heads[f"{task}.weight"].T + self._heads[f"{task}.bias"]
        return out


def _padded(ids: Sequence[Sequence[int]], multiple: int) -> tuple[Ids, Ids]:
    """Token ids of unequal lengths -> ids [n, t] and mask [n, t], padded to the longest's next
    multiple.
    """
    lengths = np.array([len(row) for row in ids])
    mask = (np.arange(-(-lengths.max() // multiple) * multiple) < lengths[:, None]).astype(np.int64)
    out = np.zeros_like(mask)
    out[mask > 0] = np.concatenate([np.asarray(row, np.int64) for row in ids])
    return out, mask
