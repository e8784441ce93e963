# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who takes the time from whom, and the daemon's configuration file."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from .errors import NfsmailError, Problem
from .profile import as_list, is_yes

SOURCE = "chrony.conf(5); ntp.conf(5)"
DAEMONS = ("chrony", "ntpsec")
ALLOW = re.compile(r"[A-Za-z0-9.:/-]+\Z")
SOURCE_LINE = re.compile(r"(?!(?:server|pool|peer)\Z)(?:(?:server|pool|peer) )?[A-Za-z0-9.:_-]+(?: [a-z0-9]+)*\Z")


def time_conf(plan: Mapping[str, Any]) -> str:
    """The daemon's whole configuration file.

    ``plan``: ``daemon`` (chrony or ntpsec), ``sources`` (hosts, or ``server|pool HOST options``), ``allow``
    (clients that may ask), ``serve`` (serve time even without a source of one's own), ``version``.
    """
    daemon = str(plan.get("daemon", "chrony"))
    sources, allow = as_list(plan.get("sources")), as_list(plan.get("allow"))
    serve = is_yes(plan.get("serve"))
    problems = list(_problems(daemon, sources, allow, serve))
    if problems:
        raise NfsmailError(problems)
    write = _chrony if daemon == "chrony" else _ntpsec
    return "\n".join(write(sources, allow, serve)) + "\n"


def _problems(daemon: str, sources: Sequence[str], allow: Sequence[str], serve: bool) -> Iterator[Problem]:
    if daemon not in DAEMONS:
        yield Problem("timesync_daemon", daemon, f"one of {', '.join(DAEMONS)}", "choose one", SOURCE)
    if not sources and not serve:
        yield Problem(
            "timesync_sources",
            [],
            "a machine takes its time from somewhere: clocks more than a second apart break mail",
            "list an NTP server, or set timesync_serve on the one that the others follow",
            "Dovecot wiki, NFS, 2012: clock synchronization",
        )
    for source in sources:
        if not SOURCE_LINE.match(source):
            yield Problem("timesync_sources", source, "a host, or server|pool HOST and options", "correct it", SOURCE)
    for client in allow:
        if not ALLOW.match(client):
            yield Problem("timesync_allow", client, "an address or a network", "correct it", SOURCE)


def _source(line: str, options: str) -> str:
    words = line.split(" ")
    kind, host, *given = words if words[0] in ("server", "pool", "peer") else ["server", *words]
    return f"{kind} {host} {' '.join(given) or options}".rstrip()


def _chrony(sources: Sequence[str], allow: Sequence[str], serve: bool) -> Iterator[str]:
    for source in sources:
        yield _source(source, "iburst minpoll 4 maxpoll 6")
    if serve:
        yield "# The cluster agrees on one time even while the outer sources are away."
        yield "local stratum 10 orphan"
    yield from (f"allow {client}" for client in allow)
    yield "driftfile /var/lib/chrony/chrony.drift"
    yield "# A step after start would make Dovecot kill its mail processes: only the first three updates step."
    yield "makestep 1 3"
    yield "rtcsync"
    yield "maxupdateskew 100.0"
    yield "logdir /var/log/chrony"


def _ntpsec(sources: Sequence[str], allow: Sequence[str], serve: bool) -> Iterator[str]:
    yield "driftfile /var/lib/ntpsec/ntp.drift"
    yield "# One source is enough: what matters is that all machines follow the same one."
    yield "tos minclock 1 minsane 1" + (" orphan 10" if serve else "")
    for source in sources:
        yield _source(source, "iburst minpoll 4 maxpoll 6")
    yield "restrict default kod nomodify nopeer noquery limited"
    yield "restrict 127.0.0.1"
    yield "restrict ::1"
    # 'limited' above would make iburst of our own machines be refused.
    yield from (f"restrict {client} nomodify nopeer noquery" for client in allow)
