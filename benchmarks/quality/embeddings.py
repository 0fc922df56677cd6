"""Texts as vectors by encoders as they were published, each text read once and kept on disk by its
content.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
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
        use_bf16 = self.precision == "bf16"
        if use_bf16:  # once, which autocast would do again for every batch
            for module in model.modules():
                if isinstance(module, torch.nn.Linear):
                    module.to(torch.bfloat16)

        # 1. texts of one length together, so that little is padding
        texts = list(missing.values())
        tokens = tokenizer(texts, truncation=True, max_length=MAX_TOKENS)["input_ids"]
        order = sorted(range(len(texts)), key=lambda n: len(tokens[n]))
        keys = list(missing)

        def mean_vectors(numbers: Sequence[int]) -> Matrix:
            batch = tokenizer.pad({"input_ids": [tokens[n] for n in numbers]}, return_tensors="pt")
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=use_bf16):
                states = model(**batch).last_hidden_state.float()
            mask = batch["attention_mask"][..., None]
            mean = ((states * mask).sum(1) / mask.sum(1)).numpy()
            unit: Matrix = mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-9)
            return unit.astype(np.float32)

        # 2. a batch on each core: cores that share a batch wait for each other in every operation,
        # which takes five times as long where another program has one of them
        make_directory(self.kept)
        threads = torch.get_num_threads()
        pool = ThreadPoolExecutor(threads, initializer=partial(torch.set_num_threads, 1))
        try:
            with pool as workers:
                for start in range(0, len(order), CHUNK):
                    chunk = order[start : start + CHUNK]
                    batches = [chunk[n : n + BATCH] for n in range(0, len(chunk), BATCH)]
                    vectors = np.concatenate(list(workers.map(mean_vectors, batches)))
                    of_chunk = [keys[n] for n in chunk]
                    self._vector_of.update(zip(of_chunk, vectors, strict=True))
                    self._keep(of_chunk, vectors)
                    self.report(start + len(chunk), len(order))
        finally:
            torch.set_num_threads(threads)  # later threads take over what was set last, anywhere

    def _keep(self, keys: Sequence[str], vectors: Matrix) -> None:
        name = hashlib.sha256("".join(keys).encode()).hexdigest()[:16]
        temporary = self.kept / f"{name}.part"
        with temporary.open("wb") as file:
            np.savez(file, keys=np.array(keys), vectors=vectors)
        temporary.replace(self.kept / f"{name}.npz")
