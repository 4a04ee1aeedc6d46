"""Holds what each command prints of a study built by hand, and its exit codes."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages.journal import BaseJournalBackend

import toys
from commands import cpu_seconds, sweep, typed
from sweepkit.check import Checked, known_values
from sweepkit.check.find import find_run, find_study
from sweepkit.check.study_file import load_study
from sweepkit.cli import studies
from sweepkit.report.watch import Outcome, State, Watcher, write_state
from sweepkit.search.proposer import Proposer
from sweepkit.search.search import Search
from sweepkit.search.storage import open_storage
from sweepkit.study import words
from sweepkit.study.identity import identify
from sweepkit.study.locks import StudyLock
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Evaluated, Finished
from sweepkit.trial.trial import Ending, Trial

pytestmark = pytest.mark.real  # a process answers what the class in task.py takes

STUDY = """\
name: toy
question: Which rate?
task: {path: "task.py:Toy"}
objective: {metric: eval_f1, direction: maximize}
space:
  learning_rate: {low: 1e-6, high: 1e-1, log: true}
  optim:
    choices:
      adamw_torch: {adam_beta2: {low: 0.9, high: 0.999}}
      adafactor: {}
budget: {trials: 10}
tracking: {uri: none}
"""
TASK = """\
from sweepkit import Task


class Toy(Task):
    metrics: list = ["f1"]

    def data(self):
        raise NotImplementedError

    def model_init(self):
        raise NotImplementedError
