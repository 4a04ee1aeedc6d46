"""Random SIGKILLs over every process of a study and its MLflow server: nothing is lost, doubled or left running.

Trials that were killed are retried, so each of them ends complete, with the value that its hyperparameters alone decide.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import optuna
import psutil
import pytest
from mlflow import MlflowClient

from making import processes_below, sweep, toy_study, wait_until
from mlflow_server import Server
from sweepkit.check.study_file import to_yaml
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Evaluated, Finished
from sweepkit.trial.log import TrialLog
from toy_tasks import score

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(1500)]

UNDELIVERED = 3
"""Exit code of a study that is done while its MLflow server does not answer."""
KILLS = 40
"""In each of the five campaigns."""
TRIALS = 80
"""To begin with, and more each time they are done before the last kill."""
EMPTY_SECONDS = 3.0
"""The first kill of a campaign in an empty folder comes within so many seconds."""
START_SECONDS = 12.0
"""About how long a driver takes to its first trial."""
NAMES = {"sweep trial": "trial", "sweep spare": "spare", "sweep keeper": "keeper"}


class Campaign:
    """A study that is started again after each death of its driver, and what was killed."""

    def __init__(self, project: Path, dice: random.Random, server: Server | None) -> None:
        self.study = toy_study(
            project,
            space={"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "task.x": {"low": 0.0, "high": 1.0}},
            sampler={"type": "tpe", "seed": dice.randrange(1000), "n_startup_trials": 10},
            budget={"trials": TRIALS},
            task={"step_seconds": 0.03},
            backend={"type": "optuna", "parallel": 2},
            retries={"crash": 10 * KILLS},
            checkpoints={"keep": 3},
            tracking={"uri": server.uri if server else "sqlite:///mlflow.db"},
        )
        self.trials = TRIALS
        self._file = project / "study.yaml"
        self._file.write_text(to_yaml(self.study))
        self._mark = str(project)
        self._dice = dice
        self._server = server
        self._driver: subprocess.Popen[str] | None = None
        self._server_due = 0.0
        self._last = ""
        self.killed: Counter[str] = Counter()

    def start(self) -> None:
        """Start the study where it does not run, and the server some time after it was killed."""
        if self._server and self._server_due and time.monotonic() > self._server_due:
            self._server.kill()
            self._server.start()
            self._server_due = 0.0
        if self._driver is not None and self._driver.poll() is not None:
            undelivered = self._driver.returncode == UNDELIVERED and self._server is not None
            if self._driver.returncode == 0 or undelivered:  # done too early: it gets more to do
                self.trials += TRIALS
                more = self.study.budget.model_copy(update={"trials": self.trials})
                self.study = self.study.model_copy(update={"budget": more}).at(self.study.home)
                self._file.write_text(to_yaml(self.study))
            else:
                assert self._last == "other", self.wait(expected=0)  # a job before the first trial, or check's child
            self.wait(expected=self._driver.returncode)
        if self._driver is None:
            environment = {**os.environ, "SWEEPKIT_TEST_MARK": self._mark}
            self._driver = sweep("run", str(self._file), cwd=self._file.parent, env=environment)

    def processes(self) -> dict[str, list[psutil.Process]]:
        """Return what could be killed now, by role."""
        found: dict[str, list[psutil.Process]] = {}
        assert self._driver is not None
        try:
            driver = psutil.Process(self._driver.pid)
            for process in [driver, *driver.children(recursive=True)]:
                found.setdefault(self._role(process), []).append(process)
        except psutil.NoSuchProcess:
            pass
        if self._server and not self._server_due:
            found["server"] = self._server.processes()
        return found

    def _role(self, process: psutil.Process) -> str:
        assert self._driver is not None
        if process.pid == self._driver.pid:
            return "driver"
        if role := NAMES.get(process.name()):
            return role
        above = process.parent()
        return "warm" if above is not None and NAMES.get(above.name()) == "keeper" else "other"

    def wait_for_trial(self) -> None:
        """Return when a trial runs, or the driver has ended."""
        assert self._driver is not None
        until = time.monotonic() + 150
        while "trial" not in self.processes() and self._driver.poll() is None:
            assert time.monotonic() < until
            _pause(0.05)

    def kill(self) -> None:
        """Kill one process of a role drawn at random; where the study ends by this, nothing of it may be left."""
        assert self._driver is not None
        if self._driver.poll() is not None:
            return
        try:
            there = self.processes()
            role = self._dice.choice(sorted(there))
            self._dice.choice(there[role]).kill()
        except (psutil.NoSuchProcess, IndexError):
            return
        self.killed[role] += 1
        self._last = role
        if role == "server":
            self._server_due = time.monotonic() + self._dice.uniform(0, 5)
        if role in ("driver", "keeper", "warm"):
            self.wait(expected=-9 if role == "driver" else 1)

    def wait(self, expected: int) -> str:
        """Wait for the driver's end and return what it said."""
        assert self._driver is not None
        output, _ = self._driver.communicate(timeout=400)
        assert self._driver.returncode == expected, output
        self._driver = None
        wait_until(lambda: not processes_below(self._mark), 5, "no process is left 5 s after the driver's end")
        return output

    def finish(self) -> str:
        """Run the study to its end, with the server there, and return what the driver said."""
        if self._server and self._server_due:
            self._server_due = time.monotonic() - 1
        self.start()
        return self.wait(expected=0)


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Server | None]:
    if not request.param:
        yield None
        return
    made = Server(tmp_path)
    made.start()
    yield made
    made.kill()


