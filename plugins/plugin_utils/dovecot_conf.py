# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whole ``dovecot.conf`` files, backend and proxy, in either dialect, each line with its reason."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import starmap
from typing import Any

from ..module_utils._indexes import location as location_of
from . import director, features, location, logins, metrics
from .dialect import Entry, entries, to_doveconf
from .errors import NfsmailError, Problem
from .location import translate
from .matrix import finding_problem, in_range, matching, written_findings
from .profile import Profile, as_list, parse_profile, series_of
from .protocols import served
from .rules import RULES
from .shards import lookup_key, lowered

SOURCE = "Dovecot documentation"
SECRET = re.compile(r"[A-Za-z0-9._~+/=-]{16,}\Z")
# The escape hatches of the two roles.
EXTRA_VARIABLES = {"backend": "dovecot_extra_settings", "proxy": "dovecot_proxy_extra_settings"}
TLS_VARIABLES = {"backend": "dovecot_ssl", "proxy": "dovecot_proxy_ssl"}
BALANCED_SOURCE = "measured: logins of 2.3.13, 2.3.19 and 2.4.1 behind HAProxy; Dovecot source, client-common.c"
# What roles write beside dovecot.conf, and dovecot.conf names.
PLACES: Mapping[str, str] = {"passdb": logins.FILE, "sieve": features.SIEVE_DIRECTORY}
# Settings that rules of the matrix write: nobody else may, in no section.
MATRIX_OWNED = frozenset(rule.target for rule in RULES if rule.effect == "set")
# In front of a key, so that logins and mail are told apart; never a word for paths.
SERVICE = {"2.3": "%s/", "2.4": "%{protocol}/"}
SHARD_SERVICE = {series: f"{prefix}/" for series, prefix in SERVICE.items()}


def ssha512(password: str, salt_seed: str) -> str:
    """A salted hash that is the same on every run (the salt follows from the seed)."""
    salt = hashlib.sha256(f"nfsmail {salt_seed} {password}".encode()).digest()[:8]
    digest = hashlib.sha512(password.encode() + salt).digest()
    return "{SSHA512}" + base64.b64encode(digest + salt).decode()


def dovecot_place(name: str) -> str:
    """The path of a file or directory that ``dovecot.conf`` names and a role writes."""
    if name in PLACES:
        return PLACES[name]
    raise NfsmailError([Problem("place", name, f"one of {', '.join(PLACES)}", "correct it", "design")])


def backend_conf(plan: Mapping[str, Any]) -> str:
    """A backend's ``dovecot.conf`` from the role's variables (``roles/dovecot/vars``)."""
    profile = parse_profile(plan["profile"])
    return to_doveconf(_with_extra(_backend(plan, profile), plan, profile, "backend"), profile.dovecot_version)


def mail_location(plan: Mapping[str, Any]) -> dict[str, str]:
    """Where that file has mail and indexes, in our words; extra settings count."""
    return location_of(backend_conf(plan))


def proxy_conf(plan: Mapping[str, Any]) -> str:
    """A proxy's ``dovecot.conf`` from the role's variables (``roles/dovecot_proxy/vars``)."""
    profile = Profile(topology="per_user", dovecot_version=str(plan["version"]))
    return to_doveconf(_with_extra(_proxy(plan, profile), plan, profile, "proxy"), profile.dovecot_version)


@cache
def always_written(kind: str, series: str) -> frozenset[str]:
    """The settings that a role writes whatever its variables are."""
    profile = Profile(dovecot_version=series)
    plan = dict.fromkeys(("listen", "mail_uid", "mail_gid", "doveadm_password", "users_file", "overrides_file"), "")
    plan |= {
        "mail_home": "/{user}",
        "index_path": "/{user}",
        "ssl": "no",
        "protocols": "",
        "proxies": "",
        "balancers": "",
        "shards_file": "",
        "moving_file": "",
    }
    tree = _backend(plan, profile) if kind == "backend" else _proxy({**plan, "proxy_password": "x" * 16}, profile)
    return frozenset(entry.name for entry in tree if not isinstance(entry.value, tuple))


