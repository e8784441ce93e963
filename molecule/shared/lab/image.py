# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build the disk image of a Debian suite and keep it in the cache, keyed by its definition."""

from __future__ import annotations

import fcntl
import hashlib
import json
import lzma
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .config import Disk, Image, LabError, cache_dir
from .cpio import Archive

UNUSED_SECONDS = 7 * 24 * 3600

HERE = Path(__file__).resolve().parent
MIRROR = os.environ.get("NFSMAIL_DEBIAN_MIRROR", "http://deb.debian.org")

# The security archive of Debian 11 lists a kernel and a dovecot-pop3d whose packages are gone: take what is in the release.
PINS = {"bullseye": r"Package: linux-* dovecot-*\nPin: release l=Debian-Security\nPin-Priority: -1\n"}

BASE_PACKAGES = [
    *("linux-image-cloud-amd64", "systemd-sysv", "udev", "dbus", "kmod", "busybox-static"),
    *("openssh-server", "python3", "python3-apt", "ca-certificates"),
    *("iproute2", "iputils-ping", "nftables", "procps", "e2fsprogs", "less"),
]

# Nothing that a scenario looks at, and seconds each under emulation.
MASKED_UNITS = [
    *(
        "apt-daily.timer",
        "apt-daily-upgrade.timer",
        "dpkg-db-backup.timer",
        "e2scrub_all.timer",
        "e2scrub_reap.service",
    ),
    *("fstrim.timer", "man-db.timer", "systemd-pstore.service", "serial-getty@ttyS0.service", "getty@tty1.service"),
    *("systemd-logind.service", "dev-hugepages.mount", "sys-kernel-debug.mount", "sys-kernel-tracing.mount"),
    *("modprobe@configfs.service", "modprobe@drm.service", "modprobe@efi_pstore.service", "modprobe@fuse.service"),
    *("sys-kernel-config.mount", "sys-fs-fuse-connections.mount", "keyboard-setup.service", "console-setup.service"),
    *(
        "modprobe@dm_mod.service",
        "modprobe@loop.service",
        "systemd-binfmt.service",
        "proc-sys-fs-binfmt_misc.automount",
    ),
    *("systemd-network-generator.service", "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service"),
    *("ldconfig.service", "systemd-hwdb-update.service", "systemd-journal-catalog-update.service"),
]

# Loaded before systemd starts: the root disk needs the first, and nothing has to wait for udev to find the others.
BOOT_MODULES = ["virtio_pci", "virtio_blk", "ext4", "virtio_net", "virtio_rng"]


@dataclass(frozen=True)
class BuiltImage:
    disk: Path
    kernel: Path
    initrd: Path

    @classmethod
    def at(cls, folder: Path) -> BuiltImage:
        return cls(disk=folder / "disk.qcow2", kernel=folder / "vmlinuz", initrd=folder / "initrd")


def image_folder(image: Image) -> Path:
    """Everything that decides what is in the image is in its name."""
    digest = hashlib.sha256()
    digest.update(json.dumps([_command(image, Path("/TARGET")), image.size, BOOT_MODULES]).encode())
    for path in sorted([HERE / "init.sh", *(HERE / "rootfs").rglob("*")]):
        if path.is_file():
            digest.update(str(path.relative_to(HERE)).encode() + path.read_bytes())
    return cache_dir() / "images" / f"{image.name}-{digest.hexdigest()[:12]}"


def find(image: Image) -> BuiltImage | None:
    folder = image_folder(image)
    if not folder.is_dir():
        return None
    os.utime(folder)
    return BuiltImage.at(folder)


