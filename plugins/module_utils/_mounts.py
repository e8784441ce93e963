# Copyright (c) 2026 nfsmail.cluster contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mounts as the kernel shows them, mount options as people write them, and the lines of fstab. Pure functions.

This module util is PRIVATE to the collection; it can change without notice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NFS_TYPES = ("nfs", "nfs4")

# ---- what the kernel shows ----


@dataclass
class Mount:
    """One line of /proc/self/mountinfo."""

    mount_id: int
    parent_id: int
    root: str
    path: str
    options: list[str]
    fstype: str
    source: str
    super_options: list[str]

    @property
    def is_nfs(self) -> bool:
        """Whether this is an NFS mount of any version."""
        return self.fstype in NFS_TYPES


def unescape(text: str) -> str:
    """Undo the octal escapes that the kernel and fstab use for blanks in names."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), text)


def escape(text: str) -> str:
    """Write blanks and backslashes of a name in octal, as fstab wants them."""
    return "".join(f"\\{ord(char):03o}" if char in " \t\n\\" else char for char in text)


def split_options(text: str) -> list[str]:
    """Split a comma-separated list of mount options."""
    return [option for option in text.split(",") if option]


def parse_mountinfo(text: str) -> list[Mount]:
    """Read /proc/self/mountinfo; lines that make no sense are left out."""
    mounts = []
    for line in text.splitlines():
        before, separator, after = line.partition(" - ")
        left, right = before.split(" "), after.split(" ")
        if not separator or len(left) < 6 or len(right) < 2:
            continue
        mounts.append(
            Mount(
                mount_id=int(left[0]),
                parent_id=int(left[1]),
                root=unescape(left[3]),
                path=unescape(left[4]),
                options=split_options(left[5]),
                fstype=right[0],
                source=unescape(right[1]),
                super_options=split_options(right[2]) if len(right) > 2 else [],
            )
        )
    return mounts


def top_mount(mounts: Sequence[Mount], path: str) -> Mount | None:
    """The mount that is seen at C(path): of several stacked ones the uppermost."""
    here = [mount for mount in mounts if mount.path == path]
    covered = {mount.parent_id for mount in here}
    for mount in reversed(here):
        if mount.mount_id not in covered:
            return mount
    return here[-1] if here else None


def parse_mountstats(text: str) -> dict[str, list[str]]:
    """The C(opts:) of each NFS mount in /proc/self/mountstats by its path; of stacked mounts the last one's."""
    found: dict[str, list[str]] = {}
    path = ""
    for line in text.splitlines():
        if line.startswith("device "):
            match = re.match(r"device (\S+) mounted on (\S+) with fstype (\S+)", line)
            path = unescape(match.group(2)) if match and match.group(3) in NFS_TYPES else ""
        elif path and line.strip().startswith("opts:"):
            found[path] = split_options(line.split(":", 1)[1].strip())
            path = ""
    return found


def options_in_effect(mount: Mount, stats: Sequence[str] | None = None) -> list[str]:
    """All options of a mount, none twice: the flags of this mount, then those of the file system.

    C(stats) is what mountstats shows, which names the attribute cache times also where they are the default.
    """
    flags = list(mount.options)
    rest = list(stats) if stats else list(mount.super_options)
    if stats:
        known = {option.partition("=")[0] for option in rest}
        rest += [option for option in mount.super_options if option.partition("=")[0] not in known]
    if "ro" in flags or "ro" in mount.super_options:
        flags = ["ro"] + [flag for flag in flags if flag not in ("ro", "rw")]
        rest = [option for option in rest if option != "rw"]
    merged = []
    for option in flags + rest:
        if option not in merged:
            merged.append(option)
    return merged


# ---- what is wanted against what is in effect ----

# A word stands for a value of a key; of two words of one key the later one wins, as in mount(8).
_WORDS = {
    "ro": ("ro", "ro"),
    "rw": ("ro", "rw"),
    "nosuid": ("nosuid", "nosuid"),
    "suid": ("nosuid", "suid"),
    "nodev": ("nodev", "nodev"),
    "dev": ("nodev", "dev"),
    "noexec": ("noexec", "noexec"),
    "exec": ("noexec", "exec"),
    "noatime": ("atime", "noatime"),
    "atime": ("atime", "relatime"),
    "relatime": ("atime", "relatime"),
    "strictatime": ("atime", "strictatime"),
    "nodiratime": ("nodiratime", "nodiratime"),
    "diratime": ("nodiratime", "diratime"),
    "sync": ("sync", "sync"),
    "async": ("sync", "async"),
    "hard": ("hard", "hard"),
    "soft": ("hard", "soft"),
    "softerr": ("hard", "softerr"),
    "noac": ("noac", "noac"),
    "ac": ("noac", "ac"),
    "nordirplus": ("rdirplus", "nordirplus"),
    "rdirplus": ("rdirplus", "rdirplus"),
    "nolock": ("local_lock", "all"),
    "lock": ("local_lock", "none"),
    "nocto": ("cto", "nocto"),
    "cto": ("cto", "cto"),
    "noacl": ("acl", "noacl"),
    "acl": ("acl", "acl"),
    "nosharecache": ("sharecache", "nosharecache"),
    "sharecache": ("sharecache", "sharecache"),
    "noresvport": ("resvport", "noresvport"),
    "resvport": ("resvport", "resvport"),
    "fsc": ("fsc", "fsc"),
    "nofsc": ("fsc", "nofsc"),
    "tcp": ("proto", "tcp"),
    "udp": ("proto", "udp"),
    "rdma": ("proto", "rdma"),
}
_ALIASES = {"nfsvers": "vers"}
_CACHE_TIMES = {"acregmin": "3", "acregmax": "60", "acdirmin": "30", "acdirmax": "60"}

