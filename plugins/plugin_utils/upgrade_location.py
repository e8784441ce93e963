# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``mail_location`` of Dovecot 2.3, wherever it stands, as the settings that 2.4 has for its parts."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..module_utils._indexes import PARTS
from .dialect import Entry
from .upgrade_run import Fate, Path, Run, commented, is_yes
from .upgrade_tables import LOCATION_WORDS, UPGRADING

SOURCE = f"{UPGRADING}: mailbox location; Dovecot 2.3 source, mailbox-list.c"
DRIVERS = ("maildir", "mbox", "sdbox", "mdbox", "imapc", "pop3c", "virtual", "cydir")
_PATHS: Mapping[str, str] = {**PARTS, "INDEXCACHE": "mail_cache_path"}


def parts(value: str) -> tuple[dict[str, str], list[str]]:
    """The parts of a location by their names in 2.4, untranslated, and the words that have no name there."""
    driver, colon, rest = value.partition(":")
    if not colon and driver in ("imapc", "pop3c"):
        return {"mail_driver": driver}, []
    if not colon or driver not in (*DRIVERS, "dbox"):
        return {}, [value]
    if "::" in rest:
        return {}, ["::"]
    path, *behind = rest.split(":")
    found = {"mail_driver": "sdbox" if driver == "dbox" else driver, **({"mail_path": path} if path else {})}
    strange = []
    for part in filter(None, behind):
        key, _, text = part.partition("=")
        # The manual of 2.3 says NOALTCHECK, its source ALTNOCHECK.
        key = "NOALTCHECK" if key == "ALTNOCHECK" else key
        if key in _PATHS and text:
            found[_PATHS[key]] = text
        elif key in LOCATION_WORDS:
            name, fixed = LOCATION_WORDS[key]
            found[name] = fixed or text
        else:
            strange.append(part)
    return found, strange


def location(run: Run, path: Path, value: str, around: Mapping[str, str], shared: bool = False) -> list[Entry]:
    """A location in a section. ``around``: the parts outside, which 2.4 would let hold within, while 2.3 began afresh."""
    found, strange = parts(value)
    if strange:
        run.note(
            "error",
            path,
            value,
            f"no setting of 2.4 is known for {', '.join(strange)}",
            "write mail_driver, mail_path and the other mail_*_path settings by hand",
            SOURCE,
        )
    if not found:
        run.fates[path] = Fate("attention")
        return [commented(path[-1], value, "Not translated: see the list.")]
    lines = []
    for name, text in found.items():
        told = run.expanded(path, text, shared="mail_path" if shared else "")
        if told is None:
            return [commented(path[-1], value, "Not translated: see the list.")]
        lines.append(Entry(name, told))
    # A part that is set outside only.
    lines += [Entry(name, "") for name in around if name not in found and name not in _FLAGS]
    lines += [Entry(name, _FLAGS[name]) for name in around if name not in found and name in _FLAGS]
    run.became(path, *(entry.name for entry in lines))
    return lines


# What a flag is where it is not set.
_FLAGS: Mapping[str, str] = {
    name: "no" if is_yes(fixed) else "yes" for name, fixed in LOCATION_WORDS.values() if re.fullmatch("yes|no", fixed)
}
