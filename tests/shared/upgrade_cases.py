# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""Configurations of Dovecot 2.3 as sites have them. What 2.3.19 prints of each is in ``doveconf23/NAME.txt``."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dovecot_conf import backend_conf, proxy_conf
from plans import PROXIES, backend, proxy

FOLDER = Path(__file__).with_name("doveconf23")
BACKENDS = [{"name": "mail1", "address": "192.0.2.11"}, {"name": "mail2", "address": "192.0.2.12"}]

# One backend, by the wiki's NFS page of 2012.
WIKI = """
protocols = imap pop3 lmtp
mail_location = maildir:~/Maildir:INDEX=/var/lib/dovecot/index/%u:CONTROL=~/control
mail_home = /srv/mail/%Ld/%Ln
mail_uid = vmail
mail_gid = vmail
first_valid_uid = 5000
mmap_disable = yes
dotlock_use_excl = no
mail_fsync = always
mail_nfs_storage = no
mail_nfs_index = no
lock_method = fcntl
mail_cache_fields = flags
lda_mailbox_autocreate = yes
lmtp_user_concurrency_limit = 3
ssl = required
ssl_cert = </etc/dovecot/cert.pem
ssl_key = </etc/dovecot/key.pem
ssl_prefer_server_ciphers = yes
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_worker_max_count = 60
auth_debug = yes
verbose_ssl = yes
mail_log_prefix = "%s(%u)<%p>: "
login_log_format_elements = user=<%u> method=%m rip=%r lip=%l mpid=%e %c
pop3_uidl_format = %08Xv%08Xu
postmaster_address = postmaster@%d
listen = 192.0.2.11, ::
imap_id_send = name * version *
passdb {
  driver = pam
  args = session=yes failure_show_msg=yes max_requests=50 *
}
passdb {
  driver = passwd-file
  args = scheme=SHA512-CRYPT username_format=%Lu /etc/dovecot/users
  deny = no
  override_fields = allow_nets=192.0.2.0/24
}
userdb {
  driver = passwd-file
  args = username_format=%Lu /etc/dovecot/users
  default_fields = uid=vmail gid=vmail home=/srv/mail/%d/%n
}
namespace inbox {
  inbox = yes
  separator = .
  prefix = INBOX.
  mailbox "Sent Messages" {
    special_use = \\Sent
    auto = subscribe
  }
  mailbox Trash {
    special_use = \\Trash
    autoexpunge = 30d
  }
}
protocol lda {
  mail_location = maildir:~/Maildir:INDEX=MEMORY
  postmaster_address = lda@example.com
}
protocol imap {
  mail_max_userip_connections = 20
  imap_idle_notify_interval = 5 mins
}
service imap-login {
  service_count = 0
  process_min_avail = 2
  vsz_limit = 512 M
  inet_listener imap {
    address = 127.0.0.1
  }
  inet_listener imaps {
    port = 993
    ssl = yes
  }
}
service imap {
  process_limit = 2000
}
service auth {
  unix_listener /var/spool/postfix/private/auth {
    mode = 0660
    user = $default_internal_user
    group = $default_internal_group
  }
}
local_name mail.example.com {
  ssl_cert = </etc/dovecot/cert.pem
  ssl_key = </etc/dovecot/key.pem
}
remote 192.0.2.0/24 {
  disable_plaintext_auth = no
}
"""

