"""The notebooks: every one runs from top to bottom in a kernel of its own, and is kept without outputs.

Each commit reads all of them and runs two shortened: fewer trials and epochs, the same cells. The long tests run all as
they are.
"""

from __future__ import annotations

import ast
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sweepkit import load_study

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]


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
SHORTER = {
    "01_first_study": (('"trials": 4', '"trials": 2'), ('"train_samples": 160', '"train_samples": 32')),
    "04_a_task_of_your_own": (('"trials": 8', '"trials": 2'), ('"num_train_epochs": 4', '"num_train_epochs": 1')),
}
"""Notebook that each commit runs → what its code says, and says instead."""
SHORTER_TRIALS = {"01_first_study": {"first-study": 2}, "04_a_task_of_your_own": {"rare-digits": 2}}
RUNS = [("shortened", name) for name in SHORTER] + [
    pytest.param("whole", name, marks=pytest.mark.slow) for name in TRIALS
]
STRICT = 'import warnings\n\nwarnings.filterwarnings("error", module=r"(sweepkit|__main__)($|\\.)")\n'
"""Run by every kernel as it starts: warnings are errors where they come from this package or a notebook's own cells."""

Notebook = dict[str, Any]


def read(file: Path) -> Notebook:
    found: Notebook = json.loads(file.read_text())
    return found


def code(notebook: Notebook) -> list[Notebook]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


@dataclass(frozen=True)
class Executed:
    """Notebooks, executed: they lie in ``clone`` with outputs."""

    clone: Path
    trials: Mapping[str, Mapping[str, int]]
    done: Mapping[str, subprocess.CompletedProcess[str]]

    def outputs(self, name: str) -> list[dict[str, Any]]:
        """Return what a notebook's cells put out; it has to have run to its end."""
        assert self.done[name].returncode == 0, self.done[name].stderr
        cells = code(read(self.clone / "notebooks" / f"{name}.ipynb"))
        return [output for cell in cells for output in cell["outputs"]]


def shorten(file: Path) -> None:
    """Write the shortened form of a notebook in its place; each text that is replaced has to be there."""
    notebook = read(file)
    for old, new in SHORTER[file.stem]:
        found = 0
        for cell in code(notebook):
            text = "".join(cell["source"])
            found += text.count(old)
            cell["source"] = text.replace(old, new)
        assert found, f"{file.stem} no longer has {old}"
    file.write_text(json.dumps(notebook))


@pytest.fixture(scope="module")
def executions() -> dict[str, Executed]:
    """What was executed so far; a fixture with a parameter would be made again for each row of a test's table."""
    return {}


@pytest.fixture
def executed(
    request: pytest.FixtureRequest, executions: dict[str, Executed], tmp_path_factory: pytest.TempPathFactory
) -> Executed:
    """Return the notebooks in the form asked for, executed once."""
    if request.param not in executions:
        executions[request.param] = execute(request.param, tmp_path_factory.mktemp("clone"))
    return executions[request.param]


def execute(form: str, clone: Path) -> Executed:
    """Execute the notebooks in a folder as a clone has them, two at a time, with the command that people type."""
    (clone / "pyproject.toml").touch()
    for part in ("notebooks", "studies"):
        shutil.copytree(ROOT / part, clone / part)
    trials = SHORTER_TRIALS if form == "shortened" else TRIALS
    files = [clone / "notebooks" / f"{name}.ipynb" for name in trials]
    if form == "shortened":
        for file in files:
            shorten(file)
    startup = clone / "ipython" / "profile_default" / "startup"
    startup.mkdir(parents=True)
    (startup / "00-strict.py").write_text(STRICT)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "IPYTHONDIR": str(clone / "ipython")}

    def run(file: Path) -> subprocess.CompletedProcess[str]:
        command = ["jupyter", "execute", "--inplace", str(file)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)

    with ThreadPoolExecutor(2) as pool:
        done = {file.stem: done for file, done in zip(files, pool.map(run, files), strict=True)}
    return Executed(clone, trials, done)


def test_there_are_notebooks() -> None:
    assert [file.stem for file in NOTEBOOKS] == list(TRIALS)


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_is_kept_without_outputs(file: Path) -> None:
    assert [(cell["outputs"], cell["execution_count"]) for cell in code(read(file)) if cell["outputs"]] == []
    assert {cell["execution_count"] for cell in code(read(file))} == {None}


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_every_python_cell_imports_what_there_is(file: Path) -> None:
    sources = ["".join(cell["source"]) for cell in code(read(file))]
    for source in [source for source in sources if not source.startswith("%%bash")]:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sweepkit"):
                module = importlib.import_module(node.module or "")
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


@pytest.mark.parametrize(("executed", "name"), RUNS, indirect=["executed"])
def test_a_notebook_runs_from_top_to_bottom_without_warnings(name: str, executed: Executed) -> None:
    outputs = executed.outputs(name)
    assert ["".join(output["text"]) for output in outputs if output.get("name") == "stderr"] == []
    studies = executed.trials[name]
    found = {study: len(load_study(executed.clone / "runs" / study, check=False).trials) for study in studies}
    assert found == studies


@pytest.mark.parametrize(("executed", "name"), RUNS, indirect=["executed"])
def test_a_notebook_keeps_the_last_picture_of_every_run(name: str, executed: Executed) -> None:
    pictures = ["".join(output.get("data", {}).get("text/html", "")) for output in executed.outputs(name)]
    shown = [
        study for study in TRIALS[name] for html in pictures if f"<b>{study}</b>" in html and "<b>done</b>" in html
    ]
    assert shown == list(TRIALS[name])
