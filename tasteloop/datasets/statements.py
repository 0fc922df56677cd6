"""Short statements with a sentiment, and ones without: composed of our own words, to be learned
from.

Reviews are long and rarely say "not bad". What turns a sentiment round, such as negation and
contrast, is learned from many short sentences that differ in little else, as in the contrast sets
of Gardner et al. (2020) and the templates of Ribeiro et al. (2020): each frame takes a favourable
and an unfavourable word in turn, and its own rule says what comes of it. No phrase of the tests of
understanding is among them; a test holds that.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import polars as pl

from tasteloop.behaviour.cleaning import ROW
from tasteloop.behaviour.items import SENTIMENT, TEXT

NAME = "statements"
Language = Literal["en", "zh"]
SOURCES: Mapping[str, Language] = {NAME: "en", f"{NAME}-zh": "zh"}
STATEMENTS = 4000  # as many as a source of reviews of this size needs beside it: measured
_SEED = 20

# --- words: each list of praise has its counterpart of blame

_FAVOURABLE_AND_NOT = (
    """amazing beautiful brilliant charming clever comfortable compelling delicious delightful
    elegant engaging enjoyable entertaining excellent exciting fantastic fascinating fine flattering
    fresh fun funny good gorgeous great gripping helpful impressive inspiring interesting likeable
    lovely magnificent marvellous memorable moving nice original outstanding perfect pleasant polite
    powerful pretty reliable remarkable satisfying sharp smart smooth solid special splendid
    stunning sturdy stylish superb sweet thoughtful thrilling touching useful warm well-made witty
    wonderful worthwhile""",
    """annoying appalling atrocious awful bad badly-made bland boring broken cheap-looking clumsy
    confusing crude cruel defective derivative dirty disappointing dismal dreadful dreary dull
    empty faulty flat flimsy forgettable hideous horrible idiotic incoherent inept irritating
    itchy lame lazy lifeless mediocre messy miserable nasty noisy offensive overpriced painful
    pathetic plain pointless poor predictable pretentious rude scratchy shabby shallow shoddy silly
    sloppy stale stupid tasteless tedious terrible tiresome ugly unbearable uncomfortable unconvincing
    unfunny uninspired unpleasant unreliable useless weak worthless""",
)
_THINGS = (
    """masterpiece|delight|joy|triumph|treat|gem|pleasure|winner|success|bargain|treasure|real find
    |feast for the eyes|great idea|hit|blessing""",
    """disaster|mess|disgrace|failure|bore|joke|nightmare|letdown|chore|flop|waste of time
    |waste of money|rip-off|insult|terrible idea|mistake""",
)
_QUALITIES = (
    """charm|wit|style|heart|good ideas|energy|imagination|warmth|humour|tension|character|skill
    |surprises|intelligence|quality|comfort""",
    """flaws|mistakes|clichés|defects|holes|problems|faults|errors|bugs|stains|loose threads
    |bad jokes|dead moments|empty talk|annoyances|weaknesses""",
)
_DEEDS = (  # what I did with it, and did not
    """liked|loved|enjoyed|adored|admired|recommended|treasured""",
    """hated|disliked|regretted|loathed|despised|detested|resented""",
)
_INFINITIVES = (
    """like|love|enjoy|adore|admire|trust|recommend|praise""",
    """hate|dislike|regret|loathe|despise|detest|resent|distrust""",
)
_EVENTS = (  # what happened with a thing: already a whole
    """works like new after years|fits me well|looks even better than in the pictures|made me laugh
    |kept me glued to my seat|is worth the price|was a hit with the whole family
    |won me over at once|still surprises me|feels great to the touch|does what it should
    |came sooner than promised|got better and better|left me smiling|deserves an award
    |makes life easier|is a cut above the rest|brightened the evening|earns its praise
    |washes well and keeps its shape|gets compliments wherever I go""",
    """broke within a week|does not fit anybody|looks nothing like the pictures|put me to sleep
    |had me looking at my watch|is not worth the price|was a flop with the whole family
    |lost me at once|still annoys me|feels cheap to the touch|does nothing that it should
    |came weeks too late|got worse and worse|left me cold|deserves no award
    |makes life harder|is a cut below the rest|spoiled the evening|earns no praise
    |shrank in the wash and lost its shape|falls to pieces wherever I go""",
)
_SUBJECTS = """the film|this film|the movie|the story|the plot|the acting|the cast|the script|the ending
    |the first half|the direction|the music|the book|this novel|the show|the sequel|the series
    |the dress|this dress|the blouse|the jacket|the skirt|the shirt|the fabric|the colour|the cut|the fit
    |the phone|the battery|the screen|the camera|the sound|the software|the keyboard|the product|this thing
    |the food|the meal|the coffee|the hotel|the room|the service|the waiter|the staff|the delivery
    |the packaging|the quality|the price|the design|the game|the app|the toy|the bag|the chair|the cream
    |it|this|that|everything about it|the whole thing|the parcel|the purchase""".replace("\n", "")

_INTENSIFIERS = (
    "",
    "",
    "",
    "very ",
    "really ",
    "so ",
    "truly ",
    "quite ",
    "extremely ",
    "just ",
    "simply ",
    "incredibly ",
    "rather ",
)
_OPENINGS = ("", "", "", "", "honestly, ", "overall, ", "well, ", "in my opinion, ", "I must say, ")
_CLOSINGS = (".", ".", ".", "", "!")


def _words(words: str) -> list[str]:
    return words.split()


def _split(words: str) -> list[str]:
    return [" ".join(word.split()) for word in words.split("|")]


_SUBJECT = _split(_SUBJECTS)
ADJECTIVES = tuple(_words(side) for side in _FAVOURABLE_AND_NOT)
_THING, _QUALITY, _DEED, _INFINITIVE, _EVENT = (
    tuple(_split(side) for side in pair)
    for pair in (_THINGS, _QUALITIES, _DEEDS, _INFINITIVES, _EVENTS)
)


# --- Chinese

_ADJECTIVE_ZH = (
    _words("""好看 精彩 有趣 舒服 漂亮 好吃 干净 实用 方便 满意 感人 优秀 好用 耐用 温馨 周到 热情 细腻 流畅 划算
    出色 完美 清楚 安静 清新 可靠 顺手 新鲜 大方 精致 结实 轻便 贴心 动人 幽默 深刻 柔软 准时"""),
    _words("""难看 无聊 乏味 难受 丑 难吃 脏 没用 麻烦 糟糕 虚假 差劲 难用 易坏 冷淡 敷衍 粗糙 卡顿 平庸 啰嗦 恶心
    混乱 吵 陈旧 笨重 刺鼻 幼稚 做作 坑人 浪费 破旧 模糊 拖拉 肤浅 僵硬 迟缓 单调 失败"""),
)
_SUBJECT_ZH = _words("""这部电影 这本书 房间 服务 这家酒店 手机 屏幕 电池 键盘 奶粉 质量 物流 包装 客服 这件衣服
    菜 味道 剧情 演员 结局 画面 音乐 价格 位置 早餐 电脑 散热 性能 内容 文字 翻译 前台 床 面料 款式 故事 导演 软件""")
_VERB_ZH = (_words("喜欢 爱 欣赏 推荐 享受 信任"), _words("讨厌 后悔买 嫌弃 反感 受不了 怀疑"))
_EVENT_ZH = (
    _words("""用了一年还像新的 全家都夸它 下次还会来 值这个价 宝宝很爱喝 物超所值 看得停不下来 收到后很惊喜 比想象的好
    帮了我大忙 让我笑了一路 朋友看了都想买 打满分 越用越顺"""),
    _words("""用了一周就坏了 全家都骂它 再也不会来了 不值这个价 宝宝不肯喝 花钱买罪受 看得睡着了 收到后很生气 比想象的差
    耽误了我的事 让我气了一路 朋友看了都摇头 打零分 越用越烦"""),
)


def _plain_zh(draw: random.Random, side: int) -> str:
    subject, adjective = draw.choice(_SUBJECT_ZH), draw.choice(_ADJECTIVE_ZH[side])
    return draw.choice(
        (
            f"{subject}{draw.choice(('很', '非常', '特别', '真', '挺', '太', '十分'))}{adjective}",
            f"{subject}{adjective}",
            f"{adjective}又{draw.choice(_ADJECTIVE_ZH[side])}",
            f"我{draw.choice(('', '很', '真的', '一直'))}{draw.choice(_VERB_ZH[side])}{subject}",
            f"{subject}{draw.choice(_EVENT_ZH[side])}",
            draw.choice(_EVENT_ZH[side]),
            f"{subject}比{draw.choice(('上次', '别家', '预期', '照片'))}更{adjective}",
        )
    )


def _negated_zh(draw: random.Random, side: int) -> str:
    """A statement that takes this side by denying the other."""
    subject, other = draw.choice(_SUBJECT_ZH), draw.choice(_ADJECTIVE_ZH[1 - side])
    verb = draw.choice(_VERB_ZH[1 - side])
    return draw.choice(
        (
            f"{subject}{draw.choice(('并不', '一点也不', '一点都不', '绝不', '不算', '不怎么'))}{other}",
            f"{subject}{draw.choice(('谈不上', '说不上', '算不上', '没有那么', '没觉得'))}{other}",
            f"{draw.choice(('从来不', '不', '根本不'))}{other}",
            f"我{draw.choice(('不', '从不', '没有', '并不'))}{verb}{subject}",
            f"没有人说{subject}{other}",
            f"{subject}哪里{other}了",
        )
    )


def _compose_zh(draw: random.Random, side: int) -> str:
    """A Chinese statement that takes this side."""
    kind = draw.random()
    if kind < 0.4:
        text = _plain_zh(draw, side)
    elif kind < 0.72:
        text = _negated_zh(draw, side)
    else:
        first = draw.choice((_plain_zh, _negated_zh))(draw, 1 - side)
        second = draw.choice((_plain_zh, _negated_zh))(draw, side)
        subject = draw.choice(_SUBJECT_ZH)
        adjective, other = draw.choice(_ADJECTIVE_ZH[side]), draw.choice(_ADJECTIVE_ZH[1 - side])
        text = draw.choice(
            (
                f"虽然{first},但是{second}",
                f"{first},不过{second}",
                f"尽管{first},{second}",
                f"{subject}不是{other},而是{adjective}",
                f"本来以为{subject}很{other},没想到很{adjective}",
                f"别人说{other},我觉得{adjective}",
                f"{second},即使{first}",
                f"开始{other},后来{adjective}",
            )
        )
    return text + draw.choice(("。", "。", "", "!", "!"))


_NO_OPINIONS_ZH = _words("""怎么付款 什么时候发货 有蓝色的吗 可以开发票吗 几点开门 能送到上海吗 昨天买的
    给妈妈买的 在网上订的 住了两个晚上 一共三层 长两米 有两个按钮 周一开会 下午三点 他是老师 她住在北京 一个医生搬到小镇
    讲的是一九四五年的事 怎么改密码 怎么连接蓝牙 取消预约 我的余额 打印单据 明天见 谢谢
    换一个地址 第二部明年上映 作者是谁 这是什么型号
    穿中号 重三公斤 离车站五百米 含早餐 白色的 塑料做的 下一首 关灯""")


class _Words:
    """Draws of words; a side is 0 for praise and 1 for blame."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw

    def adjective(self, side: int) -> str:
        return self.draw.choice(ADJECTIVES[side])

    def thing(self, side: int) -> str:
        noun = self.draw.choice(_THING[side])
        return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"

    def quality(self, side: int) -> str:
        return self.draw.choice(_QUALITY[side])

    def deed(self, side: int) -> str:
        return self.draw.choice(_DEED[side])

    def infinitive(self, side: int) -> str:
        return self.draw.choice(_INFINITIVE[side])

    def event(self, side: int) -> str:
        return self.draw.choice(_EVENT[side])

    def subject(self) -> str:
        return self.draw.choice(_SUBJECT)

    def very(self) -> str:
        return self.draw.choice(_INTENSIFIERS)

    def one_of(self, *options: str) -> str:
        return self.draw.choice(options)

    def clause(self, side: int) -> str:
        """A plain statement about a subject that takes this side."""
        frame = self.draw.choice(_PLAIN)
        return frame(self, side)

    def turned(self, side: int) -> str:
        """A statement that takes this side by denying the other."""
        frame = self.draw.choice(_NEGATED)
        return frame(self, 1 - side)


