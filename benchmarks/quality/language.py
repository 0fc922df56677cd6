"""People's own words: which films follow from what was said.

`tasteloop bench language` calls `run`.

Tasks:
- ReDial: what was said so far in, the films that a person recommended next out;
- IARD: the same up to a film that the seeker accepted;
- soft attributes: of two films the one that is "more light-hearted".

The first two rank three sets of films: those of ml-100k, those of ml-1m, and ReDial's own. A film
that the context names is not ranked, and an answer that it names is not asked for. Settings are
chosen on ReDial's validation dialogues and serve both. Vectors of texts and ranked lists are kept
under `out/cache`; a killed run carries on from there.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.quality.dialogues import (
    FILES,
    REPEATED,
    Dialogues,
    Turn,
    data_directory,
    read,
)
from benchmarks.quality.film_sets import (
    FilmSet,
    Matrix,
    Ratings,
    compared_films,
    describe,
    film_set,
)
from benchmarks.quality.language_methods import (
    METHODS,
    OURS,
    Method,
    Resources,
    genre_and_year,
    positions_in_bundle,
)
from benchmarks.quality.options import DRAWS, ROOT
from benchmarks.quality.run import machine
from tasteloop import metrics
from tasteloop.errors import TasteloopError
from tasteloop.files import atomic_write, make_directory, read_json, sha256_file, write_json
from tasteloop.metrics import Array, Measure

K = 10
CUTOFFS = (1, 10, 50)
MAIN = f"recall@{K}"  # what is tuned and sorted by: the measure that is published for ReDial
VALIDATION_TURNS = 1000
"""Settings are chosen on at most so many turns, evenly spaced: one decides of hundredths."""

SETS: Mapping[str, str] = {
    "ml-100k": "films of ml-100k",
    "ml-1m": "films of ml-1m",
    "redial": "all films of ReDial's list",
}
TASKS = ("redial", "iard", "soft-attributes")
GENRE_AND_YEAR = "genre+year"
_SLICES: Mapping[str, Callable[[Turn], bool]] = {
    "a film mentioned": lambda turn: bool(turn.mentions),
    "no film mentioned": lambda turn: not turn.mentions,
}
_SOURCES = ("ml-1m", "ml-100k", "rotten-tomatoes")  # of the catalogue, beside the data directory
_CODE = ("language", "language_methods", "dialogues", "film_sets", "titles", "embeddings")


@dataclass(frozen=True)
class Options:
    """What is run.

    Attributes:
        out: where results go and what was computed is kept.
        only: names of methods; empty for all.
        sets: names of film sets; empty for all.
        bundle: of ours; None where there is none.
        encoders: directories in place of the catalogue's encoders, by name.
    """

    out: Path
    only: tuple[str, ...] = ()
    sets: tuple[str, ...] = ()
    bundle: Path | None = None
    encoders: Mapping[str, Path] = field(default_factory=dict)


def run(options: Options, report: Callable[[str], None]) -> dict[str, Any]:
    """Measure everything and write results.json and table.md into `options.out`.

    Args:
        report: called with each line of progress.

    Returns:
        what results.json holds.

    Raises:
        TasteloopError: no data, an unknown method or film set, or a source that cannot be had.
    """
    from benchmarks.quality.language_report import markdown

    # 1. data
    _check(options)
    began = time.monotonic()
    directory = data_directory()
    report(f"data: {directory}")
    data = read(directory)
    resources = gather(data, options, report)
    digest = _data_digest(directory)

    # 2. dialogues
    bench = Bench(options, resources, digest, report)
    names = options.sets or tuple(SETS)
    rankings = [
        bench.ranking(task, turns, resources.film_set(name))
        for task, turns in (("redial", data.test), ("iard", data.requests))
        for name in names
    ]

    # 3. pairs
    attributes = [bench.attributes(name) for name in ("", "ml-100k") if not name or name in names]
    results = {
        "schema": 1,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "data_sha256": digest,
        "bundle": _bundle_facts(options, resources),
        "films": {
            films.name: {"films": len(films), "joins": films.joins} for films in resources.sets
        },
        "left_out": dict(data.left_out),
        "bootstrap": {"draws": DRAWS, "level": 0.95},
        "seconds": time.monotonic() - began,
        "machine": machine(),
        "rankings": rankings,
        "attributes": attributes,
    }
    write_json(options.out / "results.json", results)
    atomic_write(options.out / "table.md", markdown(results))
    return results


def _check(options: Options) -> None:
    for kind, asked, known in (
        ("method", options.only, (*METHODS, GENRE_AND_YEAR)),
        ("film set", options.sets, tuple(SETS)),
    ):
        for name in asked:
            if name not in known:
                raise TasteloopError(f"no {kind} {name!r}; known: {', '.join(known)}")


def gather(data: Dialogues, options: Options, report: Callable[[str], None]) -> Resources:
    """The film sets and what methods are fitted on."""
    from tasteloop.datasets.fetch import fetch_origin

    sources = {name: Ratings.read(name, data.catalogues.get(name, {})) for name in ("ml-1m",)}
    sources["ml-100k"] = Ratings.read("ml-100k", data.catalogues.get("ml-100k", {}))
    rated = sources["ml-1m"]
    films_of = {
        "ml-100k": sources["ml-100k"].films,
        "ml-1m": rated.films,
        "redial": tuple(data.films.values()),
        "soft-attributes": describe(compared_films(data.comparisons), data, rated),
    }
    sets = [
        film_set(name, SETS.get(name, "films that are compared"), films, data, rated)
        for name, films in films_of.items()
    ]
    for films in sets:
        report(f"{films.name}: {len(films)} films; {json.dumps(films.joins)}")
    origin, directory = fetch_origin("rotten-tomatoes")
    assert origin.read_reviews is not None, "rotten-tomatoes gives reviews"
    reviews = origin.read_reviews(directory)["text"].to_list()
    return Resources(
        data,
        rated,
        sets,
        {name: _encoder(name, options) for name in ("minilm", "mpnet")},
        reviews,
        options.out / "cache",
        options.bundle,
        report,
    )


def _encoder(name: str, options: Options) -> Path | str:
    """The directory of an encoder, or why there is none."""
    from tasteloop.datasets.fetch import fetch

    if name in options.encoders:
        return options.encoders[name]
    try:
        return fetch(name)
    except TasteloopError as error:
        return str(error)


def _data_digest(directory: Path) -> str:
    digests = [sha256_file(directory / name) for name in FILES]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def _bundle_facts(options: Options, resources: Resources) -> dict[str, Any] | None:
    if options.bundle is None:
        return None
    known = {
        films.name: int((positions_in_bundle(films, resources) >= 0).sum())
        for films in resources.sets
    }
    return {
        "digest": resources.session.digest,
        "films": len(resources.session.catalogue),
        "known": known,
    }


# --- dialogues


@dataclass(frozen=True)
class Asked:
    """The turns that a film set can answer.

    Attributes:
        relevant: [n] positions of each turn's answers.
        hidden: [n] positions of the films that its context names.
        dialogue: [n] numbers of the dialogues, which are drawn as a whole.
    """

    turns: tuple[Turn, ...]
    relevant: tuple[list[int], ...]
    hidden: tuple[list[int], ...]
    dialogue: NDArray[np.int64]

    @classmethod
    def of(cls, turns: Sequence[Turn], films: FilmSet) -> Asked:
        """Turns with an answer among the films; an answer that is also mentioned, under another
        name of the list, is none.
        """
        kept, relevant, hidden = [], [], []
        for turn in turns:
            named = positions({mention.film for mention in turn.mentions}, films)
            answers = [n for n in positions(turn.answers, films) if n not in named]
            if answers:
                kept.append(turn)
                relevant.append(answers)
                hidden.append(named)
        _, dialogue = np.unique([turn.dialogue for turn in kept], return_inverse=True)
        return cls(tuple(kept), tuple(relevant), tuple(hidden), dialogue)


def positions(names: Sequence[str] | set[str], films: FilmSet) -> list[int]:
    """Positions of names of ReDial's list in a film set, upwards, without those it has not."""
    found = {films.position_of_name[name] for name in names if name in films.position_of_name}
    return sorted(found)


