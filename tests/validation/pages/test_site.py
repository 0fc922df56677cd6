"""The site: whole, inert, its links inside it, readable by people and by keyboard."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

import pytest

from serving.release import promotion
from serving.release.observations import Observation, Tally
from serving.release.rollout import Rollout, Side
from tasteloop import files
from tasteloop.errors import TasteloopError
from tasteloop.evaluation.record import Evaluation
from tests.support import samples
from tests.support.pages import CHROMIUM, HEADLESS, Reader, luminance
from tests.support.registries import candidate, copy_empty_home, first_use_of_a_home, live_digest
from tests.support.samples import RULES
from validation.gate import gates
from validation.markup.elements import tag
from validation.markup.environment import page
from validation.monitor.decision import (
    SEVERITY,
    DecisionSettings,
    Evidence,
    Finding,
    decide,
    key_of,
)
from validation.monitor.drift_report import EVIDENTLY, PAGE, REPORT
from validation.monitor.entries import RetrainingResult
from validation.monitor.execution import carry_out
from validation.monitor.ledger import Ledger
from validation.monitor.windows import HOUR
from validation.pages.facts import Decided, Model, ReportedWindow, Run, SiteRecords
from validation.pages.facts import Rollout as RolloutRecord
from validation.pages.site import MARK, portable, write_site

DAY = 24 * HOUR
START = 1_793_491_200_000_000  # 2026-11-01
DIGESTS = {n: sha256(str(n).encode()).hexdigest() for n in range(1, 5)}


@pytest.fixture
def home(
    tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A home of its own with an empty registry."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        monkeypatch.delenv(name, raising=False)
    original, _ = first_use_of_a_home(tmp_path_factory)
    home = copy_empty_home(original, tmp_path / "home")
    monkeypatch.setenv("TASTELOOP_HOME", str(home))
    return home


def model(number: int, **changes: Any) -> dict[str, Any]:
    found = samples.evaluation()
    found["lineage"]["bundle"] = DIGESTS[number]
    found["champion"] |= {"digest": DIGESTS.get(number - 1, "none"), "version": number - 1 or None}
    return {
        "version": str(number),
        "digest": DIGESTS[number],
        "created": START + number * DAY,
        "passed": True,
        "rehearsed": True,
        "live": False,
        "was": False,
        "promoted": None,
        "replaced": None,
        "evaluation": found,
        "verdict": gates.decide(Evaluation.parse(found), RULES).json(),
        "rehearsal": {
            "passed": True,
            "reason": "19 golden answers served as recorded",
            "digest": DIGESTS[number],
        },
        "span": {
            "first": START - 90 * DAY,
            "last": START,
            "test_from": START - 9 * DAY,
            "snapshots": {"train": 700},
        },
        **changes,
    }


def run(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "id": f"2026110{number}-101010-00{number:02}",
        "profile": "local",
        "outcome": "promoted",
        "started": START + number * DAY,
        "seconds": 1070.5,
        "version": str(number),
        "steps": [{"step": "finetune", "event": "finished", "seconds": 901.5, "reused": False}],
        "validation": {
            "passed": True,
            "errors": 0,
            "warnings": 1,
            "stats": {"events": 100_000, "users": 943},
            "checks": [
                {
                    "table": "events",
                    "about": "time is possible",
                    "severity": "error",
                    "passed": True,
                    "found": "all",
                }
            ],
        },
        "evaluation": samples.evaluation(),
        "verdict": None,
        **changes,
    }


def rollout() -> dict[str, Any]:
    seen = Tally(answers=510, latency={40: 300, 45: 210}, outcomes={"interests": {"Drama": 510}})
    rollout = Rollout(
        id="r1",
        state="promoted",
        champion=Side(version="1", digest=DIGESTS[1]),
        challenger=Side(version="2", digest=DIGESTS[2]),
        share=0.1,
        started="2026-11-03T10:00:00+00:00",
        ended="2026-11-03T12:00:00+00:00",
        reasons=("error rate 0.0000 against the champion's 0.0002, allowed 0.0052",),
        observed=Observation(champion=seen, challenger=seen),
    )
    return rollout.status().model_dump(mode="json")


def monitored(
    directory: Path, windows: int = 12, reason: str = ""
) -> tuple[list[ReportedWindow], list[Decided]]:
    """Windows whose labels drift in the end, looked at and decided on as the monitor does; newest
    first.
    """
    ledger, seen, told = Ledger(directory), [], []
    with ledger.lease() as lease:
        for n in range(windows):
            report = directory / "windows" / str(n)
            files.write_json(report / REPORT, {"window": n})
            files.atomic_write(
                report / PAGE, page(f"Window {n}", tag("h1", "beside the reference"))
            )
            files.atomic_write(report / EVIDENTLY, page("Evidently", tag("h1", "in its place")))
            effects = {name: 0.2 * severity.act for name, severity in SEVERITY.items()}
            effects["labels"] = SEVERITY["labels"].act * (1.6 if n >= windows - 2 else 0.3)
            seen.append(
                Evidence(
                    id=files.sha256_file(report / REPORT),
                    window=f"{START + n * DAY}/{START + (n + 1) * DAY}",
                    end=START + (n + 1) * DAY,
                    reference="reference",
                    champion=DIGESTS[2 if n > 3 else 1],
                    findings=tuple(
                        Finding(measure=m, effect=e, p=0.001, n=800) for m, e in effects.items()
                    ),
                    problems=(reason or "value is constant",) if n == 2 else (),
                )
            )
            key = key_of(seen[-1].reference, seen[-1].window, seen[-1].champion)
            ledger.append(lease, "window", key, seen[-1].model_dump(mode="json"))
            decision = decide(seen, ledger.triggers(), seen[-1].end, DecisionSettings())
            made = RetrainingResult(
                result="rejected",
                reason=reason or "micro-F1 may be worse",
                training_run=run(3)["id"],
            )
            carry_out(lease, decision, seen[-1].end, lambda *_, made=made: made, lambda _: None)
            told.append(ReportedWindow(seen[-1], report))
    return told[::-1], [Decided.of(entry) for entry in ledger.history()[::-1]]


def write(facts: dict[str, Any], out: Path) -> dict[str, int]:
    """Write the site of facts as JSON has them; windows and decisions are records."""
    records = SiteRecords(
        made=facts["made"],
        models=tuple(Model.parse(row) for row in facts.get("versions", ())),
        runs=tuple(Run.parse(row) for row in facts.get("runs", ())),
        rollouts=tuple(RolloutRecord.parse(row) for row in facts.get("rollouts", ())),
        windows=tuple(facts.get("windows", ())),
        decisions=tuple(facts.get("decisions", ())),
        notes=tuple(facts.get("notes", ())),
    )
    return write_site(records, out)


def whole(directory: Path) -> dict[str, Any]:
    """Three models of which the second is live, by a canary; the third was asked for by drift, and
    refused.
    """
    windows, decisions = monitored(directory)
    third = model(3, passed=False, rehearsed=False, rehearsal=None)
    third["evaluation"] = samples.worsened(third["evaluation"], "recommend.ndcg@10", 0.03)
    third["verdict"] = gates.decide(Evaluation.parse(third["evaluation"]), RULES).json()
    failed = {
        "id": "20261109-000000-dead",
        "outcome": "failed",
        "started": START + 9 * DAY,
        "reason": "out of memory",
    }
    return {
        "made": START + 30 * DAY,
        "versions": [
            third,
            model(2, live=True, promoted=START + 2.5 * DAY, replaced="1"),
            model(1, was=True, promoted=START + DAY),
        ],
        "runs": [
            failed,
            run(3, outcome="rejected", reason="micro-F1 may be worse"),
            run(2),
            run(1),
        ],
        "rollouts": [rollout()],
        "windows": windows,
        "decisions": decisions,
        "notes": [],
    }


@pytest.fixture
def site(tmp_path: Path) -> Path:
    write(whole(tmp_path / "monitor"), tmp_path / "site")
    return tmp_path / "site"


def crawl(site: Path) -> dict[str, Reader]:
    """Every page that can be reached from the index; each link and fragment must lead somewhere
    inside the site.
    """
    found: dict[str, Reader] = {}
    ahead = ["index.html"]
    while ahead:
        name = ahead.pop()
        if name in found or not name.endswith(".html"):
            continue
        found[name] = read = Reader((site / name).read_text())
        for key, value in read.attributes:
            if key not in ("href", "src"):
                continue
            target, fragment = urldefrag(value or "")
            there = (site / name).parent / unquote(target) if target else site / name
            inside = Path(os.path.normpath(there))
            assert inside.is_relative_to(site) and inside.is_file(), f"{name} links to {value}"
            if fragment:
                assert ("id", fragment) in Reader(inside.read_text()).attributes, (
                    f"{name} links to {value}"
                )
            ahead.append(inside.relative_to(site).as_posix())
    return found


def words(site: Path, name: str) -> str:
    return "".join(Reader((site / name).read_text()).texts)


def test_every_link_leads_to_something_inside(site: Path) -> None:
    found = crawl(site)
    assert {"index.html", *(f"models/{n}.html" for n in (1, 2, 3))} <= set(found)
    written = {p.relative_to(site).as_posix() for p in site.rglob("*.html")}
    assert written == set(found)  # and there is nothing that no link leads to


def test_a_site_can_be_moved(site: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "published"
    shutil.copytree(site, moved)
    shutil.rmtree(site)
    shutil.rmtree(tmp_path / "monitor")
    assert len(crawl(moved)) > 10


def test_every_page_has_a_title_a_language_one_heading_and_landmarks(site: Path) -> None:
    for name, read in crawl(site).items():
        assert read.tags.count("h1") == 1 and "title" in read.tags[: read.tags.index("body")], name
        assert read.tags.count("main") == 1 and ("lang", "en") in read.attributes, name
        assert not {"script", "iframe", "link", "img"} & set(read.tags), name
        assert read.tags.count("caption") == read.tags.count("table"), name
        if not name.startswith("evidence/"):
            assert (
                read.tags[read.tags.index("body") + 1] == "a"
                and ("href", "#content") in read.attributes
            )
            assert {"header", "nav", "footer"} <= set(read.tags)
            levels = [int(one[1]) for one in read.tags if one in ("h1", "h2", "h3", "h4")]
            assert levels[0] == 1 and all(b <= a + 1 for a, b in itertools.pairwise(levels)), name


def test_the_live_model_is_explained_from_its_data_to_today(site: Path) -> None:
    text = words(site, "models/2.html")
    for expected in (
        "Why is version 2 live?",
        "2026-11-03 12:00",
        "in place of version 1",
        "77de01aa",
        "2026-10-23 00:00",
        "1 rule: errors 0, warnings 1",
        "0.629 (0.617 to 0.641)",
        "13 of 13 checks hold",
        "must lie above 0",
        "19 golden answers served as recorded",
        "10% of the requests",
        "error rate 0.0000",
        "8 windows",
        "6 as before, 2 severe",
        "labels moved by",
        "retrain",
        "own frequencies",
    ):
        assert expected in text, expected
    index = words(site, "index.html")
    for expected in (
        "Version 2 is live",
        "Why is this model live?",
        "data refused",
        "value is constant",
        "rejected",
    ):
        assert expected in index, expected
    assert "asked for" in words(site, "models/3.html").lower() and "labels moved by" in words(
        site, "models/3.html"
    )
    assert "The gate refused it" in words(site, "models/3.html")
    assert "version 2 took its place 2026-11-03 12:00" in words(site, "models/1.html")


def test_a_rollback_is_told_on_both_sides(tmp_path: Path) -> None:
    newest = {"version": "2", "digest": DIGESTS[2], "promoted": START + 2.5 * DAY, "replaced": "1"}
    back = Decided(
        number=40,
        time=START + 5 * DAY,
        outcome="rollback",
        champion=DIGESTS[2],
        to=DIGESTS[1],
        reasons=("nDCG@10 0.150 to 0.170 lies below 0.263",),
        evidence=("gone",),
        result="rolled back",
        reason=None,
        version="1",
        run=None,
        training_run=None,
        alerted=False,
        attempts=0,
    )
    versions = [model(2, **newest), model(1, live=True, promoted=START + DAY)]
    write({"made": START, "versions": versions, "decisions": [back]}, tmp_path / "site")
    crawl(tmp_path / "site")
    assert "made live again 2026-11-06 00:00 in place of version 2" in words(
        tmp_path / "site", "models/1.html"
    )
    assert "back to version 1" in words(tmp_path / "site", "models/2.html")
    index = words(tmp_path / "site", "index.html")
    assert "Version 1 is live" in index and "taken back" in index and "1 without a report" in index


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    assert write({"made": START}, tmp_path / "none")["pages"] == 1
    text = words(tmp_path / "none", "index.html")
    for said in (
        "No model is live yet",
        "No model was registered",
        "No window",
        "Nothing has been decided",
        "No run",
    ):
        assert said in text
    bare = dict.fromkeys(("evaluation", "verdict", "rehearsal", "span"))
    facts = {"made": START, "versions": [model(1, live=True, rehearsed=True, **bare)]}
    write(facts, tmp_path / "bare")
    crawl(tmp_path / "bare")
    text = words(tmp_path / "bare", "models/1.html")
    for said in (
        "No canary was run",
        "The hash of its events is not on record",
        "validation of its data is not on record",
        "The run that made it is not on record",
        "What time its data spans",
        "Its evaluation is not on record",
        "The checks are not on record",
        "what was asked is not on record",
        "when is not on record",
        "No window with this champion",
        "Nothing was decided",
        "No decision of the monitor asked for",
    ):
        assert said in text, said


@pytest.mark.parametrize("hostile", samples.HOSTILE)
def test_hostile_text_is_inert_wherever_it_stands(tmp_path: Path, hostile: str) -> None:
    def poisoned(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {k: poisoned(part, k) for k, part in value.items()}
        if isinstance(value, list | tuple):
            return [poisoned(part, key) for part in value]
        if isinstance(value, ReportedWindow):
            parts = {name: poisoned(part, name) for name, part in value.evidence}
            return replace(value, evidence=value.evidence.model_copy(update=parts))
        if isinstance(value, Decided):
            return replace(
                value, **{name: poisoned(part, name) for name, part in vars(value).items()}
            )
        kept = (
            "version",
            "digest",
            "id",
            "window",
            "champion",
            "evidence",
            "measure",
            "training_run",
            "run",
            "ended",
        )
        return hostile if isinstance(value, str) and key not in (*kept, "started") else value

    facts = poisoned(whole(tmp_path / "monitor"))
    facts["notes"] = [hostile]
    worst = Finding(measure=hostile, effect=9.0, p=0.0, n=999)
    newest = facts["windows"][0]
    evidence = newest.evidence.model_copy(update={"findings": (worst,)})
    facts["windows"][0] = replace(newest, evidence=evidence)
    site = tmp_path / "site"
    write(facts, site)
    assert hostile in words(site, "index.html") and hostile in words(site, "models/2.html")
    for name, read in crawl(site).items():
        assert not {"script", "img", "iframe"} & set(read.tags), name
        assert not [key for key, _ in read.attributes if key.startswith("on")], name


def test_no_path_of_the_machine_is_in_it(tmp_path: Path) -> None:
    facts = whole(tmp_path / "monitor")
    facts["versions"][1]["evaluation"]["lineage"] |= {
        "source": str(tmp_path / "ratings"),
        "encoder": "/opt/models/minilm",
    }
    facts["runs"][0]["reason"] = (
        f"step finetune broke; log: {tmp_path}/runs/1/log.txt (file:///srv/x/y.json)"
    )
    facts["notes"] = [f"line 3 of the ledger {tmp_path / 'monitor'} is not a record"]
    site = tmp_path / "site"
    write(facts, site)
    for path in (p for p in site.rglob("*") if p.is_file()):
        assert not [
            part for part in (str(tmp_path), "/opt/", "/srv/") if part in path.read_text()
        ], path
    assert "…/log.txt (…/y.json)" in words(site, "index.html")
    assert "…/minilm" in words(site, "models/2.html")


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("/home/ann/.tasteloop/runs/1/log.txt", "…/log.txt"),
        ("in '/var/x/y.csv', row 3", "in '…/y.csv', row 3"),
        ("1793491200000000/1793577600000000", None),
        ("and/or, 24/7/365, AC/DC, 3 of 5", None),
        ("evidence/models/2/verdict.json", None),
        ("</script><script>alert(1)</script>", None),
        ("https://example.org/a/b", None),
    ],
)
def test_what_counts_as_a_path(text: str, kept: str | None) -> None:
    assert portable({text: [text]}) == {kept or text: [kept or text]}


def test_only_a_site_of_ours_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "site"
    write({"made": 1}, out)
    (out / "stale.html").write_text("left over")
    write({"made": 2}, out)
    assert not (out / "stale.html").exists() and files.read_json(out / MARK)["made"] == 2
    mine = tmp_path / "mine"
    mine.mkdir()
    write({"made": 3}, mine)  # an empty directory
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "thesis").write_text("x")
    for taken in (tmp_path / "papers", tmp_path / "papers" / "thesis", tmp_path):
        with pytest.raises(TasteloopError, match="not replaced; name another directory"):
            write({"made": 4}, taken)
    assert (tmp_path / "papers" / "thesis").read_text() == "x"
    (tmp_path / "link").symlink_to(out, target_is_directory=True)
    write({"made": 5}, tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and files.read_json(out / MARK)["made"] == 5
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "mine", "papers", "site"]


def test_a_site_that_cannot_be_made_leaves_the_old_one(tmp_path: Path) -> None:
    write({"made": 1}, tmp_path / "site")
    with pytest.raises(KeyError):
        write({"made": 2, "versions": [{"version": "1"}]}, tmp_path / "site")
    with pytest.raises(TasteloopError, match="cannot name a file of the site"):
        write({"made": 3, "versions": [{"version": "a/b", "digest": "x"}]}, tmp_path / "site")
    assert files.read_json(tmp_path / "site" / MARK)["made"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["site"]


# The command, on a real registry


def test_the_command_gathers_what_is_there(
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from pipelines.cli.app import main

    def call(*arguments: str) -> str:
        monkeypatch.setattr(
            "sys.argv", ["tasteloop", "report", "--site", str(tmp_path / "site"), *arguments]
        )
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        return capsys.readouterr().out

    first, second = candidate(tmp_path, "a"), candidate(tmp_path, "b")
    promotion.promote(first.version, None)
    promotion.promote(second.version, live_digest())
    facts = run(1) | {"version": second.version, "started": "2026-11-24T19:30:59+00:00"}
    facts["steps"].append(
        {"step": "record", "event": "finished", "outputs": {"mlflow_run": second.run_id}}
    )
    other = {
        **facts,
        "id": "20261101-000000-beef",
        "steps": [{**facts["steps"][-1], "outputs": {"mlflow_run": "no"}}],
    }
    for one in (facts, other):
        files.write_json(home / "runs" / one["id"] / "run.json", one)
    files.write_json(home / "runs" / facts["id"] / "validation.json", facts["validation"])
    monitored(home / "monitor")
    told = json.loads(call("--json"))
    assert {k: told[k] for k in ("models", "runs", "windows", "decisions")} == {
        "models": 2,
        "runs": 2,
        "windows": 12,
        "decisions": 12,
    }
    site = Path(told["site"])
    crawl(site)
    live = words(site, f"models/{second.version}.html")
    assert (
        f"in place of version {first.version}" in live
        and facts["id"] in live
        and other["id"] not in live
    )
    assert "took its place" in words(site, f"models/{first.version}.html")
    assert len(list(site.glob(f"evidence/windows/*/{PAGE}"))) == 12
    assert len(list(site.glob(f"evidence/windows/*/{EVIDENTLY}"))) == 10  # of the newest
    promotion.rollback()
    assert "taken back" in words(site, "index.html") or call()
    shown = words(site, "index.html").count("severe")
    labels = {"severity": {"labels": {"watch": 8, "act": 9}}}  # what this home's monitor decides by
    files.write_json(home / "monitor" / "settings.json", {"decision": labels})
    call()
    assert words(site, "index.html").count("severe") < shown
    files.write_json(home / "monitor" / "settings.json", {"decision": {"unheard of": 1}})
    call()
    assert words(site, "index.html").count("severe") == shown and "default settings" in words(
        site, "index.html"
    )
    assert "taken back" in words(site, f"models/{second.version}.html")
    with (home / "monitor" / "ledger.jsonl").open("a") as stream:
        stream.write("{}\n")
    call()
    assert (
        "is not a record" in words(site, "index.html")
        and str(home) not in (site / "index.html").read_text()
    )


# In a browser


@contextmanager
def browser(folder: Path) -> Iterator[Callable[..., Any]]:
    """A headless Chromium and a function that sends it a command of the DevTools protocol."""
    from websockets.sync.client import connect

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        str(CHROMIUM),
        *HEADLESS,
        f"--user-data-dir={folder / 'profile'}",
        f"--remote-debugging-port={port}",
        "about:blank",
    ]
    process = subprocess.Popen(
        command,
        env={**os.environ, "HOME": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        import httpx

        for _ in range(600):
            try:
                pages = httpx.get(f"http://127.0.0.1:{port}/json/list", trust_env=False).json()
                break
            except httpx.TransportError:
                time.sleep(0.1)
        url = next(one["webSocketDebuggerUrl"] for one in pages if one["type"] == "page")
        numbers = itertools.count(1)
        with connect(url, max_size=None, proxy=None, open_timeout=60) as socket_:

            def send(method: str, until: str = "", **parameters: Any) -> Any:
                mine, answer = next(numbers), None
                socket_.send(json.dumps({"id": mine, "method": method, "params": parameters}))
                while True:
                    told = json.loads(socket_.recv(timeout=120))
                    if told.get("id") == mine:
                        assert "error" not in told, told
                        answer = told["result"]
                        if not until:
                            return answer
                    if told.get("method") == until and answer is not None:
                        return answer

            yield send
    finally:
        process.terminate()
        process.wait(30)


READABLE = """
(() => {
  const solid = c => /^rgb\\(/.test(c);
  const out = [];
  for (const e of document.querySelectorAll('main *, header *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!own || !e.getClientRects().length) continue;
    const style = getComputedStyle(e);
    let ground = e;
    while (ground && !solid(getComputedStyle(ground).backgroundColor)) ground = ground.parentElement;
    const ink = e instanceof SVGElement ? style.fill : style.color;
    out.push([ink, ground ? getComputedStyle(ground).backgroundColor : 'rgb(255, 255, 255)', e.tagName]);
  }
  return [...new Set(out.map(JSON.stringify))].map(JSON.parse);
})()"""
WIDE = "[document.documentElement.scrollWidth, innerWidth]"
FOCUSED = """
(() => {
  const e = document.activeElement, r = e.getBoundingClientRect(), s = getComputedStyle(e);
  return [e.className || e.tagName, e.getAttribute('href') || '', r.width > 0 && r.left >= 0, s.outlineStyle,
          [...document.querySelectorAll('a[href], [tabindex="0"]')].indexOf(e)];
})()"""


def hex_of(colour: str) -> str:
    return "#" + "".join(f"{int(part):02x}" for part in colour[4:-1].split(","))


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_pages_in_a_browser(tmp_path: Path) -> None:
    """Nothing runs, nothing scrolls sideways on a phone, all text is readable, and Tab goes through
    in order.
    """
    facts = whole(tmp_path / "monitor")
    facts["notes"] = [
        "<script>document.title='ran'</script><img src=x onerror=\"document.title='ran'\">"
    ]
    facts["runs"][0]["reason"] = facts["notes"][0]
    site = tmp_path / "site"
    write(facts, site)
    with browser(tmp_path) as send:

        def value(expression: str) -> Any:
            return send("Runtime.evaluate", expression=expression, returnByValue=True)["result"][
                "value"
            ]

        def key(name: str, code: int) -> None:
            for kind in ("keyDown", "keyUp"):
                send(
                    "Input.dispatchKeyEvent",
                    type=kind,
                    key=name,
                    code=name,
                    windowsVirtualKeyCode=code,
                )

        send("Page.enable")
        for name in ("index.html", "models/2.html", "models/3.html"):
            for scheme, width in (("light", 1280), ("dark", 1280), ("light", 400), ("dark", 400)):
                preferred = [{"name": "prefers-color-scheme", "value": scheme}]
                send("Emulation.setEmulatedMedia", features=preferred)
                send(
                    "Emulation.setDeviceMetricsOverride",
                    width=width,
                    height=900,
                    deviceScaleFactor=1,
                    mobile=width < 500,
                )
                send("Page.navigate", until="Page.loadEventFired", url=(site / name).as_uri())
                assert value("document.title").endswith("· Tasteloop")
                scroll, inner = value(WIDE)
                assert scroll <= inner == width, (name, width)
                pairs = value(READABLE)
                assert len(pairs) > 5
                for ink, ground, element in pairs:
                    low, high = sorted((luminance(hex_of(ink)), luminance(hex_of(ground))))
                    assert (high + 0.05) / (low + 0.05) >= 4.5, (name, scheme, element, ink, ground)
                shot = send("Page.captureScreenshot", captureBeyondViewport=True)["data"]
                import base64

                picture = base64.b64decode(shot)
                assert picture.startswith(b"\x89PNG") and len(picture) > 20_000
                if keep := os.environ.get("TASTELOOP_SCREENSHOTS"):
                    files.atomic_write(
                        Path(keep) / f"{Path(name).stem}-{scheme}-{width}.png", picture
                    )
        stops = int(value("document.querySelectorAll('a[href], [tabindex=\"0\"]').length"))
        order = []
        for _ in range(stops):
            key("Tab", 9)
            what, href, visible, outline, place = value(FOCUSED)
            assert visible and outline == "solid", (what, href)
            order.append(place)
        assert order == list(range(stops))  # as they stand in the document, and no trap
        send("Page.navigate", until="Page.loadEventFired", url=(site / "index.html").as_uri())
        key("Tab", 9)
        assert value(FOCUSED)[:2] == ["skip", "#content"]
        send(
            "Input.dispatchKeyEvent",
            type="keyDown",
            key="Enter",
            code="Enter",
            windowsVirtualKeyCode=13,
            text="\r",
        )
        send(
            "Input.dispatchKeyEvent",
            type="keyUp",
            key="Enter",
            code="Enter",
            windowsVirtualKeyCode=13,
        )
        key("Tab", 9)
        assert value("document.activeElement.closest('main') !== null") is True
