"""The reference: what the champion was trained and validated on, as later windows are compared with
it.

    <directory>/reference.json          seed, windows, cells and vocabulary, natural bounds, facts
    of each window <directory>/profile.safetensors     every measure of behaviour, embedding and
    prediction, a row a unit <directory>/answers.parquet         the champion's answers to held-out
    snapshots, with what followed <directory>/sample.parquet          rows of behaviour without
    texts, for Evidently

It is made once, at promotion: the newest windows of the champion's own data, of the length that is
monitored, and its answers to snapshots that it was not trained on. Samples depend on the seed and
the ids only: the same bundle and data give the same reference.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, Field

from tasteloop.answers import PREDICTED, SERVED_MODELS
from tasteloop.behaviour.events import ITEM, KIND, TEXT, TIME, USER, VALUE
from tasteloop.behaviour.snapshots import TRAIN, Snapshots
from tasteloop.errors import TasteloopError
from tasteloop.files import (
    atomic_directory,
    read_json,
    read_parquet,
    sha256_tree,
    write_json,
    write_parquet,
)
from tasteloop.home import Home
from tasteloop.journal import (
    FEEDBACK,
    HEARD,
    INSTANCE,
    MODEL,
    NAMES,
    NUMBERS,
    REQUEST,
    VERSION,
    heard_type,
)
from validation.monitor.drift import codebook, natural_bounds, profile
from validation.monitor.measure import Side
from validation.monitor.measures import declared
from validation.monitor.sampling import (
    WINDOW,
    Codebook,
    DriftSettings,
    Profile,
    Reader,
    Sample,
    Scale,
    chosen,
    script_of,
)
from validation.monitor.windows import (
    CheckSettings,
    Span,
    WindowFacts,
    WindowSettings,
    closed,
    distinct,
    facts,
    outcomes,
)
from validation.monitor.word_measures import contradicts, meaning_of, stance_of

if TYPE_CHECKING:
    import polars as pl

    from tasteloop.runtime.session import Session

log = logging.getLogger(__name__)

FORMAT = 1
# what the champion learned from, where it was trained elsewhere
DATASET, SNAPSHOTS = "dataset", "snapshots"
META, PROFILE, ANSWERS, SAMPLE = (
    "reference.json",
    "profile.safetensors",
    "answers.parquet",
    "sample.parquet",
)
# columns of the sample
LABEL, TENTH, LENGTH, SCRIPT = "label", "popularity", "text_length", "script"
WISH, STANCE = "wish", "stance"
_OPPOSITE = "opposite of the value"
_NEW = "new"
# what references held before they said so
_FIRST_MEASURES = (
    "kinds",
    "labels",
    "items",
    "vocabulary",
    "language",
    "activity",
    "value",
    "text_length",
    "sentiment",
    "embedding.auc",
    "embedding.mmd",
    "prediction.interests",
    "prediction.items",
    "prediction.confidence",
    "prediction.scores",
)


class WatchSettings(BaseModel, frozen=True, extra="forbid"):
    """What is compared with what: how windows are cut and checked, and how much of them is looked
    at.
    """

    windows: WindowSettings = WindowSettings()
    checks: CheckSettings = CheckSettings()
    drift: DriftSettings = DriftSettings()
    reference_windows: int = Field(
        28, ge=1, description="Newest windows of the champion's data that it is made of."
    )
    answers: int = Field(
        1000, ge=0, description="Held-out snapshots that the champion answers for it."
    )
    rows: int = Field(
        20_000, ge=100, description="Rows of behaviour that Evidently sees, on each side."
    )


@dataclass(frozen=True)
class Reference:
    """A reference read back.

    Attributes:
        digest: names it.
        measures: those that were declared when it was made. One that the data had nothing for is
            among them, and has no sample in the profile.
    """

    directory: Path
    digest: str
    champion: str
    spans: list[Span]
    book: Codebook
    profile: Profile
    natural: dict[str, float]
    facts: list[WindowFacts]
    settings: WatchSettings
    measures: frozenset[str]

    @classmethod
    def read(cls, directory: Path) -> Reference:
        """Raises TasteloopError where it is missing, of another format, or damaged."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        meta = read_json(directory / META)
        if meta.get("format") != FORMAT:
            raise TasteloopError(
                f"{directory} is a reference of format {meta.get('format')!r}; make it again"
            )
        try:
            arrays = load_file(directory / PROFILE)
        except (OSError, SafetensorError) as error:
            raise TasteloopError(
                f"{directory / PROFILE} cannot be read ({error}); make the reference again"
            ) from error
        scales = {
            name: Scale(tuple(s["edges"]), tuple(s["places"]), s["deviation"])
            for name, s in meta["scales"].items()
        }
        names = sorted({key.rpartition(":")[0] for key in arrays})
        return cls(
            directory,
            sha256_tree(directory),
            meta["champion"],
            [Span(*pair) for pair in meta["spans"]],
            Codebook(tuple(meta["labels"]), meta["tenths"], frozenset(meta["words"]), scales),
            {name: Sample(arrays[f"{name}:z"], arrays[f"{name}:window"]) for name in names},
            meta["natural"],
            [WindowFacts.model_validate(each) for each in meta["facts"]],
            WatchSettings.model_validate(meta["settings"]),
            frozenset(meta.get("measures", _FIRST_MEASURES)),
        )

    def is_current(self, settings: WatchSettings) -> bool:
        """Whether it was made with these settings and for the measures that are declared today."""
        names = {measure.name for measure in declared()}
        return self.settings == settings and self.measures == names

    @property
    def end(self) -> int:
        """Where its last window ends: monitoring begins here."""
        return self.spans[-1].end

    def answers(self) -> pl.DataFrame:
        """The champion's answers to held-out snapshots whose horizon is over, with their outcomes
        and WINDOW.
        """
        return read_parquet(self.directory / ANSWERS)

    def sample(self) -> pl.DataFrame:
        return read_parquet(self.directory / SAMPLE)


