# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whole ``dovecot.conf`` files, backend and proxy, in either dialect, each line with its reason."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from .dialect import Entry, entries, to_doveconf
from .errors import NfsmailError, Problem
from .matrix import explain
from .profile import Profile, as_list, parse_profile, series_of
from .rules import DEFAULTS
from .shards import lowered

SOURCE = "Dovecot documentation"
PROTOCOLS = ("imap", "pop3", "lmtp")
SECRET = re.compile(r"[A-Za-z0-9._~+/=-]{16,}\Z")
# The part of the mailbox location below the user's home.
MAIL_DIR = {"maildir": "Maildir", "mbox": "mail", "sdbox": "sdbox", "mdbox": "mdbox"}
WORDS = {
    "{user}": ("%Lu", "%{user | lower}"),
    "{name}": ("%Ln", "%{user | username | lower}"),
    "{domain}": ("%Ld", "%{user | domain | lower}"),
    "{shard}": ("%2.256LNu", "%{user | lower | md5 | substr(0, 8) % 256 | hex(2)}"),
}
PLACEHOLDER = re.compile(r"\{[^{}]*\}")


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


def ssha512(password: str, salt_seed: str) -> str:
    """A salted hash that is the same on every run (the salt follows from the seed)."""
    salt = hashlib.sha256(f"nfsmail {salt_seed} {password}".encode()).digest()[:8]
    digest = hashlib.sha512(password.encode() + salt).digest()
    return "{SSHA512}" + base64.b64encode(digest + salt).decode()


def backend_conf(plan: Mapping[str, Any]) -> str:
    """A backend's ``dovecot.conf`` from the role's variables (``roles/dovecot/vars``)."""
    profile = parse_profile(plan["profile"])
    tree = [
        *_head(plan),
        *_mail(plan, profile),
        *(Entry(row["setting"], row["value"], row["why"]) for row in explain(profile)),
        *_tls(plan, profile.series),
        *_backend_auth(plan, profile.series),
        *_backend_services(plan),
        _inbox(profile.series),
    ]
    return to_doveconf(_with_extra("dovecot_extra_settings", tree, plan), profile.dovecot_version)


def proxy_conf(plan: Mapping[str, Any]) -> str:
    """A proxy's ``dovecot.conf`` from the role's variables (``roles/dovecot_proxy/vars``)."""
    version = str(plan["version"])
    series = series_of(version)
    tree = [
        *_head(plan),
        Entry("lmtp_proxy", "yes", "Hand each recipient's message to the recipient's own backend."),
        *_tls(plan, series),
        *_proxy_auth(plan, series),
        *_proxy_services(plan, version),
    ]
    return to_doveconf(_with_extra("dovecot_proxy_extra_settings", tree, plan), version)


def passwd_lines(users: Any) -> list[str]:
    """Users as lines of Dovecot's passwd-file; each has a name and a password with its ``{SCHEME}``."""
    problems: list[Problem] = []
    lines: dict[str, str] = {}
    if not isinstance(users, (list, tuple)):
        raise NfsmailError([Problem("nfsmail_users", users, "a list of {name, password}", "write a list", SOURCE)])
    for number, user in enumerate(users):
        where = f"nfsmail_users[{number}]"
        name = str(user.get("name") or "") if isinstance(user, Mapping) else ""
        password = str(user.get("password") or "") if isinstance(user, Mapping) else ""
        if not name or re.search(r"^#|[:\s]", name):
            problems.append(
                Problem(f"{where}.name", name or None, "a name without colons and blanks", "correct it", SOURCE)
            )
        elif lowered(name) in lines:
            problems.append(Problem(f"{where}.name", name, "a user is listed once", "remove the double", SOURCE))
        if not re.match(r"\{[A-Za-z0-9._-]+\}[^:\s]+\Z", password):
            problems.append(
                Problem(
                    f"{where}.password",
                    "(hidden)" if password else None,
                    "a hash with its scheme in front, such as {SHA512-CRYPT}$6$...",
                    "make one with: doveadm pw -s SHA512-CRYPT",
                    SOURCE,
                )
            )
        lines[lowered(name)] = f"{lowered(name)}:{password}::::::"
    if problems:
        raise NfsmailError(problems)
    return [lines[name] for name in sorted(lines)]


def _head(plan: Mapping[str, Any]) -> list[Entry]:
    return [
        Entry("protocols", " ".join(as_list(plan["protocols"])), "What this machine serves."),
        Entry("listen", ", ".join(as_list(plan["listen"])), "The addresses it listens on."),
        Entry("auth_mechanisms", "plain login", "What mail clients speak inside TLS."),
    ]


