# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The settings matrix as data: every rule once, with its condition, reason and source.

A condition maps profile keys to the values it holds for; all keys must match. ``versions`` limits a rule
to Dovecot releases (``">=2.4,<2.4.5"``). Rules never depend on their order: a test shows that no two
rules set one target to different values for the same profile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

DOVECOT_NFS = "Dovecot documentation, NFS page"
SEED = "Dovecot wiki, NFS, 2012"
CODE = "Dovecot source, mail-storage-settings.c"

CLUSTERED = ("random", "per_user")
DBOX = ("sdbox", "mdbox")
WITH_LOCKD = ("2", "3")
NFS4 = ("4.0", "4.1", "4.2")
# What Dovecot does where a setting is not written; doveconf -n leaves such settings out.
DEFAULTS: Mapping[str, str] = {
    "mmap_disable": "no",
    "mail_fsync": "optimized",
    "dotlock_use_excl": "yes",
    "mail_nfs_storage": "no",
    "mail_nfs_index": "no",
    "lock_method": "fcntl",
    "mbox_read_locks": "fcntl",
    "mbox_write_locks": "fcntl dotlock",
}


@dataclass(frozen=True)
class Rule:
    """One statement of the matrix.

    ``effect``: ``set`` (a Dovecot setting), ``mount`` (a mount option), ``error``, ``warning`` or ``info``.
    ``target``: the setting or option, or for a finding the profile key to change.
    ``value``: what the setting or option becomes (a finding: unused).
    ``text``: for a setting or option why it is so; for a finding what goes wrong.
    """

    id: str
    effect: str
    target: str
    value: str
    text: str
    source: str
    when: Mapping[str, tuple[str | bool, ...]] = field(default_factory=dict)
    versions: str = ""
    fix: str = ""
    since: str = ""
    overrides_2012: bool = False


def _setting(
    id: str,
    target: str,
    value: str,
    text: str,
    source: str,
    versions: str = "",
    since: str = "",
    overrides_2012: bool = False,
    **when: tuple[str | bool, ...],
) -> Rule:
    return Rule(id, "set", target, value, text, source, when, versions, since=since, overrides_2012=overrides_2012)


def _option(
    id: str, value: str, text: str, source: str, overrides_2012: bool = False, **when: tuple[str | bool, ...]
) -> Rule:
    return Rule(id, "mount", value.partition("=")[0], value, text, source, when, overrides_2012=overrides_2012)


def _finding(
    id: str,
    effect: str,
    target: str,
    text: str,
    fix: str,
    source: str,
    versions: str = "",
    overrides_2012: bool = False,
    **when: tuple[str | bool, ...],
) -> Rule:
    return Rule(id, effect, target, "", text, source, when, versions, fix, overrides_2012=overrides_2012)


