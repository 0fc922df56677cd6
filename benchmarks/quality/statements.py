"""Short statements, and how a bundle reads them: our own writing, which nothing is trained on.

    python benchmarks/quality/statements.py --bundle BUNDLE
    python benchmarks/quality/statements.py --bundle BUNDLE --part validation \\
        --snippets vaderSentiment-0.5.zip

There are two parts. What is chosen by looking at statements is chosen on `validation`; `test` is
measured. Each has as many favourable as unfavourable ones, in pairs that differ in little, with
negation and contrast; texts that state no opinion; and statements in other languages.

`--snippets` names the archive of the package vaderSentiment 0.5 (`pip download --no-deps
vaderSentiment==0.5`, MIT; C. J. Hutto, E. Gilbert, VADER, ICWSM 2014): sentences about electronics,
tweets, and sentences of editorials, each with the mean of twenty people's ratings from -4 to 4. All
are of domains that no model of ours is trained on. One of at least 1 either way is favourable or
not, and one within 0.4 of 0 states no opinion. A third of them, by a hash, is `validation`.
"""

from __future__ import annotations

import argparse
import io
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from tasteloop.metrics import wilson

VALIDATION_PRAISE = """\
Loved every minute of it.
This is the best purchase I have made all year.
Not a single thing I would change.
It never gets old.
I couldn't put it down.
You won't regret buying it.
Far from boring.
Not bad at all, in fact quite good.
I expected to hate it and ended up loving it.
It is slow, but it rewards your patience.
The sleeves are a little long, yet the fit is wonderful.
Cheap, but it does the job beautifully.
Nobody does it better.
I have nothing but praise for it.
Hardly any flaws.
It is anything but dull.
Don't listen to the critics, it is fantastic.
Exceeded all my expectations.
Five stars from me.
My kids adore it.
The soup was delicious.
Friendly staff and a spotless room.
It fits like a glove.
Such a clever little film.
I wasn't sure at first, but now I am a fan.
It didn't let me down.
No regrets.
Can't fault it.
I can't recommend it enough.
Worth every penny.
Soft, warm and well made.
It arrived early and in perfect condition.
A masterpiece.
Not only pretty but also comfortable.
The ending moved me to tears, in the best way.
I would gladly watch it again.
Without a doubt the finest of the series.
It is not expensive and it works.
Much better than the last one.
There is nothing not to like.
Impressive.
So glad I bought this.
Beautiful colours and a flattering cut.
The battery lasts forever.
It isn't perfect, but I love it anyway.
Despite its flaws, a thoroughly entertaining picture.
The plot is silly, yet I laughed all the way through.
I thought it would be terrible; I was happily mistaken.
Nothing about it disappointed me.
A breath of fresh air.
Superb acting.
This never fails to make me smile.
Hotel was great, we will be back.
I don't have any complaints.
Smart, tender and funny.
Really pleased with the quality.
A must-see.
It couldn't have been better.
The opposite of boring.
He is never less than convincing.
Two thumbs up.
It was neither too long nor too short, just right.
Everyone I know likes it.
Quick delivery, great price.
I would not hesitate to order it again.""".splitlines()
VALIDATION_BLAME = """\
I want my money back.
This is the worst purchase I have made all year.
Not a single thing about it works.
It gets old very fast.
I couldn't finish it.
You will regret buying it.
Far from interesting.
Not good at all, in fact quite bad.
I expected to love it and ended up hating it.
It is fast, but it is empty.
The fit is fine, yet the fabric feels awful.
Pretty, but it fell apart after one wash.
Anybody could do it better.
I have nothing but contempt for it.
Hardly any virtues.
It is anything but funny.
Don't listen to the critics, it is dreadful.
Fell short of all my expectations.
One star from me.
My kids were bored to death.
The soup was cold.
Rude staff and a filthy room.
It fits like a sack.
Such a pointless little film.
I was a fan at first, but not any more.
It let me down.
I regret it.
Can't stand it.
I can't recommend it.
Not worth a penny.
Scratchy, thin and badly made.
It arrived late and broken.
A disaster.
Not only ugly but also uncomfortable.
The ending was so stupid that I groaned.
I would never watch it again.
Without a doubt the weakest of the series.
It is expensive and it does not work.
Much worse than the last one.
There is nothing to like.
Unimpressive.
So sorry I bought this.
Dull colours and an unflattering cut.
The battery dies in an hour.
It looks perfect, but I can't wear it.
Despite its big budget, a thoroughly tedious picture.
The plot is clever, yet I was bored all the way through.
I thought it would be wonderful; I was sadly mistaken.
Nothing about it impressed me.
A waste of time.
Wooden acting.
This never makes me smile.
The hotel was dirty, we will not be back.
I have nothing good to say.
Dumb, cold and unfunny.
Really unhappy with the quality.
Avoid it.
It couldn't have been worse.
The opposite of exciting.
He is never convincing.
Two thumbs down.
It was too long, too loud and too silly.
Nobody I know likes it.
Slow delivery, terrible price.
I would hesitate to order it again.""".splitlines()
VALIDATION_NO_OPINION = """\
Where is my order?
What time does it start?
It is a film from 1994.
The parcel contains two shirts and a belt.
How do I change my password?
size 12 petite
A detective investigates a murder in a small town.
She plays the sister of the main character.
The shop opens at nine.
Does it come in blue?
cheap flights to Rome
Please call me back tomorrow.
I watched it on Tuesday.
I bought it for my sister.
Made of cotton and polyester.
Two friends travel to the coast.
Can I pay by card?
Toy Story 2
The Godfather
running shoes
The meeting was moved to Friday.
My name is Peter.
It weighs three kilograms.
The second part comes out next year.
horror movies from the eighties
Is there a discount for students?
I have not seen it yet.
The train leaves from platform 4.
what else did this director make
Returns are accepted within 30 days.
The book has 320 pages.
I ordered a medium.
hello
ok
123456
asdf
The sun rises in the east.
A young woman moves to the city and finds a job.
Thursday, 3 pm.
Send me the receipt.""".splitlines()
VALIDATION_FOREIGN_PRAISE = """\
这部电影太好看了
我非常喜欢这件衣服
质量很好
Ein wunderbarer Film, ich habe ihn geliebt.
Das Kleid passt perfekt.
Sehr zu empfehlen.
Un film magnifique, je le recommande.
La robe est superbe.
Una película maravillosa.
Me encanta este vestido.
Un capolavoro.
Отличный фильм, мне очень понравилось.
とても面白かったです。
정말 재미있어요.
فيلم رائع جدا
Świetny film, polecam.""".splitlines()
VALIDATION_FOREIGN_BLAME = """\
这部电影太难看了
我非常讨厌这件衣服
质量很差
Ein furchtbarer Film, ich habe ihn gehasst.
Das Kleid passt überhaupt nicht.
Nicht zu empfehlen.
Un film nul, je ne le recommande pas.
La robe est affreuse.
Una película horrible.
Odio este vestido.
Che delusione.
Ужасный фильм, мне не понравилось.
とてもつまらなかったです。
정말 재미없어요.
فيلم سيئ جدا
Okropny film, nie polecam.""".splitlines()
TEST_PRAISE = """\
I had a wonderful time.
It is not often that a sequel is this good.
We were not bored for a second.
Everything works as promised.
I was ready to complain, but there was nothing to complain about.
It may be old, but it is still great.
Never have I laughed so much.
Not disappointing in the least.
My new favourite.
A bit pricey, but worth it.
The dress is gorgeous.
It doesn't shrink and it doesn't fade.
What a charming story.
No other brand comes close.
I'd buy it again in a heartbeat.
The material is lovely and the zip never sticks.
Simple but brilliant.
Hard to beat.
I am not easily impressed, but this impressed me.
It is long, but never tedious.
Exactly what I was hoping for.
He has never been funnier.
The food was excellent and so was the service.
I don't usually like musicals, but I enjoyed this one.
Nothing could be finer.
It is far better than its reputation.
Reliable, quiet and easy to use.
Not your usual rubbish, this is really special.
The camera takes stunning pictures.
Highly entertaining.
You can't go wrong with this.
It was a pleasure from start to finish.
Flawless.
They solved my problem at once.
It made my day.
I fell in love with it right away.
Sturdy and stylish.
It isn't bad.
The actors are terrific.
It would be a mistake to miss it.
I have never had a better pair of shoes.
Not one weak moment.
It lived up to the hype.
I can't stop wearing it.
It's hard not to like this film.
Well worth the wait.
Gripping until the last page.
A little strange, but I liked it a lot.
I wouldn't return it for anything.
They got everything right.
So comfortable that I forget I have it on.
It was less boring than I feared, and often very funny.
Fresh and original.
Great value for money.
The quality surprised me, in a good way.
Nobody could complain about this.
Delightful.
I wish I had bought it sooner.
Even my husband loved it.
The best there is.""".splitlines()
TEST_BLAME = """\
I had a miserable time.
It is not often that a sequel is this bad.
We were not amused for a second.
Nothing works as promised.
I was ready to praise it, but there was nothing to praise.
It may be new, but it is already broken.
Never have I yawned so much.
Not satisfying in the least.
My least favourite.
Cheap, and it shows.
The dress is hideous.
It shrinks and it fades.
What a tiresome story.
Any other brand is better.
I'd never buy it again.
The material is rough and the zip always sticks.
Simple and stupid.
Hard to bear.
I am easily impressed, but this did not impress me.
It is short, but still tedious.
Not at all what I was hoping for.
He has never been less funny.
The food was bland and the service was worse.
I usually like musicals, but I did not enjoy this one.
Nothing could be worse.
It is far worse than its reputation.
Unreliable, noisy and hard to use.
Just the usual rubbish, nothing special.
The camera takes blurry pictures.
Hardly entertaining.
You can't go right with this.
It was a chore from start to finish.
Faulty.
They ignored my problem.
It ruined my day.
I fell asleep right away.
Flimsy and ugly.
It isn't good.
The actors are terrible.
It would be a mistake to see it.
I have never had a worse pair of shoes.
Not one strong moment.
It did not live up to the hype.
I can't wear it.
It's hard to like this film.
Not worth the wait.
Tedious until the last page.
A little strange, and I did not like it at all.
I am going to return it.
They got everything wrong.
So uncomfortable that I took it off at once.
It was more boring than I feared, and never funny.
Stale and derivative.
A rip-off.
The quality shocked me, in a bad way.
Everybody complains about this.
Dreadful.
I wish I had never bought it.
Even my husband hated it.
The worst there is.""".splitlines()
TEST_NO_OPINION = """\
When will my parcel arrive?
How long is it?
It was filmed in Canada.
The box has three drawers.
I forgot my user name.
size 8, black
A soldier returns home after the war.
He is the brother of the director.
We close at six.
Do you ship to France?
hotels in Berlin
Please cancel my subscription.
I saw it last week.
It is a present for my father.
The lining is made of silk.
Three brothers inherit a farm.
Is it available on DVD?
Star Wars
Pulp Fiction
winter coats
The invoice is attached.
I live in Boston.
It is 40 cm wide.
The first episode was shown in March.
romantic comedies with Meg Ryan
What is the return address?
I haven't opened the box yet.
The bus stops at the corner.
who wrote the music
Orders are sent within two days.
The room is on the second floor.
I chose the green one.
good evening
yes
42
qwerty
Water boils at 100 degrees.
An old man tells his grandson about his youth.
Monday morning.
Log me out.""".splitlines()
TEST_FOREIGN_PRAISE = """\
剧情精彩,演员很棒
穿起来很舒服
Ein Meisterwerk, das man gesehen haben muss.
Die Hose sitzt hervorragend.
J'ai adoré ce livre.
Très bonne qualité.
Excelente calidad, muy contento.
Mi è piaciuto moltissimo.
Eu adorei este filme.
Het is een prachtige film.
Прекрасное качество.
この服は最高です。
품질이 아주 좋아요.
En fantastisk film.
Harika bir film, bayıldım.""".splitlines()
TEST_FOREIGN_BLAME = """\
剧情无聊,演员很差
穿起来很不舒服
Ein Machwerk, das man sich sparen kann.
Die Hose sitzt schlecht.
J'ai détesté ce livre.
Très mauvaise qualité.
Pésima calidad, muy descontento.
Non mi è piaciuto per niente.
Eu odiei este filme.
Het is een vreselijke film.
Ужасное качество.
この服は最悪です。
품질이 너무 나빠요.
En hemsk film.
Berbat bir film, nefret ettim.""".splitlines()

