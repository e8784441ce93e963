# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong in a cluster: each fault is a context manager that brings it about and ends it.

Cuts are rules in an nftables table of their own. A fault ends as an operator would end it; `remedy` says how.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial

from proofs import code, hosts, on, playbook, start_playbook, wait_until

STORE = "/srv/mail"
MOUNT_UNIT = "srv-mail.mount"
LOCK = f"{STORE}/.nfsmail-fault-lock"
SERVER = "nfs1"
BOOT_ID = "/proc/sys/kernel/random/boot_id"
DROP_IN = "/etc/systemd/system/nfs-server.service.d/nfsmail.conf"


@dataclass(frozen=True)
class Cluster:
    """The machines that faults happen to."""

    backends: tuple[str, ...]
    proxies: tuple[str, ...]
    nfs_version: str
    # For ansible-playbook.
    scenario: str = "per_user"
    arguments: tuple[str, ...] = ()

    @property
    def machines(self) -> tuple[str, ...]:
        """All of them."""
        return (SERVER, *self.backends, *self.proxies)


Happens = Callable[[Cluster], AbstractContextManager[None]]


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong."""

    name: str
    happens: Happens
    remedy: str
    # Done at one moment: there is nothing to wait for before it is put right.
    at_once: bool = False
    # A backend holds a lock meanwhile, and it must hold it afterwards.
    lock: bool = False
    # Without the remedy it is expected to lose it.
    lock_lost: bool = False
    # What was refused may be there: Dovecot cannot take it back.
    unsure_refusals: bool = False
    proxies: bool = False
    versions: tuple[str, ...] = ()
    # Clients may not see a flag that was set until indexes are made anew: Dovecot's index log had a stale handle.
    flags_hidden: bool = False
    # Only when there is time for it.
    long: bool = False

    def expects(self, problem: str) -> bool:
        """Whether this is known to happen, and put right when indexes are made anew (which the last word is about)."""
        return self.flags_hidden and " has lost " in problem and problem.endswith(f"during: {self.name})")

    def fits(self, cluster: Cluster, everything: bool) -> bool:
        """Whether it can happen there."""
        return (
            (everything or not self.long)
            and (bool(cluster.proxies) or not self.proxies)
            and (not self.versions or cluster.nfs_version in self.versions)
        )


def everywhere(machines: Sequence[str], work: Callable[[str], str]) -> dict[str, str]:
    """Do something on several machines at once."""
    with ThreadPoolExecutor(len(machines)) as pool:
        return dict(zip(machines, pool.map(work, machines), strict=True))


# Locks of NFS clients.


TAKE = f"runuser -u vmail -- flock --nonblock {LOCK} true"


@contextmanager
def lock_held(holder: str, asks: str) -> Iterator[None]:
    """A backend holds a lock on the store, and another one knows."""
    # The id is flock's own: it is what holds the file open.
    on(
        holder,
        f"runuser -u vmail -- sh -c 'exec flock --nonblock {LOCK} sleep 900' </dev/null >/dev/null 2>&1 & sleep 0.1",
    )
    try:
        wait_until("the lock is held", asks, f"! {TAKE}", 60)
        yield
    finally:
        on(holder, "pkill -u vmail -x sleep", check=False)


@contextmanager
def lock_kept(cluster: Cluster, verdict: Callable[[str], None]) -> Iterator[None]:
    """A backend holds a lock on the store; afterwards another one asks for it."""
    holder, asks = cluster.backends[:2]
    with lock_held(holder, asks):
        yield
        # A server in its grace period lets both wait.
        answer = code(asks, f"timeout 90 {TAKE}", check=False)
        verdict({0: "LOST", 1: "kept"}.get(-1 if answer is None else answer, f"no answer ({answer})"))


# Processes and machines.


def boot_id(machine: str) -> str:
    """Which boot this is."""
    return on(machine, f"cat {BOOT_ID}").strip()


def reset(machine: str) -> None:
    """No goodbye: nothing is written, nobody is told."""
    on(machine, "echo 1 > /proc/sys/kernel/sysrq; (sleep 0.2; echo b > /proc/sysrq-trigger) >/dev/null 2>&1 &")


def wait_for_boot(machine: str, before: str, service: str) -> None:
    """Until it has booted anew and runs its service."""
    again = f"! grep -q {before} {BOOT_ID} && systemctl is-active {service}"
    wait_until(f"booted, with {service}", machine, again, 300)


@contextmanager
def processes_killed(which: Callable[[Cluster], str], cluster: Cluster) -> Iterator[None]:
    machine = which(cluster)
    on(machine, "systemctl kill --signal=KILL dovecot")
    try:
        yield
    finally:
        on(machine, "systemctl reset-failed dovecot; systemctl start dovecot")


@contextmanager
def machine_reset(machine: Callable[[Cluster], str], service: str, cluster: Cluster) -> Iterator[None]:
    name = machine(cluster)
    before = boot_id(name)
    reset(name)
    try:
        yield
    finally:
        wait_for_boot(name, before, service)


@contextmanager
def booted_without_server(cluster: Cluster) -> Iterator[None]:
    """A backend boots while it cannot reach its NFS server: Dovecot waits for the store, and starts by itself when it is there."""
    backend = cluster.backends[0]
    before = boot_id(backend)
    tries = f"! grep -q {before} {BOOT_ID} && systemctl is-active {MOUNT_UNIT} | grep activating"
    with disconnected(SERVER, lambda _: (backend,), "in out", cluster):
        reset(backend)
        wait_until("it tries to mount", backend, tries, 300)
        assert code(backend, "systemctl is-active dovecot") != 0, "Dovecot has started without its store"
        yield
    wait_for_boot(backend, before, "dovecot")


@contextmanager
def server_restarted(cluster: Cluster) -> Iterator[None]:
    on(SERVER, "systemctl restart nfs-server")
    yield


@contextmanager
def server_rebooted(cluster: Cluster) -> Iterator[None]:
    before = boot_id(SERVER)
    on(SERVER, "systemctl reboot", check=False)
    try:
        yield
    finally:
        wait_for_boot(SERVER, before, "nfs-server")


@contextmanager
def without_remedy(happens: Happens, cluster: Cluster) -> Iterator[None]:
    """The list of clients that hold NFSv3 locks is not kept over the stop."""
    on(SERVER, f"mv {DROP_IN} /root/drop-in && systemctl daemon-reload")
    try:
        with happens(cluster):
            yield
    finally:
        on(SERVER, f"mv /root/drop-in {DROP_IN} && systemctl daemon-reload")


# The network.


def cut(machine: str, *rules: str) -> None:
    """Drop packets: each rule is "in" or "out" and what it matches."""
    chains = [
        f"add chain inet faults {name} {{ type filter hook {hook} priority -300; }}"
        for name, hook in (("in", "input"), ("out", "output"))
    ]
    lines = ["add table inet faults", *chains, *(f"add rule inet faults {rule} drop" for rule in rules)]
    on(machine, "printf '%s\\n' " + " ".join(f"'{line}'" for line in lines) + " | nft -f -")


def mend(machine: str) -> None:
    on(machine, "nft delete table inet faults", check=False)


def address(machine: str) -> str:
    return str(hosts()[machine]["nfsmail_address"])


@contextmanager
def disconnected(where: str, peers: Callable[[Cluster], Sequence[str]], ways: str, cluster: Cluster) -> Iterator[None]:
    """No packets between a machine and others, both ways ("in out"), or one way only."""
    match = {"in": "ip saddr", "out": "ip daddr"}
    cut(where, *(f"{way} {match[way]} {address(peer)}" for way in ways.split() for peer in peers(cluster)))
    try:
        yield
    finally:
        mend(where)


@contextmanager
def lockd_silent(cluster: Cluster) -> Iterator[None]:
    """The kernel's lockd cannot be stopped alone; what is sent to it gets lost."""
    cut(SERVER, "in tcp dport 4045", "in udp dport 4045", "out tcp sport 4045", "out udp sport 4045")
    try:
        yield
    finally:
        mend(SERVER)


