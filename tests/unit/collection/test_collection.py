# SPDX-FileCopyrightText: The nfsmail.cluster authors
# SPDX-License-Identifier: GPL-3.0-or-later
"""What holds the collection together: specs and defaults, names of variables, directions of imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.nfsmail.cluster.plugins.filter import brain
from ansible_collections.nfsmail.cluster.plugins.plugin_utils import inventory
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.option_types import NOT_SET
from ansible_collections.nfsmail.cluster.plugins.plugin_utils.profile import KEYS

ROOT = Path(__file__).resolve().parents[3]
ROLES = {path.name: path for path in sorted((ROOT / "roles").iterdir()) if path.is_dir()}
# Dovecot reads these line by line; a comment would be a user.
DATA_FILES = {"users.j2", "overrides.j2", "shards.j2", "moving.j2", "state.j2"}
# Of this machine and this run, not of the cluster.
PRESENTATION = {
    *("nfsmail_report_path", "nfsmail_sarif_path", "nfsmail_html_path", "nfsmail_secure_logging"),
    *("nfsmail_audit_files", "nfsmail_audit_profile"),
}
TYPES = {"str": str, "path": str, "int": int, "float": (int, float), "bool": bool, "list": list, "dict": dict}


def load(path: Path) -> dict[str, Any]:
    """A YAML file; empty when there is none."""
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {} if path.exists() else {}


def spec(role: str) -> dict[str, dict[str, Any]]:
    """The options of the role's main entry point."""
    options: dict[str, dict[str, Any]] = load(ROLES[role] / "meta" / "argument_specs.yml")["argument_specs"]["main"][
        "options"
    ]
    return options


def defaults(role: str) -> dict[str, Any]:
    return load(ROLES[role] / "defaults" / "main.yml")


def described(option: dict[str, Any]) -> str:
    text = option["description"]
    return text if isinstance(text, str) else " ".join(text)


def is_template(value: Any) -> bool:
    return isinstance(value, str) and "{{" in value


OPTIONS = [(role, name) for role in ROLES for name in spec(role)]

# ---- specs and defaults ----


@pytest.mark.parametrize("role", ROLES)
def test_the_spec_says_what_the_defaults_are(role: str) -> None:
    documented = {name: option["default"] for name, option in spec(role).items() if "default" in option}
    set_ = {name: value for name, value in defaults(role).items() if name in documented}
    assert set_ == documented
    # True == 1 and "4" != 4: the types too.
    assert {name: type(value) for name, value in set_.items()} == {
        name: type(value) for name, value in documented.items()
    }


@pytest.mark.parametrize("role", ROLES)
def test_every_default_is_documented(role: str) -> None:
    """One that is computed is no value of its type, so it stands in the defaults only."""
    assert sorted(set(defaults(role)) - set(spec(role))) == []
    for name, value in defaults(role).items():
        option = spec(role)[name]
        computed = is_template(value) and {option["type"], option.get("elements")} & {"bool", "dict", "int"}
        assert ("default" in option) != bool(computed or value is None), name


@pytest.mark.parametrize(("role", "name"), OPTIONS)
def test_an_option(role: str, name: str) -> None:
    option = spec(role)[name]
    assert name.startswith(f"{role}_")
    owner = max((other for other in ROLES if name.startswith(f"{other}_")), key=len)
    assert owner == role
    assert re.search(r"[.)]$", described(option))
    if "default" not in option:
        assert (NOT_SET in described(option)) == (defaults(role).get(name) is None)
        return
    default = option["default"]
    if not is_template(default):
        assert isinstance(default, TYPES[option["type"]])
        assert option["type"] in ("bool",) or not isinstance(default, bool)
    if "choices" in option and not is_template(default):
        assert set(default if isinstance(default, list) else [default]) <= set(option["choices"])
    if option["type"] == "list":
        assert option["elements"]


@pytest.mark.parametrize(("role", "name"), OPTIONS)
def test_every_option_is_used(role: str, name: str) -> None:
    word = re.compile(rf"\b{name}\b")
    places = [
        path
        for path in (*(ROOT / "roles").rglob("*"), *(ROOT / "playbooks").rglob("*"), *(ROOT / "plugins").rglob("*.py"))
        if path.is_file() and path.name != "argument_specs.yml" and path.suffix in (".yml", ".j2", ".py")
    ]
    own = ROLES[role] / "defaults" / "main.yml"
    uses = sum(len(word.findall(path.read_text(encoding="utf-8"))) - (path == own) for path in places)
    assert uses > 0, f"{name} is documented, but nothing reads it"