SNIPPETS = ("amazonReviewSnippets", "tweets", "nytEditorialSnippets")
_ARCHIVE = "additional_resources/hutto_ICWSM_2014.tar.gz"  # within the package's


@dataclass(frozen=True)
class Texts:
    """Texts [n] of one kind.

    Attributes:
        favourable: [n], NaN for a text that states no opinion.
    """

    name: str
    texts: list[str]
    favourable: Any


def statements(part: str) -> Iterator[Texts]:
    """The statements of a part, by kind."""
    own: dict[str, list[str]] = {
        name.removeprefix(f"{part.upper()}_"): texts
        for name, texts in globals().items()
        if name.startswith(f"{part.upper()}_")
    }
    for name, prefix in (("short statements", ""), ("in other languages", "FOREIGN_")):
        praise, blame = own[f"{prefix}PRAISE"], own[f"{prefix}BLAME"]
        yield Texts(name, praise + blame, np.repeat([1.0, 0.0], [len(praise), len(blame)]))
    none = own["NO_OPINION"]
    yield Texts("no opinion", none, np.full(len(none), np.nan))


def snippets(archive: Path, part: str) -> Iterator[Texts]:
    """The sentences of each domain of the package's archive that belong to a part."""
    with zipfile.ZipFile(archive) as package:
        [inner] = [name for name in package.namelist() if name.endswith(_ARCHIVE)]
        content = package.read(inner)
    with tarfile.open(fileobj=io.BytesIO(content)) as files:
        for name in SNIPPETS:
            file = files.extractfile(f"hutto_ICWSM_2014/{name}_GroundTruth.txt")
            assert file is not None
            rows = [line.split("\t") for line in file.read().decode(errors="replace").split("\n")]
            texts, ratings = [], []
            for row in rows:
                is_validation = len(row) == 3 and _uniform(row[2]) < 1 / 3
                if len(row) == 3 and is_validation == (part == "validation"):
                    texts.append(row[2].strip())
                    ratings.append(float(row[1]))
            rating = np.array(ratings)
            stated, none = np.abs(rating) >= 1, np.abs(rating) < 0.4
            chosen = [text for text, use in zip(texts, stated, strict=True) if use]
            yield Texts(name, chosen, (rating[stated] > 0).astype(float))
            chosen = [text for text, use in zip(texts, none, strict=True) if use]
            yield Texts(f"{name}, no opinion", chosen, np.full(len(chosen), np.nan))