# What counts as asked for when nothing is said. A key that is in neither table is compared only when it is asked for.
_DEFAULTS = {
    "ro": "rw",
    "nosuid": "suid",
    "nodev": "dev",
    "noexec": "exec",
    "atime": "relatime",
    "nodiratime": "diratime",
    "sync": "async",
    "hard": "hard",
    "noac": "ac",
    "rdirplus": "rdirplus",
    "cto": "cto",
    "acl": "acl",
    "sharecache": "sharecache",
    "resvport": "resvport",
    "fsc": "nofsc",
    "lookupcache": "all",
    "local_lock": "none",
    **_CACHE_TIMES,
}
# Shown only when they differ from this.
_HIDDEN = {"nconnect": "1", "port": "2049", "write": "lazy", "xprtsec": "none"}
_ASKED_ONLY = (
    *("rsize", "wsize", "timeo", "retrans", "sec", "clientaddr", "mountproto", "mountvers", "mountport"),
    *_HIDDEN,
)
# Version 4 has no use for these; the kernel takes them without a word and does not show them.
_V3_ONLY = frozenset({"local_lock", "acl", "port", "mountproto", "mountvers", "mountport"})

#: Flags of the mount, not of NFS: these alone can be changed without unmounting.
REMOUNTABLE = frozenset({"ro", "nosuid", "nodev", "noexec", "atime", "nodiratime"})
#: The first mount of a server decides about these for all; unmounting one mount need not change them.
ADVISORY = frozenset({"nconnect"})

_NEVER_SHOWN = frozenset(
    {
        "_netdev",
        "nofail",
        "fail",
        "auto",
        "noauto",
        "bg",
        "fg",
        "user",
        "nouser",
        "users",
        "owner",
        "group",
        "defaults",
    }
    | {"intr", "nointr", "sloppy"}
)


def is_for_userland(option: str) -> bool:
    """Whether an option is for mount(8), systemd or mount.nfs alone and never reaches the kernel's view."""
    name = option.partition("=")[0]
    return name in _NEVER_SHOWN or name in ("retry", "comment") or name.startswith(("x-", "X-"))


def _meaning(options: Iterable[str]) -> dict[str, str]:
    """Options as key and value, aliases and compounds resolved."""
    meaning: dict[str, str] = {}
    minor = ""
    for option in options:
        name, has_value, value = option.partition("=")
        if name in ("user", "users") and not has_value:
            meaning.update(nosuid="nosuid", nodev="nodev", noexec="noexec")
        elif name in ("owner", "group") and not has_value:
            meaning.update(nosuid="nosuid", nodev="nodev")
        elif is_for_userland(option):
            continue
        elif not has_value and name in _WORDS:
            key, word = _WORDS[name]
            meaning[key] = word
        elif not has_value and re.fullmatch(r"v[234](\.[0-9])?", name):
            meaning["vers"] = name[1:]
        elif name == "actimeo" and has_value:
            meaning.update(dict.fromkeys(_CACHE_TIMES, value))
        elif name == "minorversion":
            minor = value
        elif name == "lookupcache":
            meaning["lookupcache"] = {"pos": "positive"}.get(value, value)
        elif has_value:
            meaning[_ALIASES.get(name, name)] = value
    if minor and meaning.get("vers") == "4":
        meaning["vers"] = f"4.{minor}"
    return meaning


def keys_of(option: str) -> set[str]:
    """The keys by which C(differences) speaks of an option: C(actimeo=60) is about four."""
    return set(_meaning([option]))


