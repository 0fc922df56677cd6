"""YAML as `tasteloop.yaml12` reads it: words stay words, and nothing in a file can make it long,
deep or large.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasteloop.errors import TasteloopError
from tasteloop.files import read_yaml
from tasteloop.yaml12 import LONGEST, parse_yaml

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[on, off, yes, no, y, n]", ["on", "off", "yes", "no", "y", "n"]),
        ("[true, True, false, FALSE]", [True, True, False, False]),
        ("[null, Null, ~, '']", [None, None, None, ""]),
        ("[12, -3, 0123, 0o17, 0x1f]", [12, -3, 123, 15, 31]),
        (
            "[12:30, 1_000, 2026-03-02, 2026-03-02 09:14:03]",
            ["12:30", "1_000", "2026-03-02", "2026-03-02 09:14:03"],
        ),
        ("[1.5, 1e3, .5, 5., -.inf]", [1.5, 1000.0, 0.5, 5.0, float("-inf")]),
        ("['0123', \"true\", !!str 5]", ["0123", "true", "5"]),
        (
            "base: &b {a: 1, b: 2}\nmine: {<<: *b, b: 3}",
            {"base": {"a": 1, "b": 2}, "mine": {"a": 1, "b": 3}},
        ),
        ("{on: view, =: x}", {"on": "view", "=": "x"}),
        ("", None),
    ],
)
def test_scalars_are_those_of_the_core_schema(text, value):
    assert parse_yaml(text) == value


def test_words_and_keys_come_as_they_were_written():
    text = "{on: view, 0123: no, 12:30: 1e3, 2026-03-02: true, null: ~, ~: 007}"

    assert parse_yaml(text, words=True) == {
        "on": "view",
        "0123": "no",
        "12:30": "1e3",
        "2026-03-02": "true",
        "null": None,
        "~": "007",
    }


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, f"longer than {LONGEST} characters with its aliases written out"),
        ("x: &x " + "y" * 10_000 + "\nz: [" + "*x, " * 10 + "]", "with its aliases written out"),
        ("a: &a {<<: *a}", "the alias [*]a is part of what it stands for"),
        ("&a [*a]", "the alias [*]a is part of what it stands for"),
        ("[" * 20_000, "nested deeper than 64 levels"),
        ("{a: " * 10_000, "nested deeper than 64 levels"),
        ("- " * 20_000, "nested deeper than 64 levels"),
        ("x" * (LONGEST + 1), f"{LONGEST + 1} characters"),
        ("k: " + "9" * 4_301, "an integer of 4301 digits, beyond 64 bits, line 1, column 4"),
        ("k: 0x" + "f" * 5_000, "beyond 64 bits"),
        ("k: 9223372036854775808", "beyond 64 bits"),
        ("a: 1\nb: 2\na: 3", "the key 'a' for the second time in one mapping, line 3"),
        ("{on: 1, 'on': 2}", "the key 'on' for the second time"),
        ("{[a]: b}", "a key is a word"),
        ("!!int ten", "'ten' is no int"),
        ("!!bool maybe", "'maybe' is no bool"),
        ("!!timestamp soon", "tag"),
        ("!!binary x", "tag"),
        ("!!python/object/apply:os.getcwd []", "tag"),
        ("a\n---\nb", "another document"),
        ("a: [", "line 1"),
        ("\0", "unacceptable character"),
    ],
)
@pytest.mark.parametrize("words", [False, True])
def test_what_is_not_read_is_named(text, said, words):
    if words and "bits" in said:
        text = f"!!int {text.partition(': ')[2]}"
        said = said.partition(", line")[0]

    with pytest.raises(ValueError, match=said):
        parse_yaml(text, words)


@pytest.mark.fuzz
@given(st.text(alphabet=st.sampled_from("ab01.:-,&*!{}[]<>|'\"\n #?~%x_"), max_size=200))
def test_any_text_is_read_or_refused(text):
    for words in (False, True):
        try:
            parse_yaml(text, words)
        except ValueError as error:
            assert str(error)


def test_a_file_is_named_with_its_fault(tmp_path):
    (tmp_path / "latin.yaml").write_bytes("a: ü".encode("latin-1"))
    (tmp_path / "bomb.yaml").write_text(BOMB)

    for name, said in (
        ("none.yaml", "no file .*none.yaml"),
        (".", "cannot be read: Is a directory"),
        ("latin.yaml", "latin.yaml is not readable YAML: 'utf-8' codec"),
        ("bomb.yaml", "bomb.yaml is not readable YAML: longer than"),
    ):
        with pytest.raises(TasteloopError, match=said):
            read_yaml(tmp_path / name)
