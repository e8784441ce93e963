# Copyright: (c) 2026, the nfsmail.cluster contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a backend does beside storing mail, as data: each feature's plugins, settings and packages.

Several features write into the same settings and sections: ``mail_plugins`` is put together here, once for everybody and
once for each protocol, and sections of one name become one. What is wrong with a feature in a cluster is said by rules about
written settings (``rules.py``, ``found``), so that an audit finds it on any machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .dialect import Entry
from .dialect import entries as entries_of
from .errors import NfsmailError, Problem, nearest
from .location import of_owner, translate, within
from .profile import FALSE_WORDS, KNOWN_SERIES, TRUE_WORDS, Profile, as_list, is_yes, series_of
from .protocols import PROTOCOLS

SOURCE = "docs: features"
MAIL_PLUGINS = "mail_plugins"
# What stands for the plugins of everybody within a section: in 2.3; 2.4 adds to them by itself.
INHERITED = ("$mail_plugins", "$SET:mail_plugins")
# The cluster's variables, with defaults filled in.
Told = Mapping[str, Any]


@dataclass(frozen=True)
class Plugin:
    """A mail plugin. ``protocols``: where it is loaded; none means everywhere. ``series``: the dialects that have it.

    ``package``: where it is in a package of its own, by Debian's name.
    """

    name: str
    protocols: tuple[str, ...] = ()
    series: tuple[str, ...] = KNOWN_SERIES
    package: str = ""


@dataclass(frozen=True)
class Feature:
    """One feature of backends.

    ``variable``: the variable that asks for it; ``wanted``: whether it does. ``why``: the comment above its plugins.
    ``settings``: its settings in the profile's dialect; a section ``protocol NAME`` is left out where that is not served.
    ``packages``: by Debian's names. ``problems``: what is wrong with what it was told.
    """

    name: str
    variable: str
    why: str
    wanted: Callable[[Told], bool]
    plugins: tuple[Plugin, ...] = ()
    settings: Callable[[Told, Profile], Iterable[Entry]] = lambda told, profile: ()
    packages: tuple[str, ...] = ()
    problems: Callable[[Told, Profile], Iterable[Problem]] = lambda told, profile: ()


# ---- quota ----

SIZE = re.compile(r"[1-9]\d{0,11}[KMGT]\Z")
QUOTA_ROOT = "User quota"
# 2.3 would let the last message go over by a tenth of the quota, 2.4 by this; the same on both.
QUOTA_GRACE = "10M"


def _quota_problems(told: Told, profile: Profile) -> Iterator[Problem]:
    if not SIZE.match(str(told["nfsmail_quota"])):
        rule = "a whole number with K, M, G or T behind it; empty for no quota"
        yield Problem("nfsmail_quota", told["nfsmail_quota"], rule, 'write "2G" or the like', SOURCE)


def _quota(told: Told, profile: Profile) -> Iterator[Entry]:
    size, why = str(told["nfsmail_quota"]), "How much mail a user may have, counted in the index files."
    if profile.series == "2.4":
        lines = {"driver": "count", "storage_size": size, "storage_grace": QUOTA_GRACE}
        yield Entry(f'quota "{QUOTA_ROOT}"', entries_of(lines), why)
    else:
        rule = {"quota_vsizes": "yes", "quota_rule": f"*:storage={size}", "quota_grace": QUOTA_GRACE}
        yield Entry("plugin", (Entry("quota", f"count:{QUOTA_ROOT}", why), *entries_of(rule)))
    why = "Who is over quota is refused before the message is sent: the sender keeps it, and tells its author."
    yield Entry("protocol lmtp", (Entry("lmtp_rcpt_check_quota", "yes", why),))


# ---- Sieve ----

# Scripts of everybody, which role dovecot writes and compiles.
SIEVE_DIRECTORY = "/etc/dovecot/nfsmail-sieve"
SCRIPT_NAME = re.compile(r"[a-z0-9][a-z0-9-]*\Z")


def scripts(told: Told) -> list[Mapping[str, Any]]:
    """The scripts of everybody, in the order in which they run."""
    given = told.get("nfsmail_sieve_before") or []
    return [one for one in given if isinstance(one, Mapping)] if isinstance(given, (list, tuple)) else []


