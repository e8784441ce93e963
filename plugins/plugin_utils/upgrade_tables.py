# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What became of each setting of Dovecot 2.3 in 2.4, beside what the catalogue has.

``tests/dovecot`` asks Dovecot 2.3.19 whether every setting it has is here, and 2.4.1 whether it takes what stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

UPGRADING = "Dovecot documentation, upgrading 2.3 to 2.4"
MEASURED = "measured: doveconf of 2.3.19 and 2.4.1"


@dataclass(frozen=True)
class Gone:
    """A setting that 2.4 does not have: what that means, what to do, and who says so."""

    happens: str
    fix: str
    source: str = UPGRADING
    level: str = "warning"


@dataclass(frozen=True)
class Default:
    """A default that is another in 2.4.

    ``write``: the old one is written where the file says nothing, as mail on NFS is concerned. ``mailboxes``: of no interest
    to a proxy, which has none. ``protocol``: of interest where that is served. ``only_proxy``: of interest to a proxy.
    """

    name: str
    old: str
    new: str
    why: str
    write: str = ""
    mailboxes: bool = True
    protocol: str = ""
    only_proxy: bool = False
    fix: str = "write the old one where it is needed"
    source: str = MEASURED


# The same name and the same values, but for variables.
SAME = frozenset(
    [
        "auth_anonymous_username",
        "auth_cache_negative_ttl",
        "auth_cache_size",
        "auth_cache_ttl",
        "auth_cache_verify_password_with_worker",
        "auth_debug",
        "auth_debug_passwords",
        "auth_failure_delay",
        "auth_gssapi_hostname",
        "auth_krb5_keytab",
        "auth_master_user_separator",
        "auth_mechanisms",
        "auth_policy_check_after_auth",
        "auth_policy_check_before_auth",
        "auth_policy_hash_mech",
        "auth_policy_hash_nonce",
        "auth_policy_hash_truncate",
        "auth_policy_log_only",
        "auth_policy_reject_on_fail",
        "auth_policy_report_after_auth",
        "auth_policy_server_api_header",
        "auth_policy_server_url",
        "auth_proxy_self",
        "auth_realms",
        "auth_socket_path",
        "auth_ssl_require_client_cert",
        "auth_ssl_username_from_cert",
        "auth_use_winbind",
        "auth_username_chars",
        "auth_username_format",
        "auth_username_translation",
        "auth_verbose",
        "auth_verbose_passwords",
        "auth_winbind_helper_path",
        "base_dir",
        "debug_log_path",
        "default_client_limit",
        "default_internal_group",
        "default_internal_user",
        "default_login_user",
        "default_process_limit",
        "default_vsz_limit",
        "deliver_log_format",
        "dotlock_use_excl",
        "doveadm_allowed_commands",
        "doveadm_api_key",
        "doveadm_password",
        "doveadm_port",
        "doveadm_socket_path",
        "doveadm_ssl",
        "doveadm_username",
        "doveadm_worker_count",
        "dsync_alt_char",
        "dsync_commit_msgs_interval",
        "dsync_features",
        "dsync_hashed_headers",
        "dsync_remote_cmd",
        "first_valid_gid",
        "first_valid_uid",
        "haproxy_timeout",
        "haproxy_trusted_networks",
        "hostname",
        "imap_client_workarounds",
        "imap_fetch_failure",
        "imap_hibernate_timeout",
        "imap_id_retain",
        "imap_idle_notify_interval",
        "imap_literal_minus",
        "imap_logout_format",
        "imap_max_line_length",
        "imap_metadata",
        "imap_urlauth_host",
        "imap_urlauth_logout_format",
        "imap_urlauth_port",
        "imapc_cmd_timeout",
        "imapc_connection_retry_count",
        "imapc_connection_retry_interval",
        "imapc_host",
        "imapc_list_prefix",
        "imapc_master_user",
        "imapc_max_idle_time",
        "imapc_password",
        "imapc_port",
        "imapc_rawlog_dir",
        "imapc_sasl_mechanisms",
        "imapc_ssl",
        "imapc_user",
        "info_log_path",
        "instance_name",
        "last_valid_gid",
        "last_valid_uid",
        "lda_mailbox_autocreate",
        "lda_mailbox_autosubscribe",
        "lda_original_recipient_header",
        "libexec_dir",
        "listen",
        "lmtp_add_received_header",
        "lmtp_client_workarounds",
        "lmtp_hdr_delivery_address",
        "lmtp_proxy",
        "lmtp_proxy_rawlog_dir",
        "lmtp_rawlog_dir",
        "lmtp_rcpt_check_quota",
        "lmtp_save_to_detail_mailbox",
        "lmtp_verbose_replies",
        "lock_method",
        "log_core_filter",
        "log_debug",
        "log_path",
        "log_timestamp",
        "login_greeting",
        "login_log_format",
        "login_log_format_elements",
        "login_plugin_dir",
        "login_plugins",
        "login_proxy_max_disconnect_delay",
        "login_proxy_max_reconnects",
        "login_proxy_notify_path",
        "login_proxy_rawlog_dir",
        "login_proxy_timeout",
        "login_source_ips",
        "login_trusted_networks",
        "mail_access_groups",
        "mail_always_cache_fields",
        "mail_attachment_detection_options",
        "mail_cache_fields",
        "mail_chroot",
        "mail_debug",
        "mail_fsync",
        "mail_full_filesystem_access",
        "mail_gid",
        "mail_home",
        "mail_log_prefix",
        "mail_max_keyword_length",
        "mail_max_lock_timeout",
        "mail_max_userip_connections",
        "mail_never_cache_fields",
        "mail_nfs_index",
        "mail_nfs_storage",
        "mail_plugin_dir",
        "mail_prefetch_count",
        "mail_privileged_group",
        "mail_save_crlf",
        "mail_server_admin",
        "mail_server_comment",
        "mail_shared_explicit_inbox",
        "mail_sort_max_read_count",
        "mail_temp_dir",
        "mail_temp_scan_interval",
        "mail_uid",
        "mail_vsize_bg_after_count",
        "mailbox_idle_check_interval",
        "mailbox_list_index",
        "mailbox_list_index_include_inbox",
        "mailbox_list_index_very_dirty_syncs",
        "maildir_broken_filename_sizes",
        "maildir_copy_with_hardlinks",
        "maildir_empty_new",
        "maildir_stat_dirs",
        "maildir_very_dirty_syncs",
        "mbox_dirty_syncs",
        "mbox_dotlock_change_timeout",
        "mbox_lazy_writes",
        "mbox_lock_timeout",
        "mbox_md5",
        "mbox_min_index_size",
        "mbox_read_locks",
        "mbox_very_dirty_syncs",
        "mbox_write_locks",
        "mdbox_preallocate_space",
        "mdbox_rotate_interval",
        "mdbox_rotate_size",
        "mmap_disable",
        "pop3_client_workarounds",
        "pop3_delete_type",
        "pop3_deleted_flag",
        "pop3_enable_last",
        "pop3_fast_size_lookups",
        "pop3_lock_session",
        "pop3_logout_format",
        "pop3_no_flag_updates",
        "pop3_reuse_xuidl",
        "pop3_save_uidl",
        "pop3_uidl_duplicates",
        "pop3_uidl_format",
        "pop3c_features",
        "pop3c_host",
        "pop3c_master_user",
        "pop3c_password",
        "pop3c_port",
        "pop3c_quick_received_date",
        "pop3c_rawlog_dir",
        "pop3c_ssl",
        "pop3c_ssl_verify",
        "pop3c_user",
        "postmaster_address",
        "process_shutdown_filter",
        "quota_full_tempfail",
        "rawlog_dir",
        "recipient_delimiter",
        "rejection_reason",
        "rejection_subject",
        "sendmail_path",
        "shutdown_clients",
        "ssl",
        "ssl_cipher_list",
        "ssl_cipher_suites",
        "ssl_client_ca_dir",
        "ssl_client_ca_file",
        "ssl_client_require_valid_cert",
        "ssl_crypto_device",
        "ssl_curve_list",
        "ssl_options",
        "state_dir",
        "stats_writer_socket_path",
        "submission_client_workarounds",
        "submission_host",
        "submission_logout_format",
        "submission_max_mail_size",
        "submission_max_recipients",
        "submission_relay_command_timeout",
        "submission_relay_connect_timeout",
        "submission_relay_host",
        "submission_relay_master_user",
        "submission_relay_max_idle_time",
        "submission_relay_password",
        "submission_relay_port",
        "submission_relay_rawlog_dir",
        "submission_relay_ssl",
        "submission_relay_ssl_verify",
        "submission_relay_trusted",
        "submission_relay_user",
        "submission_ssl",
        "submission_timeout",
        "syslog_facility",
        "valid_chroot_dirs",
        "verbose_proctitle",
        "version_ignore",
    ]
)
# Only where dovecot-managesieved is installed.
MANAGESIEVE = frozenset(
    [
        "managesieve_client_workarounds",
        "managesieve_implementation_string",
        "managesieve_logout_format",
        "managesieve_max_compile_errors",
        "managesieve_max_line_length",
        "managesieve_notify_capability",
        "managesieve_sieve_capability",
    ]
)
# Values in which 2.3 expands variables, beside formats (OWN_LETTERS of variables.py).
EXPANDED = frozenset(
    [
        "auth_policy_request_attributes",
        "auth_username_format",
        "dsync_remote_cmd",
        "imapc_master_user",
        "imapc_user",
        "lmtp_proxy_rawlog_dir",
        "lmtp_rawlog_dir",
        "login_greeting",
        "login_proxy_notify_path",
        "mail_chroot",
        "mail_home",
        "mail_log_prefix",
        "mail_temp_dir",
        "pop3c_master_user",
        "pop3c_user",
        "postmaster_address",
        "rawlog_dir",
        "sendmail_path",
        "submission_host",
        "submission_relay_rawlog_dir",
    ]
)
# Another name, the same value. What the catalogue knows is there.
RENAMED: Mapping[str, str] = {
    "auth_default_realm": "auth_default_domain",
    "default_idle_kill": "default_idle_kill_interval",
    "ssl_cert_username_field": "ssl_server_cert_username_field",
    "ssl_key_password": "ssl_server_key_password",
    "ssl_require_crl": "ssl_server_require_crl",
    "ssl_verify_client_cert": "ssl_server_request_client_cert",
}
# "<FILE" in 2.3, the path itself in 2.4.
FILES: Mapping[str, str] = {
    "ssl_alt_cert": "ssl_server_alt_cert_file",
    "ssl_alt_key": "ssl_server_alt_key_file",
    "ssl_ca": "ssl_server_ca_file",
    "ssl_cert": "ssl_server_cert_file",
    "ssl_client_cert": "ssl_client_cert_file",
    "ssl_client_key": "ssl_client_key_file",
    "ssl_dh": "ssl_server_dh_file",
    "ssl_key": "ssl_server_key_file",
}
# Settings of the mailbox location beside paths: the key in 2.3's location, and what 2.4 has for it.
LOCATION_WORDS: Mapping[str, tuple[str, str]] = {
    "NOALTCHECK": ("mail_alt_check", "no"),
    "ITERINDEX": ("mailbox_list_iter_from_index_dir", "yes"),
    "UTF-8": ("mailbox_list_utf8", "yes"),
    "NO-NOSELECT": ("mailbox_list_drop_noselect", "yes"),
    "NO-FS-VALIDATION": ("mailbox_list_validate_fs_names", "no"),
    "LAYOUT": ("mailbox_list_layout", ""),
    "SUBSCRIPTIONS": ("mailbox_subscriptions_filename", ""),
    "DIRNAME": ("mailbox_directory_name", ""),
    "MAILBOXDIR": ("mailbox_root_directory_name", ""),
    "BROKENCHAR": ("mailbox_list_visible_escape_char", ""),
}
_NO_STATS = Gone(
    "the old statistics ended with 2.3", "see the page on statistics: metrics, and doveadm stats dump", level="info"
)
_LUA = "write a Lua password database, see the page on Lua authentication"
GONE: Mapping[str, Gone] = {
    "auth_stats": _NO_STATS,
    "auth_worker_max_count": Gone("", ""),
    "config_cache_size": Gone("2.4 reads its configuration another way", "nothing", MEASURED, "info"),
    "dict_db_config": Gone(
        "Berkeley DB is not supported any more", "use another driver for the dictionary", level="error"
    ),
    "doveadm_http_rawlog_dir": Gone(
        "moved to http_client_rawlog_dir within doveadm_server { }", "write it there where it is needed", level="info"
    ),
    "imap_id_log": Gone(
        "what clients call themselves is told by the event imap_id_received", "log the event", level="info"
    ),
    "login_access_sockets": Gone("TCP wrappers ended with 2.3: who was kept out is let in", _LUA, level="error"),
    "master_user_separator": Gone("2.3 knew it by auth_master_user_separator", "write that one", MEASURED),
    "mail_attachment_fs": Gone(
        "attachments that were stored apart are not found until the fs driver is written; sis is read-only in 2.4",
        "write the drivers as fs blocks within mail_ext_attachment { }, see the page on attachments",
        level="error",
    ),
    "stats_http_rawlog_dir": Gone(
        "moved to http_client_rawlog_dir within stats_server { }", "write it there where it is needed", level="info"
    ),
}
SERVICES_GONE: Mapping[str, Gone] = {
    "ipc": Gone("its work is done by the service anvil", "nothing", level="info"),
    "old-stats": _NO_STATS,
    "tcpwrap": Gone("TCP wrappers ended with 2.3: who was kept out is let in", _LUA, level="error"),
    "ssl-params": Gone("Diffie-Hellman parameters are not generated any more", "nothing", level="info"),
}
# Within service { }, fifo_listener { }, unix_listener { } and inet_listener { }.
SERVICE_SAME = frozenset(
    [
        "chroot",
        "client_limit",
        "drop_priv_before_exec",
        "executable",
        "extra_groups",
        "group",
        "privileged_group",
        "process_limit",
        "process_min_avail",
        "protocol",
        "type",
        "user",
        "vsz_limit",
        "mode",
        "port",
        "haproxy",
        "reuse_port",
        "ssl",
    ]
)
SERVICE_RENAMED: Mapping[str, str] = {"idle_kill": "idle_kill_interval", "address": "listen"}

