"""What stands around the code keeps to it: pins, hooks, issue forms, the container, and what Windows is told."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from sweepkit.cli import app

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS = dict(re.findall(r"^([\w.-]+)==(.*)$", (ROOT / "constraints.txt").read_text(), re.M))


def loaded(path: str) -> Any:
    return YAML(typ="safe").load(ROOT / path)


def test_the_hooks_are_of_the_pinned_versions_and_check_what_lint_checks() -> None:
    hooks = [hook for repo in loaded(".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    wanted = [requirement.split("==") for hook in hooks for requirement in hook["additional_dependencies"]]
    assert [(name, version) for name, version in wanted if PINS[name] != version] == []
    lint = re.search(r"^lint:.*?\n\n", (ROOT / "Makefile").read_text(), re.M | re.S)
    assert lint
    for hook in hooks:
        program, *words = shlex.split(hook["entry"])
        command = " ".join([program, *[word for word in words if word in ("check", "format", "--strict")]])
        assert f"$(BIN)/{command}" in lint.group()


def test_both_commands_are_one() -> None:
    assert PYPROJECT["project"]["scripts"] == dict.fromkeys(("sweep", "sweepkit"), "sweepkit.cli:main")


def test_the_classifiers_name_the_pythons_that_are_allowed() -> None:
    named = re.findall(r"Python :: 3\.(\d+)", "\n".join(PYPROJECT["project"]["classifiers"]))
    assert list(map(int, named)) == list(range(int(named[0]), int(named[-1]) + 1))
    assert PYPROJECT["project"]["requires-python"] == f">=3.{named[0]}"


@pytest.mark.parametrize("form", ["bug", "idea"])
def test_an_issue_form_asks_for_what_exists(form: str) -> None:
    asked = loaded(f".github/ISSUE_TEMPLATE/{form}.yml")
    assert {"name", "description", "body"} <= asked.keys()
    fields = [field["attributes"] for field in asked["body"]]
    assert all(field["label"] and field["description"] for field in fields)
    assert len({field["id"] for field in asked["body"]}) == len(asked["body"])
    commands = {command.name for command in app.registered_commands} | {"--version"}
    typed = re.findall(r"`sweep ([\w-]+)", " ".join(f"{field['label']} {field['description']}" for field in fields))
    assert set(typed) <= commands
    assert form != "bug" or set(typed) >= {"check", "--version"}


def test_the_version_is_the_citations() -> None:
    assert loaded("CITATION.cff")["version"] == PYPROJECT["project"]["version"]


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions with their arguments, in order."""
    text = re.sub(r"^#.*\n", "", (ROOT / "studies/how-to/Dockerfile").read_text(), flags=re.M).replace("\\\n", " ")
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line)]


def test_the_container_is_pinned_has_a_user_and_an_entry_point() -> None:
    steps = instructions()
    names = [name for name, _ in steps]
    (base,) = [rest for name, rest in steps if name == "FROM"]
    python = re.fullmatch(r"python:(3\.\d+)-slim-\w+", base)
    assert python
    assert f"Programming Language :: Python :: {python[1]}" in PYPROJECT["project"]["classifiers"]
    assert f"Python {python[1]}" in (ROOT / "constraints.txt").read_text()
    installs = [rest for name, rest in steps if name == "RUN" and "pip install" in rest]
    assert installs
    assert all("-c constraints.txt" in rest and "--no-cache-dir" in rest for rest in installs)
    assert [rest for name, rest in steps if name == "USER"] == ["sweep"]
    assert not [name for name in names[names.index("USER") :] if name in ("RUN", "COPY", "ADD")]
    assert steps[-1] == ("ENTRYPOINT", '["sweep"]')


def test_the_container_gets_the_files_that_it_copies_and_installs_extras_that_exist() -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {word for name, rest in instructions() if name == "COPY" for word in rest.split()[:-1]}
    assert copied == sent
    assert all((ROOT / path).exists() for path in copied)
    needed = {PYPROJECT["project"]["readme"], *PYPROJECT["project"]["license-files"], "src", "sweeps"}
    assert needed <= copied
    for _, rest in instructions():
        for extras in re.findall(r"'\.\[([\w,]+)\]'", rest):
            assert set(extras.split(",")) <= PYPROJECT["project"]["optional-dependencies"].keys()


@pytest.mark.parametrize("words", [["bin/sweep", "run"], ["bin/sweepkit"], ["-m", "sweepkit", "--help"], ["mine.py"]])
def test_windows_is_told_in_one_sentence(words: list[str]) -> None:
    """A command ends with it; a script's import raises it."""
    code = f"""
import sys
sys.platform, sys.modules["fcntl"], sys.modules["resource"] = "win32", None, None
sys.orig_argv = ["python", *{words!r}]
import sweepkit.cli
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    *before, last = done.stderr.splitlines()
    assert done.returncode == 1
    assert last.removeprefix("ImportError: ").startswith("sweepkit runs on Linux and macOS; on Windows, install and")
    assert bool(before) == (words == ["mine.py"])