@pytest.mark.parametrize(
    ("number", "empty", "server"),
    [(0, True, False), (1, True, False), (2, True, False), (3, False, True), (4, False, True)],
    indirect=["server"],
)
def test_a_campaign_of_random_kills_loses_and_doubles_nothing(
    number: int, empty: bool, server: Server | None, project: Path
) -> None:
    began = time.monotonic()
    seed = int(os.environ.get("SWEEPKIT_CAMPAIGN_SEED", "0")) + number
    dice = random.Random(seed)
    campaign = Campaign(project, dice, server)
    campaign.start()
    if empty:
        _pause(dice.uniform(0, EMPTY_SECONDS))
        campaign.kill()
    while sum(campaign.killed.values()) < KILLS:
        campaign.start()
        if dice.random() < 0.2:
            _pause(dice.uniform(0, START_SECONDS))
        else:
            campaign.wait_for_trial()
            _pause(dice.uniform(0, 0.7))
        campaign.kill()
    output = campaign.finish()
    assert f"{campaign.trials} trials ({campaign.trials} complete)" in output, output
    rows = journal_rows(campaign.study)
    assert [row[0] for row in rows] == list(range(campaign.trials))
    assert mlflow_rows(campaign.study, project) == rows
    told = ", ".join(f"{role} {count}" for role, count in sorted(campaign.killed.items()))
    sys.stdout.write(f"\ncampaign {number}, seed {seed}: {sum(campaign.killed.values())} kills ({told})")
    sys.stdout.write(f" in {time.monotonic() - began:.0f} s; {len(rows)} rows, the journal's equal to MLflow's:\n")
    sys.stdout.writelines(f"{row}\n" for row in rows)


Row = tuple[int, str, dict[str, str], float, list[tuple[int, float]]]
"""A trial's number, ending, hyperparameters, value, and its evaluations as steps and scores."""


def journal_rows(study: StudyData) -> list[Row]:
    """Return the journal's trials, each held against its log and against what its hyperparameters must give."""
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(study.place.journal)))
    rows = []
    for trial in optuna.load_study(study_name=study.name, storage=storage).get_trials():
        chosen = trial.user_attrs["hyperparameters"]
        log = TrialLog(study.place.trial(trial.number))
        evaluations = [event for event in log.refresh() if isinstance(event, Evaluated)]
        assert [event.number for event in evaluations] == [1, 2, 3], "each evaluation once"
        assert sum(isinstance(event, Finished) and event.ending == "complete" for event in log.refresh()) == 1
        assert trial.user_attrs["values"] == [score(chosen["learning_rate"], chosen["task.x"])]
        values = {name: str(value) for name, value in chosen.items()}
        curve = [(event.step, event.metrics["eval_score"]) for event in evaluations]
        rows.append((trial.number, trial.state.name, values, trial.user_attrs["values"][0], curve))
    return rows


def mlflow_rows(study: StudyData, project: Path) -> list[Row]:
    """Return the same of MLflow: one parent run, and a child for each trial."""
    client = MlflowClient(study.tracking.uri.replace("sqlite:///", f"sqlite:///{project}/"))
    [experiment] = [e for e in client.search_experiments() if e.name == study.name]
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    children = [run for run in runs if "mlflow.parentRunId" in run.data.tags]
    [parent] = [run.info.run_id for run in runs if run not in children]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent}
    rows = []
    for run in sorted(children, key=lambda run: int(run.data.tags["sweepkit.trial"])):
        history = client.get_metric_history(run.info.run_id, "eval_score")
        values = {name: run.data.params[name] for name in study.space}
        state = {"FINISHED": "COMPLETE"}.get(run.info.status, run.info.status)
        curve = [(metric.step, metric.value) for metric in history]
        rows.append((int(run.data.tags["sweepkit.trial"]), state, values, run.data.metrics["objective"], curve))
    return rows


def _pause(seconds: float) -> None:
    threading.Event().wait(seconds)
