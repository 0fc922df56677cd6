"""The peer: a plain `kserve.Model` around a transformers pipeline in fp32, the obvious way to serve
sentiment.

    python benchmarks/serving/peers/plain.py --encoder DIR --http_port 9080 --grpc_port 9081

Its head is random: protocol and speed are compared here, not answers. Nothing is done to slow it
down; the pipeline gets a request's texts as one list.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import kserve
import torch
from kserve.protocol.infer_type import InferOutput, InferRequest, InferResponse
from kserve.utils.utils import generate_uuid
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast, pipeline


class Sentiment(kserve.Model):
    def __init__(self, name: str, encoder: Path) -> None:
        super().__init__(name)
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_pretrained(
            encoder, num_labels=2, dtype=torch.float32
        )
        special = {
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
        }
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_file=str(encoder / "tokenizer.json"), **special
        )
        tokenizer.model_max_length = model.config.max_position_embeddings
        self._pipeline = pipeline(
            "text-classification", model=model, tokenizer=tokenizer, truncation=True
        )
        self.ready = True

    def get_input_types(self) -> list[dict[str, Any]]:
        return [{"name": "text", "datatype": "BYTES", "shape": [-1]}]

    def get_output_types(self) -> list[dict[str, Any]]:
        return [
            {"name": "sentiment", "datatype": "BYTES", "shape": [-1]},
            {"name": "probability", "datatype": "FP32", "shape": [-1]},
        ]

    def predict(self, payload: Any, headers: dict[str, str] | None = None) -> Any:
        if not isinstance(payload, InferRequest):
            return {
                "predictions": self._pipeline(
                    [instance["text"] for instance in payload["instances"]]
                )
            }
        texts = [
            t.decode() if isinstance(t, bytes) else t for t in payload.inputs[0].as_numpy().ravel()
        ]
        answers = self._pipeline(texts)
        labels, scores = (
            [answer["label"] for answer in answers],
            [answer["score"] for answer in answers],
        )
        return InferResponse(
            response_id=payload.id or generate_uuid(),
            model_name=self.name,
            infer_outputs=[
                InferOutput("sentiment", [len(texts)], "BYTES", labels),
                InferOutput("probability", [len(texts)], "FP32", scores),
            ],
            requested_outputs=payload.request_outputs,
            use_binary_outputs=payload.use_binary_outputs,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        parents=[kserve.model_server.parser], conflict_handler="resolve"
    )
    parser.add_argument(
        "--encoder", type=Path, required=True, help="a BERT-family encoder with its tokenizer.json"
    )
    arguments, _ = parser.parse_known_args()
    kserve.ModelServer(enable_latency_logging=False).start(
        [Sentiment("sentiment", arguments.encoder)]
    )
