# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Service addresses of backends, which keepalived moves to another backend when one dies.

Proxies send users to a backend's service address, so they need not agree on who is alive: an address is on one machine. Who
takes over follows from the names alone. A backend that returns gets its address back by ``failback``, not by surprise.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .errors import NfsmailError, Problem
from .shards import Backend, parse_backends

SOURCE = "docs: when a backend dies"
# Priorities of VRRP, 1 to 254, each different.
OWNER, FIRST_HEIR = 254, 100
# Where a number other than 0 makes a machine let go of an address.
RELEASE = "/run/nfsmail-release-"
VARIABLE = "nfsmail_service_address"

# Written by role failover: succeeds when the keepalived that calls it is half a minute old. One success is enough after
# init_fail, whatever "rise" says (measured: keepalived 2.2.7 and 2.3.3), so counting successes would be no delay.
SETTLED = "/etc/keepalived/nfsmail-settled"


def heirs(owner: str, names: Sequence[str]) -> list[str]:
    """Who takes an owner's address, the first who lives: another order for each owner, so that load spreads."""
    others = sorted(set(names) - {owner})
    return sorted(others, key=lambda name: hashlib.sha256(f"{owner} {name}".encode()).digest())


def keepalived_conf(plan: Mapping[str, Any]) -> str:
    """The whole ``keepalived.conf`` of a backend.

    ``plan``: ``name``, this backend; ``backends``, all of them, each with ``service_address``; ``interface``, where the
    addresses go; ``advert_interval``, seconds (1); ``ss``, that program. Errors: whatever `address_problems` finds, and a
    missing interface.
    """
    backends = parse_backends(plan["backends"])
    problems = list(address_problems(backends))
    me = next((one for one in backends if one.name == plan["name"]), None)
    if me is None or not plan.get("interface"):
        where = "failover_interface" if me else "name"
        problems.append(
            Problem(where, plan.get("interface") if me else plan["name"], "is known", "set failover_interface", SOURCE)
        )
    if problems or me is None:
        raise NfsmailError(problems)
    lines = [
        "global_defs {",
        f"    router_id {me.name}",
        "    enable_script_security",
        "    script_user root",
        "}",
        "",
        "# Of machines that start together, each is to have its own address before another may take it.",
        "vrrp_script settled {",
        f'    script "{SETTLED}"',
        "    interval 2",
        "    timeout 10",
        "    # Failed until it has succeeded once, and never again: a busy machine that is late must not lose an address.",
        "    fall 1000",
        "    init_fail",
        "}",
        "",
        "# Users go elsewhere when Dovecot has stopped here; the machine's own death needs no script.",
        "vrrp_script dovecot {",
        '    script "/usr/bin/systemctl is-active --quiet dovecot.service"',
        "    interval 2",
        "    timeout 5",
        "    fall 2",
        "    rise 2",
        "}",
    ]
    for owner in backends:
        lines += ["", *_instance(owner, me, backends, plan)]
    return "\n".join(lines) + "\n"


def _instance(owner: Backend, me: Backend, backends: Sequence[Backend], plan: Mapping[str, Any]) -> list[str]:
    interface = str(plan["interface"])
    order = [owner.name, *heirs(owner.name, [one.name for one in backends])]
    priority = OWNER if me.name == owner.name else max(FIRST_HEIR + 1 - order.index(me.name), 1)
    peers = [one.address for one in backends if one.name != me.name]
    ends = f'"{plan.get("ss", "/usr/bin/ss")} --kill --no-header src {owner.service_address}"'
    return [
        f"# {owner.name}'s users; after it, in this order: {', '.join(order[1:]) or 'nobody'}.",
        f"vrrp_track_file keep_{owner.name} {{",
        f"    file {RELEASE}{owner.name}",
        "    weight 0",
        "    init_file 0",
        "}",
        f"vrrp_instance {owner.name} {{",
        "    # Nobody takes an address from one who lives: the way back is failback, which ends sessions first.",
        "    state BACKUP",
        "    nopreempt",
        f"    interface {interface}",
        f"    virtual_router_id {router_id(owner)}",
        f"    priority {priority}",
        f"    advert_int {int(plan.get('advert_interval', 1))}",
        f"    unicast_src_ip {me.address}",
        "    unicast_peer {",
        *(f"        {address}" for address in peers),
        "    }",
        "    virtual_ipaddress {",
        f"        {owner.service_address} dev {interface}",
        "    }",
        "    track_script {",
        "        dovecot",
        *([] if me.name == owner.name else ["        settled"]),
        "    }",
        "    track_file {",
        f"        keep_{owner.name}",
        "    }",
        "    # Whoever loses an address ends its sessions at once: they would stay open beside those on the new machine.",
        f"    notify_backup {ends}",
        f"    notify_fault {ends}",
        f"    notify_stop {ends}",
        "}",
    ]


def router_id(backend: Backend) -> int:
    """VRRP's number for an address: its last byte, so that it stays when backends come and go."""
    return ipaddress.ip_address(backend.service_address).packed[-1]


def address_problems(backends: Sequence[Backend]) -> Iterator[Problem]:
    """Service addresses that cannot work: some backends without, doubles, and what is no address."""
    named = [one for one in backends if one.service_address]
    if not named:
        return
    for one in backends:
        where = f"{VARIABLE} of {one.name}"
        if not one.service_address:
            yield Problem(where, None, "all backends have a service address, or none", "set it for all of them", SOURCE)
            continue
        try:
            ipaddress.ip_address(one.service_address)
        except ValueError:
            yield Problem(where, one.service_address, "an IP address", "correct it", SOURCE)
            continue
        taken = {other.address: other.name for other in backends}
        taken |= {other.service_address: other.name for other in backends if other.name != one.name}
        if one.service_address in taken:
            told = f"an address of its own; {taken[one.service_address]} has this one"
            yield Problem(where, one.service_address, told, "take one that no machine has", SOURCE)
        elif not router_id(one) or any(
            router_id(other) == router_id(one) for other in named if other.name != one.name and _is_address(other)
        ):
            told = "the last byte is 1 to 255, and no other service address ends in it: VRRP tells them apart by it"
            yield Problem(where, one.service_address, told, "take another address", SOURCE)


def _is_address(backend: Backend) -> bool:
    try:
        ipaddress.ip_address(backend.service_address)
    except ValueError:
        return False
    return True


def holders(backends: Sequence[Mapping[str, Any]], addresses: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Owner of a service address to the machines that have it now. ``addresses``: machine to all its addresses."""
    return {
        one.name: sorted(name for name, own in addresses.items() if one.service_address in own)
        for one in parse_backends(backends)
        if one.service_address
    }
