"""The live view of a running study, looked at in JupyterLab by a real browser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browser import chromium, console_errors, until
from making import wait_until

pytestmark = [pytest.mark.real, pytest.mark.slow]

TESTS = Path(__file__).parents[1]
CELL = """
from sweepkit import Study

study = Study(
    name="toy",
    task={"path": "TOYS:Quadratic", "step_seconds": 0.1, "out_of_memory_above": 8},
    training={"use_cpu": True, "num_train_epochs": 6},
    objective={"metric": "eval_score", "direction": "maximize"},
    space={
        "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
        "task.x": {"low": 0.0, "high": 1.0},
        "per_device_train_batch_size": {"choices": [4, 8, 16]},
    },
    sampler={"type": "random", "seed": 1},
    pruner={"type": "median", "n_startup_trials": 3},
    baseline={"learning_rate": 2e-4, "task.x": 0.2, "per_device_train_batch_size": 8},
    retries={"out_of_memory": 0},
    budget={"trials": 10},
    backend={"parallel": 2, "cpus_per_trial": 1},
    tracking={"uri": "none"},
)
study.run()
"""


IDLE = """
const [opened] = window.jupyterapp?.shell.widgets('main') ?? [];
if (opened) window.jupyterapp.shell.activateById(opened.id);  // without a window, nothing has the focus by itself
return opened?.sessionContext?.session?.kernel?.status === 'idle'
"""


def notebook(file: Path, *cells: str) -> None:
    """Write a notebook with these cells."""
    whole = {
        "cells": [
            {"cell_type": "code", "id": f"c{n}", "metadata": {}, "execution_count": None, "outputs": [], "source": cell}
            for n, cell in enumerate(cells)
        ],
        "metadata": {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    file.write_text(json.dumps(whole))


@pytest.fixture
def lab(project: Path, tmp_path: Path) -> Iterator[str]:
    """Yield the address of a JupyterLab that serves the project folder, with settings and kernels of its own."""
    runtime = tmp_path / "runtime"
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTER_RUNTIME_DIR": str(runtime),
        "JUPYTERLAB_SETTINGS_DIR": str(tmp_path / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser"]
    command += ["--ServerApp.port=0", "--ServerApp.ip=127.0.0.1", f"--ServerApp.root_dir={project}"]
    with (tmp_path / "lab.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=project)
    try:
        known = wait_until(lambda: list(runtime.glob("jpserver-*.json")), 300, "JupyterLab to serve")
        about = wait_until(lambda: known[0].read_text(), what="the address of JupyterLab")
        served = json.loads(about)
        yield f"{served['url']}lab/tree/live.ipynb?token={served['token']}"
    finally:
        server.terminate()
        server.wait(timeout=180)


def text(driver: Any) -> str:
    """Return what the view says at this moment, empty while there is none: in one step, for it is replaced all the while."""
    found: str = driver.execute_script("return document.querySelector('.sweepkit')?.innerText ?? ''")
    return found


def test_the_live_view_follows_a_study_in_jupyterlab(project: Path, tmp_path: Path, lab: str) -> None:
    notebook(project / "live.ipynb", CELL.replace("TOYS", str(TESTS / "toy_tasks.py")))
    with chromium(tmp_path / "profile", height=1100) as driver:
        driver.get(lab)
        until(driver, lambda d: d.execute_script(IDLE), "an idle kernel")
        driver.execute_script("window.jupyterapp.commands.execute('notebook:run-all-cells')")
        until(driver, lambda d: "training now" in text(d) and "baseline" in text(d), "trials in training", seconds=120)
        driver.save_screenshot(str(tmp_path / "running.png"))
        until(driver, lambda d: "done: all trials of the budget are done" in text(d), "the end", seconds=120)
        driver.execute_script("document.querySelector('.sweepkit').scrollIntoView()")
        driver.save_screenshot(str(tmp_path / "done.png"))
        views = driver.find_elements("css selector", ".sweepkit")
        box = driver.find_element("css selector", ".jp-OutputArea-output")
        assert len(views) == 1  # it was updated in place
        assert "10 of 10 trials" in text(driver)
        assert "training now" not in text(driver)
        assert driver.find_elements("css selector", ".sweepkit svg polyline")
        assert box.get_property("scrollWidth") <= box.get_property("clientWidth")
        assert [line for line in console_errors(driver) if "sweepkit" in line] == []
