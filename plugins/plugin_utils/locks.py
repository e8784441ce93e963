# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""NFSv3 lock services: fixed ports, and the files that set them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .errors import NfsmailError, Problem
from .profile import as_list

SOURCE = "nfs.conf(5); measured: a port in the ephemeral range can be taken by a client socket"
EPHEMERAL_FIRST = 32768
SERVER_VERSIONS = ("3", "4.0", "4.1", "4.2")
# Service to the section and key of nfs.conf.
PORTS = {
    "lockd": ("lockd", "port"),
    "lockd_udp": ("lockd", "udp-port"),
    "statd": ("statd", "port"),
    "statd_outgoing": ("statd", "outgoing-port"),
    "mountd": ("mountd", "port"),
}


def check_ports(ports: Mapping[str, Any]) -> dict[str, int]:
    """Ports as numbers; out of range, in the ephemeral range or used twice is a problem."""
    problems: list[Problem] = []
    good: dict[str, int] = {}
    users: dict[int, str] = {}
    for name, given in ports.items():
        variable = f"lockd_ports.{name}"
        try:
            port = int(str(given))
        except ValueError:
            port = -1
        if name not in PORTS:
            problems.append(Problem(variable, given, f"known: {', '.join(PORTS)}", "correct the name", SOURCE))
        elif not 1024 <= port < EPHEMERAL_FIRST:
            problems.append(
                Problem(variable, given, f"a port from 1024 to {EPHEMERAL_FIRST - 1}", "choose another", SOURCE)
            )
        elif port in users and {name, users[port]} != {"lockd", "lockd_udp"}:
            problems.append(Problem(variable, given, f"{users[port]} has this port", "choose another", SOURCE))
        else:
            good[name] = port
            users[port] = name
    if problems:
        raise NfsmailError(problems)
    return good


def nfs_conf(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Sections of ``nfs.conf(5)``; empty values are left out, booleans are y and n."""
    lines: list[str] = []
    for section, values in sections.items():
        known = {key: value for key, value in values.items() if value not in (None, "")}
        if known:
            lines += [f"[{section}]", *(f"{key}={_value(value)}" for key, value in known.items()), ""]
    return "\n".join(lines)


def port_sections(ports: Mapping[str, Any], names: tuple[str, ...] = tuple(PORTS)) -> dict[str, dict[str, int]]:
    """The ports as sections of nfs.conf."""
    found: dict[str, dict[str, int]] = {}
    for name, port in check_ports(ports).items():
        if name in names:
            section, key = PORTS[name]
            found.setdefault(section, {})[key] = port
    return found


def nfsd_versions(wanted: Iterable[Any]) -> dict[str, bool]:
    """The version switches of nfs.conf: on for what the cluster uses, off for the rest."""
    versions = as_list(wanted)
    unknown = [version for version in versions if version not in SERVER_VERSIONS]
    if unknown or not versions:
        raise NfsmailError(
            [
                Problem(
                    "nfs_server_versions",
                    versions,
                    f"at least one of {', '.join(SERVER_VERSIONS)}; servers no longer speak NFSv2",
                    "use 4.2, or 3 with lockd",
                    "nfs-utils 2.6.1 NEWS",
                )
            ]
        )
    minor = {f"vers{version}": version in versions for version in SERVER_VERSIONS[1:]}
    return {"vers3": "3" in versions, "vers4": any(minor.values()), **minor}


def _value(value: Any) -> str:
    return ("n", "y")[value] if isinstance(value, bool) else str(value)
