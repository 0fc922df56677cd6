"""The evaluation as it is written to evaluation.json and read back: one typed record.

`Evaluation.parse` reads the file once. It is lenient: what is missing or of another shape becomes
empty, so that a page of a failed or foreign run can still be drawn. Numbers that a decision needs
are asked for with `Interval.require`, which says why one of them cannot be relied on. Nothing here
needs more than the standard library, so that every reader may import it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PurePath
from typing import Any

from tasteloop.files import as_list, as_mapping, as_rows, read_json
from tasteloop.intervals import MISSING, Interval, finite, whole

EVALUATION_FILE = "evaluation.json"
SCHEMA = 1
CHAMPION = "champion"  # the key of the champion among those that a candidate is compared with
UNDERSTANDING = (
    "understanding"  # the metric of all kinds of questions, the first word of each one's
)

UNDERSTOOD = 0.9
"""The share of a kind's cases from which it is passed: what a model that understands reaches in
every kind (docs/results.md), and what the profiles' `gate.reported` asks.
"""

_WEAKEST = 3  # kinds that a summary names

Metrics = Mapping[str, Interval]  # by the name of a metric, such as recommend.ndcg@10


@dataclass(frozen=True)
class Comparison:
    """A candidate's metrics beside those of others on the same rows.

    Attributes:
        metrics: of the candidate.
        baselines: of each baseline, by its name.
        differences: candidate minus other, by the other's name, with paired intervals.
    """

    metrics: Metrics = field(default_factory=dict)
    baselines: Mapping[str, Metrics] = field(default_factory=dict)
    differences: Mapping[str, Metrics] = field(default_factory=dict)

    @classmethod
    def parse(cls, raw: object) -> Comparison:
        value = as_mapping(raw)
        return cls(
            metrics=_metrics(value.get("metrics")),
            baselines=_metrics_by_name(value.get("baselines")),
            differences=_metrics_by_name(value.get("differences")),
        )

    def json(self) -> dict[str, Any]:
        return {
            "metrics": _metrics_json(self.metrics),
            "baselines": {name: _metrics_json(own) for name, own in self.baselines.items()},
            "differences": {name: _metrics_json(own) for name, own in self.differences.items()},
        }

    def metric(self, name: str) -> Interval:
        """A metric of the candidate; one that says that it is missing where it was not measured."""
        return self.metrics.get(name, MISSING)

    def baseline(self, name: str, metric: str) -> Interval:
        return self.baselines.get(name, {}).get(metric, MISSING)

    def difference(self, other: str, metric: str) -> Interval:
        return self.differences.get(other, {}).get(metric, MISSING)


@dataclass(frozen=True)
class ChampionMetrics:
    """The champion of the time, measured on the same rows as the candidate.

    Attributes:
        digest: of its bundle; None where the file does not say it.
        version: in the registry; None where it is not known.
        tasks: the served models that it has.
    """

    digest: str | None = None
    version: str | None = None
    tasks: tuple[str, ...] = ()
    metrics: Metrics = field(default_factory=dict)

    @classmethod
    def parse(cls, raw: object) -> ChampionMetrics:
        value = as_mapping(raw)
        return cls(
            digest=_digest(value.get("digest")),
            version=_text(value.get("version")),
            tasks=tuple(str(task) for task in as_list(value.get("tasks"))),
            metrics=_metrics(value.get("metrics")),
        )

    def json(self) -> dict[str, Any]:
        version = {} if self.version is None else {"version": self.version}
        return {
            "digest": self.digest,
            **version,
            "tasks": list(self.tasks),
            "metrics": _metrics_json(self.metrics),
        }


@dataclass(frozen=True)
class Slice:
    """A metric on a part of the test rows, such as `users=cold` or `label=Drama`."""

    name: str
    metric: str
    interval: Interval

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Slice:
        return cls(
            name=_text(raw.get("slice")) or "",
            metric=_text(raw.get("metric")) or "",
            interval=Interval.parse(raw),
        )

    def json(self) -> dict[str, Any]:
        return {"slice": self.name, "metric": self.metric, **self.interval.json()}


def slice_of_source(source: str) -> str:
    """The slice of the reviews of a source, such as `reviews=rotten-tomatoes`."""
    return f"reviews={PurePath(source).name}"


@dataclass(frozen=True)
class LabelRow:
    """One label: on how many rows it holds, and how well it is predicted at its threshold."""

    label: str
    support: int | None
    frequency: float | None
    threshold: float | None
    precision: float | None
    recall: float | None
    f1: float | None

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> LabelRow:
        return cls(
            label=_text(raw.get("label")) or "",
            support=whole(raw.get("support")),
            frequency=finite(raw.get("frequency")),
            threshold=finite(raw.get("threshold")),
            precision=finite(raw.get("precision")),
            recall=finite(raw.get("recall")),
            f1=finite(raw.get("f1")),
        )


@dataclass(frozen=True)
class ReliabilityBin:
    """A bin of predictions: their mean probability, how often they came true, their number."""

    confidence: float | None
    frequency: float | None
    count: int | None

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> ReliabilityBin:
        return cls(
            confidence=finite(raw.get("confidence")),
            frequency=finite(raw.get("frequency")),
            count=whole(raw.get("count")),
        )


@dataclass(frozen=True)
class Calibration:
    """The expected calibration error of a task, and the bins that it was computed from."""

    ece: float | None
    bins: tuple[ReliabilityBin, ...]

    @classmethod
    def parse(cls, raw: object) -> Calibration:
        value = as_mapping(raw)
        bins = tuple(ReliabilityBin.parse(row) for row in as_rows(value.get("bins")))
        return cls(ece=finite(value.get("ece")), bins=bins)


@dataclass(frozen=True)
class RocCurve:
    """Points of a ROC curve, the strictest threshold first; None for one that is not finite."""

    fpr: tuple[float | None, ...]
    tpr: tuple[float | None, ...]
    threshold: tuple[float | None, ...]

    @classmethod
    def parse(cls, raw: object) -> RocCurve:
        value = as_mapping(raw)
        fpr, tpr, threshold = (
            tuple(finite(point) for point in as_list(value.get(key)))
            for key in ("fpr", "tpr", "threshold")
        )
        return cls(fpr, tpr, threshold)


@dataclass(frozen=True)
class ExampleInterest:
    """A label of an example: its probability, and whether the user did go on to like it."""

    label: str
    probability: float | None
    truth: bool

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> ExampleInterest:
        return cls(
            label=_text(raw.get("label")) or "",
            probability=finite(raw.get("probability")),
            truth=bool(raw.get("truth")),
        )


@dataclass(frozen=True)
class Reason:
    """A term of a score, and what it adds to it."""

    term: str
    contribution: float | None

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Reason:
        return cls(term=_text(raw.get("term")) or "", contribution=finite(raw.get("contribution")))


@dataclass(frozen=True)
class ExampleRecommendation:
    """A recommended item of an example; relevant: the user did go on to like it; reason: why it is
    recommended, as a sentence.
    """

    item: str
    title: str | None
    score: float | None
    relevant: bool
    reasons: tuple[Reason, ...]
    reason: str | None = None

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> ExampleRecommendation:
        return cls(
            item=_text(raw.get("item")) or "",
            title=_text(raw.get("title")),
            score=finite(raw.get("score")),
            relevant=bool(raw.get("relevant")),
            reasons=tuple(Reason.parse(row) for row in as_rows(raw.get("reasons"))),
            reason=_text(raw.get("reason")),
        )


@dataclass(frozen=True)
class Example:
    """A test snapshot: the behaviour text that was read, and what the candidate answered."""

    text: str
    interests: tuple[ExampleInterest, ...]
    recommendations: tuple[ExampleRecommendation, ...]

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> Example:
        return cls(
            text=_text(raw.get("text")) or "",
            interests=tuple(ExampleInterest.parse(row) for row in as_rows(raw.get("interests"))),
            recommendations=tuple(
                ExampleRecommendation.parse(row) for row in as_rows(raw.get("recommendations"))
            ),
        )


@dataclass(frozen=True)
class KindOfQuestion:
    """A kind of the tests of understanding: its metric is `understanding.<kind>`.

    Attributes:
        question: what is asked, as a sentence.
        failures: sentences about some cases that the candidate did not pass.
        asked: whether the data and the model allow the question: it needs labels, say, or a model
            of sentiment.
    """

    kind: str
    question: str
    failures: tuple[str, ...]
    asked: bool = True

    @classmethod
    def parse(cls, raw: Mapping[str, Any]) -> KindOfQuestion:
        return cls(
            kind=_text(raw.get("kind")) or "",
            question=_text(raw.get("question")) or "",
            failures=tuple(map(str, as_list(raw.get("failures")))),
            asked=raw.get("asked") is not False,
        )


@dataclass(frozen=True)
class UnderstandingSummary:
    """The tests of understanding in a line.

    Attributes:
        kinds: how many kinds of questions were asked and could be judged.
        passed: in how many of them the share of cases passed is `UNDERSTOOD` or more.
        mean: of the kinds' shares.
        weakest: the kinds with the lowest shares below that, lowest first, with these.
    """

    kinds: int
    passed: int
    mean: float
    weakest: Mapping[str, float]

    def __str__(self) -> str:
        text = f"understanding: {self.passed} of {self.kinds} kinds of questions passed"
        weakest = ", ".join(f"{kind} {share:.2f}" for kind, share in self.weakest.items())
        return f"{text}, mean {self.mean:.2f}" + (f"; weakest: {weakest}" if weakest else "")


@dataclass(frozen=True)
class Lineage:
    """What was measured on what.

    Attributes:
        bundle: digest of the candidate.
        data: hash of the data set.
        source: where its behaviour came from: a name of the catalogue, or a file.
        reviews_source: where its reviews came from, several names where from several sources; None
            where it has none.
        interests: where the interests are from, as the card has it; None: not known.
        code: version of the code that measured.
        snapshots: hash of the snapshots.
        created: ISO 8601.
        others: what another version of the code has written beside these.
    """

    bundle: str | None = None
    data: str | None = None
    source: str | None = None
    reviews_source: str | tuple[str, ...] | None = None
    interests: str | None = None
    code: str | None = None
    encoder: str | None = None
    snapshots: str | None = None
    created: str | None = None
    others: Mapping[str, object] = field(default_factory=dict)

    @classmethod
    def parse(cls, raw: object) -> Lineage:
        value = as_mapping(raw)
        known = [each.name for each in fields(cls) if each.name != "others"]
        return cls(
            bundle=_digest(value.get("bundle")),
            data=_text(value.get("data")),
            source=_name(value.get("source")),
            reviews_source=_name_or_names(value.get("reviews_source")),
            interests=_text(value.get("interests")),
            code=_text(value.get("code")),
            encoder=_text(value.get("encoder")),
            snapshots=_text(value.get("snapshots")),
            created=_text(value.get("created")),
            others={str(name): entry for name, entry in value.items() if name not in known},
        )

    def json(self) -> dict[str, Any]:
        known = {each.name: getattr(self, each.name) for each in fields(self)}
        del known["others"]
        return {**known, **self.others}

    @property
    def sources(self) -> list[str]:
        """Where behaviour and reviews came from, as far as it is known."""
        return [name for name in (self.source, *self.reviews_sources) if name]

    @property
    def reviews_sources(self) -> tuple[str, ...]:
        """The sources of reviews; none where there are none, or where it is not known."""
        if isinstance(self.reviews_source, tuple):
            return self.reviews_source
        return (self.reviews_source,) if self.reviews_source else ()

    def facts(self) -> Iterator[tuple[str, object]]:
        """Name and value of all that is known, in the order of the file."""
        for name, value in self.json().items():
            if value is not None:
                yield name, ", ".join(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class Evaluation(Comparison):
    """A candidate on the test window: evaluation.json.

    Attributes:
        tasks: the served models that the candidate has; None where the file does not say it.
        champion: None where there was none.
        says_champion: whether the file says that there was a champion, or that there was none.
        slices: metrics of parts of the rows.
        per_label, calibration, confusion, roc: details of the candidate for pages, the latter three
            by task; a confusion matrix has a row for each truth and a column for each prediction.
        examples: some test snapshots with the candidate's answers.
        lineage: what was measured on what.
        old: candidate and champion on earlier data; None where it was not asked for.
        understanding: the kinds of the tests of understanding; none where they were not made.

    >>> evaluation = Evaluation.parse({"metrics": {"recommend.ndcg@10": {"value": 0.25}}})
    >>> evaluation.metric("recommend.ndcg@10").value
    0.25
    >>> evaluation.metric("recommend.ndcg@10").require("nDCG@10")
    Traceback (most recent call last):
        ...
    tasteloop.intervals.UnsoundInterval: nDCG@10 has no number as its low: None
    """

    tasks: tuple[str, ...] | None = None
    champion: ChampionMetrics | None = None
    says_champion: bool = False
    slices: tuple[Slice, ...] = ()
    lineage: Lineage = field(default_factory=Lineage)
    per_label: tuple[LabelRow, ...] = ()
    calibration: Mapping[str, Calibration] = field(default_factory=dict)
    confusion: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    roc: Mapping[str, RocCurve] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()
    old: Comparison | None = None
    understanding: tuple[KindOfQuestion, ...] = ()

    def metric_of(self, part: str | None, name: str) -> Interval:
        """A metric on a slice, or on all rows where no slice is named."""
        if part is None:
            return self.metric(name)
        rows = {s.metric: s.interval for s in self.slices if s.name == part}
        return rows.get(name, MISSING)

    @classmethod
    def read(cls, path: Path) -> Evaluation:
        """Read evaluation.json.

        Raises:
            TasteloopError: no such file, or one that is not JSON.
        """
        return cls.parse(read_json(path))

    @classmethod
    def parse(cls, raw: object) -> Evaluation:
        """Read what evaluation.json holds; it never raises, whatever comes."""
        value = as_mapping(raw)
        compared = Comparison.parse(value)
        tasks, champion = value.get("tasks"), value.get("champion")
        return cls(
            metrics=compared.metrics,
            baselines=compared.baselines,
            differences=compared.differences,
            tasks=tuple(map(str, tasks)) if isinstance(tasks, list | tuple) else None,
            champion=None if champion is None else ChampionMetrics.parse(champion),
            says_champion="champion" in value,
            slices=tuple(Slice.parse(row) for row in as_rows(value.get("slices"))),
            lineage=Lineage.parse(value.get("lineage")),
            per_label=tuple(LabelRow.parse(row) for row in as_rows(value.get("per_label"))),
            calibration={
                str(task): Calibration.parse(entry)
                for task, entry in as_mapping(value.get("calibration")).items()
            },
            confusion={
                str(task): _matrix(entry)
                for task, entry in as_mapping(value.get("confusion")).items()
            },
            roc={
                str(task): RocCurve.parse(entry)
                for task, entry in as_mapping(value.get("roc")).items()
            },
            examples=tuple(Example.parse(row) for row in as_rows(value.get("examples"))),
            old=None if value.get("old") is None else Comparison.parse(value["old"]),
            understanding=tuple(
                KindOfQuestion.parse(row) for row in as_rows(value.get("understanding"))
            ),
        )

    def json(self) -> dict[str, Any]:
        """What evaluation.json holds, in the order in which it always stood there."""
        written = super().json() | {
            "schema": SCHEMA,
            "tasks": list(self.tasks or ()),
            "champion": None if self.champion is None else self.champion.json(),
            "slices": [part.json() for part in self.slices],
            "lineage": self.lineage.json(),
            "per_label": [asdict(row) for row in self.per_label],
            "calibration": {task: asdict(entry) for task, entry in self.calibration.items()},
            "confusion": self.confusion,
            "roc": {task: asdict(curve) for task, curve in self.roc.items()},
            "examples": [asdict(example) for example in self.examples],
        }
        if self.understanding:
            written["understanding"] = [asdict(kind) for kind in self.understanding]
        return written if self.old is None else written | {"old": self.old.json()}

    def understanding_summary(self) -> UnderstandingSummary | None:
        """How much the candidate understands; None where it was not asked."""
        mean = self.metric(UNDERSTANDING).value
        if mean is None:
            return None
        shares = {}
        for kind in self.understanding:
            share = self.metric(f"{UNDERSTANDING}.{kind.kind}").value
            if share is not None:
                shares[kind.kind] = share
        weak = sorted((share, kind) for kind, share in shares.items() if share < UNDERSTOOD)
        return UnderstandingSummary(
            kinds=len(shares),
            passed=len(shares) - len(weak),
            mean=mean,
            weakest={kind: share for share, kind in weak[:_WEAKEST]},
        )

    def other(self, name: str) -> Metrics:
        """Metrics of the champion or of a baseline."""
        if name == CHAMPION:
            return {} if self.champion is None else self.champion.metrics
        return self.baselines.get(name, {})


def _metrics(raw: object) -> Metrics:
    return {str(name): Interval.parse(entry) for name, entry in as_mapping(raw).items()}


def _metrics_by_name(raw: object) -> Mapping[str, Metrics]:
    return {str(name): _metrics(entry) for name, entry in as_mapping(raw).items()}


def _metrics_json(metrics: Metrics) -> dict[str, Any]:
    return {name: interval.json() for name, interval in metrics.items()}


def _matrix(raw: object) -> tuple[tuple[int, ...], ...]:
    """Counts, row by row; what is not a number is left out."""
    rows = []
    for row in as_list(raw):
        counts = [finite(count) for count in as_list(row)]
        rows.append(tuple(int(count) for count in counts if count is not None))
    return tuple(rows)


def _name(value: object) -> str | None:
    """The value as text; what is empty names nothing."""
    return str(value) if value else None


def _name_or_names(value: object) -> str | tuple[str, ...] | None:
    """As `_name`; of a list with names in it, these."""
    if isinstance(value, list | tuple):
        return tuple(str(name) for name in value if name) or None
    return _name(value)


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _digest(value: object) -> str | None:
    """A digest identifies a bundle, so nothing else is made into one."""
    return value if isinstance(value, str) and value else None
