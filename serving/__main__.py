"""`python -m serving`: serve one bundle, or the champion, over KServe's V1 and V2 (REST, gRPC)
protocols.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client import disable_created_metrics

from serving.journal.writer import Journal
from serving.observe import telemetry
from serving.observe.observer import Observer
from serving.observe.observer import access as access_log
from serving.options import CHAMPION, OPTIONS, Option, read_options, settings_of
from serving.settings import HistorySettings, JournalSettings, Limits, QueueSettings, ServerSettings
from tasteloop import process
from tasteloop.errors import TasteloopError
from tasteloop.home import Home

if TYPE_CHECKING:
    from serving.histories.incoming import Forwarder
    from serving.histories.protocol import Histories
    from serving.histories.service import HistoryService

logger = logging.getLogger("serving")

OFF = "off"


_EXAMPLES = """\
examples:
  python -m serving                               the champion, on http://127.0.0.1:8080 and gRPC on 8081
  python -m serving --version 3                   registered version 3 instead
  python -m serving --bundle runs/x/bundle --port 0 --grpc-port 0 --ready-file ready.json
                                                  a bundle directory on free ports, which ready.json tells

ask it:
  curl http://127.0.0.1:8080/v1/models/recommend:predict -d \\
    '{"instances": [{"events": [{"kind": "rate", "item": "50", "value": 1.0}], "k": 5}]}'
  curl http://127.0.0.1:8080/v2/models/sentiment/infer -d \\
    '{"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a fine film"]}]}'

