"""From a CSV of who read which title, in order, to a served model with named interests.

    python examples/titles_only.py reads.csv                       # columns user, item, title
    python examples/titles_only.py reads.csv --columns user_id article_id title --profile smoke

It writes a mapping beside the home, trains, gates and promotes (`tasteloop run`), serves the model,
asks it for the recommendations of the first reader of the file, and for the interests where there
are any (fewer than thirty titles make none), and writes the pages (`tasteloop report --site`). A
model that the gate refuses is served all the same, and said to be refused: it is the bundle of the
run, and no champion. Answers and paths go to standard output as JSON, progress to standard error.
The exit code is that of the run.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import yaml

_HISTORY = 20  # acts of the reader who is asked about
_STARTS = 300.0  # seconds that a server may take to start


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("reads", type=Path, help="a CSV, also .gz; its rows are in order")
    parser.add_argument(
        "--columns", nargs=3, default=["user", "item", "title"], metavar=("USER", "ITEM", "TITLE")
    )
    parser.add_argument("--home", type=Path, default=Path("titles-only"), help="(%(default)s)")
    parser.add_argument("--profile", default="local", help="(%(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    home = options.home.absolute()
    home.mkdir(parents=True, exist_ok=True)

    # 1. train, gate, promote
    mapping = home / "reads.yaml"
    mapping.write_text(yaml.safe_dump(mapping_of(options.reads.absolute(), options.columns)))
    settings = [f"ingest.behaviour={mapping}", "ingest.reviews=null", *options.set]
    asked = [part for each in settings for part in ("--set", each)]
    trained = tasteloop(home, "run", "--profile", options.profile, "--json", *asked)
    if not trained.stdout.strip():
        return trained.returncode
    facts = json.loads(trained.stdout)
    bundle = facts.get("artifacts", {}).get("bundle")
    if bundle is None:
        print(f"the run ended without a model: {facts['reason']}", file=sys.stderr)
        return trained.returncode

    # 2. serve, ask
    answers = ask(home, Path(bundle), first_history(options.reads, options.columns))

    # 3. the pages
    tasteloop(home, "report", "--site", str(home / "site"))
    said = {
        "outcome": facts["outcome"],
        "metrics": facts["metrics"],
        "answers": answers,
        "site": str(home / "site" / "index.html"),
    }
    print(json.dumps(said, ensure_ascii=False, indent=1))
    return trained.returncode


def mapping_of(reads: Path, columns: list[str]) -> dict[str, Any]:
    """What the file's columns mean (docs/data.md)."""
    user, item, title = columns
    return {
        "events": str(reads),
        "columns": {"user": user, "item": item},
        "kind": "view",
        "time": "order",
        "items": {"file": str(reads), "columns": {"item": item, "title": title}},
    }


def first_history(reads: Path, columns: list[str]) -> list[dict[str, str]]:
    """The first acts of the file's first reader, as events of a request."""
    user, item, _ = columns
    table = pl.read_csv(reads, columns=[user, item], infer_schema=False)
    own = table.filter(pl.col(user) == table[user][0])[item].drop_nulls().head(_HISTORY)
    return [{"kind": "view", "item": each.removesuffix(".0")} for each in own.to_list()]


def ask(home: Path, bundle: Path, history: list[dict[str, str]]) -> dict[str, Any]:
    """Interests, where there are any, and recommendations of a history, by a server of its own."""
    served = json.loads((bundle / "card.json").read_text("utf-8"))["answers"]
    ready = home / "ready.json"
    ready.unlink(missing_ok=True)
    command = ["-m", "serving", "--bundle", str(bundle), "--port", "0", "--grpc-port", "0"]
    command += ["--ready-file", str(ready)]
    server = subprocess.Popen([sys.executable, *command], env=environment(home))
    try:
        deadline = time.monotonic() + _STARTS
        while not ready.exists():
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit("the server did not start; its reason is above")
            time.sleep(0.2)
        with httpx.Client(base_url=json.loads(ready.read_text())["http"], timeout=60) as client:
            answers = {}
            for model, asked in (("interests", {}), ("recommend", {"k": 5})):
                if model not in served:
                    continue
                body = {"instances": [{"events": history, **asked}]}
                response = client.post(f"/v1/models/{model}:predict", json=body)
                response.raise_for_status()
                answers[model] = response.json()["predictions"][0]
        return answers
    finally:
        server.terminate()
        server.wait()


def tasteloop(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A command of Tasteloop in the home; its progress goes to standard error."""
    command = [sys.executable, "-m", "pipelines.cli", *arguments]
    return subprocess.run(command, env=environment(home), stdout=subprocess.PIPE, text=True)


def environment(home: Path) -> dict[str, str]:
    return {**os.environ, "TASTELOOP_HOME": str(home)}


if __name__ == "__main__":
    sys.exit(main())
