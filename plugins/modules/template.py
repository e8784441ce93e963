#!/usr/bin/python
# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This is a virtual module: plugins/action/template.py is all of it.

from __future__ import annotations

DOCUMENTATION = r"""
module: template
short_description: Write a file from a template, unless it is known to be there
version_added: 1.0.0
description:
  - Does what C(ansible.builtin.template) does. A file that M(nfsmail.cluster.host_facts) has read in this run, with this content,
    owner, group and mode, is not asked for again, which spares the machine two of Ansible's modules.
  - A task with C(no_log) is left to C(ansible.builtin.template), and so is one with options that are not listed here.
attributes:
  check_mode:
    description: As C(ansible.builtin.template).
    support: full
  diff_mode:
    description: As C(ansible.builtin.template).
    support: full
options:
  src:
    description: The template, as for C(ansible.builtin.template).
    type: path
    required: true
  dest:
    description: The file on the machine.
    type: path
    required: true
  owner:
    description: The name of its owner.
    type: str
  group:
    description: The name of its group.
    type: str
  mode:
    description: Its mode, four octal digits.
    type: raw
  backup:
    description: Whether a file that is replaced is kept.
    type: bool
    default: false
  validate:
    description: A command that must succeed with the new file, which C(%s) stands for.
    type: str
seealso:
  - module: nfsmail.cluster.host_facts
author: nfsmail.cluster contributors (@nfsmail)
"""

EXAMPLES = r"""
- name: Read the machine
  nfsmail.cluster.host_facts:
    files: [/etc/modprobe.d/nfsmail-*.conf]

- name: Set the parameters of kernel modules
  nfsmail.cluster.template:
    src: modprobe.conf.j2
    dest: /etc/modprobe.d/nfsmail-client.conf
    owner: root
    group: root
    mode: "0644"
"""

RETURN = r"""
dest:
  description: The file.
  returned: always
  type: str
"""
