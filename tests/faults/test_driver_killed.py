"""SIGKILL of the driver, again and again: nothing finished is lost, nothing is done twice, nothing is left running.

Nor is anything decided otherwise: which trials are pruned, pause and go on.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from making import processes_below, sweep, toy_study, wait_until
from sweepkit.check.study_file import load_study, to_yaml
from sweepkit.study.paths import Place
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Checkpointed, Event, Started
from sweepkit.trial.log import TrialLog

pytestmark = pytest.mark.real


TRIALS = 12
"""Of a study whose driver is killed up to 20 times; else there is a trial for each kill."""
TRIAL_SECONDS = 1.2
"""A trial takes at least so long; some are pruned and take less."""
MEDIAN = {"type": "median", "n_startup_trials": 3}
PROMOTION = {"type": "asha", "promote": True, "reduction_factor": 2}
STARTING = ("importing", "warm process ready", "data prepared", "slots")
"""What a driver says, a line each, before its first trial."""
STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED"}
KEPT = {
    *("study.json", "lock", "identity.lock", "optuna.journal", "mlflow.json", "spent.json", "spent.lock", "trials"),
    *("warm.log", "inspect.log", "scratch", "data.json", "outcome.json", "report.html"),
}
KEPT_OF_A_TRIAL = {"spec.json", "console.log", "events.jsonl", "best", "mlflow"}


def write_study(project: Path, name: str, *, step_seconds: float = 0.0, **keys: Any) -> Path:
    study = toy_study(
        project,
        name=name,
        space={"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "task.x": {"low": 0.0, "high": 1.0}},
        sampler={"type": "tpe", "seed": 7, "n_startup_trials": 4},
        baseline={"learning_rate": 1e-3, "task.x": 0.1},
        task={"step_seconds": step_seconds},
        checkpoints={"keep": 3},
        tracking={"uri": "sqlite:///mlflow.db"},
        **{"backend": {"parallel": 1}, "budget": {"trials": TRIALS}, **keys},
    )
    folder = project / "studies" / name
    folder.mkdir(parents=True)
    file = folder / "study.yaml"
    file.write_text(to_yaml(study))
    return file


def shown(file: Path, elsewhere: Path) -> list[dict[str, object]]:
    process = sweep("show", str(file), "--json", cwd=elsewhere)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 0, output
    trials: list[dict[str, object]] = json.loads(output)["trials"]
    return trials


def essence(trials: list[dict[str, Any]]) -> list[tuple[object, ...]]:
    """Return what has to be equal in two studies, which may differ in how long their steps take."""
    for trial in trials:
        trial["params"].pop("task.step_seconds", None)
    return [(t["number"], t["ending"], t["params"], t["value"], t.get("decisions")) for t in trials]


def run_to_end(file: Path, elsewhere: Path, environment: dict[str, str]) -> str:
    process = sweep("run", str(file), cwd=elsewhere, env=environment)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


def kill(process: subprocess.Popen[str], mark: str) -> None:
    """SIGKILL a driver that still runs; its processes follow it."""
    assert process.poll() is None, "the study was done before its driver could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
    wait_until(lambda: not processes_below(mark), 5, "every process of the study is gone 5 s after its driver")


def kill_at_random(file: Path, elsewhere: Path, environment: dict[str, str], dice: random.Random) -> None:
    """Start the study and kill its driver: while it starts, or within about a trial's time after it began to train."""
    process = sweep("run", str(file), cwd=elsewhere, env=environment)
    assert process.stdout is not None
    lines = dice.randrange(1, 2 * len(STARTING))
    for _ in range(min(lines, len(STARTING))):
        process.stdout.readline()
    threading.Event().wait(dice.random() * (0.3 if lines < len(STARTING) else TRIAL_SECONDS))
    kill(process, environment["SWEEPKIT_TEST_MARK"])


def kill_half_trained(project: Path, file: Path, elsewhere: Path, environment: dict[str, str], number: int) -> None:
    """Start the study and kill its driver while this trial trains and has a checkpoint to go on from."""
    process = sweep("run", str(file), cwd=elsewhere, env=environment)
    log = TrialLog(project / "runs/killed/trials" / f"{number:04d}")
    wait_until(lambda: lasting(log.refresh()), 300, "a resumable checkpoint")
    kill(process, environment["SWEEPKIT_TEST_MARK"])


def lasting(events: Iterable[Event]) -> list[int]:
    """Return the steps of the resumable checkpoints."""
    return [event.step for event in events if isinstance(event, Checkpointed) and event.role == "last"]


def numbers(study: StudyData) -> range:
    """Return the numbers of a study's trials."""
    assert study.budget.trials is not None
    return range(study.budget.trials)


