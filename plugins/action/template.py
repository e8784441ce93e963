# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible.builtin.template, without asking the machine about a file that host_facts has found as it should be."""

from __future__ import annotations

import hashlib
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action.template import ActionModule as Template

# Beside src and dest; with any other argument the machine is asked.
RIGHTS = ("owner", "group", "mode")
WHEN_WRITTEN = {"backup", "validate"}


class ActionModule(Template):
    """See plugins/modules/template.py."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Write the file, if need be."""
        if self._is_there(task_vars or {}):
            return {"changed": False, "dest": self._task.args["dest"]}
        return dict(super().run(tmp, task_vars))

    def _is_there(self, task_vars: dict[str, Any]) -> bool:
        """Whether the file has the content, the owner, the group and the mode that it is to have."""
        args = self._task.args
        known = task_vars.get("ansible_facts", {}).get("nfsmail", {}).get("files", {}).get(args.get("dest"))
        # A file with secrets has no digest among the facts, which may be kept on a disk.
        if not known or self._task.no_log or set(args) - WHEN_WRITTEN != {"src", "dest", *RIGHTS}:
            return False
        if any(args[name] != known[name] for name in RIGHTS):
            return False
        look_up = self._shared_loader_obj.lookup_loader.get(
            "ansible.builtin.template", loader=self._loader, templar=self._templar
        )
        try:
            (text,) = look_up.run([args["src"]], variables=task_vars)
        except AnsibleError:
            return False  # ansible.builtin.template says it better
        return bool(hashlib.sha256(text.encode()).hexdigest() == known["sha256"])
