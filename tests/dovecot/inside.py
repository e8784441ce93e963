# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs within a container: the same command for many configurations, answers as JSON. Python 3.9 on Debian 11."""

import concurrent.futures
import json
import pathlib
import subprocess
import sys
import tempfile


def ask(text, command):
    """What a command says of one configuration; FILE stands for its path."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "dovecot.conf"
        path.write_text(text, encoding="utf-8")
        words = [str(path) if word == "FILE" else word for word in command]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr.replace(str(path), "FILE")


def main():
    """Read {command, texts} and answer a list of [exit code, output, errors]."""
    job = json.load(sys.stdin)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        json.dump(list(pool.map(lambda text: ask(text, job["command"]), job["texts"])), sys.stdout)


main()