def build(image: Image, stage: Callable[[str], None]) -> BuiltImage:
    """Build unless another process has done so meanwhile. `stage` is told what is going on."""
    folder = image_folder(image)
    folder.parent.mkdir(parents=True, exist_ok=True)
    stage("waiting for another build")
    with locked(folder.parent / f".{image.name}.lock") as lock:
        if ready := find(image):
            return ready
        with scratch(folder.parent, image.name) as work:
            root = work / "root"
            out = work / "image"
            out.mkdir()
            stage("1/3 packages")
            _install(image, root, lock)
            stage("2/3 boot files")
            _boot_files(root, out)
            stage("3/3 disk")
            _disk(root, out / "disk.qcow2", image.size, work)
            out.rename(folder)  # complete or not there at all
        _forget_unused(image)
    return BuiltImage.at(folder)


def _forget_unused(image: Image) -> None:
    """Earlier versions of this image that no lab was started from for a while."""
    for folder in (cache_dir() / "images").glob(f"{image.name}-*"):
        if time.time() - folder.stat().st_mtime > UNUSED_SECONDS:
            shutil.rmtree(folder)


def data_disk(disk: Disk) -> Path:
    """An empty, labelled file system; each machine works on an overlay of it."""
    path = cache_dir() / "disks" / f"{disk.label}-{disk.size}.qcow2"
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent / ".lock"), scratch(path.parent, path.stem) as work:
        raw = work / "raw"
        run(["truncate", "-s", disk.size, str(raw)])
        run([_tool("mke2fs"), "-q", "-t", "ext4", "-L", disk.label, "-E", "lazy_itable_init=0", str(raw)])
        run(["qemu-img", "convert", "-O", "qcow2", str(raw), str(work / "qcow2")])
        (work / "qcow2").rename(path)
    return path


def run(command: list[str], hold: int | None = None, **environment: str) -> None:
    """Run a tool; show what it said only when it fails. It holds a lock too, in case it survives this process."""
    result = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
        pass_fds=[] if hold is None else [hold],
    )
    if result.returncode:
        tail = "\n".join(result.stdout.splitlines()[-30:])
        raise LabError(f"{command[0]} failed with exit code {result.returncode}:\n{tail}")


