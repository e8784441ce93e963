# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write an initramfs archive ("newc") without root and without any tool."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from pathlib import PurePosixPath


@dataclass
class Archive:
    """Files by absolute path; folders above them are made as needed, all owned by root."""

    entries: dict[str, tuple[int, bytes]] = field(default_factory=dict)

    def folder(self, path: str, mode: int = 0o755) -> None:
        self._parents(path)
        self.entries[path.strip("/")] = (stat.S_IFDIR | mode, b"")

    def file(self, path: str, content: bytes | str, mode: int = 0o644) -> None:
        self._parents(path)
        data = content.encode() if isinstance(content, str) else content
        self.entries[path.strip("/")] = (stat.S_IFREG | mode, data)

    def _parents(self, path: str) -> None:
        for parent in reversed(PurePosixPath(path.strip("/")).parents):
            if str(parent) != ".":
                self.entries.setdefault(str(parent), (stat.S_IFDIR | 0o755, b""))

    def pack(self) -> bytes:
        """The archive; others can be appended to it, the kernel unpacks them in turn."""
        out = bytearray()
        entries = [*self.entries.items(), ("TRAILER!!!", (0, b""))]
        for number, (name, (mode, data)) in enumerate(entries, start=1):
            links = 2 if stat.S_ISDIR(mode) else 1
            encoded = name.encode() + b"\0"
            fields = (number, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
            out += b"070701" + b"".join(b"%08X" % value for value in fields) + encoded
            out += b"\0" * (-len(out) % 4)
            out += data
            out += b"\0" * (-len(out) % 4)
        return bytes(out)
