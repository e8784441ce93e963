# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The brain as Ansible filters. Thin on purpose: no rule lives here. Each filter's page is NAME.yml beside this file."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError, AnsibleFilterError  # type: ignore[import-untyped]
from jinja2 import TemplateError, Undefined

from ..plugin_utils import (
    audit,
    audit_files,
    balancer_conf,
    bench,
    director,
    distributions,
    dovecot_conf,
    estate,
    failover,
    features,
    firewall,
    inventory,
    judge,
    locks,
    log_signs,
    logins,
    matrix,
    metrics,
    routing,
    shards,
    timeplan,
    upgrade,
)
from ..plugin_utils import exports as exports_
from ..plugin_utils import report as report_
from ..plugin_utils.dialect import from_doveconf
from ..plugin_utils.errors import NfsmailError, report

ROLES = Path(__file__).parents[2] / "roles"
# Which kind of machine a group holds, and the fact in which its role's tasks/verify.yml leaves what it read.
LIVE = {
    "nfs_servers": ("nfs_server", "nfs_server_live"),
    "mail_backends": ("backend", "dovecot_live"),
    "mail_proxies": ("proxy", "dovecot_proxy_live"),
    "mail_balancers": ("balancer", "balancer_live"),
}
# What tasks/audit.yml of the role nfsmail registers: the first look, and the second, once the mail store is known.
AUDITED = ("__nfsmail_audit_first", "__nfsmail_audit_second")


