"""What `python -m serving` takes: as flags, or under the same names from a YAML file.

Most options are fields of `serving.settings`, which declare default, bounds and description once;
here each gets its name. What only says how the process starts is declared in `StartSettings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field, ValidationError, create_model
from pydantic.fields import FieldInfo

from serving.settings import HistorySettings, JournalSettings, Limits, QueueSettings, ServerSettings
from tasteloop.errors import TasteloopError
from tasteloop.files import read_yaml

CHAMPION = "champion"
SECTION = "serving"  # of the YAML file

Settings = TypeVar("Settings", bound=BaseModel)


@dataclass(frozen=True)
class Option:
    """The name under which one field of `serving.settings` is given.

    >>> Option("max_body", ServerSettings, "body").flag
    '--max-body'
    """

    name: str
    model: type[BaseModel]
    field: str

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def info(self) -> FieldInfo:
        return self.model.model_fields[self.field]


OPTIONS: Mapping[str, tuple[Option, ...]] = {
    "where": (
        Option("host", ServerSettings, "host"),
        Option("port", ServerSettings, "port"),
        Option("grpc_port", ServerSettings, "grpc_port"),
    ),
    "how much": (
        Option("queue", QueueSettings, "instances"),
        Option("max_wait", QueueSettings, "wait"),
        Option("batch", QueueSettings, "batch"),
        Option("max_requests", ServerSettings, "requests"),
        Option("max_body", ServerSettings, "body"),
        Option("max_bodies", ServerSettings, "bodies"),
        Option("max_answers", ServerSettings, "answers"),
        Option("max_connections", ServerSettings, "connections"),
        Option("max_connections_per_address", ServerSettings, "connections_of_one"),
        Option("max_instances", Limits, "instances"),
        Option("max_rows", Limits, "rows"),
        Option("max_characters", Limits, "characters"),
        Option("max_events", Limits, "events"),
    ),
    "how long": (
        Option("timeout", ServerSettings, "timeout"),
        Option("linger", ServerSettings, "linger"),
        Option("grace", ServerSettings, "grace"),
    ),
    "the journal": (
        Option("journal_rows", JournalSettings, "bound"),
        Option("journal_days", JournalSettings, "days"),
        Option("journal_text", JournalSettings, "text"),
    ),
    "histories": (
        Option("history_events", HistorySettings, "events"),
        Option("history_days", HistorySettings, "days"),
        Option("history_items", HistorySettings, "items"),
        Option("history_waiting", HistorySettings, "waiting"),
        Option("history_megabytes", HistorySettings, "megabytes"),
        Option("history_seconds", HistorySettings, "seconds"),
        Option("repeat_days", HistorySettings, "repeat_days"),
    ),
    "files": (Option("ready_file", ServerSettings, "ready_file"),),
}
"""The options that are settings of the server, by the heading under which `--help` has them."""


class StartSettings(BaseModel, frozen=True, extra="forbid", coerce_numbers_to_str=True):
    """What is served, and how the process starts."""

    bundle: str = Field(CHAMPION, description="a bundle's directory, or champion")
    version: str | None = Field(None, description="the registry's version, or what answers call it")
    threads: int | None = Field(None, description="threads of a computation")
    journal: str | None = Field(None, description="where answers are written, or off")
    histories: str = Field("off", description="where users' histories are kept, or off")
    history_incoming: str | None = Field(
        None, description="where what comes for histories is written for the monitor, or off"
    )
    traces: str | None = Field(None, description="the collector that OpenTelemetry spans go to")
    exit_with_parent: bool = Field(False, description="stop when standard input closes")
    without_token: bool = Field(False, description="listen beyond this machine without a token")
    log_level: Literal["debug", "info", "warning", "error"] = "warning"
    log_format: Literal["text", "json"] = "text"


_FIELDS: dict[str, Any] = {
    option.name: (option.info.annotation, option.info)
    for options in OPTIONS.values()
    for option in options
}
ServingSettings: type[StartSettings] = create_model(
    "ServingSettings",
    __base__=StartSettings,
    __doc__="Everything that can be set of a server, under the names of its flags.",
    **_FIELDS,
)


def read_options(path: Path) -> dict[str, Any]:
    """The options that the section `serving` of a YAML file sets.

    Raises:
        TasteloopError: no such file or section, an unknown option, or a value that is not allowed.
    """
    document = read_yaml(path)
    if not isinstance(document, Mapping) or not isinstance(document.get(SECTION), Mapping):
        raise TasteloopError(f"{path} has no section `{SECTION}:` with the options of a server")
    try:
        settings = ServingSettings.model_validate(dict(document[SECTION]))
    except ValidationError as error:
        problem = error.errors()[0]
        name = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            known = ", ".join(ServingSettings.model_fields)
            raise TasteloopError(f"{path}: unknown option {name!r}; known: {known}") from None
        raise TasteloopError(
            f"{path}: {name}: {problem['msg']}, not {problem['input']!r}"
        ) from None
    return {name: getattr(settings, name) for name in settings.model_fields_set}


def settings_of(model: type[Settings], options: Mapping[str, Any], **more: Any) -> Settings:
    """The fields of one model of `serving.settings`, from options by their names.

    Raises:
        TasteloopError: a value that is not allowed, by its description.
    """
    values = {
        option.field: options[option.name]
        for group in OPTIONS.values()
        for option in group
        if option.model is model
    }
    try:
        return model(**values, **more)
    except ValidationError as error:
        problem = error.errors()[0]
        described = model.model_fields[str(problem["loc"][0])].description
        raise TasteloopError(f"{described}: {problem['msg']}, not {problem['input']!r}") from None
