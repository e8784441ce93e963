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
from ansible.errors import AnsibleFilterError  # type: ignore[import-untyped]

from ..plugin_utils import dovecot_conf, inventory, judge, locks, matrix, shards, timeplan
from ..plugin_utils import exports as exports_
from ..plugin_utils.dialect import from_doveconf, to_doveconf
from ..plugin_utils.errors import NfsmailError, report

ROLES = Path(__file__).parents[2] / "roles"
# Which kind of machine a group holds, and the fact in which its role's tasks/verify.yml leaves what it read.
LIVE = {
    "nfs_servers": ("nfs_server", "nfs_server_live"),
    "mail_backends": ("backend", "dovecot_live"),
    "mail_proxies": ("proxy", "dovecot_proxy_live"),
}


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
    }


def inventory_report(
    variables: Mapping[str, Any], members: Mapping[str, Sequence[Mapping[str, Any]]], hostvars: Mapping[str, Any]
) -> str:
    """Every problem of the inventory as one text; empty when all is well."""
    hosts = sorted({str(host["name"]) for group in members.values() for host in group})
    names = {host: [str(name) for name in hostvars[host]] for host in hosts}
    values = {
        host: {name: hostvars[host][name] for name in names[host] if name in variables and name in _cluster_variables()}
        for host in hosts
    }
    return report(inventory.inventory_problems(variables, members, names, _documented(), values))


def hostname_report(nodenames: Mapping[str, str]) -> str:
    """Machines with one host name, as a text; empty when all differ."""
    return report(inventory.hostname_problems(nodenames))


def verify_answers(members: Mapping[str, Sequence[Mapping[str, Any]]], hostvars: Mapping[str, Any]) -> dict[str, Any]:
    """The judgement of all live machines: ``good``, ``counts``, ``checks`` and ``table``."""
    read = [
        judge.Live(str(host["name"]), kind, hostvars[host["name"]].get(variable) or {})
        for group, (kind, variable) in LIVE.items()
        for host in members.get(group, ())
    ]
    answers = judge.all_answers(read)
    return {**judge.as_report(answers), "table": judge.as_table(answers)}


@functools.cache
def _specs() -> dict[str, frozenset[str]]:
    found = {}
    for path in sorted(ROLES.glob("*/meta/argument_specs.yml")):
        spec = yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"]
        found[path.parents[1].name] = frozenset(name for entry in spec.values() for name in entry.get("options", {}))
    return found


def _documented() -> frozenset[str]:
    # What the roles hand from one to the next.
    return frozenset().union(*_specs().values()) | {"nfsmail_members", "nfsmail_verdict"}


def _cluster_variables() -> frozenset[str]:
    return _specs().get("nfsmail", frozenset())


FILTERS: dict[str, Callable[..., Any]] = {
    "backend_conf": dovecot_conf.backend_conf,
    "cluster_members": cluster_members,
    "cluster_profile": inventory.profile_of,
    "dovecot_settings": matrix.settings,
    "explain": matrix.explain,
    "exports_file": exports_file,
    "exports_plan": exports_.exports,
    "findings": judge.findings,
    "from_doveconf": from_doveconf,
    "hostname_report": hostname_report,
    "inventory_report": inventory_report,
    "lock_conf": lock_conf,
    "mount_options": matrix.mount_options,
    "needs_lockd": matrix.needs_lockd,
    "override_file": override_file,
    "passwd_file": passwd_file,
    "proxy_conf": dovecot_conf.proxy_conf,
    "server_conf": server_conf,
    "shard_file": shard_file,
    "shard_map": shards.shard_map,
    "shard_of": shards.shard_of,
    "time_conf": timeplan.time_conf,
    "to_doveconf": to_doveconf,
    "verify_answers": verify_answers,
}


class FilterModule:
    """Filters of nfsmail.cluster."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Filter name to function."""
        return {name: _as_filter(function) for name, function in FILTERS.items()}
