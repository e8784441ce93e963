#!/usr/bin/python
# Copyright (c) 2026 nfsmail.cluster contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mount an NFS export with exactly the options that were asked for."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nfs_mount
short_description: Mount an NFS export with exactly the options that were asked for
version_added: 1.0.0
author:
  - nfsmail.cluster contributors (@nfsmail)
description:
  - Mounts an export, compares the options in effect (not only those in C(fstab)) with the wanted ones, and guards
    the directory below the mount so that no mail is written into it while the mount is missing.
  - NFS options cannot be changed by a remount. Where they differ, the module unmounts and mounts anew, but only if no
    process uses the mount; otherwise it fails and names the processes and the differences. If the new mount fails, the
    old one is put back.
  - A server that cannot be reached is found out by a connection to its port first. Then nothing is changed at all,
    C(fstab) neither. C(fstab) is written only after the mount has worked.
  - No path on the mount is looked at by the module itself, so a dead server makes it fail, not hang.
options:
  path:
    description: The mount point, an absolute path without symbolic links.
    type: path
    required: true
  src:
    description: Server and export, for example V(nfs1:/srv/mail). Needed for O(state=mounted) and O(state=present).
    type: str
  options:
    description:
      - Mount options, one to an element. What is not named counts as wanted at its default, except for what client and
        server agree on by themselves (version, sizes, timeouts, security flavour).
      - C(_netdev), C(nofail), C(bg), C(retry=) and C(x-systemd.*) go to C(fstab) only; the kernel never shows them.
    type: list
    elements: str
    default: []
  state:
    description:
      - V(mounted) has it mounted, in C(fstab) and guarded.
      - V(present) writes C(fstab) and makes the guarded mount point, and neither mounts nor unmounts.
      - V(unmounted) unmounts it and leaves C(fstab) and the guard.
      - V(absent) unmounts it and removes the line of C(fstab) and the guard. The directory goes too unless it has
        something in it.
    type: str
    choices: [mounted, present, unmounted, absent]
    default: mounted
  timeout:
    description: Seconds that one mount or unmount may take.
    type: int
    default: 30
  fstab:
    description: The file to write the line to.
    type: path
    default: /etc/fstab
  fstype:
    description: The type to write to C(fstab) and to mount with.
    type: str
    choices: [nfs, nfs4]
    default: nfs
  force_busy:
    description:
      - Detach the mount although processes use it (C(umount -l)). They stay on the old mount, with its old options, until
        they close their files. Meant for a host whose server is gone for good.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Says what would change, also where the path or C(mount.nfs) do not exist yet.
  diff_mode:
    support: full
    description: Shows the line of C(fstab), the options in effect that differ, and the guard, before and after.
notes:
  - The guard is the directory below the mount, owned by root, mode 0555, with a file C(NOT-MOUNTED), and immutable
    (C(chattr +i)) where the file system can do that. It is looked at in a private mount namespace, so also while the
    mount is up. Needs root.
  - When the mount is unmounted, systemd stops units that are bound to it (C(BindsTo=)), as with any unmount.
seealso:
  - module: nfsmail.cluster.nfs_exports
  - module: nfsmail.cluster.host_state
"""

EXAMPLES = r"""
- name: Mount the mail store
  nfsmail.cluster.nfs_mount:
    path: /srv/mail
    src: nfs1:/srv/mail
    options: [vers=4.2, proto=tcp, hard, lookupcache=positive, nosuid, nodev, _netdev, nofail]

- name: Prepare an image that is to mount it at its first boot
  nfsmail.cluster.nfs_mount:
    path: /srv/mail
    src: nfs1:/srv/mail
    options: [vers=4.2, hard, _netdev, nofail]
    state: present
"""

RETURN = r"""
action:
  description: What happened to the mount. In check mode with C(would_) before it.
  type: str
  returned: always
  sample: mounted
  choices:
    - none
    - mounted
    - remounted
    - unmounted_and_mounted
    - unmounted
    - would_mount
    - would_remount
    - would_unmount_and_mount
    - would_unmount
