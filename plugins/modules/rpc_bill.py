#!/usr/bin/python
# Copyright (c) 2026 nfsmail.cluster contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Count the NFS calls of an IMAP session and of a delivery."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rpc_bill
short_description: Count the NFS calls of an IMAP session and of a delivery
version_added: 1.0.0
author:
  - nfsmail.cluster contributors (@nfsmail)
description:
  - Runs a fixed piece of work on a backend as one user, and reads the kernel's NFS counters before and after each step. Sessions are
    started with C(doveadm exec imap), so no password is needed; mail comes in by LMTP.
  - Messages are added to the user's INBOX or expunged, until O(messages) are there. Use one that was made for this.
  - Whatever else uses the mount meanwhile is counted too; C(noise) tells how much that was before the work began.
options:
  user:
    description: Whose mailbox is used. Must exist. B(Its mail is deleted.)
    type: str
    required: true
  store:
    description: Where the mail store is mounted. Without NFS there all counts are empty, and seconds remain.
    type: path
    required: true
  runs:
    description: Sessions of each kind, 1 or more.
    type: int
    default: 5
  messages:
    description: Messages in the INBOX before a session, 10 or more.
    type: int
    default: 50
  seed:
    description: What the sizes of messages follow from.
    type: int
    default: 1
  lmtp_host:
    description: Where Dovecot takes mail.
    type: str
    default: 127.0.0.1
  lmtp_port:
    description: The port of it.
    type: int
    default: 24
  caches:
    description: Kinds of sessions. For V(cold) ones all caches of the machine are dropped (C(vm.drop_caches=3)).
    type: list
    elements: str
    choices: [cold, warm]
    default: [cold, warm]
attributes:
  check_mode:
    support: none
    description: It would have nothing to tell.
  diff_mode:
    support: none
    description: Nothing is configured.
"""

EXAMPLES = r"""
- name: Count
  nfsmail.cluster.rpc_bill:
    user: bench@example.com
    store: /srv/mail
"""

RETURN = r"""
sessions:
  description:
    - A list of sessions. Each has C(cold) (bool), C(seconds), and C(steps), name to C(calls) (operation to number), C(events) (what
      the kernel was asked for, to number), C(sent) and C(received) (bytes), C(seconds).
  type: list
  elements: dict
  returned: success
deliveries:
  description: The same for deliveries, each of one message, without C(steps).
  type: list
  elements: dict
  returned: success
noise:
  description: NFS calls in two seconds before the work began.
  type: int
  returned: success
nfs:
  description: Whether the store is an NFS mount.
  type: bool
  returned: success
"""

import contextlib
import imaplib
import random
import shlex
import smtplib
import time
from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nfsmail.cluster.plugins.module_utils import _mountstats, _system

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STEPS = ("log in", "select", "fetch new", "set flags", "idle and be told", "append", "copy", "expunge", "log out")
KINDS = ["cold", "warm"]
NEW = 5
TIMEOUT = 120.0
OTHER = "nfsmail-bench"


class Meter:
    """The mount's counters and the clock."""

    def __init__(self, store: str) -> None:
        self.store = store

    def read(self) -> _mountstats.Counters:
        """As they are now."""
        text = _system.read_text("/proc/self/mountstats") or ""
        return _mountstats.parse(text, self.store) or _mountstats.Counters()

    @contextlib.contextmanager
    def measured(self, into: dict[str, Any]) -> Iterator[None]:
        """What a step costs."""
        before, start = self.read(), time.monotonic()
        yield
        seconds = time.monotonic() - start
        cost = self.read().since(before)
        into.update(
            calls=dict(cost.calls),
            events=dict(cost.events),
            sent=cost.sent,
            received=cost.received,
            seconds=round(seconds, 4),
        )


