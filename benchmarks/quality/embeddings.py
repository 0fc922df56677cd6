"""Texts as vectors by encoders as they were published, each text read once and kept on disk by its
content.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
from numpy.typing import NDArray

from tasteloop.files import make_directory, sha256_file

Matrix = NDArray[np.float32]

MAX_TOKENS = 96  # of a film's text 90% have at most 82 tokens, of which people come last
BATCH = 32
CHUNK = 512  # texts between two writes: what a killed run loses at most


@dataclass
class EncoderVectors:
    """Mean-pooled vectors of length 1 by one encoder.

    Attributes:
        directory: of the encoder, as the catalogue keeps it.
        kept: where vectors are kept, a file for each chunk of texts.
        report: called with the number of texts read and to read, as they are read.
    """

    directory: Path
    kept: Path
    report: Callable[[int, int], None] = lambda done, total: None
    _vector_of: dict[str, Matrix] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        from tasteloop.runtime.machine import has_bf16

        weights = sha256_file(self.directory / "model.safetensors")[:16]
        self.precision = "bf16" if has_bf16() else "fp32"
        self.kept = self.kept / f"{weights}-{MAX_TOKENS}-{self.precision}"
        for path in sorted(self.kept.glob("*.npz")):
            with np.load(path, allow_pickle=False) as chunk:
                self._vector_of.update(zip(chunk["keys"].tolist(), chunk["vectors"], strict=True))

    def vectors(self, texts: Sequence[str]) -> Matrix:
        """[n, width]; texts that were read before, in any run, are not read again."""
        keys = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
        missing = {
            key: text for key, text in zip(keys, texts, strict=True) if key not in self._vector_of
        }
        if missing:
            self._read(missing)
        return np.stack([self._vector_of[key] for key in keys])

    def _read(self, missing: dict[str, str]) -> None:
        import torch
        from transformers import AutoModel, AutoTokenizer

        tokenizer: Any = AutoTokenizer.from_pretrained(self.directory, local_files_only=True)
        model: Any = AutoModel.from_pretrained(self.directory, local_files_only=True).eval()
        make_directory(self.kept)
        # texts of one length together, so that little is padding
        order = sorted(missing, key=lambda key: len(missing[key]))
        use_bf16 = self.precision == "bf16"
        for start in range(0, len(order), CHUNK):
            keys = order[start : start + CHUNK]
            found = []
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=use_bf16):
                for n in range(0, len(keys), BATCH):
                    texts = [missing[key] for key in keys[n : n + BATCH]]
                    found.append(self._pooled(model, tokenizer, texts))
            vectors = np.concatenate(found)
            self._vector_of.update(zip(keys, vectors, strict=True))
            self._keep(keys, vectors)
            self.report(start + len(keys), len(order))

    def _pooled(self, model: Any, tokenizer: Any, texts: Sequence[str]) -> Matrix:
        batch = tokenizer(
            list(texts), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        )
        states = model(**batch).last_hidden_state.float()
        mask = batch["attention_mask"][..., None]
        mean = ((states * mask).sum(1) / mask.sum(1)).numpy()
        unit: Matrix = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-9)
        return unit.astype(np.float32)

    def _keep(self, keys: Sequence[str], vectors: Matrix) -> None:
        name = hashlib.sha256("".join(keys).encode()).hexdigest()[:16]
        temporary = self.kept / f"{name}.part"
        with temporary.open("wb") as file:
            np.savez(file, keys=np.array(keys), vectors=vectors)
        temporary.replace(self.kept / f"{name}.npz")
