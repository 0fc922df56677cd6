"""Flags and YAML are one door: the same names, defaults and bounds."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from serving.__main__ import _arguments
from serving.options import OPTIONS, ServingSettings, read_options, settings_of
from serving.settings import (
    HistorySettings,
    JournalSettings,
    Limits,
    QueueSettings,
    ServerSettings,
)
from tasteloop.errors import TasteloopError

IN_HELP_ONLY = {"settings"}


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "serving.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_every_flag_is_a_field_with_the_same_default_and_every_field_a_flag() -> None:
    flags: argparse.Namespace = _arguments([])
    fields = {name: field.default for name, field in ServingSettings.model_fields.items()}

    assert {k: v for k, v in vars(flags).items() if k not in IN_HELP_ONLY} == fields


def test_every_field_of_a_servers_settings_has_one_option() -> None:
    named = [(option.model, option.field) for group in OPTIONS.values() for option in group]
    declared = [
        (model, field)
        for model in (ServerSettings, QueueSettings, Limits, JournalSettings, HistorySettings)
        for field in model.model_fields
        if (model, field) not in ((JournalSettings, "directory"), (JournalSettings, "seconds"))
    ]

    assert sorted(named, key=str) == sorted(declared, key=str)


def test_yaml_sets_what_flags_leave_open(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "serving:\n  port: 0\n  max_wait: 0.5\n  journal_text: true\n  ready_file: ready.json\n",
    )

    arguments = _arguments(["--settings", str(path), "--port", "9"])

    assert (arguments.port, arguments.max_wait, arguments.journal_text) == (9, 0.5, True)
    assert arguments.ready_file == Path("ready.json")
    assert settings_of(QueueSettings, vars(arguments)).wait == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("serving:\n  max_instance: 1\n", "unknown option 'max_instance'; known: .*max_instances"),
        ("serving:\n  port: 70000\n", "port: .*65535, not 70000"),
        ("serving: 3\n", "has no section `serving:`"),
        ("{}\n", "has no section `serving:`"),
    ],
)
def test_yaml_that_is_not_understood_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(TasteloopError, match=message):
        read_options(written(tmp_path, text))
