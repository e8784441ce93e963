#!/usr/bin/python
# Copyright (c) 2026 nfsmail.cluster contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""End sessions on a backend, and see that they have ended."""

from __future__ import annotations

DOCUMENTATION = r"""
module: sessions
short_description: End sessions on a backend, and see that they have ended
version_added: 1.0.0
author:
  - nfsmail.cluster contributors (@nfsmail)
description:
  - Kicks the sessions of users, of shards or of everybody, until there are none, and waits for mail that is being delivered.
  - A process that does not end within O(grace) seconds after its kick is killed.
options:
  users:
    description: Users whose sessions end. Capitals do not count.
    type: list
    elements: str
    default: []
  shards:
    description: Shards whose users' sessions end, two hex digits each.
    type: list
    elements: str
    default: []
  pinned:
    description: Users of O(shards) who stay.
    type: list
    elements: str
    default: []
  everybody:
    description: All sessions end, and no connection to O(lmtp_ports) may be left.
    type: bool
    default: false
  lmtp_ports:
    description:
      - TCP ports of LMTP. Connections that are there when the module starts may be delivering to a user who moves, so it waits
        until each has ended.
    type: list
    elements: int
    default: []
  login_ports:
    description:
      - TCP ports where users log in. Who was sent here before the others were told may still be logging in when the module starts,
        and is in no list of sessions yet. It waits until each such connection is a session or has ended.
      - Not for ports with TLS, where each connection belongs to a login process to its end.
    type: list
    elements: int
    default: []
  after:
    description: Seconds to wait before the first kick.
    type: int
    default: 0
  detach:
    description:
      - Leave a process behind that does it, and return at once. It goes on whatever becomes of the run of Ansible, and tells the
        system log what came of it.
    type: bool
    default: false
  grace:
    description: Seconds that a process has to end after its kick.
    type: int
    default: 8
  linger:
    description: Seconds to look for sessions at least, also when there are none.
    type: int
    default: 0
  timeout:
    description: Seconds that all may take, O(after) not counted.
    type: int
    default: 20
attributes:
  check_mode:
    support: full
    description: Tells what would be ended.
  diff_mode:
    support: none
    description: Sessions are no files.
seealso:
  - module: nfsmail.cluster.host_state
"""

EXAMPLES = r"""
- name: Empty a backend
  nfsmail.cluster.sessions:
    everybody: true
    lmtp_ports: [24]

- name: End the sessions of a user who moves
  nfsmail.cluster.sessions:
    users: [anna@example.com]
"""

RETURN = r"""
ended:
  description: Sessions that were there and are no more (in check mode, that are there), user to number.
  type: dict
  returned: always
  sample: {anna@example.com: 2}
killed:
  description: Users of processes that did not end by themselves.
  type: list
  elements: str
  returned: always
left:
  description: Sessions that did not end, user to process numbers. Empty where all is well; else the module fails.
  type: dict
  returned: always
deliveries:
  description: Connections to O(lmtp_ports) that did not end.
  type: int
  returned: always
logins:
  description: Far ends of connections to O(login_ports) that did not become a session.
  type: list
  elements: str
  returned: always
took_s:
  description: Seconds from the first kick to the end.
  type: float
  returned: always
"""

import contextlib
import os
import signal
import syslog
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nfsmail.cluster.plugins.module_utils import _sessions, _system

PAUSE = 0.2


class Doveadm:
    """What the module asks of this machine."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params

    def sessions(self) -> list[_sessions.Session]:
        """Who is to go and still there."""
        params = self.params
        return _sessions.chosen(self._who(), params["users"], params["shards"], params["pinned"], params["everybody"])

    def _who(self) -> list[_sessions.Session]:
        """Who is there."""
        result = _system.run([_system.find_program("doveadm") or "doveadm", "-f", "tab", "who", "-1"], 10)
        if result.rc is None:
            raise OSError(f"doveadm who: {result.err.strip()}")
        if result.rc:
            # Without a running Dovecot there is nobody to ask, and nobody is there.
            return []
        return _sessions.parse_who(result.out)

    def connections(self, ports: list[int]) -> dict[tuple[str, int], str]:
        """Far ends of connections to these ports, and their inodes."""
        found: dict[tuple[str, int], str] = {}
        for table in ("tcp", "tcp6") if ports else ():
            found |= _sessions.parse_connections(_system.read_text(f"/proc/net/{table}") or "", ports)
        return found

    def deliveries(self) -> set[tuple[str, int]]:
        """Far ends of LMTP connections."""
        return set(self.connections(self.params["lmtp_ports"]))

    def logins(self) -> set[tuple[str, int]]:
        """Far ends of connections that are no session yet."""
        found = self.connections(self.params["login_ports"])
        if not found:
            return set()
        known = {inode for one in self._who() for inode in _sockets(one.pid)}
        return {end for end, inode in found.items() if inode not in known}

    def kick(self, users: list[str]) -> None:
        """All sessions of these users."""
        for user in users:
            _system.run([_system.find_program("doveadm") or "doveadm", "kick", user], 10)


def _sockets(pid: int) -> set[str]:
    """Inodes of a process's sockets."""
    found = set()
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                name = os.readlink(entry.path)
                if name.startswith("socket:["):
                    found.add(name[len("socket:[") : -1])
    return found


