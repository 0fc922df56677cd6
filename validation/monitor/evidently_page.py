"""Evidently's own page on two samples, made safe, and its numbers.

Evidently writes names from the data into a script (0.7.23: a category `</script><script>` comes
alive). Here every string that it gets is inert before (no character that HTML or JavaScript reads
as markup), and its page is sealed after: a policy names its four scripts by their hashes, so that
the browser runs no other one, and loads nothing.
"""

from __future__ import annotations

import base64
import hashlib
import re
import warnings
from typing import TYPE_CHECKING

from tasteloop.answers import RECOMMEND
from tasteloop.behaviour.events import ITEM, KIND, USER, VALUE
from tasteloop.behaviour.items import Catalogue
from tasteloop.errors import TasteloopError
from tasteloop.intervals import finite
from tasteloop.journal import MODEL, NAMES, NUMBERS
from validation.monitor.drift_report import ColumnDrift, EvidentlyNumbers
from validation.monitor.reference import LABEL, LENGTH, SCRIPT, STANCE, TENTH, WISH
from validation.monitor.windows import RELEVANT

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

_CATEGORIES, _NUMBERS = (KIND, LABEL, TENTH, SCRIPT, WISH, STANCE), (VALUE, LENGTH)
_SCRIPTS = 4  # of a page of Evidently: its data, `global`, its library, the call
# the full-width forms look alike
_MARKUP = str.maketrans({c: chr(ord(c) + 0xFEE0) for c in "<>&\"'`\\{}$"})
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_MOST_ITEMS = 3000  # Evidently's diversity holds a matrix of all pairs
_K = 10


def evidently(
    reference: pl.DataFrame,
    current: pl.DataFrame,
    before: pl.DataFrame,
    mature: pl.DataFrame,
    catalogue: Catalogue,
) -> tuple[str, EvidentlyNumbers]:
    """Evidently's page on two samples, safe, and its numbers: drift of columns, health of
    recommendations on each side.

    Args:
        reference, current: `validation.monitor.reference.rows_of`.
        before, mature: answers with outcomes of both sides.
    """
    from evidently import DataDefinition, Dataset, Report
    from evidently.core.metric_types import Metric
    from evidently.metrics import ValueDrift

    used = [
        c
        for c in (*_CATEGORIES, *_NUMBERS)
        if all(c in t.columns and t[c].drop_nulls().len() for t in (reference, current))
    ]
    definition = DataDefinition(
        categorical_columns=[c for c in used if c in _CATEGORIES],
        numerical_columns=[c for c in used if c in _NUMBERS],
    )
    methods = {c: "jensenshannon" if c in _CATEGORIES else "wasserstein" for c in used}
    metrics: list[Metric] = [ValueDrift(column=c, method=m) for c, m in methods.items()]
    old, new = (
        Dataset.from_pandas(_inert(t.select(used)), data_definition=definition)
        for t in (reference, current)
    )
    run = Report(metrics).run(new, old)
    scores = {c: finite(m["value"]) for c, m in zip(methods, run.dict()["metrics"], strict=True)}
    numbers = EvidentlyNumbers(
        version=_version(),
        rows=(reference.height, current.height),
        columns={c: ColumnDrift(method=methods[c], score=scores[c]) for c in used},
        recommendations=_health(reference, before, mature, catalogue),
    )
    return seal(run.get_html_str(as_iframe=False)), numbers


