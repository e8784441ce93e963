# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who may log in, and who exists: a passwd-file, SQL, LDAP or PAM, in either dialect."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .dialect import Entry, to_doveconf
from .errors import NfsmailError, Problem, nearest
from .location import translate
from .profile import as_list, is_yes, series_of

KINDS = ("file", "sql", "ldap", "pam")
DOCS = "docs: logins"
# In 2.3 the settings of SQL and LDAP have a file of their own.
FILE = "/etc/dovecot/nfsmail-passdb.conf.ext"
FIELDS = ("{user}", "{name}", "{domain}")
# What neither dialect, nor a list that blanks divide, reads as anything else; nothing that could be a file or a variable.
PASSWORD = re.compile(r"[A-Za-z0-9._~+/=@:,!?*&^()|-]+\Z")
# Where a password that travels unencrypted leaves no machine.
NEAR = re.compile(r"ldap://(127\.\d+\.\d+\.\d+|\[::1\]|localhost)(:\d+)?/?\Z|ldapi:|ldaps:")
# Of a hash that does not name its own; 2.3 would take MD5 with SQL, 2.4 plain text.
SCHEME = "CRYPT"
WORD = r"[A-Za-z0-9._@+:/=-]+\Z"
PATH = r"/[^\s\"'\\#$%]+\Z"
TEXT = r"[^\"\\$%\r\n\0]+\Z"


@dataclass(frozen=True)
class Option:
    """One key of ``nfsmail_passdb_options``. ``of``: the kinds or SQL drivers that have it, and those that need it."""

    name: str
    of: tuple[str, ...]
    needed: tuple[str, ...]
    rule: str
    pattern: str
    kind: str = "text"


SERVERS = ("mysql", "pgsql")
OPTIONS = (
    Option("driver", ("sql",), ("sql",), "mysql, pgsql or sqlite", r"(mysql|pgsql|sqlite)\Z"),
    Option("hosts", SERVERS, SERVERS, "a list of names, addresses or socket paths", WORD, "list"),
    Option("port", SERVERS, (), "a port, 1 to 65535", r"[0-9]{1,5}\Z"),
    Option("database", SERVERS, SERVERS, "the name of the database", r"[A-Za-z0-9._-]+\Z"),
    Option("database", ("sqlite",), ("sqlite",), "the absolute path of the database, without blanks", PATH),
    Option("user", SERVERS, SERVERS, "the database's user, without blanks", WORD),
    Option("query", ("sql",), ("sql",), "one line that selects the field password of the user {user}, or {name}", TEXT),
    Option(
        "uris", ("ldap",), ("ldap",), "a list of ldap://, ldaps:// or ldapi://", r"ldap[si]?://[^\s\"'#$]*\Z", "list"
    ),
    Option("base", ("ldap",), ("ldap",), "the entry below which users are looked for", TEXT),
    Option("bind_dn", ("ldap",), (), "the entry that Dovecot looks users up as", TEXT),
    Option("filter", ("ldap",), ("ldap",), "one line in parentheses that finds {user}, or {name}", TEXT),
    Option("user_attribute", ("ldap",), (), "the attribute with the user's name", r"[A-Za-z][A-Za-z0-9;-]*\Z"),
    Option(
        "password_attribute",
        ("ldap",),
        (),
        "the attribute with the user's hash; without it the user's password is tried on the LDAP server",
        r"[A-Za-z][A-Za-z0-9;-]*\Z",
    ),
    Option("starttls", ("ldap",), (), "true or false", r"(?i:true|false|yes|no)\Z"),
    Option("ca", (*SERVERS, "ldap"), (), "an absolute path without blanks", PATH),
    Option("service", ("pam",), (), "the name of a file in /etc/pam.d", r"[A-Za-z0-9_-]+\Z"),
)


def kind_of(plan: Mapping[str, Any]) -> str:
    """Which database has the users' passwords."""
    return str(plan.get("passdb") or "file")