@pytest.mark.parametrize("role", ROLES)
def test_role_vars_are_private(role: str) -> None:
    prefixes = ("nfsmail_", "__nfsmail_") if role == "nfsmail" else (f"__{role}_",)
    names = load(ROLES[role] / "vars" / "main.yml")
    assert [name for name in names if not name.startswith(prefixes)] == []
    assert sorted(set(names) & set(spec(role))) == []


@pytest.mark.parametrize("role", ROLES)
def test_names_made_up_in_tasks_are_private_or_known(role: str) -> None:
    known = brain._documented()
    for path in (ROLES[role] / "tasks").glob("*.yml"):
        for name in made_up(yaml.safe_load(path.read_text(encoding="utf-8")) or []):
            if not name.startswith("__"):
                assert inventory.misspelt({"host": [name]}, known) == [], f"{path.name}: {name}"


def made_up(tasks: Any) -> Iterator[str]:
    """Names of registered results and of facts."""
    for task in tasks:
        if isinstance(task.get("register"), str):
            yield task["register"]
        facts = task.get("ansible.builtin.set_fact") or {}
        yield from (name for name in facts if name != "cacheable")
        for block in ("block", "rescue", "always"):
            yield from made_up(task.get(block) or [])


# ---- the cluster's variables ----


def test_the_brain_gets_every_variable_of_the_cluster() -> None:
    given = load(ROLES["nfsmail"] / "vars" / "main.yml")["__nfsmail_variables"]
    options = spec("nfsmail")
    wanted = {name for name in options if "default" in options[name] or name in defaults("nfsmail")} - PRESENTATION
    assert set(given) == wanted
    assert all(template == f"{{{{ {name} }}}}" for name, template in given.items())


@pytest.mark.parametrize("key", [key for key in KEYS if key.name != "dovecot_version"], ids=lambda key: key.name)
def test_the_profile_is_the_spec(key: Any) -> None:
    option = spec("nfsmail")[f"nfsmail_{key.name}"]
    assert tuple(option.get("choices", ())) == key.choices
    assert option.get("default") == key.default
    assert option["type"] == ("str" if key.choices else "bool")


def test_variables_of_a_host_have_no_default() -> None:
    options = spec("nfsmail")
    without = {name for name in options if name not in defaults("nfsmail")}
    assert without == set(inventory.PER_HOST)


def test_every_role_has_its_prefix() -> None:
    # A misspelt variable is found by these.
    assert {f"{role}_" for role in ROLES} - {"dovecot_proxy_"} <= set(inventory.PREFIXES)


def test_live_facts_are_left_by_the_roles() -> None:
    for _kind, fact in brain.LIVE.values():
        role = fact.removesuffix("_live")
        text = (ROLES[role] / "tasks" / "verify.yml").read_text(encoding="utf-8")
        assert f"    {fact}:\n" in text


def test_variables_that_are_gone_have_a_name_that_exists() -> None:
    known = brain._documented()
    assert set(inventory.GONE.values()) <= known
    assert not set(inventory.GONE) & known
    assert all(name.startswith(inventory.PREFIXES) for name in inventory.GONE)


# ---- commands ----


def test_make_help_lists_every_command() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    told = re.findall(r"^([a-zA-Z_-]+):.*?## (.+)$", text, re.M)
    phony = {name for line in re.findall(r"^\.PHONY: (.*)$", text, re.M) for name in line.split()} - {"$(SCENARIOS)"}
    assert {name for name, _line in told} == phony | {"molecule-NAME"}
    scenarios = dict(told)["molecule-NAME"]
    assert all(path.parent.name in scenarios for path in (ROOT / "molecule").glob("*/molecule.yml"))


def test_the_inner_loop_is_a_command_that_works() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    command = re.search(r"^    PYTHONPATH=(\S+) (\S+) -q -x (\S+) ", text, re.M)
    assert command and command[2] == ".venv/bin/pytest"
    assert (ROOT / command[3]).is_dir() and command[1] == ".ansible/collections"


def test_the_tags_of_playbooks_are_documented() -> None:
    tags = {
        tag
        for path in (ROOT / "playbooks").glob("*.yml")
        for play in yaml.safe_load(path.read_text(encoding="utf-8"))
        for tag in play.get("tags", [])
    }
    for path in (*(ROOT / "roles").glob("*/tasks/*.yml"), *(ROOT / "roles").glob("*/handlers/*.yml")):
        assert "\n  tags:" not in path.read_text(encoding="utf-8"), path
    page = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
    table = page.split("## A part of a run\n")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \| .+ \|$", table, re.M)) == tags - {"always"}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"--tags (\w+)", readme)) == tags - {"always"}


