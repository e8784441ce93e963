# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A configuration of Dovecot 2.3, as ``doveconf -n`` prints it, as one for 2.4, and what needs attention on the way."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .catalogue import NO_REPLICATOR, SHARD_MAP, foreign, known
from .dialect import Entry, from_doveconf, to_doveconf
from .errors import NfsmailError, Problem
from .upgrade_auth import databases
from .upgrade_location import DRIVERS, location, parts
from .upgrade_plugins import plugin_lines, plugin_list, plugin_settings
from .upgrade_run import (
    HIDDEN,
    LEVELS,
    Path,
    Run,
    Section,
    block,
    commented,
    entry,
    flags,
    is_yes,
    leaves,
    shown_path,
    words,
)
from .upgrade_tables import (
    DEFAULTS,
    EXPANDED,
    FILES,
    GONE,
    IMAPC_FEATURES,
    MAILBOX_SAME,
    MANAGESIEVE,
    MEASURED,
    NAMESPACE_SAME,
    RENAMED,
    SAME,
    SERVICE_RENAMED,
    SERVICE_SAME,
    SERVICES_GONE,
    UPGRADING,
    Gone,
)
from .variables import OWN_LETTERS

VERSION = "2.4.1"
SOURCE = "docs: upgrading"
SCOPES = ("protocol", "local", "local_name", "remote")
TLS = f"{UPGRADING}: changed settings"
# What doveconf writes in front: the release that printed it.
_HEADER = re.compile(r"\s*# (\d+\.\d+(?:\.\d+)*)[^\n]*")
# Debian's 2.3 has a default of its own.
_DEBIAN = re.compile(r"^# OS: .*(Debian|Ubuntu)", re.MULTILINE)
_UNWRITABLE = re.compile(r"[\r\0]")
_DIRECTOR = Gone("2.4 has no director: nobody chooses a backend", SHARD_MAP, "Dovecot NEWS, 2.4.0", "error")
_REPLICATOR = Gone("changes are not copied to a second machine any more", NO_REPLICATOR, level="error")
# Settings of Dovecot's own size that stand for no limit.
_NO_LIMIT = {
    "vsz_limit": ("18446744073709551615 B", "unlimited"),
    "idle_kill_interval": ("4294967295 secs", "infinite"),
}


def preview(text: str, version: str = VERSION) -> dict[str, Any]:
    """The output of ``doveconf -n`` of Dovecot 2.3 as a configuration for ``version``.

    Returns ``conf``, the text of the new file; ``items``, what needs attention, errors first, each with ``level``
    (``error``, ``warning`` or ``info``), ``setting``, ``value``, ``happens``, ``fix`` and ``source``; ``settings``, what
    became of each setting of the input, with ``how`` (``kept``, ``translated`` or ``attention``) and ``into``; ``counts`` of
    items by level; ``table``, the items as text. Raises ``NfsmailError`` for a text that is not such output.
    """
    tree = _read(text, version)
    run = Run(version, tls_required=tree.get("ssl") == "required")
    hidden = _set_apart(run, tree)
    section = Section((), tree)
    lines = _file(run, section, hidden, _DEBIAN.search(text) is not None)
    rows = sorted(run.items, key=lambda item: LEVELS.index(item.level))
    items = [vars(item) for item in rows]
    return {
        "conf": _head(text, version) + to_doveconf(lines, version),
        "items": items,
        "settings": [
            {"setting": shown_path(path), "how": fate.how, "into": list(fate.into)} for path, fate in run.fates.items()
        ],
        "counts": {level: sum(row["level"] == level for row in items) for level in LEVELS},
        "table": table(items),
    }


def read(path: Any) -> str:
    """The text of a file of this machine; raises ``NfsmailError`` where there is none, or no text in it."""
    variable, rule = "upgrade_preview_file", "a file with the output of doveconf -n of Dovecot 2.3"
    if not isinstance(path, str) or not path:
        raise _bad(variable, path or None, rule, _ASK)
    try:
        # Dovecot ends a line at a newline only.
        with open(path, encoding="utf-8", newline="") as file:
            return file.read().replace("\r\n", "\n")
    except (OSError, ValueError) as error:
        told = error.strerror if isinstance(error, OSError) and error.strerror else "no text in UTF-8"
        raise _bad(variable, f"{path}: {told}", rule, _ASK) from error


