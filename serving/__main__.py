"""`python -m serving`: serve one bundle, or the champion, over KServe's V1 and V2 (REST, gRPC) protocols."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import signal
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tasteloop.errors import TasteloopError

logger = logging.getLogger("serving")

CHAMPION = "champion"

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
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s, this machine)")
    parser.add_argument("--port", type=int, default=8080, help="REST port, 0: any free one (default: %(default)s)")
    parser.add_argument("--grpc-port", type=int, default=8081, help="gRPC port, 0: any free one (default: %(default)s)")
    parser.add_argument(
        "--threads", type=int, help="threads of a computation (default: OMP_NUM_THREADS, else all cores)"
    )
    parser.add_argument("--ready-file", type=Path, metavar="FILE", help="write addresses and version here once ready")
    parser.add_argument(
        "--exit-with-parent",
        action="store_true",
        help="stop when standard input closes: no server outlives its starter",
    )
    parser.add_argument("--log-level", default="warning", choices=("debug", "info", "warning", "error"))
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    arguments = _arguments(argv)
    # kserve and uvicorn log through the root once it has a handler; kserve's own set-up is then skipped.
    logging.basicConfig(
        level=arguments.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    warnings.filterwarnings("ignore", message="ORJSONResponse is deprecated")  # kserve's way to answer
    logger.setLevel(min(logging.INFO, logging.getLogger().level))
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
    os.environ["HF_HUB_OFFLINE"] = "1"
    bundle, version = _resolve(arguments.bundle, arguments.version)

    from serving.models import TasteModel
    from serving.predictor import Predictor
    from serving.server import Server

    server = Server(arguments.host, arguments.port, arguments.grpc_port, arguments.ready_file)
    if not _loopback(arguments.host):
        logger.warning("listening on %s without authentication: whoever reaches it can ask", arguments.host)
    _set_threads(arguments.threads)
    predictor = Predictor.load(bundle, version)
    predictor.warm_up(bundle)
    with ThreadPoolExecutor(1, "compute") as executor:
        server.start([TasteModel(name, predictor, executor) for name in predictor.models])


def _resolve(bundle: str, version: str | None) -> tuple[Path, str | None]:
    if bundle != CHAMPION:
        if not Path(bundle).is_dir():
            raise TasteloopError(f"no bundle directory {bundle}; give one, or `champion` for the registry's")
        return Path(bundle), version
    from serving import registry

    live = registry.find(version) if version else registry.champion()
    if live is None:
        raise TasteloopError(
            f"there is no champion in {registry.tracking_uri()} yet; train one with `tasteloop run`, "
            "or serve a bundle directory with --bundle DIR"
        )
    return live.path, live.version


def _set_threads(threads: int | None) -> None:
    """For whichever engine answers, before any of them is imported."""
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _stop_when_input_closes() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