@contextmanager
def statd_stopped(cluster: Cluster) -> Iterator[None]:
    machines = (SERVER, cluster.backends[0])
    everywhere(machines, lambda machine: on(machine, "systemctl stop rpc-statd"))
    try:
        yield
    finally:
        everywhere(machines, lambda machine: on(machine, "systemctl start rpc-statd"))


# The store.


@contextmanager
def disk_full(cluster: Cluster) -> Iterator[None]:
    on(
        SERVER,
        f"fallocate -l $(df -B1 --output=avail {STORE} | tail -1) {STORE}/.full; "
        f"dd if=/dev/zero of={STORE}/.full-too bs=4k 2>/dev/null; df {STORE} | tail -1 | grep ' 100% '",
    )
    try:
        yield
    finally:
        on(SERVER, f"rm -f {STORE}/.full {STORE}/.full-too")


@contextmanager
def exported_otherwise(options: str, restart: bool, cluster: Cluster) -> Iterator[None]:
    """The same directory with other options; as the role exports it afterwards.

    With stale handles clients cannot give locks back: with NFSv3 these stay for ever, unless the server restarts.
    """
    always = "sync,root_squash,no_subtree_check,sec=sys,anonuid=5000,anongid=5000"
    clients = [f"{address(backend)}:{STORE}" for backend in cluster.backends]
    on(SERVER, "; ".join(f"exportfs -u {one}; exportfs -o {options},{always} {one}" for one in clients))
    try:
        yield
    finally:
        on(SERVER, "; ".join(f"exportfs -u {one}" for one in clients) + "; exportfs -ra")
        if restart:
            on(SERVER, "systemctl restart nfs-server")