_Frame = Callable[[_Words, int], str]

# Frames whose side is that of their word.
_PLAIN: tuple[_Frame, ...] = (
    lambda w, s: f"{w.subject()} {w.one_of('is', 'was')} {w.very()}{w.adjective(s)}",
    lambda w, s: (
        f"{w.subject()} {w.one_of('is', 'was')} {w.adjective(s)} {w.one_of('and', 'and also')} {w.adjective(s)}"
    ),
    lambda w, s: f"{w.subject()} is {w.thing(s)}",
    lambda w, s: f"{w.one_of('what', 'such')} {w.thing(s)}",
    lambda w, s: f"I {w.one_of('', 'really ', 'simply ')}{w.deed(s)} {w.subject()}",
    lambda w, s: f"I {w.infinitive(s)} {w.subject()}",
    lambda w, s: (
        f"{w.subject()} {w.one_of('is full of', 'has plenty of', 'has a lot of')} {w.quality(s)}"
    ),
    lambda w, s: f"{w.subject()} {w.event(s)}",
    lambda w, s: f"{w.adjective(s)}, {w.adjective(s)} and {w.adjective(s)}",
    lambda w, s: (
        f"{w.very()}{w.adjective(s)} {w.one_of('work', 'stuff', 'product', 'film', 'service')}"
    ),
    lambda w, s: f"one of the most {w.adjective(s)} things I have come across",
    lambda w, s: (
        f"{w.subject()} {w.one_of('looks', 'seems', 'feels', 'turned out')} {w.very()}{w.adjective(s)}"
    ),
    lambda w, s: (
        f"{w.one_of('everybody', 'my family', 'my wife', 'my son')} {w.deed(s)} {w.subject()}"
    ),
    lambda w, s: f"never have I met anything so {w.adjective(s)}",
    lambda w, s: f"more {w.adjective(s)} than I {w.one_of('expected', 'imagined', 'had feared')}",
    lambda w, s: f"no other word for {w.subject()} but {w.adjective(s)}",
    lambda w, s: (
        f"{w.subject()} was {w.one_of('much ', 'far ', 'a lot ', '')}{('better', 'worse')[s]} than "
        f"{w.one_of('expected', 'the other one', 'I had hoped', 'its price suggests', 'the one before')}"
    ),
    lambda w, s: (
        f"{w.one_of('I will', 'I would', 'we will')} {('gladly', 'never')[s]} "
        f"{w.one_of('buy', 'order', 'use', 'visit', 'read', 'rent')} {w.one_of('it', 'this', 'them')} again"
    ),
    lambda w, s: (
        f"{('the best', 'the worst')[s]} {w.one_of('film', 'dress', 'phone', 'book', 'meal', 'service', 'one')} "
        f"{w.one_of('I have had', 'in years', 'of all', 'this year')}"
    ),
    lambda w, s: (
        f"{w.subject()} is {('worth every cent', 'not worth a cent')[s]}"
        if w.draw.random() < 0.5
        else f"{('thanks to', 'because of')[s]} {w.subject()} the day was {('saved', 'ruined')[s]}"
    ),
    lambda w, s: (
        f"{('money well spent', 'money thrown away')[s]}"
        f"{w.one_of('', ' on ' + w.subject(), ', if you ask me')}"
    ),
    lambda w, s: (
        f"{w.one_of('save your money', 'stay away', 'keep your distance', 'do not bother', 'send it back')}"
        f"{w.one_of('', ', ' + w.subject() + ' is ' + w.adjective(1))}"
        if s
        else f"{w.one_of('go and get it', 'try it', 'do not miss it', 'treat yourself', 'buy two')}"
        f"{w.one_of('', ', ' + w.subject() + ' is ' + w.adjective(0))}"
    ),
)