# Virtual users in SQL; only what stands in dovecot.conf.
VIRTUAL = """
protocols = imap lmtp
mail_home = /srv/vmail/%d/%n
mail_location = mdbox:~/mdbox:ALT=/srv/old/%2.256Nu/%u
mail_uid = 5000
mail_gid = 5000
mdbox_rotate_size = 32 M
mail_attachment_dir = /srv/attachments
mail_attachment_min_size = 64 k
passdb {
  driver = sql
  args = /etc/dovecot/dovecot-sql.conf.ext
}
passdb {
  driver = ldap
  args = /etc/dovecot/dovecot-ldap.conf.ext
}
userdb {
  driver = prefetch
}
userdb {
  driver = sql
  args = /etc/dovecot/dovecot-sql.conf.ext
  override_fields = mail=mdbox:~/mdbox quota_rule=*:storage=5G
}
dict {
  expire = mysql:/etc/dovecot/dovecot-dict-sql.conf.ext
}
mail_attribute_dict = file:%h/dovecot-attributes
namespace inbox {
  inbox = yes
}
namespace {
  type = public
  prefix = Public/
  separator = /
  location = maildir:/srv/public:INDEXPVT=~/public
  subscriptions = no
  list = children
}
namespace {
  type = shared
  prefix = shared/%%u/
  separator = /
  location = mdbox:%%h/mdbox:INDEXPVT=~/shared/%%u
  subscriptions = no
}
"""

# Sieve, quota, ACL and what else is loaded.
PLUGINS = """
protocols = imap lmtp
mail_location = maildir:~/Maildir
mail_home = /srv/mail/%u
mail_plugins = quota acl zlib notify mail_log trash fts fts_flatcurve
plugin {
  sieve = file:~/sieve;active=~/.dovecot.sieve
  sieve_before = /etc/dovecot/sieve/before.d
  sieve_after = /etc/dovecot/sieve/after.sieve
  sieve_default = /etc/dovecot/sieve/default.sieve
  sieve_default_name = roundcube
  sieve_extensions = +notify +imapflags +vnd.dovecot.filter -vacation
  sieve_global_extensions = +vnd.dovecot.pipe
  sieve_plugins = sieve_imapsieve sieve_extprograms
  sieve_pipe_bin_dir = /usr/local/lib/sieve
  sieve_max_redirects = 10
  sieve_vacation_dont_check_recipient = yes
  sieve_quota_max_storage = 50M
  sieve_user_log = ~/.dovecot.sieve.log
  imapsieve_mailbox1_name = Junk
  imapsieve_mailbox1_causes = COPY
  imapsieve_mailbox1_before = file:/etc/dovecot/sieve/learn-spam.sieve
  quota = count:User quota
  quota_vsizes = yes
  quota_rule = *:storage=1G:messages=100000
  quota_rule2 = Trash:storage=+100M
  quota_rule3 = Spam:ignore
  quota_grace = 10%%
  quota_max_mail_size = 50M
  quota_warning = storage=95%% quota-warning 95 %u
  quota_warning2 = -storage=100%% quota-warning below %u
  quota_exceeded_message = Your mailbox is full.
  quota_status_success = DUNNO
  acl = vfile:/etc/dovecot/global-acls:cache_secs=300
  acl_shared_dict = file:/srv/mail/shared-mailboxes
  acl_anyone = allow
  zlib_save = gz
  zlib_save_level = 6
  mail_log_events = delete undelete expunge mailbox_delete mailbox_rename
  mail_log_fields = uid box msgid size
  trash = /etc/dovecot/dovecot-trash.conf.ext
  lazy_expunge = EXPUNGED/
  fts = flatcurve
  fts_autoindex = yes
  fts_autoindex_exclude = Trash
  some_third_party_setting = 17
}
protocol imap {
  mail_plugins = $mail_plugins imap_quota imap_acl imap_zlib
}
protocol lmtp {
  mail_plugins = quota sieve
}
passdb {
  driver = passwd-file
  args = /etc/dovecot/users
}
userdb {
  driver = static
  args = uid=5000 gid=5000 home=/srv/mail/%u mail=maildir:~/Maildir
}
namespace inbox {
  inbox = yes
  mailbox Trash {
    auto = subscribe
  }
}
service quota-warning {
  executable = script /usr/local/bin/quota-warning
  user = vmail
  unix_listener quota-warning {
    user = vmail
  }
}
service imap-postlogin {
  executable = script-login /usr/local/bin/postlogin
}
"""

