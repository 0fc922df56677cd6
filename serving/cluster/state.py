"""What the service is meant to be: which release is in which slot, and with which share.

A slot is a name of KServe's predictor, and so of a Deployment: `a` or `b`, whatever version is in
it. A new version is rolled through the stable slot; only a canary takes the other one, since KServe
deletes a Deployment as soon as no predictor bears its name. The state is kept in a ConfigMap:
what stood in annotations of the InferenceService would be copied into every pod template, and
restart all pods at each change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tasteloop.errors import TasteloopError

SLOTS = ("a", "b")
_KEY = "state.json"  # in the ConfigMap


@dataclass(frozen=True)
class Release:
    """A registered version and the serving image.

    Attributes:
        uri: where KServe finds the bundle (s3://, gs://, pvc://, https://).
        digest: of the bundle.
    """

    version: str
    uri: str
    digest: str
    image: str

    @property
    def name(self) -> str:
        return f"v{self.version}"


@dataclass(frozen=True)
class Releases:
    """The releases of the service, for those who ask.

    Attributes:
        stable: it gets the requests that `tried` does not get.
        tried: the canary, which gets `percent` of the requests; None where none is tried.
        before: the stable release before this one, to which a rollback returns.
    """

    stable: Release
    tried: Release | None = None
    percent: int = 0
    before: Release | None = None


@dataclass(frozen=True)
class Slot:
    """A release with its pods as they were asked for, so that nothing but a deployment of this slot
    changes them.

    Attributes:
        name: of KServe's predictor.
        pod: the predictor without its name, replicas and scaling.
    """

    name: str
    release: Release
    pod: dict[str, Any]

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> Slot:
        return cls(fields["name"], Release(**fields["release"]), dict(fields["pod"]))


@dataclass(frozen=True)
class State:
    """The service as it is meant to be.

    Attributes:
        settings: of the service, without its name and namespace.
        stable: the slot that gets the requests that `tried` does not get.
        tried: the slot of the canary.
        percent: of the requests, for `tried`.
        pods: of `tried`; KServe does not scale a canary.
        strength: the pods that `stable` keeps at least while another is tried.
        front: the name of the slot to which our own Service leads.
        before: what the stable slot held before.
        command: the one that made this state; a rollback that was cut off is carried on with, and
            goes no further back.
        annotations: of the InferenceService, left by an earlier release of tasteloop. They are in
            the pod templates, so they stay until those change anyway.
    """

    settings: dict[str, Any]
    stable: Slot
    tried: Slot | None = None
    percent: int = 0
    pods: int = 0
    strength: int = 0
    front: str = ""
    before: Slot | None = None
    command: str = ""
    annotations: dict[str, str] = field(default_factory=dict)

    @property
    def front_slot(self) -> Slot:
        """The slot to which our own Service leads."""
        return self.tried if self.tried and self.front == self.tried.name else self.stable

    @property
    def releases(self) -> Releases:
        return Releases(
            self.stable.release,
            self.tried.release if self.tried else None,
            self.percent,
            self.before.release if self.before else None,
        )

    def free_slot(self) -> str:
        """The name that a canary takes."""
        return next(name for name in SLOTS if name != self.stable.name)

    def end_trial(self) -> State:
        """The stable slot alone, as before the trial."""
        return replace(self, tried=None, percent=0, pods=0, strength=0, front="")

    @classmethod
    def read(cls, config_map: Mapping[str, Any]) -> State:
        """From the ConfigMap, as `write` made its data.

        Raises:
            TasteloopError: it holds something else.
        """
        try:
            fields = json.loads(config_map["data"][_KEY])
            for name in ("stable", "tried", "before"):
                fields[name] = Slot.parse(fields[name]) if fields[name] else None
            return cls(**fields)
        except (KeyError, TypeError, ValueError) as error:
            raise TasteloopError(
                f"the ConfigMap {config_map['metadata']['name']} holds no state that this release of tasteloop can "
                f"read ({type(error).__name__}: {error}); use the release that wrote it, or put the state back"
            ) from None

    def write(self) -> dict[str, str]:
        """The data of the ConfigMap."""
        return {_KEY: json.dumps(asdict(self), separators=(",", ":"), sort_keys=True)}