@contextmanager
def mount_gone(cluster: Cluster) -> Iterator[None]:
    """The store is not mounted, and cannot be: Dovecot must not start on the directory below, and nobody write there."""
    backend = cluster.backends[0]
    on(backend, f"systemctl stop dovecot && umount {STORE} && systemctl mask --runtime {MOUNT_UNIT}")
    try:
        said = on(backend, "systemctl start dovecot 2>&1; systemctl is-active dovecot", check=False)
        assert said.strip().endswith(("inactive", "failed")), f"Dovecot has started without its store: {said}"
        for who in ("runuser -u vmail --", ""):
            said = on(backend, f"{who} touch {STORE}/x 2>&1", check=False)
            assert "not permitted" in said.lower(), f"the directory below the mount can be written: {said}"
        yield
    finally:
        on(backend, f"systemctl unmask --runtime {MOUNT_UNIT}; systemctl daemon-reload; systemctl start dovecot")


# Clocks.


def step(machine: str, seconds: float) -> None:
    """Set the clock at once."""
    on(machine, f'python3 -c "import time; time.clock_settime(time.CLOCK_REALTIME, time.time() + {seconds})"')


@contextmanager
def clock_stepped(seconds: float, stopped: bool, cluster: Cluster) -> Iterator[None]:
    """A backend's clock jumps; it is put right with Dovecot stopped, or as it runs."""
    backend = cluster.backends[0]
    on(backend, "systemctl stop chrony")
    step(backend, seconds)
    try:
        yield
    finally:
        if stopped:
            on(backend, "systemctl stop dovecot")
        step(backend, -seconds)
        on(backend, "systemctl start chrony")
        wait_until("the clock is right", backend, "chronyc waitsync 1 0.5", 120)
        if stopped:
            on(backend, "systemctl start dovecot")


# Ansible.

SETTING = "mail_max_userip_connections"


def finished(verb: str, cluster: Cluster, *arguments: str) -> str:
    """Run a playbook to its end."""
    done = playbook(verb, cluster.scenario, *cluster.arguments, *arguments)
    assert done.returncode == 0, done.stdout
    return done.stdout


def killed(verb: str, cluster: Cluster, machine: str, when: str, *arguments: str) -> None:
    """Start a playbook, and kill it as soon as a command succeeds on a machine."""
    run = start_playbook(verb, cluster.scenario, *cluster.arguments, *arguments)
    try:
        wait_until("the run is half-way", machine, when, 240)
        assert run.poll() is None, f"{verb} had come to its end"
    finally:
        run.kill()
        run.wait()


def in_effect(cluster: Cluster, value: int) -> None:
    """Every backend has the setting, and Dovecot has read its configuration since that was written."""
    written = "stat -c %Y /etc/dovecot/dovecot.conf"
    read = f"journalctl -u dovecot --since @$({written}) -o cat | grep -qE 'SIGHUP|starting up'"
    for backend in cluster.backends:
        assert on(backend, f"doveconf -h {SETTING}").strip() == str(value), backend
        assert code(backend, read) == 0, f"{backend}: Dovecot has not read the file that a killed run wrote"


