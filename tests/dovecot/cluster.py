# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A small cluster in containers: proxies and backends of different releases on a network of their own.

Each backend has a store of its own here, so that a message tells by where it lies which backend took it.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping

from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dovecot_conf import passwd_lines, ssha512
from conftest import FIRST_PROCESS
from mailflow.errors import MailflowError
from mailflow.lmtp import LmtpClient

# Of this run alone: another checkout may run the same tests.
RUN = f"nfsmail-{os.getpid()}"
NET = f"172.30.{100 + os.getpid() % 150}"
PASSWORD = "lab-password-1"
IMAGES = {"2.3.13": "bullseye", "2.3.19": "bookworm", "2.4.1": "trixie"}
CERTIFICATE = (
    "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=lab -days 2 -keyout key.pem -out cert.pem 2>/dev/null"
)


class Cluster:
    """Containers by name, each with the Dovecot of a Debian release; addresses end in 11 (mail1) and 21 (proxy1) and so on."""

    def __init__(self, versions: Mapping[str, str]) -> None:
        self.versions = dict(versions)
        tens = {"mail": 10, "proxy": 20}
        self.addresses = {name: f"{NET}.{tens[name[:-1]] + int(name[-1])}" for name in versions}
        self.proxies = [self.addresses[name] for name in versions if name.startswith("proxy")]
        self.backends = [
            {"name": name, "address": self.addresses[name]} for name in versions if name.startswith("mail")
        ]

    def __enter__(self) -> Cluster:
        try:
            self._docker("network", "create", "--subnet", f"{NET}.0/24", RUN)
            for name, version in self.versions.items():
                image = f"nfsmail/dovecot:{IMAGES[version]}"
                where = (
                    f"--network={RUN}",
                    f"--ip={self.addresses[name]}",
                    f"--hostname={name}",
                    f"--name={RUN}-{name}",
                )
                self._docker("run", "--detach", "--rm", *where, image, "python3", "-c", FIRST_PROCESS)
                self.sh(name, f"cd /etc/dovecot && {CERTIFICATE}; install -d -o 5000 -g 5001 /srv/mail")
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Remove what was made."""
        for name in self.versions:
            subprocess.run(["docker", "rm", "--force", f"{RUN}-{name}"], capture_output=True, check=False)
        subprocess.run(["docker", "network", "rm", RUN], capture_output=True, check=False)

    @staticmethod
    def _docker(*words: str) -> str:
        done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"docker {' '.join(words)}: {done.stderr}"
        return done.stdout

    def sh(self, name: str, script: str, text: str = "") -> str:
        """Run a script in a container; its output."""
        command = ["docker", "exec", "-i", f"{RUN}-{name}", "sh", "-c", script]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{name}: {script}: {done.stdout}{done.stderr}"
        return done.stdout

    def write(self, name: str, path: str, text: str) -> None:
        """Replace a file in one step, as the roles do."""
        self.sh(name, f"umask 022; cat >{path}.new && mv {path}.new {path}", text)

    def write_lines(self, name: str, path: str, lines: Iterable[str]) -> None:
        """Replace a passwd-file."""
        self.write(name, path, "".join(f"{line}\n" for line in lines))

    def write_users(self, name: str, users: Iterable[str]) -> None:
        """Users who may log in, all with one password."""
        listed = [{"name": user, "password": ssha512(PASSWORD, user)} for user in users]
        self.write_lines(name, "/etc/dovecot/nfsmail-users", passwd_lines(listed))

    def start(self, name: str, conf: str) -> None:
        """Start Dovecot, or have it read its configuration again."""
        self.write(
            name, "/etc/dovecot/dovecot.conf", conf.replace("\nprotocols", "\nlog_path = /tmp/log\nprotocols", 1)
        )
        reload = (
            "if [ -e /run/dovecot/master.pid ]; then doveadm reload; else dovecot >/tmp/started 2>&1 </dev/null; fi"
        )
        old = self._lmtp(name)
        self.sh(name, f"{reload} || {{ cat /tmp/started; exit 1; }}")
        # They may still answer, and go in the middle of it; a mail transfer agent would come again.
        wait_for(f"{name}: LMTP processes from before the reload", lambda: not old & self._lmtp(name))

    def _lmtp(self, name: str) -> set[str]:
        return set(self.sh(name, "grep -lsz '^dovecot/lmtp' /proc/[0-9]*/cmdline || true").split())

    def takes_mail(self, name: str, user: str) -> None:
        """Wait until a machine takes mail; during a reload it says 421 or 451, and a mail transfer agent comes again."""

        def answers() -> bool:
            try:
                with LmtpClient(self.addresses[name], 24) as lmtp:
                    return lmtp.try_recipient("a@lab.invalid", user).ok
            except MailflowError:
                return False

        wait_for(f"{name} takes no mail", answers)

    def files(self, count: int = 0) -> dict[str, str]:
        """Each mail file's user to the backend that has it; a user with mail on two is an error.

        ``count``: wait until as many files are there.
        """
        if count:
            wait_for(f"{count} messages are not there", lambda: sum(map(len, self._mail())) >= count)
        return self._placed()

    def _mail(self) -> list[list[str]]:
        look = "find /srv/mail -path '*/Maildir/*' -type f -name '[0-9]*'"
        return [self.sh(entry["name"], look).splitlines() for entry in self.backends]

    def _placed(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, lines in zip((entry["name"] for entry in self.backends), self._mail()):
            for line in lines:
                domain, local = line.split("/")[3:5]
                user = f"{local}@{domain}"
                assert found.setdefault(user, name) == name, f"{user} has mail on {found[user]} and on {name}"
        return found


def wait_for(what: str, holds: Callable[[], bool], seconds: float = 60) -> None:
    """Wait for a condition; say what did not come."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, what
        time.sleep(0.2)