# The order of this list is the order in dovecot.conf and in the mount options.
RULES: tuple[Rule, ...] = (
    # -- settings -----------------------------------------------------------------------------------------
    _setting(
        "NFS001",
        "mmap_disable",
        "yes",
        "Index files on NFS must not be memory-mapped: another machine's writes would go unseen.",
        f"{DOVECOT_NFS}; {SEED}",
    ),
    _setting(
        "NFS002",
        "mail_fsync",
        "always",
        "NFS reports write errors at fsync or close: only an fsync makes an accepted message safe.",
        f"{DOVECOT_NFS}; {SEED}",
    ),
    _setting(
        "NFS003",
        "dotlock_use_excl",
        "yes",
        "NFSv3 and newer create files exclusively (O_EXCL), which is faster than a link.",
        f"{SEED}; Dovecot settings reference",
        nfs_version=("3", *NFS4),
        overrides_2012=True,
    ),
    _setting(
        "NFS004",
        "dotlock_use_excl",
        "no",
        "NFSv2 cannot create a file exclusively (O_EXCL).",
        SEED,
        nfs_version=("2",),
    ),
    _setting(
        "NFS005",
        "mail_nfs_storage",
        "no",
        "One machine at a time opens a user's mail: flushing NFS caches would only cost.",
        f"{DOVECOT_NFS}; {SEED}",
        cache_flush=(False,),
    ),
    _setting(
        "NFS006",
        "mail_nfs_storage",
        "no",
        "One machine at a time opens a user's mail: flushing NFS caches would only cost.",
        f"{DOVECOT_NFS}; {SEED}",
        topology=("single", "per_user"),
        cache_flush=(True,),
    ),
    _setting(
        "NFS007",
        "mail_nfs_storage",
        "yes",
        "Any machine may have changed the mail: flush NFS caches before reading it.",
        SEED,
        topology=("random",),
        cache_flush=(True,),
    ),
    _setting(
        "NFS008",
        "mail_nfs_index",
        "no",
        "One machine at a time opens a user's indexes: flushing NFS caches would only cost.",
        f"{DOVECOT_NFS}; {SEED}",
        cache_flush=(False,),
    ),
    _setting(
        "NFS009",
        "mail_nfs_index",
        "no",
        "One machine at a time opens a user's indexes: flushing NFS caches would only cost.",
        f"{DOVECOT_NFS}; {SEED}",
        topology=("single", "per_user"),
        cache_flush=(True,),
    ),
    _setting(
        "NFS010",
        "mail_nfs_index",
        "yes",
        "Any machine may have changed the indexes: flush NFS caches before reading them.",
        f"{SEED}; {CODE} (needs mmap_disable=yes and mail_fsync=always)",
        topology=("random",),
        cache_flush=(True,),
        index_location=("nfs",),
    ),
    _setting(
        "NFS011",
        "mail_nfs_index",
        "no",
        "The indexes are on this machine's own disk: there is no NFS cache to flush.",
        SEED,
        topology=("random",),
        cache_flush=(True,),
        index_location=("local",),
    ),
    _setting(
        "NFS012",
        "lock_method",
        "fcntl",
        "Kernel locks reach the other machines, and taking one refreshes a file held open.",
        f"{DOVECOT_NFS}; measured: an open file is refreshed by a lock only",
        nfs_version=NFS4,
    ),
    _setting(
        "NFS013",
        "lock_method",
        "fcntl",
        "Kernel locks reach the other machines through lockd, and taking one refreshes a file held open.",
        f"{DOVECOT_NFS}; measured: an open file is refreshed by a lock only",
        nfs_version=WITH_LOCKD,
        lockd=(True,),
    ),
    _setting(
        "NFS014",
        "lock_method",
        "dotlock",
        "Without lockd a kernel lock stays on this machine; lock files work, but slowly.",
        SEED,
        nfs_version=WITH_LOCKD,
        lockd=(False,),
    ),
    _setting(
        "NFS015",
        "mbox_read_locks",
        "fcntl",
        "Set outright: the default differs between Debian's Dovecot releases.",
        "measured: doveconf of 2.3.19 and 2.4.1",
        mailbox_format=("mbox",),
        nfs_version=NFS4,
    ),
    _setting(
        "NFS016",
        "mbox_read_locks",
        "fcntl",
        "Set outright: the default differs between Debian's Dovecot releases.",
        "measured: doveconf of 2.3.19 and 2.4.1",
        mailbox_format=("mbox",),
        nfs_version=WITH_LOCKD,
        lockd=(True,),
    ),
    _setting(
        "NFS017",
        "mbox_read_locks",
        "dotlock",
        "Without lockd only lock files reach the other machines.",
        "measured: lock calls of the mbox driver; mbox-lock.c",
        mailbox_format=("mbox",),
        nfs_version=WITH_LOCKD,
        lockd=(False,),
    ),
    _setting(
        "NFS018",
        "mbox_write_locks",
        "fcntl dotlock",
        "Lock order must be the same everywhere, Postfix included; the default flipped between 2.3 and 2.4 on Debian.",
        "measured: doveconf of 2.3.19 and 2.4.1; Debian's Postfix",
        mailbox_format=("mbox",),
        nfs_version=NFS4,
    ),
    _setting(
        "NFS019",
        "mbox_write_locks",
        "fcntl dotlock",
        "Lock order must be the same everywhere, Postfix included; the default flipped between 2.3 and 2.4 on Debian.",
        "measured: doveconf of 2.3.19 and 2.4.1; Debian's Postfix",
        mailbox_format=("mbox",),
        nfs_version=WITH_LOCKD,
        lockd=(True,),
    ),
    _setting(
        "NFS020",
        "mbox_write_locks",
        "dotlock",
        "Without lockd only lock files reach the other machines.",
        "measured: lock calls of the mbox driver; mbox-lock.c",
        mailbox_format=("mbox",),
        nfs_version=WITH_LOCKD,
        lockd=(False,),
    ),
    # -- mount options ------------------------------------------------------------------------------------
    _option("NFS101", "vers=2", "Pinned: client and server must not negotiate another.", "nfs(5)", nfs_version=("2",)),
    _option("NFS102", "vers=3", "Pinned: client and server must not negotiate another.", "nfs(5)", nfs_version=("3",)),
    _option(
        "NFS103", "vers=4.0", "Pinned: client and server must not negotiate another.", "nfs(5)", nfs_version=("4.0",)
    ),
    _option(
        "NFS104", "vers=4.1", "Pinned: client and server must not negotiate another.", "nfs(5)", nfs_version=("4.1",)
    ),
    _option(
        "NFS105", "vers=4.2", "Pinned: client and server must not negotiate another.", "nfs(5)", nfs_version=("4.2",)
    ),
    _option("NFS106", "proto=tcp", "TCP for NFS and for mountd, whose default is UDP.", "nfs(5)"),
    _option("NFS107", "hard", "A soft mount turns a slow server into lost writes.", "nfs(5)"),
    _option("NFS108", "nosuid", "Mail needs no set-user-id programs.", "mount(8)"),
    _option("NFS109", "nodev", "Mail needs no device files.", "mount(8)"),
    _option("NFS110", "noexec", "Mail is data: nothing on the store is run.", "mount(8)"),
    _option("NFS111", "noatime", "Reading mail must not write.", DOVECOT_NFS),
    _option(
        "NFS112",
        "nordirplus",
        "Dovecot lists directories without needing every file's attributes.",
        DOVECOT_NFS,
        nfs_version=WITH_LOCKD,
    ),
    _option(
        "NFS113",
        "actimeo=60",
        "One machine at a time opens a user's mail: its attribute cache can be trusted for a minute.",
        DOVECOT_NFS,
        topology=("single", "per_user"),
        overrides_2012=True,
    ),
    _option(
        "NFS114",
        "actimeo=0",
        "Any machine may have changed a file: attributes are asked for each time, at a high price.",
        SEED,
        topology=("random",),
    ),
    _option(
        "NFS115",
        "lookupcache=positive",
        "A file made by another machine is seen at once; costs one call for each repeated miss.",
        "measured: 22 s until seen by default, at once with this option (NFSv3, v4.2)",
        topology=("per_user",),
    ),
    _option(
        "NFS116",
        "nolock",
        "Without lockd the mount fails unless locks stay local; Dovecot then uses lock files.",
        "nfs(5); mount.nfs",
        nfs_version=WITH_LOCKD,
        lockd=(False,),
    ),
    _option("NFS117", "_netdev", "Mounted after the network is up, unmounted before it goes.", "systemd.mount(5)"),
    _option("NFS118", "nofail", "A dead NFS server must not stop the machine from booting.", "systemd.mount(5)"),
    _option("NFS119", "x-systemd.mount-timeout=90", "A dead NFS server is given up at boot.", "systemd.mount(5)"),
    # -- findings -----------------------------------------------------------------------------------------
    _finding(
        "NFS201",
        "warning",
        "nfs_version",
        "NFSv2 is gone from current kernels and servers, and cannot create files exclusively.",
        "use nfs_version 4.2 (or 3)",
        "nfs-utils 2.6.1 NEWS",
        nfs_version=("2",),
    ),
    _finding(
        "NFS202",
        "error",
        "lockd",
        "mdbox takes kernel locks on its storage files whatever lock_method says; without lockd they protect nothing.",
        "run lockd, use NFSv4, or use sdbox or maildir",
        "measured: lock calls of the mdbox driver",
        mailbox_format=("mdbox",),
        nfs_version=WITH_LOCKD,
        lockd=(False,),
    ),
    _finding(
        "NFS203",
        "warning",
        "lockd",
        "Lock files instead of kernel locks are slow, and an open file is not refreshed by them.",
        "run lockd, or use NFSv4",
        f"{SEED}; measured: an open file is refreshed by a lock only",
        mailbox_format=("maildir", "mbox", "sdbox"),
        nfs_version=WITH_LOCKD,
        lockd=(False,),
    ),
    _finding(
        "NFS204",
        "error",
        "lockd",
        "Several machines open one mailbox and no lock reaches the others.",
        "run lockd or use NFSv4; better, use topology per_user",
        DOVECOT_NFS,
        topology=("random",),
        nfs_version=WITH_LOCKD,
        lockd=(False,),
    ),
    _finding(
        "NFS205",
        "error",
        "mailbox_format",
        "sdbox and mdbox keep mail in their indexes: two machines at once lose it.",
        "use maildir, or topology per_user",
        DOVECOT_NFS,
        topology=("random",),
        mailbox_format=DBOX,
    ),
    _finding(
        "NFS206",
        "error",
        "index_location",
        "sdbox and mdbox indexes are data: on another machine the mailbox is empty, saves fail, flags are lost.",
        "use index_location nfs, or maildir",
        "measured: 2.3.19 and 2.4.1 with node-local indexes",
        topology=CLUSTERED,
        mailbox_format=DBOX,
        index_location=("local",),
    ),
    _finding(
        "NFS207",
        "warning",
        "index_location",
        "sdbox and mdbox indexes are data: that local disk must be as safe as the mail store.",
        "back the disk up, or use index_location nfs",
        "Dovecot documentation, dbox",
        topology=("single",),
        mailbox_format=DBOX,
        index_location=("local",),
    ),
    _finding(
        "NFS208",
        "warning",
        "topology",
        "One user on several machines at once is not supported by Dovecot: errors and lost mail are to be expected.",
        "use topology per_user",
        DOVECOT_NFS,
        topology=("random",),
        overrides_2012=True,
    ),
    _finding(
        "NFS209",
        "error",
        "delivery",
        "Nothing but Dovecot can write sdbox and mdbox.",
        "use delivery lmtp",
        "Dovecot documentation, dbox",
        mailbox_format=DBOX,
        delivery=("mta",),
    ),
    _finding(
        "NFS210",
        "error",
        "delivery",
        "dovecot-lda on another machine opens the user's indexes beside the user's own backend.",
        "use delivery lmtp through the proxy",
        DOVECOT_NFS,
        topology=("per_user",),
        mailbox_format=DBOX,
        delivery=("lda",),
    ),
    _finding(
        "NFS211",
        "warning",
        "delivery",
        "dovecot-lda on another machine rewrites dovecot-uidlist, even with its indexes in memory.",
        "use delivery lmtp through the proxy",
        "measured: lock calls and checksums with INDEX=MEMORY",
        topology=CLUSTERED,
        mailbox_format=("maildir", "mbox"),
        delivery=("lda",),
    ),
    _finding(
        "NFS212",
        "info",
        "index_location",
        "When a user changes backend, the new one rebuilds its indexes: the first login there is slow.",
        "expected; use index_location nfs to avoid it",
        SEED,
        topology=("per_user",),
        mailbox_format=("maildir", "mbox"),
        index_location=("local",),
    ),
    _finding(
        "NFS213",
        "warning",
        "dovecot_version",
        "Dovecot 2.3.0 crashes with lock_method dotlock.",
        "use a later 2.3",
        "Dovecot 2.3.1 NEWS",
        versions=">=2.3.0,<2.3.1",
        nfs_version=WITH_LOCKD,
        lockd=(False,),
    ),
    _finding(
        "NFS214",
        "warning",
        "dovecot_version",
        "Dovecot 2.4.5 is reported to fail index locks with EINTR.",
        "use 2.4.4 until the report is settled",
        "dovecot/docker issue 51 (not verified)",
        versions=">=2.4.5,<2.4.6",
    ),
    _finding(
        "NFS215",
        "warning",
        "cache_flush",
        "Flushing NFS caches is for topology random; elsewhere it only costs, and is left off.",
        "remove cache_flush, or set it to false",
        f"{DOVECOT_NFS}; {SEED}",
        topology=("single", "per_user"),
        cache_flush=(True,),
    ),
)