def _mail(plan: Mapping[str, Any], profile: Profile) -> list[Entry]:
    home = translate("nfsmail_mail_home", str(plan["mail_home"]), profile.series)
    local = profile.index_location == "local"
    index = translate("nfsmail_index_path", str(plan["index_path"]), profile.series) if local else ""
    owner = [
        Entry("mail_uid", str(plan["mail_uid"]), "Mail belongs to this user on every machine and on the NFS server."),
        Entry("mail_gid", str(plan["mail_gid"])),
        Entry("first_valid_uid", str(plan["mail_uid"]), "Nobody else's files are ever opened."),
        Entry("last_valid_uid", str(plan["mail_uid"])),
        Entry("mail_home", home, "A user's files, on the mail store."),
    ]
    why_index = "Index files on this machine's own disk." if local else "Mail and index files on the mail store."
    folder = MAIL_DIR[profile.mailbox_format]
    if profile.series == "2.3":
        inbox = ":INBOX=~/inbox" if profile.mailbox_format == "mbox" else ""
        location = f"{profile.mailbox_format}:~/{folder}{inbox}" + (f":INDEX={index}" if local else "")
        return [*owner, Entry("mail_location", location, why_index)]
    lines = [
        Entry("mail_driver", profile.mailbox_format, why_index),
        Entry("mail_path", f"~/{folder}"),
    ]
    if profile.mailbox_format == "mbox":
        lines.append(Entry("mail_inbox_path", "~/inbox"))
    if local:
        lines.append(Entry("mail_index_path", index))
    return [*owner, *lines]


def _tls(plan: Mapping[str, Any], series: str) -> list[Entry]:
    ssl = str(plan["ssl"])
    lines = [Entry("ssl", ssl, "Passwords travel inside TLS, or from trusted proxies only.")]
    if ssl == "no":
        return lines
    cert, key = str(plan["ssl_cert"]), str(plan["ssl_key"])
    if series == "2.3":
        return [*lines, Entry("ssl_cert", f"<{cert}"), Entry("ssl_key", f"<{key}")]
    return [*lines, Entry("ssl_server_cert_file", cert), Entry("ssl_server_key_file", key)]


def _users_passdb(path: str, series: str, **more: str) -> Entry:
    extra = [Entry(name, value) for name, value in more.items()]
    if series == "2.3":
        args = Entry("args", f"username_format=%Lu {path}")
        return Entry("passdb passwd-file", (args, *extra), "The users and their passwords.")
    return Entry("passdb passwd-file", (Entry("passwd_file_path", path), *extra), "The users and their passwords.")


def _static_userdb(series: str, anyone: bool) -> Entry:
    why = (
        "Every user's mail has one owner; the proxy has checked that the user exists."
        if anyone
        else ("Every user's mail has one owner; the user must be in the password file.")
    )
    word = "yes" if anyone else "no"
    if series == "2.3":
        return Entry("userdb static", (Entry("args", f"allow_all_users={word}"),), why)
    return Entry("userdb static", (Entry("allow_all_users", word),), why)


def _backend_auth(plan: Mapping[str, Any], series: str) -> list[Entry]:
    proxies = as_list(plan["proxies"])
    if not proxies:
        return [_users_passdb(str(plan["users_file"]), series), _static_userdb(series, anyone=False)]
    secret = ssha512(_secret("nfsmail_proxy_password", plan["proxy_password"]), "backend")
    nets = ",".join([*proxies, "local"] if series == "2.4" else proxies)
    why = "Only the proxies log in, for any user, with the cluster's own password."
    if series == "2.3":
        passdb = Entry("passdb static", (Entry("args", f"password={secret} allow_real_nets={nets}"),), why)
    else:
        fields = Entry("fields", (Entry("allow_real_nets", nets),))
        passdb = Entry("passdb static", (Entry("password", secret), fields), why)
    trusted = Entry("login_trusted_networks", " ".join(proxies), "The proxies tell us the client's real address.")
    return [trusted, passdb, _static_userdb(series, anyone=True)]


def _listener(protocol: str, port: int) -> Entry:
    return Entry(f"inet_listener {protocol}", (Entry("port", str(port)),))


def _doveadm(plan: Mapping[str, Any], proxy: bool) -> list[Entry]:
    if not plan.get("doveadm_password"):
        return []
    secret = _secret("nfsmail_doveadm_password", plan["doveadm_password"])
    port = int(plan["doveadm_port"])
    lines = [
        Entry("doveadm_password", secret, "doveadm on a proxy runs on the user's own backend."),
        Entry("service doveadm", (_listener("doveadm", port),)),
    ]
    return [Entry("doveadm_port", str(port)), *lines] if proxy else lines


