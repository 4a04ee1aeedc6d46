"""The likeliest first mistakes are each told in words that say what to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from sweepkit.check.fields.installed import read_installed
from sweepkit.check.study_file import load_study
from sweepkit.study.errors import StudyFileError
from sweepkit.tasks.kinds import KINDS

TABLE: dict[str, Any] = YAML(typ="safe").load(Path(__file__).with_name("mistakes.yaml"))
MISTAKES: dict[str, dict[str, Any]] = TABLE["mistakes"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project folder with a model, data and task files, good ones and bad ones."""
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "pyproject.toml").touch()
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text(json.dumps({"model_type": "bert", "hidden_dropout_prob": 0.1}))
    for name, text in TABLE["files"].items():
        (folder / name).write_text(text)
    read_installed(["bert"])
    return folder


@pytest.mark.parametrize("name", MISTAKES)
@pytest.mark.usefixtures("in_this_process")
def test_a_mistake_is_told_with_its_line_and_what_to_do(name: str, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    mistake = MISTAKES[name]
    text = mistake.get("file", TABLE["base"])
    for old, new in mistake.get("change", {}).items():
        assert old in text
        text = text.replace(old, new)
    (home / "study.yaml").write_text(text)
    warnings: list[str] = []
    problems: list[str] = []
    try:
        warnings = [str(warning) for warning in load_study("study.yaml", mistake.get("options", [])).warnings]
    except StudyFileError as error:
        problems = str(error).replace(str(home), "{home}").split("\n")
    says = [said.replace("{kinds}", ", ".join(sorted(KINDS))) for said in mistake.get("says", [])]
    assert (problems, warnings) == (says, mistake.get("warns", []))
    assert all("study.yaml:" in said or said.startswith("--") for said in problems + warnings)


def test_the_study_without_a_mistake_is_fine(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    (home / "study.yaml").write_text(TABLE["base"])
    assert load_study("study.yaml").warnings == ()
