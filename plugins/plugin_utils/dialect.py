# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Dovecot's two configuration dialects: writing them, reading them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Union

from .errors import NfsmailError, Problem
from .profile import series_of

SOURCE = "Dovecot documentation, configuration file syntax"
# Sections that 2.3 does not let have a name: it becomes their driver.
UNNAMED_IN_23 = ("passdb", "userdb")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_/.:;-]*\Z")
# What stands behind the kind of a section: a name, an address, a folder; quoted where it has blanks.
ARGUMENT = re.compile(r'"[^"\\\n\r\0]*"\Z|[^\s"{}#=\\]+\Z')
# What from_doveconf puts behind the name of a second section.
SECOND = re.compile(r" #\d+\Z")


@dataclass(frozen=True)
class Entry:
    """One setting, or one section when ``value`` is a tuple; ``why`` becomes the comment above it, a line for each of its own.

    Without a name it is the comment alone.
    """

    name: str
    value: Union[str, tuple[Entry, ...]]
    why: str = ""


def entries(mapping: Mapping[str, Any], path: str = "") -> tuple[Entry, ...]:
    """A plain mapping as entries; a nested mapping is a section."""
    return tuple(
        Entry(
            str(name), entries(value, f"{path}{name}/") if isinstance(value, Mapping) else plain(f"{path}{name}", value)
        )
        for name, value in mapping.items()
    )


def plain(where: str, value: Any) -> str:
    """A value as Dovecot writes it: booleans as yes and no, lists with blanks between."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return ""
    if isinstance(value, (list, tuple)):
        return " ".join(plain(where, item) for item in value)
    if isinstance(value, (str, int, float)):
        return str(value)
    raise NfsmailError([Problem(where, value, "text, a number, a boolean or a list", "write a simple value", SOURCE)])


def to_doveconf(mapping: Mapping[str, Any] | Iterable[Entry], version: str) -> str:
    """Configuration text in the dialect of ``version``; on 2.4 the version lines come first."""
    if isinstance(mapping, Mapping):
        tree = entries(mapping)
    elif isinstance(mapping, (str, bytes)) or not isinstance(mapping, Iterable):
        raise NfsmailError([Problem("settings", mapping, "a mapping of settings", "write a mapping", SOURCE)])
    else:
        tree = tuple(mapping)
    series = series_of(version)
    if series == "2.4":
        tree = _with_versions(tree, version)
    return "".join(line + "\n" for line in _lines(tree, series, 0))


def from_doveconf(text: str) -> dict[str, Any]:
    """What ``doveconf -n`` or ``-N`` prints, as a mapping; sections are nested mappings.

    A second section of the same name gets `` #2`` behind its name, so that nothing is lost.
    """
    if not isinstance(text, str):
        raise NfsmailError([Problem("doveconf output", text, "text", "pass the command's output", SOURCE)])
    root: dict[str, Any] = {}
    stack = [root]
    lines = text.split("\n")  # not splitlines(): Dovecot ends a line at a newline only
    for number, raw in enumerate(lines, 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if line == "}":
            if len(stack) == 1:
                raise _unreadable(number, raw, "a closing bracket without a section")
            stack.pop()
        elif line.endswith("{") and "=" not in line.split("{")[0]:
            section: dict[str, Any] = {}
            _put(stack[-1], line[:-1].strip(), section)
            stack.append(section)
        else:
            name, sign, value = line.partition("=")
            if not sign:
                raise _unreadable(number, raw, "neither a setting nor a section")
            stack[-1][name.strip()] = _unquoted(value.strip())
    if len(stack) > 1:
        raise _unreadable(len(lines), "end of text", "a section is not closed")
    return root


def flat(mapping: Mapping[str, Any]) -> dict[str, str]:
    """Nested sections as ``section/setting``; a 2.3 ``plugin`` or a section is a plain prefix."""
    found: dict[str, str] = {}
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            found.update({f"{name}/{inner}": text for inner, text in flat(value).items()})
        else:
            found[str(name)] = str(value)
    return found


def _with_versions(tree: tuple[Entry, ...], version: str) -> tuple[Entry, ...]:
    given = {entry.name: entry for entry in tree}
    release = ".".join((re.findall(r"\d+", version) + ["0"])[:3])
    first = tuple(
        given.get(name) or Entry(name, release, "" if position else "2.4 reads nothing before these two lines.")
        for position, name in enumerate(("dovecot_config_version", "dovecot_storage_version"))
    )
    return first + tuple(entry for entry in tree if entry not in first)


def _lines(tree: Iterable[Entry], series: str, depth: int) -> Iterator[str]:
    pad = "  " * depth
    for entry in tree:
        if entry.why:
            yield from (f"{pad}# {line}".rstrip() for line in entry.why.split("\n"))
        if not entry.name and entry.why:
            continue
        _check_name(entry.name, isinstance(entry.value, tuple))
        if isinstance(entry.value, tuple):
            head, children = _section(entry, series)
            yield f"{pad}{head} {{"
            yield from _lines(children, series, depth + 1)
            yield f"{pad}}}"
        else:
            yield f"{pad}{entry.name} = {_quoted(entry.name, entry.value)}".rstrip()


def _section(entry: Entry, series: str) -> tuple[str, tuple[Entry, ...]]:
    children = entry.value if isinstance(entry.value, tuple) else ()
    kind, _, name = SECOND.sub("", entry.name).partition(" ")
    if series == "2.3" and kind in UNNAMED_IN_23 and name:
        known = any(child.name == "driver" for child in children)
        return kind, children if known else (Entry("driver", name), *children)
    return f"{kind} {name}".rstrip(), children


def _check_name(name: str, section: bool) -> None:
    kind, blank, rest = SECOND.sub("", name).partition(" ")
    good = all(NAME.match(part) for part in (kind, *rest.split(" "))) if blank else NAME.match(kind)
    if not good and not (section and blank and NAME.match(kind) and ARGUMENT.match(rest)):
        raise NfsmailError(
            [Problem("setting name", name, "letters, digits and underscores", "correct the name", SOURCE)]
        )


def _quoted(name: str, value: str) -> str:
    if "\n" in value or "\r" in value or "\0" in value:
        raise NfsmailError([Problem(name, value, "one line", "remove the line break", SOURCE)])
    # Measured with 2.3.19: any '#' starts a comment, a backslash at the end joins the next line, outer blanks and quotes are
    # eaten, and a '$' that no name follows ends the program that reads it ("Unknown variable: $5"), though not doveconf.
    harmful = "#" in value or value.endswith("\\") or re.search(r"\$(?![A-Za-z_])", value)
    if value != value.strip() or value[:1] in ("'", '"') or harmful:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return value


def _unquoted(value: str) -> str:
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    return value


def _put(section: dict[str, Any], name: str, value: dict[str, Any]) -> None:
    key, number = name, 1
    while key in section:
        number += 1
        key = f"{name} #{number}"
    section[key] = value


def _unreadable(number: int, line: str, what: str) -> NfsmailError:
    return NfsmailError(
        [Problem(f"doveconf output, line {number}", line, what, "pass the whole, unchanged output", SOURCE)]
    )