def save_reference(
    session: Session, snapshots: Path, settings: WatchSettings, out: Path
) -> Reference:
    """Make the reference of a bundle from the snapshots that it was trained and validated on.

    Raises:
        TasteloopError: no window of the monitored length lies in the data.
    """
    import polars as pl
    from safetensors.numpy import save_file

    prepared, reader = Snapshots.read(snapshots), Reader.of(session)
    behaviour = distinct(prepared.events)
    times = behaviour[TIME].sort()
    first, last = int(times[0]), int(times[-1]) + 1
    spans = closed(times, first, last, settings.windows)[-settings.reference_windows :]
    spans = [span for span in spans if span.of(behaviour).height]
    if not spans:
        raise TasteloopError(
            f"no window of {settings.windows.hours or settings.windows.events} "
            f"{'hours' if settings.windows.hours else 'events'} lies in the champion's data, which spans "
            f"{(last - first) / 3.6e9:.1f} hours and {len(behaviour)} events; choose shorter windows"
        )
    events = windowed(behaviour, spans)
    answers = _answers(session, prepared, spans, settings)
    book = codebook(events, answers, reader, settings.drift)
    side = Side(events, answers, reader, settings.drift, book)
    samples = profile(side)
    mature = answers.filter(pl.col(TIME) + settings.windows.horizon < last)
    mature = outcomes(mature, behaviour, settings.windows.horizon, session.text.positive)
    with atomic_directory(out) as directory:
        arrays: dict[str, Any] = {}
        for name, sample in samples.items():
            arrays |= {f"{name}:z": np.ascontiguousarray(sample.z), f"{name}:window": sample.window}
        save_file(arrays, directory / PROFILE)
        write_parquet(directory / ANSWERS, mature)
        write_parquet(directory / SAMPLE, rows_of(side, settings))
        write_json(
            directory / META,
            {
                "format": FORMAT,
                "champion": session.digest,
                "settings": settings.model_dump(mode="json"),
                "measures": [measure.name for measure in declared()],
                "spans": [[span.start, span.end] for span in spans],
                "units": {name: len(sample) for name, sample in samples.items()},
                "means": {
                    name: [round(float(x), 6) for x in s.z.mean(0)]
                    for name, s in samples.items()
                    if s.z.shape[1] < 64
                },
                "natural": natural_bounds(samples, settings.drift),
                "facts": [
                    facts(span.of(behaviour), session.catalogue.items).model_dump()
                    for span in spans
                ],
                "scales": {name: asdict(scale) for name, scale in book.scales.items()},
                "labels": list(book.labels),
                "tenths": dict(book.tenths),
                "words": sorted(book.words),
            },
        )
    return Reference.read(out)


def keep_reference(bundle: Path, snapshots: Path, settings: WatchSettings) -> str:
    """Save the reference of a bundle that is about to be promoted at its `reference_path`.

    Returns:
        its digest; "" where none can be made (the data is shorter than a window): that holds no
        promotion up, and the monitor says so.
    """
    from tasteloop.runtime.session import Session

    session = Session.load(bundle)
    try:
        return save_reference(session, snapshots, settings, reference_path(session.digest)).digest
    except TasteloopError as error:
        log.warning("this model cannot be monitored: %s", error)
        return ""


def keep_data(bundle: Path, dataset: Path, snapshots: Path) -> None:
    """Copy what a bundle learned from to its `data_path`."""
    from tasteloop.bundle.manifest import verify

    with atomic_directory(data_path(verify(bundle))) as directory:
        for source, name in ((dataset, DATASET), (snapshots, SNAPSHOTS)):
            shutil.copytree(source, directory / name)


def data_path(champion_digest: str) -> Path:
    """Where the data of a bundle that was trained elsewhere is."""
    return Home.current().training_data(champion_digest)


def reference_path(champion_digest: str) -> Path:
    """Where the reference of a bundle is."""
    return Home.current().reference(champion_digest)


