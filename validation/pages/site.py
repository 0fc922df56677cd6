"""The site "Why is this model live?": static pages over models, runs, drift windows and decisions.

    <directory>/index.html              what is live, every model, window, decision and run, newest
    first <directory>/models/<version>.html   one model: from the events that it learned from to
    what was decided since <directory>/evidence/...            copies of the reports and JSON files
    that the pages rest on <directory>/site.json               what was counted; a directory without
    it is not replaced

Everything is inside the directory and every link is relative, so that it can be moved or published
whole. Paths of the machine are cut down to their last part. What is missing is said.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasteloop.errors import TasteloopError
from tasteloop.files import (
    as_list,
    as_mapping,
    as_rows,
    atomic_directory,
    atomic_write,
    read_json,
    write_json,
)
from validation.monitor.decision import DecisionSettings, Evidence, Finding, drifted
from validation.monitor.drift_report import EVIDENTLY, PAGE, REPORT
from validation.pages import report
from validation.pages.html import (
    Child,
    Column,
    Point,
    Safe,
    badge,
    day,
    finite,
    join,
    moment,
    number,
    page,
    table,
    tag,
    trend,
)

FORMAT = 1
MARK = "site.json"
EVIDENTLY_PAGES = 10  # of the newest windows: each is several megabytes
_ROWS = 200  # of a table
_POINTS = 60  # of a plot
_PATH = re.compile(
    r"(?<![\w.<>~/-])(?:file:/{1,2})?/(?:[^\s/<>\"'`\\|;,()&=]+/)+([^\s/<>\"'`\\|;,()&=]*)"
)
_NAME = re.compile(r"[\w-][\w.-]*", re.A)
_OUTCOMES = {
    "healthy": "good",
    "watch": "warn",
    "retrain": "warn",
    "alert-human": "bad",
    "rollback": "bad",
}
_ENDS = {"promoted": "good", "unchanged": "quiet", "running": "warn"}
_DECISION = DecisionSettings()


def write_site(
    facts: Mapping[str, Any], out: Path, decision: DecisionSettings = _DECISION
) -> dict[str, int]:
    """Write the site, whole or not at all; a site that was there is replaced.

    Args:
        facts: made (µs since 1970 UTC, as all times here); versions, runs, rollouts, windows and
            decisions, newest first; notes: what could not be read, in words.
            `pipelines.loop.site.gather` says what each holds.
        decision: when a measure counts as drifted.

    Returns:
        how many models, runs, windows, decisions and pages there are.

    Raises:
        TasteloopError: the directory holds something else, or cannot be written.
    """
    place = out.expanduser().absolute()
    place = place.resolve() if place.is_symlink() else place
    if place.exists() and not (place.is_dir() and (not any(place.iterdir()) or _is_site(place))):
        raise TasteloopError(
            f"{out} is not empty and holds no site of ours (no {MARK}), so it is not replaced; name another directory"
        )
    try:
        with atomic_directory(place) as directory:
            return _Site(portable(facts), decision, directory).write()
    except OSError as error:
        raise TasteloopError(
            f"the site cannot be written to {out}: {error}; name another directory"
        ) from error


def _is_site(directory: Path) -> bool:
    try:
        told = read_json(directory / MARK)
    except TasteloopError:
        return False
    return isinstance(told, dict) and "format" in told


def portable(value: Any) -> Any:
    """A value without absolute paths: each is cut down to its last part, in texts, lists and
    mappings.
    """
    if isinstance(value, str):
        return _PATH.sub(r"…/\1", value)
    if isinstance(value, Mapping):
        return {portable(key): portable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [portable(part) for part in value]
    return value


@dataclass(frozen=True)
class _Window:
    """A window as the pages tell it: state is void, severe, slight, none or unclear."""

    evidence: Evidence
    state: str
    worst: Finding | None
    level: float | None  # the greatest effect, as a share of the one that is acted on
    drifted: tuple[str, ...]
    link: str | None
    evidently: str | None

    @property
    def start(self) -> int | None:
        first = self.evidence.window.partition("/")[0]
        return int(first) if first.isdecimal() else None


_STATES = {
    "void": ("data refused", "bad"),
    "severe": ("severe", "bad"),
    "slight": ("slight", "warn"),
    "none": ("as before", "good"),
    "unclear": ("cannot tell", "quiet"),
}


class _Site:
    def __init__(
        self, facts: Mapping[str, Any], decision: DecisionSettings, directory: Path
    ) -> None:
        self.facts, self.decision, self.directory = facts, decision, directory
        self.versions, self.runs, self.rollouts, self.decisions = (
            as_rows(facts.get(key)) for key in ("versions", "runs", "rollouts", "decisions")
        )
        for kind, rows, key in (
            ("version", self.versions, "version"),
            ("run", self.runs, "id"),
            ("rollout", self.rollouts, "id"),
        ):
            for row in rows:
                if not _NAME.fullmatch(str(row[key])):
                    raise TasteloopError(
                        f"{kind} {row[key]!r} cannot name a file of the site: letters, digits, '-', '_' and '.' can"
                    )
        self.by_digest = {str(v["digest"]): v for v in reversed(self.versions)}
        # the first that made it
        self.run_of = {str(r["version"]): r for r in self.runs if r.get("version")}
        self.live = next((v for v in self.versions if v.get("live")), None)
        self.pages = 0
        self.windows = [self.window(n, w) for n, w in enumerate(as_rows(facts.get("windows")))]
        self.of_evidence = {w.evidence.id: w for w in self.windows}

    def write(self) -> dict[str, int]:
        for run in self.runs:
            self.keep_run(run)
        for version in self.versions:
            self.keep_version(version)
            self.page(f"models/{version['version']}.html", *self.model(version))
        for rollout in self.rollouts:
            write_json(self.directory / _rollout_file(rollout), rollout)
        self.page("index.html", *self.index())
        counts = {
            "models": len(self.versions),
            "runs": len(self.runs),
            "windows": len(self.windows),
            "decisions": len(self.decisions),
            "pages": self.pages,
        }
        write_json(
            self.directory / MARK, {"format": FORMAT, "made": self.facts.get("made"), **counts}
        )
        return counts

    def page(self, name: str, title: str, body: Child) -> None:
        up = "../" * name.count("/")
        sections = (
            ("Models", "models"),
            ("Drift", "drift"),
            ("Decisions", "decisions"),
            ("Runs", "runs"),
        )
        here = {"aria_current": "page"} if name == "index.html" else {}
        links = [tag("li", tag("a", "Overview", href=f"{up}index.html", **here))]
        links += [tag("li", tag("a", text, href=f"{up}index.html#{key}")) for text, key in sections]
        banner = [tag("b", "Tasteloop"), tag("nav", tag("ul", links), aria_label="Site")]
        said = [
            "Made ",
            moment(self.facts.get("made")),
            " UTC; all times are UTC. Intervals are 95%.",
        ]
        atomic_write(
            self.directory / name, page(f"{title} · Tasteloop", body, banner=banner, foot=said)
        )
        self.pages += 1

    # Evidence

    def keep_run(self, run: Mapping[str, Any]) -> None:
        folder = self.directory / _run_folder(run)
        if validation := run.get("validation"):
            write_json(folder / "validation.json", validation)
            report.write_data_report(validation, folder / "validation.html")
        if run.get("evaluation") and not self.known(run.get("version")):  # else it is the version's
            report.write_report(run["evaluation"], run.get("verdict"), folder / "evaluation.html")

    def keep_version(self, version: Mapping[str, Any]) -> None:
        folder = self.directory / _folder(version)
        for name in ("evaluation", "verdict", "rehearsal"):
            if version.get(name):
                write_json(folder / f"{name}.json", version[name])
        if version.get("evaluation"):
            report.write_report(
                version["evaluation"], version.get("verdict"), folder / "evaluation.html"
            )

    def window(self, place: int, window: Mapping[str, Any]) -> _Window:
        """Judge a window, and copy its report."""
        evidence = Evidence.model_validate(
            {k: v for k, v in window.items() if k in Evidence.model_fields}
        )
        link = evidently = None
        source = window.get("report")
        if isinstance(source, Path):
            folder = f"evidence/windows/{evidence.id[:16]}"
            (self.directory / folder).mkdir(parents=True, exist_ok=True)
            for name in (PAGE, REPORT, EVIDENTLY):
                there = (source / name).is_file() and (name != EVIDENTLY or place < EVIDENTLY_PAGES)
                if there and not (
                    name == REPORT and _PATH.search((source / name).read_text(encoding="utf-8"))
                ):
                    shutil.copyfile(source / name, self.directory / folder / name)
            link = f"{folder}/{PAGE}" if (self.directory / folder / PAGE).is_file() else None
            evidently = (
                f"{folder}/{EVIDENTLY}" if (self.directory / folder / EVIDENTLY).is_file() else None
            )
        told = {f.measure: drifted(f, self.decision) for f in evidence.findings}
        judged = [
            (f.effect / self.decision.severity[f.measure].act, f)
            for f in evidence.findings
            if f.measure in self.decision.severity
            and f.effect is not None
            and f.n >= self.decision.minimum
        ]
        beyond = [(level, f) for level, f in judged if told[f.measure] != "no"]
        level, worst = max(beyond or judged, key=lambda pair: pair[0]) if judged else (None, None)
        state = (
            "severe"
            if "severe" in told.values()
            else "slight"
            if beyond
            else "none"
            if judged
            else "unclear"
        )
        moved = tuple(sorted(f.measure for _, f in beyond))
        state = "void" if evidence.problems else state
        return _Window(evidence, state, worst, level, moved, link, evidently)

    # Words about one thing

    def known(self, version: object) -> bool:
        return any(str(v["version"]) == str(version) for v in self.versions)

    def link(self, version: object, up: str) -> Child:
        """A version as a link to its page, where it has one."""
        if version in (None, ""):
            return "–"
        return (
            tag("a", version, href=f"{up}models/{version}.html")
            if self.known(version)
            else str(version)
        )

    def champion(self, digest: object, up: str) -> Child:
        """The version of a digest."""
        version = self.by_digest.get(str(digest))
        return self.link(version["version"], up) if version else tag("code", str(digest)[:12])

    def standing(self, version: Mapping[str, Any]) -> tuple[str, str]:
        """Where a version stands, in a word and a tone."""
        trial = next(iter(self.trials(version)), None)
        if version.get("live"):
            return "live", "good"
        if trial and trial.get("state") == "running":
            return "on trial", "warn"
        if version.get("was"):
            return "was live", "quiet"
        if version.get("promoted"):
            return "taken back", "warn"
        if not version.get("passed"):
            return "refused", "bad"
        if not version.get("rehearsed"):
            return "not rehearsed", "warn"
        return "rolled back" if trial else "not promoted", "warn" if trial else "quiet"

    def trials(self, version: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """Rollouts in which a version was the challenger, newest first."""
        return [
            r
            for r in self.rollouts
            if as_mapping(r.get("challenger")).get("digest") == version["digest"]
        ]

    # The index

    def index(self) -> tuple[str, Child]:
        live = self.live
        headline = f"Version {live['version']} is live" if live else "No model is live yet"
        if live:
            words: list[Child] = [
                tag("a", "Why is this model live?", href=f"models/{live['version']}.html")
            ]
            if live.get("promoted"):
                words = ["Since ", moment(live["promoted"]), ". ", *words]
        else:
            words = [
                "Nothing was promoted. ",
                tag("code", "tasteloop run"),
                " trains, gates and promotes a model.",
            ]
        notes = [tag("li", note) for note in as_list(self.facts.get("notes"))]
        body = [
            tag("p", "What is live and why", class_="over"),
            tag("h1", headline),
            tag("p", words, class_="lede"),
            tag("ul", notes, class_="warn") if notes else None,
            self.glance(),
            _section("models", "Models", self.models()),
            _section(
                "drift", "Drift", self.drift(self.windows, "", "No window has been looked at yet.")
            ),
            _section(
                "decisions",
                "Decisions",
                self.decided(self.decisions, "", "Nothing has been decided yet."),
            ),
            _section("runs", "Runs", self.all_runs()),
        ]
        return headline, body

    def glance(self) -> Safe | None:
        """The live model's headline measures, the newest window and the last decision."""
        metrics = as_mapping(
            as_mapping(self.live.get("evaluation") if self.live else None).get("metrics")
        )
        cells = [
            _card(_metric(metric), number(m.get("value")), report.interval_text(m))
            for metric in report.HEADLINES
            if (m := as_mapping(metrics.get(metric)))
        ]
        if self.windows:
            w = self.windows[0]
            about = (
                f"{w.worst.measure} {number(w.worst.effect)}"
                if w.worst
                else f"{len(w.evidence.findings)} measures"
            )
            cells.append(_card("Newest window", _STATES[w.state][0], about, _STATES[w.state][1]))
        if self.decisions:
            d = self.decisions[0]
            outcome = str(d.get("outcome"))
            cells.append(
                _card(
                    "Last decision", outcome, moment(d.get("time")), _OUTCOMES.get(outcome, "quiet")
                )
            )
        return tag("div", cells, class_="figures") if cells else None

    def models(self) -> Safe:
        if not self.versions:
            return _nothing("No model was registered yet.")
        measured = self.versions[:_POINTS][::-1]
        plots = []
        for metric in report.HEADLINES:
            points = [
                Point(
                    str(v["version"]),
                    m.get("value"),
                    m.get("low"),
                    m.get("high"),
                    self.standing(v)[1],
                )
                for v in measured
                if (
                    m := as_mapping(
                        as_mapping(as_mapping(v.get("evaluation")).get("metrics")).get(metric)
                    )
                )
            ]
            if points:
                drawn = trend(f"{_metric(metric)} by version", points, line=False)
                plots.append(_plot(f"{_metric(metric)} by version", drawn))
        rows = []
        for v in self.versions[:_ROWS]:
            metrics = as_mapping(as_mapping(v.get("evaluation")).get("metrics"))
            trial, run = next(iter(self.trials(v)), None), self.run_of.get(str(v["version"]))
            rows.append(
                [
                    self.link(v["version"], ""),
                    badge(*self.standing(v)),
                    moment(v.get("created")),
                    *[
                        number(as_mapping(metrics.get(metric)).get("value"))
                        for metric in report.HEADLINES
                    ],
                    _tally(v.get("verdict"))
                    if v.get("verdict")
                    else "passed"
                    if v.get("passed")
                    else "refused",
                    "passed" if v.get("rehearsed") else "–",
                    trial.get("state") if trial else "–",
                    moment(v.get("promoted")),
                    tag("a", run["id"], href=f"#run-{run['id']}") if run else "–",
                ]
            )
        measured_in = [Column(_metric(metric), True) for metric in report.HEADLINES]
        heads: list[Column | str] = [
            "Version",
            "State",
            "Registered",
            *measured_in,
            Column("Gate", True),
            "Rehearsal",
            "Canary",
            "Promoted",
            "Run",
        ]
        return join(
            [
                tag("div", plots, class_="plots"),
                table("Every version", heads, rows, _count(self.versions), True),
            ]
        )

    def drift(self, windows: Sequence[_Window], up: str, nothing: str) -> Safe:
        if not windows:
            return _nothing(nothing)
        points = [
            Point(
                day(w.start),
                w.level,
                tone={"none": "accent"}.get(w.state, _STATES[w.state][1]),
                about=f"{day(w.start)}: {_STATES[w.state][0]}"
                + (f", {w.worst.measure}" if w.worst else ""),
            )
            for w in windows[:_POINTS][::-1]
        ]
        note = "The greatest effect of each window, as a share of the one that is acted on (dashed: 1)."
        drawn = trend(
            "Drift by window, share of the level that is acted on", points, 620.0, bound=1.0
        )
        rows = []
        for w in windows[:_ROWS]:
            e, f = w.evidence, w.worst
            severity = self.decision.severity.get(f.measure) if f else None
            about: Child = ", ".join(w.drifted) or "–"
            if e.problems:
                about = tag("ul", [tag("li", problem) for problem in e.problems])
            span: Child = [moment(w.start), " to ", moment(e.end)]
            links = [tag("a", "Evidently", href=up + w.evidently)] if w.evidently else []
            rows.append(
                [
                    tag("a", span, href=up + w.link) if w.link else span,
                    badge(*_STATES[w.state]),
                    self.champion(e.champion, up),
                    f.measure if f else "–",
                    number(f.effect) if f else "–",
                    number(severity.act) if severity else "–",
                    number(f.p, 4) if f else "–",
                    number(f.n) if f else "–",
                    tag("div", about, class_="wide"),
                    links or ("–" if w.link else "no report is here"),
                ]
            )
        numeric = ("Effect", "Acts from", "p", "n")
        heads: list[Column | str] = [
            "Window",
            "State",
            "Champion",
            "Greatest",
            *(Column(t, True) for t in numeric),
        ]
        heads += ["Drifted", "More"]
        return join(
            [
                tag("p", note, class_="quiet"),
                _plot("Drift by window", drawn),
                table("Every window", heads, rows, _count(windows), True),
            ]
        )

    def decided(self, decisions: Sequence[Mapping[str, Any]], up: str, nothing: str) -> Safe:
        if not decisions:
            return _nothing(nothing)
        rows = []
        for d in decisions[:_ROWS]:
            outcome = str(d.get("outcome"))
            seen = [self.of_evidence.get(str(e)) for e in as_list(d.get("evidence"))]
            links = [tag("a", day(w.start), href=up + w.link) for w in seen if w and w.link]
            gone = len(seen) - len(links)
            rows.append(
                [
                    tag(
                        "span",
                        moment(d.get("time")),
                        id=f"decision-{d.get('number')}" if not up else None,
                    ),
                    badge(outcome, _OUTCOMES.get(outcome, "quiet")),
                    self.champion(d.get("champion"), up),
                    tag(
                        "div",
                        tag("ul", [tag("li", r) for r in as_list(d.get("reasons"))]),
                        class_="wide",
                    ),
                    tag("div", self.came(d, up), class_="wide"),
                    [join(links, " "), f" {gone} without a report" if gone else None],
                ]
            )
        heads = ["Decided", "Outcome", "Champion", "Reasons", "What came of it", "Evidence"]
        return table("Every decision", heads, rows, _count(decisions), True)

    def came(self, decision: Mapping[str, Any], up: str) -> Child:
        """What came of a decision."""
        parts: list[Child] = []
        if decision.get("result"):
            parts.append(tag("b", decision["result"]))
        elif decision.get("attempts"):
            parts.append(f"under way, attempt {decision['attempts']}")
        elif decision.get("outcome") == "retrain":
            parts.append("not begun")
        if decision.get("to"):
            parts.append(["back to version ", self.champion(decision["to"], up)])
        elif decision.get("version"):
            parts.append(["version ", self.link(decision["version"], up)])
        run = decision.get("training_run") or decision.get("run")
        if run and any(r["id"] == run for r in self.runs):
            parts.append(["run ", tag("a", run, href=f"{up}index.html#run-{run}")])
        elif run:
            parts.append(f"run {run}")
        if decision.get("alerted"):
            parts.append("a human was told")
        if decision.get("result") != "promoted" and decision.get("reason"):
            parts.append(_short(decision["reason"]))
        return join(parts, ", ") if parts else "nothing had to be done"

    def all_runs(self) -> Safe:
        if not self.runs:
            return _nothing("No run of the pipeline is on record here.")
        rows = []
        for run in self.runs[:_ROWS]:
            outcome = str(run.get("outcome"))
            tone = _ENDS.get(outcome, "bad")
            reason = "" if tone in ("good", "warn") else _short(run.get("reason"))
            rows.append(
                [
                    tag("span", run["id"], id=f"run-{run['id']}"),
                    badge(outcome, tone),
                    moment(run.get("started")),
                    _duration(run.get("seconds")),
                    run.get("profile"),
                    self.link(run.get("version"), ""),
                    join(self.reports(run, ""), " · ") or "none is here",
                    tag("div", reason or "–", class_="wide"),
                ]
            )
        heads: list[Column | str] = [
            "Run",
            "Outcome",
            "Started",
            Column("Took", True),
            "Profile",
            "Version",
            "Reports",
            "Why",
        ]
        return table("Every run", heads, rows, _count(self.runs), True)

    def reports(self, run: Mapping[str, Any] | None, up: str) -> list[Child]:
        """Links to a run's pages."""
        found: list[Child] = []
        if run and run.get("validation"):
            found.append(tag("a", "validation", href=f"{up}{_run_folder(run)}/validation.html"))
        if run and run.get("evaluation"):
            version = next(
                (v for v in self.versions if str(v["version"]) == str(run.get("version"))), None
            )
            folder = _run_folder(run) if version is None else _folder(version)
            if version is None or version.get("evaluation"):
                found.append(tag("a", "evaluation", href=f"{up}{folder}/evaluation.html"))
        return found

    # One model

    def model(self, version: Mapping[str, Any]) -> tuple[str, Child]:
        name = version["version"]
        headline = f"Why is version {name} live?" if version.get("live") else f"Version {name}"
        run = self.run_of.get(str(name))
        evaluation, verdict = as_mapping(version.get("evaluation")), version.get("verdict")
        windows = [w for w in self.windows if w.evidence.champion == version["digest"]]
        decisions = [d for d in self.decisions if d.get("champion") == version["digest"]]
        trials = self.trials(version)
        steps = list(self.chain(version, run, windows, decisions, trials))
        body = [
            tag("p", "Model version ", tag("code", str(version["digest"])[:12]), class_="over"),
            tag("h1", headline, " ", badge(*self.standing(version))),
            tag("p", self.lede(version), class_="lede"),
            tag(
                "ol",
                [_step(*step) for step in steps],
                class_="chain",
                aria_label="From the data to today",
            ),
            _section("measures", "Measures", self.measures(evaluation)),
            _section(
                "gate",
                "Gate",
                report.checks_table(verdict)
                if verdict
                else _nothing("No verdict of the gate is on record."),
            ),
            _section("data", "Data and run", self.data(version, run)),
            _section("canary", "Canary", [_trial(t) for t in trials] or _nothing(_NO_CANARY)),
            _section(
                "drift",
                "Drift since",
                self.drift(windows, "../", "No window with this champion was looked at."),
            ),
            _section(
                "decisions",
                "Decisions since",
                self.decided(
                    decisions, "../", "Nothing was decided while this model was the champion."
                ),
            ),
        ]
        return headline, body

    def lede(self, version: Mapping[str, Any]) -> Child:
        state, _ = self.standing(version)
        if version.get("promoted"):
            over = version.get("replaced")
            words: list[Child] = ["Promoted ", moment(version["promoted"])]
            words += (
                [" in place of version ", self.link(over, "../")]
                if over
                else [", the first champion"]
            )
            after = next(
                (v for v in reversed(self.versions) if v.get("replaced") == version["version"]),
                None,
            )
            if state == "was live" and after:
                words += [
                    "; version ",
                    self.link(after["version"], "../"),
                    " took its place ",
                    moment(after["promoted"]),
                ]
            if state == "taken back":
                words += ["; the champion before it was made live again since"]
            back = next(
                (
                    d
                    for d in self.decisions
                    if (d.get("to"), d.get("result")) == (version["digest"], "rolled back")
                ),
                None,
            )
            if state == "live" and back:
                words += ["; made live again ", moment(back.get("time")), " in place of version "]
                words += [self.champion(back.get("champion"), "../"), ", which was worse"]
            return [*words, "."]
        if state in ("live", "was live"):
            return "It was promoted; when is not on record."
        return {
            "refused": "The gate refused it, so it was never live.",
            "not rehearsed": "It passed the gate and no rehearsal, so it was never live.",
            "on trial": "It answers beside the champion now.",
        }.get(state, "It passed the gate and was not promoted.")

    def chain(
        self,
        version: Mapping[str, Any],
        run: Mapping[str, Any] | None,
        windows: Sequence[_Window],
        decisions: Sequence[Mapping[str, Any]],
        trials: Sequence[Mapping[str, Any]],
    ) -> Iterator[tuple[str, str, str, Child, Child]]:
        """Each step from the data to today: name, a word, its tone, what was found, links to the
        evidence.
        """
        folder, evaluation = f"../{_folder(version)}", as_mapping(version.get("evaluation"))
        lineage = as_mapping(evaluation.get("lineage"))
        asked = self.asked(version, run)
        if asked:
            where = f"../index.html#decision-{asked.get('number')}"
            why = _short("; ".join(map(str, as_list(asked.get("reasons")))))
            yield (
                "Asked for",
                str(asked.get("outcome")),
                "warn",
                why,
                tag("a", "decision", href=where),
            )
        else:
            yield (
                "Asked for",
                "by hand",
                "quiet",
                "No decision of the monitor asked for this training.",
                None,
            )
        if lineage.get("data"):
            what = [
                "events ",
                tag("code", str(lineage["data"])[:16]),
                f", source {lineage.get('source', 'unknown')}",
            ]
            yield (
                "Data",
                "hashed",
                "good",
                what,
                tag("a", "lineage", href=f"{folder}/evaluation.html#lineage"),
            )
        else:
            yield "Data", "unknown", "warn", "The hash of its events is not on record.", None
        yield self.validated(run)
        if run:
            said = [f"{run['id']}, profile {run.get('profile')}, {_duration(run.get('seconds'))}"]
            yield (
                "Run",
                str(run.get("outcome")),
                _ENDS.get(str(run.get("outcome")), "bad"),
                said,
                [tag("a", "run", href=f"../index.html#run-{run['id']}")],
            )
        else:
            yield (
                "Run",
                "elsewhere",
                "quiet",
                "The run that made it is not on record in this home.",
                None,
            )
        yield "Data window", *self.span(version)
        yield from self.judged(version, folder)
        rehearsal = as_mapping(version.get("rehearsal"))
        if rehearsal:
            word, tone = ("passed", "good") if rehearsal.get("passed") else ("failed", "bad")
            proof = tag("a", "rehearsal", href=f"{folder}/rehearsal.json")
            yield "Rehearsal", word, tone, str(rehearsal.get("reason")), proof
        elif version.get("rehearsed"):
            yield "Rehearsal", "passed", "good", "It passed; what was asked is not on record.", None
        else:
            # one that was refused is not rehearsed
            tone = "warn" if version.get("passed") else "quiet"
            yield "Rehearsal", "none", tone, "No rehearsal is on record.", None
        if trials:
            t = trials[0]
            word = str(t.get("state"))
            tone = {"promoted": "good", "running": "warn", "aborted": "warn"}.get(word, "bad")
            kind = "in the shadow" if t.get("shadow") else "of the requests"
            said = [
                f"{finite(t.get('share')) or 0:.0%} {kind}. ",
                _short("; ".join(map(str, as_list(t.get("reasons"))))),
            ]
            yield "Canary", word, tone, said, tag("a", "rollout", href=f"../{_rollout_file(t)}")
        else:
            yield "Canary", "none", "quiet", _NO_CANARY, _see("canary")
        state, tone = self.standing(version)
        live = bool(version.get("live") or version.get("was") or version.get("promoted"))
        yield (
            "Promotion",
            state if live else "none",
            tone if live else "quiet",
            self.lede(version),
            None,
        )
        yield self.since(windows)
        if decisions:
            d = decisions[0]
            outcome = str(d.get("outcome"))
            counts = _counts(str(d.get("outcome")) for d in decisions)
            said = [f"{counts}; the last one ", moment(d.get("time"))]
            yield (
                "Decisions since",
                outcome,
                _OUTCOMES.get(outcome, "quiet"),
                said,
                _see("decisions"),
            )
        else:
            yield (
                "Decisions since",
                "none",
                "quiet",
                "Nothing was decided on this champion.",
                _see("decisions"),
            )

    def asked(
        self, version: Mapping[str, Any], run: Mapping[str, Any] | None
    ) -> Mapping[str, Any] | None:
        """The decision that asked for a version's training."""
        ids = {run["id"]} if run else set()
        for d in self.decisions:
            if d.get("outcome") == "retrain" and (
                {d.get("training_run"), d.get("run")} & ids
                or str(d.get("version")) == str(version["version"])
            ):
                return d
        return None

    def validated(self, run: Mapping[str, Any] | None) -> tuple[str, str, str, Child, Child]:
        v = as_mapping(run.get("validation") if run else None)
        if not run or not v:
            return (
                "Validation",
                "unknown",
                "warn",
                "The validation of its data is not on record in this home.",
                None,
            )
        errors, warnings = finite(v.get("errors")) or 0, finite(v.get("warnings")) or 0
        rules = (
            f"{len(as_list(v.get('checks')))} rules: errors {errors:.0f}, warnings {warnings:.0f}"
        )
        word, tone = (
            ("accepted", "warn" if warnings else "good") if v.get("passed") else ("refused", "bad")
        )
        return (
            "Validation",
            word,
            tone,
            rules,
            join(self.reports({**run, "evaluation": None}, "../")),
        )

    def span(self, version: Mapping[str, Any]) -> tuple[str, str, Child, Child]:
        s = as_mapping(version.get("span"))
        if not s:
            return (
                "unknown",
                "warn",
                "What time its data spans is not on record in this home.",
                _see("data"),
            )
        said: list[Child] = []
        if s.get("first") or s.get("last"):
            said = [moment(s.get("first")), " to ", moment(s.get("last"))]
        if s.get("test_from"):
            said += ["; tested on what follows ", moment(s["test_from"])]
        return "known", "good", said, _see("data")

    def judged(
        self, version: Mapping[str, Any], folder: str
    ) -> Iterator[tuple[str, str, str, Child, Child]]:
        evaluation, verdict = (
            as_mapping(version.get("evaluation")),
            as_mapping(version.get("verdict")),
        )
        proof = tag("a", "evaluation", href=f"{folder}/evaluation.html") if evaluation else None
        said = []
        for metric in report.HEADLINES:
            m = as_mapping(as_mapping(evaluation.get("metrics")).get(metric))
            if m:
                said.append(
                    f"{_metric(metric)} {number(m.get('value'))} ({report.interval_text(m)})"
                )
        if said:
            yield "Measures", "measured", "good", ", ".join(said), proof
        else:
            yield "Measures", "unknown", "warn", "Its evaluation is not on record.", None
        word, tone = ("passed", "good") if version.get("passed") else ("refused", "bad")
        if verdict:
            failed = [
                str(c.get("reason"))
                for c in as_rows(verdict.get("checks"))
                if c.get("outcome") == "fail"
            ]
            words = f"{_tally(verdict)} checks hold. " + _short("; ".join(failed))
            yield "Gate", word, tone, words, tag("a", "verdict", href=f"{folder}/verdict.json")
        else:
            yield "Gate", word, tone, "The checks are not on record.", None

    def since(self, windows: Sequence[_Window]) -> tuple[str, str, str, Child, Child]:
        if not windows:
            return (
                "Drift since",
                "none",
                "quiet",
                "No window with this champion was looked at.",
                _see("drift"),
            )
        counts = _counts(_STATES[w.state][0] for w in windows)
        word, tone = _STATES[windows[0].state]
        return "Drift since", word, tone, f"{len(windows)} windows: {counts}", _see("drift")

    def measures(self, evaluation: Mapping[str, Any]) -> Child:
        metrics = as_mapping(evaluation.get("metrics"))
        if not metrics:
            return _nothing("Its evaluation is not on record.")
        against = as_mapping(as_mapping(evaluation.get("differences")).get("champion"))
        rows = []
        for metric, value in metrics.items():
            m, d = as_mapping(value), as_mapping(against.get(metric))
            best, difference = report.strongest(evaluation, metric)
            rows.append(
                [
                    _metric(metric),
                    number(m.get("value")),
                    report.interval_text(m),
                    *_difference(metric, d),
                    report.measure_name(best) if best else "–",
                    *_difference(metric, difference),
                    number(m.get("n")),
                ]
            )
        heads = [
            Column("Measure"),
            Column("Value", True),
            Column("Interval", True),
            Column("Against the champion", True),
            Column("Interval", True),
            Column("Strongest baseline"),
            Column("Against it", True),
            Column("Interval", True),
            Column("Rows", True),
        ]
        champion = as_mapping(evaluation.get("champion"))
        note: Child = "There was no champion to compare with."
        if champion:
            version = champion.get("version")
            note = (
                ["The champion then was version ", self.link(version, "../"), "."]
                if version
                else (["The champion then was ", self.champion(champion.get("digest"), "../"), "."])
            )
        return [
            tag(
                "p",
                note,
                " A difference is this model minus the other on the same rows.",
                class_="quiet",
            ),
            table("On the test window", heads, rows, full=True),
        ]

    def data(self, version: Mapping[str, Any], run: Mapping[str, Any] | None) -> Child:
        lineage = as_mapping(as_mapping(version.get("evaluation")).get("lineage"))
        s = as_mapping(version.get("span"))
        facts: list[tuple[str, Child]] = [("bundle", tag("code", version["digest"]))]
        facts += [
            (key, tag("code", value))
            for key, value in lineage.items()
            if key not in ("bundle", "created") and value
        ]
        facts.append(("registered", [moment(version.get("created")), " UTC"]))
        for key, name in (
            ("first", "first event"),
            ("validation_from", "validated on what follows"),
            ("test_from", "tested on what follows"),
            ("last", "last event"),
        ):
            if s.get(key):
                facts.append((name, [moment(s[key]), " UTC"]))
        counted = as_mapping(s.get("snapshots"))
        if counted:
            facts.append(("snapshots", ", ".join(f"{k} {number(v)}" for k, v in counted.items())))
        stats = as_mapping(as_mapping(run.get("validation") if run else None).get("stats"))
        told = [
            f"{number(stats[k])} {k}"
            for k in ("events", "users", "items", "reviews")
            if finite(stats.get(k))
        ]
        if told:
            facts.append(("counted", ", ".join(told)))
        parts: list[Child] = [
            tag("dl", [[tag("dt", k), tag("dd", v)] for k, v in facts], class_="facts"),
        ]
        steps = as_rows(run.get("steps") if run else None)
        if run and steps:
            rows = [
                [
                    s.get("step"),
                    badge("used again", "quiet")
                    if s.get("reused")
                    else badge("done", "good")
                    if s.get("event") == "finished"
                    else badge(str(s.get("event")), "bad"),
                    _duration(s.get("seconds")),
                ]
                for s in steps
            ]
            parts.append(table(f"Run {run['id']}", ["Step", "State", Column("Took", True)], rows))
        elif not run:
            parts.append(_nothing("The run that made it is not on record in this home."))
        return parts


