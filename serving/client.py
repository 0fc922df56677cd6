"""The caller's side: ask a server over V1 or V2; returns answers, or raises an error that says what
to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlsplit

import httpx

from serving import settings
from serving.headers import API_TOKEN_HEADER, REQUEST_ID_HEADER, TOKEN_HEADER
from tasteloop.errors import TasteloopError
from tasteloop.redaction import redact

Json = dict[str, Any]
"""A JSON object of a server: its answers differ from model to model."""


class ServingError(TasteloopError):
    """The question was not answered; `status` is the HTTP status, None where no response came."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class Answers(list[Json]):
    """The answers to one request, in the order of its instances.

    Attributes:
        request: the id of the request.
        token: shown with feedback on these answers; None where the server takes none.
        histories: of each answer, how many events it used and the stored history's `seq`; None
            where the server read no stored history for it.
    """

    request: str = ""
    token: str | None = None
    histories: Sequence[Json | None] = ()


def check_address(url: str, name: str) -> None:
    """Refuse what is no address of a server, before a request is sent there.

    Raises:
        ServingError: neither http nor https, no host, or an impossible port; the message leaves out
            a password.
    """
    try:
        parts = urlsplit(url)
        port, host = parts.port, httpx.URL(url).host
    except (ValueError, httpx.InvalidURL):
        port, host = 0, ""
    has_address = bool(host) and port != 0 and parts.scheme in ("http", "https")
    if not has_address or not url.isprintable() or " " in url:
        raise ServingError(
            f"{name} {redact(url)!r:.200} is no address of a server; give one such as http://127.0.0.1:8080"
        )


