# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What Dovecot counts for Prometheus, and who may read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .dialect import Entry
from .errors import NfsmailError, Problem
from .firewall import by_family, network_problems
from .matrix import in_range
from .profile import as_list, series_of

SOURCE = "docs: metrics"
SCRAPERS = "nfsmail_metrics_scrapers"
# Variables that are numbers, with the least and the greatest. An alert comes where nothing was written for ten minutes.
RANGES = {"metrics_interval": (15, 300), "metrics_port": (1, 65535), "nfsmail_metrics_port": (1, 65535)}
# The first release whose statistics speak to Prometheus, and whose filters are one line.
SINCE = ">=2.3.11"


@dataclass(frozen=True)
class Counter:
    """What Dovecot counts: events that a filter lets through. 2.3 and 2.4 understand the same filters.

    ``on``: ``backend`` or ``proxy``; ``versions``: the releases that have the event.
    """

    name: str
    filter: str
    text: str
    on: tuple[str, ...] = ("backend",)
    versions: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """What Prometheus sees: 2.3.14 and newer, and older ones, whose names end in another way."""
        return (f"dovecot_{self.name}_total", f"dovecot_{self.name}_count")


BOTH = ("backend", "proxy")
LOGIN, COMMAND, SMTP = "auth_request_finished", "imap_command_finished", "smtp_server_command_finished"
# No group_by: releases differ in what they print then, and one leaves out what has no such field.
COUNTERS: tuple[Counter, ...] = (
    Counter("auth", f"event={LOGIN}", "Logins, good and bad.", BOTH),
    Counter("auth_failed", f"event={LOGIN} AND NOT success=yes", "Logins that failed.", BOTH),
    Counter("imap_command", f"event={COMMAND}", "IMAP commands."),
    Counter(
        "imap_command_failed", f"event={COMMAND} AND NOT tagged_reply_state=OK", "IMAP commands answered NO or BAD."
    ),
    Counter("lmtp_command", f"event={SMTP}", "LMTP commands.", BOTH),
    Counter(
        "lmtp_deferred", f"event={SMTP} AND status_code=4*", "LMTP commands answered 4xx: the sender tries again.", BOTH
    ),
    Counter("delivery", "event=mail_delivery_finished", "Messages delivered, and deliveries that failed."),
    Counter("delivery_failed", "event=mail_delivery_finished AND error=*", "Deliveries that failed."),
    Counter("mail_session", "event=mail_user_session_finished", "Sessions of users that ended.", versions=">=2.3.19"),
    Counter(
        "proxy_session", "event=proxy_session_finished", "Connections to backends that ended.", ("proxy",), ">=2.3.19"
    ),
    Counter(
        "proxy_session_established",
        "event=proxy_session_established",
        "Users whom a backend let in.",
        ("proxy",),
        ">=2.3.19",
    ),
)


def counters(version: str, kind: str) -> list[Counter]:
    """What a release counts on a ``backend`` or a ``proxy``."""
    return [one for one in COUNTERS if kind in one.on and (not one.versions or in_range(version, one.versions))]


def dovecot_entries(plan: Mapping[str, Any], version: str, kind: str) -> list[Entry]:
    """The listener and the counters; none where ``plan`` has no ``metrics_listen``.

    ``plan``: ``metrics_listen``, the addresses, and ``metrics_port``. Errors: a release that has no such listener.
    """
    addresses = as_list(plan.get("metrics_listen"))
    if not addresses:
        return []
    if not in_range(version, SINCE):
        raise NfsmailError(
            [
                Problem(
                    "nfsmail_metrics",
                    True,
                    f"Dovecot {version} has no listener for Prometheus: that came with 2.3.11",
                    "upgrade Dovecot, or set nfsmail_metrics to false",
                    "Dovecot documentation, OpenMetrics",
                )
            ]
        )
    # The one word in which the dialects differ; both refuse the other's.
    word = "listen" if series_of(version) == "2.4" else "address"
    lines = (Entry(word, " ".join(addresses)), Entry("port", str(int(plan["metrics_port"]))))
    listener = Entry("inet_listener http", lines, "Prometheus reads /metrics here; nobody is asked for a password.")
    return [
        Entry("service stats", (listener,)),
        *(Entry(f"metric {one.name}", (Entry("filter", one.filter),), one.text) for one in counters(version, kind)),
    ]


def firewall_plan(scrapers: Any) -> dict[str, list[str]]:
    """Who may reach the ports of metrics: ``ipv4`` and ``ipv6``, addresses and networks. Errors: anything else."""
    if problems := list(scraper_problems(scrapers)):
        raise NfsmailError(problems)
    four, six = by_family(as_list(scrapers))
    return {"ipv4": list(map(str, four)), "ipv6": list(map(str, six))}


def scraper_problems(scrapers: Any) -> Iterator[Problem]:
    """What is wrong with who reads metrics."""
    return network_problems(SCRAPERS, as_list(scrapers), SOURCE)


def range_problems(variables: Mapping[str, Any]) -> Iterator[Problem]:
    """Numbers out of range, and two listeners at one port; what is no number is told by its argument spec."""
    found = {name: value for name, value in variables.items() if name in RANGES and type(value) is int}
    for name, value in found.items():
        least, greatest = RANGES[name]
        if not least <= value <= greatest:
            yield Problem(name, value, f"a number from {least} to {greatest}", "choose one", SOURCE)
    if "metrics_port" in found and found["metrics_port"] == found.get("nfsmail_metrics_port"):
        rule = "node-exporter and Dovecot listen at ports of their own"
        yield Problem("metrics_port", found["metrics_port"], rule, "choose another", SOURCE)
