# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""On a lab machine: what Python compiles from source that comes through a connection is kept, as from files on disk.

Each run of Ansible sends the same modules to each machine, and an emulated processor compiles them for seconds. Laid down
by settings.py, for every Python of the machine; root's alone.
"""

from __future__ import annotations

import builtins
import os
import sys

# Every Python that starts loads this file: what else it needs is loaded when it is needed, and types are for mypy.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CACHE = "/var/cache/nfsmail-lab/python"
# Less is compiled sooner than it is found.
SHORTEST = 1000

compile_source = builtins.compile


def compile(
    source: Any, filename: Any, mode: str, flags: int = 0, dont_inherit: bool = False, optimize: int = -1, **more: Any
) -> Any:
    """As the built-in; whoever lets the caller's future statements count gets the built-in itself."""
    text = source.encode() if isinstance(source, str) else source
    if mode != "exec" or flags or not dont_inherit or more or not isinstance(text, bytes) or len(text) < SHORTEST:
        return compile_source(source, filename, mode, flags, dont_inherit, optimize, **more)
    import hashlib
    import marshal

    key = hashlib.sha256(f"{sys.version} {optimize} {os.fspath(filename)}\n".encode() + text).hexdigest()
    path = f"{CACHE}/{key}"
    try:
        with open(path, "rb") as kept:
            return marshal.load(kept)
    except (OSError, EOFError, ValueError):
        code = compile_source(source, filename, mode, flags, dont_inherit, optimize)
    keep(path, marshal.dumps(code))
    return code


def keep(path: str, data: bytes) -> None:
    """Whole or not at all; a full disk is no reason to fail."""
    part = f"{path}.{os.getpid()}"
    try:
        os.makedirs(CACHE, mode=0o700, exist_ok=True)
        with open(part, "wb") as out:
            out.write(data)
        os.replace(part, path)
    except OSError:
        pass


if os.geteuid() == 0:
    builtins.compile = compile
