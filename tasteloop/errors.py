"""The one error a user's mistake raises."""

from tasteloop.redaction import redact


class TasteloopError(Exception):
    """What was given cannot be used. The text says what came, where, what is allowed and what to
    do.

    It is shown as it is, without a traceback, so it never holds a raw user id or a secret: values
    of the input are `masked`, and what an address or a library's message brings with it is redacted
    here.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(redact(str(message)))