def table(items: list[dict[str, str]]) -> list[str]:
    """The items as lines for people, three for each."""
    lines = ["level    setting = value", "-------  " + "-" * 40]
    for row in items:
        value = f" = {row['value']}" if row["value"] else ""
        lines += [
            f"{row['level'].upper() if row['level'] != 'info' else 'info':<9}{row['setting']}{value}",
            f"         {row['happens']}",
            f"         to do: {row['fix']} [{row['source']}]",
        ]
    return lines


# ---- the input ----


def _read(text: Any, version: Any) -> dict[str, Any]:
    if not isinstance(version, str) or not re.fullmatch(r"2\.4\.\d{1,3}", version):
        raise _bad("upgrade_preview_version", version, "a release of Dovecot 2.4, such as 2.4.1", "write one")
    if not isinstance(text, str) or not text.strip():
        shown = "empty" if isinstance(text, str) else text
        raise _bad("upgrade_preview_file", shown, "the output of doveconf -n of Dovecot 2.3", _ASK)
    header = _HEADER.match(text)
    tree = from_doveconf(text)
    if "dovecot_config_version" in tree or (header and series_of_release(header[1]) >= (2, 4)):
        raise _bad(
            "upgrade_preview_file", header[1] if header else "2.4", "a configuration of Dovecot 2.3", _NOTHING_TO_DO
        )
    if header and series_of_release(header[1]) < (2, 3):
        raise _bad("upgrade_preview_file", header[1], "a configuration of Dovecot 2.3", "upgrade to the last 2.3 first")
    if not any(_is_known(name) for name in tree):
        raise _bad("upgrade_preview_file", text.strip()[:60], "the output of doveconf -n of Dovecot 2.3", _ASK)
    settings = sum(1 for one in text.split("\n") if _is_setting(one))
    if settings != sum(1 for _ in _settings_of(tree)):
        raise _bad(
            "upgrade_preview_file", "a setting stands twice", "each setting once, as doveconf -n prints them", _ASK
        )
    return tree


_ASK = "on a machine with 2.3: doveconf -nP >FILE (it holds passwords), or doveconf -n >FILE without them"
_NOTHING_TO_DO = "nothing is to be translated"


def series_of_release(version: str) -> tuple[int, int]:
    """``2.3.19.1`` is ``(2, 3)``."""
    first, second = version.split(".")[:2]
    return int(first), int(second)


def _bad(variable: str, value: object, rule: str, fix: str) -> NfsmailError:
    return NfsmailError([Problem(variable, value, rule, fix, SOURCE)])


def _is_setting(raw: str) -> bool:
    text = raw.strip()
    section = text.endswith("{") and "=" not in text.split("{")[0]
    return bool(text) and text != "}" and not text.startswith("#") and not section


def _settings_of(tree: Mapping[str, Any]) -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _settings_of(value)
        else:
            yield name


def _is_known(name: str) -> bool:
    kind = name.split(" ", maxsplit=1)[0]
    sections = (*SCOPES, "namespace", "passdb", "userdb", "service", "plugin", "dict", "protocols")
    return kind in sections or name in SAME or name in RENAMED or name in GONE or known(name, "2.3") is not None


def _set_apart(run: Run, tree: dict[str, Any], path: Path = ()) -> list[Entry]:
    """Takes out what cannot be written: values that doveconf hides, and those that no file can hold."""
    found = []
    for name in list(tree):
        value, where = tree[name], (*path, name)
        if isinstance(value, dict):
            found += _set_apart(run, value, where)
        elif HIDDEN.match(value):
            del tree[name]
            new = FILES.get(name) or RENAMED.get(name, name)
            gone = Gone(
                f"doveconf hid the value: {new} is missing in the output",
                f"write {new} by hand, or run the preview on the output of doveconf -nP",
                MEASURED,
                "error",
            )
            found += run.attention(where, "hidden", gone)
        elif _UNWRITABLE.search(value):
            del tree[name]
            gone = Gone("the value holds characters that no file can", "write it by hand", MEASURED, "error")
            found += run.attention(where, value, gone)
    return found


# ---- the file ----


def _head(text: str, version: str) -> str:
    header = _HEADER.match(text)
    old = header[1] if header else "2.3"
    return (
        f"# Dovecot {version}, translated from {old} by nfsmail.cluster.upgrade_preview.\n"
        "# Lines that begin with # and hold settings are not translated: the list of the preview says why.\n"
    )