def _sieve_problems(told: Told, profile: Profile) -> Iterator[Problem]:
    if profile.delivery != "lda" and "lmtp" not in as_list(told.get("nfsmail_protocols")):
        rule = "Sieve runs where Dovecot delivers, by lmtp or lda"
        yield Problem("nfsmail_sieve", told["nfsmail_sieve"], rule, "add lmtp to nfsmail_protocols", SOURCE)
    names: set[str] = set()
    for number, one in enumerate(scripts(told)):
        where, name = f"nfsmail_sieve_before[{number}]", str(one.get("name") or "")
        if not SCRIPT_NAME.match(name) or name in names:
            rule = "small letters, digits and dashes, another name for each script: it becomes a file's"
            yield Problem(f"{where}.name", name or None, rule, "name it after what it does, such as spam", SOURCE)
        names.add(name)
        if not str(one.get("script") or "").strip():
            yield Problem(
                f"{where}.script", None, "the text of a Sieve script", "write it, or remove the entry", SOURCE
            )


def _sieve(told: Told, profile: Profile) -> Iterator[Entry]:
    # No bindir: measured with 2.3.19 and 2.4.1, the compiled active script lies beside it all the same.
    personal, before = "Users' scripts are in their homes, on the mail store.", "For everybody, before users' own."
    files = {str(one.get("name")): f"{SIEVE_DIRECTORY}/{one.get('name')}.sieve" for one in scripts(told)}
    if profile.series == "2.4":
        lines = {"driver": "file", "path": "~/sieve", "active_path": "~/.dovecot.sieve"}
        yield Entry("sieve_script personal", entries_of(lines), personal)
        for name, path in files.items():
            lines = {"type": "before", "driver": "file", "path": path}
            yield Entry(f"sieve_script before-{name}", entries_of(lines), before)
        return
    yield Entry("plugin", (Entry("sieve", "file:~/sieve;active=~/.dovecot.sieve", personal),))
    for number, path in enumerate(files.values(), 1):
        yield Entry("plugin", (Entry(f"sieve_before{number if number > 1 else ''}", path, before),))


# ---- searching ----

# What Dovecot can cut words of to their stem; in 2.4 only.
LANGUAGES = ("da", "de", "en", "es", "fi", "fr", "it", "nl", "no", "pt", "ro", "ru", "sv", "tr")
# Where users look when something is missing: indexed by the first search there, not as mail comes in.
SEARCHED_RARELY = ("Junk", "Trash")


def _search_problems(told: Told, profile: Profile) -> Iterator[Problem]:
    languages = as_list(told.get("nfsmail_fts_languages"))
    if not languages or set(languages) - set(LANGUAGES):
        fix, source = "write the language of most mail first", "Dovecot documentation, FTS page, languages"
        yield Problem("nfsmail_fts_languages", languages, f"one or more of {', '.join(LANGUAGES)}", fix, source)


def _search(told: Told, profile: Profile) -> Iterator[Entry]:
    # Whatever delivers elsewhere would have the mail indexed there.
    own = profile.topology == "single" or profile.delivery == "lmtp"
    word = "yes" if own else "no"
    why = "Mail is indexed as it comes in." if own else "Indexed by the first search: mail may come in elsewhere."
    if profile.series == "2.3":
        rare = zip(("", "2"), SEARCHED_RARELY)
        yield Entry(
            "plugin",
            (
                Entry("fts", "xapian", "The index of words lies with Dovecot's index files."),
                Entry("fts_xapian", "partial=3 full=20"),
                Entry("fts_autoindex", word, why),
                *(Entry(f"fts_autoindex_exclude{number}", f"\\{folder}") for number, folder in rare),
            ),
        )
        yield Entry("service indexer-worker", (Entry("vsz_limit", "2G"),), "What fts-xapian wants to have.")
        return
    keep = "Shards are not merged: NFS keeps the files of one that is removed while it is open, and then 2.4 crashes."
    limit = (Entry("optimize_limit", "0", keep),) if profile.index_location == "nfs" else ()
    yield Entry("fts flatcurve", limit, "The index of words lies with Dovecot's index files.")
    yield Entry("fts_autoindex", word, why)
    yield Entry("language_filters", "normalizer-icu snowball", "Words are compared without accents and endings.")
    yield Entry("language_tokenizers", "generic email-address")
    for number, language in enumerate(as_list(told.get("nfsmail_fts_languages"))):
        yield Entry(f"language {language}", () if number else (Entry("default", "yes"),))
    if own:
        later = (Entry(f"mailbox {folder}", (Entry("fts_autoindex", "no"),)) for folder in SEARCHED_RARELY)
        yield Entry("namespace inbox", tuple(later))


# ---- sharing ----

# On the mail store, which all that the mailboxes are shared between is on; no domain and no user has such a name.
SHARES = ".nfsmail/shared-mailboxes"


