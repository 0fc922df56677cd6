"""The settings of a run: one section a step, one YAML file a profile, unknown keys refused by name."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError

from tasteloop.datasets.ingest import IngestSettings
from tasteloop.errors import TasteloopError
from tasteloop.evaluation import EvaluationSettings
from tasteloop.recommend import RecommenderSettings
from tasteloop.snapshots import PrepareSettings
from tasteloop.training import TrainingSettings
from validation.decision import DecisionSettings
from validation.expectations import ValidationSettings
from validation.gates import GateSettings
from validation.reference import WatchSettings
from validation.rollback import RollbackSettings

CONFIGS = Path(__file__).parent / "configs"


class ClusterSettings(BaseModel, frozen=True, extra="forbid"):
    """What the fine-tuning step asks of a cluster, in Kubernetes' units."""

    gpu: int = 1
    accelerator: str = "nvidia.com/gpu"
    cpu: str = "4"
    memory: str = "16Gi"


class RetrainingSettings(BaseModel, frozen=True, extra="forbid"):
    """What a retraining reads and begins with."""

    recent_days: float = Field(
        90.0, gt=0, allow_inf_nan=False, description="Who acted so recently comes with their whole history."
    )
    replay: float = Field(0.3, ge=0, le=1, description="Share of the other users that comes too, against forgetting.")
    held: float = Field(
        0.3, ge=0, lt=1, description="Share of the champion's test users that is kept out, to measure forgetting on."
    )
    forgetting: float = Field(
        0.1, ge=0, allow_inf_nan=False, description="How much worse than the champion it may be on those."
    )
    warm_start: bool = Field(True, description="Begin with the champion's encoder; false: with training.encoder.")
    seed: int = 0


class AlertSettings(BaseModel, frozen=True, extra="forbid"):
    """Where a human is told. The address may hold a secret, so no run records this section."""

    webhook: str | None = Field(None, pattern="^https?://", description="Gets a CloudEvent 1.0 as JSON; null: the log.")
    timeout: float = Field(5.0, gt=0, le=60, description="Seconds of one try.")
    tries: int = Field(3, ge=1, le=10, description="Before it is left to the next pass of the monitor.")


MONITORING = ("watch", "decision", "retraining", "rollback", "alerts")  # sections that a training run does not read


class Settings(BaseModel, frozen=True, extra="forbid"):
    """The resolved settings of one run; `cluster` is absent where the pipeline runs on one machine."""

    profile: str
    ingest: IngestSettings = IngestSettings()
    validation: ValidationSettings = ValidationSettings()
    prepare: PrepareSettings = PrepareSettings()
    training: TrainingSettings = TrainingSettings()
    recommender: RecommenderSettings = RecommenderSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    gate: GateSettings = GateSettings()
    cluster: ClusterSettings | None = None
    watch: WatchSettings = WatchSettings()
    decision: DecisionSettings = DecisionSettings()
    retraining: RetrainingSettings = RetrainingSettings()
    rollback: RollbackSettings = RollbackSettings()
    alerts: AlertSettings = AlertSettings()

    def of_training(self) -> dict[str, Any]:
        """What a training run records: the sections that it reads, as JSON has them."""
        return self.model_dump(mode="json", exclude=set(MONITORING))


def profiles() -> list[str]:
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def load(profile: str, overrides: Sequence[str] = ()) -> Settings:
    """The settings of a profile (a name, or a YAML file of your own) with `section.key=value` overrides.

    A value is read as YAML, so `3`, `true`, `null` and `[a, b]` mean what they do there.

    Raises:
        TasteloopError: no such profile, an unknown key (with the nearest known), a value that does not fit.
    """
    path = Path(profile) if profile.endswith((".yaml", ".yml")) else CONFIGS / f"{profile}.yaml"
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError:
        known = ", ".join(profiles())
        raise TasteloopError(f"no profile {profile!r}; known: {known}, or the path of a YAML file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise TasteloopError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(data, dict):
        raise TasteloopError(f"{path} holds {type(data).__name__}; a profile is a mapping of sections")
    settings = _checked({"profile": path.stem, **data}, str(path))
    if not overrides:
        return settings
    resolved = settings.model_dump(mode="json")  # so that an override of one key keeps the defaults beside it
    for override in overrides:
        _apply(override, resolved)
    return _checked(resolved, "--set")


def _checked(data: dict[str, Any], where: str) -> Settings:
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        raise TasteloopError("\n".join(f"{where}: {_explain(problem)}" for problem in error.errors())) from None


def _explain(problem: Any) -> str:
    *parents, key = [str(part) for part in problem["loc"]] or [""]
    name = ".".join([*parents, key])
    if problem["type"] == "extra_forbidden":
        return _unknown(parents, key)
    return f"{name} = {problem['input']!r}: {problem['msg'].removeprefix('Value error, ')}"


def _unknown(parents: Sequence[str], key: str) -> str:
    model = _model_at(parents)
    known = [*model.model_fields] if model else []
    close = difflib.get_close_matches(key, known, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}"
    return f"unknown setting {'.'.join([*parents, key])!r}; {hint}"


def _apply(override: str, data: dict[str, Any]) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path.strip():
        raise TasteloopError(f"--set {override!r} is not of the form section.key=value")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise TasteloopError(f"--set {path}: {text!r} is not a YAML value: {error}") from None
    parents: list[str] = []
    keys = path.strip().split(".")
    while len(keys) > 1 and (model := _model_at(parents)):  # below the models a key may hold dots: a metric's name
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
        if field is None or (inner := _model_in(field.annotation)) is None:
            return None
        model = inner
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return next((m for a in typing.get_args(annotation) if (m := _model_in(a))), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
