# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The settings matrix as data: every rule once, with its condition, reason and source.

A condition (``when``) maps profile keys, or what follows from them, to the values it holds for; all must match.
``versions`` limits a rule to Dovecot releases (``">=2.4,<2.4.5"``). Rules about settings that somebody wrote (extra
settings, live machines) have a second condition, ``found``. Rules never depend on their order: a test shows that no two
rules set one target to different values for the same profile.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

DOVECOT_NFS = "Dovecot documentation, NFS page"
BILL = "measured: docs: performance"
DBOX_PAGE = "Dovecot documentation, dbox page"
SETTINGS_PAGE = "Dovecot documentation, settings reference"
SEED = "Dovecot wiki, NFS, 2012"
CODE = "Dovecot source, mail-storage-settings.c"
VOLATILE = (
    "measured: which locks 2.3.19 and 2.4.1 make there; Dovecot source, mailbox-list.c, index-mailbox-size.c, mail-autoexpunge.c, "
    "mail-duplicate.c"
)
REFUSED = "measured: doveconf refuses it (exit code 89)"

CLUSTERED = ("random", "per_user")
ONE_AT_A_TIME = ("single", "per_user")
DBOX = ("sdbox", "mdbox")
WITH_LOCKD = ("2", "3")
NFS4 = ("4.0", "4.1", "4.2")


