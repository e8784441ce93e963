# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Password and user databases of Dovecot 2.3 as 2.4 writes them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from .catalogue import SHARD_MAP
from .dialect import Entry
from .upgrade_location import parts
from .upgrade_run import Path, Run, Section, block, entry, is_yes, leaves
from .upgrade_tables import DATABASE_GONE, DATABASE_SAME, Gone

SOURCE = "Dovecot documentation, password databases and user databases"
PROXY = "Dovecot documentation, proxying: SSL"
_SCHEME = "default_password_scheme"
# Drivers whose settings are in a file of their own, and what of it goes where.
_FILES: Mapping[str, tuple[str, str]] = {
    "sql": (
        "sql_driver and a block mysql HOST { }, pgsql HOST { } or sqlite { } with the connection, query, for a userdb also"
        " iterate_query; default_pass_scheme becomes default_password_scheme",
        "Dovecot documentation, SQL authentication",
    ),
    "ldap": (
        "ldap_uris, ldap_auth_dn, ldap_auth_dn_password, ldap_base; pass_filter and user_filter become filter; pass_attrs and"
        " user_attrs become fields { }",
        "Dovecot documentation, LDAP authentication",
    ),
    "oauth2": ("oauth2_* settings within oauth2 { }", "Dovecot documentation, OAuth2 authentication"),
}
_PAM = {
    "session": "session",
    "setcred": "setcred",
    "failure_show_msg": "failure_show_msg",
    "max_requests": "max_requests",
}
# Fields that the quota plugin of 2.3 took from a user database.
_QUOTA_RULE = re.compile(r"quota_rule\d*\Z")
_PLAIN_RULE = re.compile(r"\*:(storage|messages)=(\d+[BKMGTbkmgt]?)\Z")
QUOTA_SIZES = {"storage": "quota_storage_size", "messages": "quota_message_count"}
_HALF = Gone(
    "a part of it cannot be translated, and without that part it might let the wrong people in: all of it is left out",
    "write the database by hand",
    SOURCE,
    "error",
)


def databases(run: Run, found: Iterable[tuple[str, str, Section]]) -> list[Entry]:
    """All passdb and userdb sections, in their order; 2.4 wants a name for each."""
    used: set[tuple[str, str]] = set()
    lines = []
    for kind, _, section in found:
        content = dict(section.rest)
        driver = section.take("driver") or "pam"
        where = (*section.path, "driver")
        if driver in DATABASE_GONE:
            section.rest.clear()
            gone = Gone(DATABASE_GONE[driver], "write another database, for example a Lua one", level="error")
            lines += run.attention(section.path, content, gone)
            _denied(run, section.path, content)
            continue
        wished = re.sub(r"[^A-Za-z0-9_.-]", "-", (section.take("name") or driver).strip()) or driver
        name, number = wished, 1
        while (kind, name) in used:
            number += 1
            name = f"{wished}{number}"
        used.add((kind, name))
        run.became(where, name if name == driver else "driver")
        if (*section.path, "name") not in run.fates and wished != driver:
            run.became((*section.path, "name"), name)
        inner = [Entry("driver", driver)] if name != driver else []
        inner += _settings(run, kind, driver, section)
        inside = [path for path in run.fates if path[: len(section.path)] == section.path]
        # A file of its own is told of already; the block stays, as the place to write its settings into.
        args = (*section.path, "args") if driver in _FILES else ()
        if any(run.fates[path].how == "attention" and path != args for path in inside):
            for path in leaves(content, section.path):
                run.fates.pop(path, None)
            lines += run.attention(section.path, content, _HALF)
            _denied(run, section.path, content)
        else:
            lines.append(block(kind, name, inner))
    return lines


def _denied(run: Run, path: Path, content: Mapping[str, Any]) -> None:
    if is_yes(str(content.get("deny", "no"))):
        fix = "write the database by hand before anybody logs in"
        run.note("error", path, "deny = yes", "whom it kept out is let in without it", fix, SOURCE)