# Frames that turn the side of their word round.
_NEGATED: tuple[_Frame, ...] = (
    lambda w, s: (
        f"{w.subject()} {w.one_of('is not', 'was not', 'isnt', 'wasn’t', 'is never')} {w.adjective(s)}"
    ),
    lambda w, s: (
        f"{w.subject()} isn't {w.one_of('', 'very ', 'really ', 'at all ')}{w.adjective(s)}"
    ),
    lambda w, s: (
        f"{w.subject()} wasn't {w.adjective(s)} {w.one_of('at all', 'in the slightest', 'for a moment')}"
    ),
    lambda w, s: (
        f"{w.subject()} is {w.one_of('far from', 'anything but', 'hardly', 'by no means')} {w.adjective(s)}"
    ),
    lambda w, s: (
        f"{w.subject()} is {w.one_of('not', 'no longer', 'hardly', 'certainly not')} {w.thing(s)}"
    ),
    lambda w, s: (
        f"I {w.one_of('do not', 'don’t', 'didn’t', 'could not', 'cannot')} {w.infinitive(s)} {w.subject()}"
    ),
    lambda w, s: f"I never {w.deed(s)} {w.subject()}",
    lambda w, s: (
        f"{w.subject()} has {w.one_of('no', 'hardly any', 'little', 'not much in the way of')} {w.quality(s)}"
    ),
    lambda w, s: (
        f"{w.one_of('without', 'without any', 'free of', 'not a trace of')} {w.quality(s)}"
    ),
    lambda w, s: f"{w.subject()} lacks {w.quality(s)}",
    lambda w, s: (
        f"{w.one_of('nothing', 'there was nothing', 'not one thing is')} {w.adjective(s)} about {w.subject()}"
    ),
    lambda w, s: (
        f"{w.one_of('nobody', 'no one')} {w.one_of('could call', 'would call')} {w.subject()} {w.adjective(s)}"
    ),
    lambda w, s: f"I would not {w.one_of('call', 'consider')} {w.subject()} {w.adjective(s)}",
    lambda w, s: (
        f"I {w.one_of('don’t think', 'do not find that', 'doubt that')} {w.subject()} is {w.adjective(s)}"
    ),
    lambda w, s: f"{w.one_of('never', 'not once', 'at no point')} {w.adjective(s)}",
    lambda w, s: f"neither {w.adjective(s)} nor {w.adjective(s)}",
    lambda w, s: (
        f"{w.subject()} is less {w.adjective(s)} than {w.one_of('people say', 'I was told', 'I thought')}"
    ),
    lambda w, s: f"it is not true that {w.subject()} is {w.adjective(s)}",
    lambda w, s: f"{w.subject()} could not {w.one_of('have been', 'be')} less {w.adjective(s)}",
    lambda w, s: f"not {w.one_of('a bit', 'the least bit', 'remotely')} {w.adjective(s)}",
    lambda w, s: (
        f"there is {w.one_of('no reason', 'nothing')} to {('praise', 'criticise')[s]} "
        f"{w.one_of('', 'about ', 'here about ')}{w.subject()}"
        if w.draw.random() < 0.5
        else f"I have {w.one_of('no', 'not one', 'zero')} {('words of praise', 'objections')[s]}"
    ),
    lambda w, s: (
        f"I was not {('pleased', 'let down')[s]} by {w.subject()}"
        if w.draw.random() < 0.5
        else f"{w.subject()} {('never satisfied', 'never disappointed')[s]} {w.one_of('me', 'us', 'anyone')}"
    ),
)