def _file(run: Run, section: Section, hidden: list[Entry], debian: bool) -> list[Entry]:
    tree = dict(section.rest)
    proxy = _is_proxy(tree)
    around = _outer_parts(tree)
    plugins = plugin_list(run, section)
    lines = [*_top(run, section), *hidden]
    lines += _settings(run, section, {})
    lines += plugin_lines(plugins)
    lines += _sections(run, section, around, plugins or [])
    lines += _extras(run)
    lines += _defaults(run, tree, proxy, debian)
    _general(run, tree, proxy)
    lines += run.unknown(section)
    # Settings first: 2.4 warns where one comes after a section that has it too.
    return [line for line in lines if not isinstance(line.value, tuple)] + [
        line for line in lines if isinstance(line.value, tuple)
    ]


def _outer_parts(tree: Mapping[str, Any]) -> dict[str, str]:
    value = tree.get("mail_location")
    found = parts(value)[0] if isinstance(value, str) else {}
    return {name: text for name, text in found.items() if name != "mail_driver"}


_PACKAGES = {"sieve": "dovecot-managesieved", "submission": "dovecot-submissiond"}


def _top(run: Run, section: Section) -> list[Entry]:
    """What stands first: which protocols are served."""
    value = section.take("protocols")
    if value is None:
        run.note(
            "warning",
            ("protocols",),
            "not written",
            "2.4 serves nothing unless told to; 2.3 served imap, pop3 and lmtp, on Debian what was installed",
            "write protocols",
            f"{UPGRADING}: default settings",
        )
        return []
    served = [word for word in words(value) if word != "none"]
    for word, package in _PACKAGES.items():
        if word in served:
            run.note("info", ("protocols",), word, "2.4 knows it only with its package", f"install {package}", MEASURED)
    run.became(("protocols",), "protocols")
    return [Entry("protocols", " ".join(served))]


# ---- settings, at the top and in sections for some connections ----


def _settings(run: Run, section: Section, around: Mapping[str, str]) -> list[Entry]:
    lines: list[Entry] = []
    for name in section.names():
        lines += _setting(run, section, name, around)
    return lines


def _setting(run: Run, section: Section, name: str, around: Mapping[str, str]) -> list[Entry]:
    path = (*section.path, name)
    value = str(section.rest[name])
    if name in _SPECIAL:
        section.take(name)
        return _SPECIAL[name](run, path, value)
    if name == "mail_location":
        section.take(name)
        return location(run, path, value, around)
    if name == "auth_socket_path" and value.startswith("director"):
        section.take(name)
        return run.attention(path, value, _DIRECTOR)
    if name in FILES:
        section.take(name)
        return _file_of(run, path, value)
    if name in SAME or name in MANAGESIEVE:
        section.take(name)
        if name in MANAGESIEVE:
            run.note(
                "info", path, value, "2.4 knows it only with its package", "install dovecot-managesieved", MEASURED
            )
        return run.write(path, name, value, expand=name in EXPANDED or name in OWN_LETTERS)
    if name in RENAMED:
        section.take(name)
        return run.write(path, RENAMED[name], value)
    if name in GONE:
        section.take(name)
        return run.attention(path, value, GONE[name])
    if re.match(r"director_\w+\Z", name):
        section.take(name)
        return run.attention(path, value, _DIRECTOR)
    if re.match(r"(replication|replicator)_\w+\Z", name):
        section.take(name)
        return run.attention(path, value, _REPLICATOR)
    if name.startswith("old_stats_"):
        section.take(name)
        return run.attention(path, value, GONE["auth_stats"])
    setting = known(name, "2.3")
    if setting and setting.new and not setting.section:
        section.take(name)
        return run.write(path, setting.new, value)
    return []


def _file_of(run: Run, path: Path, value: str) -> list[Entry]:
    new = FILES[path[-1]]
    if not value.startswith("<"):
        if not value:
            run.became(path)
            return []
        gone = Gone("2.4 takes the path of a file, not its content", f"write it into a file, and {new}", TLS, "error")
        return run.attention(path, value if path[-1] != "ssl_key" else "hidden", gone)
    if path[-1] == "ssl_ca":
        run.note(
            "warning",
            path,
            value,
            "it is ssl_server_ca_file now, for certificates of clients",
            "where this CA also stands for other servers, write ssl_client_ca_file too",
        )
    return run.write(path, new, value[1:].strip())


