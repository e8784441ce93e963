#!/usr/bin/python
# Copyright (c) 2026 nfsmail.cluster contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Write an exports file and prove that what it says is in effect."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nfs_exports
short_description: Write an exports file and prove that what it says is in effect
version_added: 1.0.0
author:
  - nfsmail.cluster contributors (@nfsmail)
description:
  - Writes one whole file of exports for the Linux kernel NFS server, applies it with C(exportfs -ra) and compares the
    result of C(exportfs -s) with what was expected.
  - The exit code of C(exportfs) proves nothing. A client that does not resolve is left out with exit code 0, and
    a blank between a client and its bracket exports to the whole world. Both are errors here.
  - A changed file is tried first in a private mount namespace with a state directory of its own, so that a bad file
    never reaches the running server. If the result in the end differs from what was expected all the same, the old
    file is put back and applied again.
  - Nothing is restarted. Locks and mounts of clients stay.
options:
  path:
    description:
      - The file. C(exportfs) reads only C(/etc/exports) and C(/etc/exports.d/*.exports).
      - A missing C(/etc/exports.d) is made.
    type: path
    default: /etc/exports.d/nfsmail.exports
  content:
    description: The whole text of the file.
    type: str
    required: true
  expected:
    description:
      - What C(exportfs -s) must show afterwards. Without it, what O(content) says.
      - More options than listed are fine. A path of this list that is exported to a client that is not on the list,
        by this file or by another, is an error.
    type: list
    elements: dict
    suboptions:
      path:
        description: The exported directory.
        type: str
        required: true
      client:
        description: Host name, address, network, wildcard or C(@netgroup). A host name is compared by its addresses.
        type: str
        required: true
      options:
        description: Options that must be in effect, for example V(rw), V(sync), V(anonuid=5000).
        type: list
        elements: str
        default: []
  apply:
    description:
      - Whether to apply the file to the running system. V(false) only writes it, for the build of an image.
    type: bool
    default: true
  allow_empty:
    description:
      - Allow a O(content) that exports nothing. Clients that use the export then get errors, and locks can be left
        behind that nobody holds.
    type: bool
    default: false
  timeout:
    description: Seconds to wait for one run of C(exportfs), which may look up names.
    type: int
    default: 30
attributes:
  check_mode:
    support: full
    description: Says what would change, also where nfs-utils is not installed yet.
  diff_mode:
    support: full
    description: Shows the file before and after.
seealso:
  - module: nfsmail.cluster.nfs_mount
"""

EXAMPLES = r"""
- name: Export the mail store to the backends
  nfsmail.cluster.nfs_exports:
    content: |
      /srv/mail 192.0.2.11(rw,sync,root_squash,no_subtree_check)
      /srv/mail 192.0.2.12(rw,sync,root_squash,no_subtree_check)

- name: Say apart from the file what must be in effect
  nfsmail.cluster.nfs_exports:
    content: "{{ lookup('ansible.builtin.template', 'nfsmail.exports.j2') }}"
    expected:
      - path: /srv/mail
        client: 192.0.2.0/24
        options: [rw, sync, all_squash, anonuid=5000]
"""

RETURN = r"""
action:
  description: What was done, or would be done in check mode.
  type: str
  returned: success
  sample: written_and_applied
  choices: [none, written, applied, written_and_applied]
exports:
  description: The table of C(exportfs -s) as it is now; V(none) where it was not asked.
  type: list
  elements: dict
  returned: success
  sample: [{path: /srv/mail, client: 192.0.2.11, options: [sync, wdelay, hide, no_subtree_check, "sec=sys", rw]}]
mismatches:
  description: Everything that is exported otherwise than expected.
  type: list
  elements: dict
  returned: always
  contains:
    path:
      description: The exported directory.
      type: str
    client:
      description: The client.
      type: str
    wanted:
      description: The option or state that was expected.
      type: str
    found:
      description: What is in effect.
      type: str
messages:
  description: What C(exportfs) said about this file, its paths and its clients.
  type: list
  elements: str
  returned: always
"""

import contextlib
import os
import socket
import stat
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nfsmail.cluster.plugins.module_utils import _exports, _system

EXPORTS_D = "/etc/exports.d"
NFSD = "/proc/fs/nfsd"
STATE = "/var/lib/nfs"


def addresses(names: list[str]) -> dict[str, list[str]]:
    """For a child: addresses of host names; names that do not resolve are left out."""
    result = {}
    for name in names:
        with contextlib.suppress(OSError, UnicodeError):
            result[name] = sorted({str(info[4][0]) for info in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)})
    return result


class Canonical:
    """One text for all ways to write a client: a host name stands for its addresses."""

    def __init__(self, clients: list[str], timeout: float) -> None:
        names = sorted({_exports.client_key(c) for c in clients if self.is_name(c)})
        self.known: dict[str, list[str]] = {}
        if names:
            with contextlib.suppress(_system.Hung, _system.ChildError):
                self.known = _system.run_isolated(lambda: addresses(names), timeout)

    @staticmethod
    def is_name(client: str) -> bool:
        """Whether a client is one host by name."""
        key = _exports.client_key(client)
        return not (set(key) & set("*?[]/@<>:") or key.replace(".", "").isdigit())

    def __call__(self, client: str) -> str:
        key = _exports.client_key(client)
        found = self.known.get(key)
        return ",".join(found) if found else key


def state_directory(timeout: float) -> str:
    """Where exportfs keeps its table."""
    nfsconf = _system.find_program("nfsconf")
    if nfsconf:
        for section in ("exportd", "mountd"):
            result = _system.run([nfsconf, "--get", section, "state-directory-path"], timeout)
            if result.rc == 0 and result.out.strip().startswith("/"):
                return result.out.strip()
    return STATE


def cover(folder: str, files: dict[str, str]) -> None:
    """For a child in a namespace of its own: put other files in the place of a folder's."""
    _system.sys_mount("nfsmail", folder, "tmpfs", _system.MS_NOSUID | _system.MS_NODEV, "size=16m,mode=0755")
    for name, text in files.items():
        with open(os.path.join(folder, name), "w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
            stream.write(text)


def try_in_child(path: str, content: str, exportfs: str, state_dir: str, timeout: float) -> dict[str, Any]:
    """For a child: what exportfs makes of the file, far from the table in effect and from the kernel.

    The kernel's control files are covered too; a copy of C(export_features) stays, by which exportfs knows what
    the kernel can do.
    """
    _system.private_mount_namespace()
    if os.path.isdir(NFSD):
        control = {name: "" for name in os.listdir(NFSD) if os.path.isfile(os.path.join(NFSD, name))}
        features = _system.read_text(os.path.join(NFSD, "export_features"))
        if features is not None:
            control["export_features"] = features
        cover(NFSD, control)
    cover(state_dir, {"etab": "", "rmtab": ""})
    folder, name = os.path.split(path)
    if folder == EXPORTS_D:
        others = {}
        for other in sorted(os.listdir(folder)):
            if other.endswith(".exports") and other != name:
                others[other] = _system.read_text(os.path.join(folder, other)) or ""
        cover(folder, {**others, name: content})
    else:
        candidate = os.path.join(state_dir, "nfsmail.candidate")
        with open(candidate, "w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
            stream.write(content)
        _system.sys_mount(candidate, path, None, _system.MS_BIND)
    result = _system.run([exportfs, "-ra"], timeout)
    table = _system.run([exportfs, "-s"], timeout)
    return {
        "rc": result.rc,
        "err": result.err,
        "table": table.out if table.rc == 0 else None,
        "reason": table.reason,
    }


class Exports:
    """One run of the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.path: str = module.params["path"]
        self.content: str = module.params["content"]
        if self.content and not self.content.endswith("\n"):
            self.content += "\n"
        self.timeout: float = module.params["timeout"]
        self.exportfs = _system.find_program("exportfs")
        self.messages: list[str] = []
        self.mismatches: list[dict[str, str]] = []
        self.expected = self.read_content()

    def fail(self, msg: str, **more: Any) -> None:
        """End with an error."""
        more.setdefault("changed", False)
        self.module.fail_json(msg=msg, mismatches=self.mismatches, messages=self.messages, **more)

    def read_content(self) -> list[dict[str, Any]]:
        """Check what can be checked by reading; what must be in effect afterwards."""
        folder, name = os.path.split(self.path)
        if self.module.params["apply"] and self.path != "/etc/exports":
            if folder != EXPORTS_D or not name.endswith(".exports") or name.startswith("."):
                self.fail(f"exportfs reads /etc/exports and {EXPORTS_D}/*.exports, so path cannot be {self.path}")
        entries, errors = _exports.parse_exports(self.content)
        if errors:
            self.fail(f"content of {self.path} must not be written as it is: " + "; ".join(errors))
        if not entries and not self.module.params["allow_empty"]:
            self.fail(
                f"content of {self.path} exports nothing, which takes the mail store from every client; "
                "set allow_empty if that is meant"
            )
        self.own = entries
        if self.module.params["expected"] is None:
            return entries
        return [{**entry, "options": entry["options"] or []} for entry in self.module.params["expected"]]

    # -- looking --

    def table(self) -> list[dict[str, Any]]:
        """What is exported now."""
        result = _system.run([str(self.exportfs), "-s"], self.timeout)
        if result.rc != 0:
            self.fail(f"exportfs -s failed: {result.reason}")
        return _exports.parse_exportfs(result.out)

    def judge(self, shown: list[dict[str, Any]]) -> list[dict[str, str]]:
        """What is exported otherwise than expected."""
        clients = [entry["client"] for entry in [*self.expected, *shown]]
        return _exports.judge(self.expected, shown, Canonical(clients, self.timeout))

    def said(self, stderr: str) -> list[str]:
        """What exportfs said about what is ours."""
        return _exports.relevant_messages(stderr, self.path, self.own)

    def words(self) -> str:
        """All mismatches and messages as one text."""
        text = "; ".join(_exports.describe(mismatch) for mismatch in self.mismatches)
        if self.messages:
            text += ("; " if text else "") + "exportfs said: " + " | ".join(self.messages)
        return text

    # -- doing --

    def try_first(self) -> None:
        """Try the new file in a namespace of its own; fail, or warn in check mode, when it is no good."""
        if self.exportfs is None:
            return
        exportfs, state_dir = self.exportfs, state_directory(self.timeout)
        place = os.path.dirname(self.path) if os.path.dirname(self.path) == EXPORTS_D else self.path
        if not os.path.exists(place) or not os.path.isdir(state_dir):
            return
        try:
            tried = _system.run_isolated(
                lambda: try_in_child(self.path, self.content, exportfs, state_dir, self.timeout),
                2 * self.timeout + 5,
            )
        except (_system.Hung, _system.ChildError) as exc:
            self.module.warn(
                f"{self.path} could not be tried in a private mount namespace before it was written: {exc}"
            )
            return
        if tried["table"] is None:
            self.module.warn(f"{self.path} could not be tried before it was written: {tried['reason']}")
            return
        self.messages = self.said(tried["err"])
        self.mismatches = self.judge(_exports.parse_exportfs(tried["table"]))
        if not self.mismatches and not self.messages:
            return
        if self.module.check_mode or not self.module.params["apply"]:
            self.module.warn(f"{self.path} would not be in effect as it should be on this host: {self.words()}")
            self.mismatches, self.messages = [], []
            return
        self.fail(f"{self.path} was not written, for it would not be in effect as it should be: {self.words()}")

    def apply(self) -> list[dict[str, Any]]:
        """Apply the files; the table in effect afterwards."""
        result = _system.run([str(self.exportfs), "-ra"], self.timeout)
        self.messages = self.said(result.err)
        if result.timed_out:
            self.messages.append(result.err)
        shown = self.table()
        self.mismatches = self.judge(shown)
        return shown

    def restore(self, old: str | None, old_mode: int) -> None:
        """Put the old file back and apply it."""
        if old is None:
            os.unlink(self.path)
            _system.sync_folder(os.path.dirname(self.path))
        else:
            _system.write_atomically(self.path, old, old_mode)
        _system.run([str(self.exportfs), "-ra"], self.timeout)

    def main(self) -> None:
        """Do it."""
        check, apply = self.module.check_mode, self.module.params["apply"]
        if apply and self.exportfs is None and not check:
            self.fail("exportfs was not found; install nfs-kernel-server (Debian) or nfs-utils (Red Hat)")
        old = _system.read_text(self.path)
        mode = stat.S_IMODE(os.stat(self.path).st_mode) if old is not None else 0
        differs = old != self.content or mode != 0o644
        diff = {
            "before_header": self.path,
            "after_header": self.path,
            "before": old or "",
            "after": self.content,
        }
        shown: list[dict[str, Any]] | None = None
        live_differs = False
        if not differs and apply and self.exportfs is not None:
            shown = self.table()
            live_differs = bool(self.judge(shown))
        if differs:
            if not check and os.path.dirname(self.path) == EXPORTS_D:
                os.makedirs(EXPORTS_D, mode=0o755, exist_ok=True)
            self.try_first()
        action = "none"
        if differs:
            action = "written_and_applied" if apply else "written"
        elif live_differs:
            action = "applied"
        if check or action == "none":
            self.done(action, shown, diff)
            return
        if differs:
            _system.write_atomically(self.path, self.content, 0o644)
        if apply:
            shown = self.apply()
            if self.mismatches and differs:
                self.restore(old, mode)
                back = "the old file was put back" if old is not None else "the file was removed again"
                self.fail(f"{self.path} was not in effect as it should be, {back}: {self.words()}")
            if self.mismatches:
                self.fail(
                    f"{self.path} is as it should be, but not in effect even after exportfs -ra: {self.words()}",
                    changed=True,
                )
        self.done(action, shown, diff)

    def done(self, action: str, shown: list[dict[str, Any]] | None, diff: dict[str, str]) -> None:
        """End well."""
        self.module.exit_json(
            changed=action != "none",
            action=action,
            exports=shown,
            mismatches=self.mismatches,
            messages=self.messages,
            diff=diff,
        )


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "default": "/etc/exports.d/nfsmail.exports"},
            "content": {"type": "str", "required": True},
            "expected": {
                "type": "list",
                "elements": "dict",
                "options": {
                    "path": {"type": "str", "required": True},
                    "client": {"type": "str", "required": True},
                    "options": {"type": "list", "elements": "str", "default": []},
                },
            },
            "apply": {"type": "bool", "default": True},
            "allow_empty": {"type": "bool", "default": False},
            "timeout": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    try:
        Exports(module).main()
    except OSError as exc:
        module.fail_json(msg=f"{module.params['path']}: {exc}", mismatches=[], messages=[])


if __name__ == "__main__":
    main()