def _settings(run: Run, kind: str, driver: str, section: Section) -> list[Entry]:
    lines: list[Entry] = []
    fields: dict[str, str] = {}
    args = section.take("args")
    if args is not None:
        lines += _args(run, kind, driver, section, args, fields)
    for name, ending in (("default_fields", ":default"), ("override_fields", "")):
        text = section.take(name)
        if text is not None:
            _fields(run, kind, section, name, words_of_fields(text), fields, ending)
    renamed = {"mechanisms": "mechanisms_filter", "pass": "result_success", "username_filter": "username_filter"}
    for name in section.names():
        value = section.rest[name]
        path = (*section.path, name)
        if name == "pass" and (value == "no" or is_yes(value)):
            section.take(name)
            # The next database is asked too.
            lines += run.write(path, "result_success", "continue") if is_yes(value) else []
            run.became(path, *(["result_success"] if is_yes(value) else []))
        elif name in DATABASE_SAME or name in renamed:
            section.take(name)
            lines += run.write(path, renamed.get(name, name), value)
    if fields:
        lines.append(entry("fields", [Entry(name, text) for name, text in fields.items()]))
    if kind == "passdb":
        _proxy(run, section, fields)
    return lines + run.unknown(section)


def _args(run: Run, kind: str, driver: str, section: Section, args: str, fields: dict[str, str]) -> list[Entry]:
    path = (*section.path, "args")
    if driver in _FILES:
        what, source = _FILES[driver]
        return run.attention(
            path,
            args,
            Gone(
                f"the file {args} is not read any more, and nobody can log in or be found by it until its settings are here",
                f"write into this block or at the top: {what}",
                source,
                "error",
            ),
        )
    lines: list[Entry] = []
    if driver == "passwd-file":
        given, rest = _options(args, ("scheme", "username_format"))
        texts = {"passwd_file_path": rest}
        if "scheme" in given:
            texts[_SCHEME] = given["scheme"]
        if "username_format" in given:
            texts["auth_username_format"] = given["username_format"]
        for name, text in texts.items():
            told = run.expanded(path, text, auth=True)
            lines += [Entry(name, told)] if told is not None else []
    elif driver == "static":
        pairs = [_pair(word) for word in args.split()]
        taken = "password" if kind == "passdb" else "allow_all_users"
        for name, text in pairs:
            if name == taken:
                told = run.expanded(path, text, auth=True)
                lines += [Entry(name, told)] if told is not None else []
        _fields(run, kind, section, "args", [pair for pair in pairs if pair[0] != taken], fields, "")
    elif driver == "pam":
        lines += _pam(run, section, args)
    elif driver == "lua":
        lines += _lua(run, section, args)
    elif driver in ("passwd", "prefetch") and args.strip() in ("", "blocking=no", "blocking=yes"):
        lines += [Entry("use_worker", "no")] if args.strip() == "blocking=no" else []
    else:
        return run.attention(
            path,
            args,
            Gone(f"args of {driver} are not known here", "look them up and write them by hand", SOURCE, "error"),
        )
    if path not in run.fates:
        inner = [f"fields/{name}" for name in fields] if driver == "static" else []
        run.became(path, *(line.name for line in lines if line.name), *inner)
    return lines


def _pam(run: Run, section: Section, args: str) -> list[Entry]:
    lines = []
    path = (*section.path, "args")
    for word in args.split():
        name, text = _pair(word)
        if word == "-session":
            name, text = "session", "yes"
        if (name in _PAM and "=" in word) or word == "-session":
            lines.append(Entry(_PAM[name], text))
        elif name in ("cache_key", "blocking"):
            run.note("warning", path, args, f"2.4 has no {name} for pam", "see auth_cache_size and use_worker", SOURCE)
        else:
            told = "%{protocol}" if word == "*" else run.expanded(path, word, auth=True)
            lines += [Entry("service_name", told)] if told is not None else []
    return lines


def _lua(run: Run, section: Section, args: str) -> list[Entry]:
    lines, more = [], []
    for word in args.split():
        name, text = _pair(word)
        if name == "file":
            lines.append(Entry("lua_file", text))
        elif name == "blocking":
            lines.append(Entry("use_worker", "yes" if is_yes(text) else "no"))
        else:
            more.append(Entry(name, text))
    run.note(
        "warning",
        (*section.path, "args"),
        args,
        "2.4 calls script_init, not auth_passdb_init, and a cache key in a setting is not read",
        "try the script with 2.4 before it is trusted with logins",
        "Dovecot documentation, Lua authentication",
    )
    return [*lines, entry("lua_settings", more)] if more else lines


