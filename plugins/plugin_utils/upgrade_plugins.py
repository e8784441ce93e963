# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""``mail_plugins`` and the settings in ``plugin { }`` of Dovecot 2.3: in 2.4 they are settings like others."""

from __future__ import annotations

import re
from collections.abc import Iterable

from .catalogue import NO_REPLICATOR
from .dialect import Entry
from .upgrade_auth import QUOTA_SIZES
from .upgrade_run import Fate, Run, Section, block, entry, flags, is_yes, words
from .upgrade_tables import (
    PLUGIN_RENAMED,
    PLUGIN_SAME,
    PLUGIN_SETTINGS_GONE,
    PLUGIN_SETTINGS_RENAMED,
    PLUGIN_SETTINGS_SAME,
    PLUGINS_GONE,
    SIEVE_EXTENSIONS_GONE,
    UPGRADING,
    Gone,
)

QUOTA = "Dovecot documentation, quota plugin"
SIEVE = "Dovecot documentation, Sieve storage"
FTS = "Dovecot documentation, full text search"
_REPLICA = re.compile(r"(mail_replica|replication_\w+)\Z")
_STATISTICS = re.compile(r"(old_)?stats_\w+\Z")
_QUOTA_ROOT = re.compile(r"quota(\d*)\Z")
_QUOTA_OF = re.compile(r"quota(\d*)_(rule|warning|grace)(\d*)\Z")
# A folder's or socket's name that can be a section's.
_NAME = re.compile(r'[^"\\={}#\s]+(?: [^"\\={}#\s]+)*')
_NUMBER = r"(\d+(?:\.\d+)?)\s*([BKMGTbkmgt]?)"


_EXPUNGED = Gone(
    "2.4 keeps expunged mail in one mailbox, not in namespaces", "write lazy_expunge_mailbox", UPGRADING, "error"
)


# ---- mail_plugins ----


def plugin_list(run: Run, section: Section, around: Iterable[str] = ()) -> list[str] | None:
    """The plugins that a section loads, by their names in 2.4; ``None`` where it says nothing of them.

    ``around``: those of the whole file.
    """
    value = section.take("mail_plugins")
    if value is None:
        return None
    path = (*section.path, "mail_plugins")
    found: list[str] = []
    for name in words(value):
        if name == "$mail_plugins":
            found += around
            continue
        new = PLUGIN_RENAMED.get(name, name)
        if name in PLUGINS_GONE:
            gone = PLUGINS_GONE[name]
            run.note(gone.level, path, name, f"plugin {name}: {gone.happens}", gone.fix, gone.source)
        elif name == "replication":
            run.note(
                "error",
                path,
                name,
                "changes are not copied to a second machine any more",
                NO_REPLICATOR,
                f"{UPGRADING}: replicator",
            )
        elif new in PLUGIN_SAME or name in PLUGIN_RENAMED:
            found.append(new)
        else:
            run.note(
                "error",
                path,
                name,
                f"plugin {name} is not known here, and is not loaded",
                "add it to mail_plugins once a build for 2.4 is installed",
            )
    if found or around:
        run.became(path, "mail_plugins")
    elif words(value):
        run.fates[path] = Fate("attention")
    else:
        run.became(path)
    return list(dict.fromkeys(found))


def plugin_lines(own: list[str] | None, around: Iterable[str] = ()) -> list[Entry]:
    """``mail_plugins { }``: within a section, what it has beside the plugins around it, and what it does without."""
    if own is None:
        return []
    outside = list(around)
    changed = [(name, True) for name in own if name not in outside]
    changed += [(name, False) for name in outside if name not in own]
    return [entry("mail_plugins", flags(changed))] if changed else []


# ---- plugin { } ----


