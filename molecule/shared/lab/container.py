# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Container images with systemd as first process, from Debian's packages only: tools/docker-image SUITE..."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

from .config import cache_dir
from .image import locked, mmdebstrap, run, scratch
from .progress import Progress, in_parallel, run_command

REPOSITORY = "nfsmail/debian-systemd"
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


def _label(suite: str) -> str:
    look = [
        "docker",
        "image",
        "inspect",
        "--format",
        f'{{{{index .Config.Labels "{LABEL}"}}}}',
        f"{REPOSITORY}:{suite}",
    ]
    return subprocess.run(look, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout.strip()


def main() -> None:
    suites = sys.argv[1:]
    if not suites:
        sys.exit("usage: tools/docker-image SUITE...   (bullseye, bookworm, trixie)")
    progress = Progress("container images")
    results = in_parallel(suites, provide, lambda: progress.show(", ".join(suites)))
    progress.done(", ".join(f"{suite} {result}" for suite, result in results.items()))


if __name__ == "__main__":
    run_command(main)
