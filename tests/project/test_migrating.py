"""The page for those who come from elsewhere: every block of it runs, and what it says becomes what is what it becomes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import pytest

import toys
from sweepkit.check.study_file import load_study, same
from sweepkit.check.wandb import import_sweep
from sweepkit.report.rows import read

PAGE = (Path(__file__).parents[2] / "studies" / "MIGRATING.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.M | re.S)
PYTHON = [body for language, body in BLOCKS if language == "python"]
STUDY, SWEEP, IMPORTED = (body for language, body in BLOCKS if language == "yaml")
TASK = {"type": "text-classification", "model": "bert-base-uncased", "data": {"path": "reviews.csv"}}

# The Trainer of the page is a plain one: without an accelerator torch warns of the memory it pins.
pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore:'pin_memory' argument:UserWarning")]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with reviews, and a model of a few thousand weights under the name of the one on the hub."""
    folder = tmp_path_factory.mktemp("migrating")
    (folder / "pyproject.toml").touch()
    toys.tiny_bert(folder / "bert-base-uncased")
    rows = toys.messages(40)
    lines = ["text,label", *(f"{text},{int(label == 'spam')}" for text, label in rows)]
    (folder / "reviews.csv").write_text("\n".join(lines) + "\n")
    for name, text in (("study", STUDY), ("sweep", SWEEP), ("imported", IMPORTED)):
        (folder / f"{name}.yaml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def ran(project: Path) -> Mapping[str, Any]:
    """Return the names that the page's Python leaves behind, run from top to bottom."""
    names: dict[str, Any] = {"__name__": "__main__"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(project)
        for body in PYTHON:
            exec(body, names)
    return names


def test_the_changed_line_returns_what_the_trainers_own_does(ran: Mapping[str, Any]) -> None:
    assert set(ran["best"].hyperparameters) == {"learning_rate", "per_device_train_batch_size"}


@pytest.mark.parametrize("name", ["reviews-search", "reviews-optuna"])
def test_what_runs_here_runs_to_its_end(ran: Mapping[str, Any], project: Path, name: str) -> None:
    assert ran["study"].name == "reviews-optuna"
    rows = read(ran["study"].model_copy(update={"name": name}).at(project))
    assert [row.cause for row in rows] == ["", ""]


def test_the_storage_opens_with_optuna(ran: Mapping[str, Any]) -> None:
    assert [trial.state for trial in ran["trials"]] == [optuna.trial.TrialState.COMPLETE] * 2


def test_the_study_file_has_no_mistake(project: Path) -> None:
    assert load_study(project / "study.yaml").study.name == "reviews"


def test_the_sweep_becomes_the_study_beside_it(project: Path) -> None:
    found = import_sweep(project / "sweep.yaml", task=TASK, home=project)
    assert same(load_study(project / "imported.yaml").study, found.study)
    assert [told.path for told in found.warnings] == ["parameters.dropout"]
