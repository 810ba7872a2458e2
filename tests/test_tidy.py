"""The rules of this house that a program can check."""

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scrip.settings import Settings, variable

ROOT = Path(__file__).parent.parent
GIT = shutil.which("git") or "git"
BIN = Path(sys.executable).parent
PACKAGES = ("ledger", "projections", "api", "consumers", "scrip")
LINES_MAX = 400
FUNCTION_LINES_MAX = 50
STATEMENTS = re.compile(
    r"^\s*(SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH|CREATE|ALTER|DROP|GRANT|TRUNCATE|LOCK)\s"
)
# Written in pieces, so that this file does not break its own rule.
MACHINE_PATHS = ("/wo" + "rk/", "/ro" + "ot/", "sha" + "red/", "/home" + "/")
REGISTRIES = ("--index" + "-url", "pypi" + ".org", "pythonhosted", "--find-links", "file" + "://")
IMPURE = {"io", "logging", "os", "pathlib", "random", "secrets", "socket", "threading", "time"}
PIN = re.compile(r"^(\S+==\S+).*\n((?: +--hash=sha256:[0-9a-f]{64}.*\n)*)", re.MULTILINE)
SKIPPED = {".git", ".venv", ".scrip", "build", "dist", "node_modules"}


def ours(*suffixes: str) -> Iterator[Path]:
    """Yield the files of the project: what git knows or would add."""
    listed = subprocess.run(
        [GIT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    names = listed.stdout.split("\0") if listed.returncode == 0 else all_names()
    for name in names:
        path = ROOT / name
        if name and path.is_file() and (not suffixes or path.suffix in suffixes):
            yield path


def all_names() -> list[str]:
    """Return every file name, where this is no checkout of git."""
    return [
        str(path.relative_to(ROOT))
        for path in ROOT.rglob("*")
        if not SKIPPED & set(path.relative_to(ROOT).parts) and "__pycache__" not in path.parts
    ]


def python_files() -> Iterator[tuple[Path, ast.Module]]:
    for path in ours(".py"):
        yield path.relative_to(ROOT), ast.parse(path.read_text("utf-8"))


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "--output-format", "concise"),
        ("ruff", "format", "--check"),
        ("mypy",),
        ("lint-imports",),
    ],
    ids=" ".join,
)
def test_the_tools_have_nothing_to_say(command: tuple[str, ...]) -> None:
    program = BIN / command[0]
    done = subprocess.run(
        [program, *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_file_is_longer_than_a_reader_has_patience() -> None:
    long = {
        str(p): n for p in ours(".py") if (n := len(p.read_text("utf-8").splitlines())) > LINES_MAX
    }
    assert long == {}


def test_no_function_is_longer_than_a_screen() -> None:
    long = {
        f"{path}: {node.name}": length
        for path, tree in python_files()
        if path.parts[0] in PACKAGES
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        # Without its head: the options of a command are many, and each takes some lines.
        and (length := (node.end_lineno or 0) - node.body[0].lineno + 1) > FUNCTION_LINES_MAX
    }
    assert long == {}


def test_no_file_names_a_machine_it_was_made_on() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {word}"
        for path in ours()
        for word in MACHINE_PATHS
        if word in path.read_text("utf-8", errors="replace")
    ]
    assert found == []


def test_the_locks_name_no_registry_and_have_a_hash_for_each_package() -> None:
    for lock in sorted(ROOT.glob("requirements*.lock")):
        text = lock.read_text("utf-8")
        assert not [word for word in REGISTRIES if word in text]
        assert PIN.findall(text)
        assert [name for name, hashes in PIN.findall(text) if not hashes] == []


def test_both_locks_have_the_same_versions() -> None:
    run, dev = (
        {pin for pin, _ in PIN.findall((ROOT / name).read_text("utf-8"))}
        for name in ("requirements.lock", "requirements-dev.lock")
    )
    assert run
    assert run <= dev


def test_sql_is_never_an_f_string() -> None:
    found = [
        f"{path}:{node.lineno}"
        for path, tree in python_files()
        if path.parts[0] in PACKAGES
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        and node.values
        and isinstance(node.values[0], ast.Constant)
        and STATEMENTS.match(str(node.values[0].value))
    ]
    assert found == []


def test_the_domain_imports_the_standard_library_msgspec_and_itself() -> None:
    allowed = sys.stdlib_module_names | {"msgspec"}
    found = [
        f"{path}: {name}"
        for path, tree in python_files()
        if path.parts[:2] == ("ledger", "domain")
        for node in ast.walk(tree)
        for name in imported(node)
        if name.split(".")[0] not in allowed and name.split(".")[:2] != ["ledger", "domain"]
    ]
    assert found == []


def test_the_domain_has_no_clock_no_chance_and_no_files() -> None:
    found = [
        f"{path}: {name}"
        for path, tree in python_files()
        if path.parts[:2] == ("ledger", "domain")
        for node in ast.walk(tree)
        for name in imported(node)
        if name.split(".")[0] in IMPURE
    ]
    assert found == []


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def test_the_environment_is_read_in_the_composition_root_alone() -> None:
    found = [
        str(path)
        for path, tree in python_files()
        if path.parts[0] in PACKAGES and path.parts[0] != "scrip"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}
    ]
    assert found == []


def test_every_setting_is_in_the_example_with_its_default() -> None:
    lines = (ROOT / ".env.example").read_text("utf-8").splitlines()
    given = dict(
        line.removeprefix("#").split("=", 1) for line in lines if re.match(r"#?[A-Z_]+=", line)
    )
    assert set(given) == {variable(field) for field in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        if variable(name).startswith("SCRIP_") and field.default is not None:
            assert given[variable(name)] == str(field.default).replace("False", "false"), name


def test_every_setting_has_a_description() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_the_programs_can_be_run() -> None:
    for name in (".ci/run", "deploy/roles.sh"):
        assert os.access(ROOT / name, os.X_OK)


def test_every_rule_that_is_left_out_says_why() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    rules = re.findall(r'^    "([A-Z]+[0-9]*)",(.*)$', text, re.MULTILINE)
    assert rules
    assert [rule for rule, comment in rules if "#" not in comment] == []