def _counts(words: Iterable[str]) -> str:
    """How often each word came, most first."""
    return ", ".join(f"{count} {word}" for word, count in Counter(words).most_common())


_NO_CANARY = "No canary was run."


def _step(name: str, word: str, tone: str, what: Child, proof: Child) -> Safe:
    return tag(
        "li",
        tag("strong", name),
        badge(word, tone),
        tag("span", what, class_="what"),
        tag("span", proof, class_="proof"),
        class_=tone,
    )


def _see(section: str) -> Safe:
    return tag("a", "below", href=f"#{section}", aria_label=f"below, {section}")


def _trial(rollout: Mapping[str, Any]) -> Safe:
    """A rollout: what each side did, and what was decided."""
    state = str(rollout.get("state"))
    tone = {"promoted": "good", "running": "warn", "aborted": "warn"}.get(state, "bad")
    observed = as_mapping(rollout.get("observed"))
    rows = []
    for side in ("champion", "challenger"):
        told, version = as_mapping(observed.get(side)), as_mapping(rollout.get(side)).get("version")
        seconds = as_mapping(told.get("seconds"))
        milliseconds = [
            number(1000 * x, 1) if (x := finite(seconds.get(q))) is not None else "–"
            for q in _QUANTILES
        ]
        counts = [number(told.get(k)) for k in ("answers", "errors", "not_finite")]
        rows.append([f"{side}, version {version}", *counts, *milliseconds])
    numeric = ("Answers", "Errors", "Not finite", *(f"{q} ms" for q in _QUANTILES))
    kind = "Shadow" if rollout.get("shadow") else "Canary"
    return join(
        [
            tag(
                "p",
                badge(state, tone),
                f" {kind}, {finite(rollout.get('share')) or 0:.0%} of the requests, ",
                _iso(rollout.get("started")),
                " to ",
                _iso(rollout.get("ended")),
            ),
            tag(
                "ul",
                [
                    tag("li", r)
                    for r in as_list(rollout.get("reasons")) or as_list(rollout.get("because"))
                ],
            ),
            table("What both sides did", ["Side", *(Column(t, True) for t in numeric)], rows),
        ]
    )