def problems(kind: Any, options: Any, password: Any, users: Any = (), topology: str = "") -> list[Problem]:
    """What is wrong with the three variables; ``users``: those of the inventory."""
    if kind not in KINDS:
        fix = f"did you mean {nearest(str(kind), KINDS)!r}?"
        return [Problem("nfsmail_passdb", kind, f"one of {', '.join(KINDS)}", fix, DOCS)]
    if not isinstance(options, Mapping):
        fix = "write one key: value a line"
        return [Problem("nfsmail_passdb_options", "(hidden)", "a mapping", fix, DOCS)]
    found = list(_strangers(kind, options))
    if kind != "file" and users:
        rule = f"users come from {kind}; this list is for nfsmail_passdb: file"
        found.append(Problem("nfsmail_users", "(hidden)", rule, "empty it, or set nfsmail_passdb to file", DOCS))
    if kind == "pam" and topology == "per_user":
        rule = "a proxy finds the backend of a delivery without a password, and PAM answers nobody without one"
        fix = "use sql, ldap or file; pam is for single and random"
        found.append(Problem("nfsmail_passdb", kind, rule, fix, DOCS))
    for option in _asked(kind, options):
        found += _value_problems(option, options)
    return found + list(_password_problems(kind, options, str(password or "")))


def _driver(options: Mapping[str, Any]) -> str:
    return str(options.get("driver") or "")


def _asked(kind: str, options: Mapping[str, Any]) -> list[Option]:
    return [option for option in OPTIONS if kind in option.of or (kind == "sql" and _driver(options) in option.of)]


def _strangers(kind: str, options: Mapping[str, Any]) -> Iterator[Problem]:
    known = {option.name for option in _asked(kind, options)}
    if kind == "sql" and _driver(options) not in (*SERVERS, "sqlite"):
        known = {option.name for option in OPTIONS}  # the driver is told, and the rest follows from it
    for name in options:
        if str(name) in known:
            continue
        where = f"nfsmail_passdb_options.{name}"
        if "pass" in str(name):
            rule = "the password has a variable of its own, which is never shown"
            yield Problem(where, "(hidden)", rule, "move it to nfsmail_passdb_password, in Ansible Vault", DOCS)
            continue
        what = f"{kind}, driver {_driver(options)}" if kind == "sql" else kind
        rule = f"an option of nfsmail_passdb: {what}" if known else f"nfsmail_passdb: {kind} has no options"
        fix = (
            f"did you mean {nearest(str(name), known)!r}?" if known else "remove it, or set nfsmail_passdb to its kind"
        )
        yield Problem(where, "(hidden)", rule, fix, DOCS)


def _value_problems(option: Option, options: Mapping[str, Any]) -> Iterator[Problem]:
    where, given = f"nfsmail_passdb_options.{option.name}", options.get(option.name)
    empty = given in (None, "", [], ())
    if empty:
        if option.needed:
            yield Problem(where, None, option.rule, "set it", DOCS)
        return
    words = as_list(given) if option.kind == "list" and isinstance(given, (list, tuple, str)) else [given]
    if not all(isinstance(word, (str, int)) and re.match(option.pattern, str(word)) for word in words) or (
        option.name == "port" and not 1 <= int(str(given)) <= 65535
    ):
        yield Problem(where, given, option.rule, "correct it", DOCS)
    elif option.name in ("query", "filter"):
        yield from _template_problems(option, where, str(given))


def _template_problems(option: Option, where: str, text: str) -> Iterator[Problem]:
    words = set(re.findall(r"\{[^{}]*\}", text))
    if words - set(FIELDS) or not words & {"{user}", "{name}"}:
        fix = "use these words; Dovecot makes quotes and parentheses in names harmless"
        yield Problem(where, text, f"the user is written {', '.join(FIELDS)}", fix, DOCS)
    if option.name == "query" and not re.search(r"\bpassword\b", text, re.IGNORECASE):
        yield Problem(where, text, "Dovecot reads the field password", "select another column AS password", DOCS)
    if option.name == "filter" and not re.match(r"\(.*\)\Z", text):
        yield Problem(where, text, option.rule, "put parentheses around it", DOCS)