def _sharing(told: Told, profile: Profile) -> Iterator[Entry]:
    new = profile.series == "2.4"
    owner = "%{owner_user}" if new else "%%u"
    parts = {"mail_index_private_path": f"~/shared-seen/{owner}"}
    if profile.index_location == "local":
        index = translate("nfsmail_index_path", str(told.get("nfsmail_index_path") or ""), profile.series)
        parts["mail_index_path"] = of_owner(index, profile.series)
    home = translate("nfsmail_mail_home", str(told.get("nfsmail_mail_home") or ""), profile.series)
    where = within(of_owner(home, profile.series), profile.mailbox_format, parts, profile.series)
    if not new:
        # A namespace has a setting of its own for it.
        where = {"location": where["mail_location"]}
    lines = {"type": "shared", "prefix": f"shared/{'$user' if new else '%%u'}/", "separator": "/", "list": "children"}
    shares, why = f"{told.get('nfsmail_store_path')}/{SHARES}", "Who shares with whom, for IMAP's LIST."
    if new:
        yield Entry("acl_driver", "vfile", "Access lists lie with the mailboxes.")
        dictionary = Entry("dict file", (Entry("path", shares),))
        yield Entry("acl_sharing_map", (dictionary,), why)
    else:
        lists = Entry("acl", "vfile", "Access lists lie with the mailboxes.")
        yield Entry("plugin", (lists, Entry("acl_shared_dict", f"file:{shares}", why)))
    dot = "The same in all namespaces; a dot, as Maildir would have it, is in users' names."
    yield Entry("namespace inbox", (Entry("separator", "/", dot),))
    why = "What others share with a user. Which mail is read is each user's own, other flags are common."
    yield Entry("namespace shared", (*entries_of({**lines, "subscriptions": "no"}), *entries_of(where)), why)


# ---- submission ----

