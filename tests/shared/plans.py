# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What roles/dovecot/vars and roles/dovecot_proxy/vars make of the defaults."""

from __future__ import annotations

from typing import Any

from brain_samples import SECRET

OTHER_SECRET = "another-made-up-one-42"
PROXIES = ["192.0.2.21", "192.0.2.22"]


def backend(version: str = "2.3.19", profile: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    """A backend behind two proxies."""
    return {
        "profile": {"topology": "per_user", "dovecot_version": version, **(profile or {})},
        "protocols": ["imap", "lmtp"],
        "listen": ["*", "::"],
        "store": "/srv/mail",
        "mail_home": "/srv/mail/{domain}/{name}",
        "index_path": "/var/lib/nfsmail/index/{domain}/{name}",
        "mail_uid": 5000,
        "mail_gid": 5001,
        "ssl": "yes",
        "ssl_cert": "/etc/dovecot/cert.pem",
        "ssl_key": "/etc/dovecot/key.pem",
        "proxies": PROXIES,
        "balancers": [],
        "proxy_password": SECRET,
        "doveadm_password": OTHER_SECRET,
        "doveadm_port": 24245,
        "lmtp_port": 24,
        "users_file": "/etc/dovecot/nfsmail-users",
        "extra_settings": {},
        **changes,
    }


def proxy(version: str = "2.3.19", **changes: Any) -> dict[str, Any]:
    """A proxy."""
    plan = {
        "version": version,
        "shards_file": "/etc/dovecot/nfsmail-shards",
        "moving_file": "/etc/dovecot/nfsmail-moving",
        "overrides_file": "/etc/dovecot/nfsmail-overrides",
        **backend(),
    }
    return {**plan, **changes}


def balancer(**changes: Any) -> dict[str, Any]:
    """A balancer in front of two backends of topology random."""
    return {
        "topology": "random",
        "protocols": ["imap", "lmtp"],
        "listen": ["*", "::"],
        "servers": [{"name": "mail1", "address": "192.0.2.11"}, {"name": "mail2", "address": "192.0.2.12"}],
        "lmtp_port": 24,
        "health_user": "",
        "health_password": SECRET if changes.get("health_user") else "",
        "check_interval": 5,
        "maxconn": 8000,
        **changes,
    }
