"""Who a request is for: an optional `user` in each instance, a pseudonym before anything else sees
it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tasteloop.behaviour.events import USER
from tasteloop.errors import TasteloopError
from tasteloop.privacy.pseudonyms import pseudonym

LONGEST_USER = 256  # characters


def take_users(instances: object, key: bytes | None) -> tuple[object, list[str | None]]:
    """V1 instances without their `user`, and each one's pseudonym; all None without a key, which
    nothing needs then.

    What is no list of objects is returned as it is, for the predictor to refuse.

    Raises:
        TasteloopError: a user that is no string of 1 to 256 characters; the message does not repeat
            it.
    """
    if not isinstance(instances, list):
        return instances, []
    kept: list[object] = []
    users: list[str | None] = []
    for index, instance in enumerate(instances):
        user = None
        if isinstance(instance, dict) and USER in instance:
            user = instance[USER]
            instance = {name: value for name, value in instance.items() if name != USER}
            if user is not None and not (
                isinstance(user, str) and 0 < len(user) <= LONGEST_USER and _utf8(user)
            ):
                raise TasteloopError(
                    f"instances[{index}].user: a string of 1 to {LONGEST_USER} characters is expected, or null"
                )
        users.append(None if user is None or key is None else pseudonym(user, key))
        kept.append(instance)
    return kept, users


def route(request: str, instances: object, users: Sequence[str | None]) -> str:
    """What a canary's draw is made of: the same for a user, else for a question, else for nothing
    but this request.

    A request is answered whole by one version, so one with several users goes where its first
    instance's goes. A history that is empty says nothing about who asks: such requests are drawn
    one by one.
    """
    if users and users[0] is not None:
        return f"user {users[0]}"
    first = instances[0] if isinstance(instances, list) and instances else None
    if isinstance(first, Mapping):
        asked: Any = first.get("events") or first.get("text")
        if asked:
            return f"question {json.dumps(asked, sort_keys=True, default=str)}"
    return f"request {request}"


def _utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
