# Copyright (c) 2026 nfsmail.cluster contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where Dovecot keeps index files, with the mail or in a place of their own, in each mailbox format. Pure functions.

This module util is PRIVATE to the collection; it can change without notice.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# The words of our templates, as Dovecot 2.3 and 2.4 spell them.
WORDS: Mapping[str, tuple[str, str]] = {
    "{user}": ("%Lu", "%{user | lower}"),
    "{name}": ("%Ln", "%{user | username | lower}"),
    "{domain}": ("%Ld", "%{user | domain | lower}"),
    "{shard}": ("%2.256LNu", "%{user | lower | md5 | substr(0, 8) % 256 | hex(2)}"),
}
# What others write for the same: Dovecot has made the user name lower-case by then (auth_username_format).
ALSO = {
    "{user}": ("%u", "%{user}"),
    "{name}": ("%n", "%{user | username}", "%{user|username}"),
    "{domain}": ("%d", "%{user | domain}", "%{user|domain}"),
}
# The key in mail_location (2.3), and the setting (2.4).
PARTS: Mapping[str, str] = {
    "INBOX": "mail_inbox_path",
    "INDEX": "mail_index_path",
    "INDEXPVT": "mail_index_private_path",
    "CONTROL": "mail_control_path",
    "VOLATILEDIR": "mail_volatile_path",
    "ALT": "mail_alt_path",
    "LISTINDEX": "mailbox_list_index_prefix",
}
# Other names of folders' directories, which we do not know how to follow.
LAYOUT = re.compile(r"mailbox_(list_layout|root_directory_name|directory_name|directory_name_legacy)\Z")
DBOX = ("sdbox", "mdbox")
# mailbox.log remembers what was deleted and renamed, for dsync; it lies with the list of mailboxes.
INDEX_FILE = re.compile(r"dovecot\.((list\.|map\.)?index|mailbox\.log)(\..+)?\Z")
OF_THE_LIST = re.compile(r"dovecot\.(list\.index|mailbox\.log)(\..+)?\Z")
# Of use to a running Dovecot only.
SCRATCH = re.compile(r".*\.(lock|newlock|tmp)\Z")
HOME = re.compile(r"(~|%h|%\{home\})(?=/|\Z)")
OURS = "nfsmail.cluster.dovecot: the whole file is replaced"


class Refused(ValueError):
    """A move that cannot be done; its text says why, and the way out."""


def is_index(name: str) -> bool:
    """The file is one of Dovecot's index files, a leftover of its locking included."""
    return INDEX_FILE.match(name) is not None


def is_scratch(name: str) -> bool:
    """The index file is a lock or half written: nothing that is to be kept."""
    return SCRATCH.match(name) is not None


# ---- the location in a configuration ----


def in_our_words(value: str) -> str:
    """A path of either dialect in our words; what we do not know stays as it is."""
    spelt = [(text, word) for word, texts in WORDS.items() for text in (*texts, *ALSO.get(word, ()))]
    for text, word in sorted(spelt, key=lambda pair: -len(pair[0])):
        value = value.replace(text, word)
    return value


def top_level(text: str) -> dict[str, str]:
    """The settings outside all sections, as a file has them or ``doveconf -n`` prints them."""
    found: dict[str, str] = {}
    depth = 0
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("#"):
            continue
        if line.endswith("{"):
            depth += 1
        elif line == "}":
            depth -= 1
        elif depth == 0:
            name, sign, value = line.partition("=")
            if sign:
                value = value.strip()
                quoted = len(value) > 1 and value[0] == value[-1] == '"'
                found[name.strip()] = value[1:-1] if quoted else value
    return found


def read(settings: Mapping[str, str]) -> dict[str, str]:
    """The parts of a mailbox location by their names in 2.4, out of settings of either dialect; only what is written."""
    location = settings.get("mail_location") or ""
    if not location:
        names = ("mail_driver", "mail_path", *PARTS.values())
        return {name: settings[name] for name in names if settings.get(name)}
    driver, _, rest = location.partition(":")
    path, *behind = rest.split(":")
    found = {"mail_driver": driver, "mail_path": path}
    for part in behind:
        key, _, value = part.partition("=")
        found[PARTS.get(key, key)] = value or "yes"
    return {name: value for name, value in found.items() if value}


def location(text: str) -> dict[str, str]:
    """Where a configuration has mail and indexes, in our words: parts, ``mail_home``, and what changes folders' names."""
    settings = top_level(text)
    found = read(settings)
    if not found.get("mail_driver"):
        return {}
    found.update({name: value for name, value in settings.items() if LAYOUT.match(name)})
    found["mail_home"] = settings.get("mail_home", "")
    # 2.3 has these names always; 2.4 has them until the version of its configuration is 2.4.2.
    legacy = settings.get("mailbox_directory_name_legacy", "yes" if _before_2_4_2(settings) else "no")
    found["mailbox_directory_name_legacy"] = legacy
    return {name: in_our_words(value.rstrip("/") or value) for name, value in found.items() if value}


def _before_2_4_2(settings: Mapping[str, str]) -> bool:
    version = settings.get("dovecot_config_version", "")
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3]) < (2, 4, 2)