class Work:
    """The fixed work of one user."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params
        self.meter = Meter(params["store"])
        self.dice = random.Random(params["seed"])
        self.number = 0

    def message(self) -> bytes:
        """The next one: 2 to 20 KiB."""
        self.number += 1
        lines = [f"line {number} of a message for the measurement" for number in range(self.dice.randint(40, 400))]
        head = ["From: a@example.com", f"To: {self.params['user']}", f"Subject: {self.number}", ""]
        return "\r\n".join([*head, *lines, ""]).encode()

    def connect(self) -> imaplib.IMAP4:
        """A session of the user, logged in."""
        doveadm = _system.find_program("doveadm") or "doveadm"
        imap = imaplib.IMAP4_stream(f"{doveadm} exec imap -u {shlex.quote(self.params['user'])}")
        if imap.state != "AUTH":
            raise OSError(f"doveadm exec imap: {imap.welcome!r}")
        return imap

    def deliver(self) -> None:
        """One message by LMTP."""
        with smtplib.LMTP(self.params["lmtp_host"], self.params["lmtp_port"], timeout=TIMEOUT) as lmtp:
            lmtp.sendmail("a@example.com", [self.params["user"]], self.message())

    def empty(self, imap: imaplib.IMAP4, box: str) -> None:
        """Nothing is in a mailbox."""
        _ok(imap.select(box))
        if _ok(imap.search(None, "ALL"))[0]:
            _ok(imap.store("1:*", "+FLAGS.SILENT", "(\\Deleted)"))
            _ok(imap.expunge())

    def refresh(self) -> None:
        """As many old messages as always, and some new ones."""
        imap = self.connect()
        imap.create(OTHER)  # NO where it is there already
        self.empty(imap, OTHER)
        _ok(imap.select("INBOX"))
        surplus = len(_ok(imap.search(None, "ALL"))[0].split()) + NEW - self.params["messages"]
        if surplus > 0:
            _ok(imap.store(f"1:{surplus}", "+FLAGS.SILENT", "(\\Deleted)"))
            _ok(imap.expunge())
        for _ in range(-surplus):
            _ok(imap.append("INBOX", "(\\Seen)", "", self.message()))
        imap.logout()
        for _ in range(NEW):
            self.deliver()

    def session(self, cold: bool) -> dict[str, Any]:
        """One, step by step."""
        if cold:
            with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as file:
                file.write("3\n")
        steps: dict[str, dict[str, Any]] = {name: {} for name in STEPS}
        with self.meter.measured(steps["log in"]):
            imap = self.connect()
        with self.meter.measured(steps["select"]):
            count = int(_ok(imap.select("INBOX"))[0])
        new = f"{count - NEW + 1}:{count}"
        with self.meter.measured(steps["fetch new"]):
            _ok(imap.fetch(new, "(UID FLAGS BODY.PEEK[])"))
        with self.meter.measured(steps["set flags"]):
            _ok(imap.store(new, "+FLAGS.SILENT", "(\\Seen)"))
        with self.meter.measured(steps["idle and be told"]):
            idle(imap, self.deliver)
        data = self.message()
        with self.meter.measured(steps["append"]):
            _ok(imap.append("INBOX", "", "", data))
        with self.meter.measured(steps["copy"]):
            _ok(imap.copy("1", OTHER))
        with self.meter.measured(steps["expunge"]):
            _ok(imap.store("1", "+FLAGS.SILENT", "(\\Deleted)"))
            _ok(imap.expunge())
        with self.meter.measured(steps["log out"]):
            imap.logout()
        return {"cold": cold, "seconds": round(sum(step["seconds"] for step in steps.values()), 4), "steps": steps}

    def delivery(self) -> dict[str, Any]:
        """One, with nobody logged in."""
        cost: dict[str, Any] = {}
        with self.meter.measured(cost):
            self.deliver()
        return cost


def idle(imap: imaplib.IMAP4, what: Callable[[], None]) -> None:
    """Wait in IDLE while something happens, until the server tells of a new message."""
    tag = imap._new_tag()
    imap.send(tag + b" IDLE\r\n")
    _read_until(imap, lambda line: line.startswith(b"+"))
    what()
    _read_until(imap, lambda line: b"EXISTS" in line)
    imap.send(b"DONE\r\n")
    _read_until(imap, lambda line: line.startswith(tag))


def _read_until(imap: imaplib.IMAP4, wanted: Callable[[bytes], bool]) -> None:
    while not wanted(line := imap.readline()):
        if not line:
            raise OSError("the IMAP session has ended")


def _ok(answer: tuple[str, list[Any]]) -> list[Any]:
    status, data = answer
    if status != "OK":
        raise OSError(f"IMAP: {status} {data!r}")
    return data


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "user": {"type": "str", "required": True},
            "store": {"type": "path", "required": True},
            "runs": {"type": "int", "default": 5},
            "messages": {"type": "int", "default": 50},
            "seed": {"type": "int", "default": 1},
            "lmtp_host": {"type": "str", "default": "127.0.0.1"},
            "lmtp_port": {"type": "int", "default": 24},
            "caches": {"type": "list", "elements": "str", "choices": KINDS, "default": KINDS},
        },
    )
    params = module.params
    if params["runs"] < 1 or params["messages"] < 2 * NEW:
        module.fail_json(msg=f"runs: 1 or more; messages: {2 * NEW} or more")
    work = Work(params)
    try:
        before = work.meter.read()
        time.sleep(2)
        noise = sum(work.meter.read().since(before).calls.values())
        sessions = []
        for kind in params["caches"]:
            for _ in range(params["runs"]):
                work.refresh()
                sessions.append(work.session(kind == "cold"))
        deliveries = [work.delivery() for _ in range(params["runs"])]
    except (OSError, imaplib.IMAP4.error, smtplib.SMTPException, ValueError) as error:
        module.fail_json(msg=f"the work did not come to its end: {error}")
    nfs = _mountstats.parse(_system.read_text("/proc/self/mountstats") or "", params["store"]) is not None
    module.exit_json(changed=True, sessions=sessions, deliveries=deliveries, noise=noise, nfs=nfs)


if __name__ == "__main__":
    main()
