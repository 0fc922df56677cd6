"""The settings of a run: one section a step, one YAML file a profile, unknown keys refused by
name. A profile may build on another, which its key `base` names.
"""

from __future__ import annotations

import difflib
import os
import reprlib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, model_validator

from tasteloop.behaviour.partitions import DataSettings
from tasteloop.behaviour.snapshots import PrepareSettings
from tasteloop.datasets.ingest import IngestSettings
from tasteloop.encoder.settings import TrainingSettings
from tasteloop.errors import TasteloopError
from tasteloop.evaluation.settings import EvaluationSettings
from tasteloop.files import read_yaml
from tasteloop.recommender.fitting import RecommenderSettings
from tasteloop.yaml12 import parse_yaml
from validation.data.expectations import ValidationSettings
from validation.gate.gates import GateSettings
from validation.monitor.decision import DecisionSettings
from validation.monitor.reference import WatchSettings
from validation.monitor.rollback import RollbackSettings

CONFIGS = Path(__file__).parent / "configs"
_SHORT = reprlib.Repr()  # a message quotes what came, but not a whole file of it
_SHORT.maxstring = _SHORT.maxother = 100
_MOST = 10  # faults of one file that one message names
_BASE = "base"  # the key of a profile's file that names the profile it builds on


Cpu = Annotated[
    str,
    Field(
        coerce_numbers_to_str=True,
        pattern=r"^[0-9]+(\.[0-9]+|m)?$",
        description="cores, or thousandths of one: 2, 0.5, 500m",
    ),
]
Memory = Annotated[
    str,
    Field(
        coerce_numbers_to_str=True,
        pattern=r"^[0-9]+[KMGT]i$",
        description="bytes in binary units: 512Mi, 16Gi",
    ),
]
Name = Annotated[
    str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", description="a Kubernetes name")
]


class Toleration(BaseModel, frozen=True, extra="forbid"):
    """A taint that a step's pod puts up with."""

    key: str
    operator: Literal["Equal", "Exists"] = "Exists"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class StepSettings(BaseModel, frozen=True, extra="forbid"):
    """What a step's pod asks of the cluster, and how long and how often it may try."""

    cpu: Cpu = "500m"
    cpu_limit: Cpu | None = Field(
        default=None, description="none: the node's idle cores may be used"
    )
    memory: Memory = "2Gi"
    memory_limit: Memory | None = Field(
        default=None, description="none: what is asked for, so that no node overcommits"
    )
    node_selector: dict[str, str] = {}
    tolerations: tuple[Toleration, ...] = ()
    retries: int = Field(default=2, ge=0, description="tries after the first")
    backoff: int = Field(
        default=30,
        ge=0,
        description="seconds before the first retry; each later one waits twice as long",
    )
    timeout: int = Field(default=1800, ge=1, description="seconds of one try")


class HeavyStepSettings(StepSettings, frozen=True):
    """A step that goes through the whole data set."""

    cpu: Cpu = "4"
    memory: Memory = "8Gi"
    timeout: int = Field(default=4 * 3600, ge=1, description="seconds of one try")


class TrainingStepSettings(HeavyStepSettings, frozen=True):
    """A step that trains, on a GPU where one is asked for."""

    gpu: int = Field(default=0, ge=0)
    accelerator: str = Field(
        default="nvidia.com/gpu",
        description="the resource's name; a model of it is a node_selector",
    )
    timeout: int = Field(
        default=24 * 3600,
        ge=1,
        description="seconds of one try; the next carries on from its checkpoint",
    )


class FinetuneSettings(TrainingStepSettings, frozen=True):
    """The fine-tuning; on several GPUs or on several nodes it is a TrainJob's."""

    gpu: int = Field(default=1, ge=0, description="of a node; each has a process")
    nodes: int = Field(default=1, ge=1, description="each with all that is asked for here")
    runtime: Name = Field(
        default="torch-distributed", description="Kubeflow Trainer's, of a TrainJob"
    )
    runtime_kind: Literal["ClusterTrainingRuntime", "TrainingRuntime"] = "ClusterTrainingRuntime"
    memory: Memory = "16Gi"
    tolerations: tuple[Toleration, ...] = (Toleration(key="nvidia.com/gpu", effect="NoSchedule"),)

    @property
    def together(self) -> bool:
        """Whether several processes train: a TrainJob, not the step itself."""
        return self.gpu > 1 or self.nodes > 1