def _fields(
    run: Run,
    kind: str,
    section: Section,
    setting: str,
    pairs: Iterable[tuple[str, str]],
    fields: dict[str, str],
    ending: str,
) -> None:
    path = (*section.path, setting)
    for name, text in pairs:
        told = run.expanded(path, text, auth=True)
        if told is None:
            continue
        user_field = name.removeprefix("userdb_") if kind == "passdb" else name
        prefix = name[: len(name) - len(user_field)]
        ours = prefix or kind == "userdb"
        if ours and user_field == "mail":
            found, strange = parts(told)
            for part, where in found.items():
                fields[f"{prefix}{part}{ending}"] = where
            if strange or not found:
                _field_note(run, path, name, text, "write mail_driver and mail_path")
        elif ours and _QUOTA_RULE.match(user_field):
            rule = _PLAIN_RULE.match(text)
            if rule:
                fields[f"{prefix}{QUOTA_SIZES[rule[1]]}{ending}"] = rule[2]
            else:
                _field_note(run, path, name, text, "return quota_storage_size and quota_message_count")
        else:
            if ours and user_field not in _USER_FIELDS:
                _field_note(run, path, name, text, "see whether 2.4 has a setting of this name")
            fields[f"{name.replace(':protected', ':default')}{ending}"] = told
    if path not in run.fates:
        run.became(path, *(f"fields/{name}" for name in fields))


_USER_FIELDS = frozenset(
    [
        "uid",
        "gid",
        "home",
        "chroot",
        "system_groups_user",
        "nice",
        "nologin",
        "noreplicate",
        "user",
        "username",
        "domain",
        "password",
        "proxy",
        "host",
        "port",
        "pass",
        "proxy_maybe",
        "allow_nets",
    ]
)


def _field_note(run: Run, path: tuple[str, ...], name: str, text: str, fix: str) -> None:
    run.note("warning", path, f"{name}={text}", f"the field {name} has another meaning or name in 2.4", fix, SOURCE)


def _proxy(run: Run, section: Section, fields: Mapping[str, str]) -> None:
    """What becomes of a passdb that sends users to another machine."""
    bare = {name.partition(":")[0]: value for name, value in fields.items()}
    if not ({"proxy", "proxy_maybe", "proxy_always"} & set(bare)):
        return
    path = (*section.path, "args")
    if "host" not in bare:
        run.note(
            "error",
            path,
            "proxy without host",
            "a director chose the backend; 2.4 has none, and nobody can log in",
            SHARD_MAP,
            "Dovecot NEWS, 2.4.0",
        )
    secured = [name for name in ("ssl", "starttls") if name in bare]
    if not secured:
        run.note(
            "warning",
            path,
            "no ssl, no starttls",
            "passwords and mail go to the backend without TLS, as before; a 2.4 backend with ssl = required refuses that"
            " even from login_trusted_networks",
            "keep that network private, or return ssl=yes or starttls=yes and name the CA in ssl_client_ca_file",
            PROXY,
        )
    else:
        run.note(
            "warning",
            path,
            ", ".join(f"{name}={bare[name]}" for name in secured),
            "2.4 checks the backend's certificate unless the value is any-cert; login processes do not see"
            " ssl_client_ca_dir, as they run in a chroot",
            "name the CA in ssl_client_ca_file, and return a host that is in the certificate",
            PROXY,
        )


def _options(text: str, known: Iterable[str]) -> tuple[dict[str, str], str]:
    """``key=value`` in front of a path, and the path."""
    found: dict[str, str] = {}
    rest = text.strip()
    while (match := re.match(r"(\w+)=(\S*)\s+", rest)) and match[1] in known:
        found[match[1]] = match[2]
        rest = rest[match.end() :]
    return found, rest


def _pair(word: str) -> tuple[str, str]:
    name, sign, value = word.partition("=")
    return name, value if sign else "yes"


def words_of_fields(text: str) -> list[tuple[str, str]]:
    """``a=b c=d`` as pairs."""
    return [_pair(word) for word in text.split()]
