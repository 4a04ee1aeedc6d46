"""The notebooks: every one runs from top to bottom in a kernel of its own, and is kept with its outputs.

Each commit reads all of them and runs one shortened: fewer trials and epochs, the same cells. The long tests run all as
they are.
"""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import notebooks
from notebooks import FILES, Notebook, code, read
from sweepkit import load_study

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

TRIALS = {
    "01_first_study": {"first-study": 4},
    "02_reading_the_results": {"reading-results": 24},
    "03_notebook_to_yaml_and_back": {"to-and-fro": 4},
    "04_a_task_of_your_own": {"rare-digits": 8},
    "05_many_machines_with_ray": {"with-ray": 4},
    "06_designing_a_good_study": {"width-coarse": 8, "width-fine": 8},
}
"""Notebook → the studies it runs → their trials."""
SHORTER = {
    "04_a_task_of_your_own": (('"trials": 8', '"trials": 2'), ('"num_train_epochs": 4', '"num_train_epochs": 1')),
}
"""Notebook that each commit runs → what its code says, and says instead."""
SHORTER_TRIALS = {"04_a_task_of_your_own": {"rare-digits": 2}}
RUNS = [("shortened", name) for name in SHORTER] + [
    pytest.param("whole", name, marks=pytest.mark.slow) for name in TRIALS
]
KILOBYTES_MOST = 150
"""Of a notebook with its outputs."""


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


def kinds(output: dict[str, Any]) -> str:
    """Return what an output is: a figure, a page's part or plain text."""
    data = output.get("data", {})
    if notebooks.PLOTLY in data or "image/png" in data:
        return "image/png"
    return "text/html" if "text/html" in data else "text/plain"


def shown(cell: Notebook) -> list[str]:
    """Return what a cell shows; into how many pieces its printed lines come is chance."""
    each = [("", ""), *((output["output_type"], kinds(output)) for output in cell["outputs"])]
    return [kind for (before, _), (type_, kind) in pairwise(each) if not before == type_ == "stream"]


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
    notebooks.write(file, notebook)


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
    """Execute the notebooks that a form has in a copy of the repository's folders."""
    folder = notebooks.copy(clone)
    trials = SHORTER_TRIALS if form == "shortened" else TRIALS
    files = [folder / f"{name}.ipynb" for name in trials]
    if form == "shortened":
        for file in files:
            shorten(file)
    return Executed(clone, trials, notebooks.execute(files))


def test_there_are_notebooks() -> None:
    assert [file.stem for file in FILES] == list(TRIALS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_notebook_is_kept_with_small_outputs_of_one_run(file: Path) -> None:
    cells = code(read(file))
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)], "make notebooks"
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"display_data", "execute_result", "stream"}
    assert [output for output in outputs if output.get("name") == "stderr"] == []
    assert not re.search(r"(/tmp|/home|/root|/work|/Users)/", file.read_text())
    assert file.stat().st_size <= KILOBYTES_MOST * 1000


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_cell_is_kept_with_a_picture_of_every_figure(file: Path) -> None:
    for cell in code(read(file)):
        figures = len(re.findall(r"\.show\(\)|\.plot\.", "".join(cell["source"])))
        assert [*map(kinds, cell["outputs"])].count("image/png") == figures


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_notebook_ends_with_what_to_try_next(file: Path) -> None:
    assert "".join(read(file)["cells"][-1]["source"]).startswith("## What to try next\n")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
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


@pytest.mark.slow
@pytest.mark.parametrize("name", TRIALS)
@pytest.mark.parametrize("executed", ["whole"], indirect=True)
def test_what_a_cell_shows_is_of_the_kind_that_is_kept(name: str, executed: Executed) -> None:
    kept, now = (code(read(folder / f"{name}.ipynb")) for folder in (FILES[0].parent, executed.clone / "notebooks"))
    assert [shown(cell) for cell in now] == [shown(cell) for cell in kept]


@pytest.mark.parametrize(("executed", "name"), RUNS, indirect=["executed"])
def test_a_notebook_keeps_the_last_picture_of_every_run(name: str, executed: Executed) -> None:
    pictures = ["".join(output.get("data", {}).get("text/html", "")) for output in executed.outputs(name)]
    shown = [
        study for study in TRIALS[name] for html in pictures if f"<b>{study}</b>" in html and "<b>done</b>" in html
    ]
    assert shown == list(TRIALS[name])
