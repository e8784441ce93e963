# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Readers for what a machine says of itself. Pure functions.

This module util is PRIVATE to the collection; it can change without notice.
"""

from __future__ import annotations

import calendar
import re
import shlex
import time


def parse_os_release(text: str) -> dict[str, object]:
    """Distribution, its version and major version, family and package manager, from os-release."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        name, sign, value = line.strip().partition("=")
        if sign and not name.startswith("#"):
            values[name] = "".join(shlex.split(value)[:1])
    own = values.get("ID", "")
    like = [own, *values.get("ID_LIKE", "").split()]
    family = (
        "RedHat" if {"rhel", "fedora", "centos"} & set(like) else "Debian" if {"debian", "ubuntu"} & set(like) else own
    )
    return {
        "distribution": own,
        "version": values.get("VERSION_ID", ""),
        "major_version": values.get("VERSION_ID", "").partition(".")[0],
        "os_family": family,
        "package_manager": {"RedHat": "dnf", "Debian": "apt"}.get(family, "auto"),
    }


def upstream_version(version: str) -> str:
    """``1:2.3.19.1+dfsg1-2.1`` without the distribution's additions: ``2.3.19.1``."""
    match = re.match(r"(?:\d+:)?(\d+(?:\.\d+)*)", version)
    return match.group(1) if match else version


def parse_dpkg(text: str) -> dict[str, str]:
    """Installed packages among the lines ``name status version`` of dpkg-query."""
    rows = (line.split() for line in text.splitlines())
    return {row[0]: upstream_version(row[2]) for row in rows if len(row) == 3 and row[1] == "installed"}


def parse_rpm(text: str) -> dict[str, str]:
    """Installed packages among the lines ``name version`` of rpm; other lines say what is not installed."""
    rows = (line.split() for line in text.splitlines())
    return {row[0]: upstream_version(row[1]) for row in rows if len(row) == 2}


def parse_apt_policy(text: str) -> dict[str, str]:
    """The candidate version of each package in the output of ``apt-cache policy``."""
    found: dict[str, str] = {}
    name = ""
    for line in text.splitlines():
        if line and not line[0].isspace() and line.endswith(":"):
            name = line[:-1]
        match = re.match(r"\s+Candidate: (\S+)", line)
        if match and name and match.group(1) != "(none)":
            found[name] = upstream_version(match.group(1))
    return found


def parse_ip_addresses(text: str) -> dict[str, str]:
    """C(ip -oneline address show): address to the name of its interface."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) > 3 and words[2] in ("inet", "inet6"):
            found[words[3].split("/")[0]] = words[1].split("@")[0]
    return found


def parse_moving(text: str) -> dict[str, str]:
    """Who is on the way by a file of moving users, C(/user) and C(//shard) to the address of the new backend."""
    return dict(re.findall(r"^imap(/\S*?):.*\bhost=(\S+)", text, flags=re.M))


def parse_held_until(text: str) -> int:
    """The last moment, in seconds since 1970, until which a file of moving users holds logins; 0 for none."""
    return max((int(moment) for moment in re.findall(r"delay_until=(\d+)", text)), default=0)


def parse_state_changes(text: str) -> dict[str, int]:
    """Active units to when each last started, reloaded or restarted, in seconds since 1970.

    ``text``: C(systemctl show --property=Id,ActiveState,StateChangeTimestamp) in the C locale and UTC.
    """
    found: dict[str, int] = {}
    for block in text.split("\n\n"):
        said = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if said.get("ActiveState") != "active":
            continue
        try:
            moment = time.strptime(said["StateChangeTimestamp"], "%a %Y-%m-%d %H:%M:%S UTC")
        except (KeyError, ValueError):
            continue
        found[said.get("Id", "")] = calendar.timegm(moment)
    return found