def rank(scores: Matrix, asked: Asked, k: int) -> Array:
    """[n, k] positions, best first, without the films that the context names.

    Ties go by one random order of the films.
    """
    scores = scores.copy()
    for row, hidden in enumerate(asked.hidden):
        scores[row, hidden] = -np.inf
    order = np.random.default_rng(0).permutation(scores.shape[1])
    ranked = order[metrics.top_k(scores[:, order], k)]
    return np.where(np.isfinite(np.take_along_axis(scores, ranked, 1)), ranked, -1)


def measures(ranked: Array, relevant: Sequence[Sequence[int]]) -> dict[str, Measure]:
    """Recall@1, @10 and @50 and nDCG@10; the value of a row is that of its turn."""
    out = {f"recall@{k}": metrics.recall_at(ranked[:, :k], relevant) for k in CUTOFFS}
    return {**out, f"ndcg@{K}": metrics.ndcg(ranked[:, :K], relevant)}


@dataclass
class Bench:
    """The tasks over given resources; settings are chosen once a film set."""

    options: Options
    resources: Resources
    data_digest: str
    report: Callable[[str], None]
    _settings: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)

    def methods(self) -> list[Method]:
        only = self.options.only
        return [method for name, method in METHODS.items() if not only or name in only]

    def refusal(self, method: Method) -> str:
        """Why a method cannot run here; "" where it can."""
        if method.name == OURS and self.options.bundle is None:
            return "not run: no bundle; name one with --bundle DIR"
        reasons = [found for found in self._encoders(method) if isinstance(found, str)]
        return f"not run: {reasons[0]}" if reasons else ""

    def _encoders(self, method: Method) -> list[Path | str]:
        """The directory of a method's encoder, or why there is none, then the same of the methods
        whose settings it takes over.
        """
        found = [self.resources.encoders[method.encoder]] if method.encoder else []
        for name in method.begins_with:
            found += self._encoders(METHODS[name])
        return found

    def ranking(self, task: str, turns: Sequence[Turn], films: FilmSet) -> dict[str, Any]:
        """A task's table over one film set, best first; what did not run comes last."""
        asked = Asked.of(turns, films)
        entries: list[dict[str, Any]] = []
        measured: dict[str, dict[str, Measure]] = {}
        for method in self.methods():
            entry: dict[str, Any] = {"method": method.name, "about": method.about}
            if refusal := self.refusal(method):
                entry["refused"] = refusal
            else:
                began = time.monotonic()
                ranked, settings, kept = self._ranked(task, method, films, asked)
                measured[method.name] = measures(ranked, asked.relevant)
                entry |= self._entry(task, ranked, asked, measured[method.name], films)
                entry["settings"] = settings
                entry["seconds"] = time.monotonic() - began
                value = entry["metrics"][MAIN]["value"]
                self.report(
                    f"{task} · {films.name} · {method.name}: recall@{K} {value:.4f}, "
                    f"{entry['seconds']:.0f} s{' (kept)' if kept else ''}"
                )
            entries.append(entry)
        _add_differences(entries, measured, MAIN, asked.dialogue)
        entries.sort(key=lambda e: -e["metrics"][MAIN]["value"] if "metrics" in e else 1.0)
        return {
            "task": task,
            "films": films.name,
            "about": films.about,
            "turns": len(asked.turns),
            "dialogues": len(set(asked.dialogue.tolist())),
            "answers": sum(map(len, asked.relevant)),
            "ranked_films": len(films),
            "slices": {name: sum(map(test, asked.turns)) for name, test in _SLICES.items()},
            "methods": entries,
        }

    def _entry(
        self,
        task: str,
        ranked: Array,
        asked: Asked,
        measured: Mapping[str, Measure],
        films: FilmSet,
    ) -> dict[str, Any]:
        slices = {}
        for name, test in _SLICES.items():
            mask = np.array([test(turn) for turn in asked.turns], np.bool_)
            part = Measure(measured[MAIN].rows[mask], measured[MAIN].reduce)
            slices[name] = metrics.interval(part, asked.dialogue[mask], draws=DRAWS).json()
        entry: dict[str, Any] = {
            "metrics": {
                name: metrics.interval(measure, asked.dialogue, draws=DRAWS).json()
                for name, measure in measured.items()
            },
            "slices": slices,
        }
        if task == "redial" and films.name == "redial":
            # published with all films ranked: over fewer films there is nothing to compare with
            repeated = self.resources.data.left_out[REPEATED]
            entry["pairs"] = {
                f"recall@{k}": pairs_recall(ranked[:, :k], asked, repeated) for k in CUTOFFS
            }
        return entry

    # --- one method

    def _ranked(
        self, task: str, method: Method, films: FilmSet, asked: Asked
    ) -> tuple[Array, dict[str, Any], bool]:
        """What a method ranks, its settings, and whether both were kept from an earlier run."""
        path = self.options.out / "cache" / "ranked" / task / films.name / f"{method.name}.json"
        fingerprint = self._fingerprint(task, method, films)
        if path.exists() and path.with_suffix(".npy").exists():
            facts = read_json(path)
            if facts.get("fingerprint") == fingerprint:
                ranked = np.load(path.with_suffix(".npy"), allow_pickle=False)
                self._settings[films.name, method.name] = facts["settings"]
                return ranked, facts["settings"], True
        settings = self.settings(method, films)
        scores = method.score(films, asked.turns, settings, self.resources)
        ranked = rank(scores, asked, max(CUTOFFS))
        make_directory(path.parent)
        temporary = path.with_suffix(".part.npy")
        np.save(temporary, ranked.astype(np.int32), allow_pickle=False)
        temporary.replace(path.with_suffix(".npy"))
        write_json(path, {"fingerprint": fingerprint, "settings": settings})
        return ranked, settings, False

    def settings(self, method: Method, films: FilmSet) -> dict[str, Any]:
        """The settings with the best recall@10 on ReDial's validation turns; a tie goes to the
        earlier one.
        """
        if method.tuned_on and method.tuned_on != films.name:
            return self.settings(method, self.resources.film_set(method.tuned_on))
        if (films.name, method.name) not in self._settings:
            self._settings[films.name, method.name] = self._tune(method, films)
        return self._settings[films.name, method.name]

    def _tune(self, method: Method, films: FilmSet) -> dict[str, Any]:
        best: dict[str, Any] = {}
        for name in method.begins_with:
            best |= self.settings(METHODS[name], films)
        if not method.search:
            return best
        asked = Asked.of(self.resources.data.validation, films)
        if len(asked.turns) > VALIDATION_TURNS:
            chosen = np.linspace(0, len(asked.turns) - 1, VALIDATION_TURNS).astype(int)
            asked = Asked.of([asked.turns[n] for n in chosen], films)
        if not asked.turns:
            self.report(
                f"{films.name}: no validation turn asks for one of its films, so that {method.name} "
                "takes the first of its settings"
            )
            for stage in method.search:
                best = dict(method.candidates(stage, best)[0])
            return best
        for stage in method.search:
            top = -1.0
            for candidate in method.candidates(stage, best):
                scores = method.score(films, asked.turns, candidate, self.resources)
                value = metrics.recall_at(rank(scores, asked, K), asked.relevant).value
                if value > top:
                    top, winner = value, candidate
            best = dict(winner)
        return best

    def _fingerprint(self, task: str, method: Method, films: FilmSet) -> str:
        """Changes with anything that could change what is ranked."""
        from tasteloop.datasets.fetch import lookup
        from tasteloop.runtime.machine import has_bf16

        bundle = self.options.bundle
        encoders = [found for found in self._encoders(method) if isinstance(found, Path)]
        parts = [
            task,
            films.name,
            method.name,
            method.search,
            self.data_digest,
            [sha256_file(ROOT / "benchmarks" / "quality" / f"{name}.py") for name in _CODE],
            [
                (film.name, film.number, text)
                for film, text in zip(films.films, films.texts, strict=True)
            ],
            [lookup(name).sha256 for name in _SOURCES],
            [sha256_file(directory / "model.safetensors") for directory in encoders],
            "bf16" if encoders and has_bf16() else "fp32",
        ]
        if method.name == OURS and bundle is not None:
            code = sorted((ROOT / "tasteloop").rglob("*.py"))
            parts += [sha256_file(bundle / "manifest.json"), [sha256_file(path) for path in code]]
        return hashlib.sha256(json.dumps(parts, default=list).encode()).hexdigest()

    # --- soft attributes

    def attributes(self, among: str) -> dict[str, Any]:
        """The table of soft attributes, over all films that are compared or those of a film set."""
        films = self.resources.film_set("soft-attributes")
        judged = Judged.of(self.resources, films, among)
        entries: list[dict[str, Any]] = []
        measured: dict[str, dict[str, Measure]] = {}
        for name, about, scorer in self._attribute_methods(films, judged):
            entry: dict[str, Any] = {"method": name, "about": about}
            if isinstance(scorer, str):
                entry["refused"] = scorer
            else:
                scores, fold = scorer()
                right = judged.right(scores, fold)
                measure = judged.over_raters(right)
                measured[name] = {"accuracy": measure}
                rows = np.arange(len(judged.raters))
                entry["metrics"] = {"accuracy": metrics.interval(measure, rows, draws=DRAWS).json()}
                entry["by_attribute"] = judged.by_attribute(right)
                value = entry["metrics"]["accuracy"]["value"]
                self.report(
                    f"soft attributes{' · ' + among if among else ''} · {name}: {value:.4f}"
                )
            entries.append(entry)
        _add_differences(entries, measured, "accuracy", np.arange(len(judged.raters)))
        entries.sort(key=lambda e: -e["metrics"]["accuracy"]["value"] if "metrics" in e else 1.0)
        return {
            "task": "soft-attributes",
            "films": among or "all",
            "about": SETS.get(among, "all films that are compared"),
            "pairs": sum(map(len, judged.pairs.values())),
            "raters": len(judged.raters),
            "attributes": len(judged.attributes),
            "methods": entries,
        }

    def _attribute_methods(self, films: FilmSet, judged: Judged) -> list[tuple[str, str, Any]]:
        """Name, what it is, and what gives scores [folds, A, J] and folds, or why it cannot."""
        out: list[tuple[str, str, Any]] = []
        for method in self.methods():
            if method.ask is not None:
                refusal = self.refusal(method)
                out.append(
                    (method.name, method.about, refusal or self._asker(method, films, judged))
                )
        if not self.options.only or GENRE_AND_YEAR in self.options.only:
            out.append(
                (
                    GENRE_AND_YEAR,
                    "linear in genres and year, learned from the pairs of other raters",
                    lambda: genre_and_year(films, judged.attributes, judged.pairs, judged.raters),
                )
            )
        return out

    def _asker(
        self, method: Method, films: FilmSet, judged: Judged
    ) -> Callable[[], tuple[Matrix, NDArray[np.int64]]]:
        """The attribute itself is the query; settings are those of ReDial's own film set."""
        ask = method.ask
        assert ask is not None, "a method without `ask` is not asked"

        def scores() -> tuple[Matrix, NDArray[np.int64]]:
            settings = self.settings(method, self.resources.film_set("redial"))
            found = ask(films, judged.attributes, settings, self.resources)
            return found[None], np.zeros(len(judged.raters), np.int64)

        return scores


