"""Calls of the Kubernetes API, and its refusals as records: the one way in which this room asks."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from tasteloop.errors import TasteloopError

_TIMEOUT = (5, 30)  # seconds, of connecting and of reading


class ConnectionLost(TasteloopError):
    """No answer, or none that says anything: what was asked may have been done."""


class Cause(BaseModel, frozen=True):
    reason: str | None = None
    field: str | None = None


class Details(BaseModel, frozen=True):
    """What a refusal is about."""

    name: str | None = None
    kind: str | None = None
    causes: tuple[Cause, ...] | None = None


class ApiStatus(BaseModel, frozen=True):
    """The API server's Status; empty where a response's body holds none.

    >>> ApiStatus.parse('{"message": "no", "details": {"name": "a"}}').details.name
    'a'
    >>> ApiStatus.parse("<html>").message is None
    True
    """

    message: str | None = None
    details: Details | None = None

    @classmethod
    def parse(cls, body: str | bytes | None) -> ApiStatus:
        try:
            return cls.model_validate(json.loads(body or "{}"))
        except (ValueError, ValidationError):
            return cls()


class Refusal(Exception):
    """The API server refused a call.

    Attributes:
        status: of HTTP.
        name, kind: of what it is about; None where it does not say.
    """

    def __init__(self, status: int, reason: str, said: ApiStatus) -> None:
        details = said.details or Details()
        self.status = status
        self.message = said.message or reason
        self.name, self.kind = details.name, details.kind
        self.causes = details.causes or ()
        super().__init__(self.message)


def connect(context: str | None = None) -> Any:
    """A client as kubectl's configuration (its `context`) or the pod's service account says."""
    from kubernetes import client, config

    in_a_pod = "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ
    try:
        if context is None and in_a_pod:
            config.load_incluster_config()
        else:
            # the library read the variable when it was imported; ours may have been set since
            config.load_kube_config(os.environ.get("KUBECONFIG") or None, context)
    except (config.ConfigException, OSError) as error:
        raise TasteloopError(
            f"no cluster to talk to: {error}; set KUBECONFIG, or give --context"
        ) from None
    configuration = client.Configuration.get_default_copy()
    configuration.retries = False  # a write that is repeated in the dark is not ours to repeat
    return client.ApiClient(configuration)


def call(
    client: Any,
    method: str,
    path: str,
    query: list[tuple[str, str]] | None = None,
    body: Any = None,
) -> dict[str, Any]:
    """One call; returns the object that the server answers with.

    Args:
        client: a `kubernetes.client.ApiClient`; `connect()` makes one.
        body: of a PATCH, a list is a JSON patch and a mapping is applied on the server's side.

    Raises:
        Refusal: the server refused it.
        ConnectionLost: no answer came.
    """
    from kubernetes.client import ApiException
    from urllib3.exceptions import HTTPError

    content_type = "application/json"
    if method == "PATCH" and isinstance(body, list):
        content_type = "application/json-patch+json"
    elif method == "PATCH":
        content_type = "application/apply-patch+yaml"
    try:
        response: dict[str, Any] = client.call_api(
            path,
            method,
            query_params=query or [],
            body=body,
            response_type="object",
            header_params={"Accept": "application/json", "Content-Type": content_type},
            auth_settings=["BearerToken"],
            _return_http_data_only=True,
            _request_timeout=_TIMEOUT,
        )
    except ApiException as error:
        raise Refusal(error.status, str(error.reason), ApiStatus.parse(error.body)) from None
    except (HTTPError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise ConnectionLost(
            f"the connection to {client.configuration.host} was lost or refused ({reason})"
        ) from None
    return response


def first_dropped_field(wanted: Any, kept: Any, path: str) -> str | None:
    """The first field of what was asked that the server did not keep; None where it kept all.

    >>> first_dropped_field({"a": 1, "b": [{"c": 2}]}, {"a": 1, "b": [{}], "d": 3}, "spec")
    'spec.b[0].c'
    """
    if isinstance(wanted, Mapping):
        if not isinstance(kept, Mapping):
            return path
        pairs = [(value, kept.get(key), f"{path}.{key}") for key, value in wanted.items()]
    elif isinstance(wanted, list):
        if not isinstance(kept, list) or len(wanted) > len(kept):
            return path
        pairs = [(value, kept[n], f"{path}[{n}]") for n, value in enumerate(wanted)]
    else:
        return None if kept == wanted else path
    for value, kept_value, field in pairs:
        dropped = first_dropped_field(value, kept_value, field)
        if dropped:
            return dropped
    return None