def _clear_text(run: Run, path: Path, value: str) -> list[Entry]:
    if run.tls_required and not is_yes(value):
        gone = Gone("with ssl = required it had no effect, and 2.4 refuses the pair", "nothing", MEASURED, "info")
        return run.attention(path, value, gone)
    return run.write(path, "auth_allow_cleartext", "no" if is_yes(value) else "yes")


def _min_protocol(run: Run, path: Path, value: str) -> list[Entry]:
    if value in ("SSLv3", "ANY"):
        gone = Gone(
            f"{value} is no choice any more, and 2.4 begins with TLSv1.2", "see which clients need older ones", TLS
        )
        return run.attention(path, value, gone)
    if value in ("TLSv1", "TLSv1.1"):
        run.note(
            "warning", path, value, "OpenSSL of newer systems does not speak it by default", "plan without it", MEASURED
        )
    return run.write(path, "ssl_min_protocol", value)


def _old_protocols(run: Run, path: Path, value: str) -> list[Entry]:
    gone = Gone(
        "replaced by ssl_min_protocol, by default TLSv1.2", "write ssl_min_protocol where older ones are needed", TLS
    )
    return run.attention(path, value, gone)


def _prefer(run: Run, path: Path, value: str) -> list[Entry]:
    return run.write(path, "ssl_server_prefer_ciphers", "server" if is_yes(value) else "client")


def _limit(run: Run, path: Path, value: str) -> list[Entry]:
    return run.write(path, path[-1], "unlimited" if value == "0" else value)


def _verbose_ssl(run: Run, path: Path, value: str) -> list[Entry]:
    if value in ("", "no"):
        run.became(path)
        return []
    gone = Gone(
        "replaced by a filter of debug messages", "write log_debug = category=ssl, or add it there", level="info"
    )
    return run.attention(path, value, gone)


def _workers(run: Run, path: Path, value: str) -> list[Entry]:
    run.services.setdefault("auth-worker", []).append(Entry("process_limit", value))
    run.became(path, "service auth-worker/process_limit")
    return []


def _policy_timeout(run: Run, path: Path, value: str) -> list[Entry]:
    run.became(path, "auth_policy/http_client_request_timeout")
    return [entry("auth_policy", [Entry("http_client_request_timeout", f"{value} ms")])]


def _policy_attributes(run: Run, path: Path, value: str) -> list[Entry]:
    told = run.expanded(path, value)
    pairs = [word.partition("=")[::2] for word in re.split(r"\s+(?=[\w/-]+=)", told or "") if word]
    if told is None:
        return [commented(path[-1], value, "Not translated: see the list.")]
    if not all(re.fullmatch(r"[\w/-]+", name) for name, _ in pairs):
        return run.attention(path, value, Gone("the list is a section now", "write auth_policy_request_attributes { }"))
    run.became(path, path[-1])
    return [entry(path[-1], [Entry(name, text) for name, text in pairs])]


def _id_send(run: Run, path: Path, value: str) -> list[Entry]:
    pairs = words(value)
    if len(pairs) % 2 or not all(re.fullmatch(r"[A-Za-z0-9_.-]+", name) for name in pairs[::2]):
        return run.attention(path, value, Gone("the list is a section now", "write imap_id_send { }", level="warning"))
    run.became(path, "imap_id_send")
    return [entry("imap_id_send", [Entry(name, text) for name, text in zip(pairs[::2], pairs[1::2])])]


def _capability(run: Run, path: Path, value: str) -> list[Entry]:
    if value.startswith("+"):
        names = words(value[1:])
        if all(re.fullmatch(r"[A-Za-z0-9_.-]+", name) for name in names):
            run.became(path, "imap_capability")
            return [entry("imap_capability", flags((name, True) for name in names))]
        return run.attention(path, value, Gone("the list is a section now", "write imap_capability { NAME = yes }"))
    return run.write(path, "imap_capability", value)


def _environment(run: Run, path: Path, value: str) -> list[Entry]:
    found = []
    for word in words(value):
        name, sign, text = word.partition("=")
        if not re.fullmatch(r"\w+", name):
            return run.attention(path, value, Gone("the list is a section now", "write import_environment { }"))
        found.append(Entry(name, text if sign else f"%{{env:{name}}}"))
    run.became(path, "import_environment")
    return [entry("import_environment", found)]


def _imapc_verify(run: Run, path: Path, value: str) -> list[Entry]:
    run.became(path, "imapc/ssl_client_require_valid_cert")
    return [entry("imapc", [Entry("ssl_client_require_valid_cert", "yes" if is_yes(value) else "no")])]


