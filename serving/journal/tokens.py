"""Feedback tokens: only the caller who got an answer can send feedback on it.

A request's id may be chosen by its caller, guessed by others, or used twice. So each answer gets an
id of its own, and carries a token that names it and that nobody can make without the server's key.
Feedback must show the token.
"""

from __future__ import annotations

import hmac
import secrets

from serving.headers import TOKEN_HEADER
from tasteloop.errors import TasteloopError

_LONGEST = 128  # characters; a longer text is not read, a token has 65


class FeedbackTokens:
    """Makes and checks the tokens of answers. Servers with one pseudonym key accept each other's.

    Args:
        pseudonym_key: tokens are made with a key derived from it, so that no pseudonym is a token.
    """

    def __init__(self, pseudonym_key: bytes) -> None:
        self._key = hmac.digest(pseudonym_key, b"tasteloop feedback token", "sha256")

    def issue(self, request: str, answer: str) -> str:
        """The token of one answer to a request; `answer` is an id that no other answer has."""
        return f"{answer}.{self._signature(request, answer)}"

    def answer_of(self, token: object, request: str) -> str:
        """The id of the answer that carried a token.

        Raises:
            TasteloopError: no answer to this request carried it.
        """
        is_readable = isinstance(token, str) and len(token) <= _LONGEST and token.isascii()
        text = str(token) if is_readable else ""
        answer, _, signature = text.partition(".")
        if not hmac.compare_digest(signature, self._signature(request, answer)):
            raise TasteloopError(
                f"token is none that came with an answer to request {request!r}; send both as the answer had them: its "
                f"headers x-request-id and {TOKEN_HEADER}"
            )
        return answer

    def _signature(self, request: str, answer: str) -> str:
        message = f"{answer} {request}".encode(errors="replace")
        return hmac.digest(self._key, message, "sha256")[:16].hex()


def new_answer_id() -> str:
    return secrets.token_hex(16)
