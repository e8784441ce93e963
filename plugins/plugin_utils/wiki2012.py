# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The page "NFS" of the Dovecot wiki, 2012-07-05: each of its statements, what it is worth today and what serves it.

And what of today's documentation has no rule, with the reason. ``docs/settings_matrix.md`` is written from both.
"""

from __future__ import annotations

from dataclasses import dataclass

KEPT, REFINED, CHANGED, DROPPED = "holds", "holds, with more to it", "changed", "dropped"


@dataclass(frozen=True)
class Statement:
    """One statement of the page in our words; ``served``: ids of rules and checks, or other parts of the collection."""

    id: str
    says: str
    verdict: str
    served: tuple[str, ...]
    today: str


@dataclass(frozen=True)
class LeftOut:
    """Something that is documented and has no rule."""

    what: str
    why: str


STATEMENTS: tuple[Statement, ...] = (
    Statement(
        "W01",
        "NFS is used from one machine, from several at random, or from several with a machine for each user.",
        KEPT,
        ("topology",),
        "The three values of one variable.",
    ),
    Statement(
        "W02",
        "Only the director makes several machines reliable.",
        CHANGED,
        ("NFS208", "NFS401", "NFS432", "NFS318"),
        "2.4 has no director. Proxies with one shard map give each user one backend, on 2.3 and 2.4.",
    ),
    Statement(
        "W03",
        "One machine or a director: mmap_disable=yes, mail_fsync=always, mail_nfs_storage=no, mail_nfs_index=no.",
        KEPT,
        ("NFS001", "NFS002", "NFS005", "NFS008"),
        "Written for single and per_user.",
    ),
    Statement(
        "W04",
        "dotlock_use_excl=no stands in both examples, though only NFSv2 needs it.",
        CHANGED,
        ("NFS003", "NFS004", "NFS434"),
        "Written for NFSv2 only; elsewhere yes is right and faster.",
    ),
    Statement(
        "W05",
        "Several machines at random: the same with mail_nfs_storage=yes and mail_nfs_index=yes.",
        REFINED,
        ("NFS007", "NFS010", "NFS402", "NFS403"),
        "Dovecot calls it unsupported. mail_nfs_index needs mail_fsync=always; today's documentation says optimized, and "
        "Dovecot does not start with that.",
    ),
    Statement(
        "W06",
        "Flushing NFS caches costs operations and is not fully reliable.",
        KEPT,
        ("NFS215", "NFS220"),
        "Off outside random.",
    ),
    Statement(
        "W07",
        "Run a time daemon on the NFS server and on all clients.",
        KEPT,
        ("role timesync", "NFS306", "NFS308", "NFS313"),
        "chrony or ntpsec; Dovecot starts after the clock is in step.",
    ),
    Statement(
        "W08",
        "Clocks more than a second apart give errors.",
        KEPT,
        ("NFS306", "NFS307"),
        "Measured against the server's daemon and against the time stamps that it gives to files.",
    ),
    Statement(
        "W09",
        "The best cure for caching problems: a user is always on the same machine, unless it is down.",
        KEPT,
        ("per_user", "NFS318", "NFS302"),
        "Overrides and a shard map on each proxy, the same everywhere.",
    ),
    Statement(
        "W10",
        "Deliveries go through the same machine, or leave index files alone.",
        REFINED,
        ("NFS021", "NFS022", "NFS210", "NFS211", "NFS223"),
        "Indexes in memory are not enough: dovecot-uidlist is written all the same.",
    ),
    Statement(
        "W11",
        "mail_nfs_storage=yes flushes when needed, but not always rightly.",
        KEPT,
        ("NFS007", "NFS208", "NFS220"),
        "A file held open read-write is refreshed by a lock only, whatever the mount options.",
    ),
    Statement(
        "W12",
        "actimeo=0 or noac helps, at a high price.",
        CHANGED,
        ("NFS113", "NFS114", "NFS115"),
        "Only for random. single and per_user want actimeo of 60 or more; lookupcache=positive is the cheap part of the cure.",
    ),
    Statement(
        "W13",
        "Indexes on NFS need mmap_disable=yes.",
        KEPT,
        ("NFS001", "NFS402"),
        "Always written.",
    ),
    Statement(
        "W14",
        "Without lockd set lock_method=dotlock, which is slower.",
        REFINED,
        ("NFS014", "NFS017", "NFS020", "NFS202", "NFS203", "NFS217", "NFS224", "NFS421"),
        "Not enough for mdbox, mbox and Sieve, which lock by the kernel anyway. NFSv4 needs no lockd.",
    ),
    Statement(
        "W15",
        "With locking errors, see whether they go away with dotlocking.",
        REFINED,
        ("NFS203", "NFS309", "NFS310", "NFS316", "NFS317", "NFS319"),
        "verify tries a real lock between machines first; nfsmail_lockd: false switches.",
    ),
    Statement(
        "W16",
        "With mbox and Maildir, indexes may lie on local disk.",
        REFINED,
        ("NFS011", "NFS206", "NFS207", "NFS416", "NFS417", "NFS418"),
        "Never with sdbox and mdbox on several machines: there indexes are data.",
    ),
    Statement(
        "W17",
        "Local indexes are made anew by themselves when a user comes to another machine.",
        KEPT,
        ("NFS212",),
        "For maildir and mbox.",
    ),
    Statement(
        "W18",
        "Local indexes are faster while users stay, and slow to rebuild when they move.",
        KEPT,
        ("NFS212",),
        "A choice: nfsmail_index_location.",
    ),
    Statement(
        "W19",
        "One machine: like local mail; for speed keep indexes on local disk.",
        REFINED,
        ("NFS207", "NFS410"),
        "With sdbox and mdbox that disk must be as safe as the mail; control files stay with the mail.",
    ),
    Statement(
        "W20",
        "Avoid random redirects whenever possible.",
        REFINED,
        ("NFS204", "NFS205", "NFS208"),
        "Refused without nfsmail_accept_unsupported_random; refused outright for sdbox, mdbox, and without locks.",
    ),
    Statement(
        "W21",
        "At random, memory caches less, and mbox suffers more.",
        KEPT,
        ("NFS219",),
        "A warning.",
    ),
    Statement(
        "W22",
        "At the very least, send one client address to one machine.",
        KEPT,
        ("NFS220",),
        "The balancer's task.",
    ),
    Statement(
        "W23",
        "A machine for each user performs a lot better.",
        KEPT,
        ("per_user", "NFS113"),
        "Attributes are cached for a minute.",
    ),
    Statement(
        "W24",
        "Deliveries by other machines are no problem with Maildir, unless by LDA.",
        REFINED,
        ("NFS211", "NFS218", "NFS222", "NFS225", "NFS420"),
        "New mail shows up to a minute late; very dirty syncs must be off.",
    ),
    Statement(
        "W25",
        "Deliveries by other machines are no problem with mbox and fcntl locking.",
        REFINED,
        ("NFS015", "NFS018", "NFS216", "NFS217", "NFS224", "NFS226"),
        "The order of locks matters too, and Debian's default changed it between 12 and 13: it is always written.",
    ),
    Statement(
        "W26",
        "LMTP, by way of Dovecot's LMTP proxy, solves delivery.",
        KEPT,
        ("delivery", "NFS209", "NFS210"),
        "The default.",
    ),
    Statement(
        "W27",
        "A list of kernels that were tried as NFS clients.",
        DROPPED,
        (),
        "Its kernels are from 2012; Dovecot dropped the list in 2021. What is proven here has a page of its own.",
    ),
    Statement(
        "W28",
        "The page is for Dovecot 2.x.",
        CHANGED,
        ("NFS401", "NFS405", "NFS406", "NFS427"),
        "2.3 and 2.4 differ in names and syntax; both are written and judged.",
    ),
)

LEFT_OUT: tuple[LeftOut, ...] = (
    LeftOut(
        "mmap_disable=no where all indexes are on local disk",
        "It would save little, and a user or an index path that moves to NFS later would be corrupted. Always yes.",
    ),
    LeftOut(
        "mail_max_lock_timeout, mbox_lock_timeout, mbox_dotlock_change_timeout",
        "The defaults are the same everywhere, and shorter waits turn a slow server into errors.",
    ),
    LeftOut(
        "maildir_copy_with_hardlinks, maildir_stat_dirs, mailbox_list_index",
        "The defaults are right on NFS. Hard links must work on the export; every NFS server of Linux has them.",
    ),
    LeftOut(
        "mail_cache_fields, mail_attachment_detection_options, mailbox_directory_name_legacy",
        "Their defaults follow dovecot_config_version. What matters is that backends agree on it: NFS320 looks.",
    ),
    LeftOut(
        "INDEXPVT, ITERINDEX, ALTNOCHECK, ALT and their names in 2.4",
        "Not written. Where somebody writes them, the paths are judged (NFS408 to NFS418).",
    ),
    LeftOut(
        "lmtp_user_concurrency_limit, restart counts of LMTP",
        "Load, not correctness; use dovecot_extra_settings.",
    ),
    LeftOut(
        "login_proxy_timeout, login_proxy_max_reconnects, login_proxy_max_disconnect_delay",
        "The defaults try a backend four times within three seconds. Sending users elsewhere is failover, not a setting.",
    ),
    LeftOut(
        "Attachments stored apart (mail_attachment_dir, single instance storage)",
        "Not written; 2.4 reads old ones only. A path that leaves the store is an error (NFS430).",
    ),
    LeftOut(
        "dict and fs-posix lock methods, quota, ACL, full-text search, where Sieve keeps its binaries",
        "This collection configures none of these. With full-text search keep its files with the user's indexes.",
    ),
    LeftOut(
        "Which of sdbox and mdbox, alternative storage, doveadm altmove",
        "The operator's choice. mdbox wants doveadm purge (NFS221).",
    ),
    LeftOut(
        "Maildir is 'mainly viable for smaller installations' (2.4)",
        "An opinion about size; nothing that could be checked.",
    ),
    LeftOut(
        "GlusterFS, FUSE, CIFS",
        "The mail store is NFS: verify fails for any other file system (NFS303).",
    ),
    LeftOut(
        "Kernel bugs of Linux 2.4 and 2.6 and of FreeBSD",
        "None of these kernels runs a Debian that is supported here.",
    ),
    LeftOut(
        "Syntax errors in 2.4's variables, which make doveconf abort",
        "doveconf judges every file before it is put in place.",
    ),
    LeftOut(
        "The director of 2.3 (director_servers and so on)",
        "No rule writes them: dovecot_proxy_mode director does, for rings that exist already; the shard map does the same on 2.3 "
        "and 2.4. On proxies of strangers they are judged (NFS401, NFS422, NFS432).",
    ),
    LeftOut(
        "Lua in password databases, proxy_maybe on every node",
        "Not written: the shard map needs no Lua and no mesh. Known traps are judged (NFS424, NFS425); what a script returns "
        "cannot be read from settings.",
    ),
    LeftOut(
        "sdbox and mdbox in random with an opt-in",
        "Two machines at once lose mail there; it stays an error (NFS205).",
    ),
    LeftOut(
        "Port of LMTP behind the proxy",
        "Proxies and backends take the same variable, so they cannot differ.",
    ),
)