DATABASE_GONE: Mapping[str, str] = {
    "checkpassword": "checkpassword ended with 2.3",
    "dict": "dictionaries as user databases ended with 2.3",
    "shadow": "2.4 does not read /etc/shadow itself: use pam",
    "vpopmail": "vpopmail ended with 2.2",
    "sia": "sia ended with 2.2",
    "nss": "nss ended with 2.2",
}
DATABASE_SAME = frozenset(
    [
        "deny",
        "master",
        "skip",
        "result_failure",
        "result_internalfail",
        "result_success",
        "username_filter",
        "auth_verbose",
    ]
)
# Fields of userdbs that were settings of plugins or the mailbox location: another name in 2.4.
NAMESPACE_SAME = frozenset(
    [
        "type",
        "separator",
        "inbox",
        "hidden",
        "list",
        "subscriptions",
        "ignore_on_failure",
        "disabled",
        "order",
        "alias_for",
    ]
)
MAILBOX_SAME = frozenset(["auto", "special_use", "autoexpunge", "autoexpunge_max_mails", "comment"])

PLUGIN_SAME = frozenset(
    [
        "acl",
        "apparmor",
        "charset_alias",
        "fts",
        "fts_flatcurve",
        "fts_solr",
        "imap_acl",
        "imap_filter_sieve",
        "imap_quota",
        "imap_sieve",
        "last_login",
        "lazy_expunge",
        "mail_crypt",
        "mail_crypt_acl",
        "mail_log",
        "mail_lua",
        "notify",
        "notify_status",
        "pop3_migration",
        "push_notification",
        "push_notification_lua",
        "quota",
        "quota_clone",
        "sieve",
        "trash",
        "virtual",
        "welcome",
    ]
)
PLUGIN_RENAMED: Mapping[str, str] = {"zlib": "mail_compress"}
PLUGINS_GONE: Mapping[str, Gone] = {
    "autocreate": Gone("it ended with 2.2", "write auto = create or subscribe into mailbox blocks"),
    "expire": Gone("it ended with 2.2", "write autoexpunge into mailbox blocks"),
    "fts_lucene": Gone("it ended with 2.3", "use fts_flatcurve or fts_solr, and index again", level="error"),
    "fts_squat": Gone("it ended with 2.3", "use fts_flatcurve or fts_solr, and index again", level="error"),
    "imap_old_stats": _NO_STATS,
    "imap_stats": _NO_STATS,
    "imap_zlib": Gone("2.4 compresses IMAP where clients ask for it, without a plugin", "nothing", level="info"),
    "listescape": Gone(
        "it ended with 2.3: folders with escaped characters in their names look different",
        "write mailbox_list_storage_escape_char with the character that was in use, by default a backslash",
        level="error",
    ),
    "mail_filter": Gone("it ended with 2.3", "do without, or use Sieve", level="error"),
    "mailbox_alias": Gone("it ended with 2.3", "use special_use in mailbox blocks, or Sieve"),
    "old_stats": _NO_STATS,
    "snarf": Gone("it ended with 2.3", "deliver with LMTP", level="error"),
    "stats": _NO_STATS,
}
# -- plugin { } of 2.3: settings of the whole file in 2.4
PLUGIN_SETTINGS_SAME = frozenset(
    [
        "acl_defaults_from_inbox",
        "acl_globals_only",
        "acl_groups",
        "acl_user",
        "apparmor_hats",
        "lazy_expunge_only_last_instance",
        "mail_log_cached_only",
        "pop3_deleted_flag",
        "pop3_migration_all_mailboxes",
        "pop3_migration_ignore_extra_uidls",
        "pop3_migration_ignore_missing_uidls",
        "pop3_migration_mailbox",
        "pop3_migration_skip_size_check",
        "pop3_migration_skip_uidl_cache",
        "quota_exceeded_message",
        "quota_status_nouser",
        "quota_status_overquota",
        "quota_status_success",
        "quota_status_toolarge",
        "sieve_duplicate_default_period",
        "sieve_duplicate_max_period",
        "sieve_editheader_max_header_size",
        "sieve_execute_bin_dir",
        "sieve_execute_exec_timeout",
        "sieve_execute_input_eol",
        "sieve_execute_socket_dir",
        "sieve_filter_bin_dir",
        "sieve_filter_exec_timeout",
        "sieve_filter_input_eol",
        "sieve_filter_socket_dir",
        "sieve_include_max_includes",
        "sieve_include_max_nesting_depth",
        "sieve_max_actions",
        "sieve_max_cpu_time",
        "sieve_max_redirects",
        "sieve_max_script_size",
        "sieve_notify_mailto_envelope_from",
        "sieve_pipe_bin_dir",
        "sieve_pipe_exec_timeout",
        "sieve_pipe_input_eol",
        "sieve_pipe_socket_dir",
        "sieve_plugins",
        "sieve_redirect_envelope_from",
        "sieve_resource_usage_timeout",
        "sieve_spamtest_status_header",
        "sieve_spamtest_status_type",
        "sieve_trace_addresses",
        "sieve_trace_debug",
        "sieve_trace_dir",
        "sieve_trace_level",
        "sieve_user_email",
        "sieve_vacation_default_period",
        "sieve_vacation_default_subject",
        "sieve_vacation_default_subject_template",
        "sieve_vacation_max_period",
        "sieve_vacation_min_period",
        "sieve_vacation_send_from_recipient",
        "sieve_vacation_to_header_ignore_envelope",
        "sieve_vacation_use_original_recipient",
        "sieve_virustest_status_header",
        "sieve_virustest_status_type",
        "virtual_max_open_mailboxes",
    ]
)
PLUGIN_SETTINGS_RENAMED: Mapping[str, str] = {
    "lazy_expunge": "lazy_expunge_mailbox",
    "quota_max_mail_size": "quota_mail_size",
    "sieve_quota_max_scripts": "sieve_quota_script_count",
    "sieve_quota_max_storage": "sieve_quota_storage_size",
    "sieve_spamtest_max_header": "sieve_spamtest_score_max_header",
    "sieve_spamtest_max_value": "sieve_spamtest_score_max_value",
    "sieve_user_log": "sieve_user_log_path",
    "sieve_variables_max_scope_size": "sieve_variables_max_scope_count",
    "sieve_variables_max_variable_size": "sieve_variables_max_value_size",
    "sieve_virustest_max_header": "sieve_virustest_score_max_header",
    "sieve_virustest_max_value": "sieve_virustest_score_max_value",
}
PLUGIN_SETTINGS_GONE: Mapping[str, Gone] = {
    "acl_shared_dict": Gone(
        "who shares folders with whom is not looked up until the dictionary is written",
        "write acl_sharing_map { dict ... { } }, see the page on the ACL plugin",
        level="error",
    ),
    "quota_vsizes": Gone("2.4 always counts virtual sizes with quota count", "nothing", level="info"),
    "quota_set": Gone("clients cannot change their quota any more", "nothing", level="info"),
    "mail_log_group_events": Gone("2.4 has no such setting", "nothing", level="info"),
    "sieve_vacation_max_subject_codepoints": Gone("2.4 has no such setting", "nothing", level="info"),
    "sieve_global_path": Gone(
        "it ended with 2.3", "write sieve_script NAME { type = default } with that path", level="error"
    ),
    "sieve_editheader_protected": Gone(
        "replaced by sieve_editheader_header blocks",
        "write forbid_add and forbid_delete for each header",
        level="error",
    ),
    "trash": Gone(
        "the file with the folders' priorities is not read any more",
        "write trash_priority into the mailbox blocks",
        level="error",
    ),
    "fts_autoindex_max_recent_msgs": Gone(
        "its meaning has changed with the mailbox blocks", "write it by hand", level="warning"
    ),
}
SIEVE_EXTENSIONS_GONE = ("notify", "imapflags", "vnd.dovecot.duplicate")
# imapc: what is on unless it is switched off, and the word for that.
IMAPC_FEATURES: Mapping[str, str] = {
    "rfc822.size": "no-fetch-size",
    "fetch-headers": "no-fetch-headers",
    "fetch-bodystructure": "no-fetch-bodystructure",
    "search": "no-search",
    "modseq": "no-modseq",
    "delay-login": "no-delay-login",
    "acl": "no-acl",
}