changes:
  description: What was changed, or would be in check mode.
  type: list
  elements: str
  returned: always
  sample: [mount, fstab, guard]
in_effect:
  description: All options in effect now; an empty list when nothing is mounted.
  type: list
  elements: str
  returned: always
  sample: [rw, nosuid, nodev, relatime, vers=4.2, hard, lookupcache=pos]
differences:
  description: Where the options in effect differed from the wanted ones before anything was done.
  type: list
  elements: dict
  returned: always
  sample: [{option: lookupcache, wanted: positive, found: all}]
fstab_line:
  description: The line of C(fstab) as it is or would be; V(none) without one.
  type: str
  returned: success
holders:
  description: Processes that kept the mount from being changed.
  type: list
  elements: dict
  returned: when the mount is busy
  sample: [{pid: 4711, name: imap, why: [fd]}]
guard:
  description: The directory below the mount.
  type: dict
  returned: always
  contains:
    path:
      description: The mount point.
      type: str
    exists:
      description: Whether it is there.
      type: bool
    mode:
      description: Its mode as four octal digits.
      type: str
    uid:
      description: Its owner.
      type: int
    gid:
      description: Its group.
      type: int
    immutable:
      description: Whether it is immutable. V(false) too where the file system cannot do that.
      type: bool
    marker:
      description: Whether the file C(NOT-MOUNTED) is in it.
      type: bool
    foreign_entries:
      description: Up to five names of other things in it, hidden by the mount.
      type: list
      elements: str
    foreign_count:
      description: How many other things there are.
      type: int
    error:
      description: Why it could not be looked at.
      type: str
"""

import errno
import os
import socket
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nfsmail.cluster.plugins.module_utils import _guard, _mounts, _system

LOOK_TIMEOUT = 15
CONNECT_TIMEOUT = 5.0
WOULD = {
    "none": "none",
    "mounted": "would_mount",
    "remounted": "would_remount",
    "unmounted_and_mounted": "would_unmount_and_mount",
    "unmounted": "would_unmount",
}


# ---- small things that run in children ----


def why_unreachable(host: str, port: int, proto: str, timeout: float) -> str | None:
    """For a child: why no connection to the server's port can be made; None when one was made."""
    family = {"tcp": socket.AF_INET, "tcp6": socket.AF_INET6}.get(proto, socket.AF_UNSPEC)
    try:
        found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        return f"the name {host} does not resolve ({getattr(exc, 'strerror', None) or exc})"
    reasons = []
    for kind, socktype, number, dummy, address in found:
        with socket.socket(kind, socktype, number) as connection:
            connection.settimeout(timeout)
            try:
                connection.connect(address)
                return None
            except socket.timeout:
                reasons.append(f"{address[0]} port {port}: timed out after {timeout:.0f} s")
            except OSError as exc:
                word = {errno.ECONNREFUSED: "connection refused", errno.EHOSTUNREACH: "no route to host"}
                reasons.append(f"{address[0]} port {port}: {word.get(exc.errno or 0, exc.strerror or str(exc))}")
    return "; ".join(reasons)


def touch_automount(path: str) -> bool:
    """For a child: make an automount point mount."""
    os.stat(os.path.join(path, "."))
    return True


def real_path(path: str) -> str:
    """For a child: the path without symbolic links above its last part, which may be a dead mount."""
    return os.path.join(os.path.realpath(os.path.dirname(path)), os.path.basename(path))


def remount_flags(in_effect: list[str], wanted: list[str]) -> int:
    """Flags for a bind remount that change what differs and keep the rest."""
    words = {
        "nosuid": _system.MS_NOSUID,
        "nodev": _system.MS_NODEV,
        "noexec": _system.MS_NOEXEC,
        "nodiratime": _system.MS_NODIRATIME,
    }
    lacking = {item["option"]: item["wanted"] for item in _mounts.differences(wanted, in_effect)}
    flags = _system.MS_REMOUNT | _system.MS_BIND
    for word, flag in words.items():
        if lacking.get(word, word if word in in_effect else "") == word:
            flags |= flag
    if lacking.get("ro", "ro" if "ro" in in_effect else "rw") == "ro":
        flags |= _system.MS_RDONLY
    atime = "noatime" if "noatime" in in_effect else "relatime" if "relatime" in in_effect else "strictatime"
    return flags | {
        "noatime": _system.MS_NOATIME,
        "relatime": _system.MS_RELATIME,
        "strictatime": _system.MS_STRICTATIME,
    }.get(lacking.get("atime", atime), 0)