exit codes: 0 stopped by SIGTERM or SIGINT, 2 a mistake in what was asked, 1 ours
"""


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m serving",
        description="Serve one bundle's models interests, recommend and sentiment with a kserve.ModelServer.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--bundle",
        default=CHAMPION,
        metavar="DIR|champion",
        help="what to serve (default: the registry's champion)",
    )
    parser.add_argument(
        "--version",
        metavar="V",
        help="with the registry: the version to serve instead of the champion; with DIR: what answers call "
        "its version (default: the first 12 digits of the bundle's digest)",
    )
    for title in ("where", "how much", "how long"):
        group = parser.add_argument_group(title)
        for option in OPTIONS[title]:
            _add_option(group, option)
    parser.add_argument(
        "--threads",
        type=int,
        help="threads of a computation (default: OMP_NUM_THREADS, else all cores)",
    )
    group = parser.add_argument_group("the journal")
    group.add_argument(
        "--journal",
        metavar="DIR|off",
        help="where answers are written (default: journal under TASTELOOP_HOME for the champion, else off)",
    )
    for option in OPTIONS["the journal"]:
        if option.info.annotation is int:
            _add_option(group, option, metavar="N")
    group.add_argument(
        "--journal-text", action="store_true", help="write the questions too, raw text included"
    )
    group = parser.add_argument_group("users' histories")
    group.add_argument(
        "--histories",
        default=OFF,
        metavar="on|DIR|URL|off",
        help="keep what users do, so that questions need only a user: on (a directory under TASTELOOP_HOME), "
        "a directory, or valkey://HOST:PORT for several servers (default: off)",
    )
    group.add_argument(
        "--history-incoming",
        metavar="DIR|off",
        help="where what comes is written for the monitor (default: incoming under TASTELOOP_HOME)",
    )
    for option in OPTIONS["histories"]:
        _add_option(group, option, metavar="N")
    parser.add_argument(
        "--traces",
        metavar="URL",
        help="send OpenTelemetry spans to this collector, as http://127.0.0.1:4318/v1/traces",
    )
    parser.add_argument(
        "--ready-file",
        type=Path,
        metavar="FILE",
        help="write addresses and version here once ready",
    )
    parser.add_argument(
        "--exit-with-parent",
        action="store_true",
        help="stop when standard input closes: no server outlives its starter",
    )
    parser.add_argument(
        "--without-token",
        action="store_true",
        help="listen beyond this machine without TASTELOOP_API_TOKEN: a gateway before this server asks for one",
    )
    parser.add_argument(
        "--log-level", default="warning", choices=("debug", "info", "warning", "error")
    )
    parser.add_argument(
        "--log-format",
        default="text",
        choices=("text", "json"),
        help="json: one object a line (default: text)",
    )
    parser.add_argument(
        "--settings",
        type=Path,
        metavar="FILE",
        help="take what is not given here from the section `serving` of this YAML file, under the same names",
    )
    arguments = parser.parse_args(argv)
    if arguments.settings is None:
        return arguments
    try:
        parser.set_defaults(**read_options(arguments.settings))
    except TasteloopError as error:
        parser.error(str(error))
    return parser.parse_args(argv)


def _add_option(group: argparse._ArgumentGroup, option: Option, metavar: str | None = None) -> None:
    kind: Any = option.info.annotation
    text = f"{option.info.description} (default: %(default)s)"
    group.add_argument(
        option.flag, type=kind, default=option.info.default, metavar=metavar, help=text
    )


def main(argv: list[str] | None = None) -> int:
    arguments = _arguments(argv)
    process.begin()
    # kserve and uvicorn log through the root once it has a handler; kserve's own set-up is then
    # skipped.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        telemetry.JsonLines() if arguments.log_format == "json" else telemetry.Plain()
    )
    logging.basicConfig(level=arguments.log_level.upper(), handlers=[handler])
    # kserve's way to answer
    warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")
    logger.setLevel(min(logging.INFO, logging.getLogger().level))
    access_log.setLevel(logging.getLogger().level)
    for name in (signal.SIGTERM, signal.SIGINT):  # until the server takes over
        signal.signal(name, lambda *_: sys.exit(0))
    if arguments.exit_with_parent:
        threading.Thread(target=_stop_when_input_closes, daemon=True).start()
    try:
        _serve(arguments)
    except TasteloopError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def _serve(arguments: argparse.Namespace) -> None:
    """Serve until a signal comes. What is imported here imports torch or kserve, which takes
    seconds: a mistake in the arguments is reported before.
    """
    # 1. what is served
    os.environ["HF_HUB_OFFLINE"] = "1"
    disable_created_metrics()  # type: ignore[no-untyped-call]
    sys.argv[1:] = []  # kserve parses them as its own when it is imported, abbreviated ones too
    follows = arguments.bundle == CHAMPION and arguments.version is None
    bundle_and_version = None if follows else _resolve(arguments.bundle, arguments.version)

    from serving.release.following import Following
    from serving.release.startup import load_first_version, registry_problem

    away: str | None = None
    if follows:
        # The server asks the registry again by itself, so its start need not wait for MLflow's
        # retries, which take minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        away = registry_problem()

    from serving.answering.batching import Batcher
    from serving.answering.live import Live
    from serving.answering.predictor import Predictor
    from serving.http.access import Access, loopback
    from serving.http.routes import history_routes, routes
    from serving.http.server import Server
    from serving.journal.tokens import FeedbackTokens
    from tasteloop.privacy.pseudonyms import KEY_VARIABLE, pseudonym_key

    # 2. settings
    options = vars(arguments)
    limits = settings_of(Limits, options)
    queue = settings_of(QueueSettings, options)
    settings = settings_of(ServerSettings, options)
    access = Access.from_environment(arguments.host, arguments.without_token)
    if not loopback(arguments.host) and not access.needs_token:
        logger.warning(
            "listening on %s without a token: whoever reaches it can ask", arguments.host
        )

    # 3. what notes requests and answers
    observer = Observer()
    if arguments.traces:
        from serving.observe.tracing import Tracing

        observer = Observer(Tracing(arguments.traces))
    journal = _journal(arguments, follows)
    histories, forwarder = _open_store(arguments)
    try:
        # 4. the server, its ports bound. Where the key's variable is set, another process may write
        # the journal of what is answered here, and its feedback needs the same tokens.
        needs_key = follows or journal or histories or KEY_VARIABLE in os.environ
        key = pseudonym_key() if needs_key else None
        tokens = None if key is None else FeedbackTokens(key)
        answered = routes(lambda: live.status(), journal, tokens)
        service = None
        if histories is not None:
            assert key is not None
            service = _history_service(arguments, histories, key, limits)
            answered += history_routes(service, access)
        server = Server(settings, access, answered, observer)
        _set_threads(arguments.threads)

        # 5. the predictor
        live: Live
        if bundle_and_version is None:
            live = following = Following(
                load_first_version(limits, away), journal, key, limits, away=away
            )
            batcher = Batcher(live, queue, live.on_answer)
            following.start(lambda: batcher.idle)
        else:
            bundle, version = bundle_and_version
            predictor = Predictor.load(bundle, version, limits)
            predictor.warm_up(bundle)
            live = Live(predictor, journal, key)
            batcher = Batcher(live, queue, live.on_answer)

        live.histories = service

        # 6. until it is stopped
        server.start(batcher)
        if bundle_and_version is None:
            following.stop()
    finally:
        observer.close()
        if journal is not None:
            journal.close()
        if forwarder is not None:
            forwarder.close()
        if histories is not None:
            histories.close()


def _open_store(arguments: argparse.Namespace) -> tuple[Histories | None, Forwarder | None]:
    """The store of histories, and what hands its events to the monitor."""
    if arguments.histories == OFF:
        return None, None
    from serving.histories.incoming import Forwarder
    from serving.histories.opening import open_histories

    settings = settings_of(HistorySettings, vars(arguments))
    incoming = arguments.history_incoming or str(Home.current().incoming)
    store = open_histories(arguments.histories, settings, forwards=incoming != OFF)
    if incoming == OFF:
        return store, None
    return store, Forwarder(store, Path(incoming), settings.seconds)


def _history_service(
    arguments: argparse.Namespace, store: Histories, key: bytes, limits: Limits
) -> HistoryService:
    from serving.histories.service import HistoryService

    settings = settings_of(HistorySettings, vars(arguments))
    if settings.events > limits.events:
        raise TasteloopError(
            f"--history-events {settings.events} is more than one question may have, --max-events {limits.events}; "
            "lower the one or raise the other"
        )
    return HistoryService(store, key, limits.characters, settings.repeat_days or None)


def _journal(arguments: argparse.Namespace, follows: bool) -> Journal | None:
    directory = arguments.journal or (str(Home.current().journal) if follows else "off")
    if directory == "off":
        return None
    return Journal(settings_of(JournalSettings, vars(arguments), directory=Path(directory)))


def _resolve(bundle: str, version: str | None) -> tuple[Path, str | None]:
    """The directory of a bundle and how its answers call its version (None: by its digest)."""
    if bundle != CHAMPION:
        if not Path(bundle).is_dir():
            raise TasteloopError(
                f"no bundle directory {bundle}; give one, or `champion` for the registry's"
            )
        return Path(bundle), version
    from serving.release import registry

    registered = registry.find(str(version))
    return registered.path, registered.version


def _set_threads(threads: int | None) -> None:
    """Set the threads of every engine, before any of them is imported."""
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)


def _stop_when_input_closes() -> None:
    while os.read(0, 4096):  # not sys.stdin: its lock, held here, would abort the interpreter's end
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