# A proxy with a password database that sends everybody to one backend, by TLS.
PROXY = """
protocols = imap lmtp
lmtp_proxy = yes
login_proxy_timeout = 10 secs
login_trusted_networks = 192.0.2.0/24
ssl = required
ssl_cert = </etc/dovecot/cert.pem
ssl_key = </etc/dovecot/key.pem
ssl_client_ca_dir = /etc/ssl/certs
auth_cache_size = 10 M
haproxy_trusted_networks = 192.0.2.31
passdb {
  driver = static
  args = proxy=y nopassword=y host=192.0.2.11 starttls=any-cert pass=not-a-real-secret
}
userdb {
  driver = static
  args = uid=65534 gid=65534 home=/nonexistent
}
service imap-login {
  client_limit = 1000
  inet_listener imap {
    haproxy = yes
  }
}
"""

# A backend whose replicator keeps a second one up to date; hibernation, old statistics, full text search by squat.
REPLICATOR = """
protocols = imap
mail_location = mdbox:~/mdbox
mail_home = /srv/mail/%n
mail_plugins = notify replication old_stats fts fts_squat listescape
doveadm_port = 12345
doveadm_password = not-a-real-secret
replication_max_conns = 5
imap_hibernate_timeout = 30 secs
old_stats_command_min_time = 2 mins
login_access_sockets = tcpwrap
plugin {
  mail_replica = tcp:mail2.example.com
  fts = squat
  old_stats_refresh = 30 secs
}
passdb {
  driver = shadow
}
userdb {
  driver = passwd
  args = blocking=no
  override_fields = home=/srv/mail/%u
}
service replicator {
  process_min_avail = 1
  unix_listener replicator-doveadm {
    mode = 0600
  }
}
service aggregator {
  fifo_listener replication-notify-fifo {
    user = vmail
  }
}
service doveadm {
  inet_listener {
    port = 12345
  }
}
service imap-hibernate {
  unix_listener imap-hibernate {
    mode = 0660
    group = $default_internal_group
  }
}
service tcpwrap {
  unix_listener login/tcpwrap {
    user = $default_login_user
  }
}
"""

# Mail that is on another server, by imapc; a master user; odd values.
MIGRATION = """
protocols = imap
mail_location = imapc:~/imapc
imapc_host = old.example.com
imapc_features = rfc822.size fetch-headers
imapc_ssl = imaps
imapc_ssl_verify = no
imapc_max_line_length = 0
imap_capability = +XFOO
import_environment = TZ LANG=C
auth_default_realm = example.com
auth_master_user_separator = *
login_greeting = "Hello # there"
ssl_min_protocol = TLSv1
rejection_reason = Your message to <%t> was rejected:%n%r
deliver_log_format = msgid=%m, from=%f: %$
mail_temp_dir = /var/tmp/%{env:TMPNAME}/100%%
dsync_remote_cmd = ssh -l%{login} %{host} doveadm dsync-server -u%u
passdb {
  driver = passwd-file
  args = /etc/dovecot/master-users
  master = yes
  pass = yes
}
passdb {
  driver = static
  args = password=%Hu
}
userdb {
  driver = static
  args = uid=vmail gid=vmail home=/srv/%1Mu/%2.1Mu/%u allow_all_users=yes
}
"""

TEXTS: dict[str, str] = {
    "wiki": WIKI,
    "virtual": VIRTUAL,
    "plugins": PLUGINS,
    "proxy": PROXY,
    "replicator": REPLICATOR,
    "migration": MIGRATION,
    "own_backend": backend_conf(backend("2.3.19")),
    "own_backend_mbox": backend_conf(
        backend("2.3.19", {"topology": "single", "mailbox_format": "mbox"}, proxies=[], protocols=["imap"])
    ),
    "own_backend_local": backend_conf(backend("2.3.19", {"index_location": "local"}, balancers=["192.0.2.31"])),
    "own_proxy": proxy_conf(proxy("2.3.19")),
    "director": proxy_conf(proxy("2.3.19", mode="director", backends=BACKENDS, proxies=PROXIES, director_port=9090)),
}


def printed(name: str) -> str:
    """What 2.3.19 prints of a configuration."""
    return (FOLDER / f"{name}.txt").read_text(encoding="utf-8")


NAMES = ("debian", *TEXTS)