def plugin_settings(run: Run, section: Section) -> list[Entry]:
    """Everything in a ``plugin`` section."""
    lines = [*_acl(run, section), *_quota(run, section), *_sieve(run, section), *_compress(run, section)]
    lines += [*_mail_log(run, section), *_fts(run, section)]
    for name in section.names():
        path = (*section.path, name)
        value = section.rest[name]
        if name in PLUGIN_SETTINGS_SAME:
            section.take(name)
            lines += run.write(path, name, _unlimited(name, value), expand="%" in value)
        elif name == "lazy_expunge" and re.search(r"[/. ]\Z|\S\s+\S", value):
            section.take(name)
            lines += run.attention(path, value, _EXPUNGED)
        elif name in PLUGIN_SETTINGS_RENAMED:
            section.take(name)
            new = PLUGIN_SETTINGS_RENAMED[name]
            lines += run.write(path, new, _unlimited(new, value), expand="%" in value)
        elif name in PLUGIN_SETTINGS_GONE:
            section.take(name)
            lines += run.attention(path, value, PLUGIN_SETTINGS_GONE[name])
        elif _REPLICA.match(name):
            section.take(name)
            gone = Gone("changes are not copied to a second machine any more", NO_REPLICATOR, level="error")
            lines += run.attention(path, value, gone)
        elif _STATISTICS.match(name):
            section.take(name)
            lines += run.attention(path, value, PLUGINS_GONE["stats"])
    return lines + run.unknown(section)


def _unlimited(name: str, value: str) -> str:
    return "unlimited" if name == "quota_mail_size" and value == "0" else value


def _acl(run: Run, section: Section) -> list[Entry]:
    lines: list[Entry] = []
    value = section.take("acl")
    if value is not None:
        path = (*section.path, "acl")
        driver, *parts = value.split(":")
        lines.append(Entry("acl_driver", driver))
        for part in filter(None, parts):
            key, sign, text = part.partition("=")
            if sign and key == "cache_secs":
                lines.append(Entry("acl_cache_ttl", f"{text} secs"))
            elif part.startswith("/") and "%" not in part:
                lines.append(Entry("acl_global_path", part))
                run.note(
                    "warning",
                    path,
                    value,
                    "a file of global ACLs is still read, a directory of them is not, and the file is on its way out too",
                    "write acl blocks into mailbox blocks",
                    f"{UPGRADING}: ACLs",
                )
            else:
                run.note("error", path, value, f"{part} is not translated", "see the page on the ACL plugin", UPGRADING)
        run.became(path, *(line.name for line in lines))
    anyone = section.take("acl_anyone")
    if anyone is not None:
        path = (*section.path, "acl_anyone")
        lines += run.write(path, "imap_acl_allow_anyone", "yes" if anyone == "allow" else "no")
    return lines


# ---- quota ----


def _quota(run: Run, section: Section) -> list[Entry]:
    """One ``quota`` block for each root, with its rules, warnings and grace."""
    lines: list[Entry] = []
    roots = [(match[1], name) for name in section.names() if (match := _QUOTA_ROOT.match(name))]
    for number, name in roots:
        path = (*section.path, name)
        value = section.take(name) or ""
        driver, _, rest = value.partition(":")
        label, *options = rest.split(":")
        if driver not in ("count", "maildir", "fs", "imapc"):
            lines += run.attention(
                path,
                value,
                Gone(
                    f"the quota driver {driver} ended with 2.3: quotas are not kept",
                    "use quota count, and see that all users' sizes are counted first",
                    QUOTA,
                    "error",
                ),
            )
            continue
        inner = [Entry("driver", driver)]
        if strange := [option for option in options if option]:
            run.note("error", path, value, f"{', '.join(strange)} is not translated", "see the page on quota", QUOTA)
        run.became(path, f"quota {label or 'quota'}")
        inner += _of_root(run, section, number)
        lines.append(block("quota", re.sub(r'["\\{}#]', "-", label).strip() or "quota", inner))
        if f"quota{number}_grace" not in section.rest and (*section.path, f"quota{number}_grace") not in run.fates:
            run.note(
                "warning",
                path,
                "quota_grace, not written",
                "10 % of the limit before, 10 M now",
                "write quota_storage_grace where that is not enough",
                QUOTA,
            )
    return lines


def _of_root(run: Run, section: Section, number: str) -> list[Entry]:
    lines = []
    warnings = 0
    for name in section.names():
        match = _QUOTA_OF.match(name)
        if not match or match[1] != number:
            continue
        path = (*section.path, name)
        value = section.take(name) or ""
        if match[2] == "rule":
            lines += _rule(run, path, value)
        elif match[2] == "warning":
            warnings += 1
            lines += _warning(run, path, value, warnings)
        elif grace := re.fullmatch(_NUMBER, value):
            lines += run.write(path, "quota_storage_grace", "".join(grace.groups()))
        else:
            gone = Gone("the grace is a size now, not a part of the limit", "write quota_storage_grace", QUOTA)
            lines += run.attention(path, value, gone)
    return lines