class Client:
    """Questions to one server.

    >>> with Client("http://127.0.0.1:9") as client:  # nobody listens there
    ...     client.ready()
    False

    Args:
        url: such as `http://127.0.0.1:8080`.
        timeout: seconds for one request.
        token: the server's token; by default that of TASTELOOP_API_TOKEN or
            TASTELOOP_API_TOKEN_FILE.
        gateway_token: the bearer token of a gateway before the server, which then has
            `Authorization` for itself; by default that of TASTELOOP_GATEWAY_TOKEN or
            TASTELOOP_GATEWAY_TOKEN_FILE.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8080",
        timeout: float = 30.0,
        token: str | None = None,
        gateway_token: str | None = None,
    ) -> None:
        check_address(url, "the URL")
        self.url = url.rstrip("/")
        self.timeout = timeout
        token = token or settings.token(settings.API_TOKEN)
        gateway_token = gateway_token or settings.token(settings.GATEWAY_TOKEN)
        headers = {}
        if bearer := gateway_token or token:
            headers["authorization"] = f"Bearer {bearer}"
        if gateway_token and token:
            headers[API_TOKEN_HEADER] = token
        # The server is named by its address, so no proxy of the environment is used (trust_env).
        self._http = httpx.Client(
            base_url=self.url, timeout=timeout, trust_env=False, headers=headers
        )

    def predict(self, model: str, instances: Sequence[Mapping[str, Any]]) -> Answers:
        """V1: one answer per instance, in order.

        Raises:
            ServingError: the server refused (with its text) or failed, timed out, or is not there.
        """
        return self._questions(model, "predict", "predictions", instances)

    def explain(self, model: str, instances: Sequence[Mapping[str, Any]]) -> Answers:
        """V1: the explanation of one answer per instance, in order; see docs/explain.md.

        Raises:
            ServingError: as `predict`.
        """
        return self._questions(model, "explain", "explanations", instances)

    def _questions(
        self, model: str, verb: str, key: str, instances: Sequence[Mapping[str, Any]]
    ) -> Answers:
        path = f"/v1/models/{quote(model, safe='')}:{verb}"
        answer, headers = self._exchange("POST", path, {"instances": list(instances)})
        try:
            answers = Answers(answer[key])
        except (KeyError, TypeError):
            raise ServingError(
                f'{self.url} answered without "{key}": is it a Tasteloop server?'
            ) from None
        answers.request = headers.get(REQUEST_ID_HEADER, "")
        answers.token = headers.get(TOKEN_HEADER)
        answers.histories = answer.get("histories", [None] * len(answers))
        return answers

    def feedback(self, answers: Answers, outcomes: Sequence[Mapping[str, Any]]) -> None:
        """Send what users did with answers.

        Args:
            outcomes: such as {"instance": 1, "kind": "click", "item": "50"}; `instance` is the
                position among the answers, 0 where it is left out.

        Raises:
            ServingError: as `predict`; also where the server keeps no journal.
        """
        names = {"request": answers.request, "token": answers.token}
        entries = [{**names, **outcome} for outcome in outcomes]
        self._ask("POST", "/v1/feedback", {"feedback": entries})

    def send(self, events: Sequence[Mapping[str, Any]], key: str | None = None) -> Json:
        """Send events for their users' histories; returns when they are stored.

        Args:
            events: such as {"user": "u1", "id": "e7", "kind": "click", "item": "50"}.
            key: an idempotency key; the same events under the same key count once.

        Returns:
            {"accepted", "new", "refused": [{"index", "reason", "message"}], "seq": {user: seq},
            "durable"}. A question with `min_seq` reads at least that far.

        Raises:
            ServingError: as `predict`; also where the server keeps no histories (404).
        """
        headers = {} if key is None else {"idempotency-key": key}
        answer, _ = self._exchange("POST", "/v1/events", {"events": list(events)}, headers)
        return dict(answer)

    def user(self, user: str) -> Json:
        """Everything that is stored of a user; with the admin's token.

        Raises:
            ServingError: as `predict`.
        """
        return dict(self._ask("GET", _user_path(user)))

    def erase(self, user: str) -> Json:
        """Erase a user's history; with the admin's token. Events from before then are refused from
        now on.

        Raises:
            ServingError: as `predict`.
        """
        return dict(self._ask("DELETE", _user_path(user)))

    def infer(
        self,
        model: str,
        inputs: Sequence[Mapping[str, Any]],
        parameters: Mapping[str, Any] | None = None,
    ) -> Json:
        """V2: the response with all its fields, {"model_version", "outputs": [{"name", "datatype",
        "shape", "data"}], ...}.

        Raises:
            ServingError: as `predict`.
        """
        body = {"inputs": list(inputs), "parameters": dict(parameters or {})}
        answer: Json = self._ask("POST", f"/v2/models/{quote(model, safe='')}/infer", body)
        return answer

    def ready(self) -> bool:
        """Whether the server answers and its models are loaded."""
        try:
            return bool(self._ask("GET", "/v2/health/ready") == {"ready": True})
        except ServingError:
            return False

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return self._exchange(method, path, body)[0]

    def _exchange(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[Any, httpx.Headers]:
        """The JSON that answers a request, and the headers of that answer."""
        # 1. the response
        try:
            response = self._http.request(method, path, json=body, headers=headers)
        except httpx.ConnectError:
            raise ServingError(
                f"no server at {self.url}; start one with `tasteloop serve`, or name another URL"
            ) from None
        except httpx.TimeoutException:
            raise ServingError(f"{self.url} did not answer within {self.timeout:g} s") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ServingError(f"asking {self.url} failed: {error}") from None
        # JSON cannot hold it, such as NaN
        except (ValueError, TypeError, RecursionError) as error:
            raise ServingError(f"the question cannot be written as JSON: {error}") from None

        # 2. its JSON
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if response.is_success and answer is not None:
            return answer, response.headers

        # 3. an error, in the server's words where it has any
        text = answer.get("error") if isinstance(answer, dict) else None
        text = text or response.text[:200] or response.reason_phrase
        whose = "refused the question" if response.is_client_error else "failed"
        raise ServingError(
            f"{self.url} {whose} ({response.status_code}): {text}", response.status_code
        )


def _user_path(user: str) -> str:
    """The path of a user; its dots are escaped, since a client leaves out what is `.` or `..`."""
    return f"/v1/users/{quote(user, safe='').replace('.', '%2E')}"
