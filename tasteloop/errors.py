"""The one error a user's mistake raises."""


class TasteloopError(Exception):
    """What was given cannot be used. The text says what came, where, what is allowed and what to do.

    It is shown as it is, without a traceback, so it never holds a raw user id or a secret.
    """