"""


@pytest.fixture
def study(project: Path) -> StudyData:
    """Return the study of ``studies/toy/study.yaml``, which has not run yet."""
    folder = project / "studies" / "toy"
    folder.mkdir(parents=True)
    (folder / "study.yaml").write_text(STUDY)
    (folder / "task.py").write_text(TASK)
    return load_study(folder / "study.yaml").study


@pytest.fixture
def ran(study: StudyData) -> StudyData:
    """Return the same study after three trials: the best with a checkpoint, a pruned one, and a failed one."""
    identify(study.place, study)
    search = Search(study, open_storage(study.place, study), Proposer(study, known_values(study)))
    for rate, ending, cause in ((1e-3, "complete", ""), (1e-2, "pruned", ""), (1e-4, "failed", "exit code 3")):
        search.enqueue({"learning_rate": rate, "optim": "adafactor"})
        asked = search.ask()
        assert asked is not None
        search.report(Evaluated(trial=asked.number, at=0, number=1, step=5, epoch=1, metrics={}, values=(rate,)))
        search.tell(Finished(trial=asked.number, at=0, ending=ending, cause=cause, seconds=3600.0))
    (study.place.trial(0) / "best").mkdir(parents=True)
    return study


def test_a_study_is_found_by_file_folder_and_name_from_anywhere_in_the_project(
    ran: StudyData, monkeypatch: pytest.MonkeyPatch
) -> None:
    for argument in ("studies/toy/study.yaml", "studies/toy", "toy", "runs/toy"):
        assert find_study(argument).study.name == "toy"
        assert find_run(argument).place.folder == ran.place.folder
    monkeypatch.chdir(ran.home)
    assert find_study("toy").study.place.folder == ran.place.folder


def test_a_misspelt_name_gets_the_nearest(ran: StudyData) -> None:
    error = sweep("show", "toi").exception
    assert (
        str(error) == "there is no file, folder or study toi; did you mean toy? (studies of this project that ran: toy)"
    )


def test_completion_offers_names_and_files(ran: StudyData) -> None:
    assert studies.complete("") == ["toy", "studies/toy/study.yaml"]
    assert studies.complete("st") == ["studies/toy/study.yaml"]


def test_show_prints_exactly_the_promised_json(ran: StudyData) -> None:
    shown = json.loads(sweep("show", "toy", "--json").output)
    assert list(shown) == ["study", "trials"]
    keys = [
        "number",
        "ending",
        "reason",
        "cause",
        "params",
        "value",
        "metrics",
        "started",
        "seconds",
        "checkpoint",
        "mlflow_run",
    ]
    assert [list(trial) for trial in shown["trials"]] == [keys] * 3
    assert [(t["number"], t["ending"], t["cause"], t["seconds"]) for t in shown["trials"]] == [
        (0, "complete", "", 3600.0),
        (1, "pruned", "", 3600.0),
        (2, "failed", "exit code 3", 3600.0),
    ]
    assert shown["trials"][0]["params"] == {"learning_rate": 1e-3, "optim": "adafactor"}
    assert shown["trials"][0]["checkpoint"] == str(ran.place.trial(0) / "best")


def test_show_tells_the_best_the_failures_and_the_hours(ran: StudyData) -> None:
    assert sweep("show", "toy").output.splitlines() == [
        "toy  eval_f1 ↑ · tpe",
        "3 of 10 trials (1 complete, 1 pruned, 1 failed) · not running; sweep run continues it",
        "",
        "best",
        "  trial  eval_f1        time  lr    optim",
        "  ───────────────────────────────────────────",
        "      0   0.0010  1 h 00 min  1e-3  adafactor",
        "",
        "pruned",
        "  trial 1, after 1 evaluation; it reached 0.0100",
        "",
        "went wrong",
        "  trial 2  failed  exit code 3",
        "",
        "spent  won 1 h 00 min · pruned 1 h 00 min · failed 1 h 00 min",
        "model  runs/toy/trials/0000/best (trial 0)",
    ]


def test_show_all_lists_every_trial_in_the_order_tried(ran: StudyData) -> None:
    lines = sweep("show", "toy", "--all").output.splitlines()
    assert [line.split()[:2] for line in lines[6:9]] == [["0", "complete"], ["1", "pruned"], ["2", "failed"]]


class Memory(BaseJournalBackend):
    """A journal in memory, for making long ones without waiting for the disk a thousand times."""

    def __init__(self) -> None:
        self.logs: list[dict[str, Any]] = []

    def read_logs(self, log_number_from: int) -> list[dict[str, Any]]:
        return self.logs[log_number_from:]

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self.logs += logs


def test_show_of_a_thousand_trials_is_quick(study: StudyData) -> None:
    identify(study.place, study)
    journal = Memory()
    storage = optuna.storages.JournalStorage(journal)
    made = optuna.create_study(study_name="toy", storage=storage, direction="maximize")
    domain = optuna.distributions.FloatDistribution(1e-6, 1e-1, log=True)
    spent: dict[int, float] = {}
    for number in range(1000):
        rate = 1e-6 * (number + 1)
        given = {"ending": "complete", "hyperparameters": {"learning_rate": rate}, "values": [rate], "seconds": 1.0}
        made.add_trial(
            optuna.trial.create_trial(
                value=rate,
                params={"learning_rate": rate},
                distributions={"learning_rate": domain},
                intermediate_values={1: rate, 2: rate, 3: rate},
                user_attrs=given,
            )
        )
        if number in (0, 999):
            study.place.journal.write_text("".join(f"{json.dumps(log)}\n" for log in journal.logs))
            spent[number], shown = cpu_seconds("show", "toy")
            assert f"{number + 1} of 10 trials ({number + 1} complete)" in shown
    assert spent[999] < 2 * spent[0], "most of it is the command's start"


def test_best_prints_the_path_alone_into_a_pipe(ran: StudyData) -> None:
    done = typed("best", "toy")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{ran.place.trial(0) / 'best'}\n", "")


def test_best_as_json_is_a_trial_with_its_goal(ran: StudyData) -> None:
    found = json.loads(sweep("best", "toy", "--json").output)
    assert (found["study"], found["goals"]) == ("toy", [{"metric": "eval_f1", "direction": "maximize"}])
    assert (found["best"]["number"], found["best"]["value"]) == (0, 1e-3)
    assert (found["verdict"], found["test"]) == (None, None)


def test_best_says_when_the_checkpoint_is_gone(ran: StudyData) -> None:
    (ran.place.trial(0) / "best").rmdir()
    assert "trial 0 is the best of toy, but its checkpoint is not on this machine" in str(
        sweep("best", "toy").exception
    )


def test_list_shows_the_projects_studies(ran: StudyData) -> None:
    header, _, line = sweep("list").output.splitlines()
    assert header.split() == ["study", "trials", "objective", "best", "started", "state"]
    assert line.split()[:5] == ["toy", "3/10", "eval_f1", "↑", "0.0010"]
    [found] = json.loads(sweep("list", "--json").output)["studies"]
    assert (found["name"], found["trials"], found["budget_trials"], found["state"]) == ("toy", 3, 10, "not running")
    assert found["best"]["number"] == 0


def test_list_of_an_empty_project_says_so(project: Path) -> None:
    assert sweep("list").output == "no study of this project has run yet\n"


def test_enqueue_puts_a_configuration_in_line(ran: StudyData) -> None:
    said = sweep("enqueue", "toy", "learning_rate=3e-5", "optim=adamw_torch", "adam_beta2=0.95")
    assert said.output == "trial 3 of toy will be lr=3e-5 optim=adamw_torch beta2=0.95\n"
    assert [row["ending"] for row in json.loads(sweep("show", "toy", "--json").output)["trials"]][-1] == "waiting"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["learning_rate=1"], "learning_rate: lies outside the space: low=1e-06 to high=0.1, got 1"),
        (["optim=adafactor", "adam_beta2=0.95"], "adam_beta2: exists only where optim is adamw_torch"),
        (["learning_rate"], "expected NAME=VALUE, got 'learning_rate'"),
    ],
)
def test_enqueue_refuses_what_the_space_does_not_have(ran: StudyData, values: list[str], message: str) -> None:
    assert str(sweep("enqueue", "toy", *values).exception).strip() == message


def test_retry_makes_new_trials_of_failed_ones_once(ran: StudyData) -> None:
    again = sweep("retry", "toy", "--failed")
    assert again.output == "trial 3 retries trial 2\ntrain 1 trial with: sweep run toy\n"
    assert sweep("retry", "toy", "--failed").output == "toy has no failed trial that was not retried\n"


def run_as(
    monkeypatch: pytest.MonkeyPatch, status: Any, rows: list[Trial], undelivered: str = ""
) -> list[tuple[Any, ...]]:
    """Have ``sweep run`` end like this without running anything; return what it was asked to run."""
    asked: list[tuple[Any, ...]] = []

    def run_checked(checked: Checked, *, fresh: bool, watch: Watcher) -> Outcome:
        asked.append((checked.study.backend.type, checked.study.backend.parallel, checked.study.budget.trials, fresh))
        return Outcome(status, rows, None, None, "so it ended", 1.0, undelivered)

    monkeypatch.setattr("sweepkit.driver.run.run_checked", run_checked)
    return asked


def test_what_mlflow_lacks_is_the_last_line_and_has_its_own_exit_code(
    study: StudyData, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = "tracking: 2 trial(s) are not delivered yet (no answer); `sweep sync` delivers the rest"
    run_as(monkeypatch, "done", [Trial(number=0, ending=Ending.complete, values=(0.5,))], missing)
    done = sweep("run", "studies/toy")
    assert done.exit_code == 3
    assert " ".join(done.output.split()).endswith(missing)


def test_options_of_run_win_over_the_file(study: StudyData, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = run_as(monkeypatch, "done", [])
    sweep("run", "studies/toy", "--backend", "ray", "--parallel", "3", "--set", "budget.trials=7", "--fresh")
    sweep("run", "studies/toy")
    assert asked == [("ray", 3, 7, True), ("optuna", "auto", 10, False)]


@pytest.mark.parametrize(
    ("status", "endings", "code"),
    [
        ("done", [Ending.complete], 0),
        ("done", [Ending.complete, Ending.failed], 1),
        ("failed", [], 1),
        ("interrupted", [Ending.complete], 130),
    ],
)
def test_run_exits_by_how_the_study_ended(
    study: StudyData, monkeypatch: pytest.MonkeyPatch, status: str, endings: list[Ending], code: int
) -> None:
    run_as(monkeypatch, status, [Trial(number=number, ending=ending) for number, ending in enumerate(endings)])
    assert sweep("run", "studies/toy").exit_code == code


def test_a_finished_study_says_so_without_torch_and_without_mlflow(ran: StudyData) -> None:
    (ran.home / "study.yaml").write_text(STUDY.replace("trials: 10", "trials: 3").replace("{uri: none}", "{}"))
    study = load_study(ran.home / "study.yaml").study
    identify(study.place, study)
    write_state(study.place, State("done", "all trials of the budget are done"))
    assert sweep("enqueue", "studies/toy", "learning_rate=1e-2", "optim=adafactor").exit_code == 0, (
        "it waits for a budget"
    )
    first = typed("run", "studies/toy")
    assert (first.returncode, (study.place.root / "mlflow.db").exists()) == (1, True), "a trial of it failed"
    again = typed("run", "studies/toy", PYTHONPROFILEIMPORTTIME="1")
    assert (again.returncode, without_times(again.stdout)) == (1, without_times(first.stdout))
    imported = {line.rpartition("|")[2].strip() for line in again.stderr.splitlines()}
    assert "sweepkit.driver.run" in imported
    assert not imported & {"torch", "transformers", "datasets", "ray", "mlflow", "sqlalchemy", "plotly"}


@pytest.mark.parametrize("command", ["run", "tune", "try"])
def test_the_first_line_is_printed_before_anything_is_imported_that_takes_a_moment(project: Path, command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "sweepkit", command, "nothing-here"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    before, line, _ = done.stdout.partition("checking nothing-here …\n")
    assert (done.returncode, bool(line)) == (2, True)
    imported = {line.rpartition("|")[2].strip() for line in before.splitlines()}
    assert not imported & {"numpy", "optuna", "sweepkit.check", "sweepkit.driver", "torch"}


def without_times(printed: str) -> str:
    """Return what was printed without times of day and durations."""
    return re.sub(r"\d\d:\d\d:\d\d|in [\d.]+ s", "", printed)


def test_stop_of_a_study_that_does_not_run_is_no_error(ran: StudyData) -> None:
    assert sweep("stop", "toy").output == "toy is not running\n"


def test_stop_signals_the_process_that_runs_the_study(ran: StudyData) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        with StudyLock(ran.place):
            done = typed("stop", "toy")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert done.stdout == f"asked process {os.getpid()} to stop toy; its running trials checkpoint first\n"
    assert heard == [signal.SIGTERM]


def test_a_changed_study_is_refused_before_a_process_is_started_for_it(ran: StudyData) -> None:
    (ran.home / "study.yaml").write_text(STUDY.replace("1e-6", "1e-5"))
    assert "changed since its trials were run" in str(sweep("run", "studies/toy").exception)
    assert not (ran.place.folder / "warm.log").exists()


def test_try_refuses_names_and_values_that_nothing_takes(study: StudyData) -> None:
    refused = sweep("try", "studies/toy", "-p", "learning_rte=1e-3", "-p", "weight_decay=x", "-p", "optim=sgd")
    assert str(refused.exception).splitlines() == [
        "learning_rte: is not a TrainingArguments field; did you mean learning_rate?",
        "weight_decay: expected a number, got 'x' (text)",
    ]


def test_sync_and_ui_of_a_study_recorded_nowhere_say_so(ran: StudyData) -> None:
    assert "there is nothing to deliver" in sweep("sync", "toy").output
    assert "there is nothing to show" in str(sweep("ui", "toy").exception)


def test_ui_without_a_study_needs_one_store_that_is_there(ran: StudyData) -> None:
    nothing = "no study of this project is recorded; sweep run does it, unless tracking.uri is none"
    assert str(sweep("ui").exception) == nothing
    root, other = ran.place.root, ran.place.runs / "other"
    shutil.copytree(ran.place.folder, other)
    for folder, uri in ((ran.place.folder, "sqlite:///a.db"), (other, "https://ann:s3cret@mlflow.example.com")):
        stored = json.loads((folder / "study.json").read_text())
        stored["study"] |= {"name": folder.name, "tracking": {"uri": uri}}
        (folder / "study.json").write_text(json.dumps(stored))
    assert sweep("ui").output == "https://mlflow.example.com/#/experiments?workflowType=machine_learning\n"
    (root / "a.db").touch()
    assert str(sweep("ui").exception) == (
        "the studies here are recorded in 2 places: other in https://mlflow.example.com; "
        f"toy in sqlite:///{root}/a.db; name a study: sweep ui STUDY"
    )
    shutil.rmtree(other)
    (root / "a.db").unlink()
    assert str(sweep("ui").exception) == nothing
    assert not (root / "a.db").exists(), "nothing is made by looking"


def test_check_tells_what_a_study_will_do(study: StudyData) -> None:
    shown = sweep("check", "studies/toy")
    assert shown.exit_code == 0
    assert "searches  learning_rate   1e-6 … 0.1, log" in shown.output
    assert "10 trials" in shown.output
    assert shown.output.endswith("next  sweep run studies/toy\n")


def test_a_command_to_type_next_can_be_typed_as_it_stands(study: StudyData) -> None:
    study.home.rename(study.home.with_name("my toy"))
    assert sweep("check", "studies/my toy").stdout.endswith("next  sweep run 'studies/my toy'\n")


def test_check_forecasts_the_disk_from_the_weights_the_study_begins_with(study: StudyData, tiny_bert: Path) -> None:
    assert (
        "disk      3 best models kept; their size is known after the first trial starts"
        in sweep("check", "studies/toy").output
    )
    weights = tiny_bert / "model.safetensors"
    toys.tiny_csv(study.home / "my.csv")
    task = f"task: {{type: text-classification, model: '{tiny_bert}', data: {{path: my.csv}}}}"
    kept = "checkpoints: {keep: 2}"
    text = STUDY.replace('task: {path: "task.py:Toy"}', task) + f"{kept}\n"
    (study.home / "study.yaml").write_text(text)
    one = weights.stat().st_size
    told = f"disk      {words.size(2 * one)} for 2 best models, and {words.size(8 * one)} for each running trial"
    assert told in sweep("check", "studies/toy").output


def test_check_as_json_has_the_resolved_study_or_every_problem(study: StudyData) -> None:
    fine = json.loads(sweep("check", "studies/toy", "--set", "budget.trials=3", "--json").stdout)
    assert (fine["ok"], fine["problems"], fine["study"]["budget"]["trials"]) == (True, [], 3)
    (study.home / "study.yaml").write_text(STUDY.replace("question", "questoin").replace("low: 1e-6", "low: 1"))
    wrong = sweep("check", "studies/toy", "--json")
    found = json.loads(wrong.stdout)
    assert (wrong.exit_code, found["ok"]) == (2, False)
    assert [(p["path"], p["line"]) for p in found["problems"]] == [("questoin", 2), ("space.learning_rate", 6)]


class Forecast:
    """A forecast that objects, or not."""

    def __init__(self, *objections: str) -> None:
        self._objections = list(objections)

    def objections(self, study: StudyData) -> list[str]:
        return self._objections

    def plain(self) -> dict[str, Any]:
        return {"seconds": 60.0}


@pytest.mark.parametrize(("objections", "code"), [((), 0), (("memory is too small",), 1)])
def test_check_with_a_probe_exits_by_what_the_forecast_objects(
    study: StudyData, monkeypatch: pytest.MonkeyPatch, objections: tuple[str, ...], code: int
) -> None:
    monkeypatch.setattr("sweepkit.driver.probe.probe", lambda checked, watch: Forecast(*objections))
    probed = sweep("check", "studies/toy", "--probe", "--json")
    assert probed.exit_code == code
    assert json.loads(probed.output)["forecast"] == {"seconds": 60.0, "objections": list(objections)}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (
            ["show", "nothing"],
            2,
            "error: there is no file, folder or study nothing (no study of this project has run yet)\n",
        ),
        (["best", "nothing.yaml"], 2, "nothing.yaml: there is no such file\n"),
        (
            ["enqueue", "studies/toy", "learning_rat=1"],
            2,
            "learning_rat: is not searched; did you mean learning_rate?\n",
        ),
        (
            ["retry", "studies/toy"],
            2,
            "error: choose the trials: --failed for every failed one, or --trial 7 for one of them\n",
        ),
        (["best", "studies/toy"], 2, "error: toy has no best trial: it has no trials yet\n"),
    ],
)
def test_bad_input_ends_with_2_and_one_plain_sentence(
    study: StudyData, arguments: list[str], code: int, message: str
) -> None:
    done = typed(*arguments)
    assert (done.returncode, done.stderr, done.stdout) == (code, message, "")
