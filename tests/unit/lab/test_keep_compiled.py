# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a lab machine's Python keeps of what it has compiled."""

from __future__ import annotations

import builtins
import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[3] / "molecule" / "shared" / "lab" / "keep_compiled.py"
SOURCE = "answer = 6 * 7\n" + "# as long as a module\n" * 60


@pytest.fixture
def keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as another user than root loads it: nobody's built-ins are changed."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    spec = importlib.util.spec_from_file_location("keep_compiled", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert builtins.compile is module.compile_source
    monkeypatch.setattr(module, "CACHE", str(tmp_path / "kept"))
    return module


def refuse(*arguments: object, **more: object) -> None:
    raise AssertionError("compiled again")


@pytest.mark.parametrize("source", [SOURCE, SOURCE.encode()])
def test_the_same_source_is_compiled_once(
    keeper: ModuleType, monkeypatch: pytest.MonkeyPatch, source: str | bytes
) -> None:
    first = keeper.compile(source, "master:one.py", "exec", 0, True)
    monkeypatch.setattr(keeper, "compile_source", refuse)
    again = keeper.compile(source, "master:one.py", "exec", 0, 1)
    found: dict[str, object] = {}
    exec(again, found)
    assert first == again and found["answer"] == 42 and again.co_filename == "master:one.py"
    with pytest.raises(AssertionError, match="compiled again"):
        keeper.compile(source, "master:two.py", "exec", 0, True)


@pytest.mark.parametrize(
    ("source", "mode", "flags", "alone"),
    [("1 + 1", "eval", 0, True), ("x = 1", "exec", 0, True), (SOURCE, "exec", 0, False), (SOURCE, "exec", 0x400, True)],
)
def test_what_is_short_or_asks_for_more_is_left_to_python(
    keeper: ModuleType, source: str, mode: str, flags: int, alone: bool
) -> None:
    assert keeper.compile(source, "x.py", mode, flags, alone)
    assert not Path(keeper.CACHE).exists()


def test_what_was_kept_in_part_is_compiled_again(keeper: ModuleType) -> None:
    code = keeper.compile(SOURCE, "x.py", "exec", 0, True)
    (kept,) = Path(keeper.CACHE).iterdir()
    kept.write_bytes(kept.read_bytes()[:20])
    assert keeper.compile(SOURCE, "x.py", "exec", 0, True) == code
    assert kept.stat().st_size > 20


def test_a_folder_that_cannot_be_made_is_no_reason_to_fail(keeper: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("a file", encoding="utf-8")
    assert keeper.compile(SOURCE, "x.py", "exec", 0, True)


def test_an_error_in_the_source_is_python_s_own(keeper: ModuleType) -> None:
    with pytest.raises(SyntaxError):
        keeper.compile("x = = 1\n" + SOURCE, "x.py", "exec", 0, True)