# Frames with two sides, of which the last to be held wins: their side is that of the second word.
def _contrast(w: _Words, side: int) -> str:
    first = w.draw.choice((w.clause, w.turned))(1 - side)
    second = w.draw.choice((w.clause, w.clause, w.turned))(side)
    adjective, other = w.adjective(side), w.adjective(1 - side)
    subject = w.subject()
    return w.one_of(
        f"{first}, but {second}",
        f"{first}, yet {second}",
        f"{first}; still, {second}",
        f"although {first}, {second}",
        f"even though {first}, {second}",
        f"{second}, although {first}",
        f"{second}, even if {first}",
        f"{subject} is not {other} but {adjective}",
        f"{subject} is not {other}, it is {w.very()}{adjective}",
        f"{subject} is {adjective}, not {other}",
        f"{subject} is {other}, yet {adjective}",
        f"{other} but {adjective}",
        f"despite {w.one_of('its', 'all the', 'a few')} {w.quality(1 - side)}, {subject} is {adjective}",
        f"I expected something {other}, but {subject} was {adjective}",
        f"I thought {subject} would be {other}, and it was {adjective}",
        f"I feared that it would be {other}; it is {adjective}",
        f"people say that {subject} is {other}, I say it is {adjective}",
        f"{w.one_of('he', 'she', 'everyone')} {w.deed(1 - side)} it, I {w.deed(side)} it",
        f"what looks {other} turns out to be {adjective}",
        f"at first {other}, in the end {adjective}",
        f"not only {adjective} but also {w.adjective(side)}",
    )


