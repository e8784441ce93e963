# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make bench`: the NFS calls of an IMAP session and of a delivery in every cell of the matrix, on the lab.

A machine of the lab is configured for one cell after the other with what the brain plans, measured by module `rpc_bill`, and
the next. Calls are counted, so the figures do not depend on the emulated machines' speed. Written: docs/performance.json.
Arguments choose cells by a part of their name; NFSMAIL_BENCH_RUNS (5) says how often each is measured.
Every single count is in .work/bench.json; cells that were measured before stay in both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from proofs import BIN, LAB, ROOT, environment, hosts, on, playbook, variables, wait_until

sys.path.insert(0, str(ROOT / ".ansible" / "collections"))

from ansible_collections.nfsmail.cluster.plugins.plugin_utils import bench
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dovecot_conf import backend_conf
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.matrix import mount_options

MACHINE, OTHER, SERVER = "mail1", "mail2", "nfs1"
STORE = "/srv/mail"
LOCAL_STORE = "/var/lib/nfsmail/bench"
CONF = "/etc/dovecot/dovecot.conf"
USER = "user01@example.com"
RUNS = int(os.environ.get("NFSMAIL_BENCH_RUNS", "5"))
RESULTS = ROOT / "docs" / "performance.json"
RAW = ROOT / ".work" / "bench.json"
# How long the client believes attributes: "ours" is what the matrix says.
CACHES = ("ours", "actimeo=0", "noac", "actimeo=3", "actimeo=60")
AC = ("actimeo", "noac", "acregmin", "acregmax", "acdirmin", "acdirmax", "lookupcache")
FOUR_YES = (
    "mmap_disable = yes\ndotlock_use_excl = yes\nmail_fsync = always\nmail_nfs_storage = yes\nmail_nfs_index = yes\n"
)
PEERS = {
    "four yes settings": (
        FOUR_YES,
        "vers=3,proto=tcp,hard",
    ),
    "four yes settings, noac": (
        FOUR_YES,
        "vers=3,proto=tcp,hard,noac",
    ),
    "Dovecot's and the kernel's defaults": (
        "mmap_disable = no\nmail_fsync = optimized\nmail_nfs_storage = no\nmail_nfs_index = no\n",
        "vers=3,proto=tcp,hard",
    ),
}


@dataclass(frozen=True)
class Cell:
    """One configuration: what the brain is asked, what replaces its answer, and a delay of the network."""

    name: str
    profile: dict[str, Any] = field(default_factory=dict)
    cache: str = "ours"
    settings: str = ""
    mount: str = ""
    local: bool = False
    delay_ms: float = 0.0


def cells() -> Iterator[Cell]:
    """All of them."""
    for topology, box, index in (
        ("per_user", "maildir", "nfs"),
        ("per_user", "maildir", "local"),
        ("per_user", "mdbox", "nfs"),
        ("random", "maildir", "nfs"),
        ("random", "maildir", "local"),
    ):
        for version in ("3", "4.2"):
            profile = {"topology": topology, "mailbox_format": box, "index_location": index, "nfs_version": version}
            for cache in CACHES:
                # The same as ours.
                if cache == ("actimeo=0" if topology == "random" else "actimeo=60"):
                    continue
                name = f"{topology}, {box}, indexes {index}, NFSv{version}"
                yield Cell(f"{name}, {cache}", profile, cache)
    for box in ("maildir", "mdbox"):
        yield Cell(f"local disk, {box}", {"topology": "single", "mailbox_format": box}, local=True)
    profile = {"topology": "random", "nfs_version": "3"}
    for name, (settings, mount) in PEERS.items():
        yield Cell(f"others: {name}", profile, settings=settings, mount=mount)
    for topology, index in (("per_user", "nfs"), ("per_user", "local"), ("random", "nfs")):
        for delay in (0.2, 1.0, 2.0):
            profile = {"topology": topology, "index_location": index, "nfs_version": "3"}
            yield Cell(f"delay {delay:g} ms: {topology}, indexes {index}", profile, delay_ms=delay)


def plan(cell: Cell) -> dict[str, Any]:
    """A backend that nobody stands in front of, with the lab's users."""
    store = LOCAL_STORE if cell.local else STORE
    return {
        "profile": {"dovecot_version": on(MACHINE, "dovecot --version").split()[0], **cell.profile},
        "protocols": ["imap", "lmtp"],
        "listen": ["*"],
        "store": store,
        "mail_home": f"{store}/{{domain}}/{{name}}",
        "index_path": "/var/lib/nfsmail/index/{domain}/{name}",
        "mail_uid": 5000,
        "mail_gid": 5000,
        "ssl": "no",
        "proxies": [],
        "balancers": [],
        "proxy_password": "",
        "doveadm_password": "",
        "doveadm_port": 24245,
        "lmtp_port": 24,
        "users_file": "/etc/dovecot/nfsmail-users",
        "extra_settings": {},
    }


def mount_of(cell: Cell) -> str:
    """The options for mount(8)."""
    if cell.mount:
        return cell.mount
    ours = [one for one in mount_options(cell.profile) if one not in ("_netdev", "nofail", "bg")]
    if cell.cache != CACHES[0]:
        ours = [one for one in ours if one.partition("=")[0] not in AC] + [cell.cache]
    return ",".join(ours)


