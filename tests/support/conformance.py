"""The server under test, and what a refusal looks like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True)
class Target:
    """The server under test: one of its models, and that model's one input."""

    http: httpx.Client
    url: str
    grpc: str | None
    model: str
    input: str
    token: str | None

    def v2(self, rest: str = "") -> str:
        return f"/v2/models/{self.model}{rest}"

    def tensor(self, *texts: str, **changes: Any) -> dict[str, Any]:
        return {
            "name": self.input,
            "datatype": "BYTES",
            "shape": [len(texts)],
            "data": list(texts),
            **changes,
        }

    def body(self, *texts: str, **more: Any) -> dict[str, Any]:
        return {"inputs": [self.tensor(*(texts or ("a fine film",)))], **more}

    def infer(self, body: Any, **options: Any) -> httpx.Response:
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        return self.http.post(self.v2("/infer"), **content, **options)

    def predict(self, body: Any, **options: Any) -> httpx.Response:
        content = {"content": body} if isinstance(body, bytes) else {"json": body}
        return self.http.post(f"/v1/models/{self.model}:predict", **content, **options)

    def metadata(self) -> list[tuple[str, str]]:
        return [("authorization", f"Bearer {self.token}")] if self.token else []


def refused(response: httpx.Response, *statuses: int) -> None:
    """The caller's mistake: a 4xx with the specification's error object, in words and without our
    insides.
    """
    assert 400 <= response.status_code < 500, f"{response.status_code}: {response.text[:300]}"
    assert not statuses or response.status_code in statuses, (
        f"{response.status_code}: {response.text[:300]}"
    )
    body = response.json()
    assert set(body) == {"error"} and isinstance(body["error"], str) and body["error"].strip(), body
    for inside in (
        "Traceback",
        'File "',
        "object has no attribute",
        "Error:",
        "Exception",
        "site-packages",
    ):
        assert inside not in body["error"], body