def _compose(w: _Words, side: int) -> str:
    """A statement that takes this side."""
    kind = w.draw.random()
    if kind < 0.36:
        text = w.clause(side)
    elif kind < 0.7:
        text = w.turned(side)
    elif kind < 0.92:
        text = _contrast(w, side)
    else:
        text = f"{w.clause(side)} and {w.draw.choice((w.clause, w.turned))(side)}"
    return _sentence(w, w.draw.choice(_OPENINGS) + text)


def _sentence(w: _Words, text: str) -> str:
    return text[0].upper() + text[1:] + w.draw.choice(_CLOSINGS)


def compose(count: int, seed: int = _SEED, language: Language = "en") -> Iterator[tuple[str, bool]]:
    """So many statements, in turn favourable and not: each text once."""
    draw = random.Random(seed)
    words = _Words(draw)
    seen: set[str] = set()
    while len(seen) < count:
        side = len(seen) % 2
        text = _compose(words, side) if language == "en" else _compose_zh(draw, side)
        if text not in seen:
            seen.add(text)
            yield text, side == 0


def read(name: str = NAME, count: int = STATEMENTS) -> pl.DataFrame:
    """What `reviews.clean` takes: so many statements of the source of that name in `SOURCES`."""
    rows = list(compose(count, language=SOURCES[name]))
    return pl.DataFrame(
        {
            ROW: range(1, len(rows) + 1),
            TEXT: [text for text, _ in rows],
            SENTIMENT: ["positive" if favourable else "negative" for _, favourable in rows],
        },
        schema={ROW: pl.Int64, TEXT: pl.String, SENTIMENT: pl.String},
    )


