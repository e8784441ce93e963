# Copyright (c) 2026 nfsmail.cluster contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Reading what the programs and files of a mail host say about its state.

The C(parse_) functions are pure; the two clock functions measure.

This module util is PRIVATE to the collection; it can change without notice.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

# ---- HAProxy ----


def ask_haproxy(path: str, command: str, timeout: float) -> str:
    """The answer of HAProxy's socket to a command."""
    with socket.socket(socket.AF_UNIX) as asked:
        asked.settimeout(timeout)
        asked.connect(path)
        asked.sendall(f"{command}\n".encode("ascii"))
        with asked.makefile(encoding="utf-8", errors="replace") as answer:
            return answer.read()


def parse_haproxy_info(text: str) -> str:
    """The release of HAProxy in the answer to C(show info)."""
    match = re.search(r"^Version: (\S+)", text, re.MULTILINE)
    return match.group(1) if match else ""


def parse_haproxy_stat(text: str) -> list[dict[str, Any]]:
    """The servers in the table of C(show stat): what HAProxy thinks of each, and why."""
    lines = text.lstrip("# ").splitlines()
    return [
        {
            "section": row["pxname"],
            "server": row["svname"],
            # "UP 1/3" is on its way down; a weight of 0 in the file is DRAIN in HAProxy's log, but not in this table.
            "status": "DRAIN"
            if row["status"][:2] == "UP" and row["weight"] == "0"
            else row["status"].partition(" ")[0],
            "weight": int(row["weight"] or 0),
            "id": int(row["sid"] or 0),
            "check": f"{row['check_status']} {row.get('last_chk') or ''}".strip(),
        }
        for row in csv.DictReader(lines)
        if row.get("svname") not in (None, "FRONTEND", "BACKEND")
    ]


# ---- the packet filter ----


def parse_nft_sets(text: str) -> dict[str, list[Any]]:
    """The named sets of ``nft --json list table``: name to ports, or to addresses and networks.

    A table without its rule filters nothing, whatever its sets say: then there are none.
    """
    items = [item for item in json.loads(text)["nftables"] if isinstance(item, dict)]
    if not any("rule" in item for item in items):
        return {}
    sets = [item["set"] for item in items if "set" in item]
    return {one["name"]: [_nft_element(element) for element in one.get("elem", ())] for one in sets}


def _nft_element(element: Any) -> Any:
    if not isinstance(element, dict):
        return element
    if "range" in element:
        return "-".join(map(str, element["range"]))
    prefix = element["prefix"]
    return f"{prefix['addr']}/{prefix['len']}"


# ---- logs ----


def matching_lines(text: str, patterns: dict[str, str]) -> dict[str, Any]:
    """Name of a pattern to the number of lines that match, and the last of them. A line counts for the first that matches."""
    compiled = {name: re.compile(pattern) for name, pattern in patterns.items()}
    found: dict[str, dict[str, Any]] = {}
    for line in text.splitlines():
        for name, pattern in compiled.items():
            if pattern.search(line):
                seen = found.setdefault(name, {"count": 0, "last": ""})
                seen["count"] += 1
                seen["last"] = line[:300]
                break
    return found


# ---- the NFS server ----


def parse_nfsd_versions(text: str) -> list[str]:
    """The versions of /proc/fs/nfsd/versions that are on: C(3), C(4.0), C(4.1), C(4.2).

    C(+4) stands for 4.0 too, unless C(-4.0) is there.
    """
    signs = {word[1:]: word[0] == "+" for word in text.split() if word[:1] in "+-"}
    versions = [version for version in ("2", "3") if signs.get(version)]
    if signs.get("4"):
        if signs.get("4.0", True):
            versions.append("4.0")
        versions += [
            version for version, on in sorted(signs.items()) if on and version.startswith("4.") and version != "4.0"
        ]
    return versions


def parse_portlist(text: str) -> list[dict[str, Any]]:
    """Read /proc/fs/nfsd/portlist; the lines for IPv4 and IPv6 count once."""
    listeners = []
    for line in text.splitlines():
        match = re.match(r"(\w+)\s+(\d+)\s*$", line)
        if match:
            listener = {"proto": match.group(1), "port": int(match.group(2))}
            if listener not in listeners:
                listeners.append(listener)
    return listeners


