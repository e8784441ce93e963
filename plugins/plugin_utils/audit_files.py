# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an audit is given: saved texts of machines in place of their live state, and the variables of the playbook."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..module_utils._exports import parse_exportfs
from ..module_utils._mounts import NFS_TYPES, split_options, unescape
from .dialect import from_doveconf
from .errors import NfsmailError, Problem, nearest
from .profile import parse_profile

SOURCE = "docs: audit"
LARGEST = 4_000_000  # bytes; what these commands print is a hundredth of it
# File to what makes it.
FILES: Mapping[str, str] = {
    "doveconf.txt": "doveconf -n",
    "mounts.txt": "cat /proc/mounts",
    "exports.txt": "exportfs -s",
    "haproxy.txt": "cat /etc/haproxy/haproxy.cfg",
}
MOUNT = re.compile(r"(?P<source>\S+) (?P<path>/\S*) (?P<type>\S+) (?P<options>\S+) \d+ \d+\s*")
# mount(8) prints the same in other words.
MOUNT_8 = re.compile(r"(?P<source>\S+) on (?P<path>/.*) type (?P<type>\S+) \((?P<options>[^()]*)\)\s*")
BANNER = re.compile(r"# (\d+\.\d+[^\s:]*)")
PATHS = ("nfsmail_report_path", "nfsmail_sarif_path", "nfsmail_html_path")


def input_problems(variables: Mapping[str, Any], hosts: Sequence[str]) -> list[Problem]:
    """Everything wrong with what the playbook was given; told before any host is touched.

    ``variables``: ``nfsmail_audit_files``, ``nfsmail_audit_profile`` and the paths of the reports. ``hosts``: the machines of
    the inventory.
    """
    problems: list[Problem] = []
    files = variables.get("nfsmail_audit_files")
    if files not in (None, ""):
        try:
            read_folder(str(files))
        except NfsmailError as error:
            problems += error.problems
    elif not hosts:
        problems.append(
            Problem(
                "nfsmail_audit_files",
                None,
                "an audit looks at the hosts of an inventory, or at saved files; there is neither",
                "name hosts (-i mail1,mail2,) or a folder (-e nfsmail_audit_files=FOLDER)",
                SOURCE,
            )
        )
    try:
        parse_profile(variables.get("nfsmail_audit_profile") or {})
    except NfsmailError as error:
        problems += [
            Problem(f"nfsmail_audit_profile.{one.variable}", one.value, one.rule, one.fix, one.source)
            for one in error.problems
        ]
    return problems + list(_path_problems(variables))


def _path_problems(variables: Mapping[str, Any]) -> Iterator[Problem]:
    seen: dict[Path, str] = {}
    for name in PATHS:
        text = str(variables.get(name) or "")
        if not text:
            continue
        path = Path(text).expanduser().absolute()
        if not path.parent.is_dir() or path.is_dir():
            fix = "name a file" if path.is_dir() else f"make the folder {path.parent}, or name another"
            yield Problem(name, text, "a file in a folder that exists", fix, SOURCE)
        elif path in seen:
            yield Problem(name, text, f"each report has a file of its own; {seen[path]} has this one", "rename", SOURCE)
        seen.setdefault(path, name)


def read_folder(folder: str) -> dict[str, dict[str, Any]]:
    """The states of machines, from ``FOLDER/HOST/doveconf.txt`` and so on; only what is there is in a state.

    A relative path starts at the current directory. All problems are in one error.
    """
    root = Path(folder).expanduser().absolute()
    try:
        places = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError as error:
        fix = "name a folder that holds one folder for each machine"
        raise NfsmailError([Problem("nfsmail_audit_files", folder, _reason(error, "folder"), fix, SOURCE)]) from error
    problems: list[Problem] = []
    states: dict[str, dict[str, Any]] = {}
    for place in places:
        try:
            states[place.name] = state_of(place.name, _texts(place))
        except NfsmailError as error:
            problems += error.problems
    if not places:
        fix = f"make {folder}/HOST/doveconf.txt for each machine: doveconf -n, and mounts.txt: cat /proc/mounts"
        problems.append(Problem("nfsmail_audit_files", folder, "a folder for each machine; there is none", fix, SOURCE))
    if problems:
        raise NfsmailError(problems)
    return states


