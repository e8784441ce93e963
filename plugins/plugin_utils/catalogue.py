# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The Dovecot settings that rules speak of: names and defaults in both dialects.

``tests/dovecot`` asks Dovecot 2.3.13, 2.3.19 and 2.4.1 whether each line is true.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

BOOLEAN = ("yes", "no")
SHARD_MAP = "this collection routes users by its shard map: see docs: routing by shard"
NO_REPLICATOR = "2.4 has no replicator: the NFS store holds the one copy"


@dataclass(frozen=True)
class Setting:
    """One setting: its name in 2.3 and in 2.4 (empty: the dialect does not have it).

    ``default``: what Dovecot does where the setting is not written, in 2.3 and in 2.4 (``None``: not of interest here).
    ``choices``: the only values that Dovecot takes. ``hint``: the way out where the other dialect's name is used.
    ``section``: the name is a section, not a setting.
    """

    old: str
    new: str
    default: tuple[str, str] | None = None
    choices: tuple[str, ...] = ()
    hint: str = ""
    section: bool = False

    def name(self, series: str) -> str:
        """The name in a dialect; empty where there is none."""
        return self.new if series == "2.4" else self.old


def _same(name: str, default: str, *choices: str) -> Setting:
    return Setting(name, name, (default, default), choices)


SETTINGS: tuple[Setting, ...] = (
    _same("mmap_disable", "no", *BOOLEAN),
    _same("mail_fsync", "optimized", "optimized", "never", "always"),
    _same("dotlock_use_excl", "yes", *BOOLEAN),
    _same("mail_nfs_storage", "no", *BOOLEAN),
    _same("mail_nfs_index", "no", *BOOLEAN),
    _same("lock_method", "fcntl", "fcntl", "flock", "dotlock"),
    # doveconf 2.4.1 prints these two empty; which locks it takes was seen with strace.
    _same("mbox_read_locks", "fcntl"),
    Setting("mbox_write_locks", "mbox_write_locks", ("fcntl dotlock", "dotlock fcntl")),
    _same("maildir_very_dirty_syncs", "no", *BOOLEAN),
    _same("auth_cache_size", "0"),
    _same("mail_temp_dir", "/tmp"),
    _same("lmtp_proxy", "no", *BOOLEAN),
    _same("mail_home", ""),
    # -- the mailbox location: one setting in 2.3, one for each part in 2.4
    Setting("mail_location", "", hint="write mail_driver and mail_path, and a setting for each part behind a colon"),
    Setting("", "mail_driver", hint="2.3 has the driver in mail_location, before the first colon"),
    Setting("", "mail_path", hint="2.3 has the path in mail_location, behind the first colon"),
    Setting("", "mail_inbox_path", hint="2.3 has :INBOX= in mail_location"),
    Setting("", "mail_index_path", hint="2.3 has :INDEX= in mail_location"),
    Setting("", "mail_index_private_path", hint="2.3 has :INDEXPVT= in mail_location"),
    Setting("", "mail_cache_path", hint="2.3 has :INDEXCACHE= in mail_location"),
    Setting("", "mail_control_path", hint="2.3 has :CONTROL= in mail_location"),
    Setting("", "mail_volatile_path", hint="2.3 has :VOLATILEDIR= in mail_location"),
    Setting("", "mail_alt_path", hint="2.3 has :ALT= in mail_location"),
    Setting("", "mail_alt_check", hint="2.3 has :ALTNOCHECK in mail_location"),
    Setting("", "mailbox_list_index_prefix", hint="2.3 has :LISTINDEX= in mail_location"),
    Setting("", "mailbox_list_iter_from_index_dir", hint="2.3 has :ITERINDEX in mail_location"),
    Setting("mail_attachment_dir", "mail_ext_attachment_path"),
    Setting("mail_attachment_min_size", "mail_ext_attachment_min_size"),
    Setting("mail_attachment_hash", "mail_ext_attachment_hash"),
    Setting("mail_attachment_fs", "", hint="write a section mail_ext_attachment with the fs driver in it"),
    # -- the file and its sections
    Setting("", "dovecot_config_version", hint="2.3 has no such line"),
    Setting("", "dovecot_storage_version", hint="2.3 has no such line"),
    Setting("", "mailbox_directory_name_legacy", hint="2.3 always uses these names"),
    Setting("", "dict_file_lock_method", hint="2.3 has it in the dict's own parameters"),
    Setting("", "fs_posix_lock_method", hint="2.3 has it in the fs driver's own parameters"),
    Setting("plugin", "", hint="2.4 has plugin settings at the top, under names of their own", section=True),
    Setting("service_count", "restart_request_count", hint="2.4 takes 1 and up, or unlimited in place of 0"),
    # -- logging in
    Setting("disable_plaintext_auth", "auth_allow_cleartext", hint="the meaning is turned round: yes becomes no"),
    Setting("ssl_cert", "ssl_server_cert_file", hint="without the < in front of the path"),
    Setting("ssl_key", "ssl_server_key_file", hint="without the < in front of the path"),
    Setting("ssl_dh", "ssl_server_dh_file", hint="without the < in front of the path"),
    # -- gone with 2.4
    Setting("director_servers", "", hint=SHARD_MAP),
    Setting("director_mail_servers", "", hint=SHARD_MAP),
    Setting("director_user_expire", "", hint=SHARD_MAP),
    Setting("director_username_hash", "", hint=SHARD_MAP),
    Setting("replication_max_conns", "", hint=NO_REPLICATOR),
    Setting("replication_full_sync_interval", "", hint=NO_REPLICATOR),
)
_BY_NAME: Mapping[str, Mapping[str, Setting]] = {
    series: {setting.name(series): setting for setting in SETTINGS if setting.name(series)} for series in ("2.3", "2.4")
}
_GONE_IN_24 = re.compile(r"(director|replication)_\w+\Z")


def known(name: str, series: str) -> Setting | None:
    """The setting of that name in a dialect, if rules speak of it."""
    return _BY_NAME[series].get(name)


def defaults(series: str) -> dict[str, str]:
    """Every default that we know of."""
    return {
        name: setting.default[series == "2.4"]
        for name, setting in _BY_NAME[series].items()
        if setting.default is not None
    }


def foreign(name: str, series: str) -> str:
    """What to do about a name that this dialect does not have though the other has it; empty where all is well."""
    if name in _BY_NAME[series]:
        return ""
    other = _BY_NAME["2.3" if series == "2.4" else "2.4"].get(name)
    if other is None:
        match = _GONE_IN_24.match(name) if series == "2.4" else None
        return (SHARD_MAP if match[1] == "director" else NO_REPLICATOR) if match else ""
    here = other.name(series)
    return "; ".join(text for text in (f"write {here}" if here else "", other.hint) if text)
