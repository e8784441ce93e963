# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judging ten times the hosts takes about ten times the time, whatever machine this is."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

TOOL = Path(__file__).resolve().parents[3] / "tools" / "benchmark.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    """tools/benchmark.py as a module."""
    spec = importlib.util.spec_from_file_location("benchmark", TOOL)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["plans", "live settings", "one inventory"])
def test_time_grows_with_the_number_of_hosts(benchmark: ModuleType, name: str) -> None:
    work = benchmark.WORK[name]
    work(10)
    few, many = benchmark.cpu(work, 200), benchmark.cpu(work, 2000)
    # A square would be 100; half as much again and more is the noise of a busy machine.
    assert many / few < 25, f"{many / few:.1f} times the time for 10 times the hosts"
