# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an inventory says, judged before any host is touched."""

from __future__ import annotations

import difflib
import ipaddress
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from . import director, distributions, features, logins
from .balancer_conf import health_problems, server_problems
from .dovecot_conf import (
    EXTRA_VARIABLES,
    SECRET,
    TLS_VARIABLES,
    always_written,
    balanced_tls_problems,
    extra_problems,
    feature_conf,
    passwd_lines,
)
from .errors import NfsmailError, Problem, nearest
from .exports import path_problems
from .failover import address_problems
from .firewall import ALLOW, allow_problems
from .location import PRIVATE, fixed_part, inside, is_common, translate
from .matrix import Finding, finding_problem, plan_findings, settings, written_findings
from .metrics import range_problems, scraper_problems
from .option_types import type_problems
from .profile import KEYS, KNOWN_SERIES, Profile, as_list, is_yes, parse_profile, series_of, version_key
from .protocols import LOGINS
from .rules import VOLATILE
from .shards import lowered, override_lines, parse_backends

DESIGN = "docs: choosing a topology"
PREFIXES = (
    "nfsmail_",
    "nfs_server_",
    "nfs_client_",
    "lockd_",
    "timesync_",
    "dovecot_",
    "failover_",
    "balancer_",
    "metrics_",
)
# Variables that are no more, each with what to write in its place. An inventory that has one would be read without it.
GONE: Mapping[str, str] = {
    "dovecot_proxy_overrides_file": "nfsmail_overrides_file",
    "dovecot_proxy_shards_file": "nfsmail_shards_file",
}
# Which variable holds a machine's release of Dovecot, by the group it is in.
RELEASES = {"mail_backends": "dovecot_version", "mail_proxies": "dovecot_proxy_version"}
# Not to be shown, whatever is wrong with them; so is everything with password in its name.
SECRETS = ("nfsmail_users", "nfsmail_passdb_options")
# Where Dovecot and balancers take mail by LMTP.
LMTP_PORTS: Mapping[str, str] = {
    "mail_backends": "dovecot_lmtp_port",
    "mail_proxies": "dovecot_proxy_lmtp_port",
    "mail_balancers": "balancer_lmtp_port",
}
LOOPBACK = re.compile(r"localhost\Z|127\.\d+\.\d+\.\d+\Z|::1\Z")
# Passwords and hashes of the inventories in docs/examples: a copy that still has one has nothing that is secret.
PUBLIC_SECRETS = frozenset(
    {
        "replace-me-and-encrypt-this-file",
        "{SHA512-CRYPT}$6$Ug4pmKKrM4itelBX$el//u8bsmiURdGENsLQuguEyFC0RFoijMhj3F758yG.Ub9LJWbBnppM3r1qcuW5k9.V2I/Kv0loFoynMYLJQ0/",
    }
)
# What a host may set for itself; everything else of ours must be the same for the whole cluster.
PER_HOST = (
    *("nfsmail_address", "nfsmail_backend_weight", "nfsmail_backend_state", "nfsmail_service_address"),
    distributions.VARIABLE,
)


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
    specs: Mapping[str, Mapping[str, Any]] | None = None,
    hosts: Iterable[str] = (),
) -> list[Problem]:
    """Every problem of one cluster's inventory.

    ``variables``: the ``nfsmail_*`` variables with defaults filled in. ``members``: group to hosts, each
    ``{name, address, weight, state}``. ``names``: host to the variable names it has; ``known``: all names that
    the collection documents. ``values``: host to its own values of documented variables. ``specs``: variable to its
    argument spec. ``hosts``: the machines that take part in the run.
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
        problems += _balancers(profile, members, variables, values or {})
        problems += _secrets(profile, variables)
        problems += _features(profile, variables, members, values or {})
    problems += _relay(variables, members, values or {})
    problems += _strangers(members, variables, hosts)
    problems += _members(members, variables)
    problems += _paths(variables, profile)
    problems += _users(variables)
    problems += misspelt(names or {}, known)
    problems += _disagreements({host: _of_cluster(own, variables) for host, own in (values or {}).items()})
    problems += _extra_settings(profile, variables, members, values or {})
    problems += _modes(variables, members, values or {})
    problems += _firewall(variables, members, values or {})
    problems += _backend_tls(variables, members, values or {})
    problems += scraper_problems(variables.get("nfsmail_metrics_scrapers"))
    for own in (values or {"": {}}).values():
        problems += range_problems({**variables, **own})
    told = {re.split(r"[.\[]", problem.variable)[0] for problem in problems}
    problems += [problem for problem in _types(values or {}, specs or {}) if problem.variable.split("[")[0] not in told]
    return list({str(problem): problem for problem in problems}.values())


def machine_problems(
    variables: Mapping[str, Any],
    members: Mapping[str, Sequence[Mapping[str, Any]]],
    values: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, Mapping[str, Any]],
) -> list[Problem]:
    """What can be told only once the machines were read, and must be told before anything is changed on them.

    ``facts``: host to ``{hostname, distribution, version, packages, candidates}`` as ``host_facts`` found them.
    """
    releases = {
        host: _release(found, str(values.get(host, {}).get(distributions.VARIABLE) or ""))
        for host, found in facts.items()
    }
    known = dict(values)
    for group, variable in RELEASES.items():
        for member in members.get(group, ()):
            host = str(member["name"])
            if releases.get(host):
                known[host] = {**known.get(host, {}), variable: known.get(host, {}).get(variable) or releases[host]}
    try:
        profile: Profile | None = parse_profile(profile_of(variables))
    except NfsmailError:
        profile = None  # told by inventory_problems
    problems = hostname_problems({host: str(found.get("hostname") or host) for host, found in facts.items()})
    problems += distributions.problems(facts, values, variables)
    problems += _extra_settings(profile, variables, members, known)
    if profile:
        problems += _features(profile, variables, members, known)
    problems += _modes(variables, members, known)
    problems += _config_versions(variables, members, known)
    return list({str(problem): problem for problem in problems}.values())


def _release(found: Mapping[str, Any], told: str) -> str:
    for where in ("packages", "candidates"):
        for package in ("dovecot-core", "dovecot"):
            version = (found.get(where) or {}).get(package)
            if version:
                return str(version)
    # In check mode, of a machine that never fetched its package lists, or of which they cannot be read cheaply.
    release = distributions.find(found, told)
    return release.dovecot if release else ""


def _config_versions(
    variables: Mapping[str, Any],
    members: Mapping[str, Sequence[Mapping[str, Any]]],
    values: Mapping[str, Mapping[str, Any]],
) -> Iterator[Problem]:
    pinned = str(variables.get("nfsmail_dovecot_config_version") or "")
    releases: dict[str, str] = {}
    for group, variable in RELEASES.items():
        for member in members.get(group, ()):
            version = str(values.get(str(member["name"]), {}).get(variable) or "")
            if version.startswith("2.4") and (group == "mail_backends" or pinned):
                releases[str(member["name"])] = version
    newer = {
        host: version for host, version in releases.items() if pinned and version_key(version) < version_key(pinned)
    }
    if pinned and (newer or not re.match(r"2\.4\.\d+\Z", pinned)):
        yield Problem(
            "nfsmail_dovecot_config_version",
            pinned,
            "a release of 2.4 that no host with 2.4 is older than" + (f"; {newer}" if newer else ""),
            "write the lowest release of all, such as 2.4.1",
            "Dovecot documentation, dovecot_config_version",
        )
    if not pinned and len({version_key(version) for version in releases.values()}) > 1:
        lowest = min(releases.values(), key=version_key)
        yield Problem(
            "nfsmail_dovecot_config_version",
            releases,
            "backends that share mailboxes read them by one dovecot_config_version: a newer one may write what an older one "
            "does not read",
            f"pin it until all are upgraded: nfsmail_dovecot_config_version: {'.'.join(map(str, version_key(lowest)))}",
            "Dovecot documentation, dovecot_config_version",
        )


def inventory_notes(
    variables: Mapping[str, Any],
    members: Mapping[str, Sequence[Mapping[str, Any]]],
    values: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Finding]:
    """What an operator should know of a cluster that is not refused: warnings, then infos, of plan and extra settings."""
    found: dict[str, Finding] = {}
    for profile, host in _profiles(variables, members, values or {}):
        for row in plan_findings(profile):
            found[row["id"]] = {**row, "message": f"nfsmail_{row['message']}"}
        for variable, row in _rows(profile, variables):
            found[row["id"]] = {**row, "message": f"{variable}: {row['message']}"}
        for kind, group in (("backend", "mail_backends"), ("proxy", "mail_proxies")):
            extra = (values or {}).get(host, {}).get(EXTRA_VARIABLES[kind])
            if isinstance(extra, Mapping) and any(member["name"] == host for member in members.get(group, ())):
                for row in _judged(extra, profile, kind, variables):
                    found[row["id"]] = {**row, "message": f"{EXTRA_VARIABLES[kind]}: {row['message']}"}
    if variables.get("nfsmail_topology") == "random":
        found.update({row["id"]: row for row in _balancer_notes(members, variables)})
    found.update({row["id"]: row for row in logins.notes(variables)})
    found.update({row["id"]: row for row in _public_secrets(variables)})
    levels = ("warning", "info")
    return sorted(
        (row for row in found.values() if row["level"] in levels),
        key=lambda row: (levels.index(row["level"]), row["id"]),
    )


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
    """Variables with one of our prefixes that no role knows, or no more."""
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
            "this variable has another name now" if name in GONE else "no role of this collection knows this variable",
            f"call it {GONE[name]}" if name in GONE else f"did you mean {nearest(name, documented)!r}?",
            "docs: variables",
        )
        for name, hosts in sorted(where.items())
        if name in GONE or name.startswith("nfsmail_") or _close(name, documented)
    ]


def _close(name: str, documented: set[str]) -> bool:
    # Another collection may own names such as dovecot_something: only a near miss is ours.
    guess = nearest(name, documented)
    return difflib.SequenceMatcher(None, guess, name).ratio() >= 0.9


def _prefixed(problem: Problem) -> Problem:
    return Problem(f"nfsmail_{problem.variable}", problem.value, problem.rule, problem.fix, problem.source)


def _plan(profile: Profile, variables: Mapping[str, Any]) -> Iterator[Problem]:
    for finding in plan_findings(profile):
        if finding["level"] == "error":
            name, _, value = finding["message"].partition(": ")[0].partition("=")
            problem = finding_problem(f"nfsmail_{name}", finding)
            yield Problem(problem.variable, value, problem.rule, problem.fix, problem.source)
    if profile.topology == "random" and variables.get("nfsmail_accept_unsupported_random") is not True:
        yield Problem(
            "nfsmail_topology",
            "random",
            "NFS208: one user on several machines at once is not supported by Dovecot",
            "use per_user; or accept the risk with nfsmail_accept_unsupported_random: true",
            "Dovecot documentation, NFS page",
        )


def _profiles(
    variables: Mapping[str, Any],
    members: Mapping[str, Sequence[Mapping[str, Any]]],
    values: Mapping[str, Mapping[str, Any]],
) -> Iterator[tuple[Profile, str]]:
    """The plan as each machine sees it that Dovecot runs on: releases may differ. Machines with nothing of their own once."""
    seen: set[str] = set()
    for group, variable in RELEASES.items():
        for member in members.get(group, ()):
            own = values.get(str(member["name"]), {})
            key = repr([own.get(name) for name in (variable, *EXTRA_VARIABLES.values())])
            if key not in seen:
                seen.add(key)
                try:
                    yield (
                        parse_profile(profile_of(variables, str(own.get(variable) or "") or None)),
                        str(member["name"]),
                    )
                except NfsmailError:
                    continue  # told by inventory_problems


def _features(
    profile: Profile,
    variables: Mapping[str, Any],
    members: Mapping[str, Sequence[Mapping[str, Any]]],
    values: Mapping[str, Mapping[str, Any]],
) -> Iterator[Problem]:
    """What is wrong with features in this cluster, by the same rules that judge live machines.

    Where a backend's release is not known yet, what no release takes. A problem of some backends only names one of them.
    """
    yield from features.unasked(variables)
    by_release: dict[str, str] = {}
    for member in members.get("mail_backends", ()):
        host = str(member["name"])
        by_release.setdefault(str(values.get(host, {}).get(RELEASES["mail_backends"]) or ""), host)
    found: dict[str, dict[tuple[str, str], Problem]] = {}
    for release in by_release or {"": ""}:
        judged = [
            {
                (problem.variable, problem.rule): problem
                for problem in _feature_problems(replace(profile, dovecot_version=one), variables)
            }
            for one in ((release,) if release.startswith(KNOWN_SERIES) else KNOWN_SERIES)
        ]
        found[release] = {key: problem for key, problem in judged[0].items() if all(key in other for other in judged)}
    for release, problems in found.items():
        for key, problem in problems.items():
            if all(key in others for others in found.values()):
                yield problem
            else:
                yield replace(problem, value=f"{problem.value} on {by_release[release]}, with Dovecot {release}")


def _relay(
    variables: Mapping[str, Any],
    members: Mapping[str, Sequence[Mapping[str, Any]]],
    values: Mapping[str, Mapping[str, Any]],
) -> Iterator[Problem]:
    """The mail transfer agent is none of this cluster's own Dovecots: mail would go in circles, or nowhere."""
    given = features.relay(variables)
    host, port = lowered(str(given.get("host") or "")), str(given.get("port"))
    logins = {str(port): one.name for one in LOGINS.values() for port in one.ports}
    for group, variable in LMTP_PORTS.items():
        for member in members.get(group, ()):
            name = str(member["name"])
            known = {lowered(str(member.get(key) or "")) for key in ("name", "address", "service_address")} - {""}
            if host not in known and not (group == "mail_backends" and LOOPBACK.match(host)):
                continue
            protocol = {str(values.get(name, {}).get(variable) or 24): "lmtp", **logins}.get(port)
            if protocol:
                rule = f"{protocol} of {name} is this cluster's own Dovecot: mail would not leave the cluster"
                fix = "name the mail transfer agent, with a port of its own such as 25"
                yield Problem(features.RELAY, f"{given['host']} port {port}", rule, fix, features.SOURCE)
                return