def configure(cell: Cell) -> None:
    """Stop, empty, mount, write, start."""
    text = backend_conf(plan(cell)) + cell.settings
    address = hosts()[SERVER]["nfsmail_address"]
    lan = on(SERVER, f"ip -o -4 addr show to {address} | cut -d' ' -f2").strip()
    on(
        SERVER,
        f"tc qdisc del dev {lan} root 2>/dev/null; find {STORE} -mindepth 1 -maxdepth 1 -type d ! -name lost+found -exec rm -rf {{}} +",
    )
    on(
        MACHINE,
        f"systemctl stop dovecot; rm -rf /var/lib/nfsmail/index/* {LOCAL_STORE}; "
        f"install -d -o 5000 -g 5000 {LOCAL_STORE} /var/lib/nfsmail/index; while umount {STORE} 2>/dev/null; do :; done; "
        f"mount -t nfs -o {mount_of(cell)} {address}:{STORE} {STORE} && umask 077 && cat >{CONF} <<'EOF'\n{text}EOF\n"
        "systemctl start dovecot",
    )
    wait_until("LMTP answers", MACHINE, "ss -Hltn 'sport = :24' | grep -q .")
    if cell.delay_ms:
        on(SERVER, f"modprobe sch_netem && tc qdisc add dev {lan} root netem delay {cell.delay_ms}ms")


def measure(cell: Cell) -> dict[str, Any]:
    """What the module answers."""
    words = {"user": USER, "store": LOCAL_STORE if cell.local else STORE, "runs": RUNS}
    if cell.delay_ms:
        words["caches"] = ["warm"]
    command = [str(BIN / "ansible"), "--one-line", f"--inventory={LAB / 'inventory.yml'}", MACHINE]
    command += ["--module-name=nfsmail.cluster.rpc_bill", f"--args={json.dumps(words)}"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), text=True, check=False, capture_output=True)
    _, _, answer = done.stdout.partition("=> ")
    if done.returncode or not answer:
        raise AssertionError(f"{cell.name}: {done.stdout}{done.stderr}")
    return dict(json.loads(answer))


def isolated() -> str:
    """Two machines do not share a cache: what one has just changed, the other does not see while it believes its own."""
    path, look = f"{STORE}/.bench", f"stat -c %s {STORE}/.bench"
    options = "vers=3,proto=tcp,hard,actimeo=60"
    for machine in (MACHINE, OTHER):
        on(
            machine,
            f"systemctl stop dovecot; umount {STORE}; mount -t nfs -o {options} {hosts()[SERVER]['nfsmail_address']}:{STORE} {STORE}",
        )
    on(MACHINE, f"runuser -u vmail -- sh -c 'echo 1 >{path}'")
    before = on(OTHER, look).strip()
    on(MACHINE, f"runuser -u vmail -- sh -c 'echo 22 >{path}'")
    seen = on(OTHER, look).strip(), on(MACHINE, look).strip(), on(SERVER, look).strip()
    on(MACHINE, f"rm {path}")
    assert (before, *seen) == ("2", "2", "3", "3"), (before, seen)
    return f"{OTHER} still sees 2 bytes where {MACHINE} and the server have 3"


def main(wanted: Sequence[str]) -> None:
    """Measure, one cell after the other, and keep what was measured so far."""
    chosen = [cell for cell in cells() if not wanted or any(word in cell.name for word in wanted)]
    # A run that is ended early has what matters most.
    chosen.sort(key=lambda cell: (cell.cache != "ours", cell.profile.get("nfs_version") == "4.2"))
    done = playbook("site", "per_user", "-e", json.dumps({"nfs_server_versions": ["3", "4.2"]}))
    assert done.returncode == 0, done.stdout
    assert USER in {user["name"] for user in variables("per_user")["nfsmail_users"]}
    # A backend of the cluster has no users file.
    users = on("proxy1", "cat /etc/dovecot/nfsmail-users")
    on(
        MACHINE,
        f"cat >/etc/dovecot/nfsmail-users <<'EOF'\n{users}EOF\nchown root:dovecot /etc/dovecot/nfsmail-users; chmod 640 /etc/dovecot/nfsmail-users",
    )
    print(f"[bench] {isolated()}", flush=True)
    known = json.loads(RAW.read_text(encoding="utf-8")) if RAW.exists() else []
    RAW.parent.mkdir(exist_ok=True)
    start = time.monotonic()
    for number, cell in enumerate(chosen):
        configure(cell)
        known = bench.merged(known, [measure(cell)], cell.name)
        RAW.write_text(json.dumps(known) + "\n", encoding="utf-8")
        short = [json.dumps(bench.summary(one), separators=(",", ":")) for one in known]
        RESULTS.write_text("[\n" + ",\n".join(short) + "\n]\n", encoding="utf-8")
        spent = time.monotonic() - start
        left = spent * (len(chosen) - number - 1) / (number + 1)
        bar = "#" * (20 * (number + 1) // len(chosen))
        print(
            f"[bench] [{bar:.<20}] {number + 1} of {len(chosen)}, {spent:.0f} s, about {left:.0f} s left: {bench.rows(known[-1:])[0]}",
            flush=True,
        )
    print("\n".join(bench.table(known)))


if __name__ == "__main__":
    main(sys.argv[1:])
