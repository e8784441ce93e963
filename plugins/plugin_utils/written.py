# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Settings that somebody wrote, as rules look at them: with defaults, section by section, and with what paths mean.

Beside the settings a view has names of its own:

- ``@mail_path``, ``@mail_index_path`` and so on: whether that part of the mailbox location is ``nfs``, ``local`` or
  ``memory``; not there where it is not written or cannot be told;
- ``@mail_temp_dir``, ``@attachments``: the same for these directories;
- ``@namespaces``: ``many`` where there are two or more;
- ``@foreign``: the first setting that this dialect does not have, with what to write; ``@foreign_value``: the first
  value that it does not take.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from . import location
from .catalogue import defaults, foreign, known
from .dialect import SECOND, plain

# Sections whose settings are in effect for some connections in place of those outside.
SCOPES = re.compile(r"(protocol|local|local_name|remote|group) ")
SECRETS = re.compile(r"password|secret|args|_key\Z|fields|pass\Z")
ATTACHMENTS = ("mail_attachment_dir", "mail_ext_attachment_path")
# What Dovecot takes for yes beside the word itself (measured with 2.3.19 and 2.4.1); for no there is but the one word.
YES = ("1", "y", "yes")
View = Mapping[str, str]


def in_effect(conf: Mapping[str, Any], series: str) -> dict[str, str]:
    """Every setting with its sections in front, defaults included."""
    return {**defaults(series), **_flat(conf)}


def views(conf: Mapping[str, Any], series: str, store: str = "", home: str = "") -> Iterator[tuple[str, View]]:
    """The settings in effect: first for everybody, then within each section that has settings of its own."""
    everybody = in_effect(conf, series)
    yield "", {**everybody, **_meanings(everybody, conf, series, store, home)}
    for name, section in conf.items():
        if isinstance(section, Mapping) and SCOPES.match(str(name)):
            inside = {**everybody, **_flat(section)}
            yield str(name), {**inside, **_meanings(inside, section, series, store, home)}
            # a section within: local 192.0.2.0/24 { protocol imap { ... } }
            for inner, deeper in section.items():
                if isinstance(deeper, Mapping) and SCOPES.match(str(inner)):
                    both = {**inside, **_flat(deeper)}
                    yield f"{name}/{inner}", {**both, **_meanings(both, deeper, series, store, home)}


def matched(found: Mapping[str, str], view: View) -> list[str] | None:
    """The names that make a rule's condition true; ``None`` where it is not."""
    names: list[str] = []
    for pattern, value in found.items():
        absent = pattern.startswith("!")
        name_of, value_of = _compiled(pattern.removeprefix("!")), _compiled(value)
        hits = [name for name in _candidates(pattern, name_of, view) if value_of.fullmatch(view[name])]
        if bool(hits) == absent:
            return None
        names += hits
    return names


def shown(name: str, view: View) -> str:
    """A setting as text for people; what may be secret is left out."""
    if name in ("@foreign", "@foreign_value"):
        return view[name]
    value = view[name]
    return name.lstrip("@") if SECRETS.search(name) else f"{name.lstrip('@')}={value}"


def _candidates(pattern: str, name_of: re.Pattern[str], view: View) -> list[str]:
    pattern = pattern.removeprefix("!")
    if pattern in view:
        return [pattern]
    # A plain name that is not there: no need to look through all.
    return [] if re.fullmatch(r"@?\w+", pattern) else [name for name in view if name_of.fullmatch(name)]


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _flat(conf: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for raw, value in conf.items():
        name = SECOND.sub("", str(raw))
        if isinstance(value, Mapping):
            found[name] = ""
            inner = _flat(value)
            found.update({f"{name}/{setting}": text for setting, text in inner.items()})
            # doveconf 2.4 prints some settings by their first word: mbox { write_locks = ... }.
            whole = {f"{name}_{setting}": text for setting, text in inner.items()}
            found.update({setting: text for setting, text in whole.items() if known(setting, "2.4")})
        else:
            found[name] = _canonical(name, plain(name, value).strip())
    return found


@cache
def _choices(name: str) -> frozenset[str]:
    found = (known(name, series) for series in ("2.3", "2.4"))
    return frozenset(word for setting in found if setting for word in setting.choices)


def _canonical(name: str, value: str) -> str:
    """One spelling for each value of the settings that rules compare."""
    choices = _choices(name)
    if value.lower() in YES and "yes" in choices:
        return "yes"
    return value.lower() if value.lower() in choices else value


def _meanings(view: View, conf: Mapping[str, Any], series: str, store: str, home: str) -> dict[str, str]:
    written_home = view.get("mail_home") or home
    parts = location.read(view, series)
    paths = {name: path for name, path in parts.items() if name not in ("mail_driver",)}
    paths["mail_temp_dir"] = view.get("mail_temp_dir", "")
    for name in ATTACHMENTS:
        if view.get(name):
            paths["attachments"] = view[name]
    found = {f"@{name}": location.place(path, written_home, store) for name, path in paths.items()}
    namespaces = [name for name in conf if str(name).startswith("namespace")]
    if len(namespaces) > 1:
        found["@namespaces"] = "many"
    own = _flat(conf)
    for name, text in (("@foreign", _foreign(own, series)), ("@foreign_value", _foreign_value(own, series))):
        if text:
            found[name] = text
    return {name: text for name, text in found.items() if text}


def _foreign(own: View, series: str) -> str:
    for name in own:
        leaf = name.rpartition("/")[2]
        hint = foreign(leaf, series)
        # plugin/NAME of 2.3 and named sections hold names of their own.
        if hint and not name.startswith("plugin/"):
            return f"{name} is not known to Dovecot {series} ({hint})"
    return ""


def _foreign_value(own: View, series: str) -> str:
    for name, value in own.items():
        setting = known(name.rpartition("/")[2], series)
        if setting and setting.choices and value not in setting.choices and "%{" not in value:
            return f"{name}={value}, one of {', '.join(setting.choices)}"
    return ""