def _rule(run: Run, path: tuple[str, ...], value: str) -> list[Entry]:
    mailbox, _, limits = value.partition(":")
    found, wrong = [], not limits or not _NAME.fullmatch(mailbox)
    for limit in limits.split(":"):
        key, _, text = limit.partition("=")
        plain = re.fullmatch(_NUMBER, text)
        more = re.fullmatch(rf"\+{_NUMBER}", text)
        if mailbox == "*" and key in QUOTA_SIZES and plain:
            # 2.3 counts storage without a unit in kilobytes.
            unit = plain[2] or ("K" if key == "storage" else "")
            found.append(Entry(QUOTA_SIZES[key], "unlimited" if text.strip("0") == "" else plain[1] + unit))
        elif mailbox != "*" and key == "storage" and more:
            found.append(Entry("quota_storage_extra", more[1] + (more[2] or "K")))
        elif mailbox != "*" and limit == "ignore":
            found.append(Entry("quota_ignore", "yes"))
        else:
            wrong = True
    if wrong:
        gone = Gone(
            "this rule has no equal that we know",
            "see the settings quota_storage_* and quota_message_*",
            QUOTA,
            "error",
        )
        return run.attention(path, value, gone)
    if mailbox != "*":
        run.mailboxes.setdefault(mailbox, []).extend(found)
        run.became(path, *(f"mailbox {mailbox}/{line.name}" for line in found))
        return []
    run.became(path, *(line.name for line in found))
    return found


def _warning(run: Run, path: tuple[str, ...], value: str, number: int) -> list[Entry]:
    match = re.fullmatch(r"(-?)(storage|messages)=(\d+)%{1,2} (\S+)((?: \S+)*)", value.strip())
    arguments = run.expanded(path, match[5].strip()) if match and "/" not in match[4] else None
    if match is None or arguments is None or not _NAME.fullmatch(match[4]):
        gone = Gone(
            "this warning has no equal that we know", "write a warning block in the quota block", QUOTA, "error"
        )
        return run.attention(path, value, gone)
    resource = [Entry("quota_warning_resource", "message")] if match[2] == "messages" else []
    size = "quota_storage_percentage" if match[2] == "storage" else "quota_message_percentage"
    inner = [
        *resource,
        Entry("threshold", "under" if match[1] else "over"),
        Entry(size, match[3]),
        block("execute", match[4], [Entry("args", arguments)] if arguments else []),
    ]
    run.became(path, f"warning warning{number}")
    return [block("warning", f"warning{number}", inner)]


# ---- Sieve ----


def _sieve(run: Run, section: Section) -> list[Entry]:
    lines = _personal(run, section)
    taken = {"personal"}
    for name in section.names():
        match = re.fullmatch(r"sieve_(before|after|default|discard|global|global_dir)(\d*)", name)
        if match:
            value = section.take(name) or ""
            kind = "global" if match[1] == "global_dir" else match[1]
            label = kind + match[2]
            path = (*section.path, name)
            inner = _script(run, path, value, "path")
            if inner is None:
                lines += run.attention(
                    path, value, Gone("this place of a script is not known here", "see the page", SIEVE, "error")
                )
                continue
            if kind == "default" and (called := section.take("sieve_default_name")) is not None:
                inner.append(Entry("name", called))
                run.became((*section.path, "sieve_default_name"), "sieve_script default/name")
            while label in taken:
                label += "-2"
            taken.add(label)
            run.became(path, f"sieve_script {label}")
            if kind in ("before", "after"):
                # 2.3 goes by the numbers.
                inner.append(Entry("precedence", match[2] or "1"))
            lines.append(block("sieve_script", label, [Entry("type", kind), *inner]))
    lines += _imap_sieve(run, section)
    for name in ("sieve_extensions", "sieve_global_extensions"):
        lines += _extensions(run, section, name)
    unchecked = section.take("sieve_vacation_dont_check_recipient")
    if unchecked is not None:
        path = (*section.path, "sieve_vacation_dont_check_recipient")
        lines += run.write(path, "sieve_vacation_check_recipient", "no" if is_yes(unchecked) else "yes")
    if lines:
        run.note(
            "warning",
            section.path,
            "sieve",
            "compiled scripts of 2.3 are not used by 2.4",
            "compile global scripts again with sievec, on one machine with 2.4",
            f"{UPGRADING}: Sieve",
        )
    return lines