# ---- the module ----


class NfsMount:
    """One run of the module."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.state: str = module.params["state"]
        self.src: str = module.params["src"] or ""
        self.fstype: str = module.params["fstype"]
        self.fstab: str = module.params["fstab"]
        self.timeout: float = module.params["timeout"]
        self.options: list[str] = []
        self.action = "none"
        self.changes: list[str] = []
        self.done: list[str] = []
        self.wrong: list[dict[str, str]] = []
        self.lacks: list[str] = []
        self.before: dict[str, str] = {}
        self.after: dict[str, str] = {}
        self.guard: dict[str, Any] = {"path": module.params["path"]}
        self.path = self.read_path()
        self.read_options()

    def fail(self, msg: str, **more: Any) -> None:
        """End with an error; say what was changed up to here."""
        mount, in_effect = self.look()
        self.module.fail_json(
            msg=msg,
            changed=bool(self.done),
            action=self.action if "mount" in self.done else "none",
            changes=self.done,
            in_effect=in_effect if mount is not None and mount.is_nfs else [],
            differences=self.wrong,
            guard=_guard.public(self.guard),
            **more,
        )

    # -- parameters --

    def read_path(self) -> str:
        """The mount point, checked."""
        path: str = self.module.params["path"]
        self.path = path
        if not path.startswith("/") or os.path.normpath(path) in ("/", "//"):
            self.fail(f"path must be an absolute path below /, not {path!r}")
        path = os.path.normpath(path)
        try:
            real = _system.run_isolated(lambda: real_path(path), LOOK_TIMEOUT)
        except _system.Hung:
            self.fail(f"looking up {os.path.dirname(path)} hangs; is it on a dead mount?")
        except _system.ChildError as exc:
            self.fail(f"{path}: {exc}")
        if real != path:
            self.fail(f"path {path} goes through a symbolic link; write {real}")
        return path

    def read_options(self) -> None:
        """Source and options, checked."""
        for item in self.module.params["options"]:
            self.options += [option.strip() for option in str(item).split(",") if option.strip()]
        for option in self.options:
            if set(option) & set(" \t\n\"'\\#"):
                self.fail(f"the mount option {option!r} has a character that fstab does not take")
            if option in ("remount", "bind", "rbind", "move"):
                self.fail(f"{option} is a task for mount(8), not an option of an NFS mount")
        if self.src:
            try:
                _mounts.split_source(self.src)
            except ValueError as exc:
                self.fail(str(exc))

    # -- looking --

    def look(self) -> tuple[_mounts.Mount | None, list[str]]:
        """What is mounted at the path, and with which options."""
        mounts = _mounts.parse_mountinfo(_system.read_text("/proc/self/mountinfo") or "")
        mount = _mounts.top_mount(mounts, self.path)
        if mount is None:
            return None, []
        stats = _mounts.parse_mountstats(_system.read_text("/proc/self/mountstats") or "")
        return mount, _mounts.options_in_effect(mount, stats.get(self.path))

    def look_through_automount(self) -> tuple[_mounts.Mount | None, list[str]]:
        """The same; an automount point is made to mount first."""
        mount, in_effect = self.look()
        if mount is not None and mount.fstype == "autofs" and self.state == "mounted":
            try:
                _system.run_isolated(lambda: touch_automount(self.path), self.timeout)
            except (_system.Hung, _system.ChildError) as exc:
                self.fail(f"{self.path} is an automount point and does not mount: {exc}")
            mount, in_effect = self.look()
        return mount, in_effect

    def inspect_guard(self) -> list[str]:
        """Look at the guard; what it lacks."""
        try:
            self.guard = _guard.inspect(self.path, LOOK_TIMEOUT)
        except _system.Hung as exc:
            self.guard = {"path": self.path, "error": str(exc)}
            self.fail(f"looking at the directory below the mount {self.path} hangs: {exc}")
        except _system.ChildError as exc:
            self.guard = {"path": self.path, "error": str(exc)}
            self.fail(f"the directory below the mount {self.path} cannot be looked at: {exc}")
        self.warn_of_foreign_entries()
        return _guard.shortcomings(self.guard, _guard.marker_text(self.src) if self.src else None)

    def warn_of_foreign_entries(self) -> None:
        """Old mail below the mount is hidden, and nobody knows: say so."""
        count = self.guard["foreign_count"]
        if count:
            names = ", ".join(self.guard["foreign_entries"]) + (
                ", ..." if count > len(self.guard["foreign_entries"]) else ""
            )
            self.module.warn(
                f"the directory below the mount {self.path} has {count} other "
                f"{'entry' if count == 1 else 'entries'} that the mount hides (mail written while it was missing?): {names}"
            )

    def holders(self) -> list[dict[str, Any]]:
        """Processes and mounts that use this mount."""
        skip = (os.getpid(),)
        try:
            found = _system.run_isolated(
                lambda: _system.find_holders(self.path, skip=(*skip, os.getpid())), LOOK_TIMEOUT
            )
        except (_system.Hung, _system.ChildError) as exc:
            self.fail(f"it cannot be found out who uses {self.path}: {exc}")
        for mount in _mounts.parse_mountinfo(_system.read_text("/proc/self/mountinfo") or ""):
            if mount.path.startswith(self.path + "/"):
                found.append({"pid": 0, "name": f"mount at {mount.path}", "why": ["mount"]})
        holders: list[dict[str, Any]] = found
        return holders

    def busy_text(self, holders: list[dict[str, Any]], task: str) -> str:
        """The error for a mount in use."""
        who = ", ".join(f"{item['pid']} ({item['name']})" if item["pid"] else item["name"] for item in holders[:20])
        more = f" and {len(holders) - 20} more" if len(holders) > 20 else ""
        text = f"{self.path} cannot be {task} while it is in use by {who}{more}"
        if self.wrong and self.state == "mounted":
            text += f"; NFS options cannot be changed by a remount, and these differ: {self.wrong_text()}"
        return text

    def wrong_text(self) -> str:
        """All differences as a text."""
        return ", ".join(f"{item['option']} (wanted {item['wanted']}, found {item['found']})" for item in self.wrong)

    def must_not_be_busy(self) -> bool:
        """Whether processes that use the mount keep the plan from being carried out."""
        return self.action in ("unmounted", "unmounted_and_mounted") and not self.module.params["force_busy"]

    def task(self) -> str:
        """The plan in words."""
        return "unmounted" if self.action == "unmounted" else "mounted anew"

    def warn_of_holders(self) -> None:
        """Check mode: say that the real run would fail as things are now."""
        holders = self.holders() if self.must_not_be_busy() else []
        if holders:
            self.module.warn(f"a real run would fail now: {self.busy_text(holders, self.task())}")

    # -- steps that change something --

    def require_helper(self) -> None:
        """mount.nfs must be there."""
        if _system.find_program("mount.nfs") is None:
            self.fail("mount.nfs was not found; install nfs-common (Debian) or nfs-utils (Red Hat)")

    def require_server(self) -> None:
        """The server must answer before anything is changed."""
        meaning = dict(option.partition("=")[::2] for option in self.options)
        proto = meaning.get("proto", "")
        if proto.startswith(("udp", "rdma")) or {"udp", "rdma"} & set(self.options):
            return
        host, dummy = _mounts.split_source(self.src)
        port = int(meaning["port"]) if meaning.get("port", "").isdigit() and int(meaning["port"]) else 2049
        try:
            reason = _system.run_isolated(
                lambda: why_unreachable(host, port, proto, CONNECT_TIMEOUT),
                max(self.timeout, 3 * CONNECT_TIMEOUT),
            )
        except _system.Hung:
            reason = f"looking up the name {host} or connecting to it did not finish"
        except _system.ChildError as exc:
            reason = str(exc)
        if reason is not None:
            self.fail(f"the NFS server {host} cannot be reached, nothing was changed: {reason}")

    def ensure_guard(self) -> None:
        """Make the guard."""
        if "guard" not in self.changes or self.state == "absent":
            return
        try:
            self.guard = _guard.ensure(self.path, _guard.marker_text(self.src), LOOK_TIMEOUT)
        except (_system.Hung, _system.ChildError) as exc:
            self.fail(f"the directory below the mount {self.path} cannot be made safe: {exc}")
        self.done.append("guard")

    def mount(self, source: str, fstype: str, options: list[str]) -> str | None:
        """Mount; the reason when it failed."""
        command = ["mount", "-t", fstype, "-o", ",".join([*options, "retry=0"]), source, self.path]
        result = _system.run(command, self.timeout)
        if result.rc == 0:
            return None
        hint = "; /etc/protocols is missing, install netbase" if "Failed to find" in result.reason else ""
        return f"mount -t {fstype} -o {command[4]} {source} {self.path}: {result.reason}{hint}"

    def unmount(self) -> str | None:
        """Unmount every NFS mount at the path; the reason when that failed."""
        for dummy in range(16):
            mount, dummy2 = self.look()
            if mount is None or not mount.is_nfs:
                return None
            command = ["umount", "-l", self.path] if self.module.params["force_busy"] else ["umount", self.path]
            result = _system.run(command, self.timeout)
            if result.rc != 0:
                now, dummy2 = self.look()
                if now is not None and now.mount_id == mount.mount_id:
                    hint = "; is the server gone? force_busy detaches the mount" if result.timed_out else ""
                    return f"{result.reason}{hint}"
        return "there is always one more mount below"

    def write_fstab(self, old: str, new: str) -> None:
        """Write fstab and tell systemd."""
        if new == old:
            return
        try:
            _system.write_atomically(self.fstab, new)
        except OSError as exc:
            self.fail(f"{self.fstab} cannot be written: {exc}")
        self.done.append("fstab")
        if os.path.realpath(self.fstab) == os.path.realpath("/etc/fstab") and os.path.isdir("/run/systemd/system"):
            result = _system.run(["systemctl", "daemon-reload"], max(self.timeout, 60))
            if result.rc != 0:
                self.module.warn(
                    f"systemd does not know the new {self.fstab} yet, systemctl daemon-reload: {result.reason}"
                )

    # -- states --

    def main(self) -> None:
        """Do it."""
        mount, in_effect = self.look_through_automount()
        old_fstab = _system.read_text(self.fstab) or ""
        if self.state in ("mounted", "present"):
            line: str | None = _mounts.fstab_line(self.src, self.path, self.fstype, self.options)
        else:
            line = None if self.state == "absent" else _mounts.fstab_entry(old_fstab, self.path)
        new_fstab = old_fstab if self.state == "unmounted" else _mounts.fstab_with(old_fstab, self.path, line)
        if mount is not None and not mount.is_nfs and not (mount.fstype == "autofs" and self.state != "mounted"):
            self.fail(
                f"at {self.path} something else is mounted: {mount.source} of type {mount.fstype}; this module unmounts NFS only"
            )
        nfs = mount if mount is not None and mount.is_nfs else None
        self.plan(nfs, in_effect)
        if new_fstab != old_fstab:
            self.changes.append("fstab")
            self.before["fstab"] = _mounts.fstab_entry(old_fstab, self.path) or "no line"
            self.after["fstab"] = line or "no line"
        self.plan_guard()
        if self.module.check_mode:
            self.warn_of_holders()
        else:
            self.carry_out(nfs, in_effect, old_fstab, new_fstab)
        dummy, now = self.look()
        self.module.exit_json(
            changed=bool(self.changes),
            action=WOULD[self.action] if self.module.check_mode else self.action,
            changes=self.changes,
            in_effect=now if nfs is not None or "mount" in self.done else [],
            differences=self.wrong,
            fstab_line=_mounts.fstab_entry(new_fstab, self.path),
            guard=_guard.public(self.guard),
            diff=self.diff(),
        )

    def plan(self, nfs: _mounts.Mount | None, in_effect: list[str]) -> None:
        """Decide what is to happen to the mount."""
        if self.state == "mounted" and nfs is None:
            self.action = "mounted"
            self.before["mounted"] = "nothing"
            self.after["mounted"] = f"{self.src} with {','.join(_mounts.options_to_mount(self.options)) or 'defaults'}"
        elif nfs is not None and self.state in ("mounted", "present"):
            self.plan_options(nfs, in_effect)
        elif nfs is not None:
            self.action = "unmounted"
            self.before["mounted"] = nfs.source
            self.after["mounted"] = "nothing"
        if self.action != "none":
            self.changes.append("mount")

    def plan_options(self, nfs: _mounts.Mount, in_effect: list[str]) -> None:
        """Compare the mount with what is wanted."""
        self.wrong = _mounts.differences(self.options, in_effect)
        if not _mounts.same_source(self.src, nfs.source):
            self.wrong.insert(0, {"option": "src", "wanted": self.src, "found": nfs.source})
        for item in [item for item in self.wrong if item["option"] in _mounts.ADVISORY]:
            self.module.warn(
                f"{item['option']}={item['wanted']} is not in effect at {self.path} (found {item['found']}): "
                "the first mount of a server decides about it for all"
            )
        keys = {item["option"] for item in self.wrong} - _mounts.ADVISORY
        if not keys or self.state == "present":
            return
        simple = keys <= _mounts.REMOUNTABLE and not ("ro" in keys and "ro" in nfs.super_options)
        self.action = "remounted" if simple else "unmounted_and_mounted"
        for item in self.wrong:
            self.before[item["option"]] = item["found"]
            self.after[item["option"]] = item["wanted"]

    def plan_guard(self) -> None:
        """Look at the guard and decide about it."""
        self.lacks = self.inspect_guard()
        if self.state in ("mounted", "present") and self.lacks:
            self.changes.append("guard")
            self.before["guard"] = "lacks " + ", ".join(self.lacks) if self.lacks != ["missing"] else "no directory"
            self.after["guard"] = "root:root 0555, immutable, NOT-MOUNTED"
        ours = self.guard["marker"] or self.guard["immutable"]
        if self.state == "absent" and self.guard["exists"] and (ours or not self.guard["foreign_count"]):
            self.changes.append("guard")
            self.before["guard"] = "directory"
            self.after["guard"] = "no directory" if not self.guard["foreign_count"] else "directory without NOT-MOUNTED"

    def diff(self) -> dict[str, str]:
        """What changed, as lines."""
        return {
            "before_header": self.path,
            "after_header": self.path,
            "before": "".join(f"{key}: {value}\n" for key, value in self.before.items()),
            "after": "".join(f"{key}: {value}\n" for key, value in self.after.items()),
        }

    def carry_out(self, nfs: _mounts.Mount | None, in_effect: list[str], old_fstab: str, new_fstab: str) -> None:
        """Do what was planned, in an order that leaves nothing half done."""
        if self.must_not_be_busy():
            holders = self.holders()
            if holders:
                self.fail(self.busy_text(holders, self.task()), holders=holders)
        if self.action in ("mounted", "unmounted_and_mounted"):
            self.require_helper()
            self.require_server()
        # A marker that names the old source is right until the new one is mounted.
        late = self.lacks == ["marker"] and self.guard["marker"]
        if not late:
            self.ensure_guard()
        if self.action == "mounted":
            self.mount_anew(None, [], old_fstab)
        elif self.action == "remounted":
            self.remount(in_effect)
        elif self.action == "unmounted_and_mounted":
            self.unmount_or_fail()
            self.mount_anew(nfs, in_effect, old_fstab)
        elif self.action == "unmounted":
            self.unmount_or_fail()
            self.done.append("mount")
        if late:
            self.ensure_guard()
        self.write_fstab(old_fstab, new_fstab)
        if self.state == "absent" and "guard" in self.changes:
            try:
                self.guard = _guard.remove(self.path, LOOK_TIMEOUT)
            except (_system.Hung, _system.ChildError) as exc:
                self.fail(f"the mount point {self.path} cannot be removed: {exc}")
            self.done.append("guard")

    def unmount_or_fail(self) -> None:
        """Unmount; nothing else was changed yet when that fails."""
        reason = self.unmount()
        if reason is not None:
            holders = self.holders()
            text = f"{self.path} cannot be unmounted: {reason}"
            if holders:
                text = f"{self.busy_text(holders, 'unmounted')} ({reason})"
            self.fail(text, holders=holders)

    def remount(self, in_effect: list[str]) -> None:
        """Change flags of the mount, past mount.nfs and the NFS client."""
        flags = remount_flags(in_effect, self.options)
        try:
            _system.run_isolated(lambda: _system.sys_mount("none", self.path, None, flags), self.timeout)
        except (_system.Hung, _system.ChildError) as exc:
            self.fail(f"{self.path} cannot be remounted with {self.wrong_text()}: {exc}")
        self.done.append("mount")
        left = self.left_over()
        if left:
            self.fail(f"{self.path} was remounted, but is not as it should be: {left}")

    def left_over(self) -> str:
        """What differs after a mount."""
        mount, in_effect = self.look()
        if mount is None or not mount.is_nfs:
            return "nothing is mounted there"
        left = [item for item in _mounts.differences(self.options, in_effect) if item["option"] not in _mounts.ADVISORY]
        return ", ".join(f"{item['option']} (wanted {item['wanted']}, found {item['found']})" for item in left)

    def mount_anew(self, old: _mounts.Mount | None, old_options: list[str], old_fstab: str) -> None:
        """Mount with the wanted options; where that fails, put back what was mounted before."""
        reason = self.mount(self.src, self.fstype, _mounts.options_to_mount(self.options))
        if reason is None:
            left = self.left_over()
            if not left:
                self.done.append("mount")
                return
            reason = f"the kernel did not take every option: {left}"
        undone = self.unmount()
        if undone is not None:
            self.fail(f"{reason}; and what was mounted cannot be unmounted: {undone}")
        if old is None:
            self.fail(f"{self.src} cannot be mounted at {self.path}: {reason}")
            return
        self.fail(
            f"{self.src} cannot be mounted at {self.path} with the new options: {reason}; {self.put_back(old, old_options, old_fstab)}"
        )

    def put_back(self, old: _mounts.Mount, old_options: list[str], old_fstab: str) -> str:
        """Mount again what was mounted before; how that went."""
        ways = [_mounts.options_to_restore(old_options)]
        line = _mounts.fstab_options(old_fstab, self.path)
        if line is not None and not _mounts.differences(line, old_options):
            ways.insert(0, _mounts.options_to_mount(line))
        reasons = []
        for options in ways:
            reason = self.mount(old.source, old.fstype, options)
            if reason is None:
                return f"the old mount of {old.source} was put back"
            reasons.append(reason)
        return f"NOTHING IS MOUNTED NOW, the old mount could not be put back either: {'; '.join(reasons)}"


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "src": {"type": "str"},
            "options": {"type": "list", "elements": "str", "default": []},
            "state": {
                "type": "str",
                "choices": ["mounted", "present", "unmounted", "absent"],
                "default": "mounted",
            },
            "timeout": {"type": "int", "default": 30},
            "fstab": {"type": "path", "default": "/etc/fstab"},
            "fstype": {"type": "str", "choices": ["nfs", "nfs4"], "default": "nfs"},
            "force_busy": {"type": "bool", "default": False},
        },
        required_if=[("state", "mounted", ("src",)), ("state", "present", ("src",))],
        supports_check_mode=True,
    )
    NfsMount(module).main()


if __name__ == "__main__":
    main()
