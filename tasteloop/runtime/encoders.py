"""An encoder with its tokenizer and heads, and the vectors of the texts that it read before."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

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


class VectorCache:
    """The last pooled vectors by a hash of their text; safe to share between threads.

    Attributes:
        hits, misses: how many texts had a vector here, and how many had none.
    """

    def __init__(self, megabytes: float, width: int) -> None:
        self.capacity = int(megabytes * 2**20 / (4 * width + 200))  # 200: key and bookkeeping
        self.hits = self.misses = 0
        self._salt = os.urandom(16)  # so that no key tells a text to who reads the memory
        self._vectors: OrderedDict[bytes, Matrix] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._vectors)

    def key(self, text: str, max_tokens: int) -> bytes:
        content = f"{max_tokens} {text}".encode("utf-8", "surrogatepass")
        return hashlib.blake2b(content, digest_size=16, key=self._salt).digest()

    def get(self, keys: Sequence[bytes]) -> list[Matrix | None]:
        with self._lock:
            vectors = [self._vectors.get(key) for key in keys]
            for key, vector in zip(keys, vectors, strict=True):
                if vector is not None:
                    self._vectors.move_to_end(key)
            hits = sum(vector is not None for vector in vectors)
            misses = len(keys) - hits
            self.hits += hits
            self.misses += misses
            count("cache_hits", hits)
            count("cache_misses", misses)
            return vectors

    def put(self, keys: Sequence[bytes], vectors: Matrix) -> None:
        with self._lock:
            for key, vector in zip(keys, vectors, strict=True):
                self._vectors[key] = vector.copy()  # a view would keep its whole batch
                self._vectors.move_to_end(key)
            while len(self._vectors) > self.capacity:
                self._vectors.popitem(last=False)


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
        self.cache = VectorCache(cache_megabytes, self.width)

    def pool(self, texts: Sequence[str], max_tokens: int) -> Matrix:
        """Pooled vectors [n, width]; a text that is there twice is read once."""
        # 1. what was read before
        keys = [self.cache.key(text, max_tokens) for text in texts]
        vector_of: dict[bytes, Matrix] = {}
        new: dict[bytes, str] = {}
        for key, text, vector in zip(keys, texts, self.cache.get(keys), strict=True):
            if vector is None:
                new[key] = text
            else:
                vector_of[key] = vector

        # 2. what is new
        if new:
            computed = self._read(list(new.values()), max_tokens)
            self.cache.put(list(new), computed)
            vector_of.update(zip(new, computed, strict=True))
        return np.stack([vector_of[key] for key in keys])

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
