"""Calls of the Kubernetes API, and its refusals as records."""

from __future__ import annotations

import json
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ValidationError

from tasteloop.errors import TasteloopError

_TIMEOUT = (5, 30)  # seconds, of connecting and of reading
_QUANTITY = re.compile(  # the paths of fields that hold quantities
    r"(\.(requests|limits)\.[^\[\]]+|\.sizeLimit)$"
)

KubernetesObject = dict[str, Any]
"""An object of the cluster as the API reads and writes it: its fields are Kubernetes' own."""


@dataclass(frozen=True)
class Resource:
    """A kind of objects in the API.

    >>> jobs = Resource("batch", "v1", "jobs")
    >>> jobs.api_version, jobs.full_name, jobs.path("default")
    ('batch/v1', 'jobs.batch', '/apis/batch/v1/namespaces/default/jobs')
    >>> Resource("", "v1", "services").path("default")
    '/api/v1/namespaces/default/services'

    Attributes:
        group: empty for Kubernetes' first kinds.
    """

    group: str
    version: str
    plural: str

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def full_name(self) -> str:
        """The name of its definition (CRD)."""
        return f"{self.plural}.{self.group}"

    def path(self, namespace: str) -> str:
        """The path of all its objects in a namespace."""
        root = "apis" if self.group else "api"
        return f"/{root}/{self.api_version}/namespaces/{namespace}/{self.plural}"


class Condition(BaseModel, frozen=True):
    """One of the conditions that a controller writes into the status of an object."""

    type: str = ""
    status: str | None = "Unknown"
    reason: str | None = None
    message: str | None = None


def read_conditions(kubernetes_object: Mapping[str, Any]) -> tuple[Condition, ...]:
    """The conditions of an object; none where its controller has not written any."""
    status = kubernetes_object.get("status") or {}
    return tuple(Condition.model_validate(entry) for entry in status.get("conditions") or [])


class ConnectionLost(TasteloopError):
    """No answer, or none that says anything: the server may have done what was requested."""


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
        status: the HTTP status.
        message: the server's own, else the reason phrase of HTTP.
        name, kind: of the object that it is about; None where the response does not name one.
        causes: the fields that it is about.
    """

    def __init__(self, status: int, reason: str, response: ApiStatus) -> None:
        details = response.details or Details()
        self.status = status
        self.message = response.message or reason
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
    configuration.retries = False  # a write may have arrived although no answer came
    return client.ApiClient(configuration)


def call(
    client: Any,
    method: str,
    path: str,
    query: list[tuple[str, str]] | None = None,
    body: Any = None,
) -> KubernetesObject:
    """Make one call; returns the object that the server answers with.

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
        response: KubernetesObject = client.call_api(
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


class ResourceClient(ABC):
    """Calls about the objects of one kind in a namespace. A refusal is raised as a TasteloopError
    that says what to do about it.

    Args:
        api: a `kubernetes.client.ApiClient`; `connect()` makes one.
    """

    def __init__(self, api: Any, resource: Resource, namespace: str) -> None:
        self._api = api
        self._namespace = namespace
        self._path = resource.path(namespace)

    def _call(
        self,
        method: str,
        path: str,
        verb: str,
        query: list[tuple[str, str]] | None = None,
        body: Any = None,
    ) -> KubernetesObject:
        """As `call`; `verb` is how Kubernetes calls the method, for the error's text."""
        try:
            return call(self._api, method, path, query, body)
        except Refusal as refusal:
            raise self._explain(refusal, verb) from None

    @abstractmethod
    def _explain(self, refusal: Refusal, verb: str) -> TasteloopError:
        """The error for a refusal, with what to do about it."""


def parse_quantity(value: Any) -> Decimal | None:
    """A quantity of Kubernetes as a number; None where the value is none.

    >>> parse_quantity("1000m") == parse_quantity(1), parse_quantity("2Gi"), parse_quantity("lots")
    (True, Decimal('2147483648'), None)
    """
    from kubernetes.utils import quantity

    is_text = isinstance(value, str) and value == value.strip()  # Python takes blanks around it
    if isinstance(value, bool) or not (is_text or isinstance(value, int | float)):
        return None
    try:
        number: Decimal = quantity.parse_quantity(str(value))
    except ValueError:
        return None
    return number if number.is_finite() else None


def first_dropped_field(requested: Any, stored: Any, path: str) -> str | None:
    """The first field of a request that the server did not store; None where it stored all.
    A quantity is the same however it is written: a webhook that goes through Go's types turns
    1000m into 1.

    >>> first_dropped_field({"a": 1, "b": [{"c": 2}]}, {"a": 1, "b": [{}], "d": 3}, "spec")
    'spec.b[0].c'
    >>> first_dropped_field({"resources": {"limits": {"cpu": "1000m"}}},
    ...                     {"resources": {"limits": {"cpu": "1"}}}, "spec")
    """
    if isinstance(requested, Mapping):
        if not isinstance(stored, Mapping):
            return path
        pairs = [(value, stored.get(key), f"{path}.{key}") for key, value in requested.items()]
    elif isinstance(requested, list):
        if not isinstance(stored, list) or len(requested) > len(stored):
            return path
        pairs = [(value, stored[n], f"{path}[{n}]") for n, value in enumerate(requested)]
    else:
        is_stored = stored == requested or _are_equal_quantities(requested, stored, path)
        return None if is_stored else path
    for value, stored_value, field in pairs:
        dropped = first_dropped_field(value, stored_value, field)
        if dropped:
            return dropped
    return None


def _are_equal_quantities(requested: Any, stored: Any, path: str) -> bool:
    """Whether a field that holds a quantity holds the same one."""
    if not _QUANTITY.search(path):
        return False
    quantity = parse_quantity(requested)
    return quantity is not None and quantity == parse_quantity(stored)
