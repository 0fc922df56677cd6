"""Runs inside a pod, as `python -c` of this file's text: asks addresses over HTTP and writes what
came, as JSON, where Kubernetes keeps a container's last words.

The standard library alone, so that every image with Python can run it.
"""

from __future__ import annotations

import http.client
import json
import sys
import urllib.error
import urllib.request

_SECONDS = 10
_LONGEST = 300  # characters of a reason; Kubernetes keeps 4096 bytes in all


def ask(url: str) -> tuple[int | None, str]:
    """The status of the answer and its reason; None and why, where none came."""
    try:
        with urllib.request.urlopen(url, timeout=_SECONDS) as response:
            return response.status, str(response.reason)
    except urllib.error.HTTPError as error:
        return error.code, str(error.reason)[:_LONGEST]
    except (OSError, ValueError, http.client.HTTPException) as error:
        return None, str(getattr(error, "reason", error))[:_LONGEST]


def main(path: str, urls: list[str]) -> None:
    answers = [ask(url) for url in urls]
    with open(path, "w") as file:
        json.dump(answers, file)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