def windowed(frame: pl.DataFrame, spans: Sequence[Span]) -> pl.DataFrame:
    """The rows that lie in one of the spans, with WINDOW, its place in them."""
    import polars as pl

    starts, ends = np.array([s.start for s in spans]), np.array([s.end for s in spans])
    times = frame[TIME].to_numpy()
    place = np.searchsorted(starts, times, side="right") - 1
    inside = (place >= 0) & (times < ends[np.maximum(place, 0)])
    return frame.with_columns(pl.Series(WINDOW, place, pl.Int32)).filter(pl.Series(inside))


def _answers(
    session: Session, prepared: Snapshots, spans: Sequence[Span], settings: WatchSettings
) -> pl.DataFrame:
    """Answer held-out snapshots with the champion, in the journal's format. They are the reference
    that later windows of the journal are compared with.
    """
    import polars as pl

    from tasteloop.language.hearing import listening
    from tasteloop.runtime.questions import parse

    held = windowed(prepared.table.filter(pl.col("split") != TRAIN), spans)
    place_of = {
        f"{user}\0{time}": place
        for place, (user, time) in enumerate(held.select(USER, TIME).rows())
    }
    sampled_keys = chosen(place_of, settings.answers, settings.drift.seed)
    rows = held[sorted(place_of[key] for key in sampled_keys)]
    requests = [
        {"events": [event.json() for event in history]} for history in prepared.histories(rows)
    ]
    table: list[dict[str, Any]] = []
    ranked_models = [name for name in session.models if SERVED_MODELS[name].ranking]
    for model in ranked_models:
        served = SERVED_MODELS[model]
        units = rows.select(USER, TIME, WINDOW).rows()
        questions = parse(model, requests)
        with listening() as hearing:
            answered = session.compute(model, questions)
        heard = session.heard(model, questions, hearing)
        for n, (answer, (user, time, window)) in enumerate(zip(answered, units, strict=True)):
            entries = served.entries(answer)
            table.append(
                {
                    REQUEST: f"{model}-{n}",
                    INSTANCE: 0,
                    TIME: time,
                    USER: user,
                    MODEL: model,
                    VERSION: session.digest[:12],
                    NAMES: [entry[served.label] for entry in entries],
                    NUMBERS: [entry[served.number] for entry in entries],
                    PREDICTED: [entry[PREDICTED] for entry in entries]
                    if served.has(PREDICTED)
                    else None,
                    HEARD: heard[n] if heard else None,
                    FEEDBACK: [],
                    WINDOW: window,
                }
            )
    return pl.DataFrame(table, schema=answers_schema())


def answers_schema() -> dict[str, pl.DataType]:
    """Of the journal's columns those that are read here, with WINDOW."""
    import polars as pl

    feedback = pl.Struct(
        {KIND: pl.String(), ITEM: pl.String(), VALUE: pl.Float32(), TIME: pl.Int64()}
    )
    return {
        REQUEST: pl.String(),
        INSTANCE: pl.Int32(),
        TIME: pl.Int64(),
        USER: pl.String(),
        MODEL: pl.String(),
        VERSION: pl.String(),
        NAMES: pl.List(pl.String()),
        NUMBERS: pl.List(pl.Float32()),
        PREDICTED: pl.List(pl.Boolean()),
        HEARD: heard_type(),
        FEEDBACK: pl.List(feedback),
        WINDOW: pl.Int32(),
    }


def rows_of(side: Side, settings: WatchSettings) -> pl.DataFrame:
    """A fixed number of rows of behaviour at most, without texts: what is in them is said by length
    and script and, of those that the champion read for the measures, by what it understood.
    """
    import polars as pl

    units, catalogue, text = side.behaviour.rows, side.reader.catalogue, side.reader.text
    wishes: list[str | None] = [None] * units.height
    stances: list[str | None] = [None] * units.height
    for search in side.searches:
        wishes[search.row] = meaning_of(search.gist)
    for opinion in side.opinions:
        is_opposite = contradicts(opinion, text)
        stances[opinion.row] = _OPPOSITE if is_opposite else stance_of(opinion.stance)
    units = units.with_columns(
        pl.Series(WISH, wishes, pl.String), pl.Series(STANCE, stances, pl.String)
    )
    if units.height > settings.rows:  # evenly over the ordered rows: seeded by the units' choice
        units = units[np.linspace(0, units.height - 1, settings.rows).astype(int)]
    items = units[ITEM].to_list()
    first = {
        item: (of_item[0] if of_item else None)
        for item, of_item in zip(catalogue.items, catalogue.labels, strict=True)
    }
    tenths, texts = side.book.tenths, units[TEXT].to_list()
    return units.select(
        USER,
        ITEM,
        KIND,
        pl.col(VALUE).cast(pl.Float64),
        pl.Series(LABEL, [first.get(item) for item in items], pl.String),
        pl.Series(
            TENTH, [None if i is None else str(tenths.get(i, _NEW)) for i in items], pl.String
        ),
        pl.Series(LENGTH, [None if t is None else float(len(t)) for t in texts], pl.Float64),
        pl.Series(SCRIPT, [None if t is None else script_of(t) for t in texts], pl.String),
        WISH,
        STANCE,
    )