@contextmanager
def site_killed(cluster: Cluster) -> Iterator[None]:
    """Files are written, and no service has been told; the next run has nothing to write."""
    extra = ("--tags", "backend", "-e", json.dumps({"dovecot_extra_settings": {SETTING: 23}}))
    killed("site", cluster, cluster.backends[0], f"grep -q '{SETTING} = 23' /etc/dovecot/dovecot.conf", *extra)
    yield
    finished("site", cluster, *extra)
    in_effect(cluster, 23)


@contextmanager
def roll_killed(cluster: Cluster) -> Iterator[None]:
    """The first backend is empty and has its new file; the next run goes on from there."""
    extra = ("-e", json.dumps({"dovecot_extra_settings": {SETTING: 29}}))
    killed("roll", cluster, cluster.backends[0], f"grep -q '{SETTING} = 29' /etc/dovecot/dovecot.conf", *extra)
    yield
    finished("roll", cluster, *extra)
    in_effect(cluster, 29)
    for proxy in cluster.proxies:
        assert json.loads(on(proxy, "cat /etc/nfsmail-state"))["out"] == [], f"{proxy}: a backend was left empty"


def first_backend(cluster: Cluster) -> str:
    return cluster.backends[0]


def first_proxy(cluster: Cluster) -> str:
    return cluster.proxies[0]


V3 = ("3",)
ANSIBLE: tuple[Fault, ...] = (
    Fault("Ansible: site killed, then run again", site_killed, "run it again", at_once=True, long=True),
    Fault("Ansible: roll killed, then run again", roll_killed, "run it again", at_once=True, proxies=True, long=True),
)
FAULTS: tuple[Fault, ...] = (
    *ANSIBLE,
    Fault("backend: processes killed", partial(processes_killed, first_backend), "start Dovecot"),
    Fault("proxy: processes killed", partial(processes_killed, first_proxy), "start Dovecot", proxies=True),
    Fault(
        "backend: machine reset", partial(machine_reset, first_backend, "dovecot"), "it boots", at_once=True, long=True
    ),
    Fault(
        "backend: boots without its NFS server",
        booted_without_server,
        "none: Dovecot starts when the server is there",
        at_once=True,
        long=True,
    ),
    Fault("server: nfs-server restarted", server_restarted, "none: clients reclaim", at_once=True, lock=True),
    Fault("server: rebooted", server_rebooted, "none: clients reclaim", at_once=True, lock=True, long=True),
    Fault(
        "server: machine reset",
        partial(machine_reset, lambda _: SERVER, "nfs-server"),
        "none: clients reclaim",
        at_once=True,
        lock=True,
        # Seen once with the 10 s of grace of this scenario; longer ones were not tried under traffic.
        lock_lost=True,
        long=True,
    ),
    *(
        Fault(
            f"server: {what}, our drop-in away",
            partial(without_remedy, happens),
            "keep the drop-in",
            at_once=True,
            lock=True,
            lock_lost=True,
            versions=V3,
            long=True,
        )
        for what, happens in (("nfs-server restarted", server_restarted), ("rebooted", server_rebooted))
    ),
    Fault(
        "network: server and a backend cut off",
        partial(disconnected, SERVER, lambda cluster: cluster.backends[:1], "in out"),
        "mend it",
        lock=True,
    ),
    Fault(
        "network: server's answers to a backend lost",
        partial(disconnected, SERVER, lambda cluster: cluster.backends[:1], "out"),
        "mend it",
        long=True,
    ),
    Fault(
        "network: proxies and a backend cut off",
        lambda cluster: disconnected(cluster.backends[0], lambda _: cluster.proxies, "in out", cluster),
        "mend it",
        proxies=True,
    ),
    Fault(
        "network: a backend's answers to proxies lost",
        lambda cluster: disconnected(cluster.backends[0], lambda _: cluster.proxies, "out", cluster),
        "mend it",
        proxies=True,
        long=True,
    ),
    Fault("store: disk full", disk_full, "make room"),
    Fault(
        "store: exported read-only",
        partial(exported_otherwise, "ro", False),
        "export it as it was",
        unsure_refusals=True,
        long=True,
    ),
    Fault(
        "store: export re-created, stale handles",
        partial(exported_otherwise, "rw,fsid=4711", True),
        "export it as it was, restart nfs-server",
        unsure_refusals=True,
        flags_hidden=True,
        long=True,
    ),
    Fault("clock: 2 s forward, then back", partial(clock_stepped, 2, False), "set it right", long=True),
    Fault("clock: 60 s forward", partial(clock_stepped, 60, True), "set it right with Dovecot stopped"),
    Fault("clock: 10 s back", partial(clock_stepped, -10, False), "set it right"),
    Fault("lockd does not answer", lockd_silent, "let it answer", versions=V3),
    Fault("statd stopped on server and backend", statd_stopped, "start it", versions=V3, lock=True),
    Fault("backend: store not mounted", mount_gone, "mount it, start Dovecot"),
)