def _backend_services(plan: Mapping[str, Any]) -> list[Entry]:
    lmtp = Entry("service lmtp", (_listener("lmtp", int(plan["lmtp_port"])),), "Mail comes in by LMTP.")
    return [*([lmtp] if "lmtp" in plan["protocols"] else []), *_doveadm(plan, proxy=False)]


def _proxy_auth(plan: Mapping[str, Any], series: str) -> list[Entry]:
    secret = _secret("nfsmail_proxy_password", plan["proxy_password"])
    users = _users_passdb(str(plan["users_file"]), series, result_success="continue-ok")
    routes = [
        _route("overrides", "{user}", str(plan["overrides_file"]), secret, series, "Users pinned to a backend."),
        _route("shards", "{shard}", str(plan["shards_file"]), secret, series, "Everybody else: the shard's backend."),
    ]
    path = str(plan["users_file"])
    if series == "2.3":
        userdb = Entry("userdb passwd-file", (Entry("args", f"username_format=%Lu {path}"),), "Who exists.")
    else:
        userdb = Entry("userdb passwd-file", (Entry("passwd_file_path", path),), "Who exists.")
    return [users, *routes, userdb]


def _route(name: str, key: str, path: str, secret: str, series: str, why: str) -> Entry:
    username = translate(name, key, series)
    # Reached only by users whom the first passdb has accepted; the backend gets the cluster's password.
    skip = Entry("skip", "unauthenticated")
    if series == "2.3":
        return Entry(
            f"passdb {name}",
            (
                Entry("driver", "passwd-file"),
                Entry("args", f"username_format={username} {path}"),
                Entry("override_fields", f"pass={secret}"),
                skip,
            ),
            why,
        )
    fields = Entry("fields", (Entry("noauthenticate", "yes"), Entry("pass", secret)))
    return Entry(
        f"passdb {name}",
        (
            Entry("driver", "passwd-file"),
            Entry("passwd_file_path", path),
            Entry("auth_username_format", username),
            fields,
            skip,
        ),
        why,
    )


def _proxy_services(plan: Mapping[str, Any], version: str) -> list[Entry]:
    lines = [Entry("service lmtp", (_listener("lmtp", int(plan["lmtp_port"])),), "Mail comes in by LMTP.")]
    return [*(lines if "lmtp" in plan["protocols"] else []), *_doveadm(plan, proxy=True)]


def _inbox(series: str) -> Entry:
    folders = [("Drafts", "\\Drafts"), ("Junk", "\\Junk"), ("Sent", "\\Sent"), ("Trash", "\\Trash")]
    uses = [Entry(f"mailbox {name}", (Entry("special_use", use),)) for name, use in folders]
    return Entry("namespace inbox", (Entry("inbox", "yes"), *uses), "The usual folders, known to clients by their use.")


def _secret(variable: str, given: Any) -> str:
    secret = str(given or "")
    if SECRET.match(secret):
        return secret
    raise NfsmailError(
        [
            Problem(
                variable,
                "(hidden)" if secret else None,
                "at least 16 of the characters A-Z a-z 0-9 . _ ~ + / = -",
                "make one with: openssl rand -base64 33, and keep it in Ansible Vault",
                "Dovecot documentation, password databases: the value stands in a list that blanks divide",
            )
        ]
    )


def _settings_in(mapping: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting with its sections in front: one in ``protocol imap`` is in effect too."""
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            yield from _settings_in(value, f"{path}{name}/")
        else:
            yield f"{path}{name}", value


def _with_extra(variable: str, tree: list[Entry], plan: Mapping[str, Any]) -> list[Entry]:
    extra = plan.get("extra_settings") or {}
    ours = {entry.name for entry in tree if not isinstance(entry.value, tuple)}
    problems = [
        Problem(
            f"{variable}.{name}",
            value,
            "the matrix and the role's own variables decide this setting",
            "remove it, or change the variable or profile key it follows from",
            "docs: settings matrix",
        )
        for name, value in _settings_in(extra)
        if name in ours or name.rpartition("/")[2] in DEFAULTS
    ]
    if problems:
        raise NfsmailError(problems)
    more = [Entry(entry.name, entry.value, "From extra settings in the inventory.") for entry in entries(extra)]
    # A section the role already writes is extended, not written twice.
    by_name = {entry.name: entry for entry in more}
    merged = [
        Entry(entry.name, (*entry.value, *by_name.pop(entry.name).value), entry.why)
        if entry.name in by_name and isinstance(entry.value, tuple)
        else entry
        for entry in tree
    ]
    return [*merged, *by_name.values()]