def _imapc_features(run: Run, path: Path, value: str) -> list[Entry]:
    """What had to be switched on is on in 2.4, and is switched off here where it was not on."""
    given = words(value)
    kept = [word for word in given if word not in IMAPC_FEATURES]
    off = [new for old, new in IMAPC_FEATURES.items() if old not in given]
    run.note(
        "info",
        path,
        value,
        f"what was not on is switched off: {', '.join(off) or 'nothing'}",
        "leave such words out to use what 2.4 does by default",
        f"{UPGRADING}: imapc_features",
    )
    return run.write(path, "imapc_features", " ".join([*kept, *off]))


def _attribute_dict(run: Run, path: Path, value: str) -> list[Entry]:
    told = run.expanded(path, value.removeprefix("file:")) if value.startswith("file:") else None
    if told is None:
        gone = Gone("the dictionary is a block now", "write mail_attribute { dict DRIVER { } }", level="error")
        return run.attention(path, value, gone) if path not in run.fates else [commented(path[-1], value)]
    run.became(path, "mail_attribute/dict file/path")
    return [entry("mail_attribute", [entry("dict file", [Entry("path", told)])])]


def _attachments(run: Run, path: Path, value: str) -> list[Entry]:
    name = {"mail_attachment_dir": "mail_ext_attachment_path"}.get(path[-1], "")
    if value and name:
        run.note(*_attachment_note(path, value))
    return run.write(path, name, value, expand=True)


def _attachment_note(path: Path, value: str) -> tuple[str, Path, str, str, str]:
    gone = GONE["mail_attachment_fs"]
    return gone.level, path, value, gone.happens, gone.fix


_SPECIAL = {
    "auth_worker_max_count": _workers,
    "auth_policy_request_attributes": _policy_attributes,
    "auth_policy_server_timeout_msecs": _policy_timeout,
    "disable_plaintext_auth": _clear_text,
    "imap_capability": _capability,
    "imap_id_send": _id_send,
    "imapc_features": _imapc_features,
    "imapc_max_line_length": _limit,
    "imapc_ssl_verify": _imapc_verify,
    "import_environment": _environment,
    "lmtp_user_concurrency_limit": _limit,
    "mail_attachment_dir": _attachments,
    "mail_attribute_dict": _attribute_dict,
    "ssl_min_protocol": _min_protocol,
    "ssl_prefer_server_ciphers": _prefer,
    "ssl_protocols": _old_protocols,
    "verbose_ssl": _verbose_ssl,
}


# ---- sections ----


def _sections(run: Run, section: Section, around: Mapping[str, str], plugins: list[str]) -> list[Entry]:
    inside = section.sections()
    lines = databases(run, [one for one in inside if one[0] in ("passdb", "userdb")])
    numbers: dict[str, int] = {}
    later = []
    for kind, argument, one in inside:
        if kind in ("passdb", "userdb"):
            continue
        if kind == "plugin" and not argument:
            lines += plugin_settings(run, one)
        else:
            later.append((kind, argument, one))
    for kind, argument, one in later:
        if kind == "namespace":
            lines.append(_namespace(run, argument, one, around, numbers))
        elif kind in SCOPES and argument:
            lines += _scope(run, kind, argument, one, around, plugins)
        elif kind == "service" and argument:
            lines += _service(run, argument, one)
        elif kind == "metric" and argument:
            lines.append(_metric(run, argument, one))
        else:
            gone = _SECTIONS.get(kind) or Gone(
                "this section is not known here",
                foreign(kind, "2.4") or "look it up in the documentation of 2.4",
                level="error",
            )
            lines += run.attention(one.path, one.rest, gone)
    return lines


_SECTIONS = {
    "dict": Gone(
        "the dictionaries' files are not read any more",
        "write a dict block for each within dict_server { }, with the settings of its driver",
        "Dovecot documentation, dictionaries",
        "error",
    ),
    "event_exporter": Gone(
        "transports have names and settings of their own in 2.4",
        "write event_exporter_driver and its settings",
        "Dovecot documentation, event export",
        "error",
    ),
}