def _backend(plan: Mapping[str, Any], profile: Profile) -> list[Entry]:
    tree = [
        *_head(plan, profile.series),
        *_mail(plan, profile),
        *(Entry(rule.target, rule.value, rule.text) for rule in matching(profile, "set")),
        *_features(plan, profile),
        *_delivery(plan, profile),
        *_tls(plan, profile.series, TLS_VARIABLES["backend"]),
        *_balancers(plan),
        *_backend_auth(plan, profile.series),
        *_backend_services(plan, profile.series),
        *metrics.dovecot_entries(plan, profile.dovecot_version, "backend"),
        _inbox(profile.series),
    ]
    return features.joined(tree)


def _features(plan: Mapping[str, Any], profile: Profile) -> list[Entry]:
    """What the cluster's variables ask for (``plan["cluster"]``), with the plugins of the extra settings."""
    told, extra = plan.get("cluster") or {}, plan.get("extra_settings")
    _, more = features.plugins_of(EXTRA_VARIABLES["backend"], extra, profile.series, told)
    return features.entries(told, profile, as_list(plan["protocols"]), more)


def feature_conf(told: Mapping[str, Any], profile: Profile, chosen: Sequence[features.Feature]) -> dict[str, Any]:
    """What features write, beside what rules about them look at: the matrix' settings and the mailbox location."""
    plan = {
        name: told.get(f"nfsmail_{name}") or "" for name in ("protocols", "mail_home", "index_path", "volatile_path")
    }
    tree = [
        *_mail({**plan, "mail_uid": "", "mail_gid": ""}, profile),
        *(Entry(rule.target, rule.value) for rule in matching(profile, "set")),
        *features.entries(told, profile, as_list(plan["protocols"]), features=chosen),
        *_delivery(plan, profile),
    ]
    return _as_mapping(features.joined(tree))


def _proxy(plan: Mapping[str, Any], profile: Profile) -> list[Entry]:
    return [
        *_head(plan, profile.series),
        Entry("lmtp_proxy", "yes", "Hand each recipient's message to the recipient's own backend."),
        *_tls(plan, profile.series, TLS_VARIABLES["proxy"]),
        *_backend_tls(plan, profile.series),
        *_balancers(plan),
        *_proxy_auth(plan, profile.series),
        *_proxy_services(plan, profile.dovecot_version),
        *metrics.dovecot_entries(plan, profile.dovecot_version, "proxy"),
    ]


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
        lines[lowered(name)] = f"{lookup_key(name)}:{password}::::::"
    if problems:
        raise NfsmailError(problems)
    return [lines[name] for name in sorted(lines)]


def _head(plan: Mapping[str, Any], series: str) -> list[Entry]:
    pinned = str(plan.get("config_version") or "") if series == "2.4" else ""
    versions = [
        Entry("dovecot_config_version", pinned, "The same on all hosts with 2.4."),
        Entry("dovecot_storage_version", pinned),
    ]
    return [
        *(versions if pinned else ()),
        Entry("protocols", " ".join(as_list(plan["protocols"])), "What this machine serves."),
        Entry("listen", ", ".join(as_list(plan["listen"])), "The addresses it listens on."),
        Entry("auth_mechanisms", "plain login", "What mail clients speak inside TLS."),
    ]


def _mail(plan: Mapping[str, Any], profile: Profile) -> list[Entry]:
    home = translate("nfsmail_mail_home", str(plan["mail_home"]), profile.series)
    local = profile.index_location == "local"
    index = translate("nfsmail_index_path", str(plan["index_path"]), profile.series) if local else ""
    volatile = translate("nfsmail_volatile_path", str(plan.get("volatile_path") or ""), profile.series)
    owner = [
        Entry("mail_uid", str(plan["mail_uid"]), "Mail belongs to this user on every machine and on the NFS server."),
        Entry("mail_gid", str(plan["mail_gid"])),
        Entry("first_valid_uid", str(plan["mail_uid"]), "Nobody else's files are ever opened."),
        Entry("last_valid_uid", str(plan["mail_uid"])),
        Entry("mail_home", home, "A user's files, on the mail store."),
    ]
    why = "Index files on this machine's own disk." if local else "Mail and index files on the mail store."
    if volatile:
        why += "\nSome locks are in a directory of this machine's own."
    written = _location(profile, {"mail_index_path": index, "mail_volatile_path": volatile})
    return [
        *owner,
        *(Entry(name, value, why if not number else "") for number, (name, value) in enumerate(written.items())),
    ]


