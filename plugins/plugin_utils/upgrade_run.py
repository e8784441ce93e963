# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The books of one translation from Dovecot 2.3 to 2.4: what became of each setting, and what needs somebody's attention."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .catalogue import foreign
from .dialect import SECOND, Entry
from .upgrade_tables import UPGRADING, Gone
from .variables import MAIL, Untranslated, letters_for, translate
from .variables import SOURCE as VARIABLES

Path = tuple[str, ...]
Content = Mapping[str, Any]
LEVELS = ("error", "warning", "info")
# What doveconf prints in place of a password or key.
HIDDEN = re.compile(r"# hidden\b")
SECRET_NAME = re.compile(r"password|passwd|secret|nonce|api_key|_key\Z|key_password")
SECRET_TEXT = re.compile(r"pass|secret|token|://[^/\s]*@")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\x85\u2028\u2029]")


@dataclass(frozen=True)
class Item:
    """One thing that needs attention: where it stands in the old file, what happens in 2.4, what to do, who says so.

    ``level``: ``error``, 2.4 does not do it until somebody acts; ``warning``, it does it otherwise; ``info``, good to know.
    """

    level: str
    setting: str
    value: str
    happens: str
    fix: str
    source: str


@dataclass(frozen=True)
class Fate:
    """What became of a setting: ``kept``, ``translated`` into others, or told in an item (``attention``)."""

    how: str
    into: tuple[str, ...] = ()


@dataclass
class Section:
    """What is still to be translated of a section of the input."""

    path: Path
    rest: dict[str, Any]

    def take(self, name: str) -> str | None:
        """A setting, which counts as seen from now on; ``None`` where it is not there."""
        return None if isinstance(self.rest.get(name), Mapping) else self.rest.pop(name, None)

    def names(self) -> list[str]:
        """The settings that nobody has taken, without sections."""
        return [name for name, value in self.rest.items() if not isinstance(value, Mapping)]

    def sections(self) -> list[tuple[str, str, Section]]:
        """Sections within, each with its kind and name; they count as seen from now on."""
        found = []
        for name in [name for name, value in self.rest.items() if isinstance(value, Mapping)]:
            kind, _, argument = SECOND.sub("", name).partition(" ")
            found.append((kind, argument.strip(), Section((*self.path, name), dict(self.rest.pop(name)))))
        return found


@dataclass
class Run:
    """One translation. ``version``: the release of 2.4 that is to read the result. ``tls_required``: ``ssl`` says so."""

    version: str
    tls_required: bool = False
    items: list[Item] = field(default_factory=list)
    fates: dict[Path, Fate] = field(default_factory=dict)
    # What settings elsewhere in the file have to say of a mailbox and of a service.
    mailboxes: dict[str, list[Entry]] = field(default_factory=dict)
    services: dict[str, list[Entry]] = field(default_factory=dict)

    def became(self, path: Path, *into: str) -> None:
        """A setting is done: it stands in the output under these names, or there is nothing to be written for it."""
        self.fates[path] = Fate("kept" if into == path[-1:] else "translated", into)

    def note(self, level: str, path: Path, value: object, happens: str, fix: str, source: str = UPGRADING) -> None:
        """An item beside a translation."""
        row = Item(level, shown_path(path), shown_value(path, value), line(happens), line(fix), source)
        if row not in self.items:
            self.items.append(row)

    def attention(self, path: Path, value: Any, gone: Gone) -> list[Entry]:
        """A setting or a section that is not translated: an item, and the old lines as a comment in the output."""
        self.note(gone.level, path, "" if isinstance(value, Mapping) else value, gone.happens, gone.fix, gone.source)
        for leaf in leaves(value, path):
            self.fates.setdefault(leaf, Fate("attention"))
        fix = "" if gone.fix == "nothing" else f" To do: {gone.fix}."
        return [commented(path[-1], value, f"Not translated: {gone.happens}.{fix}")]

    def expanded(self, path: Path, value: str, auth: bool = False, shared: str = "") -> str | None:
        """A value with its variables in the words of 2.4; ``None``, and an item, where that cannot be done."""
        try:
            return translate(value, letters_for(path[-1], auth) if not shared else MAIL, shared)
        except Untranslated as error:
            self.note(
                "error",
                path,
                value,
                f"{error}; the setting is left out",
                "write it by hand with the variables and filters of 2.4",
                VARIABLES,
            )
            self.fates[path] = Fate("attention")
            return None

    def write(self, path: Path, name: str, value: str, expand: bool = False, **more: Any) -> list[Entry]:
        """A setting of the output that comes from one of the input; its variables are translated where it has any."""
        text = self.expanded(path, value, **more) if expand else value
        if text is None:
            return [commented(path[-1], value, "Not translated: see the list.")]
        self.became(path, name)
        return [Entry(name, dollar(text))]

    def unknown(self, section: Section) -> list[Entry]:
        """What nobody has taken from a section."""
        found = []
        for name in list(section.rest):
            value = section.rest.pop(name)
            hint = foreign(SECOND.sub("", name), "2.4")
            found += self.attention((*section.path, name), value, Gone(_NOT_KNOWN, hint or _LOOK_UP, level="error"))
        return found