def _feature_problems(profile: Profile, variables: Mapping[str, Any]) -> Iterator[Problem]:
    for feature in features.wanted(variables):
        yield from feature.problems(variables, profile)
    for variable, row in _rows(profile, variables):
        if row["level"] == "error":
            yield finding_problem(variable, row)


def _rows(profile: Profile, variables: Mapping[str, Any]) -> Iterator[tuple[str, Finding]]:
    """What rules find in what a variable writes, and not without it."""

    def judged(told: Mapping[str, Any], *chosen: features.Feature) -> list[Finding]:
        try:
            conf = feature_conf(told, profile, chosen)
        except NfsmailError:
            return []  # told by _paths
        return written_findings(conf, profile, "backend", *_places(variables))

    chosen, volatile = features.wanted(variables), "nfsmail_volatile_path"
    if not chosen and not variables.get(volatile):
        return
    without = {row["id"] for row in judged({**variables, volatile: ""})}
    here = judged(variables) if variables.get(volatile) else []
    yield from ((volatile, row) for row in here if row["id"] not in without)
    without |= {row["id"] for row in here}
    for feature in chosen:
        yield from ((feature.variable, row) for row in judged(variables, feature) if row["id"] not in without)


def _judged(extra: Mapping[str, Any], profile: Profile, kind: str, variables: Mapping[str, Any]) -> list[Finding]:
    try:
        return written_findings({**settings(profile), **extra}, profile, kind, *_places(variables))
    except NfsmailError:
        return []  # told by inventory_problems