def _health(
    behaviour: pl.DataFrame, before: pl.DataFrame, mature: pl.DataFrame, catalogue: Catalogue
) -> dict[str, dict[str, float]] | None:
    """The single values of Evidently's preset for recommendations, on each side; None where one has
    none.
    """
    from evidently import DataDefinition, Dataset, Recsys, Report
    from evidently.metrics import PopularityBiasMetric
    from evidently.presets import RecsysPreset

    labels = catalogue.label_names if len(catalogue) <= _MOST_ITEMS else []
    features = [f"label {n}" for n in range(len(labels))]
    member = dict(zip(catalogue.items, catalogue.membership(labels), strict=True))

    def side(answers: pl.DataFrame) -> pd.DataFrame:
        import pandas as pd

        rows = [
            (
                _word(request),
                _word(item),
                float(score),
                int(item in then),
                *member.get(item, [0.0] * len(labels)),
            )
            for request, names, scores, then in answers.select(
                "request", NAMES, NUMBERS, RELEVANT
            ).rows()
            for item, score in zip(names[:_K], scores[:_K], strict=True)
        ]
        return pd.DataFrame(rows, columns=["user_id", "item_id", "prediction", "target", *features])

    import polars as pl

    sides = {}
    for name, answers in (("reference", before), ("current", mature)):
        recommended = answers.filter(
            (pl.col(MODEL) == RECOMMEND) & (pl.col(RELEVANT).list.len() > 0)
        )
        if not recommended.height:
            return None
        sides[name] = side(recommended)
    definition = DataDefinition(
        ranking=[Recsys()],
        categorical_columns=["user_id", "item_id"],
        numerical_columns=["prediction", "target", *features],
    )
    acted_on = (
        behaviour.filter(pl.col(ITEM).is_not_null())
        .select(USER, ITEM)
        .unique(maintain_order=True)
        .to_pandas()
    )
    train = acted_on.rename(columns={USER: "user_id", ITEM: "item_id"}).assign(
        target=1, prediction=1.0
    )
    for n, feature in enumerate(features):
        train[feature] = [float(member[i][n]) if i in member else 0.0 for i in train["item_id"]]
    for column in ("user_id", "item_id"):
        train[column] = train[column].map(_word)
    known = Dataset.from_pandas(train, data_definition=definition)
    out = {}
    for name, table in sides.items():
        preset = RecsysPreset(k=_K, item_features=features or None, include_tests=False)
        coverage = PopularityBiasMetric(k=_K, metric="coverage")
        with warnings.catch_warnings():
            # means of nothing, which are NaN and left out below
            warnings.simplefilter("ignore", RuntimeWarning)
            run = Report([preset, coverage]).run(
                Dataset.from_pandas(table, data_definition=definition),
                None,
                additional_data={"current_train_data": known},
            )
        values = {
            re.sub(r"\(.*", "", m["metric_name"]): m["value"] for m in run.dict()["metrics"][:-1]
        }
        values["Coverage"] = run.dict()["metrics"][-1]["value"]
        # some are NaN on small samples
        known_ones = {key: finite(value) for key, value in values.items()}
        out[name] = {key: value for key, value in known_ones.items() if value is not None}
    return out


def _word(name: object) -> str:
    """A name that Evidently leaves as it is: it makes numbers of those that look like one, and
    misses them later.
    """
    return f"n{name}"


def _version() -> str:
    from importlib.metadata import version

    return version("evidently")


def _inert(frame: pl.DataFrame) -> pd.DataFrame:
    """For Evidently: every string without what HTML or JavaScript could read as anything but
    text.
    """
    import polars as pl

    texts = [c for c in frame.columns if frame[c].dtype == pl.String]
    return frame.with_columns(
        pl.col(c).map_elements(inert, return_dtype=pl.String) for c in texts
    ).to_pandas()


def inert(text: str) -> str:
    """A string that is text wherever it is put: markup in full-width forms, control characters as
    U+FFFD.
    """
    return _CONTROL.sub("�", text).translate(_MARKUP)


def seal(page: str) -> str:
    """A page of Evidently with a policy under which the browser runs its own scripts only, and
    loads nothing.

    Raises:
        TasteloopError: it is not made as expected; then it is not kept.
    """
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    head = page.find("<head>")
    if (
        len(scripts) != _SCRIPTS
        or head < 0
        or re.search(r"<script[^>]+\bsrc=", page.replace(scripts[2], "", 1))
    ):
        raise TasteloopError(
            f"Evidently's page has {len(scripts)} scripts where {_SCRIPTS} are known, so it is not kept; this version "
            "of Evidently makes it otherwise"
        )
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'"
        for s in scripts
    )
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; font-src data:; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    meta = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
    return page[: head + 6] + meta + page[head + 6 :]