# --- what states no opinion

_FACTS = """blue|green|red|black|white|long|short|large|small|wooden|French|Italian|round|square|old
    |new|open|closed|locked|full|here|upstairs|available|sold in pairs|made of cotton|made in Portugal
    |from 1987|two hours long|in the box|on the table|for women|for children|about a teacher|in colour
    |by the same author|the second of three|set in Chicago|on sale from Monday|next to the station"""
_ASKED = """where is|when does it arrive:|how much is|what size is|who made|who directed|is there a manual for
    |can I return|how do I use|does anybody know|what is the name of|how old is|which version is
    |can you tell me about|do you sell|how long is|is it possible to change|what happened to"""
_ERRANDS = """change my address|show my invoices|pay by bank transfer|forgot my login|cancel the booking
    |opening times|speak to an agent|change the language|add a gift note|call me back|stop the newsletter
    |print the label|what is my balance|turn the volume down|next page|goodbye|thank you
    |see you on Monday|set a timer|remind me at five|new account|close the window|play the next one"""
_PEOPLE = """a doctor|a young lawyer|a farmer|two sisters|a retired teacher|a boy|a police officer|a group of students
    |a widow|a journalist|an engineer|a family|a pilot|a nurse|a chess player"""
_PLOTS = """moves to a small town|travels across the country|looks for a missing brother|opens a restaurant
    |takes a new job in London|inherits a house|returns to the village|joins the army|meets a stranger on a train
    |works in a hospital|writes a letter to the mayor|is sent to an island|prepares for a contest
    |learns about the past|crosses the border"""