def _places(variables: Mapping[str, Any]) -> tuple[str, str]:
    return str(variables.get("nfsmail_store_path") or ""), str(variables.get("nfsmail_mail_home") or "")


def _of_cluster(own: Mapping[str, Any], variables: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in own.items() if name in variables}


def _types(values: Mapping[str, Mapping[str, Any]], specs: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    for own in values.values():
        for name, value in own.items():
            if name in specs:
                secret = "password" in name or name in SECRETS
                for problem in type_problems(name, value, specs[name]):
                    shown = "(hidden)" if secret and problem.value is not None else problem.value
                    yield Problem(problem.variable, shown, problem.rule, problem.fix, problem.source)


def _extra_settings(
    profile: Profile | None,
    variables: Mapping[str, Any],
    members: Mapping[str, Sequence[Mapping[str, Any]]],
    values: Mapping[str, Mapping[str, Any]],
) -> Iterator[Problem]:
    """The escape hatches, before any host is touched. Where a host's release is not known yet, what no release takes."""
    seen: set[str] = set()
    for kind, (group, version_variable) in zip(EXTRA_VARIABLES, RELEASES.items()):
        for member in members.get(group, ()):
            own = values.get(str(member["name"]), {})
            extra, version = own.get(EXTRA_VARIABLES[kind]), str(own.get(version_variable) or "")
            # Most hosts of a group say the same.
            key = repr((kind, extra, version))
            if key in seen:
                continue
            seen.add(key)
            if version:
                try:
                    series_of(version)
                except NfsmailError as error:
                    yield from (
                        Problem(version_variable, one.value, one.rule, one.fix, one.source) for one in error.problems
                    )
                    continue
            if not extra:
                continue
            found: list[dict[str, Problem]] = []
            served = as_list(own.get("dovecot_protocols") or variables.get("nfsmail_protocols"))
            for release in (version,) if version else KNOWN_SERIES:
                release_profile = replace(profile or Profile(), dovecot_version=release)
                around = settings(release_profile)
                owned = always_written(kind, release_profile.series)
                if kind == "backend":
                    owned |= set(features.paths(features.entries(variables, release_profile, served)))
                    try:
                        features.plugins_of(EXTRA_VARIABLES[kind], extra, release_profile.series, variables)
                    except NfsmailError as error:
                        found.append({problem.rule: problem for problem in error.problems})
                        continue
                judged = extra_problems(
                    EXTRA_VARIABLES[kind], extra, release_profile, kind, owned, around, *_places(variables)
                )
                found.append({problem.rule: problem for problem in judged})
            yield from (problem for rule, problem in found[0].items() if all(rule in other for other in found))


def _modes(
    variables: Mapping[str, Any],
    members: Mapping[str, Sequence[Mapping[str, Any]]],
    values: Mapping[str, Mapping[str, Any]],
) -> Iterator[Problem]:
    """How proxies route: all of them alike, and the director only where it can be."""
    proxies = list(members.get("mail_proxies", ()))
    own = {str(host["name"]): values.get(str(host["name"]), {}) for host in proxies}
    modes = {name: found.get("dovecot_proxy_mode", director.MODES[0]) for name, found in own.items()}
    if len(set(map(repr, modes.values()))) > 1:
        yield Problem(
            "dovecot_proxy_mode",
            modes,
            "all proxies route alike, or a user is opened on two backends",
            "set it once, for the group of proxies",
            DESIGN,
        )
    backends = {str(host["name"]) for host in members.get("mail_backends", ())}
    for name, found in own.items():
        listed = found.get("dovecot_proxy_backends")
        strangers = [
            str(entry.get("name"))
            for entry in (listed if isinstance(listed, (list, tuple)) else ())
            if isinstance(entry, Mapping) and str(entry.get("name")) not in backends
        ]
        if strangers:
            yield Problem(
                f"dovecot_proxy_backends of {name}",
                strangers,
                "the backends of the map are in the inventory, or nobody configures and verifies them",
                f"add them to {variables.get('nfsmail_group_mail_backends') or 'mail_backends'}, or take them out",
                DESIGN,
            )
    addresses = [str(host.get("address") or host["name"]) for host in proxies]
    for name, mode in modes.items():
        try:
            yield from director.problems(
                mode,
                str(own[name].get("dovecot_proxy_version") or ""),
                addresses,
                members.get("mail_backends", ()),
                variables.get("nfsmail_overrides"),
            )
        except NfsmailError:
            continue  # backends and releases are told by others


def _firewall(
    variables: Mapping[str, Any],
    members: Mapping[str, Sequence[Mapping[str, Any]]],
    values: Mapping[str, Mapping[str, Any]],
) -> Iterator[Problem]:
    """A packet filter lets somebody in, and is told whom."""
    group = {"per_user": "mail_proxies", "random": "mail_balancers"}.get(str(variables.get("nfsmail_topology")), "")
    for backend in members.get("mail_backends", ()):
        own = values.get(str(backend["name"]), {})
        allow = as_list(own.get(ALLOW))
        yield from allow_problems(allow)
        if is_yes(own.get("dovecot_firewall")) and not allow and not members.get(group):
            yield Problem(
                "dovecot_firewall",
                own["dovecot_firewall"],
                "without proxies or balancers in front, nobody would reach Dovecot",
                f"leave it out, or name in {ALLOW} who is let in",
                "docs: security",
            )


def _backend_tls(
    variables: Mapping[str, Any],
    members: Mapping[str, Sequence[Mapping[str, Any]]],
    values: Mapping[str, Mapping[str, Any]],
) -> Iterator[Problem]:
    """Proxies speak TLS with backends that do."""
    ca = str(variables.get("nfsmail_backend_ca") or "")
    if not ca:
        return
    if not re.match(r"/[^\s]+\Z", ca):
        yield Problem("nfsmail_backend_ca", ca, "an absolute path without blanks", "correct it", "docs: security")
    plain = [
        str(backend["name"])
        for backend in members.get("mail_backends", ())
        if str(values.get(str(backend["name"]), {}).get("dovecot_ssl")) == "no"
    ]
    if plain:
        yield Problem(
            "nfsmail_backend_ca",
            ca,
            f"proxies check the backends' certificates; dovecot_ssl is no on {', '.join(plain)}",
            "set dovecot_ssl to yes there, or leave nfsmail_backend_ca empty",
            "docs: security",
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
    if profile.topology != "per_user" and proxies:
        yield Problem(
            "nfsmail_topology",
            profile.topology,
            f"only per_user has proxies; the inventory lists {', '.join(proxies)}, which would send users to a backend each",
            f"use per_user, or take the hosts out of {variables.get('nfsmail_group_mail_proxies') or 'mail_proxies'}",
            DESIGN,
        )
    if not variables.get("nfsmail_nfs_server") and not members.get("nfs_servers"):
        ours = _server_is_ours(variables)
        yield Problem(
            "nfsmail_nfs_server",
            None,
            "the backends mount from an NFS server" + ("" if ours else ", which is not ours to configure"),
            "add a host to nfs_servers, or name the server in nfsmail_nfs_server"
            if ours
            else "name the server in nfsmail_nfs_server",
            DESIGN,
        )


def _server_is_ours(variables: Mapping[str, Any]) -> bool:
    given = variables.get("nfsmail_manage_nfs_server")
    return given is None or is_yes(given)


def _balancers(
    profile: Profile,
    members: Mapping[str, Sequence[Mapping[str, Any]]],
    variables: Mapping[str, Any],
    values: Mapping[str, Mapping[str, Any]],
) -> Iterator[Problem]:
    users = variables.get("nfsmail_users")
    yield from health_problems(
        variables.get("nfsmail_health_user"),
        variables.get("nfsmail_health_password"),
        users if isinstance(users, (list, tuple)) else (),
    )
    balancers = [(str(host["name"]), str(host["address"])) for host in members.get("mail_balancers", ())]
    if balancers and profile.topology == "single":
        group = str(variables.get("nfsmail_group_mail_balancers") or "mail_balancers")
        names = [name for name, _address in balancers]
        rule = "single has one backend, so there is nothing to balance"
        yield Problem(f"group {group}", names, rule, "empty the group, or use per_user", DESIGN)
    if not balancers or profile.topology == "single":
        return
    for name, address in balancers:
        if not _is_address(address):
            rule = (
                "an IP address: the machines behind trust the balancers' headers by address, and no name is looked up"
            )
            fix = f"set nfsmail_address of {name} to the address that it connects from"
            yield Problem(
                f"nfsmail_address of {name}", address, rule, fix, "measured: haproxy_trusted_networks with a name"
            )
    kind, group = ("proxy", "mail_proxies") if profile.topology == "per_user" else ("backend", "mail_backends")
    behind = members.get(group, ())
    try:
        yield from server_problems(parse_backends(behind))
    except NfsmailError as error:
        # Of backends, told by _members.
        yield from error.problems if group == "mail_proxies" and behind else ()
    for host in behind:
        variable = TLS_VARIABLES[kind]
        yield from balanced_tls_problems(variable, values.get(str(host["name"]), {}).get(variable))


def _balancer_notes(
    members: Mapping[str, Sequence[Mapping[str, Any]]], variables: Mapping[str, Any]
) -> Iterator[Finding]:
    """What is known only with the machines at hand, so not from the matrix."""
    backends, balancers = len(members.get("mail_backends", ())), len(members.get("mail_balancers", ()))
    group = str(variables.get("nfsmail_group_mail_balancers") or "mail_balancers")
    if backends > 1 and not balancers:
        yield {
            "id": "NFS250",
            "level": "info",
            "message": f"group {group} is empty: connections from one address are to reach one backend of the {backends}, "
            "and nothing here sees to that.",
            "fix": f"add a host to {group}, or have your own balancer send one client address to one backend",
            "source": "Dovecot wiki, NFS, 2012",
        }
    if balancers and not variables.get("nfsmail_health_user"):
        yield {
            "id": "NFS251",
            "level": "info",
            "message": "nfsmail_health_user is not set: balancers look for a greeting only, and send clients to a backend that "
            "lets nobody in.",
            "fix": "make a user for this, and set nfsmail_health_user and nfsmail_health_password",
            "source": DESIGN,
        }


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _strangers(
    members: Mapping[str, Sequence[Mapping[str, Any]]], variables: Mapping[str, Any], hosts: Iterable[str]
) -> Iterator[Problem]:
    """One run is of one cluster: its variables and its machines are taken from the first host."""
    known = {str(member["name"]) for group in members.values() for member in group}
    others = sorted(set(hosts) - known)
    if others:
        group = str(variables.get("nfsmail_group_mail_backends") or "mail_backends")
        yield Problem(
            "hosts of another cluster",
            others,
            f"one run is of one cluster, here of the one whose backends are in {group}",
            "run once for each cluster, with --limit and the group that holds the whole of it",
            "docs: several clusters",
        )


def _members(members: Mapping[str, Sequence[Mapping[str, Any]]], variables: Mapping[str, Any]) -> Iterator[Problem]:
    backends = list(members.get("mail_backends", ()))
    if backends:
        try:
            yield from address_problems(parse_backends(backends))
            override_lines(variables.get("nfsmail_overrides") or {}, backends)
        except NfsmailError as error:
            yield from error.problems
    roles: dict[str, str] = {}
    for group in ("mail_backends", "mail_proxies", "mail_balancers"):
        for host in members.get(group, ()):
            name = str(host["name"])
            if name in roles:
                yield Problem(
                    f"host {name}",
                    f"in {roles[name]} and {group}",
                    "a backend, a proxy and a balancer are three machines: each needs the mail ports",
                    "take it out of one of the groups",
                    DESIGN,
                )
            roles[name] = group


def _paths(variables: Mapping[str, Any], profile: Profile | None) -> Iterator[Problem]:
    store = str(variables.get("nfsmail_store_path") or "")
    home = str(variables.get("nfsmail_mail_home") or "")
    index = str(variables.get("nfsmail_index_path") or "")
    volatile = str(variables.get("nfsmail_volatile_path") or "")
    yield from path_problems("nfsmail_store_path", store)
    export = str(variables.get("nfsmail_export_path") or "")
    # The root of a file service has nothing but what it was made for: Amazon EFS exports it.
    if export != "/" or _server_is_ours(variables):
        yield from path_problems("nfsmail_export_path", export)
    for variable, template in (
        ("nfsmail_mail_home", home),
        ("nfsmail_index_path", index),
        ("nfsmail_volatile_path", volatile),
    ):
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
    if profile and profile.index_location == "local" and not index.startswith("/"):
        yield Problem(
            "nfsmail_index_path",
            index or None,
            "local indexes lie in directories of an absolute path; in MEMORY, what only they hold is lost with each session",
            "write /var/lib/nfsmail/index/{domain}/{name}",
            "Dovecot documentation, dbox page",
        )
    if profile and profile.index_location == "local" and inside(index, store):
        yield Problem(
            "nfsmail_index_path",
            index,
            f"local indexes lie outside the mount point {store}",
            "use a path on a local disk such as /var/lib/nfsmail/index/{domain}/{name}",
            DESIGN,
        )
    elif profile and profile.index_location == "local":
        yield from _own_directory("nfsmail_index_path", index, "/var/lib/nfsmail/index/{domain}/{name}")
    if volatile:
        yield from _volatile(volatile, store)


def _own_directory(variable: str, template: str, example: str) -> Iterator[Problem]:
    folder = fixed_part(template)
    if template.startswith("/") and is_common(folder):
        rule = f"the directory of all users is given to the mail user: {folder} is not ours alone"
        yield Problem(variable, template, rule, f"write {example}", "role dovecot makes the directory")


def _volatile(template: str, store: str) -> Iterator[Problem]:
    """Where locks lie that nobody else's processes take."""
    example, rule, source = "/run/nfsmail-volatile/{domain}/{name}", "", VOLATILE
    if not re.match(r"/[^\s:]+\Z", template) or ".." in template.split("/"):
        rule = "an absolute path without blanks, colons and .., or empty"
    elif "{user}" not in template and "{name}" not in template:
        rule = "each user has a directory of their own: the locks' names do not tell whose they are"
    elif inside(template, store):
        rule, source = (
            f"a place on the machine itself; below {store} the locks are on the mail store, as without it",
            DESIGN,
        )
    elif any(inside(template, folder) for folder in PRIVATE):
        rule = "Dovecot's service has a /tmp of its own, and doveadm has another: they would not see each other's locks"
        source = "Debian's dovecot.service, PrivateTmp"
    if rule:
        yield Problem("nfsmail_volatile_path", template, rule, f"write {example}", source)
    else:
        yield from _own_directory("nfsmail_volatile_path", template, example)


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


def _public_secrets(variables: Mapping[str, Any]) -> Iterator[Finding]:
    """A note and no refusal: the examples are to be tried as they are."""
    named = [(name, value) for name, value in variables.items() if "password" in name]
    users = variables.get("nfsmail_users")
    for number, user in enumerate(users if isinstance(users, (list, tuple)) else ()):
        if isinstance(user, Mapping):
            named.append((f"nfsmail_users[{number}].password", user.get("password")))
    found = [name for name, value in named if str(value) in PUBLIC_SECRETS]
    if found:
        shown = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
        yield {
            "id": "NFS254",
            "level": "warning",
            "message": f"{shown}: as in the examples of this collection, where everybody can read it.",
            "fix": "make passwords with openssl rand -base64 33, users' hashes with doveadm pw -s SHA512-CRYPT, and keep them in "
            "Ansible Vault",
            "source": "docs: security",
        }


def _users(variables: Mapping[str, Any]) -> Iterator[Problem]:
    users, path = variables.get("nfsmail_users"), str(variables.get("nfsmail_users_file") or "")
    yield from logins.problems(
        variables.get("nfsmail_passdb") or "file",
        variables.get("nfsmail_passdb_options") or {},
        variables.get("nfsmail_passdb_password"),
        users,
        str(variables.get("nfsmail_topology") or ""),
    )
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
            secret = "password" in name or name in SECRETS
            shown = "different values (hidden)" if secret else {host: value for value, host in found.items()}
            yield Problem(
                name,
                shown,
                "the whole cluster shares one value; hosts that differ would open mail in different ways",
                "set it once, for the group that holds the whole cluster",
                DESIGN,
            )