def check_checkpoints_were_used(study: StudyData) -> None:
    """A trial that was killed goes on no further back than from its last checkpoint, and some trial went on."""
    went_on = []
    for number in numbers(study):
        there = 0
        for event in TrialLog(study.place.trial(number)).refresh():
            if isinstance(event, Started):
                assert event.resumed >= there
                went_on.append(event.resumed)
            there = max([there, *lasting([event])])
    assert any(went_on)


def check_nothing_is_left(study: StudyData, environment: dict[str, str]) -> None:
    """Nothing but what a study keeps lies in its folder, and nothing in the folder for temporary files."""
    place = study.place
    left = {path.name for path in place.folder.iterdir() if ".torn-" not in path.name}
    assert left <= KEPT and not list(place.scratch.glob("*")), "temporary files of the study are left"
    for number in numbers(study):
        assert {path.name for path in place.trial(number).iterdir()} <= KEPT_OF_A_TRIAL
    assert not [path for path in place.data.iterdir() if path.name.startswith(".")]
    # torch's cache of compiled code is one folder for all processes, empty here, and stays by intention.
    assert {path.name.partition("_")[0] for path in Path(environment["TMPDIR"]).iterdir()} <= {"torchinductor"}


def check_optuna_and_mlflow_agree(study: StudyData, project: Path) -> None:
    import optuna
    from mlflow import MlflowClient

    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(study.place.journal)))
    trials = optuna.load_study(study_name=study.name, storage=storage).get_trials()
    assert [trial.number for trial in trials] == list(numbers(study))
    client = MlflowClient(f"sqlite:///{project}/mlflow.db")
    (experiment,) = [e for e in client.search_experiments() if e.name == study.name]
    runs = client.search_runs([experiment.experiment_id], max_results=200)
    children = {run.data.tags["sweepkit.trial"]: run for run in runs if "mlflow.parentRunId" in run.data.tags}
    assert len(runs) == len(trials) + 1 and len(children) == len(trials)
    for trial in trials:
        run = children[str(trial.number)]
        assert run.info.status == STATUS[trial.state.name]
        assert {name: run.data.params[name] for name in study.space} == {
            name: str(value) for name, value in trial.user_attrs["hyperparameters"].items()
        }
        assert [run.data.metrics["objective"]] == trial.user_attrs["values"]
        history = client.get_metric_history(run.info.run_id, "eval_score")
        steps = [metric.step for metric in history]
        assert steps == sorted(set(steps)), "an evaluation is recorded twice"
        assert [metric.value for metric in history] == list(trial_history(study.place, trial.number))


def trial_history(place: Place, number: int) -> Iterator[float]:
    for event in TrialLog(place.trial(number)).evaluations:
        yield event.metrics["eval_score"]


def go_through(
    project: Path, tmp_path: Path, kills: int, pruner: Mapping[str, Any], *, backend: str = "optuna"
) -> None:
    environment = {**os.environ, "SWEEPKIT_TEST_MARK": str(tmp_path)}
    keys = {"pruner": pruner, "budget": {"trials": TRIALS if kills <= 20 else kills}}
    straight_file = write_study(project, "straight", **keys)
    run_to_end(straight_file, tmp_path, environment)
    straight = shown(straight_file, tmp_path)
    assert [t["number"] for t in straight] == list(numbers(load_study(straight_file).study))
    kind = {"type": backend, "parallel": 1}
    file = write_study(project, "killed", step_seconds=TRIAL_SECONDS / 12, backend=kind, **keys)
    study = load_study(file).study
    if backend == "optuna":
        environment["TMPDIR"] = str(tmp_path / "temporary")
        (tmp_path / "temporary").mkdir()
    dice = random.Random(0)
    kill_half_trained(project, file, tmp_path, environment, number=1)
    for _ in range(kills - 1):
        kill_at_random(file, tmp_path, environment, dice)
    run_to_end(file, tmp_path, environment)
    assert essence(shown(file, tmp_path)) == essence(straight)
    check_optuna_and_mlflow_agree(study, project)
    check_checkpoints_were_used(study)
    if backend == "optuna":
        check_nothing_is_left(study, environment)


def test_a_killed_study_goes_on_to_the_same_end(project: Path, tmp_path: Path) -> None:
    go_through(project, tmp_path, 2, PROMOTION)


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize(("pruner", "kills"), [(MEDIAN, 20), (PROMOTION, 50)], ids=["median", "promotion"])
def test_many_kills_change_nothing(project: Path, tmp_path: Path, pruner: dict[str, Any], kills: int) -> None:
    go_through(project, tmp_path, kills, pruner)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("pruner", [MEDIAN, PROMOTION], ids=["median", "promotion"])
def test_five_kills_on_ray_change_nothing(project: Path, tmp_path: Path, pruner: dict[str, Any]) -> None:
    pytest.importorskip("ray", reason="Ray Tune is missing; pip install 'sweepkit[ray]'")
    go_through(project, tmp_path, 5, pruner, backend="ray")