RELAY = "nfsmail_submission_relay"
HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?\Z|[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*\Z")
CA_PATH = re.compile(r"/[^\s\"'\\#$%]+\Z")
# In Dovecot's words.
RELAY_TLS = {"none": "no", "starttls": "starttls", "smtps": "smtps"}
RELAY_DEFAULTS: Told = {"host": "", "port": 25, "tls": "none", "ca": "", "xclient": False}


def relay(told: Told) -> Mapping[str, Any]:
    """Where the mail of users goes, with defaults filled in; empty where nobody says."""
    given = told.get(RELAY)
    if not isinstance(given, Mapping) or not given:
        return {}
    return {**RELAY_DEFAULTS, **given}


def _submission_problems(told: Told, profile: Profile) -> Iterator[Problem]:
    given = relay(told)

    def wrong(key: str, rule: str, fix: str) -> Problem:
        return Problem(f"{RELAY}.{key}", given.get(key), rule, fix, SOURCE)

    for key in given:
        if key not in RELAY_DEFAULTS:
            yield wrong(
                str(key), f"one of {', '.join(RELAY_DEFAULTS)}", f"did you mean {nearest(str(key), RELAY_DEFAULTS)!r}?"
            )
    if "submission" not in as_list(told.get("nfsmail_protocols")):
        rule = "backends hand mail over that users send by submission, which nfsmail_protocols does not have"
        yield Problem(RELAY, dict(given), rule, "add submission to nfsmail_protocols, or remove the relay", SOURCE)
    if not HOST.match(str(given.get("host") or "")):
        rule = "the name or the address of the mail transfer agent: without it no user could send anything"
        yield wrong("host", rule, "write smtp.example.com, 192.0.2.25 or the like")
    port = str(given["port"])
    if isinstance(given["port"], bool) or not re.fullmatch(r"[1-9]\d{0,4}", port) or int(port) > 65535:
        yield wrong("port", "a port, 1 to 65535", "leave it out for 25")
    tls = str(given["tls"])
    if tls not in RELAY_TLS:
        yield wrong("tls", f"one of {', '.join(RELAY_TLS)}", f"did you mean {nearest(tls, RELAY_TLS)!r}?")
    elif tls != "none" and not CA_PATH.match(str(given["ca"] or "")):
        rule = "with TLS the certificate of the mail transfer agent is checked, against a CA in a file on the backends"
        yield wrong("ca", rule, "write its absolute path, such as /etc/ssl/certs/ca-certificates.crt")
    elif tls == "none" and given["ca"]:
        yield wrong("ca", "without TLS there is no certificate to check", "set tls to starttls or smtps, or remove it")
    if str(given["xclient"]).lower() not in TRUE_WORDS | FALSE_WORDS:
        yield wrong("xclient", "a boolean", "write true or false")


def _submission(told: Told, profile: Profile) -> Iterator[Entry]:
    given = relay(told)
    lines = {
        "submission_relay_host": str(given["host"]),
        "submission_relay_port": str(given["port"]),
        # An unknown word as it is: Dovecot refuses it.
        "submission_relay_ssl": RELAY_TLS.get(str(given["tls"]), str(given["tls"])),
        "submission_relay_trusted": "yes" if is_yes(given["xclient"]) else "no",
    }
    if given["ca"]:
        lines["ssl_client_ca_file"] = str(given["ca"])
    # In its own section: where submission is not served, 2.3 may lack the package and does not know the settings.
    yield Entry("protocol submission", entries_of(lines), "What users send goes to the mail transfer agent.")


# ---- all of them ----

FEATURES: tuple[Feature, ...] = (
    Feature(
        "quota",
        "nfsmail_quota",
        "Quota, and IMAP's commands to ask for it.",
        lambda told: told.get("nfsmail_quota") not in (None, ""),
        (Plugin("quota"), Plugin("imap_quota", ("imap",))),
        _quota,
        problems=_quota_problems,
    ),
    Feature(
        "sieve",
        "nfsmail_sieve",
        "Sieve scripts decide where mail goes.",
        lambda told: is_yes(told.get("nfsmail_sieve")),
        (Plugin("sieve", ("lmtp", "lda")),),
        _sieve,
        ("dovecot-sieve",),
        _sieve_problems,
    ),
    Feature(
        "search",
        "nfsmail_fts",
        "Words are searched for in an index.",
        lambda told: is_yes(told.get("nfsmail_fts")),
        (
            Plugin("fts"),
            Plugin("fts_xapian", series=("2.3",), package="dovecot-fts-xapian"),
            Plugin("fts_flatcurve", series=("2.4",), package="dovecot-flatcurve"),
        ),
        _search,
        problems=_search_problems,
    ),
    Feature(
        "sharing",
        "nfsmail_acl",
        "Mailboxes can be shared, and IMAP's commands for it.",
        lambda told: is_yes(told.get("nfsmail_acl")),
        (Plugin("acl"), Plugin("imap_acl", ("imap",))),
        _sharing,
    ),
    Feature(
        "submission",
        RELAY,
        "Users send mail.",
        lambda told: bool(relay(told)),
        settings=_submission,
        problems=_submission_problems,
    ),
)


def wanted(told: Told) -> list[Feature]:
    """The features that the cluster's variables ask for."""
    return [feature for feature in FEATURES if feature.wanted(told)]


def packages(protocols: Any, told: Told, version: str = "") -> list[str]:
    """What a machine needs for what it serves, by Debian's names.

    ``told``: the cluster's variables; of a proxy none, it has no features. ``version``: its Dovecot, for plugins that not every
    release has.
    """
    found = ["dovecot-core"]
    for name in as_list(protocols):
        found += PROTOCOLS[name].packages if name in PROTOCOLS else ()
    for feature in wanted(told):
        found += feature.packages
        found += [plugin.package for plugin in feature.plugins if version and series_of(version) in plugin.series]
    return list(dict.fromkeys(filter(None, found)))


def unasked(told: Told) -> Iterator[Problem]:
    """What would be of no use without a feature that nobody asks for."""
    if not is_yes(told.get("nfsmail_sieve")):
        for variable, given in (("nfsmail_protocols", "sieve"), ("nfsmail_sieve_before", "")):
            if told.get(variable) and (not given or given in as_list(told[variable])):
                rule = "without nfsmail_sieve no script is ever run"
                yield Problem(variable, given or "scripts", rule, "set nfsmail_sieve: true, or remove it", SOURCE)
    if "submission" in as_list(told.get("nfsmail_protocols")) and not relay(told):
        rule = "without nfsmail_submission_relay nobody could send anything"
        fix = "name the mail transfer agent: nfsmail_submission_relay: {host: smtp.example.com}"
        yield Problem("nfsmail_protocols", "submission", rule, fix, SOURCE)


def entries(
    told: Told,
    profile: Profile,
    protocols: Sequence[str],
    more: Mapping[str, Sequence[str]] | None = None,
    features: Sequence[Feature] | None = None,
) -> list[Entry]:
    """The settings of all features that are wanted, sections joined.

    ``more``: plugins that somebody wants beside ours, by section (see `plugins_of`). ``features``: in place of those wanted.
    """
    chosen = wanted(told) if features is None else features
    if not chosen:
        return []
    found = [*_mail_plugins(chosen, profile, more or {})]
    for feature in chosen:
        found += feature.settings(told, profile)
    here = {"doveadm", "lda" if profile.delivery == "lda" else "", *protocols}
    here |= {section.partition(" ")[2] for section in more or {}}
    return joined(
        entry for entry in found if not entry.name.startswith("protocol ") or entry.name.partition(" ")[2] in here
    )


def joined(tree: Iterable[Entry]) -> list[Entry]:
    """Sections of one name as one section, where the first of them stands; settings as they come."""
    found: list[Entry] = []
    places: dict[str, int] = {}
    for entry in tree:
        if not isinstance(entry.value, tuple):
            found.append(entry)
        elif entry.name in places:
            first = found[places[entry.name]]
            inside = tuple(joined((*first.value, *entry.value)))
            found[places[entry.name]] = replace(first, value=inside, why=first.why or entry.why)
        else:
            places[entry.name] = len(found)
            found.append(replace(entry, value=tuple(joined(entry.value))))
    return found


def paths(tree: Iterable[Entry], within: str = "") -> Iterator[str]:
    """Every setting of a tree with its sections in front; ``mail_plugins`` left out, to which others may add."""
    for entry in tree:
        if entry.name == MAIL_PLUGINS:
            continue
        if isinstance(entry.value, tuple):
            yield from paths(entry.value, f"{within}{entry.name}/")
        else:
            yield f"{within}{entry.name}"


def plugins_of(variable: str, extra: Any, series: str, told: Told) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Extra settings without their ``mail_plugins``, and the plugins by section (empty: everywhere).

    Only where features have plugins of their own: otherwise the extra settings stay as they are. Errors: a section that
    would do without the features' plugins.
    """
    if not any(feature.plugins for feature in wanted(told)) or not isinstance(extra, Mapping):
        return (dict(extra) if isinstance(extra, Mapping) else extra), {}
    rest: dict[str, Any] = {}
    found: dict[str, list[str]] = {}
    problems: list[Problem] = []
    for name, value in extra.items():
        if name == MAIL_PLUGINS:
            found[""] = _names(value)
        elif str(name).startswith("protocol ") and isinstance(value, Mapping) and MAIL_PLUGINS in value:
            given = value[MAIL_PLUGINS]
            if series == "2.3" and isinstance(given, str) and not set(given.split()) & set(INHERITED):
                problems.append(
                    Problem(
                        f"{variable}.{name}.{MAIL_PLUGINS}",
                        given,
                        "without $mail_plugins in front this section loses the plugins of everybody, our features' among them",
                        f"write $mail_plugins {given}",
                        "Dovecot 2.3 documentation, plugins",
                    )
                )
            found[str(name)] = _names(given)
            left = {inner: text for inner, text in value.items() if inner != MAIL_PLUGINS}
            rest |= {name: left} if left else {}
        else:
            rest[name] = value
    if problems:
        raise NfsmailError(problems)
    return rest, found


def _names(given: Any) -> list[str]:
    if isinstance(given, Mapping):
        return [str(name) for name, value in given.items() if str(value).lower() in ("yes", "true")]
    words = given if isinstance(given, (list, tuple)) else str(given or "").split()
    return [str(word) for word in words if word not in INHERITED]


def _mail_plugins(features: Sequence[Feature], profile: Profile, more: Mapping[str, Sequence[str]]) -> Iterator[Entry]:
    """``mail_plugins`` for everybody first: 2.3 puts it into the sections when it reads them."""
    names: dict[str, list[str]] = {"": []}
    whys: dict[str, list[str]] = {"": []}
    for feature in features:
        for plugin in feature.plugins:
            if profile.series in plugin.series:
                for section in [f"protocol {name}" for name in plugin.protocols] or [""]:
                    names.setdefault(section, []).append(plugin.name)
                    whys.setdefault(section, []).append(feature.why)
    for section, extra in more.items():
        names.setdefault(section, []).extend(extra)
    for section, found in names.items():
        once = list(dict.fromkeys(found))
        if not once:
            continue
        why = "\n".join(dict.fromkeys(whys.get(section, []))) or "From extra settings in the inventory."
        if profile.series == "2.4":
            entry = Entry(MAIL_PLUGINS, tuple(Entry(name, "yes") for name in once), why)
        else:
            entry = Entry(MAIL_PLUGINS, " ".join([INHERITED[0], *once] if section else once), why)
        yield Entry(section, (entry,)) if section else entry
