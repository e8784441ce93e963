# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""The documentation agrees with the code, and with itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from ansible_collections.nfsmail.cluster.plugins.plugin_utils import distributions, wiki2012
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.dovecot_conf import PLACES
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.judge import CHECKS
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.profile import KEYS
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.rules import RULES

ROOT = Path(__file__).resolve().parents[3]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted(ROOT.glob("docs/*.md")),
    *sorted(ROOT.glob("roles/*/README.md")),
]
CODE = [
    path
    for folder in ("plugins", "roles", "playbooks")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".yml")
]
# A page's name in an error message, up to the end of the text.
CITED = re.compile(r"\b(docs|design): ([a-z ]+)")


def tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run tools/docs.py."""
    return subprocess.run(
        [sys.executable, str(ROOT / "tools" / "docs.py"), *arguments], capture_output=True, text=True, check=False
    )


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes for a page's headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_generated_tables_are_up_to_date() -> None:
    done = tool("--check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_stale_table_is_found(tmp_path: Path) -> None:
    """A check that cannot fail proves nothing: take a row out of a copy."""
    for name in ("plugins", "roles", "tools", "docs"):
        subprocess.run(["cp", "-r", str(ROOT / name), str(tmp_path / name)], check=True)
    collection = tmp_path / ".ansible" / "collections" / "ansible_collections" / "nfsmail"
    collection.mkdir(parents=True)
    (collection / "cluster").symlink_to(tmp_path)
    page = tmp_path / "docs" / "settings_matrix.md"
    text = page.read_text(encoding="utf-8")
    page.write_text(re.sub(r"\| NFS001 .*\n", "", text), encoding="utf-8")
    command = [sys.executable, str(tmp_path / "tools" / "docs.py")]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    checked = subprocess.run([*command, "--check"], capture_output=True, text=True, check=False, env=env)
    assert checked.returncode == 1 and checked.stdout.startswith("docs/settings_matrix.md: out of date"), checked
    subprocess.run(command, check=True, capture_output=True, env=env)
    assert page.read_text(encoding="utf-8") == text


def test_every_statement_of_2012_is_served_by_something_that_exists() -> None:
    ids = {rule.id for rule in RULES} | set(CHECKS)
    parts = {key.name for key in KEYS} | {choice for key in KEYS for choice in key.choices}
    parts |= {f"role {path.name}" for path in (ROOT / "roles").iterdir()}
    for statement in wiki2012.STATEMENTS:
        assert set(statement.served) <= ids | parts, statement.id
        assert statement.served or statement.verdict == wiki2012.DROPPED
        assert statement.says.endswith(".") and statement.today.endswith(".")
    numbers = [statement.id for statement in wiki2012.STATEMENTS]
    assert numbers == [f"W{number:02d}" for number in range(1, len(numbers) + 1)]
    cited = {word for one in wiki2012.LEFT_OUT for word in re.findall(r"NFS\d{3}", one.why)}
    assert cited <= ids


def test_rules_that_depart_from_2012_are_told_there() -> None:
    told = {id for one in wiki2012.STATEMENTS if one.verdict != wiki2012.KEPT for id in one.served}
    assert {rule.id for rule in RULES if rule.overrides_2012} <= told


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue  # another site, which no test reaches
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


def test_variables_and_rules_that_pages_name_exist() -> None:
    """A page by hand may name a variable that was renamed since, or a rule that went."""
    code = "\n".join(path.read_text(encoding="utf-8") for path in CODE)
    words = (
        set(re.findall(r"\w+", code)) | {path.stem for path in CODE} | {"nfsmail_mailbox_fromat"}
    )  # a mistake to show
    missing = {}
    for page in PAGES:
        text = re.sub(r"<!-- begin .*?<!-- end -->", "", page.read_text(encoding="utf-8"), flags=re.S)
        named = re.findall(r"\b(?:nfsmail|dovecot_proxy|nfs_server|nfs_client|timesync)_\w*[a-z]\b", text)
        missing[page.name] = {*named, *re.findall(r"\bNFS\d{3}\b", text)} - words
    assert not {page: names for page, names in missing.items() if names}


def test_pages_that_error_messages_cite_exist() -> None:
    headings = {anchor.replace("-", " ") for page in ROOT.glob("docs/*.md") for anchor in anchors(page)}
    cited = {match[2].strip() for path in CODE for match in CITED.finditer(path.read_text(encoding="utf-8"))}
    assert {"choosing a topology", "routing by shard", "verify"} <= cited
    assert cited <= headings


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    for page in [*ROOT.glob("docs/*.md"), *ROOT.glob("roles/*/README.md")]:
        assert page.name == "README.md" and page.parent.name == "docs" or os.path.relpath(page, ROOT / "docs") in index


@pytest.mark.parametrize("page", sorted(ROOT.glob("docs/[!R]*.md")), ids=lambda page: page.stem)
def test_every_page_is_on_the_front_page_and_on_the_site(page: Path) -> None:
    assert f"](docs/{page.name})" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"\ndocs/{page.stem}\n" in (ROOT / "docs" / "site" / "index.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("topology", next(key.choices for key in KEYS if key.name == "topology"))
def test_the_picture_of_a_topology_can_be_read_aloud(topology: str) -> None:
    svg = "{http://www.w3.org/2000/svg}"
    root = ElementTree.parse(ROOT / "docs" / "pictures" / f"topology-{topology}.svg").getroot()
    named = {root.find(f"{svg}{part}").get("id"): root.find(f"{svg}{part}").text for part in ("title", "desc")}
    assert root.get("role") == "img" and root.get("aria-labelledby").split() == list(named) and all(named.values())
    assert f"Topology {topology}:" in named["title"]


def test_the_design_page_names_every_file_of_the_brain() -> None:
    told = (ROOT / "docs" / "design.md").read_text(encoding="utf-8").partition("## The brain, file by file")[2]
    named = set(re.findall(r"`(\w+\.py)`", told.partition("\n## ")[0]))
    there = {path.name for path in ROOT.glob("plugins/plugin_utils/*.py")}
    assert named <= there
    assert {name for name in there if not name.startswith("upgrade_")} <= named


def test_files_that_are_replaced_are_listed() -> None:
    listed = (ROOT / "README.md").read_text(encoding="utf-8")
    sources = [*ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("roles/*/vars/*.yml")]
    lines = [line for path in sources for line in path.read_text(encoding="utf-8").splitlines()]
    written = {
        found
        for line in lines
        if re.match(r"\s+(dest|conf|file|unit_file):", line)
        for found in re.findall(r"/etc/[^'\"\s]+", line)
    }
    defaults = yaml.safe_load((ROOT / "roles" / "nfsmail" / "defaults" / "main.yml").read_text(encoding="utf-8"))
    written |= {str(value) for name, value in defaults.items() if name.endswith("_file")}
    written |= set(PLACES.values())
    assert len(written) > 10
    assert not {path for path in written if f"`{path}`" not in listed}


def test_the_readme_lists_the_distributions_as_the_data_has_them() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## Supported versions\n")[1].split("\n## ")[0]
    rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| ")][1:]
    told = set()
    for names, versions, state in rows:
        releases = re.findall(r"\b[\d.]+\b", names)
        assert len(releases) == len(versions.split(", ")), names
        family = names.split()[1].lower().rstrip(",")
        told |= {
            (f"{family} {one}", version, "proven" in state) for one, version in zip(releases, versions.split(", "))
        }
    assert told == {(one.key, one.dovecot, one.proven) for one in distributions.RELEASES}


def validate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run playbooks/validate.yml, which touches no host."""
    return subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), *arguments, "playbooks/validate.yml"],
        cwd=ROOT,
        env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_example_of_the_readme_is_a_sound_inventory(tmp_path: Path) -> None:
    example = re.search(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
    assert example
    inventory = tmp_path / "inventory.yml"
    inventory.write_text(example[1], encoding="utf-8")
    secrets = "vault_nfsmail_proxy_password=not-a-real-secret-0123 vault_anna={SHA512}none"
    done = validate("-i", str(inventory), "-e", secrets)
    assert done.returncode == 0, done.stdout + done.stderr