DEFAULTS: tuple[Default, ...] = (
    Default(
        "mail_cache_fields",
        "flags",
        "flags, headers, sizes and structures, 20 fields",
        "new cache files are bigger and are written more often, on NFS too",
        "flags",
    ),
    Default(
        "mbox_write_locks",
        "fcntl dotlock",
        "dotlock fcntl",
        "machines and the MTA that lock in another order wait for each other until a timeout",
        "fcntl dotlock",
    ),
    Default(
        "mailbox_list_drop_noselect",
        "no",
        "yes",
        "2.4 deletes folders without mail and without subfolders, and lets clients create them otherwise",
        "no",
        source=f"{UPGRADING}: default settings",
    ),
    Default(
        "lmtp_user_concurrency_limit",
        "0, no limit",
        "10",
        "an eleventh delivery for one user at the same time is put off, and the MTA tries again",
        protocol="lmtp",
    ),
    Default(
        "service lmtp/restart_request_count",
        "no limit",
        "1",
        "each LMTP connection has a new process",
        mailboxes=False,
        protocol="lmtp",
    ),
    Default(
        "mail_cache_max_headers_count",
        "no limit",
        "100",
        "a mailbox whose clients ask for very many headers stops caching some",
        source=f"{UPGRADING}: default settings",
    ),
    Default(
        "passdb field port, LMTP",
        "the port that the proxy was asked on",
        "24",
        "a proxy hands LMTP to port 24 of backends unless the passdb returns port",
        mailboxes=False,
        protocol="lmtp",
        only_proxy=True,
        fix="return port where backends listen elsewhere",
        source=f"{UPGRADING}: service defaults",
    ),
    Default(
        "auth_allow_weak_schemes",
        "weak schemes were taken",
        "no",
        "passwords stored as MD5-CRYPT, DES-CRYPT, SMD5, HMAC-MD5, CRAM-MD5, PLAIN-MD4, PLAIN-MD5 or LDAP-MD5 are refused",
        mailboxes=False,
        fix="let these users choose new passwords, or write auth_allow_weak_schemes = yes meanwhile",
        source=f"{UPGRADING}: removed features",
    ),
)
