"""The notebooks: every one runs from top to bottom in a kernel of its own, and is kept without outputs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sweepkit import load_study

pytestmark = pytest.mark.real


ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TRIALS = {
    "01_first_study": {"first-study": 4},
    "02_reading_the_results": {"reading-results": 14},
    "03_notebook_to_yaml_and_back": {"to-and-fro": 4},
    "04_a_task_of_your_own": {"rare-digits": 8},
    "05_many_machines_with_ray": {"with-ray": 4},
    "06_designing_a_good_study": {"width-coarse": 8, "width-fine": 8},
}
"""Notebook → the studies it runs → their trials."""
STRICT = 'import warnings\n\nwarnings.filterwarnings("error", module=r"(sweepkit|__main__)($|\\.)")\n'
"""Run by every kernel as it starts: warnings are errors where they come from this package or a notebook's own cells."""

Notebook = dict[str, Any]


def read(file: Path) -> Notebook:
    found: Notebook = json.loads(file.read_text())
    return found


def code(notebook: Notebook) -> list[Notebook]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with notebooks and studies as a clone has them, to run them in."""
    folder = tmp_path_factory.mktemp("clone")
    (folder / "pyproject.toml").touch()
    for part in ("notebooks", "studies"):
        shutil.copytree(ROOT / part, folder / part)
    return folder


@pytest.fixture(scope="module")
def executed(clone: Path) -> Mapping[str, subprocess.CompletedProcess[str]]:
    """Execute all notebooks, two at a time, with the command that people type; they then lie in ``clone`` with outputs."""
    startup = clone / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00-strict.py").write_text(STRICT)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "IPYTHONDIR": str(clone / "ipython")}

    def execute(file: Path) -> subprocess.CompletedProcess[str]:
        command = ["jupyter", "execute", "--inplace", str(clone / "notebooks" / file.name)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280, check=False)

    with ThreadPoolExecutor(2) as pool:
        return {file.stem: done for file, done in zip(NOTEBOOKS, pool.map(execute, NOTEBOOKS), strict=True)}


def test_there_are_notebooks() -> None:
    assert [file.stem for file in NOTEBOOKS] == list(TRIALS)


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_kept_without_outputs(file: Path) -> None:
    assert [(cell["outputs"], cell["execution_count"]) for cell in code(read(file)) if cell["outputs"]] == []
    assert {cell["execution_count"] for cell in code(read(file))} == {None}


@pytest.mark.parametrize("name", TRIALS)
def test_a_notebook_runs_from_top_to_bottom(name: str, executed: Mapping[str, Any], clone: Path) -> None:
    done = executed[name]
    assert done.returncode == 0, done.stderr
    found = {study: len(load_study(clone / "runs" / study, check=False).trials) for study in TRIALS[name]}
    assert found == TRIALS[name]


@pytest.mark.parametrize("name", TRIALS)
def test_a_notebook_writes_no_warnings(name: str, executed: Mapping[str, Any], clone: Path) -> None:
    assert executed[name].returncode == 0
    outputs = [output for cell in code(read(clone / "notebooks" / f"{name}.ipynb")) for output in cell["outputs"]]
    assert ["".join(output["text"]) for output in outputs if output.get("name") == "stderr"] == []


@pytest.mark.parametrize("name", TRIALS)
def test_a_notebook_keeps_the_last_picture_of_every_run(name: str, executed: Mapping[str, Any], clone: Path) -> None:
    assert executed[name].returncode == 0
    outputs = [output for cell in code(read(clone / "notebooks" / f"{name}.ipynb")) for output in cell["outputs"]]
    pictures = ["".join(output.get("data", {}).get("text/html", "")) for output in outputs]
    shown = [
        study for study in TRIALS[name] for html in pictures if f"<b>{study}</b>" in html and "<b>done</b>" in html
    ]
    assert shown == list(TRIALS[name])
