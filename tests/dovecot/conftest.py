# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dovecot 2.3.13, 2.3.19 and 2.4.1 as Debian 11, 12 and 13 have them, in containers, to be asked what they think."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.profile import series_of

if TYPE_CHECKING:
    from single import Single

HERE = Path(__file__).resolve().parent
RELEASES = {"bullseye": "2.3.13", "bookworm": "2.3.19", "trixie": "2.4.1"}
# What a configuration may name; Dovecot reads certificates, keys and user files when it reads the configuration.
FILES = "/etc/dovecot/cert.pem /etc/dovecot/key.pem"
# The first process reaps the others: Dovecot, stopped, would seem to go on as a zombie.
FIRST_PROCESS = "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\nwhile True: signal.pause()"


@dataclass(frozen=True)
class Answer:
    """What a command said of one configuration."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Release:
    """One Dovecot in its container."""

    version: str
    container: str

    @property
    def series(self) -> str:
        """``2.3`` or ``2.4``."""
        return series_of(self.version)

    def run(self, *command: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command in the container."""
        words = ["docker", "exec", "-i", self.container, *command]
        return subprocess.run(words, input=text, capture_output=True, text=True, check=False)

    def ask(self, texts: Sequence[str], *command: str) -> list[Answer]:
        """One answer for each configuration; by default what ``doveconf -n`` says of it."""
        job = {"command": command or ("doveconf", "-c", "FILE", "-n"), "texts": list(texts)}
        done = self.run("python3", "/tests/inside.py", text=json.dumps(job))
        assert done.returncode == 0, done.stderr
        return [Answer(*answer) for answer in json.loads(done.stdout)]

    def start(self, text: str) -> str:
        """Start Dovecot in a folder of its own; the path of its configuration. It ends with the container."""
        folder = self.run("mktemp", "--directory").stdout.strip()
        path = f"{folder}/dovecot.conf"
        # In front of everything but the version lines.
        lines = text.splitlines(keepends=True)
        head = sum(line.startswith(("#", "dovecot_")) for line in lines[:3])
        ours = [f"base_dir = {folder}/run\n", f"log_path = {folder}/log\n"]
        self.run("sh", "-c", f"chmod 755 {folder}; cat >{path}", text="".join([*lines[:head], *ours, *lines[head:]]))
        # Its output in a file: docker waits for the end of everything that holds its own.
        started = self.run(
            "sh", "-c", f"dovecot -c {path} >{folder}/started 2>&1 </dev/null || cat {folder}/started >&2"
        )
        assert started.stderr == "", started.stderr
        return path

    @contextlib.contextmanager
    def running(self, text: str) -> Iterator[str]:
        """Dovecot for as long as it is used: the next test of the same container wants its ports."""
        path = self.start(text)
        try:
            yield path
        finally:
            folder = path.rpartition("/")[0]
            stop = f"pid=$(cat {folder}/run/master.pid); kill $pid; timeout 30 tail --pid=$pid -f /dev/null"
            stopped = self.run("sh", "-c", stop)
            assert stopped.returncode == 0, f"Dovecot does not stop: {stopped}"


@contextlib.contextmanager
def container(suite: str, *options: str) -> Iterator[Release]:
    """A container of a release, as long as it is used."""
    image = f"nfsmail/dovecot:{suite}"
    run = ["docker", "run", "--detach", "--rm", f"--volume={HERE}:/tests:ro", *options, image]
    started = subprocess.run([*run, "python3", "-c", FIRST_PROCESS], capture_output=True, text=True, check=False)
    if started.returncode:
        pytest.fail(f"{image} does not start; make dovecot builds it and runs these tests.\n{started.stderr}")
    name = started.stdout.strip()
    try:
        found = Release(RELEASES[suite], name)
        said = found.run("dovecot", "--version").stdout
        assert said.startswith(found.version), said
        for path in FILES.split():
            found.run("sh", "-c", f"echo made up >{path}")
        yield found
    finally:
        subprocess.run(["docker", "rm", "--force", name], capture_output=True, check=False)


@pytest.fixture(scope="session", params=RELEASES, ids=lambda suite: RELEASES[suite])
def release(request: pytest.FixtureRequest) -> Iterator[Release]:
    """Each release in turn."""
    with container(request.param, "--network=none") as found:
        yield found


@pytest.fixture(scope="module", params=RELEASES, ids=lambda suite: RELEASES[suite])
def single(request: pytest.FixtureRequest) -> Iterator[Single]:
    """A backend of topology single, of each release in turn."""
    from single import Single  # it takes names from here

    found = Single(request.param)
    try:
        yield found
    finally:
        found.close()