def end(params: dict[str, Any]) -> dict[str, Any]:
    """Kick, wait, kill; what came of it."""
    doveadm = Doveadm(params)
    time.sleep(params["after"])
    start = time.monotonic()
    before, arriving = doveadm.deliveries(), doveadm.logins()
    seen: dict[tuple[str, int], float] = {}
    killed: set[str] = set()
    while True:
        # First: whoever becomes a session meanwhile is in the list.
        if arriving:
            arriving &= doveadm.logins()
        there = doveadm.sessions()
        now = time.monotonic()
        fresh = [one for one in there if (one.user, one.pid) not in seen]
        doveadm.kick(sorted({one.user for one in fresh}))
        for one in fresh:
            seen[one.user, one.pid] = now
        for one in there:
            if now - seen[one.user, one.pid] > params["grace"] and one.pid:
                killed.add(one.user)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one.pid, signal.SIGKILL)
        open_now = doveadm.deliveries()
        # Whoever moves gets no mail any more; others do, unless the whole machine is to be empty.
        delivering = open_now if params["everybody"] else open_now & before
        gone = not (there or delivering or arriving) and now - start >= params["linger"]
        if gone or now - start > params["timeout"]:
            break
        time.sleep(PAUSE)
    left: dict[str, list[int]] = {}
    for one in there:
        left.setdefault(one.user, []).append(one.pid)
    ended: dict[str, int] = {}
    for user, pid in seen:
        if pid not in left.get(user, ()):
            ended[user] = ended.get(user, 0) + 1
    return {
        "ended": ended,
        "killed": sorted(killed),
        "left": left,
        "deliveries": len(delivering),
        "logins": [f"{address} port {port}" for address, port in sorted(arriving)],
        "took_s": round(time.monotonic() - start, 2),
    }


def leave_behind(params: dict[str, Any]) -> None:
    """Do it in a process that is nobody's child, has a session of its own and none of our files."""
    first = os.fork()
    if first:
        os.waitpid(first, 0)
        return
    try:
        os.setsid()
        if os.fork() == 0:
            _system.close_inherited()
            os.chdir("/")
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
                signal.signal(number, signal.SIG_IGN)
            result = end(params)
            syslog.syslog(
                f"nfsmail: ended the sessions of {len(result['ended'])} users, {len(result['left'])} are left"
            )
    finally:
        os._exit(0)


def main() -> None:
    """Entry point."""
    ports: dict[str, Any] = {"type": "list", "elements": "int", "default": []}
    words: dict[str, Any] = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "users": words,
            "shards": words,
            "pinned": words,
            "everybody": {"type": "bool", "default": False},
            "lmtp_ports": ports,
            "login_ports": ports,
            "detach": {"type": "bool", "default": False},
            "after": {"type": "int", "default": 0},
            "grace": {"type": "int", "default": 8},
            "linger": {"type": "int", "default": 0},
            "timeout": {"type": "int", "default": 20},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        there = Doveadm(module.params).sessions()
        counts = {one.user: sum(other.user == one.user for other in there) for one in there}
        module.exit_json(changed=bool(there), ended=counts, killed=[], left={}, deliveries=0, logins=[], took_s=0.0)
    if module.params["detach"]:
        leave_behind(module.params)
        module.exit_json(changed=False, ended={}, killed=[], left={}, deliveries=0, logins=[], took_s=0.0)
    try:
        result = end(module.params)
    except (OSError, ValueError) as error:
        module.fail_json(msg=str(error))
    if result["left"] or result["deliveries"] or result["logins"]:
        people = ", ".join(
            f"{user} (process {' '.join(map(str, pids))})" for user, pids in sorted(result["left"].items())
        )
        mail = f"{result['deliveries']} LMTP connections" if result["deliveries"] else ""
        logins = f"logins from {' and '.join(result['logins'])}" if result["logins"] else ""
        module.fail_json(
            msg=f"still there after {result['took_s']} s: {', '.join(filter(None, (people, mail, logins)))}. A process that does not "
            "end hangs on the NFS server: look at it, or power this machine off and name it in nfsmail_fenced.",
            **result,
        )
    module.exit_json(changed=bool(result["ended"]), **result)


if __name__ == "__main__":
    main()
