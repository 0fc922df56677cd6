"""A real HTTP server that an alert is sent to."""

from __future__ import annotations

import http.server
import json
import threading
from typing import Any


class Webhook:
    """A real HTTP server that answers with the given codes, the last one for ever."""

    def __init__(self, codes: list[int]) -> None:
        received: list[tuple[Any, Any]] = []

        class Receiver(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                self.send_response(codes[min(len(received), len(codes) - 1)])
                self.send_header("content-length", "0")
                received.append((self.headers, json.loads(body)))
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server, self.received = (
            http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver),
            received,
        )

    def __enter__(self) -> tuple[str, list[tuple[Any, Any]]]:
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self.server.server_port}/", self.received

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
