#!/usr/bin/python
# Copyright (c) 2026 nfsmail.cluster contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Move Dovecot's index files when their place changes."""

from __future__ import annotations

DOCUMENTATION = r"""
module: index_move
short_description: Move Dovecot's index files when their place changes
version_added: 1.0.0
author:
  - nfsmail.cluster contributors (@nfsmail)
description:
  - Compares where the configuration in place has index files with where they should be, and takes those of all users there
    in three steps. O(action=look) tells what there is to do. O(action=copy) copies them, with Dovecot stopped. Then the
    new configuration is written and Dovecot started. O(action=finish) removes the old ones.
  - Indexes of sdbox and mdbox hold flags and, for mdbox, where each message is; those of mbox hold flags that are not
    written yet, those of Maildir all keywords but the first 26. None of that can be rebuilt.
  - Copies Dovecot's own index files only (C(dovecot.index*), C(dovecot.list.index*), C(dovecot.map.index*),
    C(dovecot.mailbox.log*)), with their times and modes. Mail and control files stay where they are, and so do the indexes
    of full text search, which can be made anew.
  - A run that was interrupted is taken up by the next one. Nothing is removed before the configuration names its copy.
  - Moving is meant for one machine that opens all mail; elsewhere a user's indexes may be on several. There only those of
    Maildir and mbox may be on a machine's own disk, Dovecot makes them anew where they are missing, and O(action=forget)
    removes those that a configuration before this one had there.
options:
  action:
    description:
      - V(look) reads only, and refuses what cannot be done.
      - V(copy) copies, if RV(next) is V(copy). Dovecot must be stopped.
      - V(finish) removes what is no longer in use, if an earlier V(copy) left something.
      - V(forget) removes the indexes that O(conf), an earlier configuration of ours, has in a place of their own, if
        O(location) has them elsewhere. Those of sdbox and mdbox stay.
    type: str
    required: true
    choices: [look, copy, finish, forget]
  location:
    description:
      - Where mail and indexes should be, by the names of the settings of Dovecot 2.4, with C({user}), C({name}), C({domain})
        and C({shard}) for what varies. The filter P(nfsmail.cluster.mail_location#filter) makes it.
      - Without C(mail_index_path), indexes are with the mail.
    type: dict
    required: true
  conf:
    description: Dovecot's configuration.
    type: path
    default: /etc/dovecot/dovecot.conf
  uid:
    description: User number that owns all mail. All files are touched as this user.
    type: int
    required: true
  gid:
    description: Its group.
    type: int
    required: true
  marker:
    description: Where the state of a move is kept until it is finished.
    type: path
    default: /var/lib/dovecot/nfsmail-index-move.json
  timeout:
    description: Seconds that the module may take at most.
    type: int
    default: 3600
attributes:
  check_mode:
    support: full
    description: V(look) says what would be moved; the others do nothing.
  diff_mode:
    support: full
    description: Shows the place of the indexes before and after, with the numbers of users, files and bytes.
notes:
  - Users are found by their homes, by the pattern of C(mail_home).
seealso:
  - module: nfsmail.cluster.host_state
"""

EXAMPLES = r"""
- name: See whether indexes must move
  nfsmail.cluster.index_move:
    action: look
    location: "{{ plan | nfsmail.cluster.mail_location }}"
    uid: 5000
    gid: 5000
  register: indexes

- name: Copy them, with Dovecot stopped
  nfsmail.cluster.index_move:
    action: copy
    location: "{{ plan | nfsmail.cluster.mail_location }}"
    uid: 5000
    gid: 5000
  when: indexes.next == 'copy'
"""

RETURN = r"""
next:
  description: What is to be done next.
  type: str
  returned: always
  choices: [nothing, copy, finish]
source:
  description: Where the indexes are; empty where they are with the mail.
  type: str
  returned: when there is something to do
target:
  description: Where they should be, likewise.
  type: str
  returned: when there is something to do
users:
  description: How many users have indexes to be copied.
  type: int
  returned: when RV(next) is V(copy) before
files:
  description: How many files.
  type: int
  returned: when RV(next) is V(copy) before
bytes:
  description: Their size.
  type: int
  returned: when RV(next) is V(copy) before
removed:
  description: How many files were removed.
  type: int
  returned: when O(action=finish) or O(action=forget) had something to do
left:
  description: Other files that keep directories of the old place, up to five.
  type: list
  elements: str
  returned: when O(action=finish) or O(action=forget) had something to do
"""

import contextlib
import json
import os
import time
from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nfsmail.cluster.plugins.module_utils import _index_files, _indexes, _system

if TYPE_CHECKING:
    from collections.abc import Callable

PATIENCE = 30  # seconds for mail processes to end after Dovecot
Location = dict[str, str]


