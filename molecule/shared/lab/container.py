# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Container images from Debian's packages only: tools/docker-image [--dovecot] SUITE...

With systemd as first process; with --dovecot a second image on top of it that has Debian's Dovecot and
the programs beside it, to ask that release itself.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .config import cache_dir
from .image import locked, mmdebstrap, run, scratch
from .progress import Progress, in_parallel, run_command

REPOSITORY = "nfsmail/debian-systemd"
DOVECOT_REPOSITORY = "nfsmail/dovecot"
DOVECOT_PACKAGES = [
    *("dovecot-core", "dovecot-imapd", "dovecot-lmtpd", "dovecot-ldap", "slapd", "ldap-utils", "postfix", "haproxy"),
    *("prometheus", "prometheus-node-exporter"),
]
# Debian 11 without them: its archive lists them, but does not always have them. Nor POP3, for that reason nowhere.
NEWER_PACKAGES = ["dovecot-sieve", "dovecot-managesieved", "dovecot-submissiond", "dovecot-sqlite", "sqlite3"]
MORE_PACKAGES = {"bookworm": [*NEWER_PACKAGES, "dovecot-fts-xapian"], "trixie": [*NEWER_PACKAGES, "dovecot-flatcurve"]}
LABEL = "nfsmail.key"
MAX_AGE_SECONDS = 24 * 3600  # the package lists in the image name files that vanish from mirrors

PACKAGES = ["systemd", "systemd-sysv", "dbus", "python3", "python3-apt", "ca-certificates", "iproute2", "procps"]
MASKED_UNITS = [
    *("getty.target", "console-getty.service", "systemd-udevd.service", "systemd-logind.service"),
    *("sys-kernel-debug.mount", "sys-kernel-tracing.mount", "dev-hugepages.mount", "sys-fs-fuse-connections.mount"),
    *("systemd-firstboot.service", "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer"),
]


def command(suite: str, target: Path) -> list[str]:
    hooks = [
        f'chroot "$1" systemctl --quiet mask {" ".join(MASKED_UNITS)}',
        # As in any container image: made anew in each container. But not a first boot, which enables all units.
        'rm -f "$1/etc/hostname" "$1/etc/resolv.conf"',
        'printf "%s\\n" 6e66736d61696c2e6465626961000000 >"$1/etc/machine-id"',
    ]
    options = [*(f"--customize-hook={hook}" for hook in hooks), "--skip=cleanup/apt/lists,cleanup/reproducible"]
    return mmdebstrap(suite, target, PACKAGES, *options)


def provide(suite: str) -> str:
    """Have the image in the Docker engine; say where it came from."""
    key = hashlib.sha256(json.dumps(command(suite, Path("/TARGET"))).encode()).hexdigest()[:12]
    folder = cache_dir() / "containers"
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"{suite}-{key}.tar"
    with locked(folder / f".{suite}.lock") as lock:
        fresh = archive.exists() and time.time() - archive.stat().st_mtime < MAX_AGE_SECONDS
        if fresh and _label(suite) == f"{key}-{archive.stat().st_mtime_ns}":
            return "ready"
        if not fresh:
            with scratch(folder, suite) as work:
                run(command(suite, work / "image.tar"), lock)
                for earlier in folder.glob(f"{suite}-*.tar"):
                    earlier.unlink()
                (work / "image.tar").rename(archive)
        changes = [
            'CMD ["/lib/systemd/systemd"]',
            "ENV container=docker",
            f"LABEL {LABEL}={key}-{archive.stat().st_mtime_ns}",
        ]
        run(["docker", "import", *(f"--change={change}" for change in changes), str(archive), f"{REPOSITORY}:{suite}"])
    return "from cache" if fresh else "built"


def provide_dovecot(suite: str) -> str:
    """Have the image with Dovecot; made anew when the one below it is."""
    below = provide(suite)
    packages = " ".join([*DOVECOT_PACKAGES, *MORE_PACKAGES.get(suite, ())])
    key = f"{_label(suite)}-{packages.replace(' ', '-')}"
    if _label(suite, DOVECOT_REPOSITORY) == key:
        return "ready"
    # Not a RUN step's start of services: nothing runs in this image but what a test asks for.
    recipe = (
        f"FROM {REPOSITORY}:{suite}\n"
        "RUN printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d"
        " && DEBIAN_FRONTEND=noninteractive apt-get -q install --yes --no-install-recommends"
        f" {packages}\n"
        f"LABEL {LABEL}={key}\n"
    )
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "Dockerfile").write_text(recipe, encoding="utf-8")
        run(["docker", "build", "--quiet", "--tag", f"{DOVECOT_REPOSITORY}:{suite}", folder])
    return f"built, below it {below}"


def _label(suite: str, repository: str = REPOSITORY) -> str:
    look = [
        "docker",
        "image",
        "inspect",
        "--format",
        f'{{{{index .Config.Labels "{LABEL}"}}}}',
        f"{repository}:{suite}",
    ]
    return subprocess.run(look, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout.strip()


def main() -> None:
    suites = [word for word in sys.argv[1:] if word != "--dovecot"]
    if not suites or any(word.startswith("-") for word in suites):
        sys.exit("usage: tools/docker-image [--dovecot] SUITE...   (bullseye, bookworm, trixie)")
    progress = Progress("container images")
    work = provide_dovecot if "--dovecot" in sys.argv[1:] else provide
    results = in_parallel(suites, work, lambda: progress.show(", ".join(suites)))
    progress.done(", ".join(f"{suite} {result}" for suite, result in results.items()))


if __name__ == "__main__":
    run_command(main)
