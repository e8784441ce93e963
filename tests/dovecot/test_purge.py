# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The scheduled purge of mdbox: systemd takes the units as the role writes them, and their command frees space."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import jinja2
import pytest
import yaml
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dovecot_conf import passwd_lines
from single import USERS, Single

ROLE = Path(__file__).resolve().parents[2] / "roles" / "nfsmail"
DEFAULTS = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text(encoding="utf-8"))
VERIFY = yaml.safe_load((ROLE / "vars" / "main.yml").read_text(encoding="utf-8"))["__nfsmail_verify_unit"]


def unit(kind: str, **variables: str) -> str:
    """A unit as the role writes it."""
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    environment.filters["comment"] = lambda text: f"# {text}"
    template = (ROLE / "templates" / f"nfsmail-purge.{kind}.j2").read_text(encoding="utf-8")
    return environment.from_string(template).render({**DEFAULTS, "ansible_managed": "test", **variables})


def command() -> str:
    """What the service runs, for a shell."""
    (line,) = [line for line in unit("service").splitlines() if line.startswith("ExecStart=")]
    return shlex.join(shlex.split(line.partition("=")[2].replace("$$", "$")))


@pytest.mark.parametrize(
    ("calendar", "accepted"), [(DEFAULTS["nfsmail_purge_calendar"], True), ("daily", True), ("at night", False)]
)
def test_systemd_takes_the_units(single: Single, calendar: str, accepted: bool) -> None:
    single.sh("cat >/etc/systemd/system/nfsmail-purge.service", unit("service"))
    validate = f"{VERIFY % '/tmp/candidate'} nfsmail-purge.KIND nfsmail-purge.KIND && echo yes || echo no"
    for kind, good in (("service", True), ("timer", accepted)):
        script = f"cat >/tmp/candidate; {validate.replace('KIND', kind)}"
        assert single.sh(script, unit(kind, nfsmail_purge_calendar=calendar)).split()[-1] == ("yes" if good else "no")
    assert single.sh(f"systemd-analyze calendar '{calendar}' >&2 && echo yes || echo no").strip() == (
        "yes" if accepted else "no"
    )


def test_the_command_frees_space(single: Single) -> None:
    if single.version == "2.3.13":
        pytest.skip("as 2.3.19")
    single.fresh("mdbox")
    single.sh("echo '# ours' >>/etc/dovecot/nfsmail-users")
    for user in USERS[1:]:
        single.sh(f'head -c 300000 /dev/zero | tr "\\0" x | fold -w 70 | doveadm save -u {user}')
        single.sh(f"doveadm expunge -u {user} mailbox INBOX LARGER 200000")
    count = "find /srv/mail -name 'm.*' -size +200k | wc -l"
    before = single.state()
    assert int(single.sh(count)) == 2
    single.sh(command())
    assert int(single.sh(count)) == 0
    assert single.state() == before
    # A user who cannot be purged is told, and keeps nobody waiting.
    single.sh("doveadm stop")
    assert single.sh(f"{command()} 2>/dev/null; echo $?").strip() == "1"


def test_the_command_reads_the_file_as_dovecot_does(tmp_path: Path) -> None:
    users = ["o'hara@example.com", "back\\slash", "anna@example.com"]
    lines = [*passwd_lines([{"name": user, "password": "{PLAIN}x"} for user in users]), "# of the operator", ""]
    (tmp_path / "users").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    doveadm = tmp_path / "doveadm"
    doveadm.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$*" >>{tmp_path}/asked; test "$3" != anna@example.com\n', encoding="utf-8"
    )
    doveadm.chmod(0o755)
    words = command().replace(DEFAULTS["nfsmail_users_file"], str(tmp_path / "users"))
    done = subprocess.run(words, shell=True, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, check=False)
    asked = (tmp_path / "asked").read_text(encoding="utf-8").splitlines()
    assert (sorted(asked), done.returncode) == (sorted(f"purge -u {user}" for user in users), 1)
