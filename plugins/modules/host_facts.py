#!/usr/bin/python
# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_facts
short_description: Read the few facts that the roles need, in one call
version_added: 1.0.0
description:
  - Reads host name, distribution, installed packages and accounts.
  - Cheaper than C(setup), C(package_facts) and C(getent) together, and it never touches a file system beyond C(/etc), so
    that a dead NFS server cannot hang it.
  - The facts are in C(ansible_facts.nfsmail).
attributes:
  check_mode:
    description: Only reads.
    support: full
options:
  packages:
    description: Packages to look for. For a missing one its candidate version is read from the package lists.
    type: list
    elements: str
    default: []
  users:
    description: Accounts to look for.
    type: list
    elements: str
    default: []
  state_file:
    description: A file of JSON that this collection keeps on proxies; empty to read none.
    type: str
    default: ''
  moving_file:
    description: The file in which proxies find who is on the way to another backend; empty to read none.
    type: str
    default: ''
  watched:
    description:
      - Configuration files, each with a copy beside it, with C(.in-use) at its end, that is made when the service has read it.
    type: list
    elements: str
    default: []
  services:
    description:
      - Systemd units that run, each with the configuration file that it reads when it starts or reloads.
    type: dict
    default: {}
  files:
    description:
      - Files to look at, as patterns of the shell; none with secrets. A symbolic link is not looked at.
    type: list
    elements: str
    default: []
author: nfsmail.cluster contributors (@nfsmail)
"""

EXAMPLES = r"""
- name: Read the machine
  nfsmail.cluster.host_facts:
    packages: [dovecot-core, chrony]
    users: [vmail]
