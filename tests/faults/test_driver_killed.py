"""SIGKILL of the driver, again and again: nothing finished is lost, nothing is done twice, nothing is left running."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path

import pytest

from making import processes_below, sweep, toy_study, wait_until
from sweepkit.load import to_yaml

TRIALS = 12


def write_study(project: Path, name: str, backend: str) -> Path:
    study = toy_study(
        project,
        name=name,
        space={"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "task.x": {"low": 0.0, "high": 1.0}},
        sampler={"type": "tpe", "seed": 7, "n_startup_trials": 4},
        pruner={"type": "median", "n_startup_trials": 3},
        baseline={"learning_rate": 1e-3, "task.x": 0.1},
        budget={"trials": TRIALS},
        task={"step_seconds": 0.01},
        backend={"type": backend, "parallel": 1},
        checkpoints={"keep": 3},
        tracking={"uri": "sqlite:///mlflow.db"},
    )
    folder = project / "studies" / name
    folder.mkdir(parents=True)
    file = folder / "study.yaml"
    file.write_text(to_yaml(study))
    return file


def shown(file: Path, elsewhere: Path) -> list[dict[str, object]]:
    process = sweep("show", str(file), "--json", cwd=elsewhere)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0, output
    trials: list[dict[str, object]] = json.loads(output)["trials"]
    return trials


def essence(trials: list[dict[str, object]]) -> list[tuple[object, ...]]:
    return [(t["number"], t["ending"], t["params"], t["value"]) for t in trials]


def run_to_end(file: Path, elsewhere: Path, environment: dict[str, str]) -> str:
    process = sweep("run", str(file), cwd=elsewhere, env=environment)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    return output


def kill_in_the_middle(file: Path, elsewhere: Path, environment: dict[str, str], dice: random.Random) -> bool:
    """Start the study, SIGKILL its driver after a random line of output and a random moment; whether it still ran."""
    process = sweep("run", str(file), cwd=elsewhere, env=environment)
    assert process.stdout is not None
    for _ in range(dice.randrange(1, 14)):
        if not process.stdout.readline():
            break
    moment = time.monotonic() + dice.random() * 0.4
    while time.monotonic() < moment:
        os.sched_yield()
    running = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    mark = environment["SWEEPKIT_TEST_MARK"]
    wait_until(lambda: not processes_below(mark), 5, "every process of the study is gone 5 s after its driver")
    return running


def check_whole(project: Path, file: Path, elsewhere: Path, straight: list[dict[str, object]]) -> None:
    trials = shown(file, elsewhere)
    assert essence(trials) == essence(straight)
    assert not list((project / "runs" / "killed").glob("**/*.new")), "temporary files are left"

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == "killed"]
    runs = client.search_runs([experiment.experiment_id], max_results=200)
    children = {run.data.tags["sweepkit.trial"]: run for run in runs if "mlflow.parentRunId" in run.data.tags}
    assert len(runs) == TRIALS + 1 and len(children) == TRIALS
    for trial in trials:
        run = children[str(trial["number"])]
        assert run.info.status == {"complete": "FINISHED", "pruned": "KILLED"}[str(trial["ending"])]
        history = client.get_metric_history(run.info.run_id, "eval_score")
        steps = [metric.step for metric in history]
        assert steps == sorted(set(steps)), "an evaluation is recorded twice"


def go_through(project: Path, tmp_path: Path, kills: int, *, backend: str = "optuna") -> None:
    environment = {**os.environ, "SWEEPKIT_TEST_MARK": str(tmp_path)}
    straight_file = write_study(project, "straight", "optuna")
    run_to_end(straight_file, tmp_path, environment)
    straight = shown(straight_file, tmp_path)
    assert [t["number"] for t in straight] == list(range(TRIALS))
    file = write_study(project, "killed", backend)
    dice = random.Random(0)
    hits = sum(kill_in_the_middle(file, tmp_path, environment, dice) for _ in range(kills))
    assert hits >= kills // 3, "most kills came after the study was done"
    run_to_end(file, tmp_path, environment)
    check_whole(project, file, tmp_path, straight)


def test_a_killed_study_goes_on_to_the_same_end(project: Path, tmp_path: Path) -> None:
    go_through(project, tmp_path, kills=2)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_kills_change_nothing(project: Path, tmp_path: Path) -> None:
    go_through(project, tmp_path, kills=20)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_five_kills_on_ray_change_nothing(project: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray Tune is missing; pip install 'sweepkit[ray]'")
    go_through(project, tmp_path, kills=5, backend="ray")