_NOT_KNOWN = "it is not known here, and 2.4 refuses a file with a setting that it does not know"
_LOOK_UP = "look it up in the documentation of 2.4 and write it by hand, or do without"


def entry(name: str, children: Iterable[Entry], why: str = "") -> Entry:
    """A section."""
    return Entry(name, tuple(children), why)


def block(kind: str, argument: str, children: Iterable[Entry], why: str = "") -> Entry:
    """A section with a name, in quotes where it needs them."""
    plain = argument.strip('"')
    bare = re.fullmatch(r"[A-Za-z0-9_@*/.:!+-]+", plain)
    return entry(f"{kind} {plain if bare else chr(34) + plain + chr(34)}", children, why)


def flags(names: Iterable[tuple[str, bool]]) -> list[Entry]:
    """The lines of a list of booleans."""
    return [Entry(name, "yes" if on else "no") for name, on in names]


def commented(name: str, value: Any, why: str = "") -> Entry:
    """The old lines, as a comment."""
    lines = [why] if why else []
    return Entry("", "", "\n".join(line(text) for text in [*lines, *_old_lines(SECOND.sub("", name), value, "  ")]))


def line(text: str) -> str:
    """Text as one line of a comment or a table."""
    text = _UNPRINTABLE.sub(" ", text.replace("\n", " "))
    # A backslash at the end would join the next line to the comment.
    return text + "." if text.endswith("\\") else text


def leaves(value: Any, path: Path) -> list[Path]:
    """Every setting of a section with its whole path; a setting is its own, an empty section too."""
    if not isinstance(value, Mapping) or not value:
        return [path]
    return [leaf for name, inner in value.items() for leaf in leaves(inner, (*path, str(name)))]


def shown_path(path: Path) -> str:
    """A path as people read it."""
    return line("/".join(path))


def shown_value(path: Path, value: object) -> str:
    """A value as people read it; what may be secret is left out."""
    text = str(value)
    secret = SECRET_NAME.search(path[-1]) or (
        path[-1] in ("args", "default_fields", "override_fields") and SECRET_TEXT.search(text)
    )
    if text and secret and not text.startswith(("</", "# hidden")):
        return "(not shown)"
    text = line(text)
    return text if len(text) <= 120 else text[:117] + "..."


def dollar(value: str) -> str:
    """``$setting`` of 2.3 as 2.4 writes it."""
    return re.sub(r"\$(?=(?:default_(?:internal|login)_(?:user|group))\b)", "$SET:", value)


def words(value: str) -> list[str]:
    """A list of 2.3: blanks or commas between its words."""
    return [word for word in re.split(r"[\s,]+", value.strip()) if word]


def is_yes(value: str) -> bool:
    """What Dovecot takes for yes."""
    return value.strip().lower() in ("yes", "y", "1", "true")


def _old_lines(name: str, value: Any, pad: str) -> list[str]:
    if not isinstance(value, Mapping):
        return [f"{pad}{name} = {value}"]
    inner = [text for key, one in value.items() for text in _old_lines(SECOND.sub("", str(key)), one, f"{pad}  ")]
    return [f"{pad}{name} {{", *inner, f"{pad}}}"]