def pairs_recall(ranked: Array, asked: Asked, repeated: int) -> float:
    """Recall@k as UniCRS and iEvaLM pool it: hits over all (turn, film) pairs.

    They ask for films that were named before too. Nothing ranked here can hit one, so that such a
    pair counts as a miss.

    Args:
        repeated: how many films of all test turns had been named before, with those of turns that
            have no new film and are not asked.
    """
    found = metrics.hits(ranked, asked.relevant).sum()
    return float(found / (sum(map(len, asked.relevant)) + repeated))


def _add_differences(
    entries: Sequence[dict[str, Any]],
    measured: Mapping[str, Mapping[str, Measure]],
    main: str,
    groups: Array,
) -> None:
    """Ours minus each peer, with paired intervals, into the peers' entries."""
    if OURS not in measured:
        return
    for entry in entries:
        name = entry["method"]
        if name in measured and name != OURS:
            entry["ours_minus_this"] = metrics.difference(
                measured[OURS][main], measured[name][main], groups, draws=DRAWS
            ).json()


# --- pairs


@dataclass(frozen=True)
class Judged:
    """Pairs of films by rater and attribute: positions (with less, with more)."""

    raters: list[str]
    attributes: list[str]
    pairs: Mapping[tuple[str, str], list[tuple[int, int]]]

    @classmethod
    def of(cls, resources: Resources, films: FilmSet, among: str) -> Judged:
        """Pairs of which both films are in the film set `among`, or all where it is ""."""
        position = {film.name: n for n, film in enumerate(films.films)}
        allowed = set(range(len(films)))
        if among:
            from benchmarks.quality.titles import join

            found = join(films.titles, resources.film_set(among).titles).positions
            allowed = {n for n, there in enumerate(found) if there >= 0}
        pairs: dict[tuple[str, str], list[tuple[int, int]]] = {}
        for comparison in resources.data.comparisons:
            stated = [(position[low], position[high]) for low, high in comparison.pairs()]
            stated = [pair for pair in stated if allowed.issuperset(pair)]
            if stated:
                pairs.setdefault((comparison.rater, comparison.attribute), []).extend(stated)
        raters = sorted({rater for rater, _ in pairs}, key=lambda rater: (len(rater), rater))
        return cls(raters, sorted({attribute for _, attribute in pairs}), pairs)

    def right(self, scores: Matrix, fold: NDArray[np.int64]) -> Array:
        """[raters, attributes, 2]: pairs in the right order, half of each tie, and all pairs."""
        out = np.zeros((len(self.raters), len(self.attributes), 2))
        number = {attribute: n for n, attribute in enumerate(self.attributes)}
        for r, rater in enumerate(self.raters):
            for attribute, a in number.items():
                if (rater, attribute) not in self.pairs:
                    continue
                low, high = np.array(self.pairs[rater, attribute]).T
                of_films = scores[fold[r], a]
                above = (of_films[high] > of_films[low]) + 0.5 * (of_films[high] == of_films[low])
                out[r, a] = above.sum(), len(above)
        return out

    def over_raters(self, right: Array) -> Measure:
        """Mean over raters of the share of each one's pairs."""
        total = right.sum(1)
        return Measure(
            np.stack([total[:, 0] / total[:, 1], np.ones(len(total))], 1), metrics.ratio()
        )

    def by_attribute(self, right: Array) -> dict[str, float]:
        """Mean over raters, for each attribute."""
        out = {}
        for a, attribute in enumerate(self.attributes):
            judged = right[:, a, 1] > 0
            out[attribute] = float((right[judged, a, 0] / right[judged, a, 1]).mean())
        return out
