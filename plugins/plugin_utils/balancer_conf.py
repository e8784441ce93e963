# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A whole ``haproxy.cfg``, each group of lines with its reason.

Read by HAProxy 2.2 (Debian 11) and newer. The same plan gives the same file on every balancer, and with it the same
backend for a client: they need not talk to each other.
"""

from __future__ import annotations

import hashlib
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .dovecot_conf import SECRET
from .errors import NfsmailError, Problem
from .profile import as_list
from .protocols import served
from .shards import Backend, lowered, parse_backends

SOURCE = "HAProxy documentation, configuration manual"
MEASURED = "measured: HAProxy 2.2, 2.6 and 3.0"
DOCS = "docs: choosing a topology"
SOCKET = "/run/haproxy/admin.sock"
SERVER_NAME = re.compile(r"[A-Za-z0-9_.-]+\Z")
HEALTH_USER = re.compile(r"[A-Za-z0-9._@+-]+\Z")
# HAProxy multiplies a server's id by 4096 before it hashes it, in 32 bits: larger ids would not differ.
IDS = 2**20
MAX_WEIGHT = 256


@dataclass(frozen=True)
class Group:
    """Lines that belong together, and the reason above them."""

    why: str
    lines: tuple[str, ...]


def balancer_conf(plan: Mapping[str, Any]) -> str:
    """A balancer's ``haproxy.cfg`` from the role's variables (``roles/balancer/vars``)."""
    servers = parse_backends(plan["servers"])
    problems = [
        *server_problems(servers),
        *health_problems(plan["health_user"], plan["health_password"]),
        *_number("balancer_check_interval", plan["check_interval"], 1, 600),
        *_number("balancer_maxconn", plan["maxconn"], 1, 1_000_000),
        *_number("balancer_lmtp_port", plan["lmtp_port"], 1, 65535),
    ]
    if problems:
        raise NfsmailError(problems)
    sections = {"global": _global(plan), "defaults": _defaults(plan)}
    if _client_ports(plan):
        sections["listen clients"] = _clients(plan, servers)
    if "lmtp" in as_list(plan["protocols"]):
        sections["listen lmtp"] = _lmtp(plan, servers)
    return "\n".join("".join(f"{line}\n" for line in _section(name, groups)) for name, groups in sections.items())


def server_problems(servers: Iterable[Backend]) -> list[Problem]:
    """Names that HAProxy would refuse."""
    return [
        Problem(
            f"host {server.name}",
            server.name,
            "HAProxy takes letters, digits and . _ - for the name of a server",
            "rename the host in the inventory",
            SOURCE,
        )
        for server in servers
        if not SERVER_NAME.match(server.name)
    ]


def health_problems(user: Any, password: Any, users: Sequence[Any] = ()) -> list[Problem]:
    """What is wrong with the user that the balancers log in as. ``users``: those of the inventory, where it lists any."""
    name, secret = str(user or ""), str(password or "")
    if not name and not secret:
        return []
    found: list[Problem] = []
    if not HEALTH_USER.match(name):
        rule = "the user of nfsmail_health_password: letters, digits and . _ @ + -"
        found.append(Problem("nfsmail_health_user", name or None, rule, "name a user made for this", DOCS))
    elif users and lowered(name) not in {lowered(str(one.get("name"))) for one in users if isinstance(one, Mapping)}:
        rule = "the balancers log in as any user does: it is one of nfsmail_users"
        fix = "add it to nfsmail_users with the hash of nfsmail_health_password"
        found.append(Problem("nfsmail_health_user", name, rule, fix, DOCS))
    if not SECRET.match(secret):
        rule = "the password of nfsmail_health_user: at least 16 of A-Z a-z 0-9 . _ ~ + / = -"
        fix = "make one with: openssl rand -base64 33, and keep it in Ansible Vault"
        found.append(Problem("nfsmail_health_password", "(hidden)" if secret else None, rule, fix, "docs: security"))
    return found


def server_ids(servers: Iterable[Backend]) -> dict[str, int]:
    """A number for each server that follows from its name, wherever in the inventory it stands."""
    found: dict[str, int] = {}
    for name in sorted(server.name for server in servers):
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") % (IDS - 1) + 1
        while number in found.values():
            number = number % (IDS - 1) + 1
        found[name] = number
    return found


def weights(servers: Iterable[Backend]) -> dict[str, int]:
    """Weights as HAProxy takes them, the largest 256; a server that takes nobody has 0."""
    usable = {server.name: server.weight if server.state == "up" else 0.0 for server in servers}
    largest = max(usable.values())
    return {name: max(round(MAX_WEIGHT * weight / largest), weight > 0) for name, weight in usable.items()}


def _global(plan: Mapping[str, Any]) -> list[Group]:
    return [
        Group(
            "To the journal: from its chroot HAProxy does not reach /dev/log on Debian 11.",
            ("log stderr format short mail",),
        ),
        Group(
            "What clients talk to sees no file and has no rights.",
            ("chroot /var/lib/haproxy", "user haproxy", "group haproxy"),
        ),
        Group(
            "For verify.yml, as root only; at a reload the new process takes the ports over through it.",
            (f"stats socket {plan.get('socket', SOCKET)} mode 600 level admin expose-fd listeners",),
        ),
        Group(
            "Clients at a time. By default HAProxy takes as many as it may open files.", (f"maxconn {plan['maxconn']}",)
        ),
        Group(
            "After a reload the former process keeps its clients where they are, but not beside the new one for days.",
            ("hard-stop-after 30m",),
        ),
    ]


def _defaults(plan: Mapping[str, Any]) -> list[Group]:
    interval = plan["check_interval"]
    return [
        Group("TLS is between client and Dovecot; nothing here sees a password or a message.", ("mode tcp",)),
        Group(
            "A line for each connection, and for each server that goes or comes back.",
            ("log global", "option tcplog", "option log-health-checks"),
        ),
        Group(
            "An idle client speaks every 29 minutes, and Dovecot ends one that does not after 30: before us.",
            ("timeout client 35m", "timeout server 35m", "timeout connect 5s"),
        ),
        Group("Finds clients and servers that went without a word.", ("option clitcpka", "option srvtcpka")),
        Group(
            "A connection that fails is not tried elsewhere: one backend more would open the mailbox. The checks decide.",
            ("no option redispatch",),
        ),
        Group(
            "send-proxy-v2 tells Dovecot the client's address. A backend is down after three failed checks, and its clients"
            " are told at once; it is back after five good ones, for each change moves clients.",
            (
                "timeout check 10s",
                f"default-server check inter {interval}s fastinter 1s fall 3 rise 5 send-proxy-v2",
                "default-server on-marked-down shutdown-sessions init-addr libc,none",
            ),
        ),
    ]


def _clients(plan: Mapping[str, Any], servers: Sequence[Backend]) -> list[Group]:
    return [
        Group(
            "All ports in one section: whatever a client speaks, it is on one backend.",
            _binds(plan, _client_ports(plan)),
        ),
        *_affinity(),
        *_client_check(plan),
        *_servers(servers),
    ]


def _lmtp(plan: Mapping[str, Any], servers: Sequence[Backend]) -> list[Group]:
    port = int(plan["lmtp_port"])
    return [
        Group("Delivery, with checks of its own: mail clients stay where LMTP alone is broken.", _binds(plan, [port])),
        *_affinity(),
        Group(
            "LMTP answers, behind the PROXY header.",
            _dialogue(port, False, "220 ", [("LHLO balancer", "250 "), ("QUIT", "221 ")]),
        ),
        *_servers(servers),
    ]


def _affinity() -> list[Group]:
    return [
        Group(
            "One client address, one backend. A hash of the address, not a table: balancers agree without talking, also after"
            " a restart. Consistent: when a backend dies its own clients move, nobody else; when it is back they return with"
            " their next connection. A table would keep busy addresses apart from what other balancers say for good.",
            # Without avalanche a whole network of neighbours would be on one backend.
            ("balance source", "hash-type consistent sdbm avalanche"),
        )
    ]


def _client_check(plan: Mapping[str, Any]) -> list[Group]:
    protocol = served(as_list(plan["protocols"]))[0]
    user, secret = str(plan["health_user"] or ""), str(plan["health_password"] or "")
    if user and protocol.name == "imap" and plan["topology"] == "random":
        why = (
            "A whole login, as a client does: TLS, password, mail process. It opens no mailbox: several machines would, at"
            " the same time."
        )
        talk = [(f"a1 LOGIN {user} {secret}", "a1 OK"), ("a2 LOGOUT", "a2 OK")]
        return [Group(why, _dialogue(protocol.tls_port, True, protocol.greeting, talk))]
    why = "Dovecot answers, behind the PROXY header."
    if plan["topology"] == "per_user":
        why += " No login: it would end on one backend, and that one's fault would take all proxies away."
    return [Group(why, _dialogue(protocol.port, False, protocol.greeting, []))]


def _dialogue(port: int, tls: bool, greeting: str, talk: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    # The certificate is the self-signed one that Debian makes, unless somebody brought another.
    server = f"default-server port {port}{' verify none' if tls else ''}"
    lines = [server, "option tcp-check", f"tcp-check connect{' ssl' if tls else ''} send-proxy"]
    lines.append(f"tcp-check expect string '{greeting}'")
    for say, expected in talk:
        lines.append(f'tcp-check send "{say}\\r\\n"')
        if expected.endswith("OK"):
            # Or a refusal would be waited for until the check's time is over. What comes first tells, in five bytes.
            lines.append(f"tcp-check expect min-recv 5 ! string '{expected.removesuffix('OK')}NO'")
        lines.append(f"tcp-check expect string '{expected}'")
    return tuple(lines)


def _servers(servers: Sequence[Backend]) -> list[Group]:
    ids, weight = server_ids(servers), weights(servers)
    lines = (
        f"server {server.name} {_server_address(server.address)} id {ids[server.name]} weight {weight[server.name]}"
        + (" disabled" if server.state == "down" else "")
        for server in sorted(servers, key=lambda server: server.name)
    )
    return [
        Group(
            "The port is the one that the client came to. The id decides where on the hash a server stands: it follows from"
            " the name, so that others keep their clients when one is added. Weight 0 takes no new clients.",
            tuple(lines),
        )
    ]


def _binds(plan: Mapping[str, Any], ports: Sequence[int]) -> tuple[str, ...]:
    return tuple(
        f"bind {_bind_address(address)}:{port}{' v6only' if address == '::' else ''}"
        for port in ports
        for address in as_list(plan["listen"])
    )


def _client_ports(plan: Mapping[str, Any]) -> list[int]:
    return [port for one in served(as_list(plan["protocols"])) for port in one.ports]


def _bind_address(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _server_address(address: str) -> str:
    # A plain IPv6 address would lose its last group to the port.
    return f"ipv6@[{address}]" if ":" in address else address


def _number(variable: str, value: Any, low: int, high: int) -> Iterator[Problem]:
    if isinstance(value, bool) or not str(value).isdigit() or not low <= int(value) <= high:
        yield Problem(variable, value, f"a whole number, {low} to {high}", "correct it", SOURCE)


def _section(name: str, groups: Iterable[Group]) -> Iterator[str]:
    yield name
    for group in groups:
        yield from (f"  # {line}" for line in textwrap.wrap(group.why, 110))
        yield from (f"  {line}" for line in group.lines)
