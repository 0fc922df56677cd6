"""Texts as batches: token ids, padding to the longest text of a batch, and the output of the frozen
layers, computed once.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasteloop.errors import TasteloopError

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    import torch
    from numpy.typing import NDArray

    from tasteloop.encoder.model import TasteModel


_TEXTS = 4096  # tokenised at once: what a tokenizer says of a text is larger than its ids


class TokenIds:
    """The token ids of n texts, end to end in one array; `[i]` are those of text i.

    Attributes:
        ids: [tokens]; ends: [n + 1], where each text's begin and end.
    """

    def __init__(self, texts: Iterable[Sequence[int]]) -> None:
        import numpy as np

        ids, ends = array("i"), array("q", [0])
        for text in texts:
            ids.extend(text)
            ends.append(len(ids))
        self.ids, self.ends = np.array(ids, np.int32), np.array(ends, np.int64)

    def __getitem__(self, text: int) -> NDArray[np.int32]:
        return self.ids[self.ends[text] : self.ends[text + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """[n] tokens of each text."""
        return self.ends[1:] - self.ends[:-1]


@dataclass(frozen=True)
class TaskData:
    """One task's texts and targets.

    Attributes:
        targets: [n, outputs].
        train, validation: positions of the rows that train, and of those that validate.
    """

    name: str
    ids: TokenIds
    targets: NDArray[np.float32]
    train: NDArray[np.int64]
    validation: NDArray[np.int64]


def load_tokenizer(directory: Path) -> Any:
    """The fast tokenizer of an encoder (tokenizer.json), without padding or truncation."""
    from tokenizers import Tokenizer

    path = directory / "tokenizer.json"
    if not path.is_file():
        raise TasteloopError(
            f"{directory} has no tokenizer.json; save the encoder with a fast tokenizer "
            "(AutoTokenizer.from_pretrained(...).save_pretrained(...))"
        )
    try:
        tokenizer = Tokenizer.from_file(str(path))
    # the library raises no other kind: no JSON, nested too deep, an unknown model
    except Exception as error:
        raise TasteloopError(
            f"{path} is not a tokenizer: {error}; save the encoder again"
        ) from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def tokenize(tokenizer: Any, texts: Sequence[str] | pl.Series, max_tokens: int) -> list[list[int]]:
    """Token ids of each text with its special tokens, at most `max_tokens`: the end of a text is
    what is cut.
    """
    tokenizer.enable_truncation(max_tokens)
    ids = [encoding.ids for encoding in tokenizer.encode_batch(list(texts))]
    tokenizer.no_truncation()
    return ids


def tokenize_blocks(
    tokenizer: Any, texts: Sequence[str] | pl.Series, max_tokens: int
) -> Iterator[list[int]]:
    """What `tokenize` makes of many texts, a block of them at a time."""
    for start in range(0, len(texts), _TEXTS):
        yield from tokenize(tokenizer, texts[start : start + _TEXTS], max_tokens)


def pad(
    ids: Sequence[Sequence[int] | NDArray[np.int32]], device: torch.device | str = "cpu"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids of unequal lengths -> ids [n, t] and mask [n, t], padded to the longest."""
    import torch

    longest = max(len(row) for row in ids)
    out = torch.zeros(len(ids), longest, dtype=torch.int64)
    mask = torch.zeros_like(out)
    for n, row in enumerate(ids):
        out[n, : len(row)] = torch.as_tensor(row)
        mask[n, : len(row)] = 1
    # the copies are in order with the device's other work, so nobody needs to wait for them
    return out.to(device, non_blocking=True), mask.to(device, non_blocking=True)


def length_buckets(
    lengths: NDArray[np.int64], rows: NDArray[np.int64], size: int, rng: np.random.Generator
) -> list[NDArray[np.int64]]:
    """Batches of about equal lengths in random order: shuffled, then sorted within windows of 50
    batches.
    """
    rows = rng.permutation(rows)
    batches = []
    for start in range(0, len(rows), size * 50):
        window = rows[start : start + size * 50]
        window = window[lengths[window].argsort(kind="stable")]
        batches += [window[i : i + size] for i in range(0, len(window), size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def sorted_batches(
    lengths: NDArray[np.int64], size: int, spread: float = math.inf
) -> Iterator[NDArray[np.int64]]:
    """Positions in batches, shortest first: every batch of about equal lengths.

    Args:
        size: the most of a batch.
        spread: a batch ends before a length beyond `spread` times its first one's plus 2: padding
            is computed too.
    """
    ordered = lengths.argsort(kind="stable")
    start = 0
    for end in range(1, len(ordered) + 1):
        if (
            end == len(ordered)
            or end - start == size
            or lengths[ordered[end]] > spread * lengths[ordered[start]] + 2
        ):
            yield ordered[start:end]
            start = end


class Inputs:
    """Batches as the input of the trained layers. The frozen layers compute it once where the cache
    has room for it, and each time where it has not.
    """

    def __init__(
        self,
        model: TasteModel,
        tasks: list[TaskData],
        cache_megabytes: int,
        device: torch.device,
        bf16: bool,
    ) -> None:
        import numpy as np

        self.model, self.tasks, self.device, self.bf16 = model, tasks, device, bf16
        self.lengths = [task.ids.lengths for task in tasks]
        tokens = sum(int(lengths.sum()) for lengths in self.lengths)
        fits = tokens * model.width * 2 <= cache_megabytes * 2**20
        self.computed: list[torch.Tensor] | None = None
        if model.frozen_layers >= 0 and fits:
            self.starts = [np.concatenate([[0], lengths.cumsum()]) for lengths in self.lengths]
            self.computed = [self._compute(t) for t in range(len(tasks))]

    def _compute(self, t: int) -> torch.Tensor:
        """Frozen outputs of all texts of a task, end to end: [tokens, width], half precision."""
        import torch

        lengths = self.lengths[t]
        out = torch.empty(
            int(lengths.sum()), self.model.width, dtype=torch.float16, device=self.device
        )
        self.model.eval()
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16),
        ):
            for rows in sorted_batches(lengths, 64):
                ids, mask = pad([self.tasks[t].ids[i] for i in rows], self.device)
                hidden = self.model.lower(ids, mask)
                for i, vectors in zip(rows, hidden, strict=True):
                    out[self.starts[t][i] : self.starts[t][i + 1]] = vectors[: lengths[i]]
        return out

    def batch(
        self, t: int, rows: Sequence[int] | NDArray[np.int64]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states [n, t, width] in float32 and mask [n, t]."""
        import torch

        if self.computed is None:
            ids, mask = pad([self.tasks[t].ids[i] for i in rows], self.device)
            return self.model.lower(ids, mask), mask
        lengths = self.lengths[t][rows]
        hidden = torch.zeros(len(rows), int(lengths.max()), self.model.width, device=self.device)
        mask = torch.zeros(hidden.shape[:2], dtype=torch.int64, device=self.device)
        for n, i in enumerate(rows):
            start, end = self.starts[t][i], self.starts[t][i + 1]
            hidden[n, : end - start] = self.computed[t][start:end]
            mask[n, : end - start] = 1
        return hidden, mask

    def predict(self, t: int, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Logits [n, outputs] of rows, in float32."""
        import numpy as np
        import torch

        out = np.zeros((len(rows), self.tasks[t].targets.shape[1]), np.float32)
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16),
        ):
            for positions in sorted_batches(self.lengths[t][rows], 64):
                pooled = self.model.upper(*self.batch(t, rows[positions]))
                logits = self.model.logits(self.tasks[t].name, pooled)
                out[positions] = logits.float().cpu().numpy()
        return out
