"""Holds README, changelog and the command line's help to what the code does."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer.core import TyperCommand, TyperGroup, TyperOption

import sweepkit
from sweepkit.check.study_file import load_study
from sweepkit.cli import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
PAGES = [README, *(file.read_text() for file in sorted((ROOT / "studies").rglob("*.md")))]
SHELLS = ("", "bash", "sh", "shell", "console")


def blocks(*languages: str, page: str = README) -> list[str]:
    """Return a page's fenced blocks in one of these languages."""
    return [body for language, body in re.findall(r"^```(\w*)\n(.*?)^```", page, re.M | re.S) if language in languages]


def commands() -> Iterator[tuple[str, TyperCommand]]:
    """Yield every command with the words that call it."""

    def below(command: object, words: tuple[str, ...]) -> Iterator[tuple[str, TyperCommand]]:
        if isinstance(command, TyperGroup):
            for name, child in command.commands.items():
                yield from below(child, (*words, name))
        elif isinstance(command, TyperCommand):
            yield " ".join(words), command

    yield from below(typer.main.get_command(app), ("sweep",))


COMMANDS = dict(commands())


def lines_typed() -> list[str]:
    """Return the shell lines of README and studies, and the commands written in their text."""
    typed = [
        line.split("  #")[0].removeprefix("$ ").strip()
        for page in PAGES
        for block in blocks(*SHELLS, page=page)
        for line in block.splitlines()
    ]
    told = [line for page in PAGES for line in re.findall(r"`((?:sweep|make) [^`]*)`", page)]
    return sorted({line for line in [*typed, *told] if line})


def test_the_readme_has_blocks_of_each_kind() -> None:
    assert all(blocks(language) for language in ("bash", "yaml", "python"))


@pytest.mark.parametrize("line", lines_typed())
def test_a_line_to_type_exists(line: str) -> None:
    program, *words = shlex.split(line)
    if program == "make":
        targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M)
        assert set(words) <= set(targets)
    elif program == "sweep" and not words[0].startswith("--"):
        command = COMMANDS[f"sweep {words[0]}"]
        known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        assert {word.split("=")[0] for word in words if word.startswith("--")} <= known | {"--help"}
        assert [word for word in words if word.startswith("studies/") and not (ROOT / word).exists()] == []


@pytest.mark.parametrize("text", blocks("yaml"), ids=lambda text: text.splitlines()[0])
def test_a_study_of_the_readme_loads(text: str, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    (project / "study.yaml").write_text(text)
    assert load_study(project / "study.yaml").study.name in text


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.splitlines()[-1].strip())
def test_python_of_the_readme_runs(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    exec(code, {"__name__": "readme"})


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_explained_and_in_the_readme(name: str) -> None:
    command = COMMANDS[name]
    assert command.help, f"{name} has no help"
    assert command.hidden or f"`{name}" in README
    silent = [p.name for p in command.params if isinstance(p, TyperOption) and not p.hidden and not p.help]
    assert silent == [], f"options of {name} without help"


def test_the_map_names_every_part_and_nothing_else() -> None:
    source = ROOT / "src" / "sweepkit"
    rows = README.split("## The source")[1].split("\n\n")[1].splitlines()[2:]
    told = [name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])]
    there = {path.name for path in source.glob("*.py")} | {
        f"{path.parent.name}/" for path in source.glob("*/__init__.py")
    }
    assert sorted(told) == sorted(there - {"__init__.py"})


def places_to_change() -> dict[str, list[str]]:
    """Return what the table in the README says where to change, with the paths it names."""
    rows = README.split("| to change | edit |")[1].split("\n\n")[0].splitlines()[2:]
    cells = [row.strip("| ").split(" | ") for row in rows]
    return {what: re.findall(r"`([\w/]+(?:/|\.py))`", where) for what, where in cells}


@pytest.mark.parametrize("what", places_to_change())
def test_a_place_to_change_something_exists(what: str) -> None:
    source = ROOT / "src" / "sweepkit"
    assert [path for path in places_to_change()[what] if not (source / path).exists()] == []


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("a sampler or a pruner", "SAMPLERS"),
        ("a task kind", "KINDS"),
        ("what counts as best", "class Answer"),
        ("where a trial's process is forked", "os.fork()"),
        ("MLflow's run names and tags", "def run_name"),
    ],
)
def test_what_is_changed_there_is_there(what: str, code: str) -> None:
    files = [ROOT / "src" / "sweepkit" / path for path in places_to_change()[what]]
    assert code in "".join(file.read_text() for file in files if file.is_file())


def test_the_studies_are_listed_and_each_has_its_readme() -> None:
    there = sorted(file.parent.name for file in (ROOT / "studies").glob("*/study.yaml"))
    listed = re.findall(r"^\| \[([\w-]+)\]\(\1/\)", (ROOT / "studies" / "README.md").read_text(), re.M)
    assert sorted(listed) == there
    assert [name for name in there if not (ROOT / "studies" / name / "README.md").exists()] == []


def test_public_names_used_in_the_readme_exist() -> None:
    assert {name for name in re.findall(r"sweepkit\.(\w+)\(", README) if not hasattr(sweepkit, name)} == set()


def test_the_changelog_keeps_its_form() -> None:
    headings = re.findall(r"^## (.*)$", CHANGELOG, re.M)
    assert headings
    assert [h for h in headings if not re.fullmatch(r"\[Unreleased\]|\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", h)] == []
    allowed = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.*)$", CHANGELOG, re.M)) <= allowed


def test_the_version_is_the_last_in_the_changelog() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    headings = re.findall(r"^## \[(.*?)\]", CHANGELOG, re.M)
    assert headings[:2] == ["Unreleased", version]


def test_every_pin_is_exact_and_fits_every_machine() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    assert [line for line in lines if line.startswith(("nvidia-", "triton", "cuda-"))] == []


def test_what_is_depended_on_is_pinned() -> None:
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    extras = pyproject["project"]["optional-dependencies"]
    installed = [*pyproject["project"]["dependencies"], *pyproject["dependency-groups"]["dev"]]
    wanted = [*installed, *(each for group in extras.values() for each in group)]
    pinned = {canonicalize_name(line.split("==")[0]) for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {canonicalize_name(Requirement(each).name) for each in wanted} - pinned == set()