_QUANTILES = ("p50", "p95", "p99")


def _difference(metric: str, d: Mapping[str, Any]) -> list[Child]:
    tone = report.difference_tone(metric, d)
    return [
        tag("span", number(d.get("value"), signed=True), class_=tone),
        report.interval_text(d, signed=True),
    ]


def _card(title: str, value: str, about: Child, tone: str = "") -> Safe:
    figure = tag("p", value, class_=f"figure {tone}".rstrip())
    return tag("div", tag("p", title), figure, tag("p", about, class_="quiet"))


def _section(key: str, title: str, body: Child) -> Safe:
    return tag("section", tag("h2", title), body, id=key)


def _nothing(words: str) -> Safe:
    return tag("p", words, class_="quiet")


def _plot(caption: str, drawn: Safe) -> Safe:
    inside = tag(
        "div", drawn, class_="scroll", role="region", tabindex="0", aria_label=f"{caption}, plot"
    )
    return tag("figure", tag("figcaption", caption), inside, class_="plot")


def _metric(metric: str) -> str:
    task, _, measure = metric.partition(".")
    return f"{task} {report.measure_name(measure)}" if measure else metric


def _tally(verdict: object) -> str:
    checks = [c.get("outcome") for c in as_rows(as_mapping(verdict).get("checks"))]
    return f"{checks.count('pass')} of {len(checks) - checks.count('skip')}"


def _count(rows: Sequence[object]) -> str:
    return (
        f"{len(rows)}, newest first"
        if len(rows) <= _ROWS
        else f"the newest {_ROWS} of {len(rows):,}"
    )


def _short(text: object, most: int = 280) -> str:
    words = "" if text is None else str(text)
    return words if len(words) <= most else words[: most - 1].rstrip() + "…"


def _duration(seconds: object) -> str:
    x = finite(seconds)
    if x is None:
        return "–"
    return f"{x:.1f} s" if x < 60 else f"{x / 60:.0f} min" if x < 5400 else f"{x / 3600:.1f} h"


def _iso(text: object) -> Child:
    return "now" if text is None else str(text)[:16].replace("T", " ")


def _folder(version: Mapping[str, Any]) -> str:
    return f"evidence/models/{version['version']}"


def _run_folder(run: Mapping[str, Any]) -> str:
    return f"evidence/runs/{run['id']}"


def _rollout_file(rollout: Mapping[str, Any]) -> str:
    return f"evidence/rollouts/{rollout['id']}.json"
