"""A Kubernetes API in memory, for tests that shall not wait for a real one: the calls that
`serving.cluster.api.call` makes, with versions, generations, conflicts, dry runs, apply and
admission.

Validation against schemas, roles, managed fields and watches are the real server's alone:
`tests/cluster` runs the same stand-ins for controllers against that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from types import SimpleNamespace
from typing import Any

Object = dict[str, Any]
Key = tuple[str, str, str]
"""API version, plural and name."""

_PATH = re.compile(
    r"^/(?:api/(?P<core>v1)|apis/(?P<group>[^/]+/[^/]+))/namespaces/(?P<namespace>[^/]+)"
    r"/(?P<plural>[^/]+)(?:/(?P<name>[^/]+)(?:/(?P<sub>[^/]+))?)?$"
)
_APPLIED = ("metadata.labels", "metadata.annotations", "spec", "data")  # what an apply manages


class Denied(Exception):
    """An admission webhook's refusal."""


class MemoryApi:
    """In the place of a `kubernetes.client.ApiClient`.

    Attributes:
        missing: the plurals of which this cluster has no definition.
        admission: called with the API version and plural, the object before (None: created) and
            the new one, before anything is stored: they may change the new one, or raise Denied.
        after_write: called after each change that was stored.
    """

    def __init__(self, missing: tuple[str, ...] = ()) -> None:
        self.configuration = SimpleNamespace(host="memory")
        self.missing = set(missing)
        self.objects: dict[Key, Object] = {}
        self.applied: dict[tuple[Key, str], Object] = {}
        self.admission: list[Callable[[str, Object | None, Object], None]] = []
        self.after_write: list[Callable[[], None]] = []
        self.version = 0

    def call_api(
        self, path: str, method: str, query_params: Any = (), body: Any = None, **_: Any
    ) -> Object:
        match = _PATH.match(path)
        if match is None or match["plural"] in self.missing:
            raise _refusal(404, "404 page not found")
        api_version = match["core"] or match["group"]
        query = dict(query_params)
        plural, name, sub = match["plural"], match["name"], match["sub"]
        body = deepcopy(body)
        if name is None and method == "GET":
            return {"items": [*self.find(api_version, plural, query.get("labelSelector", ""))]}
        key = (api_version, plural, name or body["metadata"]["name"])
        present = self.objects.get(key)
        if method == "POST":
            if present is not None:
                raise _refusal(409, f'{plural} "{key[2]}" already exists', key)
        elif present is None:
            raise _refusal(404, f'{plural} "{key[2]}" not found', key)
        if method == "GET":
            assert present is not None
            return deepcopy(present)
        if method == "DELETE":
            del self.objects[key]
            self.applied = {k: v for k, v in self.applied.items() if k[0] != key}
            self._changed()
            return {}
        dry = query.get("dryRun") == "All"
        return self._write(key, method, sub, present, body, query.get("fieldManager", ""), dry)

    def find(self, api_version: str, plural: str, selector: str = "") -> Iterator[Object]:
        """The objects of a kind whose labels are those of the selector, `a=b,c=d`."""
        wanted = dict(part.split("=") for part in selector.split(",") if part)
        for (version, kind, _), found in [*self.objects.items()]:
            labels = found["metadata"].get("labels") or {}
            if (version, kind) == (api_version, plural) and wanted.items() <= labels.items():
                yield deepcopy(found)

    def _write(
        self,
        key: Key,
        method: str,
        sub: str | None,
        present: Object | None,
        body: Object,
        manager: str,
        dry: bool,
    ) -> Object:
        wanted = body["metadata"].get("resourceVersion")
        if present and wanted not in (None, present["metadata"]["resourceVersion"]):
            raise _refusal(409, "the object has been modified", key)
        # 1. the next object
        before = deepcopy(present)
        if method == "PATCH":
            assert present is not None
            new = deepcopy(present)
            _remove(new, self.applied.get((key, manager), {}), body)
            _merge(new, {k: v for k, v in body.items() if k != "metadata"})
            for part in ("labels", "annotations", "ownerReferences"):
                if part in body["metadata"]:
                    _merge(new["metadata"], {part: body["metadata"][part]})
        elif sub == "status":
            assert present is not None
            new = {**deepcopy(present), "status": body.get("status")}
        else:
            new = body
            if present is not None:
                new["status"] = present.get("status", {})
        # 2. admission and the server's own fields
        if sub is None:
            try:
                for admit in self.admission:
                    admit(key[1], before, new)
            except Denied as denied:
                raise _refusal(
                    400, f"admission webhook denied the request: {denied}", key
                ) from None
        old = before or {"metadata": {"generation": 0, "uid": f"uid-{self.version + 1}"}}
        generation = old["metadata"]["generation"] + (old.get("spec") != new.get("spec"))
        if present is not None and before == new:
            return deepcopy(new)  # nothing changed, so the version stays
        new["metadata"] |= {
            "namespace": "default",
            "uid": old["metadata"]["uid"],
            "generation": max(generation, 1),
            "resourceVersion": str(self.version + 1),
        }
        # 3. the store
        if not dry:
            self.version += 1
            self.objects[key] = deepcopy(new)
            if manager and sub is None:
                self.applied[key, manager] = deepcopy(body)
            self._changed()
        return deepcopy(new)

    def _changed(self) -> None:
        for call in self.after_write:
            call()


def _refusal(status: int, message: str, key: Key | None = None) -> Exception:
    from kubernetes.client import ApiException

    details = {"name": key[2], "kind": key[1]} if key else {}
    error = ApiException(status, "refused")
    error.body = json.dumps({"message": message, "details": details})
    return error


def _remove(target: Object, previous: Mapping[str, Any], body: Mapping[str, Any]) -> None:
    """Take from the target what the previous apply had and this one has not."""
    for field in _APPLIED:
        parts = field.split(".")
        old, new, inner = previous, body, target
        for part in parts:
            old, new, inner = old.get(part, {}), new.get(part, {}), inner.get(part, {})
        _remove_keys(inner, old, new)


def _remove_keys(target: Object, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    for key, value in old.items():
        if key not in new:
            target.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(target.get(key), dict):
            _remove_keys(target[key], value, new[key])


def _merge(target: Object, body: Mapping[str, Any]) -> None:
    """As an apply merges: mappings key by key, lists as a whole (a CRD's lists are atomic)."""
    for key, value in body.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = deepcopy(value)
