# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""One line that is rewritten on a terminal; sparse lines in a log file."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from .config import LabError

T = TypeVar("T")
K = TypeVar("K")

INTERRUPT_SECONDS = 5.0
QUIET_SECONDS = 20.0  # between two lines of the same text, where output is not a terminal


class Progress:
    def __init__(self, title: str) -> None:
        self.title = title
        self.started = time.monotonic()
        self._terminal = sys.stdout.isatty()
        self._last = ""
        self._printed = 0.0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def show(self, text: str) -> None:
        now = time.monotonic()
        if self._terminal:
            sys.stdout.write(f"\r\033[K[lab] {self.title}: {text} ({self.seconds:.0f} s)")
            sys.stdout.flush()
        elif text != self._last or now - self._printed > QUIET_SECONDS:
            print(f"[lab] {self.title}: {text} ({self.seconds:.0f} s)", flush=True)
            self._printed = now
        self._last = text

    def done(self, text: str) -> None:
        start = "\r\033[K" if self._terminal else ""
        print(f"{start}[lab] {self.title}: {text} in {self.seconds:.1f} s", flush=True)

    def fail(self) -> None:
        """Leave the last line standing before an error is printed."""
        if self._terminal:
            print(flush=True)


def say(text: str) -> None:
    print(f"[lab] {text}", flush=True)


def in_parallel(
    items: Iterable[K], work: Callable[[K], T], each: Callable[[], None] | None = None, poll: float = 0.5
) -> dict[K, T]:
    """Run `work` on every item at once; call `each` while waiting; raise the first error after all have ended."""
    items = list(items)
    if not items:
        return {}
    pool = ThreadPoolExecutor(max_workers=len(items))
    futures: dict[K, Future[T]] = {item: pool.submit(work, item) for item in items}
    pending: set[Future[T]] = set(futures.values())
    try:
        while pending:
            _, pending = wait(pending, timeout=poll)
            if each:
                each()
    except KeyboardInterrupt:
        # The tools that run got the same signal: a moment for cleaning up, but no waiting for machines to boot.
        wait(pending, timeout=INTERRUPT_SECONDS)
        raise
    pool.shutdown()
    return {item: future.result() for item, future in futures.items()}


def run_command(main: Callable[[], None]) -> None:
    """A command line's frame: errors without a traceback, and an interrupt that takes effect at once."""
    try:
        main()
    except LabError as error:
        sys.exit(f"[lab] {error}")
    except KeyboardInterrupt:
        print("\n[lab] interrupted", file=sys.stderr, flush=True)
        os._exit(130)  # threads may still be waiting for a machine