def _password_problems(kind: str, options: Mapping[str, Any], password: str) -> Iterator[Problem]:
    where, shown = "nfsmail_passdb_password", "(hidden)" if password else None
    rule = "letters, digits and . _ ~ + / = @ : , ! ? * & ^ ( ) | -"
    needed = (kind == "sql" and _driver(options) in SERVERS) or (kind == "ldap" and bool(options.get("bind_dn")))
    if password and not needed:
        why = (
            f"nfsmail_passdb: {kind} logs in nowhere" if kind != "ldap" else "without bind_dn nobody has this password"
        )
        yield Problem(where, shown, why, "remove it, or name whose password it is", DOCS)
    elif needed and not PASSWORD.match(password):
        yield Problem(
            where, shown, rule, "set the password of the user that reads the database, in Ansible Vault", DOCS
        )
    encrypted = is_yes(options.get("starttls")) or any(uri.startswith("ldaps:") for uri in as_list(options.get("uris")))
    if kind == "ldap" and encrypted and not options.get("ca"):
        rule = "TLS is of use only with a server whose certificate is checked"
        yield Problem(
            "nfsmail_passdb_options.ca", None, rule, "name the file of the authority, /etc/ssl/certs/ca.pem", DOCS
        )
    if (
        kind == "ldap"
        and is_yes(options.get("starttls"))
        and any("ldaps:" in one for one in as_list(options.get("uris")))
    ):
        rule = "ldaps:// is TLS already"
        yield Problem("nfsmail_passdb_options.starttls", options["starttls"], rule, "remove it, or write ldap://", DOCS)


