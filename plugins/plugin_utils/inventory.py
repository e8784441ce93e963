# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an inventory says, judged before any host is touched."""

from __future__ import annotations

import difflib
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .dovecot_conf import SECRET, passwd_lines, translate
from .errors import NfsmailError, Problem, nearest
from .exports import path_problems
from .matrix import plan_findings
from .profile import KEYS, Profile, parse_profile
from .shards import override_lines, parse_backends

DESIGN = "docs: choosing a topology"
PREFIXES = (
    "nfsmail_",
    "nfs_server_",
    "nfs_client_",
    "lockd_",
    "timesync_",
    "dovecot_",
    "balancer_",
)
# What a host may set for itself; everything else of ours must be the same for the whole cluster.
PER_HOST = ("nfsmail_address", "nfsmail_backend_weight", "nfsmail_backend_state")


def profile_of(variables: Mapping[str, Any], dovecot_version: str | None = None) -> dict[str, Any]:
    """The profile among the cluster's variables (``nfsmail_topology`` and so on)."""
    profile = {key.name: variables.get(f"nfsmail_{key.name}") for key in KEYS if key.name != "dovecot_version"}
    given = {name: value for name, value in profile.items() if value not in (None, "")}
    return {**given, "dovecot_version": dovecot_version} if dovecot_version else given


def inventory_problems(
    variables: Mapping[str, Any],
    members: Mapping[str, Sequence[Mapping[str, Any]]],
    names: Mapping[str, Iterable[str]] | None = None,
    known: Iterable[str] = (),
    values: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Problem]:
    """Every problem of one cluster's inventory.

    ``variables``: the ``nfsmail_*`` variables with defaults filled in. ``members``: group to hosts, each
    ``{name, address, weight, state}``. ``names``: host to the variable names it has; ``known``: all names that
    the collection documents. ``values``: host to its own values of ``nfsmail_*`` variables.
    """
    problems: list[Problem] = []
    try:
        profile: Profile | None = parse_profile(profile_of(variables))
    except NfsmailError as error:
        profile = None
        problems += [_prefixed(problem) for problem in error.problems]
    if profile:
        problems += _plan(profile, variables)
        problems += _topology(profile, members, variables)
        problems += _secrets(profile, variables)
    problems += _members(members, variables)
    problems += _paths(variables, profile)
    problems += _users(variables)
    problems += misspelt(names or {}, known)
    problems += _disagreements(values or {})
    return list({str(problem): problem for problem in problems}.values())


def hostname_problems(nodenames: Mapping[str, str]) -> list[Problem]:
    """Machines that call themselves the same: lock files and mail file names carry the host name."""
    by_name: dict[str, list[str]] = {}
    for host, nodename in sorted(nodenames.items()):
        by_name.setdefault(nodename.split(".")[0].lower(), []).append(host)
    return [
        Problem(
            f"host name of {', '.join(hosts)}",
            nodename,
            "every machine has a host name of its own: Dovecot takes a lock file of its own name for its own",
            "set different host names (hostnamectl set-hostname)",
            "measured: a lock file of the same host name was overridden after 0.3 s",
        )
        for nodename, hosts in by_name.items()
        if len(hosts) > 1
    ]


def misspelt(names: Mapping[str, Iterable[str]], known: Iterable[str]) -> list[Problem]:
    """Variables with one of our prefixes that no role knows."""
    documented = set(known)
    if not documented:
        return []
    where: dict[str, list[str]] = {}
    for host, host_names in sorted(names.items()):
        for name in host_names:
            if name.startswith(PREFIXES) and name not in documented:
                where.setdefault(name, []).append(host)
    return [
        Problem(
            name,
            f"set for {', '.join(hosts[:3])}{' and others' if len(hosts) > 3 else ''}",
            "no role of this collection knows this variable",
            f"did you mean {nearest(name, documented)!r}?",
            "docs: variables",
        )
        for name, hosts in sorted(where.items())
        if name.startswith("nfsmail_") or _close(name, documented)
    ]


def inside(path: str, root: str) -> bool:
    """``path`` is ``root`` or below it, by their names alone."""
    path, root = posixpath.normpath(path), posixpath.normpath(root)
    return path == root or path.startswith(root.rstrip("/") + "/")


def _close(name: str, documented: set[str]) -> bool:
    # Another collection may own names such as dovecot_something: only a near miss is ours.
    guess = nearest(name, documented)
    return difflib.SequenceMatcher(None, guess, name).ratio() >= 0.9


def _prefixed(problem: Problem) -> Problem:
    return Problem(f"nfsmail_{problem.variable}", problem.value, problem.rule, problem.fix, problem.source)


def _plan(profile: Profile, variables: Mapping[str, Any]) -> Iterator[Problem]:
    for finding in plan_findings(profile):
        if finding["level"] == "error":
            name, _, rest = finding["message"].partition("=")
            value, _, rule = rest.partition(": ")
            yield Problem(f"nfsmail_{name}", value, f"{finding['id']}: {rule}", finding["fix"], finding["source"])
    if profile.topology == "random" and variables.get("nfsmail_accept_unsupported_random") is not True:
        yield Problem(
            "nfsmail_topology",
            "random",
            "NFS208: one user on several machines at once is not supported by Dovecot",
            "use per_user; or accept the risk with nfsmail_accept_unsupported_random: true",
            "Dovecot documentation, NFS page",
        )


