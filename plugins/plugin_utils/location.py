# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where a mailbox's files lie: ``mail_location`` of 2.3, one setting for each part in 2.4."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping

from ..module_utils._indexes import PARTS, WORDS
from ..module_utils._indexes import read as read_parts
from .errors import NfsmailError, Problem

# Gone at the next boot, and on one machine only, wherever the mail store is.
TEMPORARY = ("/dev/shm", "/run", "/var/run", "/tmp")
PLACEHOLDER = re.compile(r"\{[^{}]*\}")
# systemd gives Dovecot another /tmp than doveadm has (PrivateTmp in Debian's unit).
PRIVATE = ("/tmp", "/var/tmp")
# Where many programs have a directory each.
COMMON = (
    *("/", "/boot", "/dev", "/etc", "/home", "/media", "/mnt", "/opt", "/root", "/srv", "/usr", "/usr/local", "/var"),
    *(*TEMPORARY, *PRIVATE, "/var/cache", "/var/lib", "/var/local", "/var/mail", "/var/spool"),
)
# The part of the mailbox location below the user's home.
MAIL_DIR = {"maildir": "Maildir", "mbox": "mail", "sdbox": "sdbox", "mdbox": "mdbox"}
HOME = re.compile(r"(~|%h|%\{home\}|%\{userdb:home\})(/|\Z)")


def translate(where: str, template: str, series: str) -> str:
    """``{user}``, ``{name}``, ``{domain}`` and ``{shard}`` in the words of the dialect; nothing else may vary."""
    unknown = [word for word in PLACEHOLDER.findall(template) if word not in WORDS]
    if unknown or "%" in template or "$" in template:
        raise NfsmailError(
            [
                Problem(
                    where,
                    template,
                    f"variables are written {', '.join(WORDS)}, so that Dovecot 2.3 and 2.4 read the same path",
                    "use these words; 2.4 takes %d and %n literally and puts two users into one directory",
                    "measured: 2.4.1 with %d/%n",
                )
            ]
        )
    for word, spelt in WORDS.items():
        template = template.replace(word, spelt[series == "2.4"])
    return template


def write(driver: str, path: str, parts: Mapping[str, str], series: str) -> dict[str, str]:
    """A location as settings of the dialect; ``parts`` by their names in 2.4, empty ones are left out."""
    given = {name: value for name, value in parts.items() if value}
    if series == "2.4":
        return {"mail_driver": driver, "mail_path": path, **given}
    behind = [f":{key}={given[name]}" for key, name in PARTS.items() if name in given]
    return {"mail_location": f"{driver}:{path}{''.join(behind)}"}


def within(home: str, driver: str, parts: Mapping[str, str], series: str) -> dict[str, str]:
    """The location of a user with this home, as the roles have it; ``~`` is the home of whoever logs in."""
    inbox = {"mail_inbox_path": f"{home}/inbox"} if driver == "mbox" else {}
    return write(driver, f"{home}/{MAIL_DIR[driver]}", {**inbox, **parts}, series)


def of_owner(translated: str, series: str) -> str:
    """A path of whoever logs in as that of the owner of a shared mailbox."""
    return translated.replace("%{user", "%{owner_user") if series == "2.4" else translated.replace("%", "%%")


def read(settings: Mapping[str, str], series: str) -> dict[str, str]:
    """The parts of a location by their names in 2.4, out of settings of the dialect; what is not written is not there."""
    dialect = {name: value for name, value in settings.items() if (name == "mail_location") == (series == "2.3")}
    known = ("mail_driver", "mail_path", *PARTS.values())
    return {name: value for name, value in read_parts(dialect).items() if name in known}


def inside(path: str, root: str) -> bool:
    """``path`` is ``root`` or below it, by their names alone."""
    path, root = posixpath.normpath(path), posixpath.normpath(root)
    return path == root or path.startswith(root.rstrip("/") + "/")


def fixed_part(template: str) -> str:
    """The directory that all users' paths of a template have in common."""
    return posixpath.normpath(template.partition("{")[0].rpartition("/")[0] or "/")


def is_common(folder: str) -> bool:
    """Others have files in the directory too: it is not ours to give to the mail user."""
    return folder in COMMON


def place(path: str, home: str, store: str) -> str:
    """Where a path of a location leads: ``memory``, ``nfs``, ``local``, or empty where that cannot be told.

    ``home``: the users' home (``mail_home``), ``store``: the mount point of the mail store; both may be empty.
    """
    if path == "MEMORY":
        return "memory"
    match = HOME.match(path)
    if match:
        # mail_home itself may start with a variable: then nothing is known.
        path = f"{home}/{path[match.end() :]}" if home else ""
    fixed = re.split(r"[%{]", path)[0]
    if not fixed.startswith("/"):
        return ""
    if any(inside(fixed, folder) for folder in TEMPORARY):
        return "local"
    if not store:
        return ""
    return "nfs" if inside(fixed, store) else "local"