def _location(profile: Profile, parts: Mapping[str, str]) -> dict[str, str]:
    return location.within("~", profile.mailbox_format, parts, profile.series)


def _delivery(plan: Mapping[str, Any], profile: Profile) -> list[Entry]:
    """Parts of the mailbox location that hold while mail is delivered; 2.3 has them in one setting, so it is written again."""
    found = []
    for rule in matching(profile, "delivery"):
        section, _, part = rule.target.rpartition("/")
        if section.partition(" ")[2] in ("lda", *as_list(plan["protocols"])):
            written = _location(profile, {part: rule.value}) if profile.series == "2.3" else {part: rule.value}
            found.append(Entry(section, tuple(Entry(name, value) for name, value in written.items()), rule.text))
    return found


def balanced_tls_problems(variable: str, ssl: Any) -> list[Problem]:
    """What is wrong with the TLS of a machine that balancers connect to."""
    if str(ssl) != "no":
        return []
    rule = "behind balancers Dovecot 2.4 takes passwords without TLS unless TLS is required, and 2.3 takes none at all"
    return [Problem(variable, "no", rule, "use yes or required", BALANCED_SOURCE)]


def _tls(plan: Mapping[str, Any], series: str, variable: str) -> list[Entry]:
    ssl, why = str(plan["ssl"]), "Passwords travel inside TLS, or from trusted proxies only."
    if as_list(plan["balancers"]):
        if problems := balanced_tls_problems(variable, ssl):
            raise NfsmailError(problems)
        if series == "2.4":
            ssl, why = "required", "With yes, whoever comes by way of a balancer could send a password without TLS."
    lines = [Entry("ssl", ssl, why)]
    if ssl == "no":
        return lines
    cert, key = str(plan["ssl_cert"]), str(plan["ssl_key"])
    if series == "2.3":
        return [*lines, Entry("ssl_cert", f"<{cert}"), Entry("ssl_key", f"<{key}")]
    return [*lines, Entry("ssl_server_cert_file", cert), Entry("ssl_server_key_file", key)]


def _backend_tls(plan: Mapping[str, Any], series: str) -> list[Entry]:
    ca, why = str(plan.get("backend_ca") or ""), "Whose word on the backends' certificates counts."
    if not ca:
        return []
    entry = Entry("ssl_client_ca_file", ca, why)
    if series == "2.4":
        return [entry]
    # Logins look at the server's own setting for that (2.3: login-proxy.c), which is for clients' certificates, and wants CRLs.
    return [entry, Entry("ssl_ca", f"<{ca}", "For logins the same."), Entry("ssl_require_crl", "no")]


def backend_fields(plan: Mapping[str, Any], secret: str) -> dict[str, str]:
    """What a proxy says to any backend: the cluster's own password, inside TLS where a CA is given."""
    # The word starttls alone means that the certificate is checked, against the address that the proxy connects to.
    return {"pass": secret, **({"starttls": "yes"} if plan.get("backend_ca") else {})}


def _backend_auth(plan: Mapping[str, Any], series: str) -> list[Entry]:
    proxies = as_list(plan["proxies"])
    if not proxies:
        home = translate("nfsmail_mail_home", str(plan["mail_home"]), series)
        return [*logins.passdbs(plan, series, proxy=False), *logins.userdbs(plan, series, proxy=False, home=home)]
    secret = ssha512(_secret("nfsmail_proxy_password", plan["proxy_password"]), "backend")
    nets = ",".join([*proxies, "local"] if series == "2.4" else proxies)
    why = "Only the proxies log in, for any user, with the cluster's own password."
    if series == "2.3":
        passdb = Entry("passdb static", (Entry("args", f"password={secret} allow_real_nets={nets}"),), why)
    else:
        fields = Entry("fields", (Entry("allow_real_nets", nets),))
        passdb = Entry("passdb static", (Entry("password", secret), fields), why)
    trusted = Entry("login_trusted_networks", " ".join(proxies), "The proxies tell us the client's real address.")
    return [trusted, passdb, logins.static_userdb(plan, series, anyone=True)]


