"""The headers by which a caller and a server tell each other about a request.

Over gRPC they are metadata: the caller's of the call, the server's of its end.
"""

from __future__ import annotations

TIMEOUT_HEADER = "x-request-timeout-ms"
"""Milliseconds after which the caller no longer waits."""
REQUEST_ID_HEADER = "x-request-id"
"""Names a request in logs, in the journal and in feedback."""
TOKEN_HEADER = "x-feedback-token"
"""Of an answer: the token that feedback on it must show."""
API_TOKEN_HEADER = "x-tasteloop-token"
"""Of a caller: the server's token, where a gateway wants `Authorization` for a token of its own."""
