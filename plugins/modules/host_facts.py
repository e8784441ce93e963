#!/usr/bin/python
# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_facts
short_description: Read the few facts that the roles need, in one call
version_added: 0.1.0
description:
  - Reads host name, distribution, installed packages and accounts.
  - Cheaper than C(setup), C(package_facts) and C(getent) together, and it never touches a file system, so that a dead
    NFS server cannot hang it.
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
        - C(hostname), C(distribution), C(major_version), C(os_family), C(package_manager).
        - C(packages) and C(candidates), package to version, C(users), account to C({uid, gid}).
      type: dict
"""

import grp
import os
import pwd

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.nfsmail.cluster.plugins.module_utils._host import (
    parse_apt_policy,
    parse_dpkg,
    parse_os_release,
    parse_rpm,
)


def _installed(module: AnsibleModule, family: str, names: list[str]) -> dict[str, str]:
    if not names:
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


def main() -> None:
    """Read and return."""
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "list", "elements": "str", "default": []},
            "users": {"type": "list", "elements": "str", "default": []},
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
    )
    module.exit_json(changed=False, ansible_facts={"nfsmail": facts})


if __name__ == "__main__":
    main()