@dataclass(frozen=True)
class Rule:
    """One statement of the matrix.

    ``effect``: ``set`` (a setting of backends), ``delivery`` (a part of the mailbox location while mail is delivered),
    ``proxy`` (a setting of proxies), ``mount`` (a mount option), ``kernel`` (a parameter of a kernel module), or a finding:
    ``error``, ``warning`` or ``info``.
    ``target``: the setting or option, with its sections in front; for a finding the profile key to change.
    ``value``: what the setting or option becomes (a finding: unused).
    ``text``: for a setting or option why it is so; for a finding what goes wrong.
    ``found``: for a finding about written settings: patterns of names to patterns of values, all of which match; ``!`` in
    front of a name: nothing matches. Names starting with ``@`` are what a path means, see ``written.py``.
    ``on``: for such a finding, the kinds of machine whose settings are judged.
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
    overrides_2012: bool = False
    found: Mapping[str, str] = field(default_factory=dict)
    on: tuple[str, ...] = ()

    @property
    def since(self) -> str:
        """The first release, of those that we judge, for which the rule holds."""
        match = re.match(r">=([\d.]+)", self.versions)
        return match[1] if match else "2.3.0"


def _setting(
    id: str,
    target: str,
    value: str,
    text: str,
    source: str,
    versions: str = "",
    overrides_2012: bool = False,
    effect: str = "set",
    **when: tuple[str | bool, ...],
) -> Rule:
    return Rule(id, effect, target, value, text, source, when, versions, overrides_2012=overrides_2012)


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


def _written(
    id: str,
    effect: str,
    found: Mapping[str, str],
    text: str,
    fix: str,
    source: str,
    versions: str = "",
    overrides_2012: bool = False,
    on: tuple[str, ...] = ("backend",),
    **when: tuple[str | bool, ...],
) -> Rule:
    return Rule(id, effect, "", "", text, source, when, versions, fix, overrides_2012, found, on)


# What a release refuses or misreads, whatever the cluster is like.
DIALECT = ("NFS401", "NFS404", "NFS405", "NFS406", "NFS407", "NFS432")
# Settings that decide where a user's files lie, or who the user is: a misread variable here mixes users up.
PATHS = (
    r"(.*/)?(mail_(home|path|location|inbox_path|index_path|control_path|volatile_path|alt_path|cache_path|ext_attachment_path)"
    r"|mail_attachment_dir|auth_username_format|home|mail|args|default_fields|override_fields|location)"
)
# Where quota and Sieve are loaded; 2.4 has a name for each plugin.
QUOTA = r"(.*/)?mail_plugins(/quota)?"
SIEVE = r"(.*/)?mail_plugins(/sieve)?"

# Where indexed search is loaded; 2.4 has a name for each plugin.
INDEXED_SEARCH = r"(.*/)?mail_plugins(/fts_\w+)?"
FLATCURVE = r"(.*/)?mail_plugins/fts_flatcurve"

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
        flush=(False,),
    ),
    _setting(
        "NFS007",
        "mail_nfs_storage",
        "yes",
        "Any machine may have changed the mail: flush NFS caches before reading it.",
        SEED,
        flush=(True,),
    ),
    _setting(
        "NFS008",
        "mail_nfs_index",
        "no",
        "One machine at a time opens a user's indexes: flushing NFS caches would only cost.",
        f"{DOVECOT_NFS}; {SEED}",
        flush=(False,),
    ),
    _setting(
        "NFS010",
        "mail_nfs_index",
        "yes",
        "Any machine may have changed the indexes: flush NFS caches before reading them.",
        f"{SEED}; {CODE} (needs mmap_disable=yes and mail_fsync=always)",
        flush=(True,),
        index_location=("nfs",),
    ),
    _setting(
        "NFS011",
        "mail_nfs_index",
        "no",
        "The indexes are on this machine's own disk: there is no NFS cache to flush.",
        SEED,
        flush=(True,),
        index_location=("local",),
    ),
    _setting(
        "NFS012",
        "lock_method",
        "fcntl",
        "Kernel locks reach the other machines (NFSv4 by itself, NFSv3 through lockd), and only taking one refreshes a file "
        "that is held open.",
        f"{DOVECOT_NFS}; measured: an open file is refreshed by a lock only",
        kernel_locks=(True,),
    ),
    _setting(
        "NFS014",
        "lock_method",
        "dotlock",
        "Without lockd a kernel lock stays on this machine; lock files work, but slowly.",
        SEED,
        kernel_locks=(False,),
    ),
    _setting(
        "NFS015",
        "mbox_read_locks",
        "fcntl",
        "Set outright: the default differs between Debian's Dovecot releases.",
        "measured: doveconf of 2.3.19 and 2.4.1",
        mailbox_format=("mbox",),
        kernel_locks=(True,),
    ),
    _setting(
        "NFS017",
        "mbox_read_locks",
        "dotlock",
        "Without lockd only lock files reach the other machines.",
        "measured: lock calls of the mbox driver; mbox-lock.c",
        mailbox_format=("mbox",),
        kernel_locks=(False,),
    ),
    _setting(
        "NFS018",
        "mbox_write_locks",
        "fcntl dotlock",
        "Lock order must be the same everywhere, Postfix included; the default flipped between 2.3 and 2.4 on Debian.",
        "measured: doveconf of 2.3.19 and 2.4.1; Debian's Postfix",
        mailbox_format=("mbox",),
        kernel_locks=(True,),
    ),
    _setting(
        "NFS020",
        "mbox_write_locks",
        "dotlock",
        "Without lockd only lock files reach the other machines.",
        "measured: lock calls of the mbox driver; mbox-lock.c",
        mailbox_format=("mbox",),
        kernel_locks=(False,),
    ),
    _setting(
        "NFS021",
        "protocol lda/mail_index_path",
        "MEMORY",
        "Mail may be delivered on a machine that is not the user's: its indexes stay in memory, beside those of the backend.",
        "Dovecot 2.3 documentation, NFS page, clustering without director; measured: dovecot-uidlist is written all the same",
        effect="delivery",
        topology=CLUSTERED,
        mailbox_format=("maildir",),
        delivery=("lda",),
    ),
    _setting(
        "NFS022",
        "protocol lmtp/mail_index_path",
        "MEMORY",
        "Any machine delivers to any user: its indexes stay in memory, beside those of the machine that the user reads on.",
        "Dovecot 2.3 documentation, NFS page, clustering without director; measured: dovecot-uidlist is written all the same",
        effect="delivery",
        topology=("random",),
        mailbox_format=("maildir",),
        delivery=("lmtp",),
    ),
    *(
        _setting(
            id,
            f"service {service}/{name}",
            value,
            "Without these, doveadm kick says that it kicked a session, and the session lives on.",
            "measured: doveadm kick on a 2.4.1 proxy; Dovecot source, commit 42e0c5753b",
            versions=">=2.4.0,<2.4.5",
            effect="proxy",
        )
        for id, service, name, value in (
            ("NFS023", "imap-login", "restart_request_count", "unlimited"),
            ("NFS024", "imap-login", "client_limit", "1000"),
            ("NFS025", "pop3-login", "restart_request_count", "unlimited"),
            ("NFS026", "pop3-login", "client_limit", "1000"),
            ("NFS027", "managesieve-login", "restart_request_count", "unlimited"),
            ("NFS028", "managesieve-login", "client_limit", "1000"),
            ("NFS029", "submission-login", "restart_request_count", "unlimited"),
            ("NFS030", "submission-login", "client_limit", "1000"),
        )
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
        "One machine at a time opens a user's mail: its attribute cache can be trusted for a minute. Without it a session makes "
        "eleven times as many calls.",
        f"{DOVECOT_NFS}; {BILL}: 256, with actimeo=0 2915, with noac 2979 calls of a warm session",
        topology=ONE_AT_A_TIME,
        overrides_2012=True,
    ),
    _option(
        "NFS114",
        "actimeo=0",
        "Any machine may have changed a file: attributes are asked for each time, at the price of twelve times as many calls; a "
        "file held open read-write is refreshed by a lock only.",
        f"{SEED}; measured: neither actimeo=0 nor noac refreshes a file held open read-write; {BILL}: 3126 and, per_user, 256 calls",
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
        kernel_locks=(False,),
    ),
    _option("NFS117", "_netdev", "Mounted after the network is up, unmounted before it goes.", "systemd.mount(5)"),
    _option("NFS118", "nofail", "A dead NFS server must not stop the machine from booting.", "systemd.mount(5)"),
    _option(
        "NFS119",
        "bg",
        "A machine that boots before its NFS server mounts the store, and starts Dovecot, when the server is there.",
        "nfs(5); systemd-fstab-generator, which makes of it a mount that is tried without end",
    ),
    # -- parameters of kernel modules ---------------------------------------------------------------------
    Rule(
        "NFS120",
        "kernel",
        "sunrpc.max_resvport",
        "992",
        "An NFS client sends from any free port of 665 to 1023; from 993 or 995, it keeps Dovecot from listening there.",
        "measured: Dovecot 2.4.1 does not start (exit code 89, Address already in use); Linux, xprtsock.h",
    ),
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
        kernel_locks=(False,),
    ),
    _finding(
        "NFS203",
        "warning",
        "lockd",
        "Lock files instead of kernel locks are slow, and an open file is not refreshed by them.",
        "run lockd, or use NFSv4",
        f"{SEED}; measured: an open file is refreshed by a lock only",
        mailbox_format=("maildir", "mbox", "sdbox"),
        kernel_locks=(False,),
    ),
    _finding(
        "NFS204",
        "error",
        "lockd",
        "Several machines open one mailbox and no lock reaches the others.",
        "run lockd or use NFSv4; better, use topology per_user",
        DOVECOT_NFS,
        topology=("random",),
        kernel_locks=(False,),
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
        DBOX_PAGE,
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
        f"{DOVECOT_NFS}; measured: messages lost for good in each of four runs (docs: faults)",
        topology=("random",),
        overrides_2012=True,
    ),
    _finding(
        "NFS209",
        "error",
        "delivery",
        "Nothing but Dovecot can write sdbox and mdbox.",
        "use delivery lmtp",
        DBOX_PAGE,
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
        "use delivery lmtp through the proxy, or mta",
        f"{SEED}; measured: lock calls and checksums with INDEX=MEMORY",
        topology=CLUSTERED,
        mailbox_format=("maildir",),
        delivery=("lda",),
    ),
    _finding(
        "NFS212",
        "info",
        "index_location",
        "When a user changes backend, the new one rebuilds its indexes: the first login there is slow. All others ask the NFS "
        "server half as often.",
        "expected; use index_location nfs to avoid it",
        f"{SEED}; {BILL}: 118 and, indexes on NFS, 256 calls of a warm session, 15 and 45 of a delivery",
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
        kernel_locks=(False,),
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
        topology=ONE_AT_A_TIME,
        cache_flush=(True,),
    ),
    _finding(
        "NFS216",
        "warning",
        "delivery",
        "Dovecot and the mail transfer agent write one mbox file: both must take the same locks in the same order.",
        "Postfix: mailbox_delivery_lock = fcntl, dotlock (its default on Debian)",
        f"{SEED}; measured: mbox_write_locks of Debian 12 and 13; Debian's Postfix",
        mailbox_format=("mbox",),
        delivery=("mta",),
        kernel_locks=(True,),
    ),
    _finding(
        "NFS217",
        "warning",
        "delivery",
        "Dovecot locks mbox files by lock files only, as no kernel lock reaches the other machines; the mail transfer agent "
        "locks with fcntl unless told otherwise, and the two do not see each other.",
        "Postfix: mailbox_delivery_lock = dotlock; or run lockd, use NFSv4, deliver by lmtp",
        "measured: lock calls of the mbox driver; Debian's Postfix",
        mailbox_format=("mbox",),
        delivery=("mta",),
        kernel_locks=(False,),
    ),
    _finding(
        "NFS218",
        "info",
        "delivery",
        "Mail that another machine puts into a Maildir shows up to a minute late (actimeo), and passes no Sieve and no quota.",
        "expected; use delivery lmtp to avoid it",
        f"{SEED}; Dovecot wiki, LDA indexing",
        topology=ONE_AT_A_TIME,
        mailbox_format=("maildir",),
        delivery=("mta",),
    ),
    _finding(
        "NFS219",
        "warning",
        "mailbox_format",
        "Each machine that opens an mbox reads the whole file over NFS again, and rewrites all of it to expunge.",
        "use maildir; better, topology per_user",
        SEED,
        topology=("random",),
        mailbox_format=("mbox",),
    ),
    _finding(
        "NFS220",
        "info",
        "topology",
        "actimeo=0 shows new files and attributes at once, but does not refresh a file that Dovecot holds open: only a lock "
        "does, so errors remain possible.",
        "at the very least, let the balancer send one client address to one backend; better, use topology per_user",
        f"{SEED}; measured: NFSv3 and v4.2, kernels 6.1 and 6.12",
        topology=("random",),
    ),
    _finding(
        "NFS221",
        "info",
        "mailbox_format",
        "mdbox keeps expunged mail until doveadm purge runs.",
        "the roles have a timer for it (nfsmail_purge_calendar); per_user needs nfsmail_doveadm_password for that, as a proxy "
        "has each user's own backend purge",
        DOVECOT_NFS,
        mailbox_format=("mdbox",),
    ),
    _finding(
        "NFS222",
        "warning",
        "dovecot_version",
        "dovecot-lda of 2.4.0 to 2.4.2 exits with 89 on a configuration error, which bounces mail; 2.4.0 and 2.4.1 also ignore "
        "HOME.",
        "use delivery lmtp, or 2.4.3; give dovecot-lda -o mail_home=$HOME",
        "Dovecot NEWS, 2.4.2 and 2.4.3",
        versions=">=2.4.0,<2.4.3",
        delivery=("lda",),
    ),
    _finding(
        "NFS223",
        "warning",
        "delivery",
        "LMTP on any machine rewrites dovecot-uidlist beside the machine that the user reads on, even with its indexes in "
        "memory.",
        "use topology per_user, or delivery mta",
        "measured: lock calls and checksums with INDEX=MEMORY",
        topology=("random",),
        mailbox_format=("maildir",),
        delivery=("lmtp",),
    ),
    _finding(
        "NFS224",
        "warning",
        "delivery",
        "Several machines deliver into one mbox: without kernel locks between them mail is lost.",
        "run lockd or use NFSv4",
        SEED,
        topology=CLUSTERED,
        mailbox_format=("mbox",),
        delivery=("lda",),
        kernel_locks=(False,),
    ),
    _finding(
        "NFS225",
        "info",
        "delivery",
        "dovecot-lda processes can hang when several deliver to one user over NFS.",
        "if they do, set dovecot_destination_concurrency_limit = 1 in Postfix",
        "Dovecot documentation, LDA page",
        delivery=("lda",),
    ),
    _finding(
        "NFS226",
        "info",
        "mailbox_format",
        "Dovecot 2.4 keeps mbox for old mailboxes only; nothing is mended there any more.",
        "use maildir for new mailboxes",
        "Dovecot NEWS, 2.4.0",
        versions=">=2.4.0",
        mailbox_format=("mbox",),
    ),
    # -- settings that somebody wrote: extra settings, live machines ---------------------------------------
    _written(
        "NFS401",
        "error",
        {"@foreign": ".+"},
        "This Dovecot does not have the setting, and does not start with it.",
        "write it in the dialect of the release",
        REFUSED,
        on=("backend", "proxy"),
    ),
    _written(
        "NFS402",
        "error",
        {"mail_nfs_index": "yes", "mmap_disable": "no"},
        "mail_nfs_index=yes needs mmap_disable=yes; Dovecot does not start without.",
        "set mmap_disable = yes",
        f"{CODE}; {REFUSED}",
    ),
    _written(
        "NFS403",
        "error",
        {"mail_nfs_index": "yes", "mail_fsync": "optimized|never"},
        "mail_nfs_index=yes needs mail_fsync=always; Dovecot does not start without, though its documentation says optimized.",
        "set mail_fsync = always",
        f"{CODE}; {REFUSED}",
    ),
    _written(
        "NFS404",
        "error",
        {"@foreign_value": ".+"},
        "This Dovecot does not take the value.",
        "write one of the values that it has",
        REFUSED,
        on=("backend", "proxy"),
    ),
    _written(
        "NFS405",
        "error",
        {PATHS: r".*%[0-9.]*[LUMNHRX]*[a-zA-Z].*"},
        "Dovecot 2.4 takes one-letter variables literally, without a word: all users share one directory named %d/%n.",
        "write %{user}, %{user | username} and %{user | domain}",
        "measured: 2.4.1 with mail_path = /x/%d/%n, two users in one mailbox",
        versions=">=2.4.0",
        on=("backend", "proxy"),
    ),
    _written(
        "NFS406",
        "error",
        {PATHS: r".*%\{[^}]*[|].*"},
        "Dovecot 2.3 does not know filters in variables (%{user | lower}): every lookup fails, no mailbox opens.",
        "write %Lu, %Ln and %Ld",
        "measured: doveadm user of 2.3.19 fails with exit code 75",
        versions="<2.4.0",
        on=("backend", "proxy"),
    ),
    _written(
        "NFS407",
        "error",
        {"(.*/)?mail_plugins": r".*\$(?!SET:|ENV:)\w.*"},
        "Dovecot 2.4 keeps $mail_plugins as text: no plugin of that name exists, and no mailbox opens.",
        "write mail_plugins { quota = yes }, which adds to the plugins above it",
        "measured: doveconf of 2.4.1 accepts it silently",
        versions=">=2.4.0",
        on=("backend", "proxy"),
    ),
    _written(
        "NFS408",
        "error",
        {"@mail_path": "local"},
        "Mail lies outside the mail store: on the local disk of whichever machine it came in on.",
        "put the path below the mount point",
        DOVECOT_NFS,
    ),
    _written(
        "NFS409",
        "error",
        {"@mail_control_path": "local|memory"},
        "Control files (dovecot-uidlist) of one machine's own give every user other UIDs on each: clients fetch all mail again.",
        "leave control files with the mail",
        "Dovecot documentation, Maildir page",
        topology=CLUSTERED,
    ),
    _written(
        "NFS410",
        "warning",
        {"@mail_control_path": "local|memory"},
        "Control files (dovecot-uidlist) are data: with them go the UIDs, and clients fetch all mail again.",
        "leave control files with the mail",
        "Dovecot documentation, Maildir page",
        topology=("single",),
    ),
    _written(
        "NFS411",
        "error",
        {"@mail_alt_path": "local"},
        "Mail in the alternative storage lies on one machine's own disk: the others cannot read it.",
        "put the path on an NFS mount of all backends",
        DOVECOT_NFS,
        topology=CLUSTERED,
    ),
    _written(
        "NFS412",
        "error",
        {"@mail_volatile_path": "local"},
        "The volatile directory holds locks of the mailbox list and of sizes: on a machine's own disk they keep no other "
        "machine out.",
        "leave it out",
        VOLATILE,
        topology=("random",),
    ),
    _written(
        "NFS413",
        "warning",
        {"@mail_volatile_path": "local|nfs", "@namespaces": "many"},
        "Namespaces that share a volatile directory collide in its lock files.",
        "leave it out, or use 2.4.5",
        "Dovecot source, commit d0b0671cd7 (2.4.5)",
        versions="<2.4.5",
    ),
    _written(
        "NFS414",
        "error",
        {"@mailbox_list_index_prefix": "local"},
        "A mailbox list index of one machine's own does not show folders that were made on another.",
        "leave it out",
        "Dovecot 2.3 documentation, NFS page",
        topology=("random",),
    ),
    _written(
        "NFS415",
        "warning",
        {"@mailbox_list_index_prefix": "local"},
        "After a user has changed backend, the mailbox list index left there is stale; the plugin that removes it is not in "
        "the free edition.",
        "leave it out",
        "Dovecot documentation, NFS page (nfs_hostchange)",
        topology=("per_user",),
    ),
    _written(
        "NFS416",
        "error",
        {"@mail_index_path": "memory"},
        "sdbox and mdbox indexes are data: in memory, flags are lost with each session.",
        "leave the indexes on the mail store",
        DBOX_PAGE,
        mailbox_format=DBOX,
    ),
    _written(
        "NFS417",
        "error",
        {"@mail_index_path": "local"},
        "sdbox and mdbox indexes are data: on another machine the mailbox is empty, saves fail, flags are lost.",
        "leave the indexes on the mail store",
        "measured: 2.3.19 and 2.4.1 with node-local indexes",
        topology=CLUSTERED,
        mailbox_format=DBOX,
    ),
    _written(
        "NFS418",
        "warning",
        {"@mail_index_path": "local"},
        "The indexes lie on this machine's own disk, the plan says on the mail store.",
        "set index_location to local, or correct the path",
        SEED,
        index_location=("nfs",),
        mailbox_format=("maildir", "mbox"),
    ),
    _written(
        "NFS419",
        "error",
        {r"service quota-status(/.*)?": ".*"},
        "quota-status opens the mailbox on whichever machine the mail transfer agent asks.",
        "remove the service; LMTP checks quota with lmtp_rcpt_check_quota on the user's own backend",
        DOVECOT_NFS,
        on=("backend", "proxy"),
        topology=CLUSTERED,
    ),
    _written(
        "NFS420",
        "error",
        {"maildir_very_dirty_syncs": "yes"},
        "With very dirty syncs, mail that something else puts into a folder is never seen.",
        "set maildir_very_dirty_syncs = no",
        SETTINGS_PAGE,
        mailbox_format=("maildir",),
        delivery=("mta",),
    ),
    _written(
        "NFS421",
        "error",
        {SIEVE: r".*\bsieve\b.*|yes"},
        "Sieve's duplicate tracking (vacation) takes fcntl locks whatever lock_method says; they end at this machine.",
        "run lockd, or use NFSv4",
        "Dovecot source, mail-duplicate.c",
        kernel_locks=(False,),
    ),
    _written(
        "NFS422",
        "error",
        {"director_user_expire": r"\d( ?s(ecs?|econds?)?)?"},
        "director_user_expire is below ten seconds; Dovecot does not start with it.",
        "leave the default of 15 minutes, well above the mount's actimeo",
        REFUSED,
        versions="<2.4.0",
        on=("proxy",),
    ),
    _written(
        "NFS423",
        "error",
        {r"namespace[^/]*/type": "shared", r"!namespace[^/]*/(location|mail_driver)": "imapc(:.*)?"},
        "A shared mailbox is opened on the backend of the user who looks, while its owner's backend has it open too.",
        "share mailboxes with topology single only; Dovecot 2.3 can share through imapc by way of the proxy, in extra settings",
        "Dovecot documentation, shared mailboxes, and NFS page",
        topology=CLUSTERED,
    ),
    _written(
        "NFS424",
        "error",
        {r"passdb[^/]*/driver": "lua", "auth_cache_size": "[1-9].*"},
        "The cache of 2.3 keeps a route that Lua returned: a user who was moved goes on to the old backend.",
        "set auth_cache_size = 0",
        "measured: 2.3.19",
        versions="<2.4.0",
        on=("proxy",),
    ),
    _written(
        "NFS425",
        "error",
        {r"passdb[^/]*/args": r"(.* )?cache_key=( .*)?", r"passdb[^/]*/driver": "lua"},
        "An empty cache_key makes the authentication process crash at start.",
        "remove it, and set auth_cache_size = 0",
        "measured: 2.3.19",
        versions="<2.4.0",
        on=("proxy",),
    ),
    _written(
        "NFS426",
        "warning",
        {"protocols(/imap)?": "(.* )?imap( .*)?|yes", "!service imap-login/restart_request_count": "unlimited"},
        "doveadm kick says that it kicked a session, and the session lives on: a moved user is open on two backends.",
        "set restart_request_count = unlimited for the login services, as this collection does; or use 2.4.5",
        "measured: doveadm kick on a 2.4.1 proxy; Dovecot source, commit 42e0c5753b",
        versions=">=2.4.0,<2.4.5",
        on=("proxy",),
        topology=("per_user",),
    ),
    _written(
        "NFS427",
        "error",
        {"!dovecot_config_version": ".+"},
        "Dovecot 2.4 reads nothing before its two version lines, and does not start without them.",
        "write dovecot_config_version and dovecot_storage_version first",
        REFUSED,
        versions=">=2.4.0",
        on=("backend", "proxy"),
    ),
    _written(
        "NFS428",
        "warning",
        {"ssl": "required", "login_trusted_networks": ".+"},
        "With ssl=required, Dovecot 2.4 wants TLS from trusted networks too: proxies that come without are turned away.",
        "set ssl = yes on backends that proxies reach in plain text",
        SETTINGS_PAGE,
        versions=">=2.4.0",
    ),
    _written(
        "NFS429",
        "warning",
        {"@mail_temp_dir": "nfs"},
        "Large messages are spooled here on their way: over NFS they cross the network twice more.",
        "use a local directory such as /tmp",
        SETTINGS_PAGE,
    ),
    _written(
        "NFS430",
        "error",
        {"@attachments": "local"},
        "Attachments lie on one machine's own disk: on the others the messages are incomplete.",
        "put the path below the mount point",
        DOVECOT_NFS,
        topology=CLUSTERED,
    ),
    _written(
        "NFS431",
        "warning",
        {"mailbox_list_index_prefix": "/.*"},
        "This moves the list of mailboxes only, not the indexes, though the documentation's example says so.",
        "to move the indexes, set mail_index_path (in an inventory: nfsmail_index_location)",
        "Dovecot 2.4 documentation, NFS page, optimizations; measured: doveconf of 2.4.1",
        versions=">=2.4.0",
    ),
    _written(
        "NFS432",
        "error",
        {r"service (director|replicator)(/.*)?": ".*"},
        "Dovecot 2.4 has neither director nor replicator.",
        "remove the service; this collection routes users by its shard map",
        "Dovecot NEWS, 2.4.0",
        versions=">=2.4.0",
        on=("backend", "proxy"),
    ),
    _written(
        "NFS433",
        "warning",
        {PATHS: r".*%\{[^}]*\b(sha1|md5) *%[^}]*\}.*"},
        "This is not the hash of 2.3 (%2.256Nu): directories made by 2.3 are not found again.",
        "write %{user | md5 | substr(0, 8) % 256 | hex(2)}",
        "measured: 2.3.19 and 2.4.1",
        versions=">=2.4.0",
    ),
    _written(
        "NFS434",
        "warning",
        {"dotlock_use_excl": "no"},
        "Lock files are made with link() instead of O_EXCL, which is slower, for NFSv2 only; the page of 2012 prints it in "
        "both of its examples.",
        "remove it: the default is yes",
        f"{SEED}; {SETTINGS_PAGE}",
        overrides_2012=True,
        nfs_version=("3", *NFS4),
    ),
    _written(
        "NFS435",
        "warning",
        {"auth_username_chars": r".*['\"\\].*|"},
        "Proxies of 2.3 and 2.4 send user names with quotes or backslashes to different backends: 2.3 hashes the escaped name.",
        "leave these characters out of auth_username_chars, or pin such users with nfsmail_overrides",
        "measured: doveadm auth lookup of 2.3.13, 2.3.19 and 2.4.1",
        on=("proxy",),
        topology=("per_user",),
    ),
    # -- searching and sharing ------------------------------------------------------------------------------
    _written(
        "NFS460",
        "error",
        {INDEXED_SEARCH: r".*\bfts_(flatcurve|xapian|lucene|squat)\b.*|yes"},
        "Several machines write one user's index of words at once.",
        "use topology per_user, or search without an index",
        DOVECOT_NFS,
        topology=("random",),
    ),
    _written(
        "NFS461",
        "error",
        {r"(.*/)?mail_plugins": r".*\bfts\b.*"},
        "The indexer of 2.3 has mailboxes open that doveadm who does not list, and doveadm kick does not end it: a user who is "
        "moved meanwhile is open on two backends.",
        "search without an index until all backends have Dovecot 2.4",
        "measured: doveadm who and kick of 2.3.19 and 2.4.1 while a mailbox is indexed",
        versions="<2.4.0",
        topology=("per_user",),
    ),
    _written(
        "NFS462",
        "error",
        {FLATCURVE: "yes", "lock_method": "dotlock"},
        "Whatever writes or removes mail crashes: the index of words takes a lock that lock files cannot be.",
        "run lockd, or use NFSv4; or search without an index",
        "measured: 2.4.1, each delivery, search and expunge; Dovecot source, file-lock.c",
        versions=">=2.4.0",
    ),
    _written(
        "NFS463",
        "warning",
        {FLATCURVE: "yes", "!fts flatcurve/optimize_limit": "0", "!fts_flatcurve_optimize_limit": "0"},
        "Shards of the index of words are merged and removed while others have them open: NFS keeps such files as .nfs, and with "
        "them the directory, at which expunges in that mailbox crash.",
        "set optimize_limit = 0 for flatcurve; where it crashes, remove the mailbox's directory fts-flatcurve: it is made anew",
        "measured: 2.4.1 with such a directory; dovecot-fts-flatcurve, issue 54",
        versions=">=2.4.0",
        index_location=("nfs",),
    ),
    _written(
        "NFS464",
        "error",
        {r"(.*/)?mail_plugins(/fts)?": r".*\bfts\b.*|yes", r"(plugin/)?fts_autoindex": "yes"},
        "dovecot-lda has mail indexed by the machine that it runs on: a user of another backend is open on two.",
        "set fts_autoindex = no, or use delivery lmtp",
        DOVECOT_NFS,
        topology=CLUSTERED,
        delivery=("lda",),
    ),
    _written(
        "NFS465",
        "info",
        {INDEXED_SEARCH: r".*\bfts_(flatcurve|xapian|lucene|squat)\b.*|yes"},
        "The index of words lies with the index files: when a user changes backend, the first search there reads all mail.",
        "expected; use index_location nfs to avoid it",
        "measured: 2.4.1 with the index of words removed",
        topology=("per_user",),
        index_location=("local",),
    ),
    _written(
        "NFS466",
        "error",
        {r"(.*/)?mail_plugins(/acl)?": r".*\bacl\b.*|yes"},
        "The access list of an mbox folder has no directory when the index files lie elsewhere: folders within folders cannot be "
        "shared.",
        "use index_location nfs, or another mailbox format",
        "measured: SETACL of 2.3.13, 2.3.19 and 2.4.1",
        mailbox_format=("mbox",),
        index_location=("local",),
    ),
    _written(
        "NFS467",
        "error",
        {
            "protocols(/submission)?": "(.* )?submission( .*)?|yes",
            "!(protocol submission/)?submission_relay_host": ".+",
        },
        "The submission server has no mail transfer agent to hand mail to: users log in, and are told of an internal error (451).",
        "set submission_relay_host, or take submission out of protocols",
        "measured: 2.3.19 and 2.4.1",
    ),
    _written(
        "NFS436",
        "warning",
        {QUOTA: r".*\bquota\b.*|yes", "@mail_index_path": "memory"},
        "Quota is counted in the index files; with these in memory, each delivery counts all of the user's mail anew.",
        "use topology per_user and delivery lmtp, or no quota",
        "Dovecot documentation, quota page, driver count",
    ),
    _written(
        "NFS437",
        "info",
        {QUOTA: r".*\bquota\b.*|yes", "@mail_index_path": "local"},
        "Quota is counted in the index files: when a user changes backend, the new one counts all of the user's mail anew.",
        "expected; use index_location nfs to avoid it",
        "Dovecot documentation, quota page, driver count; measured: the same usage with indexes made anew",
        topology=("per_user",),
    ),
    _written(
        "NFS438",
        "warning",
        {QUOTA: r".*\bquota\b.*|yes"},
        "What writes mail past Dovecot asks for no quota: users over quota go on to get mail.",
        "use delivery lmtp",
        "Dovecot documentation, quota page",
        delivery=("mta",),
    ),
    _written(
        "NFS439",
        "error",
        {SIEVE: r".*\bsieve\b.*|yes"},
        "What writes mail past Dovecot runs no Sieve script: nothing is filtered, nobody gets a vacation notice.",
        "use delivery lmtp or lda",
        "Dovecot documentation, Sieve page",
        delivery=("mta",),
    ),
    _written(
        "NFS440",
        "error",
        {"service .*-login/inet_listener .*/haproxy": "yes", "!ssl": "required"},
        "Whoever comes by way of HAProxy counts as secured: passwords are taken without TLS.",
        "set ssl to required",
        "measured: logins of 2.4.1 behind HAProxy; Dovecot source, client-common.c",
        versions=">=2.4.0",
        on=("backend", "proxy"),
    ),
    _written(
        "NFS441",
        "error",
        {"@mail_volatile_path": "local|nfs", "lock_method": "dotlock"},
        "Locks that are lock files do not make their directory: no mailbox can be made, and sizes are counted without a lock.",
        "leave the volatile directory out; or run lockd, or use NFSv4",
        "measured: 2.3.19 and 2.4.1; Dovecot source, mail_storage_dotlock_create in mail-storage.c",
    ),
    _written(
        "NFS442",
        "error",
        {"@mail_volatile_path": "local|nfs", r"namespace[^/]*/type": "shared"},
        "The owner of a shared mailbox and whoever looks at it take different locks: neither keeps the other out.",
        "leave the volatile directory out, or do not share mailboxes",
        "measured: 2.3.19 and 2.4.1; Dovecot source, mailbox_list_lock in mailbox-list.c",
    ),
    _written(
        "NFS443",
        "error",
        {"@mail_volatile_path": "local"},
        "dovecot-lda on another machine takes its locks in that machine's own directory, beside those of the user's backend.",
        "leave it out, or use delivery lmtp through the proxy",
        VOLATILE,
        topology=("per_user",),
        delivery=("lda",),
    ),
)