class IndexMove:
    """One run of the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params = module.params
        self.wanted: Location = {str(name): str(value) for name, value in self.params["location"].items()}
        self.current, self.ours = self.read_conf()
        self.marker = self.read_marker()

    # -- what there is --

    def read_conf(self) -> tuple[Location, bool]:
        """The location in the configuration in place, and whether one of our roles wrote that."""
        text = _system.read_text(self.params["conf"]) or ""
        ours = _indexes.OURS in text
        if text and not ours:
            # Somebody else's may be spread over files; one of another release's cannot be read by this Dovecot.
            said = _system.run(["doveconf", "-c", self.params["conf"], "-n"], 30)
            text = said.out if said.rc == 0 else text
        return _indexes.location(text), ours

    def read_marker(self) -> dict[str, Any]:
        """The state of a move that is not finished; empty without one."""
        text = _system.read_text(self.params["marker"])
        try:
            return dict(json.loads(text)) if text else {}
        except ValueError:
            return self.refuse(
                f"{self.params['marker']} cannot be read; look at both places of the indexes, and remove it"
            )

    def write_marker(self, **state: Any) -> None:
        """Remember the state of a move."""
        self.marker = state
        _system.write_atomically(self.params["marker"], json.dumps(state, indent=2) + "\n", 0o600)

    # -- how it ends --

    def refuse(self, msg: str) -> Any:
        """End with an error."""
        self.module.fail_json(msg=f"the indexes are not moved: {msg}", changed=False)

    def as_mail_user(self, work: Callable[[], Any]) -> Any:
        """Do something in a child, with the rights that Dovecot has; its refusals and errors end the module."""

        def child() -> Any:
            _system.drop_privileges(self.params["uid"], self.params["gid"])
            return work()

        try:
            return _system.run_isolated(child, self.params["timeout"])
        except _system.Hung as exc:
            return self.refuse(f"{exc}; is the mail store there?")
        except _system.ChildError as exc:
            return self.refuse(str(exc))

    # -- the steps --

    def next_step(self) -> str:
        """What is to be done: C(nothing), C(copy) or C(finish)."""
        if self.marker:
            start, end = self.marker["source"], self.marker["target"]
            if self.current not in (start, end):
                self.refuse(
                    f"an earlier move from {_shown(start)} to {_shown(end)} is not finished, and {self.params['conf']} names "
                    f"neither; write one of them there, or remove {self.params['marker']}"
                )
            if self.current == end and self.marker["state"] != "copied":
                self.refuse(
                    f"{self.params['conf']} names {_shown(end)}, where an earlier run has copied a part of the indexes only; "
                    f"stop Dovecot, and write {_shown(start)} there"
                )
            if self.current == start and self.marker["state"] == "copied":
                self.refuse_if_used(end)
            if self.current == self.wanted:
                return "finish"
        try:
            return "copy" if _indexes.is_move(self.current, self.wanted, self.ours) else "nothing"
        except _indexes.Refused as exc:
            return str(self.refuse(str(exc)))

    def refuse_if_used(self, target: Location) -> None:
        """The copies must not be newer than what they were made of."""
        newest = self.marker["newest"]
        used = self.as_mail_user(lambda: _index_files.in_use_since(target, newest))
        if used:
            self.refuse(
                f"{used} was written after the copying, yet {self.params['conf']} names {_shown(self.current)}: both places "
                f"have been in use. See which has what you need, and remove the other and {self.params['marker']}"
            )

    def look(self) -> dict[str, Any]:
        """Tell what is to be done."""
        step = self.next_step()
        answer: dict[str, Any] = {"changed": False, "next": step}
        if step == "nothing":
            return answer
        answer.update(self.places(step))
        if step == "copy":
            answer.update(self.size_up())
        if self.module.check_mode:
            answer.update(changed=True, diff=self.diff(answer))
        return answer

    def places(self, step: str) -> dict[str, str]:
        """The two places, for people."""
        start, end = self.current, self.wanted
        if step == "finish":
            start, end = self.leftover(), self.current
        return {"source": start.get("mail_index_path", ""), "target": end.get("mail_index_path", "")}

    def size_up(self) -> dict[str, Any]:
        """How much there is to copy."""
        # What an earlier run copied, or is about to be removed because its own copy is in use.
        ours = bool(self.marker) and self.wanted in (self.marker["source"], self.marker["target"])
        return dict(self.as_mail_user(lambda: _index_files.size_up(self.current, self.wanted, ours)))

    def diff(self, answer: dict[str, Any]) -> dict[str, str]:
        """What would move, before and after."""
        if answer["next"] == "finish":
            return {"before": f"old index files in {_shown(self.leftover())}\n", "after": ""}
        what = f"indexes of {answer['users']} users ({answer['files']} files, {answer['bytes']} bytes) in"
        return {"before": f"{what} {_shown(self.current)}\n", "after": f"{what} {_shown(self.wanted)}\n"}

    def leftover(self) -> Location:
        """The place of an earlier move that is not in use."""
        start, end = self.marker["source"], self.marker["target"]
        return dict(start if self.current == end else end)

    def copy(self) -> dict[str, Any]:
        """Copy, and remember it."""
        if self.next_step() != "copy":
            return {"changed": False, "next": self.next_step()}
        self.refuse_while_running()
        if self.marker and self.wanted != self.marker["target"]:
            self.remove_leftover()
        sizes = self.size_up()
        self.write_marker(state="copying", source=self.current, target=self.wanted)
        newest = self.as_mail_user(lambda: _index_files.copy(self.current, self.wanted))
        self.write_marker(state="copied", source=self.current, target=self.wanted, newest=newest)
        places = self.places("copy")
        return {"changed": True, "next": "finish", **places, **sizes, "diff": self.diff({"next": "copy", **sizes})}

    def refuse_while_running(self) -> None:
        """Nothing may have an index open."""
        end = time.monotonic() + min(PATIENCE, self.params["timeout"])
        while True:
            running = mail_processes(self.params["uid"])
            if not running:
                return
            if time.monotonic() > end:
                self.refuse(f"these processes may have them open: {', '.join(running)}; stop Dovecot, and doveadm")
            time.sleep(0.2)

    def finish(self) -> dict[str, Any]:
        """Remove what is not in use any more."""
        if self.next_step() != "finish":
            return {"changed": False, "next": self.next_step()}
        places = self.places("finish")
        answer = self.remove_leftover()
        return {"changed": True, "next": "nothing", **places, **answer}

    def remove_leftover(self) -> dict[str, Any]:
        """Remove the index files of the place that is not in use, then the memory of the move."""
        answer = self.remove(self.leftover())
        os.unlink(self.params["marker"])
        _system.sync_folder(os.path.dirname(self.params["marker"]))
        self.marker = {}
        return answer

    def forget(self) -> dict[str, Any]:
        """Remove what can be made anew and is not in use any more."""
        place = self.current.get("mail_index_path", "")
        elsewhere = place not in ("", "MEMORY", self.wanted.get("mail_index_path", ""))
        if not elsewhere or not self.ours or self.current["mail_driver"] in _indexes.DBOX:
            return {"changed": False, "next": "nothing"}
        places, answer = self.places("forget"), self.remove(self.current)
        return {"changed": answer["removed"] > 0, "next": "nothing", **places, **answer}

    def remove(self, leftover: Location) -> dict[str, Any]:
        """Remove the index files of a place; what else is in it is told."""
        answer = self.as_mail_user(lambda: _index_files.remove(leftover))
        if answer["left"]:
            self.module.warn(
                f"{len(answer['left'])} files that are no index files of Dovecot's own stay in {_shown(leftover)}: "
                f"{', '.join(answer['left'][:3])}"
            )
        return {"removed": answer["removed"], "left": answer["left"][:5]}


def _shown(location: Location) -> str:
    return location.get("mail_index_path") or f"the mail store ({location.get('mail_path', '')})"


def mail_processes(uid: int) -> list[str]:
    """Dovecot, and what else runs as the mail user; processes of other containers do not count."""
    found = []
    for pid in sorted((name for name in os.listdir("/proc") if name.isdigit()), key=int):
        # A process may go while it is looked at.
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{pid}/ns/pid") != os.readlink("/proc/self/ns/pid"):
                continue
            with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as status:
                fields = dict(line.rstrip("\n").split(":\t", 1) for line in status if ":\t" in line)
            zombie = fields["State"].startswith("Z")
            if not zombie and (fields["Name"] == "dovecot" or str(uid) in fields["Uid"].split()):
                found.append(f"{fields['Name']} ({pid})")
    return found


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "action": {"type": "str", "required": True, "choices": ["look", "copy", "finish", "forget"]},
            "location": {"type": "dict", "required": True},
            "conf": {"type": "path", "default": "/etc/dovecot/dovecot.conf"},
            "uid": {"type": "int", "required": True},
            "gid": {"type": "int", "required": True},
            "marker": {"type": "path", "default": "/var/lib/dovecot/nfsmail-index-move.json"},
            "timeout": {"type": "int", "default": 3600},
        },
        supports_check_mode=True,
    )
    action = module.params["action"]
    if module.check_mode and action != "look":
        module.exit_json(changed=False, next="nothing")
    run = IndexMove(module)
    module.exit_json(**getattr(run, action)())


if __name__ == "__main__":
    main()
