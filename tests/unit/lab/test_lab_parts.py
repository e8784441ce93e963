# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The parts of the lab that need no virtual machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parents[3] / "molecule" / "shared"))

from lab import image, qemu, settings, ssh
from lab.config import DEFINITION, Image, LabError, load
from lab.cpio import Archive
from lab.progress import in_parallel

KEYS = ssh.Keys(user_public="user\n", host_private="private\n", host_public="public\n")


def unpack(data: bytes) -> dict[str, tuple[int, bytes]]:
    """Read a newc archive by its format's description: 13 fields of 8 hex digits, names and data padded to 4."""
    found, at = {}, 0
    while True:
        assert data[at : at + 6] == b"070701"
        fields = [int(data[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = data[at + 110 : at + 110 + name_size - 1].decode()
        at = (at + 110 + name_size + 3) // 4 * 4
        if name == "TRAILER!!!":
            return found
        found[name] = (mode, data[at : at + size])
        at = (at + size + 3) // 4 * 4


def test_archive_keeps_content_and_modes_and_makes_parents_first() -> None:
    archive = Archive()
    archive.file("/a/b/odd", b"123", mode=0o600)
    archive.folder("/a/c", mode=0o700)
    packed = archive.pack()
    files = unpack(packed)
    assert len(packed) % 4 == 0  # or a second archive could not follow
    assert files["a/b/odd"] == (0o100600, b"123")
    assert files["a/c"] == (0o040700, b"")
    assert list(files).index("a") < list(files).index("a/b") < list(files).index("a/b/odd")


def test_definition_is_valid_and_addresses_are_unique() -> None:
    lab = load()
    addresses = [machine.address for machine in lab.machines.values()]
    macs = [machine.mac(nic) for machine in lab.machines.values() for nic in (0, 1)]
    assert len(set(addresses)) == len(addresses) and len(set(macs)) == len(macs)
    assert all(machine.forwards[0] == 22 for machine in lab.machines.values())


@pytest.mark.parametrize("name", ["nfs9", "images"])
def test_unknown_machine_is_named(name: str) -> None:
    with pytest.raises(LabError, match=f"no such machine: {name}"):
        load().pick([name])


def test_undefined_image_is_named(tmp_path: Path) -> None:
    definition: dict[str, Any] = yaml.safe_load(DEFINITION.read_text())
    definition["machines"]["nfs1"]["image"] = "nothing"
    path = tmp_path / "lab.yml"
    path.write_text(yaml.safe_dump(definition))
    with pytest.raises(LabError, match="nfs1 uses an image that is not defined: nothing"):
        load(path)


def test_a_machines_own_name_is_its_lan_address() -> None:
    lab = load()
    files = unpack(settings.settings(lab, lab.machines["mail1"], KEYS).pack())
    hosts = files["settings/etc/hosts"][1].decode()
    assert "10.77.0.11 mail1\n" in hosts and "127.0.1.1" not in hosts
    assert files["settings/etc/ssh/ssh_host_ed25519_key"] == (0o100600, b"private\n")
    assert files["settings/root/.ssh"][0] == 0o040700


def test_settings_differ_between_machines_and_not_between_calls() -> None:
    lab = load()
    packed = {name: settings.settings(lab, machine, KEYS).pack() for name, machine in lab.machines.items()}
    again = {name: settings.settings(lab, machine, KEYS).pack() for name, machine in lab.machines.items()}
    assert packed == again and len(set(packed.values())) == len(packed)


def test_image_key_follows_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    mail = load().machines["mail1"].image
    before = image.image_folder(mail)
    assert image.image_folder(mail) == before
    assert image.image_folder(type(mail)(mail.name, mail.suite, mail.size, [*mail.packages, "tcpdump"])) != before
    monkeypatch.setenv("HOME", "/nowhere")  # the place of the cache is no part of the key
    assert image.image_folder(mail).name == before.name


def test_only_debian_11_does_without_some_security_updates() -> None:
    """A pin in another release's image would hide updates that are there."""
    images = yaml.safe_load(DEFINITION.read_text())["images"]
    pinned = {name for name, spec in images.items() if "Pin-Priority" in " ".join(_built_by(name, spec))}
    assert pinned == {"bullseye-nfs", "bullseye-mail"}


def _built_by(name: str, spec: dict[str, Any]) -> list[str]:
    return image._command(Image(name, **spec), Path("/TARGET"))


def test_modules_come_after_what_they_need(tmp_path: Path) -> None:
    (tmp_path / "modules.dep").write_text(
        "k/virtio-blk.ko: k/virtio.ko k/ring.ko\nk/virtio.ko: k/ring.ko\nk/ring.ko:\nk/net.ko.xz: k/virtio.ko k/ring.ko\n"
    )
    order = [path.name for path in image._with_dependencies(tmp_path, ["virtio_blk", "ext4", "net"])]
    assert order == ["ring.ko", "virtio.ko", "virtio-blk.ko", "net.ko.xz"]


def test_forwarded_ports_are_read_from_qemu() -> None:
    class Monitor:
        def human(self, line: str) -> str:
            assert line == "info usernet"
            return (
                "Hub -1 (wan):\r\n"
                "  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n"
                "  TCP[ESTABLISHED]   20  127.0.0.1 43811       10.0.2.15    22     0     0\r\n"
                "  TCP[HOST_FORWARD]  16  127.0.0.1 43811       10.0.2.15    22     0     0\r\n"
                "  TCP[HOST_FORWARD]  17  127.0.0.1 45427       10.0.2.15   143     0     0\r\n"
            )

    assert qemu.forwarded_ports(Monitor()) == {22: 43811, 143: 45427}  # type: ignore[arg-type]


def test_a_lock_outlives_its_process_while_its_tool_runs(tmp_path: Path) -> None:
    """A build that was killed leaves its tool running; the next build must wait for that, not remove its folder."""
    lock = tmp_path / "lock"
    script = f"from pathlib import Path; from lab import image\nwith image.locked(Path({str(lock)!r})) as fd: image.run(['sleep', '2'], fd)"
    shared = str(Path(__file__).parents[3] / "molecule" / "shared")
    with subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": shared}) as process:
        deadline = time.monotonic() + 20
        while subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, check=False).returncode:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        start = time.monotonic()
        process.kill()
    with image.locked(lock):
        assert time.monotonic() - start > 1


def test_all_work_is_done_before_an_error_is_raised() -> None:
    done = []

    def work(name: str) -> None:
        if name == "bad":
            raise LabError("bad")
        time.sleep(0.1)
        done.append(name)

    with pytest.raises(LabError, match="bad"):
        in_parallel(["bad", "good"], work, poll=0.01)
    assert done == ["good"]