def parse_rpcinfo(text: str) -> list[dict[str, Any]]:
    """Read the table of C(rpcinfo -p)."""
    programs = []
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 4 and fields[0].isdigit() and fields[1].isdigit() and fields[3].isdigit():
            programs.append(
                {
                    "program": int(fields[0]),
                    "version": int(fields[1]),
                    "proto": fields[2],
                    "port": int(fields[3]),
                    "name": fields[4] if len(fields) > 4 else "",
                }
            )
    return programs


# ---- time daemons ----

_TRACKING = (
    "refid",
    "name",
    "stratum",
    "ref_time",
    "system_time",
    "last_offset",
    "rms_offset",
    "frequency_ppm",
    "residual_ppm",
    "skew_ppm",
    "root_delay",
    "root_dispersion",
    "update_interval",
    "leap",
)
_SOURCES = (
    "mode",
    "state",
    "name",
    "stratum",
    "poll",
    "reach",
    "last_rx",
    "adjusted_offset",
    "measured_offset",
    "error",
)


def _value(text: str) -> Any:
    for convert in (int, float):
        with contextlib.suppress(ValueError):
            return convert(text)
    return text


def parse_tracking(text: str) -> dict[str, Any]:
    """Read C(chronyc -c tracking): 14 columns. C(system_time) is positive when the local clock is slow."""
    fields = text.strip().split(",")
    if len(fields) != len(_TRACKING):
        raise ValueError(f"chronyc -c tracking gave {len(fields)} columns, not {len(_TRACKING)}")
    tracking = {
        key: value if key in ("refid", "name", "leap") else _value(value) for key, value in zip(_TRACKING, fields)
    }
    return tracking


def parse_sources(text: str) -> list[dict[str, Any]]:
    """Read C(chronyc -c sources): 10 columns. Offsets are positive when the local clock is ahead; C(reach) is octal."""
    sources = []
    for line in text.splitlines():
        fields = line.strip().split(",")
        if len(fields) == len(_SOURCES):
            source = {
                k: value if k in ("mode", "state", "name") else _value(value) for k, value in zip(_SOURCES, fields)
            }
            source["reach"] = int(fields[5], 8) if re.fullmatch("[0-7]+", fields[5]) else 0
            sources.append(source)
    return sources


def chrony_synchronised(tracking: dict[str, Any], sources: list[dict[str, Any]]) -> bool:
    """Whether chronyd follows a source that answers, or is a reference of its own (C(local)).

    C(tracking) goes on to say Normal when the source has been gone for an hour; C(reach) tells.
    """
    if tracking["leap"] == "Not synchronised":
        return False
    if tracking["refid"] == "7F7F0101":
        return True
    return any(source["state"] == "*" and source["reach"] != 0 for source in sources)


def parse_ntpq(text: str) -> dict[str, Any]:
    """Read the variables of C(ntpq -c rv)."""
    flat = " ".join(text.split())
    found: dict[str, Any] = {}
    for key, value in re.findall(r"(\w+)=(\"[^\"]*\"|[^,\s]+)", flat):
        found[key] = value.strip('"')
    return found


def ntp_synchronised(variables: dict[str, Any]) -> bool | None:
    """Whether ntpd follows a source, None when it does not say."""
    if "leap" not in variables or "stratum" not in variables:
        return None
    return variables["leap"] not in ("11", "3") and str(variables["stratum"]) not in ("0", "16")


# ---- systemd ----


def parse_show(text: str) -> list[dict[str, Any]]:
    """Read C(systemctl show): one mapping for each unit. A property that comes more than once becomes a list."""
    units = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        unit: dict[str, Any] = {}
        for line in block.splitlines():
            key, separator, value = line.partition("=")
            if not separator:
                continue
            if key in unit:
                unit[key] = [*unit[key], value] if isinstance(unit[key], list) else [unit[key], value]
            else:
                unit[key] = value
        if unit:
            units.append(unit)
    return units


def parse_assertions(text: str) -> list[str]:
    """The C(Assert...=) lines of the unit files that C(systemctl cat) prints; an empty one resets, as in systemd."""
    found: list[str] = []
    for line in text.splitlines():
        match = re.match(r"\s*(Assert\w+)\s*=\s*(.*?)\s*$", line)
        if match:
            found = [*found, f"{match.group(1)}={match.group(2)}"] if match.group(2) else []
    return found


