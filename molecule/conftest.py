# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Says which test runs now: of a test that hangs, pytest's own half line would never come through Molecule."""

from __future__ import annotations

import time

import pytest

START = time.monotonic()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> None:
    """Before each test, a whole line."""
    writer = item.config.get_terminal_writer()
    if writer.width_of_current_line:
        writer.line()
    writer.line(f"[{time.monotonic() - START:5.0f} s] {item.name}: started")