# What machines say.


def cursors(machines: Sequence[str]) -> dict[str, str]:
    """Where each machine's journal ends now; clocks may jump, and machines boot."""
    said = everywhere(machines, lambda one: on(one, "journalctl -n 0 --show-cursor --no-pager; sync -f /var/log"))
    return {one: text.partition("cursor: ")[2].split("\n")[0].strip() for one, text in said.items()}


def errors_since(since: dict[str, str]) -> dict[str, list[str]]:
    """What Dovecot has logged as an error since then."""

    def read(machine: str) -> str:
        return on(
            machine,
            f"journalctl -u dovecot --after-cursor='{since[machine]}' -o cat --no-pager | grep -E '(Error|Fatal|Panic): ' | cut -c1-300",
            check=False,
        )

    return {machine: said.splitlines() for machine, said in everywhere(list(since), read).items()}


def where_to_look(cluster: Cluster) -> str:
    """The journal's end and the mounts in effect."""

    def read(machine: str) -> str:
        return on(
            machine,
            f"grep ' {STORE} ' /proc/mounts; journalctl -b -n 12 --no-pager -o short-precise | cut -c1-220",
            check=False,
        )

    said = everywhere(cluster.machines, read)
    # Lock files, how old, and whose: process and machine.
    locks = f"find {STORE} -name '*.lock' -printf '%p %Ts ' -exec cat {{}} \\; -printf '\\n'; date +%s"
    said["lock files"] = on(SERVER, locks, check=False)
    return "\n".join(f"---- {machine}\n{text}" for machine, text in said.items())


@dataclass
class Row:
    """One line of the table."""

    fault: str
    topology: str
    nfs: str
    accepted: int = 0
    found: int = 0
    expunged: int = 0
    in_doubt: int = 0
    repeated: int = 0
    duplicated: int = 0
    lost: int = 0
    returned: int = 0
    flags_set: int = 0
    flags_lost: int = 0
    # The longest that one user was without an answer to a command, and that nobody's mail was taken.
    without_imap: float = 0.0
    without_lmtp: float = 0.0
    took: float = 0.0
    sessions_ended: int = 0
    errors: int = 0
    lock: str = "-"
    remedy: str = ""
    problems: list[str] = field(default_factory=list)
    logged: dict[str, list[str]] = field(default_factory=dict)


COLUMNS = {
    "fault": "fault",
    "topology": "topology",
    "nfs": "NFS",
    "accepted": "accepted",
    "found": "found",
    "expunged": "expunged",
    "in_doubt": "in doubt",
    "repeated": "sent twice",
    "duplicated": "doubled",
    "lost": "lost",
    "returned": "returned",
    "flags_set": "flags",
    "flags_lost": "flags lost",
    "without_imap": "no IMAP s",
    "without_lmtp": "no LMTP s",
    "sessions_ended": "sessions ended",
    "errors": "errors",
    "lock": "lock",
}


def table(rows: Sequence[Row]) -> str:
    """For the eye."""
    cells = [list(COLUMNS.values())]
    for row in rows:
        values = [getattr(row, name) for name in COLUMNS]
        cells.append([f"{value:.0f}" if isinstance(value, float) else str(value) for value in values])
    widths = [max(len(line[column]) for line in cells) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in (0, 1, 2) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    )