def _imap_sieve(run: Run, section: Section) -> list[Entry]:
    """``imapsieve_mailboxN_*``: scripts within a block of the mailbox they watch."""
    found: dict[str, dict[str, str]] = {}
    for name in section.names():
        if match := re.fullmatch(r"imapsieve_mailbox(\d+)_(name|from|causes|before|after)", name):
            found.setdefault(match[1], {})[match[2]] = section.take(name) or ""
    lines = []
    for number, rule in found.items():
        paths = {key: (*section.path, f"imapsieve_mailbox{number}_{key}") for key in rule}
        causes = [word.lower() for word in words(rule.get("causes", "append copy flag"))]
        scripts: list[Entry] = []
        for kind in ("before", "after"):
            inner = _script(run, paths[kind], rule[kind], "path") if kind in rule else []
            if inner is None or not set(causes) <= {"append", "copy", "flag"}:
                scripts = []
                break
            if inner:
                more = [Entry("type", kind), Entry("cause", " ".join(causes)), *inner]
                scripts.append(block("sieve_script", f"imapsieve{number}-{kind}", more))
        to, source = rule.get("name", "*").strip(), rule.get("from", "*").strip()
        if not scripts or not _NAME.fullmatch(to) or not _NAME.fullmatch(source):
            for key, path in paths.items():
                gone = Gone(
                    "this rule of imapsieve is not understood here", "write sieve_script blocks", SIEVE, "error"
                )
                lines += run.attention(path, rule[key], gone)
            continue
        children: list[Entry] = scripts
        if source != "*":
            children = [block("imapsieve_from", source, children)]
        if to != "*":
            children = [block("mailbox", to, children)]
        lines += children
        for path in paths.values():
            run.became(path, *(child.name for child in children))
    return lines


def _personal(run: Run, section: Section) -> list[Entry]:
    value, folder = section.take("sieve"), section.take("sieve_dir")
    if value is None and folder is None:
        return []
    where = (*section.path, "sieve")
    paths = [(*section.path, name) for name, text in (("sieve", value), ("sieve_dir", folder)) if text is not None]
    if value is None or value.startswith("file:") or not re.match(r"[a-z]+:", value):
        if value is not None and value.startswith("file:"):
            inner = _script(run, where, value, "path")
        else:
            # One setting for the active script, another for the folder with all of them.
            active = run.expanded(where, value or "~/.dovecot.sieve")
            scripts = run.expanded((*section.path, "sieve_dir"), folder or "~/sieve")
            inner = None
            if active is not None and scripts is not None:
                inner = [Entry("path", scripts), Entry("active_path", active)]
        if inner is not None:
            for path in paths:
                run.became(path, "sieve_script personal")
            return [block("sieve_script", "personal", [Entry("type", "personal"), *inner])]
    found = []
    for path, text in zip(paths, [text for text in (value, folder) if text is not None]):
        gone = Gone("the place of users' scripts is not known here", "write sieve_script personal { }", SIEVE, "error")
        found += run.attention(path, text, gone)
    return found


def _script(run: Run, path: tuple[str, ...], value: str, first: str) -> list[Entry] | None:
    """``[file:]PATH[;active=..][;bindir=..][;name=..]``; ``None`` for another kind of storage."""
    text = value.removeprefix("file:")
    if re.match(r"[a-z]+:", text):
        return None
    place, *options = text.split(";")
    names = {"active": "active_path", "bindir": "bin_path", "name": "name"}
    found = [(first, place)]
    for option in options:
        key, sign, inner = option.partition("=")
        if not sign or key not in names:
            return None
        found.append((names[key], inner))
    told = [(name, run.expanded(path, inner)) for name, inner in found]
    return None if any(inner is None for _, inner in told) else [Entry(name, inner or "") for name, inner in told]


