# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""A backend of topology single in a container, with users, folders and mail."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import ansible
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dovecot_conf import backend_conf, mail_location
from conftest import FIRST_PROCESS, HERE, RELEASES
from plans import backend

LOCAL, OTHER = "/var/lib/nfsmail/index/{domain}/{name}", "/var/lib/nfsmail/other/{shard}/{user}"
USERS = ("anna@example.com", "bob.b@example.org", "dora")
OUR_HEAD = "# nfsmail.cluster.dovecot: the whole file is replaced.\n"
INDEXES = r"-name 'dovecot.index*' -o -name 'dovecot.list.index*' -o -name 'dovecot.map.index*' -o -name 'dovecot.mailbox.log*'"
# What Dovecot says when an index is not as it left it, among all else that is no good news. Doveadm of 2.3 tries to list the
# users even where it is given their names.
BAD_NEWS = re.compile(
    r"Error(?!.*Trying to iterate users)|Warning(?!: Killed with signal 15)|Panic|Fatal|rebuil|fsck|[Cc]orrupt|broken"
)

# Folders: nested, with a blank, not ASCII.
FILL = r"""
# 2.4 makes a mailbox of "Lists/", and mbox has mail or folders in a place, not both.
[ $FORMAT = mbox ] || doveadm mailbox create -u $1 -s Lists
for m in "Lists${SEP}With blank" "Lists${SEP}Überfluß" Old Gone; do doveadm mailbox create -u $1 -s "$m"; done
for m in INBOX "Lists${SEP}With blank" "Lists${SEP}Überfluß" Old; do
  for i in 1 2 3 4; do printf 'From: a@lab.invalid\nSubject: %s\n\nmessage %s\n' $i $i | doveadm save -u $1 -m "$m"; done
  doveadm fetch -u $1 modseq mailbox "$m" ALL >/dev/null
  doveadm flags add -u $1 '\Seen \Answered' mailbox "$m" 1:2
  doveadm flags add -u $1 "\Flagged \Draft $KEYWORDS" mailbox "$m" 4
  doveadm expunge -u $1 mailbox "$m" 3
done
doveadm flags remove -u $1 '\Answered' mailbox INBOX 2
doveadm mailbox rename -u $1 Old Older
doveadm mailbox delete -u $1 -s Gone
for u in $OTHERS; do printf 'Subject: hello\n\nhello\n' | doveadm save -u $u; doveadm flags add -u $u '\Seen mine' mailbox INBOX 1; done
"""
# Its output in a file, or docker would wait for its end.
START = "{ dovecot >/tmp/started 2>&1 </dev/null || { cat /tmp/started >&2; exit 1; }; }"
STATE = r"""
printf '%s\n' $USERS >/tmp/users
doveadm -f tab mailbox status -F /tmp/users 'messages uidnext uidvalidity highestmodseq guid' '*' | sort
doveadm -f tab fetch -F /tmp/users 'user mailbox uid guid flags modseq date.saved hdr.subject' mailbox '*' ALL | sort
doveadm mailbox list -F /tmp/users -s | sort
"""