"""

RETURN = r"""
ansible_facts:
  description: The facts, below C(nfsmail).
  returned: always
  type: dict
  contains:
    nfsmail:
      description:
        - C(hostname), C(distribution), C(version), C(major_version), C(os_family), C(package_manager).
        - C(packages) and C(candidates), package to version, C(users), account to C({uid, gid}).
        - C(units), the systemd units that roles of this collection have written.
        - C(addresses), each IP address of the machine with the name of its interface.
        - C(held_until), until when logins wait by O(moving_file), in seconds since 1970; 0 for none.
        - C(moving), who is on the way by O(moving_file), C(/user) and C(//shard) to the address of the new backend.
        - C(unread), those O(watched) files that are not what their service has read, and those of O(services) that were written
          after their service has started or reloaded; as a run leaves them that was killed between writing and reloading.
        - C(state), what O(state_file) has; V({}) without it.
        - C(files), each of O(files) that is there, with C(owner), C(group), C(mode), four octal digits, and C(sha256).
      type: dict
"""

import filecmp
import glob
import grp
import hashlib
import json
import os
import pwd
import stat
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nfsmail.cluster.plugins.module_utils._host import (
    parse_apt_policy,
    parse_dpkg,
    parse_held_until,
    parse_ip_addresses,
    parse_moving,
    parse_os_release,
    parse_rpm,
    parse_state_changes,
)


def _installed(module: AnsibleModule, family: str, names: list[str]) -> dict[str, str]:
    # The brain says what is wrong with a distribution, in better words than a missing program would.
    program = {"Debian": "dpkg-query", "RedHat": "rpm"}.get(family)
    if not names or program is None or module.get_bin_path(program) is None:
        return {}
    if family == "RedHat":
        return parse_rpm(module.run_command(["rpm", "-q", "--qf", "%{NAME} %{VERSION}\\n", *names])[1])
    return parse_dpkg(
        module.run_command(["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status} ${Version}\\n", *names])[1]
    )


def _candidates(module: AnsibleModule, family: str, names: list[str]) -> dict[str, str]:
    if not names or family != "Debian":
        return {}
    return parse_apt_policy(module.run_command(["apt-cache", "policy", *names])[1])


def _users(names: list[str]) -> dict[str, dict[str, int | str]]:
    found: dict[str, dict[str, int | str]] = {}
    for name in names:
        try:
            user = pwd.getpwnam(name)
            group = grp.getgrgid(user.pw_gid).gr_name
        except KeyError:
            continue
        found[name] = {"uid": user.pw_uid, "gid": user.pw_gid, "group": group}
    return found


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read()
    except OSError:
        return ""


def _state(path: str) -> dict[str, object]:
    try:
        found = json.loads(_text(path))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def unread_files(paths: list[str]) -> list[str]:
    """The files that differ from the copies beside them, which are made when a service has read them."""

    def is_read(path: str) -> bool:
        try:
            return filecmp.cmp(path, path + ".in-use", shallow=False)
        except OSError:
            return False

    return [path for path in paths if os.path.exists(path) and not is_read(path)]


def written_since(services: dict[str, str], text: str, now: float) -> list[str]:
    """The files of active units that were written after these have started or reloaded.

    ``text``: what systemctl show said of them. Seconds are all that systemd tells; and a file from the future, which a clock
    has left that was wrong, says nothing.
    """
    changes = parse_state_changes(text)
    found = []
    for unit, path in services.items():
        try:
            written = int(os.stat(path).st_mtime)
        except OSError:
            continue
        if unit in changes and changes[unit] < written <= now:
            found.append(path)
    return sorted(found)


def _written_since(module: AnsibleModule, services: dict[str, str]) -> list[str]:
    there = sorted(unit for unit, path in services.items() if os.path.exists(path))
    if not there:
        return []
    show = ["systemctl", "show", "--property=Id,ActiveState,StateChangeTimestamp", *there]
    return written_since(services, module.run_command(show, environ_update={"TZ": "UTC"})[1], time.time())


def digests(patterns: list[str]) -> dict[str, dict[str, str]]:
    """Owner, group, mode and digest of each regular file that a pattern fits and whose owners have names."""
    found = {}
    for path in sorted(path for pattern in patterns for path in glob.glob(pattern)):
        try:
            info = os.lstat(path)
            if not stat.S_ISREG(info.st_mode):
                continue
            with open(path, "rb") as stream:
                digest = hashlib.sha256(stream.read()).hexdigest()
            owner, group = pwd.getpwuid(info.st_uid).pw_name, grp.getgrgid(info.st_gid).gr_name
        except (OSError, KeyError):
            continue
        found[path] = {"owner": owner, "group": group, "mode": f"{stat.S_IMODE(info.st_mode):04o}", "sha256": digest}
    return found


def main() -> None:
    """Read and return."""
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "list", "elements": "str", "default": []},
            "users": {"type": "list", "elements": "str", "default": []},
            "moving_file": {"type": "str", "default": ""},
            "state_file": {"type": "str", "default": ""},
            "watched": {"type": "list", "elements": "str", "default": []},
            "services": {"type": "dict", "default": {}},
            "files": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    module.run_command_environ_update = {"LC_ALL": "C"}
    with open("/etc/os-release", encoding="utf-8") as stream:
        facts = parse_os_release(stream.read())
    family = str(facts["os_family"])
    installed = _installed(module, family, module.params["packages"])
    missing = [name for name in module.params["packages"] if name not in installed]
    facts.update(
        hostname=os.uname().nodename,
        packages=installed,
        candidates=_candidates(module, family, missing),
        users=_users(module.params["users"]),
        addresses=parse_ip_addresses(module.run_command(["ip", "-oneline", "address", "show"])[1]),
        state=_state(module.params["state_file"]),
        files=digests(module.params["files"]),
        unread=[*unread_files(module.params["watched"]), *_written_since(module, module.params["services"])],
        units=sorted(os.path.basename(path) for path in glob.glob("/etc/systemd/system/nfsmail-*.*")),
    )
    moving = _text(module.params["moving_file"])
    facts.update(held_until=parse_held_until(moving), moving=parse_moving(moving))
    module.exit_json(changed=False, ansible_facts={"nfsmail": facts})


if __name__ == "__main__":
    main()