def _texts(place: Path) -> dict[str, str]:
    problems: list[Problem] = []
    found: dict[str, str] = {}
    for name, command in FILES.items():
        path, shown = place / name, f"{place.name}/{name}"
        try:
            if path.stat().st_size > LARGEST:
                problems.append(
                    Problem(
                        "nfsmail_audit_files",
                        shown,
                        f"at most {LARGEST} bytes",
                        f"save the output of: {command}",
                        SOURCE,
                    )
                )
                continue
            found[name] = path.read_text(encoding="utf-8-sig", errors="replace").replace("\r\n", "\n")
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            fix = f"make it readable, or save the output again: {command}"
            problems.append(Problem("nfsmail_audit_files", shown, _reason(error, "file"), fix, SOURCE))
    if not found and not problems:
        others = sorted(path.name for path in place.iterdir())
        close = f"; {others[0]} may be meant for {nearest(others[0], FILES)}" if others else ""
        problems.append(
            Problem(
                "nfsmail_audit_files",
                f"{place.name}/",
                f"at least one of {', '.join(FILES)}",
                f"save the output of: doveconf -n, as {place.name}/doveconf.txt{close}; or remove the folder",
                SOURCE,
            )
        )
    if problems:
        raise NfsmailError(problems)
    return found


def state_of(host: str, texts: Mapping[str, str]) -> dict[str, Any]:
    """What ``host_state`` would have said, as far as saved texts tell. A part without a text is not there.

    ``texts``: text by the names of ``FILES``.
    """
    state: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, text in texts.items():
        part, read = _READERS[name]
        wrong = "" if text.strip() else "the file is empty"
        try:
            state[part] = read(text)
        except NfsmailError as error:
            # Not the line itself: it may hold a password.
            wrong = wrong or "; ".join(f"{one.variable}: {one.rule}" for one in error.problems)
        if not wrong and not state[part]:
            wrong = "nothing in it can be read"
        if wrong:
            fix = f"save the whole, unchanged output of: {FILES[name]}"
            problems.append(Problem("nfsmail_audit_files", f"{host}/{name}", wrong, fix, SOURCE))
    if problems:
        raise NfsmailError(problems)
    name_line = re.search(r"^# Hostname: (\S+)", texts.get("doveconf.txt", ""), re.MULTILINE)
    if name_line:
        state["hostname"] = name_line[1]
    # The readers keep what matters of these; an empty list stands for a table without any.
    if "mounts" in state:
        state["mounts"] = [row for row in state["mounts"] if row["fstype"] in (*NFS_TYPES, "autofs")]
    return state


def _dovecot(text: str) -> dict[str, Any]:
    conf = from_doveconf(text)
    banner = BANNER.match(text.lstrip())
    version = banner[1] if banner else str(conf.get("dovecot_config_version") or "")
    return {"version": version, "conf": text, "error": None} if conf or banner else {}


def _mounts(text: str) -> list[dict[str, Any]]:
    found = []
    for line in text.split("\n"):
        match = MOUNT.fullmatch(line) or MOUNT_8.fullmatch(line)
        if match:
            found.append(
                {
                    "path": unescape(match["path"]),
                    "source": unescape(match["source"]),
                    "fstype": match["type"],
                    "options": split_options(match["options"]),
                }
            )
    return found


def _haproxy(text: str) -> dict[str, Any]:
    """The servers of a configuration; what HAProxy thinks of them is not in there."""
    section, seen, servers = "", False, []
    for line in text.split("\n"):
        words = line.partition("#")[0].split()
        if words and words[0] in ("global", "defaults", "listen", "backend", "frontend"):
            section, seen = words[-1], True
        elif len(words) > 2 and words[0] == "server":
            servers.append({"section": section, "server": words[1], "address": words[2]})
    return {"version": "", "servers": servers} if seen else {}


_READERS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "doveconf.txt": ("dovecot", _dovecot),
    "mounts.txt": ("mounts", _mounts),
    "exports.txt": ("exports", parse_exportfs),
    "haproxy.txt": ("haproxy", _haproxy),
}


def _reason(error: Exception, what: str) -> str:
    return f"a {what} that can be read; {getattr(error, 'strerror', None) or error}"