def _balancers(plan: Mapping[str, Any]) -> list[Entry]:
    nets = " ".join(as_list(plan["balancers"]))
    why = "Only the balancers connect, and tell us the client's address."
    return [Entry("haproxy_trusted_networks", nets, why)] if nets else []


def _listener(protocol: str, port: int, balanced: bool = False) -> Entry:
    return Entry(f"inet_listener {protocol}", (Entry("port", str(port)), *_haproxy(balanced)))


def _haproxy(balanced: bool) -> tuple[Entry, ...]:
    return (Entry("haproxy", "yes"),) if balanced else ()


def _lmtp(plan: Mapping[str, Any]) -> list[Entry]:
    if "lmtp" not in as_list(plan["protocols"]):
        return []
    listener = _listener("lmtp", int(plan["lmtp_port"]), bool(as_list(plan["balancers"])))
    return [Entry("service lmtp", (listener,), "Mail comes in by LMTP.")]


def _logins(plan: Mapping[str, Any], series: str) -> dict[str, tuple[Entry, ...]]:
    """What stands in the login services: the usual listeners, that take nobody but the balancers where there are any.

    Not listeners beside the usual ones: a client that came past the balancers would be on two backends.
    """
    found: dict[str, tuple[Entry, ...]] = {}
    balanced = bool(as_list(plan["balancers"]))
    why = "A connection begins with a balancer's PROXY header, in front of TLS." if balanced else ""
    for one in served(as_list(plan["protocols"])):
        lines = {name: _haproxy(balanced) for name in one.listeners}
        if series in one.closed_tls:
            lines[one.listeners[-1]] += (Entry("port", str(one.tls_port)), Entry("ssl", "yes"))
        entries_here = [Entry(f"inet_listener {name}", inside) for name, inside in lines.items() if inside]
        if entries_here:
            found[one.service] = (replace(entries_here[0], why=why), *entries_here[1:])
    return found


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


def _backend_services(plan: Mapping[str, Any], series: str) -> list[Entry]:
    logins = [Entry(service, lines) for service, lines in _logins(plan, series).items()]
    return [*_lmtp(plan), *logins, *_doveadm(plan, proxy=False)]


def _proxy_auth(plan: Mapping[str, Any], series: str) -> list[Entry]:
    told = backend_fields(plan, _secret("nfsmail_proxy_password", plan["proxy_password"]))
    if plan.get("mode") == "director":
        routes = director.entries(plan, told)
    else:
        moving, overrides, shards = (str(plan[f"{name}_file"]) for name in ("moving", "overrides", "shards"))
        routes = [
            _route("moving-users", "{user}", moving, told, series, "Users on the way to another backend.", SERVICE),
            _route("overrides", "{user}", overrides, told, series, "Users pinned to a backend."),
            _route(
                "moving-shards",
                "{shard}",
                moving,
                told,
                series,
                "Shards on the way to another backend.",
                SHARD_SERVICE,
            ),
            _route("shards", "{shard}", shards, told, series, "Everybody else: the shard's backend."),
        ]
        if series == "2.4":
            # Both are asked, as noauthenticate ends no search: the last that knows the user decides.
            routes.reverse()
    return [*logins.passdbs(plan, series, proxy=True), *routes, *logins.userdbs(plan, series, proxy=True)]


def _route(
    name: str,
    key: str,
    path: str,
    told: Mapping[str, str],
    series: str,
    why: str,
    prefix: Mapping[str, str] | None = None,
) -> Entry:
    username = (prefix or {}).get(series, "") + translate(name, key, series)
    # Reached only by users whom the first passdb has accepted; the backend gets the cluster's password.
    skip = Entry("skip", "unauthenticated")
    if series == "2.3":
        return Entry(
            f"passdb {name}",
            (
                Entry("driver", "passwd-file"),
                Entry("args", f"username_format={username} {path}"),
                Entry("override_fields", " ".join(f"{field}={value}" for field, value in told.items())),
                skip,
            ),
            why,
        )
    fields = Entry("fields", (Entry("noauthenticate", "yes"), *starmap(Entry, told.items())))
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
    services = {one.service for one in served(as_list(plan["protocols"]))}
    logins: dict[str, list[Entry]] = {
        service: list(lines) for service, lines in _logins(plan, series_of(version)).items()
    }
    why: dict[str, str] = {}
    for rule in RULES:
        service, _, name = rule.target.rpartition("/")
        if rule.effect == "proxy" and in_range(version, rule.versions):
            logins.setdefault(service, []).append(Entry(name, rule.value))
            why[service] = rule.text
    return [
        *_lmtp(plan),
        *(
            Entry(service, tuple(lines), why.get(service, ""))
            for service, lines in logins.items()
            if service in services
        ),
        *_doveadm(plan, proxy=True),
    ]


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