def _scope(
    run: Run, kind: str, argument: str, section: Section, around: Mapping[str, str], plugins: list[str]
) -> list[Entry]:
    """Settings for some connections."""
    own = plugin_list(run, section, plugins)
    lines = [*_settings(run, section, around), *plugin_lines(own, plugins)]
    lines += _sections(run, section, around, plugins if own is None else own)
    lines += run.unknown(section)
    names = argument.strip('"').split() if kind == "local_name" else [argument]
    if len(names) > 1:
        run.note("info", section.path, argument, "one name for each section in 2.4", "nothing", UPGRADING)
    plain = [line for line in lines if not isinstance(line.value, tuple)]
    return [block(kind, name, plain + [line for line in lines if isinstance(line.value, tuple)]) for name in names]


def _namespace(run: Run, argument: str, section: Section, around: Mapping[str, str], numbers: dict[str, int]) -> Entry:
    shared = section.rest.get("type") == "shared"
    lines: list[Entry] = []
    for name in section.names():
        path = (*section.path, name)
        value = section.take(name) or ""
        if name == "location":
            if value:
                lines += location(run, path, value, around, shared)
            else:
                run.became(path)
        elif name == "prefix":
            lines += run.write(path, name, value, expand=True, shared="prefix" if shared else "")
        elif name in NAMESPACE_SAME:
            lines += run.write(path, name, value, expand=name == "alias_for")
        else:
            section.rest[name] = value
    inbox = is_yes(str(next((line.value for line in lines if line.name == "inbox"), "no")))
    for what, mailbox, one in section.sections():
        if what == "mailbox" and mailbox:
            lines.append(_mailbox(run, mailbox, one, run.mailboxes if inbox else {}))
        else:
            lines += run.attention(one.path, one.rest, Gone("not known within a namespace", "write it by hand"))
    if inbox:
        lines += [block("mailbox", name, inner) for name, inner in run.mailboxes.items()]
        run.mailboxes.clear()
    kind = next((str(line.value) for line in lines if line.name == "type"), "namespace")
    name = argument or ("inbox" if inbox else kind if kind in ("private", "public", "shared") else "namespace")
    numbers[name] = numbers.get(name, 0) + 1
    return block("namespace", name if numbers[name] == 1 else f"{name}{numbers[name]}", [*lines, *run.unknown(section)])


def _mailbox(run: Run, name: str, section: Section, extras: dict[str, list[Entry]]) -> Entry:
    lines: list[Entry] = []
    for setting in section.names():
        if setting in MAILBOX_SAME:
            lines += run.write((*section.path, setting), setting, section.take(setting) or "")
    lines += extras.pop(name.strip('"'), [])
    return block("mailbox", name, [*lines, *run.unknown(section)])


def _service(run: Run, name: str, section: Section) -> list[Entry]:
    gone = SERVICES_GONE.get(name)
    if name == "director":
        gone = _DIRECTOR
    elif name in ("replicator", "aggregator"):
        gone = _REPLICATOR
    if gone:
        return run.attention(section.path, section.rest, gone)
    lines = [*_service_settings(run, section), *run.services.pop(name, [])]
    for kind, argument, one in section.sections():
        if kind not in ("unix_listener", "fifo_listener", "inet_listener"):
            lines += run.attention(one.path, one.rest, Gone("not known within a service", "write it by hand"))
            continue
        if argument in ("login/director", "director-admin", "director-userdb", "login/proxy-notify", "login/ipc-proxy"):
            lines += run.attention(one.path, one.rest, _DIRECTOR)
            continue
        inner = [*_service_settings(run, one), *run.unknown(one)]
        free = argument or name.removesuffix("-login")
        taken = [line.name for line in lines]
        while not argument and block(kind, free, ()).name in taken:
            free += "2"
        lines.append(block(kind, free, inner))
    return [block("service", name, [*lines, *run.unknown(section)])]


def _service_settings(run: Run, section: Section) -> list[Entry]:
    lines: list[Entry] = []
    for name in section.names():
        path = (*section.path, name)
        new = SERVICE_RENAMED.get(name, name)
        if name == "service_count":
            value = section.take(name) or ""
            lines += run.write(path, "restart_request_count", "unlimited" if value == "0" else value)
        elif name == "executable" and re.search(r"\bdirector\b", section.rest[name]):
            value = section.take(name) or ""
            run.note("error", path, value, _DIRECTOR.happens, _DIRECTOR.fix, _DIRECTOR.source)
            lines += run.write(path, name, value.replace("director", "").strip())
        elif name in SERVICE_SAME or name in SERVICE_RENAMED:
            value = section.take(name) or ""
            old, limit = _NO_LIMIT.get(new, ("", ""))
            lines += run.write(path, new, limit if old and value == old else value)
    return lines