def notes(variables: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """What an operator should know of databases that are not refused."""
    kind, options = variables.get("nfsmail_passdb"), variables.get("nfsmail_passdb_options")
    if kind == "ldap" and isinstance(options, Mapping) and not is_yes(options.get("starttls")):
        if not all(NEAR.match(uri) for uri in as_list(options.get("uris"))):
            yield {
                "id": "NFS252",
                "level": "warning",
                "message": "nfsmail_passdb_options.uris has ldap:// without TLS: passwords go over the network as they are.",
                "fix": "set starttls: true and ca, or use ldaps:// with ca",
                "source": DOCS,
            }
    if kind not in (None, "file") and variables.get("nfsmail_mailbox_format") == "mdbox":
        yield {
            "id": "NFS253",
            "level": "warning",
            "message": f"nfsmail_passdb is {kind}, which lists no users: the scheduled purge of mdbox finds them in "
            "nfsmail_users_file only.",
            "fix": "keep the names in that file yourself, one a line; passwords are not read there",
            "source": DOCS,
        }


def passdb_conf(plan: Mapping[str, Any]) -> str:
    """The file that Dovecot 2.3 reads SQL's or LDAP's settings from; empty where there is none, as with 2.4."""
    kind = kind_of(plan)
    # A proxy's plan has its release; a backend's has it in the profile, and asks only where users log in there.
    version = str(plan.get("version") or plan["profile"]["dovecot_version"])
    behind = "version" not in plan and as_list(plan["proxies"])
    if kind not in ("sql", "ldap") or series_of(version) == "2.4" or behind:
        return ""
    return to_doveconf(_file_23(plan), version)


def passdbs(plan: Mapping[str, Any], series: str, proxy: bool) -> list[Entry]:
    """Who says whether a password is right; a proxy goes on from there to who knows the backend."""
    kind, options = kind_of(plan), _options(plan)
    more = [Entry("result_success", "continue-ok")] if proxy else []
    if kind == "file":
        return [_users(plan, series, more)]
    if kind == "pam":
        return [_pam(options, series)]
    if series == "2.3":
        digest = hashlib.sha256(passdb_conf(plan).encode()).hexdigest()[:16]
        # The digest makes this file differ, so that Dovecot is reloaded, where only the other one does.
        why = f"The users and their passwords; the file begins its SHA-256 with {digest}."
        return [Entry(f"passdb {kind}", (Entry("args", FILE), *more), why)]
    inner = _sql_24(plan, options) if kind == "sql" else _ldap_24(plan, options)
    return [Entry(f"passdb {kind}", (*inner, *more), "The users and their passwords.")]


def userdbs(plan: Mapping[str, Any], series: str, proxy: bool, home: str = "") -> list[Entry]:
    """Who exists, and on a backend (``home``: in the words of the dialect) whose the mail is."""
    kind = kind_of(plan)
    if kind == "pam":
        return [_system_users(plan, series, home)]
    if proxy and kind == "file":
        return [_users_exist(str(plan["users_file"]), series)]
    # It asks the password database, without a password.
    if proxy and series == "2.3":
        return [Entry("userdb static", (Entry("args", "allow_all_users=no"),), "Who exists.")]
    if proxy:
        return [Entry("userdb static", (Entry("allow_all_users", "no"),), "Who exists.")]
    return [static_userdb(plan, series, anyone=False)]


def static_userdb(plan: Mapping[str, Any], series: str, anyone: bool) -> Entry:
    """One owner for all mail."""
    why = (
        "Every user's mail has one owner; the proxy has checked that the user exists."
        if anyone
        else (
            "Every user's mail has one owner; the user must be in the password "
            f"{'file' if kind_of(plan) == 'file' else 'database'}."
        )
    )
    word = "yes" if anyone else "no"
    # dovecot-lda, run as the owner of the mail, may look up only what has the owner in the answer.
    uid, gid = str(plan["mail_uid"]), str(plan["mail_gid"])
    if series == "2.3":
        return Entry("userdb static", (Entry("args", f"allow_all_users={word} uid={uid} gid={gid}"),), why)
    fields = Entry("fields", (Entry("uid", uid), Entry("gid", gid)))
    return Entry("userdb static", (Entry("allow_all_users", word), fields), why)


def _options(plan: Mapping[str, Any]) -> Mapping[str, Any]:
    kind, options = kind_of(plan), plan.get("passdb_options") or {}
    if kind != "file" and (wrong := problems(kind, options, plan.get("passdb_password"))):
        raise NfsmailError(wrong)
    return options if isinstance(options, Mapping) else {}


def _users(plan: Mapping[str, Any], series: str, more: list[Entry]) -> Entry:
    path, why = str(plan["users_file"]), "The users and their passwords."
    if series == "2.3":
        return Entry("passdb passwd-file", (Entry("args", f"username_format=%Lu {path}"), *more), why)
    return Entry("passdb passwd-file", (Entry("passwd_file_path", path), *more), why)


def _users_exist(path: str, series: str) -> Entry:
    if series == "2.3":
        return Entry("userdb passwd-file", (Entry("args", f"username_format=%Lu {path}"),), "Who exists.")
    return Entry("userdb passwd-file", (Entry("passwd_file_path", path),), "Who exists.")


def _pam(options: Mapping[str, Any], series: str) -> Entry:
    service = str(options.get("service") or "dovecot")
    named = Entry("args", service) if series == "2.3" else Entry("service_name", service)
    return Entry("passdb pam", (named,), "The system's users and their passwords.")


def _system_users(plan: Mapping[str, Any], series: str, home: str) -> Entry:
    owner = {"uid": str(plan["mail_uid"]), "gid": str(plan["mail_gid"]), "home": home}
    why = "Who exists; the mail has one owner, and does not lie where the system has the user's home."
    if series == "2.3":
        text = " ".join(f"{name}={value}" for name, value in owner.items())
        return Entry("userdb passwd", (Entry("override_fields", text),), why)
    return Entry("userdb passwd", (Entry("fields", tuple(Entry(name, value) for name, value in owner.items())),), why)


def _sql_24(plan: Mapping[str, Any], options: Mapping[str, Any]) -> list[Entry]:
    driver, database, ca = _driver(options), str(options["database"]), str(options.get("ca") or "")
    query = Entry("query", translate("nfsmail_passdb_options.query", str(options["query"]), "2.4"))
    scheme = Entry("default_password_scheme", SCHEME)
    if driver == "sqlite":
        return [
            Entry("sql_driver", driver),
            Entry("sqlite_path", database),
            Entry("sqlite_readonly", "yes"),
            scheme,
            query,
        ]
    lines = {"user": str(options["user"]), "password": str(plan["passdb_password"]), "dbname": database}
    if options.get("port"):
        lines["port"] = str(options["port"])
    if ca:
        encrypted = {"ssl": "yes", "ssl_client_ca_file": ca}
        lines |= encrypted if driver == "mysql" else {"sslmode": "verify-full", "sslrootcert": ca}
    inner = tuple(Entry(name, value) for name, value in lines.items())
    servers = [
        Entry(f"{driver} {host}", inner if driver == "mysql" else (Entry("parameters", inner),))
        for host in as_list(options["hosts"])
    ]
    return [Entry("sql_driver", driver), *servers, scheme, query]


def _ldap_24(plan: Mapping[str, Any], options: Mapping[str, Any]) -> list[Entry]:
    lines = {"ldap_uris": " ".join(as_list(options["uris"])), "ldap_base": str(options["base"])}
    if options.get("bind_dn"):
        lines |= {"ldap_auth_dn": str(options["bind_dn"]), "ldap_auth_dn_password": str(plan["passdb_password"])}
    if is_yes(options.get("starttls")):
        lines["ldap_starttls"] = "yes"
    if options.get("ca"):
        lines["ssl_client_ca_file"] = str(options["ca"])
    lines["filter"] = translate("nfsmail_passdb_options.filter", str(options["filter"]), "2.4")
    if not options.get("password_attribute"):
        lines["bind"] = "yes"
    fields = {}
    if options.get("user_attribute"):
        fields["user"] = f"%{{ldap:{options['user_attribute']}}}"
    if options.get("password_attribute"):
        lines["default_password_scheme"] = SCHEME
        fields["password"] = f"%{{ldap:{options['password_attribute']}}}"
    found = [Entry(name, value) for name, value in lines.items()]
    return [*found, *([Entry("fields", tuple(Entry(name, text) for name, text in fields.items()))] if fields else [])]


def _file_23(plan: Mapping[str, Any]) -> list[Entry]:
    options = _options(plan)
    lines = _sql_23(plan, options) if kind_of(plan) == "sql" else _ldap_23(plan, options)
    return [Entry(name, value) for name, value in lines.items()]


def _sql_23(plan: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, str]:
    driver, database, ca = _driver(options), str(options["database"]), str(options.get("ca") or "")
    query = translate("nfsmail_passdb_options.query", str(options["query"]), "2.3")
    if driver == "sqlite":
        connect = database
    else:
        words = [f"host={host}" for host in as_list(options["hosts"])]
        words += [f"port={options['port']}"] if options.get("port") else []
        words += [f"dbname={database}", f"user={options['user']}", f"password={plan['passdb_password']}"]
        if ca:
            words += {
                "mysql": [f"ssl_ca={ca}", "ssl_verify_server_cert=yes"],
                "pgsql": ["sslmode=verify-full", f"sslrootcert={ca}"],
            }[driver]
        connect = " ".join(words)
    return {"driver": driver, "connect": connect, "default_pass_scheme": SCHEME, "password_query": query}


def _ldap_23(plan: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, str]:
    lines = {"uris": " ".join(as_list(options["uris"])), "base": str(options["base"])}
    if options.get("bind_dn"):
        lines |= {"dn": str(options["bind_dn"]), "dnpass": str(plan["passdb_password"])}
    if is_yes(options.get("starttls")):
        lines["tls"] = "yes"
    if options.get("ca"):
        lines |= {"tls_ca_cert_file": str(options["ca"]), "tls_require_cert": "demand"}
    fields = {"user": options.get("user_attribute"), "password": options.get("password_attribute")}
    # Never left out: by default it would be uid=user, and mail would go to another name than the one that logs in.
    lines["pass_attrs"] = (
        ",".join(f"{attribute}={field}" for field, attribute in fields.items() if attribute) or "=ok=yes"
    )
    lines["pass_filter"] = translate("nfsmail_passdb_options.filter", str(options["filter"]), "2.3")
    return lines | ({"default_pass_scheme": SCHEME} if options.get("password_attribute") else {"auth_bind": "yes"})