def _uniform(text: str) -> float:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64


def row(texts: Texts, probability: Any, sure: Any, threshold: float) -> str:
    """A line of the table."""

    def share(hits: Any) -> str:
        low, high = wilson(int(hits.sum()), len(hits))
        return f"{hits.mean():.3f} ({low:.3f} to {high:.3f})" if len(hits) else "-"

    head = f"| {texts.name} | {len(texts.texts)} |"
    if np.isnan(texts.favourable).all():
        return f"{head} | | {share(sure)} | |"
    predicted, truth = probability >= threshold, texts.favourable > 0
    right = predicted == truth
    balanced = (right[truth].mean() + right[~truth].mean()) / 2
    return f"{head} {share(right)} | {balanced:.3f} | {share(sure)} | {share(right[sure])} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--part", choices=("validation", "test"), default="test")
    parser.add_argument("--snippets", type=Path, help="the archive of vaderSentiment 0.5")
    options = parser.parse_args()

    from tasteloop.runtime.session import Session

    session = Session.load(options.bundle)
    kinds = [*statements(options.part)]
    if options.snippets:
        kinds += snippets(options.snippets, options.part)
    print(f"{options.part}, bundle {session.digest[:12]}, {session.runtime}")
    print("| texts | n | right | balanced | called confident | of these right |")
    print("|---|---|---|---|---|---|")
    for texts in kinds:
        probability = np.asarray(session.sentiment(texts.texts))
        sure = np.asarray(session.confident("sentiment", probability))
        print(row(texts, probability, sure, session.sentiment_threshold))
        sys.stdout.flush()


if __name__ == "__main__":
    main()