def _as_filter(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def adapter(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except NfsmailError as error:
            raise AnsibleFilterError(str(error)) from error

    return adapter


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def shard_file(backends: Sequence[Mapping[str, Any]]) -> str:
    """The shard map as a passwd-file."""
    return _lines(shards.shard_lines(backends))


def override_file(overrides: Mapping[str, str], backends: Sequence[Mapping[str, Any]]) -> str:
    """Pinned users as a passwd-file."""
    return _lines(shards.override_lines(overrides, backends))


def moving_file(lines: Sequence[str], until: float) -> str:
    """Who is on the way to another backend, as a passwd-file; empty but for its comment when nobody is."""
    return routing.NOBODY_MOVES + _lines(routing.moving_lines(lines, until))


def passwd_file(users: Sequence[Mapping[str, Any]]) -> str:
    """Users as a passwd-file."""
    return _lines(dovecot_conf.passwd_lines(users))


def exports_file(entries: Sequence[Mapping[str, Any]]) -> str:
    """Planned exports as text of an exports file."""
    return exports_.exports_text(entries)


def lock_conf(ports: Mapping[str, Any]) -> str:
    """Ports of lockd and statd as text of an nfs.conf drop-in."""
    return locks.nfs_conf(locks.port_sections(ports, ("lockd", "lockd_udp", "statd", "statd_outgoing")))


def server_conf(nfsd: Mapping[str, Any], versions: Sequence[str], mountd_port: Any) -> str:
    """The server's switches as text of an nfs.conf drop-in."""
    sections: dict[str, dict[str, Any]] = {"nfsd": {**nfsd, **locks.nfsd_versions(versions)}}
    sections.update(locks.port_sections({"mountd": mountd_port}))
    return locks.nfs_conf(sections)


def preload(value: Any) -> Any:
    """The value as it is: what the controller's main process has loaded, its workers need not."""
    return value


def cluster_groups(
    groups: Mapping[str, Sequence[str]], host: str, routers: Sequence[str] = (), fenced: Sequence[str] = ()
) -> list[str]:
    """The groups of ours that a host is in, under names that a play can have; empty for a host of none."""
    of = {f"nfsmail_{name.removeprefix('mail_')}": hosts for name, hosts in groups.items()}
    of["nfsmail_routers"] = routers
    of["nfsmail_live_backends"] = [name for name in groups.get("mail_backends", ()) if name not in fenced]
    mine = [name for name, hosts in of.items() if host in hosts]
    return ["nfsmail_cluster", *mine] if mine else []


def cluster_members(
    groups: Mapping[str, Sequence[str]], hostvars: Mapping[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    """The machines of each group with what the brain needs to know of them."""
    return {group: [_member(host, hostvars) for host in hosts] for group, hosts in groups.items()}


def _member(host: str, hostvars: Mapping[str, Any]) -> dict[str, Any]:
    own = hostvars[host]
    address = own.get("nfsmail_address") or own.get("ansible_host") or host
    return {
        "name": host,
        "address": str(address),
        "weight": own.get("nfsmail_backend_weight", 1),
        "state": str(own.get("nfsmail_backend_state", "up")),
        "service_address": str(own.get("nfsmail_service_address") or ""),
    }


def inventory_report(
    variables: Mapping[str, Any],
    members: Mapping[str, Sequence[Mapping[str, Any]]],
    hostvars: Mapping[str, Any],
    hosts: Sequence[str] = (),
) -> str:
    """Every problem of the inventory as one text; empty when all is well."""
    names = {host: [str(name) for name in hostvars[host]] for host in _hosts(members)}
    values = _values(members, hostvars)
    return report(inventory.inventory_problems(variables, members, names, _documented(), values, _options(), hosts))


def inventory_notes(
    variables: Mapping[str, Any], members: Mapping[str, Sequence[Mapping[str, Any]]], hostvars: Mapping[str, Any]
) -> list[str]:
    """Warnings and infos about an inventory that is not refused, a line each."""
    return [
        f"{row['level']} {row['id']}: {row['message']} Way out: {row['fix']}. Source: {row['source']}."
        for row in inventory.inventory_notes(variables, members, _values(members, hostvars))
    ]


def _hosts(members: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    return sorted({str(host["name"]) for group in members.values() for host in group})


def _values(
    members: Mapping[str, Sequence[Mapping[str, Any]]], hostvars: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    known = _options()
    return {
        host: {
            str(name): value
            for name in hostvars[host]
            if str(name) in known and (value := _value(hostvars[host], str(name))) is not _LATER
        }
        for host in _hosts(members)
    }


_LATER = object()


def _value(variables: Mapping[str, Any], name: str) -> Any:
    """A variable of a host; ``_LATER`` where it is made of what only its role knows. The role's own spec judges it then."""
    if name.startswith("nfsmail_"):
        return variables[name]
    try:
        return _resolved(variables[name])
    except (AnsibleError, TemplateError, _Later):
        return _LATER


class _Later(Exception):
    """Raised for what cannot be resolved yet: newer releases of Ansible hand out an undefined, older ones the template."""


def _resolved(value: Any) -> Any:
    """Everything within a value; newer releases of Ansible resolve templates only where somebody looks."""
    if isinstance(value, Mapping):
        return {key: _resolved(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_resolved(inner) for inner in value]
    if isinstance(value, Undefined) or (isinstance(value, str) and "{{" in value):
        raise _Later
    return value


def machine_report(
    variables: Mapping[str, Any],
    members: Mapping[str, Sequence[Mapping[str, Any]]],
    hostvars: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> str:
    """What machines' own names and releases do not allow, as one text; empty when all is well."""
    read = {host: found["nfsmail"] for host, found in facts.items() if "nfsmail" in found}
    return report(inventory.machine_problems(variables, members, _values(members, hostvars), read))


def machine_notes(facts: Mapping[str, Any], hostvars: Mapping[str, Any]) -> list[str]:
    """What to know of machines that are not refused, a line each."""
    read = {host: found["nfsmail"] for host, found in facts.items() if "nfsmail" in found}
    told = {host: {distributions.VARIABLE: hostvars[host].get(distributions.VARIABLE)} for host in read}
    return distributions.notes(read, told)


def verify_answers(members: Mapping[str, Sequence[Mapping[str, Any]]], hostvars: Mapping[str, Any]) -> dict[str, Any]:
    """The judgement of all live machines: ``good``, ``counts``, ``checks`` and ``table``."""
    read = [
        judge.Live(str(host["name"]), kind, hostvars[host["name"]].get(variable) or {})
        for group, (kind, variable) in LIVE.items()
        for host in members.get(group, ())
    ]
    answers = judge.all_answers(read)
    return {**judge.as_report(answers), "table": judge.as_table(answers)}


def host_errors(live: Mapping[str, Any], host: str) -> list[str]:
    """What is wrong with one backend, a line each with its way out; ``live``: the role's ``dovecot_live``."""
    read = judge.Live(host, "backend", live)
    rows = judge.host_answers(host, {**read.plan, "kind": read.kind}, read.state)
    return [f"{row.id} {row.what}: {row.detail}. Way out: {row.fix}" for row in rows if row.level == "error"]


def audit_problems(variables: Mapping[str, Any], hosts: Sequence[str]) -> str:
    """Every problem of what an audit was given, as one text; empty when all is well."""
    return report(audit_files.input_problems(variables, hosts))


def audit_places(hosts: Sequence[str], hostvars: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Where each machine has its mail store, by what it said at the first look."""
    return estate.places(_looked_at(hosts, hostvars, AUDITED[:1]))


def audit_verdict(
    hosts: Sequence[str], hostvars: Mapping[str, Any], files: str = "", told: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The judgement of machines that nobody described."""
    if files:
        return audit.audit(audit_files.read_folder(files), told, live=False)
    return audit.audit(_looked_at(hosts, hostvars, AUDITED), told)


def _looked_at(hosts: Sequence[str], hostvars: Mapping[str, Any], results: Sequence[str]) -> dict[str, Any]:
    """Machine to its state, by the last look that was answered."""
    found: dict[str, Any] = {}
    for host in hosts:
        found[host] = {}
        for name in results:
            result = hostvars[host].get(name) or {}
            found[host] = result.get("state") or found[host] or {"error": result.get("msg")}
    return found


def upgrade_preview(path: str, version: str = upgrade.VERSION) -> dict[str, Any]:
    """A file with the output of doveconf -n of 2.3 as a configuration for 2.4."""
    return upgrade.preview(upgrade.read(path), version)


@functools.cache
def _options() -> dict[str, dict[str, Any]]:
    """Every variable of every role with its argument spec."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(ROLES.glob("*/meta/argument_specs.yml")):
        spec = yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]
        for entry in spec.values():
            found.update(entry.get("options", {}))
    return found


def _documented() -> frozenset[str]:
    # What the roles hand from one to the next.
    return frozenset(_options()) | {"nfsmail_members", "nfsmail_verdict", "nfsmail_audit"}


FILTERS: dict[str, Callable[..., Any]] = {
    "audit_html": report_.html,
    "audit_places": audit_places,
    "audit_problems": audit_problems,
    "audit_sarif": report_.sarif,
    "audit_verdict": audit_verdict,
    "backend_conf": dovecot_conf.backend_conf,
    "balancer_conf": balancer_conf.balancer_conf,
    "bench_cells": bench.merged,
    "bench_page": bench.page,
    "bench_place": bench.place,
    "bench_table": bench.table,
    "cluster_groups": cluster_groups,
    "cluster_members": cluster_members,
    "cluster_profile": inventory.profile_of,
    "director_overrides": director.overrides,
    "distribution": distributions.distribution,
    "dovecot_packages": features.packages,
    "dovecot_place": dovecot_conf.dovecot_place,
    "dovecot_settings": matrix.settings,
    "explain": matrix.explain,
    "exports_file": exports_file,
    "exports_plan": exports_.exports,
    "findings": judge.findings,
    "firewall_plan": firewall.firewall_plan,
    "from_doveconf": from_doveconf,
    "holders": failover.holders,
    "host_errors": host_errors,
    "inventory_notes": inventory_notes,
    "inventory_report": inventory_report,
    "keepalived_conf": failover.keepalived_conf,
    "kernel_settings": matrix.kernel_settings,
    "lock_conf": lock_conf,
    "log_patterns": log_signs.log_patterns,
    "machine_notes": machine_notes,
    "machine_report": machine_report,
    "mail_location": dovecot_conf.mail_location,
    "metrics_firewall": metrics.firewall_plan,
    "mount_options": matrix.mount_options,
    "move_plan": routing.move_plan,
    "moving_file": moving_file,
    "needs_lockd": matrix.needs_lockd,
    "override_file": override_file,
    "package_names": distributions.package_names,
    "passdb_conf": logins.passdb_conf,
    "passwd_file": passwd_file,
    "preload": preload,
    "proxy_conf": dovecot_conf.proxy_conf,
    "requested_users": routing.requested_users,
    "routing": routing.routing,
    "server_conf": server_conf,
    "service_files": distributions.service_files,
    "shard_file": shard_file,
    "shard_map": shards.shard_map,
    "shard_of": shards.shard_of,
    "time_conf": timeplan.time_conf,
    "to_doveconf": matrix.to_doveconf,
    "upgrade_preview": upgrade_preview,
    "user_paths": routing.user_paths,
    "verify_answers": verify_answers,
}


class FilterModule:
    """Filters of nfsmail.cluster."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filter name to function."""
        return {name: _as_filter(function) for name, function in FILTERS.items()}