def _topology(
    profile: Profile, members: Mapping[str, Sequence[Mapping[str, Any]]], variables: Mapping[str, Any]
) -> Iterator[Problem]:
    backends = [str(host["name"]) for host in members.get("mail_backends", ())]
    proxies = [str(host["name"]) for host in members.get("mail_proxies", ())]
    group = str(variables.get("nfsmail_group_mail_backends") or "mail_backends")
    if not backends:
        yield Problem(f"group {group}", [], "a cluster has at least one backend", "add hosts to the group", DESIGN)
    if profile.topology == "single" and len(backends) > 1:
        yield Problem(
            "nfsmail_topology",
            "single",
            f"single has one backend; the inventory lists {len(backends)}: {', '.join(backends)}",
            "use per_user with a proxy, or leave one backend",
            DESIGN,
        )
    if profile.topology == "per_user" and not proxies:
        yield Problem(
            "nfsmail_topology",
            "per_user",
            "per_user needs a proxy that sends each user to one backend; the group of proxies is empty",
            f"add a host to {variables.get('nfsmail_group_mail_proxies') or 'mail_proxies'}, or use single",
            DESIGN,
        )
    if not variables.get("nfsmail_nfs_server") and not members.get("nfs_servers"):
        yield Problem(
            "nfsmail_nfs_server",
            None,
            "the backends mount from an NFS server",
            "add a host to nfs_servers, or name the server in nfsmail_nfs_server",
            DESIGN,
        )


def _members(members: Mapping[str, Sequence[Mapping[str, Any]]], variables: Mapping[str, Any]) -> Iterator[Problem]:
    backends = list(members.get("mail_backends", ()))
    if backends:
        try:
            parse_backends(backends)
            override_lines(variables.get("nfsmail_overrides") or {}, backends)
        except NfsmailError as error:
            yield from error.problems
    roles: dict[str, str] = {}
    for group in ("mail_backends", "mail_proxies"):
        for host in members.get(group, ()):
            name = str(host["name"])
            if name in roles:
                yield Problem(
                    f"host {name}",
                    f"in {roles[name]} and {group}",
                    "a proxy is not a backend: both need the mail ports",
                    "take it out of one of the groups",
                    DESIGN,
                )
            roles[name] = group


def _paths(variables: Mapping[str, Any], profile: Profile | None) -> Iterator[Problem]:
    store = str(variables.get("nfsmail_store_path") or "")
    home = str(variables.get("nfsmail_mail_home") or "")
    index = str(variables.get("nfsmail_index_path") or "")
    yield from path_problems("nfsmail_store_path", store)
    yield from path_problems("nfsmail_export_path", str(variables.get("nfsmail_export_path") or ""))
    for variable, template in (("nfsmail_mail_home", home), ("nfsmail_index_path", index)):
        try:
            translate(variable, template, "2.4")
        except NfsmailError as error:
            yield from error.problems
    if not inside(home, store) or posixpath.normpath(home) == posixpath.normpath(store):
        yield Problem(
            "nfsmail_mail_home",
            home or None,
            f"mail lies below the mount point {store}: elsewhere it would land on the local disk",
            f"write {store.rstrip('/')}/{{domain}}/{{name}}",
            "Dovecot documentation, NFS page",
        )
    if "{user}" not in home and "{name}" not in home:
        yield Problem(
            "nfsmail_mail_home",
            home or None,
            "each user has a home of their own",
            "put {user}, or {domain} and {name}, into the path",
            "Dovecot documentation, home directories",
        )
    if profile and profile.index_location == "local" and inside(index, store):
        yield Problem(
            "nfsmail_index_path",
            index,
            f"local indexes lie outside the mount point {store}",
            "use a path on a local disk such as /var/lib/nfsmail/index/{domain}/{name}",
            DESIGN,
        )


def _secrets(profile: Profile, variables: Mapping[str, Any]) -> Iterator[Problem]:
    # A backend of topology single has no use for the proxies' password, but any may have doveadm's.
    for variable, needed in (
        ("nfsmail_proxy_password", profile.topology == "per_user"),
        ("nfsmail_doveadm_password", False),
    ):
        secret = str(variables.get(variable) or "")
        if (needed or secret) and not SECRET.match(secret):
            yield Problem(
                variable,
                "(hidden)" if secret else None,
                "the password that proxies log in with: at least 16 of A-Z a-z 0-9 . _ ~ + / = -"
                if variable == "nfsmail_proxy_password"
                else "the password of doveadm between machines: at least 16 of A-Z a-z 0-9 . _ ~ + / = -",
                "make one with: openssl rand -base64 33, and keep it in Ansible Vault",
                "docs: security",
            )


def _users(variables: Mapping[str, Any]) -> Iterator[Problem]:
    users, path = variables.get("nfsmail_users"), str(variables.get("nfsmail_users_file") or "")
    try:
        passwd_lines(users or [])
    except NfsmailError as error:
        yield from error.problems
    if not re.match(r"/[^\s]+\Z", path):
        yield Problem("nfsmail_users_file", path or None, "an absolute path without blanks", "correct it", DESIGN)


def _disagreements(values: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    seen: dict[str, dict[str, str]] = {}
    for host, own in sorted(values.items()):
        for name, value in own.items():
            if name not in PER_HOST:
                seen.setdefault(name, {}).setdefault(repr(value), host)
    for name, found in sorted(seen.items()):
        if len(found) > 1:
            secret = "password" in name or name == "nfsmail_users"
            shown = "different values (hidden)" if secret else {host: value for value, host in found.items()}
            yield Problem(
                name,
                shown,
                "the whole cluster shares one value; hosts that differ would open mail in different ways",
                "set it once, for the group that holds the whole cluster",
                DESIGN,
            )
