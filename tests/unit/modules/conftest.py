# Copyright (c) 2026 nfsmail.cluster contributors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Running a module in the test's own process."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import pytest
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args

if TYPE_CHECKING:
    from types import ModuleType

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


class Ended(Exception):
    """A module called exit_json or fail_json."""

    def __init__(self, failed: bool, result: dict[str, Any]) -> None:
        super().__init__(str(result))
        self.failed = failed
        self.result = result


class RunModule(Protocol):
    """Runs a module; C(ok) is for its success, C(fail) for its failure, and each complains about the other."""

    warnings: list[str]

    def ok(self, module: ModuleType, check: bool = False, **params: Any) -> dict[str, Any]:
        """Run it; its result."""

    def fail(self, module: ModuleType, check: bool = False, **params: Any) -> dict[str, Any]:
        """Run it; the result with C(msg)."""


class _Runner:
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def _run(self, module: ModuleType, check: bool, params: dict[str, Any]) -> Ended:
        self.warnings.clear()
        with patch_module_args({**params, "_ansible_check_mode": check}), pytest.raises(Ended) as caught:
            module.main()
        return caught.value

    def ok(self, module: ModuleType, check: bool = False, **params: Any) -> dict[str, Any]:
        ended = self._run(module, check, params)
        assert not ended.failed, ended.result.get("msg")
        return ended.result

    def fail(self, module: ModuleType, check: bool = False, **params: Any) -> dict[str, Any]:
        ended = self._run(module, check, params)
        assert ended.failed, ended.result
        return ended.result


@pytest.fixture
def run_module(monkeypatch: pytest.MonkeyPatch) -> RunModule:
    """Run a module with parameters and see how it ends."""
    runner = _Runner()

    def exit_json(_module: Any, **result: Any) -> NoReturn:
        raise Ended(False, result)

    def fail_json(_module: Any, msg: str, **result: Any) -> NoReturn:
        raise Ended(True, {"msg": msg, **result})

    monkeypatch.setattr(basic.AnsibleModule, "exit_json", exit_json)
    monkeypatch.setattr(basic.AnsibleModule, "fail_json", fail_json)
    monkeypatch.setattr(basic.AnsibleModule, "warn", lambda _module, text, **_more: runner.warnings.append(text))
    return runner
