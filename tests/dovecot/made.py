# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a script, and print which files were made meanwhile below some directories. Runs in the container."""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
import sys

# IN_CREATE and IN_MOVED_TO; directories that are made meanwhile are not looked into.
MADE = 0x100 | 0x80


def main(script: str, *folders: str) -> int:
    """The script's exit code."""
    libc = ctypes.CDLL(None)
    watch = libc.inotify_init1(os.O_NONBLOCK)
    places = {
        libc.inotify_add_watch(watch, top.encode(), MADE): top for folder in folders for top, _, _ in os.walk(folder)
    }
    code = subprocess.run(["sh", "-c", script], stdout=sys.stderr, check=False).returncode
    try:
        events = os.read(watch, 1 << 20)
    except BlockingIOError:
        events = b""
    while events:
        place, _, _, length = struct.unpack_from("iIII", events)
        print(os.path.join(places[place], events[16 : 16 + length].rstrip(b"\0").decode()))
        events = events[16 + length :]
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