class MonitorSettings(TrainingStepSettings, frozen=True):
    """The monitor's step. It trains in its own pod, without a GPU unless it asks for one at every
    pass.
    """

    gpu: int = Field(default=0, ge=0, le=1)


SecretKey = Annotated[str, Field(pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$")]


def secret(reference: str) -> tuple[str, str]:
    """A Secret's name and the key in it, from `name/key`."""
    name, _, key = reference.partition("/")
    return name, key


class ClusterSettings(BaseModel, frozen=True, extra="forbid"):
    """Where the steps run on a Kubernetes cluster, in Kubernetes' units, and what they find
    there.
    """

    light: StepSettings = Field(default=StepSettings(), description="steps that look up or decide")
    heavy: HeavyStepSettings = Field(
        default=HeavyStepSettings(), description="steps that read all the data"
    )
    finetune: FinetuneSettings = FinetuneSettings()
    monitor: MonitorSettings = MonitorSettings()
    user: int = Field(default=10001, ge=1, description="the steps' user and group; never root")
    volume: Name | None = Field(
        default="tasteloop-home",
        description="the PersistentVolumeClaim of checkpoints, sources and accepted volumes; none: an empty directory",
    )
    mount: str = Field(
        default="/var/lib/tasteloop", pattern="^/", description="where the volume is in a step"
    )
    checkpoints: str | None = Field(
        default=None,
        pattern="^[a-z0-9]+://.*[^/]$",
        description="the object store of the fine-tuning's checkpoints, s3://bucket/path; none: the volume",
    )
    root: str | None = Field(
        default=None,
        pattern="^[a-z0-9]+://",
        description="the object store of artifacts, s3://bucket/path; none: the server's",
    )
    tracking: str | None = Field(
        default=None, pattern="^https?://", description="the MLflow server, MLFLOW_TRACKING_URI"
    )
    secrets: dict[str, SecretKey] = Field(
        default={},
        description="environment variable: Secret's name/key. The value itself is never a setting",
    )
    incoming: str | None = Field(
        default=None,
        pattern="^[a-z0-9]+://",
        description="the monitor's events in the object store, a directory; none: home/incoming on the volume",
    )
    journal: Name | None = Field(
        default=None,
        description="the PersistentVolumeClaim of the collector's journal, which the monitor reads",
    )
    webhook: SecretKey | None = Field(
        default=None,
        description="Secret's name/key of the address that the monitor's step tells of alerts",
    )
    service_account: Name | None = Field(
        default=None, description="none: the server's own for runs"
    )
    pull_secrets: tuple[Name, ...] = ()

    @property
    def places(self) -> dict[str, str]:
        """What tells a pod where on its volume things are, by environment variable."""
        return {"TASTELOOP_HOME": f"{self.mount}/home", "TASTELOOP_CACHE": f"{self.mount}/cache"}

    @model_validator(mode="after")
    def _meets(self) -> ClusterSettings:
        if self.finetune.together and not (self.volume or self.checkpoints):
            raise ValueError(
                "several GPUs or nodes (finetune.gpu, finetune.nodes) train in pods of their own, which need a place "
                "in common with the step: name a volume (cluster.volume) or an object store (cluster.checkpoints)"
            )
        return self


class RetrainingSettings(BaseModel, frozen=True, extra="forbid"):
    """What a retraining reads and begins with."""

    recent_days: float = Field(
        90.0,
        gt=0,
        allow_inf_nan=False,
        description="Who acted so recently comes with their whole history.",
    )
    replay: float = Field(
        0.3, ge=0, le=1, description="Share of the other users that comes too, against forgetting."
    )
    held: float = Field(
        0.3,
        ge=0,
        lt=1,
        description="Share of the champion's test users that is kept out, to measure forgetting on.",
    )
    forgetting: float = Field(
        0.1,
        ge=0,
        allow_inf_nan=False,
        description="How much worse than the champion it may be on those.",
    )
    warm_start: bool = Field(
        True, description="Begin with the champion's encoder; false: with training.encoder."
    )
    seed: int = 0


class AlertSettings(BaseModel, frozen=True, extra="forbid"):
    """Where a human is told. The address may hold a secret, so no run records this section."""

    webhook: str | None = Field(
        None, pattern="^https?://", description="Gets a CloudEvent 1.0 as JSON; null: the log."
    )
    timeout: float = Field(5.0, gt=0, le=60, description="Seconds of one try.")
    tries: int = Field(
        3, ge=1, le=10, description="Before it is left to the next pass of the monitor."
    )


class RetentionSettings(BaseModel, frozen=True, extra="forbid"):
    """How long the monitor keeps what it made and read; what the champion or the one before it
    needs always stays.
    """

    windows: int = Field(
        180, ge=1, description="Newest windows whose reports are kept; the ledger keeps all."
    )
    champions: int = Field(
        5, ge=0, description="Newest references, and data of retrainings, beside those in use."
    )
    incoming_days: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="How long before the newest window a file of `incoming` may end; null: they are yours, and stay.",
    )


# sections that a training run does not read
MONITORING = ("watch", "decision", "retraining", "rollback", "alerts", "retention")


class Settings(BaseModel, frozen=True, extra="forbid"):
    """The resolved settings of one run; `cluster` is absent where the pipeline runs on one
    machine.
    """

    profile: str
    built_on: tuple[str, ...] = Field(
        default=(),
        description="The profiles below this one, the nearest first; a profile's file names its `base`.",
    )
    ingest: IngestSettings = IngestSettings()
    validation: ValidationSettings = ValidationSettings()
    prepare: PrepareSettings = PrepareSettings()
    training: TrainingSettings = TrainingSettings()
    recommender: RecommenderSettings = RecommenderSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    gate: GateSettings = GateSettings()
    data: DataSettings = DataSettings()
    cluster: ClusterSettings | None = None
    watch: WatchSettings = WatchSettings()
    decision: DecisionSettings = DecisionSettings()
    retraining: RetrainingSettings = RetrainingSettings()
    rollback: RollbackSettings = RollbackSettings()
    alerts: AlertSettings = AlertSettings()
    retention: RetentionSettings = RetentionSettings()

    def of_training(self) -> dict[str, Any]:
        """What a training run records: the sections that it reads, as JSON has them."""
        return self.model_dump(mode="json", exclude=set(MONITORING))


def profiles() -> list[str]:
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def load_settings(profile: str, overrides: Sequence[str] = ()) -> Settings:
    """The settings of a profile (a name, or a YAML file of your own) with `section.key=value`
    overrides.

    A value is read as YAML, so `3`, `true`, `null` and `[a, b]` mean what they do there. A file
    with the key `base` holds what differs from that profile: mappings are joined key by key, and
    everything else replaces what the base has, lists too.

    >>> settings = load_settings("smoke", ["ingest.max_users=7"])
    >>> settings.profile, settings.ingest.max_users
    ('smoke', 7)

    Raises:
        TasteloopError: no such profile or base, bases in a circle, an unknown key (with the nearest
            known), a value that does not fit.
    """
    path = _path_of(profile, Path())
    settings = _validate(_read_profile(path), str(path))
    if not overrides:
        return settings
    # so that an override of one key keeps the defaults beside it
    resolved = settings.model_dump(mode="json")
    for override in overrides:
        _apply(override, resolved)
    return _validate(resolved, "--set")


def _path_of(profile: str, directory: Path) -> Path:
    """The file of a profile; the path of a file of your own is relative to `directory`."""
    is_file = profile.endswith((".yaml", ".yml"))
    path = directory / profile if is_file else CONFIGS / f"{profile}.yaml"
    if not os.path.exists(path):
        known = ", ".join(profiles())
        raise TasteloopError(
            f"no profile {_SHORT.repr(profile)}; known: {known}, or the path of a YAML file"
        )
    return path


def _read_profile(path: Path, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """What a profile's file holds, joined with what its base does.

    Args:
        above: the files of the profiles that build on this one, the one that was asked for first.
    """
    data = read_yaml(path) or {}
    if not isinstance(data, dict):
        raise TasteloopError(
            f"{path} holds {type(data).__name__}; a profile is a mapping of sections"
        )
    own = {"profile": path.stem, **data}
    base = own.pop(_BASE, None)
    if base is None:
        return own

    # 1. the base, which must be a profile by itself
    chain = (*above, path)
    if not isinstance(base, str):
        raise TasteloopError(f"{path}: base = {_SHORT.repr(base)}; it is the name of one profile")
    try:
        base_path = _path_of(base, path.parent)
    except TasteloopError as error:
        raise TasteloopError(f"{path}: base: {error}") from None
    if base_path.resolve() in [file.resolve() for file in chain]:
        names = " -> ".join(file.stem for file in (*chain, base_path))
        raise TasteloopError(f"{path}: base = {base!r} leads in a circle: {names}; name another")
    below = _read_profile(base_path, chain)
    _validate(below, str(base_path))

    # 2. what this profile says goes before what the base says
    own["built_on"] = [below.pop("profile"), *below.pop("built_on", [])]
    return _join(below, own)


def _join(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Two mappings as one: where both have a mapping these are joined too, else `own` counts."""
    joined = dict(base)
    for key, value in own.items():
        below = joined.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            value = _join(below, value)
        joined[key] = value
    return joined


def _validate(data: dict[str, Any], origin: str) -> Settings:
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        raise TasteloopError(
            "\n".join(f"{origin}: {_explain(problem)}" for problem in error.errors()[:_MOST])
        ) from None


def _explain(problem: Any) -> str:
    *parents, key = [str(part) for part in problem["loc"]] or [""]
    name = ".".join([*parents, key])
    if problem["type"] == "extra_forbidden":
        return _unknown(parents, key)
    return (
        f"{name} = {_SHORT.repr(problem['input'])}: {problem['msg'].removeprefix('Value error, ')}"
    )


def _unknown(parents: Sequence[str], key: str) -> str:
    model = _model_at(parents)
    known = [*model.model_fields] if model else []
    known += [] if parents else [_BASE]
    close = difflib.get_close_matches(key, known, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}"
    return f"unknown setting {_SHORT.repr('.'.join([*parents, key]))}; {hint}"


def _apply(override: str, data: dict[str, Any]) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path.strip():
        raise TasteloopError(f"--set {override!r} is not of the form section.key=value")
    try:
        value = parse_yaml(text)
    except ValueError as error:
        raise TasteloopError(
            f"--set {path}: {_SHORT.repr(text)} is not a YAML value: {error}"
        ) from None
    parents: list[str] = []
    keys = path.strip().split(".")
    if keys == [_BASE]:
        raise TasteloopError(
            "--set base: a profile's file alone names its base; choose another with --profile"
        )
    while len(keys) > 1:
        model = _model_at(parents)
        if model is None:  # below the models a key may hold dots: a metric's name
            break
        if keys[0] not in model.model_fields:
            raise TasteloopError(f"--set: {_unknown(parents, keys[0])}")
        if not isinstance(data.get(keys[0]), dict):
            data[keys[0]] = {}
        data = data[keys[0]]
        parents.append(keys.pop(0))
    data[".".join(keys)] = value


def _model_at(path: Sequence[str]) -> type[BaseModel] | None:
    """The settings class at a path of keys, or None where plain values begin."""
    model: type[BaseModel] = Settings
    for key in path:
        field = model.model_fields.get(key)
        inner = None if field is None else _model_in(field.annotation)
        if inner is None:
            return None
        model = inner
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The settings class that a field holds, of a union the first; None where it holds none."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        models = map(_model_in, typing.get_args(annotation))
        return next(filter(None, models), None)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return None