# ---- clocks ----

NTP_TO_UNIX = 2208988800


def _timestamp(data: bytes) -> float:
    seconds, fraction = struct.unpack("!II", data)
    era = 0 if seconds & 0x80000000 else 2**32  # before or after 2036-02-07
    return float(seconds + era - NTP_TO_UNIX + fraction / 2**32)


def sntp_request(now: float) -> bytes:
    """A version 4 client packet that carries C(now) for the server to send back."""
    seconds = now + NTP_TO_UNIX
    return struct.pack("!B39xII", 0x23, int(seconds) & 0xFFFFFFFF, int((seconds % 1) * 2**32) & 0xFFFFFFFF)


def parse_sntp(request: bytes, reply: bytes, sent: float, received: float) -> dict[str, Any]:
    """Offset of the server's clock against ours, its bound, and what the server says of itself."""
    if len(reply) < 48 or reply[0] & 7 != 4:
        raise ValueError("the answer is not an NTP server packet")
    if reply[24:32] != request[40:48]:
        raise ValueError("the answer is for another question")
    stratum = reply[1]
    if stratum == 0:
        raise ValueError(f"the time server refuses to answer ({reply[12:16].decode('ascii', 'replace')})")
    server_received, server_sent = _timestamp(reply[32:40]), _timestamp(reply[40:48])
    delay = max((received - sent) - (server_sent - server_received), 0.0)
    return {
        "offset": ((server_received - sent) + (server_sent - received)) / 2,
        "error_bound": delay / 2,
        "stratum": stratum,
        "leap": reply[0] >> 6,
        "root_delay": struct.unpack("!I", reply[4:8])[0] / 65536,
        "root_dispersion": struct.unpack("!I", reply[8:12])[0] / 65536,
    }


def query_sntp(server: str, tries: int = 4, wait: float = 2.0, port: int = 123) -> dict[str, Any]:
    """Ask a time server a few times; the answer that came fastest is the most exact. Raises OSError or ValueError."""
    kind, socktype, number, dummy, address = socket.getaddrinfo(server, port, type=socket.SOCK_DGRAM)[0]
    answers = []
    problem: Exception = TimeoutError(f"{address[0]} did not answer at UDP port {port}")
    silent = 0
    for turn in range(tries):
        if turn:
            time.sleep(0.1)
        with socket.socket(kind, socktype, number) as channel:
            channel.settimeout(wait)
            channel.connect(address)
            clock, start = time.time(), time.monotonic()
            request = sntp_request(clock)
            try:
                channel.send(request)
                reply = channel.recv(512)
                answers.append(parse_sntp(request, reply, clock, clock + time.monotonic() - start))
            except socket.timeout:
                silent += 1
                if silent >= 2 and not answers:
                    break
            except (OSError, ValueError) as exc:
                problem = exc
    if not answers:
        raise problem
    return min(answers, key=lambda answer: answer["error_bound"])


def store_clock(folder: str, name: str, tries: int = 10, granularity: float = 0.01) -> dict[str, Any]:
    """Offset of the clock that stamps files in C(folder) against ours, as an interval; and what lock files rely on.

    The server sets the time of a file between two looks at our clock. Its stamps are as coarse as C(granularity).
    C(exclusive): a file that is there cannot be made again. C(links): C(link) makes a second name, and none that is there.
    """
    path = os.path.join(folder, name)
    lowest, highest = float("-inf"), float("inf")
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        for dummy in range(tries):
            before = time.time()
            os.utime(path)  # the server takes its own clock
            after = time.time()
            stamp = os.stat(path).st_mtime
            lowest, highest = max(lowest, stamp - after), min(highest, stamp - before + granularity)
            time.sleep(0.02)
        exclusive = _refused(lambda: os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)))
        links = _links(path, f"{path}-link")
    finally:
        os.close(fd)
        os.unlink(path)
    return {"offset_min": lowest, "offset_max": highest, "tries": tries, "exclusive": exclusive, "links": links}


def _refused(attempt: Callable[[], None]) -> bool:
    try:
        attempt()
    except FileExistsError:
        return True
    return False


def _links(path: str, other: str) -> bool:
    try:
        os.link(path, other)
    except OSError:
        return False
    try:
        return os.stat(path).st_nlink == 2 and _refused(lambda: os.link(path, other))
    finally:
        os.unlink(other)
