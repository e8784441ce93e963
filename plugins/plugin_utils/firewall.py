# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who may reach Dovecot on a backend: LMTP asks for no password, so only those whom the topology sends there."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .errors import NfsmailError, Problem
from .profile import as_list
from .protocols import LOGINS, Protocol

# What of a plan the packet filter shows.
SHOWN = ("ports", "ipv4", "ipv6")
ALLOW = "dovecot_firewall_allow"
SOURCE = "docs: security"

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def firewall_plan(plan: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The ports of a backend that are closed (``ports``), but to ``ipv4`` and ``ipv6``, addresses and networks; and
    the ports where proxies log users in without TLS (``logins``).

    ``plan``: the dovecot role's variables; ``proxies``, ``balancers`` and ``firewall_allow`` are let in. Errors: an entry
    that is neither an address nor a network.
    """
    given = [*as_list(plan.get("proxies")), *as_list(plan.get("balancers")), *as_list(plan.get("firewall_allow"))]
    problems = list(allow_problems(given))
    if problems:
        raise NfsmailError(problems)
    four, six = by_family(given)
    logins = _logins(plan)
    ports = {*(port for one in logins for port in one.ports), int(plan["lmtp_port"]), int(plan["doveadm_port"])}
    plain = as_list(plan.get("proxies")) and not plan.get("backend_ca")
    return {
        "ports": sorted(ports),
        # A login without TLS hands its connection to the user's own process.
        "logins": sorted(one.port for one in logins) if plain else [],
        "ipv4": list(map(_word, four)),
        "ipv6": list(map(_word, six)),
    }


def _logins(plan: Mapping[str, Any]) -> list[Protocol]:
    """Whose ports are Dovecot's; also while nobody listens there, unless that may be something else."""
    here = as_list(plan.get("protocols"))
    return [one for name, one in LOGINS.items() if not one.shared or name in here]


def by_family(entries: Iterable[Any]) -> tuple[list[ipaddress.IPv4Network], list[ipaddress.IPv6Network]]:
    """Addresses and networks of IPv4 and of IPv6, without overlaps. Errors: ValueError; `network_problems` tells before."""
    networks = [ipaddress.ip_network(str(entry)) for entry in entries]
    four = ipaddress.collapse_addresses(one for one in networks if isinstance(one, ipaddress.IPv4Network))
    six = ipaddress.collapse_addresses(one for one in networks if isinstance(one, ipaddress.IPv6Network))
    return list(four), list(six)


def allow_problems(entries: Iterable[Any]) -> Iterator[Problem]:
    """What is wrong with who is let in."""
    return network_problems(ALLOW, entries, SOURCE)


def network_problems(variable: str, entries: Iterable[Any], source: str) -> Iterator[Problem]:
    """Entries that no packet filter understands."""
    for entry in entries:
        try:
            ipaddress.ip_network(str(entry))
        except ValueError as error:
            rule = f"an IP address, or a network without host bits ({error})"
            yield Problem(variable, entry, rule, "write 192.0.2.7, 192.0.2.0/24 or the like", source)


def _word(network: Network) -> str:
    return str(network.network_address) if network.num_addresses == 1 else str(network)