def extra_problems(
    variable: str,
    extra: Any,
    profile: Profile,
    kind: str,
    owned: Collection[str] = (),
    around: Mapping[str, Any] | None = None,
    store: str = "",
    home: str = "",
) -> list[Problem]:
    """What is wrong with an operator's extra settings, judged as the live machine's would be.

    ``owned``: settings that the role writes itself; ``around``: what stands beside the extra settings in the file.
    """
    if not isinstance(extra, Mapping):
        return [
            Problem(variable, extra, "a mapping of settings; a mapping within it is a section", "write one", SOURCE)
        ]
    try:
        entries(extra)
    except NfsmailError as error:
        return [
            Problem(f"{variable}.{one.variable}", one.value, one.rule, one.fix, one.source) for one in error.problems
        ]
    decided = [
        Problem(
            f"{variable}.{name}",
            value,
            "the matrix and the role's own variables decide this setting",
            "remove it, or change the variable or profile key it follows from",
            "docs: settings matrix",
        )
        for name, value in _settings_in(extra)
        if name in owned or name.rpartition("/")[2] in MATRIX_OWNED
    ]
    if decided:
        return decided
    before = {row["id"] for row in written_findings(around or {}, profile, kind, store, home)}
    judged = written_findings(_merged(around or {}, extra), profile, kind, store, home)
    return [
        finding_problem(variable, row)
        for row in judged
        if row["level"] == "error" and row["id"] not in before and row["id"] not in ("NFS427",)
    ]


def _merged(around: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Both, as Dovecot reads them: a section that is in both has the settings of both."""
    found = dict(around)
    for name, value in extra.items():
        both = isinstance(value, Mapping) and isinstance(around.get(name), Mapping)
        found[name] = _merged(around[name], value) if both else value
    return found


def _settings_in(mapping: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting with its sections in front: one in ``protocol imap`` is in effect too."""
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            yield from _settings_in(value, f"{path}{name}/")
        else:
            yield f"{path}{name}", value


def _with_extra(tree: list[Entry], plan: Mapping[str, Any], profile: Profile, kind: str) -> list[Entry]:
    variable = EXTRA_VARIABLES[kind]
    extra = plan.get("extra_settings") or {}
    told = (plan.get("cluster") or {}) if kind == "backend" else {}
    ours = {entry.name for entry in tree if not isinstance(entry.value, tuple)} - {features.MAIL_PLUGINS}
    around = tree
    if features.wanted(told):
        # As it would be without the extra settings, whose plugins are among ours by now.
        around = _backend({**plan, "extra_settings": {}}, profile)
        ours |= set(features.paths(_features({**plan, "extra_settings": {}}, profile)))
    home = str(plan.get("mail_home") or "")
    problems = extra_problems(
        variable, extra, profile, kind, ours, _as_mapping(around), str(plan.get("store") or ""), home
    )
    if problems:
        raise NfsmailError(problems)
    rest, _ = features.plugins_of(variable, extra, profile.series, told)
    # A section the role already writes is extended, not written twice.
    present = {entry.name for entry in tree if isinstance(entry.value, tuple)}
    why = "From extra settings in the inventory."
    more = [Entry(entry.name, entry.value, "" if entry.name in present else why) for entry in entries(rest)]
    return features.joined([*tree, *more])


def _as_mapping(tree: Iterable[Entry]) -> dict[str, Any]:
    return {entry.name: _as_mapping(entry.value) if isinstance(entry.value, tuple) else entry.value for entry in tree}
