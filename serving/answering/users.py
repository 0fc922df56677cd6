"""Who a request is for: an optional `user` in each instance, which becomes a pseudonym before
anything else reads it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from tasteloop.behaviour.events import USER
from tasteloop.errors import TasteloopError
from tasteloop.privacy.pseudonyms import LONGEST_USER, is_user, pseudonym


def take_users(instances: object, key: bytes | None) -> tuple[object, list[str | None]]:
    """V1 instances without their `user`, and the pseudonym of each; without a key all are None.

    Anything that is no list of objects is returned as it is; the predictor refuses it.

    Raises:
        TasteloopError: a user that is no string of 1 to 256 characters; the message does not repeat
            it.
    """
    if not isinstance(instances, list):
        return instances, []
    without_users: list[object] = []
    users: list[str | None] = []
    for index, instance in enumerate(instances):
        user = None
        if isinstance(instance, dict) and USER in instance:
            user = instance[USER]
            instance = {name: value for name, value in instance.items() if name != USER}
            if user is not None and not is_user(user):
                raise TasteloopError(
                    f"instances[{index}].user: a string of 1 to {LONGEST_USER} characters is expected, or null"
                )
        users.append(None if user is None or key is None else pseudonym(user, key))
        without_users.append(instance)
    return without_users, users


def route(request: str, instances: object, users: Sequence[str | None]) -> str:
    """The text that a canary's draw is computed from. All requests of a user have the same; without
    a user, all requests with the same question; otherwise each request has its own.

    One version answers all instances of a request, so a request with several users goes where the
    user of its first instance goes. An empty history says nothing about who asks, so such requests
    are drawn one by one.
    """
    if users and users[0] is not None:
        return f"user {users[0]}"
    first = instances[0] if isinstance(instances, list) and instances else None
    if isinstance(first, Mapping):
        question: object = first.get("events") or first.get("text")
        if question:
            return f"question {json.dumps(question, sort_keys=True, default=str)}"
    return f"request {request}"
