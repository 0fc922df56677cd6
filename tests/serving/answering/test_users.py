"""Users become pseudonyms before anything else, and a user stays on one side of a canary."""

from __future__ import annotations

from typing import Any

import pytest

from serving.answering.users import route, take_users
from tasteloop.errors import TasteloopError
from tasteloop.privacy.pseudonyms import pseudonym

KEY = b"0123456789abcdef"


def test_users_are_taken_out_and_hidden() -> None:
    instances = [{"text": "a", "user": "ada"}, {"text": "b"}, {"text": "c", "user": None}]
    without_users, users = take_users(instances, KEY)
    assert without_users == [{"text": "a"}, {"text": "b"}, {"text": "c"}]
    assert users == [pseudonym("ada", KEY), None, None]
    assert instances[0]["user"] == "ada", "what was given is not changed"
    assert take_users(instances, None) == (without_users, [None] * 3)


@pytest.mark.parametrize("instances", [None, {}, "text", 3])
def test_what_is_no_list_is_left_for_the_predictor_to_refuse(instances: object) -> None:
    assert take_users(instances, KEY) == (instances, [])


@pytest.mark.parametrize("user", [3, "", [], {}, True, "secret" * 50, "secret\ud800"])
def test_a_bad_user_is_refused_and_not_repeated(user: Any) -> None:
    with pytest.raises(TasteloopError, match=r"instances\[1\]\.user: a string") as caught:
        take_users([{}, {"user": user}], KEY)
    assert "secret" not in str(caught.value)
    with pytest.raises(TasteloopError):
        take_users([{}, {"user": user}], None)


def test_the_route() -> None:
    ada = "a" * 32
    grown = [{"events": [{"kind": "click"}]}]
    assert route("r1", [{"events": []}], [ada]) == route("r2", grown, [ada]), (
        "a user's, whatever is asked"
    )
    assert route("r1", grown, [None]) == route("r2", grown, [None]), "else the question's"
    assert route("r1", [{"text": "a"}], [None]) != route("r1", [{"text": "b"}], [None])
    for nothing in ([{"events": []}], [], [3], None):
        assert route("r1", nothing, []) != route("r2", nothing, []), "else the request's"
    assert isinstance(route("r1", [{"events": [{"kind": 10**30}]}], []), str)