def test_the_execution_environment_needs_nothing_else() -> None:
    """What ansible-builder reads of a collection: no Python and no system package."""
    assert load(ROOT / "meta" / "execution-environment.yml") == {"version": 1, "dependencies": {}}


# ---- files ----


@pytest.mark.parametrize(
    "path", sorted((ROOT / "roles").glob("*/templates/*")), ids=lambda path: path.parts[-3] + "/" + path.name
)
def test_a_template_says_who_manages_the_file(path: Path) -> None:
    first = path.read_text(encoding="utf-8").splitlines()[0]
    if path.name in DATA_FILES:
        assert "ansible_managed" not in first
    else:
        assert first == "{{ ansible_managed | comment }}"


def test_every_template_is_used_by_its_role() -> None:
    for path in (ROOT / "roles").glob("*/templates/*"):
        tasks = path.parents[1] / "tasks"
        assert any(path.name in file.read_text(encoding="utf-8") for file in tasks.glob("*.yml")), path


def test_every_filter_that_a_role_uses_exists() -> None:
    for path in (
        *(ROOT / "roles").rglob("*.yml"),
        *(ROOT / "roles").rglob("*.j2"),
        *(ROOT / "playbooks").glob("*.yml"),
    ):
        for name in re.findall(r"\|\s*nfsmail\.cluster\.(\w+)", path.read_text(encoding="utf-8")):
            assert name in brain.FILTERS, f"{path}: {name}"


SOURCES = [
    path
    for folder in (".ci", "molecule", "plugins", "roles", "tests", "tools")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.is_file() and "__pycache__" not in path.parts
]


def is_program(path: Path) -> bool:
    """Python, what a shell or another interpreter runs, and the pages of filters. Roles and playbooks have no header, nor
    templates, whose text ends up on machines."""
    if path.suffix == ".py" or path.parent.parent.name == "plugins" and path.suffix == ".yml":
        return path.stat().st_size > 0
    with path.open("rb") as file:
        return path.suffix == ".sh" or file.read(2) == b"#!"


def test_programs_say_what_their_licence_is() -> None:
    programs = [path for path in SOURCES if is_program(path)]
    assert {"setup", "init.sh", "brain.py", "shard_of.yml", "nfsmail-settled"} <= {path.name for path in programs}
    without = [
        str(path.relative_to(ROOT))
        for path in programs
        if "# SPDX-License-Identifier: GPL-3.0-or-later" not in path.read_text(encoding="utf-8").splitlines()[:5]
    ]
    assert without == []


# ---- imports ----


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Level and module of each import; for ``from . import x`` the module is x."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            yield node.level, module
            if node.level and not module:
                yield from ((node.level, alias.name) for alias in node.names)


STANDARD = {
    *("__future__", "ast", "base64", "bisect", "collections", "dataclasses", "difflib", "functools", "hashlib"),
    *("ipaddress", "statistics"),
    *("math", "operator", "pathlib", "posixpath", "re", "typing", "itertools", "json", "textwrap", "html", "urllib"),
}


@pytest.mark.parametrize("path", sorted((ROOT / "plugins" / "plugin_utils").glob("*.py")), ids=lambda path: path.name)
def test_the_brain_knows_no_ansible(path: Path) -> None:
    for level, module in imports(path):
        if level == 0:
            assert module.split(".")[0] in STANDARD, module
        elif level == 2:
            assert module.startswith("module_utils."), module
        else:
            assert level == 1


def test_what_the_brain_shares_with_the_modules_is_pure() -> None:
    shared = {
        module.removeprefix("module_utils.")
        for path in (ROOT / "plugins" / "plugin_utils").glob("*.py")
        for level, module in imports(path)
        if level == 2
    }
    assert shared
    here = "ansible_collections.nfsmail.cluster.plugins.module_utils"
    for name in shared:
        for level, module in imports(ROOT / "plugins" / "module_utils" / f"{name}.py"):
            assert level == 0
            assert module.split(".")[0] in STANDARD or module == here or module.startswith(f"{here}._"), module


def test_filters_know_only_the_brain() -> None:
    known = {"ansible.errors", "jinja2", "yaml"}
    for level, module in imports(ROOT / "plugins" / "filter" / "brain.py"):
        assert level == 0 and (module.split(".")[0] in STANDARD or module in known) or level == 2, module
        assert level == 0 or module.startswith("plugin_utils"), module


def test_modules_know_nothing_of_the_brain() -> None:
    # They run on the host, where the brain is not.
    for folder in ("modules", "module_utils"):
        for path in (ROOT / "plugins" / folder).glob("*.py"):
            for _level, module in imports(path):
                assert "plugin_utils" not in module, path.name