def _metric(run: Run, name: str, section: Section) -> Entry:
    lines: list[Entry] = []
    for setting in section.names():
        if setting in ("filter", "description", "fields", "exporter"):
            lines += run.write((*section.path, setting), setting, section.take(setting) or "")
    return block("metric", name, [*lines, *run.unknown(section)])


def _extras(run: Run) -> list[Entry]:
    """What belongs to a service or a mailbox that has no section of its own."""
    found = [block("service", name, inner) for name, inner in run.services.items()]
    found += [block("mailbox", name, inner) for name, inner in run.mailboxes.items()]
    return found


# ---- what nobody wrote ----


def _is_proxy(tree: Mapping[str, Any]) -> bool:
    """The machine has no mailboxes: it sends everybody elsewhere."""
    if tree.get("director_servers") or (is_yes(str(tree.get("lmtp_proxy", ""))) and not tree.get("mail_location")):
        return True
    found = [value for name, value in tree.items() if name.startswith("passdb") and isinstance(value, Mapping)]
    given = {word.partition("=")[0] for one in found for word in str(one.get("args", "")).split()}
    return "proxy" in given and not tree.get("mail_location")


def _formats(tree: Mapping[str, Any]) -> set[str]:
    """The mailbox formats in use."""
    found = set()
    for path in leaves(tree, ()):
        if path and path[-1] in ("mail_location", "location", "args", "override_fields", "default_fields"):
            value: Any = tree
            for name in path:
                value = value[name]
            found |= {driver for driver in DRIVERS if re.search(rf"(\A|=){driver}:", str(value))}
    return found


def _defaults(run: Run, tree: Mapping[str, Any], proxy: bool, debian: bool) -> list[Entry]:
    """Defaults that are others in 2.4: an item for each, and the old one written where mail on NFS is concerned."""
    lines = []
    formats = _formats(tree)
    where = {path[-1] for path in run.fates} | {name for fate in run.fates.values() for name in fate.into}
    for one in DEFAULTS:
        if one.name in where or (proxy and one.mailboxes):
            continue
        if one.name.startswith("mbox_") and ("mbox" not in formats or not debian):
            continue
        if one.protocol and one.protocol not in _served(tree):
            continue
        if one.only_proxy and not proxy:
            continue
        write = one.write
        happens = f"the default was {one.old}, and is {one.new}: {one.why}"
        fix = "the old one is written into the output; see whether the new one suits" if write else one.fix
        run.note("warning", (one.name,), "not written", happens, fix, one.source)
        if write:
            lines.append(Entry(one.name, write, "The default of 2.3."))
    if formats & {"sdbox", "mdbox"} and _after(run.version, (2, 4, 2)):
        lines.append(Entry("mailbox_directory_name_legacy", "yes", "Where 2.3 put the mailboxes of sdbox and mdbox."))
    if "imapc" in formats and "imapc_features" not in tree:
        lines += _imapc_features(run, ("imapc_features",), "")
        del run.fates[("imapc_features",)]
    return lines


def _served(tree: Mapping[str, Any]) -> list[str]:
    value = tree.get("protocols")
    return words(value) if isinstance(value, str) else ["imap", "pop3", "lmtp"]


def _after(version: str, release: tuple[int, ...]) -> bool:
    return tuple(int(part) for part in version.split(".")) >= release


def _general(run: Run, tree: Mapping[str, Any], proxy: bool) -> None:
    """What no single setting says."""
    if not proxy and not tree.get("mail_location") and not _formats(tree):
        run.note(
            "error",
            ("mail_location",),
            "not written",
            "2.3 looked for mail in several places, 2.4 wants to be told",
            "write mail_driver and mail_path, or return them from the user database",
            f"{UPGRADING}: mailbox location",
        )
    if tree.get("ssl") == "required" and tree.get("login_trusted_networks"):
        run.note(
            "error",
            ("login_trusted_networks",),
            tree["login_trusted_networks"],
            "with ssl = required 2.4 wants TLS from trusted networks too: proxies that come without are refused",
            "let the proxies use TLS (passdb fields ssl or starttls), or write ssl = yes here",
            TLS,
        )
    if tree.get("director_servers") and not any(name.startswith("passdb") for name in tree):
        run.note("error", ("passdb",), "none", _DIRECTOR.happens, _DIRECTOR.fix, _DIRECTOR.source)