def _number(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[0-9]+", text) else None


def _same(key: str, wanted: str, found: str) -> bool:
    if wanted == found:
        return True
    if key == "vers":
        return wanted == "4" and found.startswith("4.")
    if key == "sec":
        return found in wanted.split(":")
    wanted_number, found_number = _number(wanted), _number(found)
    if wanted_number is None or found_number is None:
        return False
    if key in ("rsize", "wsize"):  # the server and the kernel may settle for less
        return 0 < found_number <= wanted_number
    if key == "timeo":  # the kernel may cut what is above its default of 60 s
        return wanted_number > found_number >= 600
    return wanted_number == found_number


def differences(wanted: Sequence[str], in_effect: Sequence[str]) -> list[dict[str, str]]:
    """What is not as it was asked for: a list of C({option, wanted, found}), in a fixed order.

    Options that a kernel never shows are not compared, and what is not asked for counts as asked for at its default,
    so that a leftover C(soft) is found too.
    """
    want, have = _meaning(wanted), _meaning(in_effect)
    result = []

    def compare(key: str, wanted_value: str, found_value: str) -> None:
        if not _same(key, wanted_value, found_value):
            result.append({"option": key, "wanted": wanted_value, "found": found_value})

    for key in ("vers", "proto"):
        if key in want and key in have:
            compare(key, want[key], have[key])
    version3 = have.get("vers", "3").startswith("3")
    no_cache = "noac" in (want.get("noac"), have.get("noac"))
    for key, default in _DEFAULTS.items():
        if no_cache and (key in _CACHE_TIMES or key == "sync"):
            continue  # noac brings sync with it and makes the times moot
        if key in _V3_ONLY and not version3:
            continue
        if key == "atime" and "atime" not in have:
            found = "strictatime"
        else:
            found = have.get(key, default)
        compare(key, want.get(key, default), found)
    for key in _ASKED_ONLY:
        if key in want and (version3 or key not in _V3_ONLY) and (key in have or key in _HIDDEN):
            compare(key, want[key], have.get(key, _HIDDEN.get(key, "")))
    return result


def same_source(one: str, other: str) -> bool:
    """Whether two sources (server:/export) are written for the same thing; a slash at the end does not count."""

    def plain(source: str) -> str:
        server, colon, export = source.rpartition(":/")
        return f"{server.lower()}{colon}{re.sub(r'/+', '/', '/' + export).rstrip('/').lstrip('/')}"

    return plain(one) == plain(other)


def split_source(source: str) -> tuple[str, str]:
    """Server and path of a source like C(nfs1:/srv/mail) or C([2001:db8::1]:/srv/mail)."""
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.%\w]+\]|[^:/\s\[\]]+):(/\S*)", source)
    if not match:
        raise ValueError(f"src must be SERVER:/EXPORT, for example nfs1:/srv/mail, not {source!r}")
    return match.group(1).strip("[]"), match.group(2)


def options_to_mount(options: Sequence[str]) -> list[str]:
    """The wanted options as they are handed to mount(8) for one try in the foreground."""
    return [option for option in options if not is_for_userland(option)]


def options_to_restore(in_effect: Sequence[str]) -> list[str]:
    """Options in effect as mount(8) takes them again: without what the kernel found out for itself."""
    made_up = (
        "addr",
        "clientaddr",
        "mountaddr",
        "namlen",
        "mountport",
        "mountvers",
        "relatime",
        "nconnect",
        "softreval",
    )
    kept = [option for option in in_effect if option.partition("=")[0] not in made_up]
    if "nolock" in kept:
        kept = [option for option in kept if not option.startswith("local_lock=")]
    return kept


# ---- fstab ----


def fstab_line(source: str, path: str, fstype: str, options: Sequence[str]) -> str:
    """One line of fstab, without the newline."""
    return f"{escape(source)} {escape(path)} {fstype} {','.join(options) or 'defaults'} 0 0"


def _fstab_path(line: str) -> str | None:
    fields = line.split()
    if len(fields) < 2 or fields[0].startswith("#"):
        return None
    path = unescape(fields[1])
    return path.rstrip("/") if len(path) > 1 else path


def fstab_entry(text: str, path: str) -> str | None:
    """The line of fstab for a mount point (the last one, which is the one that counts), or None."""
    found = None
    for line in text.splitlines():
        if _fstab_path(line) == path:
            found = line
    return found


def fstab_options(text: str, path: str) -> list[str] | None:
    """The options that fstab has for a mount point, or None without a line for it."""
    line = fstab_entry(text, path)
    if line is None:
        return None
    fields = line.split()
    return split_options(fields[3]) if len(fields) > 3 else []


def fstab_with(text: str, path: str, line: str | None) -> str:
    """fstab with exactly this line for a mount point (none for None); everything else stays byte for byte.

    A line that says the same in other white space is kept as it is.
    """
    result = []
    placed = line is None
    for old in text.splitlines(keepends=True):
        if _fstab_path(old) != path:
            result.append(old)
            continue
        if placed or line is None:
            continue
        placed = True
        fields = old.split()
        same = fields[:4] == line.split()[:4] and (fields[4:6] + ["0", "0"])[:2] == ["0", "0"]
        ending = "\r\n" if old.endswith("\r\n") else "\n"
        result.append(old if same else line + ending)
    if not placed and line is not None:
        if result and not result[-1].endswith("\n"):
            result[-1] += "\n"
        result.append(line + "\n")
    return "".join(result)