def _extensions(run: Run, section: Section, name: str) -> list[Entry]:
    value = section.take(name)
    if value is None:
        return []
    path = (*section.path, name)
    wanted: dict[str, bool] = {}
    for word in words(value):
        bare = word.lstrip("+-")
        if bare in SIEVE_EXTENSIONS_GONE:
            run.note("error", path, bare, f"the extension {bare} ended with 2.3", "change the scripts that use it")
        elif re.fullmatch(r"[A-Za-z0-9._;-]+", bare):
            wanted[bare] = not word.startswith("-")
        else:
            run.note("error", path, bare, "this is no extension that we know", "write it by hand")
    changes = any(word.startswith(("+", "-")) for word in words(value))
    if changes and not wanted:
        run.fates[path] = Fate("attention")
        return []
    run.became(path, name)
    if changes:
        return [entry(name, flags(wanted.items()))]
    return [Entry(name, " ".join(wanted))]


# ---- smaller plugins ----


def _compress(run: Run, section: Section) -> list[Entry]:
    method = section.take("zlib_save")
    level = section.take("zlib_save_level")
    lines: list[Entry] = []
    path = (*section.path, "zlib_save")
    if method is not None:
        if method.lower() in ("gz", "bz2", "zstd", "lz4", "deflate"):
            lines += run.write(path, "mail_compress_write_method", method.lower())
        else:
            gone = Gone(
                f"{method} is neither written nor read by 2.4",
                "compress such mail another way before the upgrade",
                f"{UPGRADING}: removed plugins",
                "error",
            )
            lines += run.attention(path, method, gone)
    if level is not None:
        path = (*section.path, "zlib_save_level")
        name = {"gz": "compress_gz_level", "zstd": "compress_zstd_level", "deflate": "compress_deflate_level"}
        name["bz2"] = "compress_bz2_block_size_100k"
        if (method or "").lower() in name:
            lines += run.write(path, name[(method or "").lower()], level)
        else:
            lines += run.attention(path, level, Gone("it goes with a method of compression", "write compress_*_level"))
    return lines


def _mail_log(run: Run, section: Section) -> list[Entry]:
    lines = []
    for name in ("mail_log_events", "mail_log_fields"):
        value = section.take(name)
        if value is not None:
            lines += run.write((*section.path, name), name, " ".join(words(value)))
    return lines


def _fts(run: Run, section: Section) -> list[Entry]:
    lines: list[Entry] = []
    driver = section.take("fts")
    if driver is not None:
        path = (*section.path, "fts")
        inner = []
        solr = section.take("fts_solr") if driver == "solr" else None
        if driver not in ("solr", "flatcurve"):
            gone = Gone(
                f"fts {driver} ended with 2.3: no index is used", "use flatcurve or solr, and index again", FTS, "error"
            )
            return [*lines, *run.attention(path, driver, gone)]
        if solr is not None:
            given = dict(word.partition("=")[::2] for word in words(solr))
            inner = [Entry("url", given.pop("url"))] if "url" in given else []
            where = (*section.path, "fts_solr")
            run.became(where, "fts solr/url")
            if given:
                run.note("warning", where, solr, f"{', '.join(given)}: not translated", "see fts_solr_* settings", FTS)
        run.became(path, f"fts {driver}")
        lines.append(block("fts", driver, inner))
        run.note(
            "warning",
            path,
            driver,
            "languages are blocks in 2.4, and its package must be there",
            "write language blocks, one with default = yes, install the plugin's package, and index again",
            FTS,
        )
    autoindex = section.take("fts_autoindex")
    if autoindex is not None:
        lines += run.write((*section.path, "fts_autoindex"), "fts_autoindex", autoindex)
    for name in section.names():
        if re.fullmatch(r"fts_autoindex_exclude\d*", name):
            path = (*section.path, name)
            folder = section.take(name) or ""
            if not _NAME.fullmatch(folder):
                gone = Gone("folders are excluded by name in 2.4", "write fts_autoindex = no into a mailbox block", FTS)
                lines += run.attention(path, folder, gone)
            else:
                run.mailboxes.setdefault(folder, []).append(Entry("fts_autoindex", "no"))
                run.became(path, f"mailbox {folder}/fts_autoindex")
    return lines