_DEALINGS = """I bought it for my brother|I ordered it on Sunday|we saw it at the cinema|I have owned it for a year
    |I got it as a present|I wear a size ten|I have read half of it|I watched it with my father
    |I am going to start it tomorrow|I paid with a card|I use it at work|we stayed for two nights
    |I am five feet tall|I picked it up at the shop|I have two of them|I read it in school"""


def language_of(texts: Sequence[str]) -> Language:
    """The language of texts, of those that statements are composed in: Chinese where a fifth of the
    letters or more are Han.
    """
    letters = [char for text in texts for char in text if char.isalpha()]
    return "zh" if sum(map(_is_han, letters)) > len(letters) / 5 else "en"


def _is_han(char: str) -> bool:
    return "\u3400" <= char <= "\u9fff"


def no_opinions(
    count: int, titles: Sequence[str] = (), seed: int = _SEED, language: Language = "en"
) -> Iterator[str]:
    """So many texts that state no opinion, each once: questions, errands, facts, plots, and titles
    of items among them.
    """
    draw = random.Random(seed)
    if language == "zh":
        yield from _no_opinions_zh(draw, count, titles)
        return
    facts, asked, errands, people, plots, dealings = map(
        _split, (_FACTS, _ASKED, _ERRANDS, _PEOPLE, _PLOTS, _DEALINGS)
    )

    def subject() -> str:
        return draw.choice(_SUBJECT)

    frames: list[Callable[[], str]] = [
        lambda: f"{subject()} is {draw.choice(('', '', 'not '))}{draw.choice(facts)}",
        lambda: f"{subject()} was {draw.choice(facts)}",
        lambda: f"{draw.choice(asked)} {subject()}?",
        lambda: f"is {subject()} {draw.choice(facts)}?",
        lambda: f"{draw.choice(('please ', 'I want to ', 'how can I ', ''))}{draw.choice(errands)}",
        lambda: f"{draw.choice(people)} {draw.choice(plots)}",
        lambda: f"{draw.choice(people)} {draw.choice(plots)} and {draw.choice(plots)}",
        lambda: (
            f"{draw.choice(dealings)}{draw.choice(('', '.', ' and it is ' + draw.choice(facts)))}"
        ),
        lambda: f"{subject().removeprefix('the ')} {draw.randint(1, 3000)}",
        lambda: (
            f"{subject()} has {draw.randint(2, 90)} {draw.choice(('pages', 'parts', 'buttons', 'rooms', 'scenes'))}"
        ),
        lambda: "".join(
            draw.choice("abcdefghijklmnopqrstuvwxyz ") for _ in range(draw.randint(3, 14))
        ),
        lambda: f"{draw.choice(facts)} {subject().removeprefix('the ')}",
    ]
    if titles:
        frames += [lambda: draw.choice(titles)] * 3
    seen: set[str] = set()
    while len(seen) < count:
        text = draw.choice(frames)().strip()
        if text and text not in seen:
            seen.add(text)
            yield text[0].upper() + text[1:]


def _no_opinions_zh(draw: random.Random, count: int, titles: Sequence[str]) -> Iterator[str]:
    seen: set[str] = set()
    while len(seen) < count:
        parts = draw.choices((*_NO_OPINIONS_ZH, *_SUBJECT_ZH), k=draw.choice((1, 2, 2, 3)))
        text = draw.choice(titles) if titles and draw.random() < 0.2 else ",".join(parts)
        text += draw.choice(("", "", "。", f" {draw.randint(1, 2000)}"))
        if text not in seen:
            seen.add(text)
            yield text
