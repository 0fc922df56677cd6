"""The kinds of behaviour: what each is called, what it says of a wish, and what a row of it needs.

This tuple is the one place where a kind is declared. Reading, cleaning, texts, training, serving,
feedback and monitoring all ask here; a kind that is added here needs no other line of code.
New kinds are appended: the reference of the monitor knows kinds by their place.

Aliases are the words of two specifications, in the case in which these write them: the e-commerce
events of Google Analytics 4 (https://developers.google.com/analytics/devguides/collection/ga4) and
the activity types of Activity Streams 2.0 (https://www.w3.org/TR/activitystreams-vocabulary).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Column = Literal["item", "value", "text"]

ROUNDING = 1e-6  # a value of 0.7 is stored as the float32 0.69999999

_REFUSAL = -0.5  # the strength from which on a kind refuses its item: stronger than a skip

_ITEM: tuple[tuple[Column, ...], ...] = (("item",),)
_OPINIONS = ("liked", "tried", "disliked")
_OPINIONS_ZH = ("喜欢{}", "试过{}", "不喜欢{}")


@dataclass(frozen=True)
class Kind:
    """One kind of behaviour.

    Attributes:
        word: its name in tables and requests.
        verb: what the text of a history says that the user did.
        strength: from -1 (rejects the item) to 1 (pays for it or praises it). The sign says whether
            the kind is positive, negative or, at 0, neutral. The size says how much the act tells
            beside others: a prior, for data that have too few kinds to learn it from.
        value: what the value of an event means for a positive kind. "ignored": the act says all.
            "corrects": the event is positive unless it has a value below the threshold.
            "decides": the event is positive only with a value from the threshold up.
        needs: groups of columns; a row must have at least one column of each group.
        is_act: whether the user did something. What was merely shown is in no history and no text.
        consumes: whether the item is then known to the user, and not recommended again.
        is_response: whether it counts as a click on an item that was recommended.
        graded_verbs: in place of `verb` where there is a value: high, middling and low.
        aliases: what the specifications above call it.
        said: how a sentence tells the user in English that they did it, with {} for what; "" for
            the verb and what follows it.
        said_zh: the same in Chinese; by default that they met it.
        graded_zh: the Chinese of `graded_verbs`, each with {}.

    >>> KINDS["rate"].is_positive(0.75, threshold=0.7)
    True
    >>> KINDS["view"].is_positive(None, threshold=0.7), KINDS["hide"].is_positive(1.0, 0.7)
    (True, False)
    """

    word: str
    verb: str
    strength: float
    value: Literal["ignored", "corrects", "decides"] = "ignored"
    needs: tuple[tuple[Column, ...], ...] = _ITEM
    is_act: bool = True
    consumes: bool = True
    is_response: bool = False
    graded_verbs: tuple[str, str, str] | None = None
    aliases: tuple[str, ...] = ()
    said: str = ""
    said_zh: str = "接触过{}"
    graded_zh: tuple[str, str, str] | None = None

    def is_positive(self, value: float | None, threshold: float) -> bool:
        """Whether an event of this kind, with an item, says that its user wants the item."""
        if self.strength <= 0:
            return False
        if value is None:
            return self.value != "decides"
        return self.value == "ignored" or value >= threshold - ROUNDING

    @property
    def refuses(self) -> bool:
        """Whether its item is never to be recommended again, where what was consumed may be.

        >>> [word for word, kind in KINDS.items() if kind.refuses]
        ['dislike', 'hide', 'report']
        """
        return self.strength <= _REFUSAL

    @property
    def value_matters(self) -> bool:
        """Whether the value of an event decides what it says."""
        return self.strength > 0 and self.value != "ignored"

    def opinion(self, value: float | None, positive: float, negative: float) -> float:
        """What an event of this kind says of its item, from -1 (rejects it) to 1.

        A value that counts says it where there is one: from `positive` up for the item, below
        `negative` against it, nothing in between.

        >>> KINDS["rate"].opinion(1.0, 0.7, 0.4), KINDS["rate"].opinion(0.0, 0.7, 0.4)
        (1.0, -1.0)
        >>> KINDS["share"].opinion(None, 0.7, 0.4), KINDS["skip"].opinion(None, 0.7, 0.4)
        (0.8, -0.3)
        """
        if not self.value_matters:
            return self.strength
        if value is None:
            return 0.0 if self.value == "decides" else self.strength
        if value >= positive - ROUNDING:
            return self.strength * value
        return -self.strength * (1 - value) if value < negative - ROUNDING else 0.0


DECLARED = (
    Kind(
        "view",
        "viewed",
        0.2,
        value="corrects",
        aliases=("view_item", "View", "Read"),
        said_zh="看过{}",
    ),
    Kind(
        "search",
        "searched",
        0.0,
        needs=(("text",),),
        aliases=("view_search_results",),
        said="searched for {}",
        said_zh="搜索了{}",
    ),
    Kind(
        "click",
        "clicked",
        0.3,
        is_response=True,
        aliases=("select_item", "select_content", "select_promotion"),
        said_zh="点开过{}",
    ),
    Kind(
        "rate",
        "rated",
        1.0,
        value="decides",
        needs=(("item",), ("value",)),
        graded_verbs=_OPINIONS,
        said_zh="评价过{}",
        graded_zh=_OPINIONS_ZH,
    ),
    Kind(
        "review",
        "reviewed",
        1.0,
        value="decides",
        needs=(("item",), ("text", "value")),
        graded_verbs=_OPINIONS,
        said_zh="评论过{}",
        graded_zh=_OPINIONS_ZH,
    ),
    Kind("share", "shared", 0.8, aliases=("Announce",), said_zh="分享了{}"),
    Kind("purchase", "bought", 1.0, is_response=True, said_zh="购买了{}"),
    Kind("like", "liked", 0.8, aliases=("Like",), said_zh="喜欢{}"),
    Kind("dislike", "disliked", -0.8, aliases=("Dislike",), said_zh="不喜欢{}"),
    Kind(
        "save",
        "saved",
        0.6,
        is_response=True,
        aliases=("add_to_wishlist", "Add"),
        said_zh="收藏了{}",
    ),
    Kind(
        "cart",
        "put in the cart",
        0.7,
        is_response=True,
        aliases=("add_to_cart", "begin_checkout"),
        said="put {} in the cart",
        said_zh="把{}放进了购物车",
    ),
    Kind(
        "remove",
        "removed",
        -0.4,
        aliases=("remove_from_cart", "refund", "Remove"),
        said_zh="移除了{}",
    ),
    Kind("comment", "commented on", 0.5, value="corrects", aliases=("Create",), said_zh="评论过{}"),
    Kind("follow", "followed", 0.8, aliases=("Follow",), said_zh="关注了{}"),
    # its value is the share that was watched or heard
    Kind(
        "play",
        "played",
        0.5,
        value="corrects",
        is_response=True,
        graded_verbs=("finished", "played", "abandoned"),
        aliases=("Listen",),
        said_zh="播放过{}",
        graded_zh=("播放完{}", "播放过{}", "中途放弃了{}"),
    ),
    Kind("skip", "skipped", -0.3, said_zh="跳过了{}"),
    Kind("hide", "hid", -0.7, aliases=("Block", "Ignore"), said_zh="隐藏了{}"),
    Kind("report", "reported", -1.0, aliases=("Flag",), said_zh="举报了{}"),
    Kind(
        "impression",
        "was shown",
        0.0,
        is_act=False,
        consumes=False,
        aliases=("view_item_list", "view_promotion"),
        said="were shown {}",
        said_zh="被展示过{}",
    ),
)

KINDS: Mapping[str, Kind] = {kind.word: kind for kind in DECLARED}
"""Every kind by its word, in the order of declaration."""

ALIASES: Mapping[str, str] = {alias: kind.word for kind in DECLARED for alias in kind.aliases}
"""A specification's word -> ours."""


def words_needing(*columns: Column) -> list[str]:
    """The kinds whose rows need one of these columns, and are content with any of them.

    >>> words_needing("value"), words_needing("text", "value")
    (['rate'], ['review'])
    """
    return [kind.word for kind in KINDS.values() if columns in kind.needs]


def words_without(column: Column) -> list[str]:
    """The kinds whose rows need no such column, alone or as one of several."""
    return [
        kind.word for kind in KINDS.values() if not any(column in group for group in kind.needs)
    ]


def words_that_are_no_acts() -> list[str]:
    """The kinds that histories leave out, because the user did nothing."""
    return [kind.word for kind in KINDS.values() if not kind.is_act]
