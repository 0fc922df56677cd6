"""The model: a BERT encoder read by mean pooling, and one linear head for each task.

`P(y_k | X) = σ(w_k · BERT_θ(X) + b_k)` for the interest labels and, on the same encoder, for
sentiment. Mean pooling over real tokens, the pooling that sentence encoders such as MiniLM were
trained with (Reimers & Gurevych 2019).

The encoder's lower part can be frozen. Then its output for a text never changes, so training
computes it once and starts every epoch from there: `lower` and `upper` are the two halves,
`forward` is both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tasteloop.errors import TasteloopError

WEIGHTS = "model.safetensors"
HEADS = "heads.safetensors"


class TasteModel(nn.Module):
    """Encoder and heads.

    Args:
        encoder: a BERT-family encoder of transformers: it has `embeddings` and `encoder.layer`.
        heads: task name -> number of outputs.
        frozen_layers: how many of the lowest layers, with the embeddings, are not trained; -1
            trains all.
        dropout: on the pooled vector, in training.
    """

    def __init__(
        self, encoder: Any, heads: dict[str, int], frozen_layers: int = -1, dropout: float = 0.1
    ) -> None:
        super().__init__()
        if not (
            hasattr(encoder, "embeddings") and hasattr(getattr(encoder, "encoder", None), "layer")
        ):
            raise TasteloopError(
                f"encoder of type {encoder.config.model_type!r} is not of the BERT family (bert, roberta, xlm-roberta, "
                "electra, …): it has no embeddings and encoder.layer; choose another encoder"
            )
        if frozen_layers > len(encoder.encoder.layer):
            raise TasteloopError(
                f"training.frozen_layers is {frozen_layers}, but the encoder has {len(encoder.encoder.layer)} layers"
            )
        self.encoder = encoder
        self.frozen_layers = frozen_layers
        width = encoder.config.hidden_size
        linear = {task: nn.Linear(width, n) for task, n in heads.items()}
        for head in linear.values():
            nn.init.normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)
        self.heads = nn.ModuleDict(linear)
        self.dropout = nn.Dropout(dropout)
        for module in self._frozen():
            module.requires_grad_(False)
        if getattr(encoder, "pooler", None) is not None:  # the [CLS] pooler is not read
            encoder.pooler = None

    @property
    def width(self) -> int:
        """Width of a pooled vector."""
        return int(self.encoder.config.hidden_size)

    def _frozen(self) -> list[nn.Module]:
        if self.frozen_layers < 0:
            return []
        frozen = [self.encoder.embeddings, *self.encoder.encoder.layer[: self.frozen_layers]]
        if self.frozen_layers > 0 and self._has_position_bias:
            frozen.append(self.encoder.encoder.relative_attention_bias)  # the frozen layers read it
        return frozen

    @property
    def _has_position_bias(self) -> bool:
        return hasattr(self.encoder.encoder, "compute_position_bias")

    def _attention_bias(self, hidden: Tensor, mask: Tensor, dtype: torch.dtype) -> Tensor:
        """Hidden states [n, t, width] and mask [n, t] -> what is added to attention scores, [n, 1
        or heads, 1 or t, t].

        MPNet adds a learned bias for how far apart two tokens are, the same in every layer (Song et
        al. 2020, as Raffel et al. 2020).
        """
        bias = attention_bias(mask, dtype)
        if self._has_position_bias:
            bias = bias + self.encoder.encoder.compute_position_bias(hidden).to(dtype)
        return bias

    def train(self, mode: bool = True) -> TasteModel:
        """Training mode for what is trained; the frozen part stays deterministic."""
        super().train(mode)
        for module in self._frozen():
            module.eval()
        return self

    def lower(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Embeddings and the frozen layers: token ids [n, t] and mask [n, t] -> hidden states [n,
        t, width].
        """
        hidden: Tensor = self.encoder.embeddings(input_ids=ids)
        bias = self._attention_bias(hidden, mask, self.encoder.dtype)
        for layer in self.encoder.encoder.layer[: max(self.frozen_layers, 0)]:
            hidden = first(layer(hidden, bias))
        return hidden

    def upper(self, hidden: Tensor, mask: Tensor) -> Tensor:
        """The remaining layers and mean pooling: hidden states [n, t, width] -> vectors [n,
        width].
        """
        bias = self._attention_bias(hidden, mask, hidden.dtype)
        for layer in self.encoder.encoder.layer[max(self.frozen_layers, 0) :]:
            hidden = first(layer(hidden, bias))
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return (hidden * weights).sum(1) / weights.sum(1).clamp_min(1)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token ids [n, t] and mask [n, t] -> pooled vectors [n, width]."""
        return self.upper(self.lower(ids, mask), mask)

    def logits(self, task: str, pooled: Tensor) -> Tensor:
        """Pooled vectors [n, width] -> logits [n, outputs of the task]."""
        out: Tensor = self.heads[task](self.dropout(pooled))
        return out


def attention_bias(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Mask [n, t] of 0 and 1 -> additive bias [n, 1, 1, t] for scaled dot product attention."""
    bias = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
    return bias.masked_fill(mask == 0, torch.finfo(dtype).min)[:, None, None, :]


def first(output: Any) -> Tensor:
    """A layer's hidden states: transformers returns them bare or in a tuple, by version and
    family.
    """
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden


def _attention(config: Any) -> str:
    """The attention of transformers that a family has: scaled dot product, or its own for
    MPNet.
    """
    return "eager" if config.model_type == "mpnet" else "sdpa"


def load_encoder(directory: str | Path, layers: int | None = None, dropout: float = 0.0) -> Any:
    """A BERT-family encoder from a local directory, in float32.

    Args:
        layers: how many of its lowest layers to use; None: all.
        dropout: within its layers, in training, whatever its own configuration says.
    """
    from transformers import AutoConfig, AutoModel
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]  # the pooler and cut layers are left out on purpose
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = dropout
    if layers is not None:
        config.num_hidden_layers = layers
    options: dict[str, Any] = (
        {"add_pooling_layer": False} if config.model_type in ("bert", "roberta") else {}
    )
    return AutoModel.from_pretrained(
        directory,
        config=config,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        dtype=torch.float32,
        attn_implementation=_attention(config),
        **options,
    )


def save(model: TasteModel, directory: Path) -> None:
    """Encoder (config.json, model.safetensors) and heads (heads.safetensors) into an existing
    directory.
    """
    from safetensors.torch import save_file

    model.encoder.config.save_pretrained(directory)
    save_file(
        {k: v.contiguous() for k, v in model.encoder.state_dict().items()}, directory / WEIGHTS
    )
    save_file({k: v.contiguous() for k, v in model.heads.state_dict().items()}, directory / HEADS)


def load(directory: Path) -> TasteModel:
    """What `save` wrote, in evaluation mode. Never reads anything but safetensors and JSON."""
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    config._attn_implementation = _attention(config)
    encoder = AutoModel.from_config(config)  # type: ignore[no-untyped-call]
    heads = load_file(directory / HEADS)
    sizes = {
        name.removesuffix(".bias"): int(v.shape[0])
        for name, v in heads.items()
        if name.endswith(".bias")
    }
    model = TasteModel(encoder, sizes)
    model.encoder.load_state_dict(load_file(directory / WEIGHTS))
    model.heads.load_state_dict(heads)
    return model.eval()