def is_move(old: Mapping[str, str], new: Mapping[str, str], ours: bool) -> bool:
    """Whether the second location is the first with its indexes elsewhere. Raises Refused where indexes would be left behind.

    ``ours``: a role of this collection wrote the old one.
    """
    before, after = old.get("mail_index_path", ""), new.get("mail_index_path", "")
    if not old or old.get("mail_driver") != new.get("mail_driver") or before == after:
        return False
    driver = new["mail_driver"]
    if after == "MEMORY" and driver in DBOX:
        raise Refused(f"{driver} keeps flags in its indexes, and MEMORY loses them with each session; name a directory")
    if "MEMORY" in (before, after):
        return False
    # Nothing is left behind where there were but locks.
    others = sorted(
        name for name in {*old, *new} - {"mail_index_path", "mail_volatile_path"} if old.get(name) != new.get(name)
    )
    if others:
        if driver in DBOX or ours:
            raise Refused(
                f"the place of the indexes changes together with {', '.join(others)}: the indexes would be left behind in "
                f"{_place(before)}. Change one at a time"
            )
        return False
    unknown = sorted(set(new) - {"mail_driver", "mail_path", "mail_home", *PARTS.values()})
    unknown = [name for name in unknown if (name, new[name]) != ("mailbox_directory_name_legacy", "yes")]
    unknown += ["mail_inbox_path"] if "mail_inbox_path" in new and driver != "mbox" else []
    if unknown and (driver in DBOX or unknown != ["mailbox_directory_name_legacy"]):
        raise Refused(
            f"with {', '.join(unknown)} the folders' directories have names that are not known here; move by hand"
        )
    return True


def _place(index_path: str) -> str:
    return index_path or "the mail store"


# ---- users ----


def home_patterns(template: str) -> list[list[str | re.Pattern[str]]]:
    """The path segments of users' homes, patterns where they vary, for each shape that homes can have."""
    shapes = [template]
    # The home of a user without a domain: /srv/mail//anna.
    if "/{domain}/" in template:
        shapes.append(template.replace("/{domain}/", "/"))
    return [[_segment(part) for part in shape.split("/") if part] for shape in shapes]


def _segment(part: str) -> str | re.Pattern[str]:
    if "{" not in part:
        return part
    pattern, seen = "", set()
    for piece in re.split(r"(\{\w+\})", part):
        word = piece[1:-1]
        if piece not in WORDS:
            pattern += re.escape(piece)
        elif word in seen:
            pattern += f"(?P={word})"
        else:
            seen.add(word)
            letters = {"shard": "[0-9a-f]{2}", "name": "[^/@]+"}.get(word, "[^/]+")
            pattern += f"(?P<{word}>{letters})"
    return re.compile(f"{pattern}\\Z")


def user_of(parts: Iterable[re.Match[str]]) -> dict[str, str] | None:
    """What is known of a user from the segments of the home; None when they contradict each other."""
    found: dict[str, str] = {}
    for part in parts:
        for word, value in part.groupdict().items():
            if found.setdefault(word, value) != value:
                return None
    if "user" in found:
        name, _, domain = found["user"].partition("@")
        follows = {"name": name, "domain": domain}
    elif "name" in found and "domain" in found:
        follows = {"user": f"{found['name']}@{found['domain']}"}
    else:
        return found
    follows["shard"] = shard_of(follows.get("user") or found["user"])
    if any(found.get(word, value) != value for word, value in follows.items()):
        return None
    return {**found, **follows}


def without_domain(user: Mapping[str, str]) -> dict[str, str]:
    """A user whose home was found where those without a domain have theirs."""
    return {**user, "domain": "", "user": user["name"], "shard": shard_of(user["name"])}


def shard_of(user: str) -> str:
    """The two hex digits that stand for ``{shard}``: the eighth byte of the MD5 digest. The name is in lower case."""
    return f"{_md5(user.encode('utf-8', 'surrogateescape'))[7]:02x}"


def _md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def expand(template: str, user: Mapping[str, str], home: str = "") -> str:
    """A path for one user. Raises Refused where the home does not tell what is needed."""
    start = HOME.match(template) if home else None
    path = template[start.end() :] if start else template
    if "%" in path or not (start or path.startswith("/")):
        raise Refused(f"{template} is not a path that can be followed here; write it with {', '.join(WORDS)}")

    def value(match: re.Match[str]) -> str:
        word = match[0][1:-1]
        if word not in user:
            raise Refused(f"{template} needs {match[0]}, which users' homes do not tell; put {match[0]} into mail_home")
        return user[word]

    return (home if start else "") + re.sub(r"\{(user|name|domain|shard)\}", value, path)


# ---- folders ----


def canonical(driver: str, with_mail: bool, folder: str, name: str) -> tuple[str, str] | None:
    """Directory and name of an index file as a place of its own has them; None for one that is no mailbox's.

    ``folder`` is relative to the mail (``with_mail``) or to the index path, and empty for that itself.
    """
    if not with_mail:
        return folder, name
    if driver == "maildir":
        if folder == ".INBOX":
            return None
        return ("" if folder or OF_THE_LIST.match(name) else ".INBOX") or folder, name
    if driver in DBOX and folder.startswith("mailboxes/"):
        kept, slash, last = folder.rpartition("/")
        return (kept, name) if last == "dbox-Mails" else None
    return folder, name


def placed(driver: str, with_mail: bool, folder: str) -> str:
    """The directory of an index file, from its canonical one."""
    if not with_mail:
        return folder
    if driver == "maildir":
        return "" if folder == ".INBOX" else folder
    if driver in DBOX and folder.startswith("mailboxes/"):
        return f"{folder}/dbox-Mails"
    return folder


def descends(driver: str, with_mail: bool, folder: str, name: str) -> bool:
    """Whether index files may lie in a directory below ``folder``: directories full of mail are not looked into."""
    if not with_mail:
        return True
    if driver == "maildir":
        return not folder and name.startswith(".")
    if driver in DBOX:
        return folder.startswith("mailboxes") or (not folder and name in ("mailboxes", "storage"))
    return True
