"""The pages people look at, opened as they open them: MLflow's compare view, the report, optuna-dashboard."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import psutil
import pytest

from browser import chromium, console_errors, until
from making import sweep, toy_study, wait_until
from sweepkit import report
from sweepkit.driver.run import run
from sweepkit.report.rows import read
from sweepkit.study.study import StudyData

pytestmark = pytest.mark.real


SPACE = {
    "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "task.x": {"low": 0.0, "high": 1.0},
    "per_device_train_batch_size": {"choices": [4, 8]},
}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyData:
    """A study of eight trials that ran and is recorded."""
    home = tmp_path_factory.mktemp("looked-at")
    (home / "pyproject.toml").touch()
    study = toy_study(
        home,
        space=SPACE,
        budget={"trials": 8},
        training={"use_cpu": True, "logging_steps": 1},
        tracking={"uri": "sqlite:///mlflow.db"},
    )
    assert run(study).status == "done"
    return study


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answer(url: str) -> Any:
    """Return the JSON at an address, or None while nobody answers."""
    try:
        with urlopen(url, timeout=5) as page:
            return json.load(page)
    except (URLError, OSError):
        return None


def test_optuna_dashboard_opens_the_studys_storage(study: StudyData, tmp_path: Path) -> None:
    pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is missing: pip install --group dev")
    port = free_port()
    code = "import sys; from optuna_dashboard._cli import main; main()"
    command = [sys.executable, "-c", code, "--host", "127.0.0.1", "--port", str(port), str(study.place.journal)]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as server:
        try:
            base = f"http://127.0.0.1:{port}/api/studies"
            (summary,) = wait_until(lambda: answer(base), 180, "the dashboard answers")["study_summaries"]
            trials = answer(f"{base}/{summary['study_id']}")["trials"]
        finally:
            server.terminate()
    assert summary["study_name"] == "toy"
    told = {trial["number"]: (trial["state"], trial["values"]) for trial in trials}
    assert told == {row.number: ("Complete", [row.value]) for row in read(study)}


@pytest.mark.slow
def test_the_report_is_drawn_without_a_network_and_without_an_error(study: StudyData, tmp_path: Path) -> None:
    page = report.write(study)
    with chromium(tmp_path / "profile", width=1100, height=6400) as driver:
        driver.execute_cdp_cmd("Network.enable", {})
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        driver.execute_cdp_cmd("Network.emulateNetworkConditions", offline)
        driver.get(page.as_uri())
        drawn = "return [...document.querySelectorAll('figure.plot')].every(f => f.querySelector('svg.main-svg'))"
        until(driver, lambda page: page.execute_script(drawn), "every figure is drawn")
        figures = driver.execute_script("return document.querySelectorAll('figure.plot').length")
        empty = driver.execute_script("return document.body.innerText").count("No trial")
        offered = driver.execute_script(
            "return [...document.querySelectorAll('.modebar-btn')].map(b => b.dataset.title)"
        )
        assert offered and not [title for title in offered if "Share" in title or "Edit" in title]
        icon = "return getComputedStyle(document.querySelector('.modebar-btn path')).fill"
        assert driver.execute_script(icon) not in ("rgb(255, 255, 255)", "rgba(255, 255, 255, 0.3)")
        driver.save_screenshot(str(page.with_suffix(".png")))
        times = driver.execute_script(
            "const table = document.querySelector('table.sortable'); table.querySelectorAll('th button')[3].click();"
            "return [...table.rows].slice(1).map(row => Number(row.cells[3].dataset.by))"
        )
        assert times == sorted(times) and len(times) == 8
        assert (console_errors(driver), figures, empty) == ([], 9, 0)


@pytest.mark.slow
def test_sweep_ui_serves_the_projects_store_and_its_server_ends_with_it_when_killed(study: StudyData) -> None:
    port = free_port()
    served = sweep("ui", "--port", str(port), cwd=study.place.root)
    assert served.stdout is not None
    said = [line.strip() for line, _ in zip(iter(served.stdout.readline, ""), range(3), strict=False)]
    base = f"http://127.0.0.1:{port}"
    front = f"{base}/#/experiments?workflowType=machine_learning"
    assert said == [f"MLflow serves sqlite:///{study.place.root}/mlflow.db; Ctrl-C stops it", "", front]
    asked = json.dumps({"max_results": 10}).encode()
    request = Request(f"{base}/api/2.0/mlflow/experiments/search", asked, {"Content-Type": "application/json"})
    with urlopen(request, timeout=30) as answered:
        assert "toy" in {each["name"] for each in json.load(answered)["experiments"]}
    serving = psutil.Process(served.pid).children(recursive=True)
    assert serving
    served.kill()
    served.communicate()
    assert psutil.wait_procs(serving, timeout=20)[1] == []


@pytest.mark.slow
def test_the_link_of_sweep_ui_shows_the_runs_and_the_parallel_coordinates(study: StudyData, tmp_path: Path) -> None:
    served = sweep("ui", "toy", "--port", str(free_port()), cwd=study.place.root, env={**os.environ})
    try:
        assert served.stdout is not None
        lines = iter(served.stdout.readline, "")
        link = next(found[0] for line in lines if (found := re.search(r"http://127\.0\.0\.1\S+", line)))
        with chromium(tmp_path / "profile") as driver:
            driver.get(link)

            def shown(page: Any) -> bool:
                text = page.execute_script("return document.body.innerText")
                return all(f"{row.number:04d} " in text for row in read(study)[:3])

            until(driver, shown, "the runs are listed")
            chart = "return [...document.querySelectorAll('svg, .js-plotly-plot')].map(e => e.textContent).join(' ')"
            axes = ["log10 learning_rate", "objective"]
            until(
                driver,
                lambda page: all(axis in page.execute_script(chart) for axis in axes),
                "the parallel coordinates are drawn",
            )
            driver.save_screenshot(str(study.place.folder / "ui.png"))
    finally:
        served.send_signal(signal.SIGINT)
        served.communicate(timeout=30)