def _tool(name: str) -> str:
    """File system tools are outside an ordinary user's PATH."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if not found:
        raise LabError(f"{name} is not installed: run tools/setup lab")
    return found


@contextmanager
def locked(path: Path) -> Iterator[int]:
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle.fileno()


@contextmanager
def scratch(parent: Path, name: str) -> Iterator[Path]:
    """A work folder on the same file system as the cache, removed whatever happens; hold the lock of `name`."""
    for left in parent.glob(f".building-{name}-*"):  # by one that was killed
        _remove(left)
    work = Path(tempfile.mkdtemp(prefix=f".building-{name}-", dir=parent))
    try:
        yield work
    finally:
        _remove(work)


def _remove(folder: Path) -> None:
    run([*_as_root(), "rm", "-rf", "--one-file-system", str(folder)])


def _as_root() -> list[str]:
    """Prefix for commands that need to own files as root: mmdebstrap brings a user namespace for that."""
    return [] if os.geteuid() == 0 else [_tool("mmdebstrap"), "--unshare-helper"]


def mmdebstrap(suite: str, target: Path, packages: list[str], *options: str) -> list[str]:
    """A small Debian system with the given packages, without documentation and translations."""
    return [
        *("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(packages)}"),
        *(f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "man", "locale", "info")),
        *("--dpkgopt=force-unsafe-io", "--dpkgopt=force-confold", *options, suite, str(target)),
        f"deb {MIRROR}/debian {suite} main",
        f"deb {MIRROR}/debian {suite}-updates main",
        f"deb {MIRROR}/debian-security {suite}-security main",
    ]


def _command(image: Image, target: Path) -> list[str]:
    chroot = 'chroot "$1"'
    hooks = [
        'cp -r "$NFSMAIL_ROOTFS"/. "$1"',
        f"{chroot} systemctl --quiet enable nfsmail-lab-ready.service systemd-networkd.service",
        f"{chroot} systemctl --quiet mask {' '.join(MASKED_UNITS)}",
        # Not the lab's hardware or programs; compiling their profiles takes seconds.
        'cd "$1/etc/apparmor.d" && for profile in lsb_release nvidia_modprobe; do [ ! -e $profile ] || ln -s ../$profile disable/; done',
        # The host key comes with each machine's settings; these would be the same everywhere.
        'rm -f "$1"/etc/ssh/ssh_host_*_key* "$1"/etc/resolv.conf "$1"/etc/hostname',
        # Without these systemd takes the first boot for an upgrade and rebuilds its databases.
        'touch "$1"/etc/.updated "$1"/var/.updated',
    ]
    no_initramfs = (
        'mkdir -p "$1/etc/initramfs-tools"; echo update_initramfs=no >"$1/etc/initramfs-tools/update-initramfs.conf"'
    )
    pin = PINS.get(image.suite)
    pinned = [f"--setup-hook=printf '{pin}' >\"$1/etc/apt/preferences.d/lab\""] if pin else []
    options = [*pinned, f"--essential-hook={no_initramfs}", *(f"--customize-hook={hook}" for hook in hooks)]
    return mmdebstrap(image.suite, target, [*BASE_PACKAGES, *image.packages], *options)


def _install(image: Image, root: Path, lock: int) -> None:
    # The path is kept out of the command line: that is part of the cache key, and checkouts share the cache.
    rootfs = str(HERE / "rootfs")
    if os.geteuid() == 0:
        run(_command(image, root), lock, NFSMAIL_ROOTFS=rootfs)
        return
    archive = root.with_suffix(".tar")
    run(_command(image, archive), lock, NFSMAIL_ROOTFS=rootfs)
    root.mkdir()
    root.chmod(0o777)
    run([*_as_root(), "tar", "-C", str(root), "-xf", str(archive)])


def _boot_files(root: Path, out: Path) -> None:
    kernels = sorted((root / "boot").glob("vmlinuz-*"))
    if len(kernels) != 1:
        raise LabError(f"expected one kernel in the image, found {len(kernels)}")
    shutil.copyfile(kernels[0], out / "vmlinuz")
    release = kernels[0].name.removeprefix("vmlinuz-")
    modules = root / "lib" / "modules" / release  # Debian 11 may have no /usr/lib/modules
    archive = Archive()
    archive.file("/init", (HERE / "init.sh").read_bytes(), mode=0o755)
    archive.file("/bin/busybox", (root / "bin" / "busybox").read_bytes(), mode=0o755)
    order: list[str] = []
    for path in _with_dependencies(modules, BOOT_MODULES):
        name = path.name.removesuffix(".xz")
        content = path.read_bytes()
        archive.file(f"/modules/{name}", lzma.decompress(content) if path.suffix == ".xz" else content)
        order.append(name)
    archive.file("/modules/order", "".join(f"{name}\n" for name in order))
    (out / "initrd").write_bytes(archive.pack())


def _with_dependencies(modules: Path, wanted: list[str]) -> list[Path]:
    """Module files in loading order; what is built into the kernel is not among them."""
    needs: dict[str, list[str]] = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
    order: list[str] = []
    for name in wanted:
        for path, before in needs.items():
            if Path(path).name.split(".ko")[0].replace("-", "_") == name:
                # modules.dep lists the nearest dependency first
                order += [item for item in [*reversed(before), path] if item not in order]
    return [modules / path for path in order]


def _disk(root: Path, target: Path, size: str, work: Path) -> None:
    raw = work / "raw"
    run([
        *_as_root(),
        *("sh", "-c", 'truncate -s "$3" "$2" && "$4" -q -t ext4 -L root -E lazy_itable_init=0 -d "$1" "$2" && chmod 644 "$2"'),
        *("sh", str(root), str(raw), size, _tool("mke2fs")),
    ])  # fmt: skip
    run(["qemu-img", "convert", "-O", "qcow2", str(raw), str(target)])