class Single:
    """A backend of topology single, in a container."""

    def __init__(self, suite: str) -> None:
        self.version = RELEASES[suite]
        self.name = f"nfsmail-indexes-{suite}"
        self.format = ""
        # What is asked of features.
        self.cluster: dict[str, Any] = {}
        # What else differs, in the profile and among the role's variables.
        self.profile: dict[str, Any] = {}
        self.more: dict[str, Any] = {}
        library = Path(ansible.__file__).parent
        self.close()
        volumes = (
            f"--volume={HERE}:/tests:ro",
            f"--volume={library}:/library/ansible:ro",
            f"--volume={HERE.parents[1] / 'plugins'}:/library/ansible_collections/nfsmail/cluster/plugins:ro",
        )
        # In memory, where the many fsyncs cost nothing.
        memory = ("--tmpfs=/srv", "--tmpfs=/var/lib/nfsmail")
        start = ["run", "--detach", "--rm", "--network=none", f"--name={self.name}", *volumes, *memory]
        self._docker(*start, f"nfsmail/dovecot:{suite}", "python3", "-c", FIRST_PROCESS)

    def close(self) -> None:
        """Remove it, or what is left from a run that was killed."""
        self._docker("rm", "--force", self.name)

    @staticmethod
    def _docker(*words: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(["docker", *words], input=text, capture_output=True, text=True, check=False)

    def sh(self, script: str, text: str = "", **env: str) -> str:
        """Run a script; its output."""
        given = [f"--env={name}={value}" for name, value in env.items()]
        done = self._docker("exec", "-i", *given, self.name, "bash", "-c", script, text=text)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def plan(self, index: str) -> dict[str, Any]:
        """The role's variables, for indexes in a place of their own or (empty) with the mail."""
        profile = {
            "topology": "single",
            "mailbox_format": self.format,
            "index_location": "local" if index else "nfs",
            **self.profile,
        }
        more = {
            "proxies": [],
            "doveadm_password": "",
            "index_path": index or LOCAL,
            "cluster": self.cluster,
            **self.more,
        }
        return backend(self.version, profile, ssl="no", protocols=["imap", "lmtp"], **more)

    def configure(self, index: str, then: str = "true") -> None:
        """Replace the configuration in one step, as the role does; then run a command."""
        text = backend_conf(self.plan(index)).replace("\nprotocols", "\nlog_path = /tmp/log\nprotocols", 1)
        place = "umask 077; cat >/etc/dovecot/new && mv /etc/dovecot/new /etc/dovecot/dovecot.conf"
        self.sh(f"{place} && {then}", OUR_HEAD + text)

    def module(
        self,
        action: str,
        index: str,
        check: bool = False,
        die: tuple[str, int] | None = None,
        first: str = "true",
        **more: Any,
    ) -> dict[str, Any]:
        """Run the module after a command; its result, empty when it was killed."""
        args = {"action": action, "location": mail_location(self.plan(index)), "uid": 5000, "gid": 5001, **more}
        return self.run("index_move", args, check, die, first)

    def run(
        self,
        name: str,
        args: dict[str, Any],
        check: bool = False,
        die: tuple[str, int] | None = None,
        first: str = "true",
    ) -> dict[str, Any]:
        """Run any module of the collection."""
        job = json.dumps({"name": name, "args": args, "check": check, "die": die})
        script = f"{first}; PYTHONPATH=/library exec python3 /tests/run_module.py"
        done = self._docker("exec", "-i", self.name, "bash", "-c", script, text=job)
        assert done.stdout or die, done.stderr
        return dict(json.loads(done.stdout)) if done.stdout else {}

    def move(self, index: str) -> dict[str, Any]:
        """What the role does when there is something to move: the answer of the copying."""
        seen = self.module("look", index)
        assert (seen.get("next"), seen["changed"]) == ("copy", False), seen
        copied = self.module("copy", index, first="doveadm stop")
        assert copied.get("changed"), copied
        self.configure(index, START)
        finished = self.module("finish", index)
        assert finished.get("changed") and finished["left"] == [], finished
        return copied

    def empty(self, format: str, index: str = "") -> None:
        """Users without mail; nobody else."""
        self.format = format
        self.sh(
            "doveadm stop 2>/dev/null; rm -rf /srv/mail /var/lib/nfsmail/* /tmp/log /var/lib/dovecot/nfsmail*; "
            "install -d -o 5000 -g 5001 /srv/mail /var/lib/nfsmail/{,index,other}; cat >/etc/dovecot/nfsmail-users",
            "".join(f"{user}:{{PLAIN}}x::::::\n" for user in USERS),
        )
        self.configure(index, START)

    def imap(self, user: str, *commands: str) -> list[str]:
        """What a session of a user answers, without the greeting and how long it took; one command after the other."""
        words = ["docker", "exec", "-i", self.name, "/usr/lib/dovecot/imap", "-u", user]
        pipe: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        lines: list[str] = []
        with subprocess.Popen(words, text=True, **pipe) as session:
            assert session.stdin and session.stdout
            for number, command in enumerate(commands, 1):
                session.stdin.write(f"{number} {command}\r\n")
                session.stdin.flush()
                for line in session.stdout:
                    lines.append(re.sub(r" \([\d.]+ [^()]*secs\)\.?$", "", line.strip()))
                    if line.startswith(f"{number} "):
                        break
        return lines[1:]

    def fresh(self, format: str) -> None:
        """Users with mail and folders, their indexes with the mail; nobody else."""
        self.empty(format)
        keywords = " ".join(f"keyword{number}" for number in range(30))
        separator = "." if format == "maildir" else "/"
        words = {"SEP": separator, "KEYWORDS": keywords, "OTHERS": " ".join(USERS[1:])}
        self.sh(f"set -e; set {USERS[0]}; {FILL}", FORMAT=format, **words)

    def state(self) -> str:
        """All that Dovecot knows of the mail, and nothing that it had to complain of."""
        said, _, log = self.sh(f"set -e; {STATE}\necho LOG; cat /tmp/log", USERS=" ".join(USERS)).partition("LOG\n")
        assert not BAD_NEWS.search(log), log
        return said

    def files(self, index: str) -> tuple[str, list[str]]:
        """All files that are no indexes, with their sums; all index files in a place."""
        root = index.partition("/{")[0] or "/srv/mail"
        mail = f"find /srv/mail -type f ! \\( {INDEXES} \\) -exec md5sum {{}} + | sort -k 2"
        said = self.sh(f"{mail}; echo INDEXES; find {root} -type f \\( {INDEXES} \\)").partition("INDEXES\n")
        return said[0], said[2].splitlines()
