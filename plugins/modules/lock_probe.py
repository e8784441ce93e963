#!/usr/bin/python
# Copyright (c) 2026 nfsmail.cluster contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Take, try, keep and give back a POSIX lock on a file of the mail store."""

from __future__ import annotations

DOCUMENTATION = r"""
module: lock_probe
short_description: Take, try, keep and give back a POSIX lock on a file of the mail store
version_added: 1.0.0
author:
  - nfsmail.cluster contributors (@nfsmail)
description:
  - Proves that locks work between hosts. One host holds a lock (O(action=hold)) and another is refused it
    (O(action=try)) until the first gives it back (O(action=release)).
  - The lock is the one that Dovecot takes with C(fcntl), a write lock on the whole file. It is taken as an ordinary user,
    since an NFS server usually does not let root write.
  - A lock is held by a process of its own that ends by itself after O(ttl) seconds.
options:
  path:
    description: The file. It is made when it is missing, with mode 0600.
    type: path
  action:
    description:
      - V(hold) takes the lock without waiting, leaves a process that keeps it, and fails when it is not granted.
      - V(try) tells whether the lock would be granted now, and gives it back at once.
      - V(wait) asks every 0.1 s until the lock is granted or O(timeout) is over, and gives it back.
      - V(release) ends the process that holds the lock, and returns when it has gone.
    type: str
    required: true
    choices: [hold, try, release, wait]
  uid:
    description: User number to be. Without it, the user that the module runs as.
    type: int
  gid:
    description: Group number to be. Supplementary groups are given up.
    type: int
  ttl:
    description: Seconds after which O(action=hold) gives the lock up by itself.
    type: int
    default: 120
  timeout:
    description:
      - Seconds that the module may take at most. For O(action=wait) this is how long to wait for the lock.
      - During its grace period a server lets requests for locks hang. Then the answer is that it took too long.
    type: int
    default: 30
  token:
    description: RV(token) of O(action=hold), for O(action=release).
    type: str
  pid:
    description:
      - RV(pid) of O(action=hold), for O(action=release) where the token is not at hand. Only a process that this module left
        is ended.
    type: int
  unlink:
    description: Remove the file at the end of O(action=wait).
    type: bool
    default: false
attributes:
  check_mode:
    support: none
    description: A probe touches the store, so it is skipped in check mode.
  diff_mode:
    support: none
    description: There is nothing to show.
seealso:
  - module: nfsmail.cluster.host_state
"""

EXAMPLES = r"""
- name: Hold a lock on one backend
  nfsmail.cluster.lock_probe:
    path: /srv/mail/.nfsmail-lock
    action: hold
    uid: 5000
    gid: 5000
  register: holder

- name: Another backend must be refused
  nfsmail.cluster.lock_probe:
    path: /srv/mail/.nfsmail-lock
    action: try
    uid: 5000
    gid: 5000
  delegate_to: mail2
  register: other
  failed_when: other.granted

- name: Give it back
  nfsmail.cluster.lock_probe:
    action: release
    token: "{{ holder.token }}"
"""

RETURN = r"""
pid:
  description: The process that holds the lock.
  type: int
  returned: when O(action=hold)
token:
  description: Names that process for good; a later process with the same number has another token.
  type: str
  returned: when O(action=hold)
  sample: 4711-123456
held_at:
  description: When the lock was granted, in seconds since 1970 by the clock of this host.
  type: float
  returned: when O(action=hold)
granted:
  description: Whether the lock was granted.
  type: bool
  returned: when O(action=try) or O(action=wait)
errno:
  description: Why the lock was refused, for example V(EAGAIN) when another process has it; V(none) when it was granted.
  type: str
  returned: when O(action=try) or O(action=wait), and on failure of O(action=hold)
stage:
  description: Where it ended, at V(open) or at V(lock); V(hung) when there was no answer in time.
  type: str
  returned: when O(action=try) or O(action=wait), and on failure of O(action=hold)
waited_s:
  description: Seconds until the lock was granted or given up.
  type: float
  returned: when O(action=wait)
unlinked:
  description: Whether the file was removed.
  type: bool
  returned: when O(action=wait)
released:
  description: Whether a holder was ended; V(false) when it was gone already.
  type: bool
  returned: when O(action=release)
"""

import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nfsmail.cluster.plugins.module_utils import _locks, _system


def hold(module: AnsibleModule, params: dict[str, Any]) -> dict[str, Any]:
    """Leave a process that keeps the lock."""
    answer = _locks.hold(params["path"], params["uid"], params["gid"], params["ttl"], params["timeout"])
    if answer["held"]:
        return {"changed": True, "pid": answer["pid"], "token": answer["token"], "held_at": answer["held_at"]}
    what = {
        "open": f"{params['path']} cannot be opened for writing: {answer['errno']}",
        "lock": f"the lock on {params['path']} was refused: {answer['errno']}",
        "hung": f"no answer about a lock on {params['path']} within {params['timeout']} s; is the server gone or in grace?",
    }
    module.fail_json(msg=what[answer["stage"]], errno=answer["errno"], stage=answer["stage"], changed=False)
    raise AssertionError


def ask(params: dict[str, Any]) -> dict[str, Any]:
    """Try once, or wait."""
    path, uid, gid, timeout = params["path"], params["uid"], params["gid"], params["timeout"]
    start = time.monotonic()
    waiting = params["action"] == "wait"
    try:
        if waiting:
            answer = _system.run_isolated(
                lambda: _locks.wait_in_child(path, uid, gid, timeout, params["unlink"]), timeout + 5
            )
        else:
            answer = _system.run_isolated(lambda: _locks.try_in_child(path, uid, gid), timeout)
    except _system.Hung:
        answer = {"granted": False, "errno": "ETIMEDOUT", "stage": "hung"}
        if waiting:
            answer.update(waited_s=round(time.monotonic() - start, 2), unlinked=False)
    return {"changed": bool(answer.get("unlinked")), **answer}


def release(module: AnsibleModule, params: dict[str, Any]) -> dict[str, Any]:
    """End the holder."""
    try:
        pid, started = _locks.read_token(params["token"]) if params["token"] else (params["pid"], None)
        answer = _locks.release(pid, started, params["timeout"])
    except (ValueError, OSError) as exc:
        module.fail_json(msg=str(exc), changed=False)
        raise AssertionError from exc
    return {"changed": answer["released"], **answer}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path"},
            "action": {"type": "str", "required": True, "choices": ["hold", "try", "release", "wait"]},
            "uid": {"type": "int"},
            "gid": {"type": "int"},
            "ttl": {"type": "int", "default": 120},
            "timeout": {"type": "int", "default": 30},
            "token": {"type": "str", "no_log": False},
            "pid": {"type": "int"},
            "unlink": {"type": "bool", "default": False},
        },
        required_if=[
            ("action", "hold", ("path",)),
            ("action", "try", ("path",)),
            ("action", "wait", ("path",)),
            ("action", "release", ("token", "pid"), True),
        ],
        supports_check_mode=False,
    )
    params = module.params
    try:
        if params["action"] == "hold":
            answer = hold(module, params)
        elif params["action"] == "release":
            answer = release(module, params)
        else:
            answer = ask(params)
    except _system.ChildError as exc:
        module.fail_json(msg=f"the lock on {params['path']} cannot be tried: {exc}", changed=False)
        raise AssertionError from exc
    module.exit_json(**answer)


if __name__ == "__main__":
    main()
