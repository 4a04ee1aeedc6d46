"""What a tracker promises, held against a real SQLite store: everything once, whatever was killed, lost or repeated."""

from __future__ import annotations

import base64
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import written_trials as trials
from sweepkit.study.errors import InputError, StudyNotFound
from sweepkit.study.study import StudyData
from sweepkit.trackers.courier import Courier
from sweepkit.trackers.mlflow.address import tracking_uri, ui_of
from sweepkit.trackers.mlflow.tracker import MLflowTracker
from sweepkit.trial.events import from_json
from sweepkit.trial.log import TrialLog
from sweepkit.trial.trial import Ending, Trial

pytestmark = pytest.mark.real


STEPS = 30
PER_TRIAL = STEPS * 3 + STEPS // 10 * 2
"""Metrics of a whole trial: loss, grad_norm and epoch of each step, and two of each evaluation."""
AT_END = 4
"""And those of its end: objective, attempts, duration, peak memory."""


@pytest.fixture
def study(home: Path) -> StudyData:
    return trials.toy_study(home)


@pytest.fixture
def store(project: Path) -> Iterator[Callable[..., list[Any]]]:
    """Return a function that asks the SQLite file itself."""
    connections: list[sqlite3.Connection] = []

    def ask(question: str, *values: Any) -> list[Any]:
        if not connections:
            connections.append(sqlite3.connect(project / "mlflow.db"))
        return connections[0].execute(question, values).fetchall()

    yield ask
    for connection in connections:
        connection.close()


def delivered(study: StudyData, rows: list[Trial], **more: Any) -> MLflowTracker:
    """Return a tracker that opened and delivered these rows."""
    tracker = MLflowTracker(study, lambda: rows, **more)
    tracker.open()
    tracker.sync()
    return tracker


def runs(study: StudyData) -> dict[str, Any]:
    """Return MLflow's runs by their names."""
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri(study))
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert len({run.info.run_name for run in found}) == len(found)
    return {run.info.run_name: run for run in found}


def test_one_parent_and_a_child_per_trial_bear_the_searched_values(study: StudyData) -> None:
    delivered(study, [trials.whole(study, 0), trials.whole(study, 7)])
    found = runs(study)
    assert set(found) == {"toy", "0000 baseline lr=3e-5 bs=16", "0007 lr=2.4e-4 bs=16"}
    parent, child = found["toy"], found["0007 lr=2.4e-4 bs=16"]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.params == {
        "learning_rate": "0.00024",
        "per_device_train_batch_size": "16",
        "num_train_epochs": "3.0",
        "log10 learning_rate": "-3.61979",
    }
    assert (child.info.start_time, child.info.end_time) == (int(trials.BEGAN * 1000), int(trials.BEGAN * 1000) + 20_000)


@pytest.mark.parametrize(
    ("ending", "status"),
    [
        (Ending.complete, "FINISHED"),
        (Ending.pruned, "KILLED"),
        (Ending.stopped, "KILLED"),
        (Ending.infeasible, "FAILED"),
        (Ending.diverged, "FAILED"),
        (Ending.failed, "FAILED"),
        (Ending.running, "RUNNING"),
    ],
)
def test_an_ending_becomes_a_status_with_its_reason(study: StudyData, ending: Ending, status: str) -> None:
    if ending is Ending.running:
        trials.write(study, 3, [trials.started(3)])
        row = trials.row(3, ending)
    else:
        row = trials.whole(study, 3, ending, cause="because")
    delivered(study, [row])
    run = runs(study)["0003 lr=1.2e-4 bs=16"]
    assert run.info.status == status
    if ending is not Ending.running:
        assert (run.data.tags["sweepkit.ending"], run.data.tags["reason"]) == (ending, "because")
    assert ("objective" in run.data.metrics) == (ending in (Ending.complete, Ending.pruned))


def test_a_trial_that_never_started_has_a_run_too(study: StudyData) -> None:
    delivered(study, [trials.row(2, Ending.failed, cause="no such file")])
    run = runs(study)["0002 lr=9e-5 bs=16"]
    assert (run.info.status, run.data.tags["reason"]) == ("FAILED", "no such file")


def test_training_and_evaluation_are_delivered_with_global_step_and_epoch(study: StudyData) -> None:
    from mlflow.tracking import MlflowClient

    row = trials.whole(study, 0)
    delivered(study, [row])
    run = runs(study)["0000 baseline lr=3e-5 bs=16"]
    client = MlflowClient(tracking_uri(study))

    def curve(name: str) -> list[tuple[int, float]]:
        return [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, name)]

    assert curve("loss") == [(step, 1 / step) for step in range(1, STEPS + 1)]
    assert curve("epoch") == [(step, step / 10) for step in range(1, STEPS + 1)]
    assert [step for step, _ in curve("eval_f1")] == [10, 20, 30]
    assert curve("objective") == [(30, row.value)]
    costs = {name: value for name, value in run.data.metrics.items() if name.startswith("system/")}
    assert costs == {"system/attempts": 1.0, "system/duration_seconds": 20.0, "system/peak_memory_mb": 120.0}
    assert run.data.tags["device"] == "cpu"


@pytest.mark.parametrize(
    ("gpus_per_trial", "devices", "gpus"), [(1, ("3",), 1.0), (2, ("0", "1"), 2.0), (0.25, ("0",), 0.25)]
)
def test_gpu_hours_count_every_gpu_held_and_a_shared_one_by_its_share(
    home: Path, gpus_per_trial: float, devices: tuple[str, ...], gpus: float
) -> None:
    study = trials.toy_study(home, backend={"gpus_per_trial": gpus_per_trial})
    trials.write(study, 0, [trials.started(0, device=",".join(devices)), trials.finished(0, Ending.complete)])
    spec = study.place.trial(0) / "spec.json"
    spec.write_text(json.dumps(json.loads(spec.read_text()) | {"devices": devices}))
    delivered(study, [trials.row(0, Ending.complete)])
    run = runs(study)["0000 baseline lr=3e-5 bs=16"]
    assert run.data.metrics["system/gpu_hours"] == pytest.approx(20 * gpus / 3600)


def test_several_goals_are_all_delivered_and_the_deciding_one_is_the_objective(home: Path) -> None:
    goals = [{"metric": "eval_f1", "direction": "maximize"}, {"metric": "eval_loss", "direction": "minimize"}]
    study = trials.toy_study(home, objective={"metrics": goals, "prune_on": "eval_loss"})
    delivered(study, [trials.whole(study, 0, values=(0.5, 0.25))])
    metrics = runs(study)["0000 baseline lr=3e-5 bs=16"].data.metrics
    found = {name: value for name, value in metrics.items() if name.startswith("objective")}
    assert found == {"objective": 0.25, "objective.eval_f1": 0.5, "objective.eval_loss": 0.25}


def test_delivering_again_after_every_memory_is_lost_doubles_nothing(
    study: StudyData, store: Callable[..., list[Any]]
) -> None:
    rows = [trials.whole(study, number) for number in range(3)]
    delivered(study, rows)
    before = (store("select count(*) from metrics"), store("select count(*) from runs"))
    assert before == ([(3 * (PER_TRIAL + AT_END),)], [(4,)])
    study.place.mlflow_json.unlink()
    delivered(study, rows).close({"best": 1})
    state = json.loads(study.place.mlflow_json.read_text())
    for trial in state["trials"].values():
        trial["offset"], trial["epoch_step"] = 0, 0
    study.place.mlflow_json.write_text(json.dumps(state))
    delivered(study, rows)
    study.place.mlflow_json.write_text("half a fi")
    delivered(study, rows)
    assert (store("select count(*) from metrics"), store("select count(*) from runs")) == before


def test_what_comes_bit_by_bit_is_what_comes_at_once(study: StudyData, store: Callable[..., list[Any]]) -> None:
    rows = [trials.row(0, Ending.running)]
    tracker = MLflowTracker(study, lambda: rows)
    tracker.open()
    events = [trials.started(0), *trials.training(0, range(1, STEPS + 1)), trials.finished(0, Ending.complete)]
    for start in range(0, len(events), 7):
        trials.write(study, 0, events[start : start + 7])
        tracker.sync()
    assert tracker.behind() == 0
    rows[:] = [trials.row(0, Ending.complete)]
    assert tracker.behind() == 1
    tracker.sync()
    assert store("select count(*) from metrics") == [(PER_TRIAL + AT_END,)]
    assert runs(study)["0000 baseline lr=3e-5 bs=16"].info.status == "FINISHED"


def test_what_the_store_refused_once_is_whole_afterwards(study: StudyData, project: Path) -> None:
    rows = [trials.row(0, Ending.running)]
    tracker = MLflowTracker(study, lambda: rows)
    tracker.open()
    trials.write(study, 0, [trials.started(0), *trials.training(0, range(1, 11))])
    tracker.sync()
    trials.write(study, 0, [*trials.training(0, range(11, STEPS + 1)), trials.finished(0, Ending.complete)])
    rows[:] = [trials.row(0, Ending.complete)]
    database = sqlite3.connect(project / "mlflow.db", isolation_level=None)
    database.execute("create trigger full before insert on metrics begin select raise(abort, 'no room'); end")
    with pytest.raises(Exception, match="no room"):
        tracker.sync()
    assert tracker.behind() == 1
    database.execute("drop trigger full")
    tracker.sync()
    assert database.execute("select count(*) from metrics").fetchall() == [(PER_TRIAL + AT_END,)]
    database.close()


def test_a_deleted_database_is_filled_again_from_the_logs(project: Path, study: StudyData) -> None:
    rows = [trials.whole(study, 0), trials.whole(study, 1, Ending.pruned)]
    delivered(study, rows)
    before = {name: (run.info.status, run.data.params, run.data.metrics) for name, run in runs(study).items()}
    (project / "mlflow.db").rename(project / "elsewhere.db")
    again = subprocess.run([sys.executable, "-c", _AGAIN, str(project)], capture_output=True, text=True, check=False)
    assert (again.returncode, again.stderr) == (0, "")
    found = sqlite3.connect(project / "mlflow.db")
    names = {name for (name,) in found.execute("select name from runs")}
    count = found.execute("select count(*) from metrics").fetchone()
    found.close()
    assert names == set(before)
    assert count == (2 * (PER_TRIAL + AT_END),)


@pytest.mark.parametrize("goes", ["removed", "replaced"])
def test_a_store_that_goes_while_a_study_runs_is_noticed_and_filled_again(home: Path, goes: str) -> None:
    study, file = trials.toy_study(home), home / "mlflow.db"
    empty = file.read_bytes()
    rows = [trials.whole(study, 0)]
    tracker = delivered(study, rows)
    file.rename(home / "elsewhere.db")
    if goes == "replaced":
        file.write_bytes(empty)
    rows.append(trials.whole(study, 1))
    tracker.sync()
    tracker.close({"status": "done", "best": 1, "value": 0.5})
    with closing(sqlite3.connect(file)) as found:
        ended = dict(found.execute("select name, status from runs"))
        (count,) = found.execute("select count(*) from metrics where key not like 'study/%'").fetchone()
    assert len(ended) == 3 and set(ended.values()) == {"FINISHED"}
    assert count == 2 * (PER_TRIAL + AT_END)


_AGAIN = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from pathlib import Path
import written_trials as trials
from sweepkit.trackers.mlflow.tracker import MLflowTracker
from sweepkit.trial.trial import Ending
study = trials.toy_study(Path(sys.argv[1]))
tracker = MLflowTracker(study, lambda: [trials.row(0, Ending.complete), trials.row(1, Ending.pruned)])
tracker.open()
tracker.sync()
heavy = {{"torch", "transformers", "datasets", "optuna", "ray"}} & set(sys.modules)
assert not heavy, heavy
"""
"""Another process, so that nothing of the old store is remembered; a driver that loads no torch, too."""


def test_a_store_that_has_everything_is_known_without_opening_it(home: Path) -> None:
    study, answer = trials.toy_study(home), {"best": 0, "value": 0.5, "status": "done"}
    rows = [trials.whole(study, 0)]

    def known(study: StudyData = study, said: Any = answer) -> bool:
        return MLflowTracker(study, lambda: rows).delivered(said)

    tracker = delivered(study, rows)
    assert (known(said=None), known()) == (True, False)
    tracker.close(answer)
    assert (known(said=None), known()) == (True, True)
    assert not known(said={**answer, "value": 0.6})
    assert not known(trials.toy_study(home, tracking={"register": "toy"}))
    assert not known(trials.toy_study(home, tracking={"experiment": "elsewhere"}))
    assert not known(trials.toy_study(home, tracking={"uri": "sqlite:///other.db"}))
    rows.append(trials.whole(study, 1))
    assert not known()
    del rows[1]
    tracker.open()
    assert not known(), "the study runs again"
    tracker.close(answer)
    shutil.rmtree(study.place.trial(1))
    assert known()
    whole = (home / "mlflow.db").read_bytes()
    for question in ("delete from latest_metrics", "update runs set lifecycle_stage = 'deleted'", "delete from runs"):
        with closing(sqlite3.connect(home / "mlflow.db")) as database, database:
            database.execute("pragma foreign_keys = off")
            database.execute(question)
        assert known() is (question == "delete from latest_metrics")  # what is in the runs is not looked at
    for content in (b"", b"no database", whole[: len(whole) // 3]):
        (home / "mlflow.db").write_bytes(content)
        assert not known()
    (home / "mlflow.db").unlink()
    assert not known()
    assert not (home / "mlflow.db").exists()
    (home / "mlflow.db").write_bytes(whole)
    assert known()


def test_a_run_deleted_by_hand_stays_deleted_and_holds_nobody_up(study: StudyData) -> None:
    from mlflow.tracking import MlflowClient

    rows = [trials.row(0, Ending.running), trials.row(1, Ending.running)]
    for number in (0, 1):
        trials.write(study, number, [trials.started(number), *trials.training(number, range(1, 5))])
    tracker = delivered(study, rows)
    MlflowClient(tracking_uri(study)).delete_run(runs(study)["0000 baseline lr=3e-5 bs=16"].info.run_id)
    for number in (0, 1):
        trials.write(study, number, [*trials.training(number, range(5, 31)), trials.finished(number, Ending.complete)])
    rows[:] = [trials.row(0, Ending.complete), trials.row(1, Ending.complete)]
    tracker.sync()
    assert tracker.behind() == 0
    assert {name: run.info.status for name, run in runs(study).items()} == {
        "toy": "RUNNING",
        "0001 lr=6e-5 bs=16": "FINISHED",
    }


def test_a_stopped_trial_goes_on_in_the_same_run(study: StudyData, store: Callable[..., list[Any]]) -> None:
    stop = trials.finished(0, Ending.stopped, step=15)
    trials.write(study, 0, [trials.started(0), *trials.training(0, range(1, 16)), stop])
    rows = [trials.row(0, Ending.stopped)]
    delivered(study, rows)
    assert runs(study)["0000 baseline lr=3e-5 bs=16"].info.status == "KILLED"
    trials.write(study, 0, [trials.started(0, attempt=2, resumed=10), *trials.training(0, range(11, 21), attempt=2)])
    rows[:] = [trials.row(0, Ending.running)]
    tracker = delivered(study, rows)
    run = runs(study)["0000 baseline lr=3e-5 bs=16"]
    assert (run.info.status, run.data.tags["sweepkit.ending"]) == ("RUNNING", "running")
    end = trials.finished(0, Ending.complete, attempt=2)
    trials.write(study, 0, [*trials.training(0, range(21, 31), attempt=2), end])
    rows[:] = [trials.row(0, Ending.complete)]
    tracker.sync()
    run = runs(study)["0000 baseline lr=3e-5 bs=16"]
    assert (run.info.status, run.data.metrics["system/attempts"]) == ("FINISHED", 2.0)
    assert run.data.metrics["system/duration_seconds"] == 40.0
    assert store("select count(*) from metrics where key in ('loss', 'eval_f1', 'epoch')") == [(STEPS * 2 + 3,)]


def test_a_paused_trials_run_stays_running_and_ends_with_the_trial(study: StudyData) -> None:
    pause = trials.finished(0, Ending.paused, step=10)
    trials.write(study, 0, [trials.started(0), *trials.training(0, range(1, 11)), pause])
    rows = [trials.row(0, Ending.paused)]
    tracker = delivered(study, rows)
    run = runs(study)["0000 baseline lr=3e-5 bs=16"]
    assert run.info.status == "RUNNING" and "objective" not in run.data.metrics
    trials.write(study, 0, [trials.finished(0, Ending.pruned, step=10)])
    rows[:] = [trials.row(0, Ending.pruned, cause="did not go on")]
    tracker.sync()
    run = runs(study)["0000 baseline lr=3e-5 bs=16"]
    assert (run.info.status, run.data.tags["reason"]) == ("KILLED", "did not go on")
    assert run.data.metrics["objective"] == rows[0].values[0]


def test_another_attempt_with_other_arguments_says_what_differs(study: StudyData) -> None:
    crash = trials.finished(0, Ending.infeasible, step=0)
    smaller = {**trials.started(0).effective, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2}
    second = trials.started(0, attempt=2, effective=smaller)
    end = trials.finished(0, Ending.complete, attempt=2)
    trials.write(study, 0, [trials.started(0), crash, second, *trials.training(0, range(1, 31), attempt=2), end])
    delivered(study, [trials.row(0, Ending.complete)])
    run = runs(study)["0000 baseline lr=3e-5 bs=16"]
    assert run.data.params["per_device_train_batch_size"] == "16"
    assert json.loads(run.data.tags["sweepkit.attempt.2"]) == {
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 2,
    }


def test_a_delivery_reads_only_what_was_added_to_a_log_of_80000_lines(
    study: StudyData, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [trials.row(0, Ending.running)]
    trials.write(study, 0, [trials.started(0), *trials.training(0, range(1, 11))])
    delivered(study, rows)
    log = study.place.trial(0) / "events.jsonl"
    long = "".join(event.to_json() + "\n" for event in trials.training(0, range(11, 80_000), every=10**6))
    with log.open("a") as file:
        file.write(long)
    state = json.loads(study.place.mlflow_json.read_text())
    state["trials"]["0"]["offset"] = log.stat().st_size
    study.place.mlflow_json.write_text(json.dumps(state))
    tracker = MLflowTracker(study, lambda: rows)
    tracker.sync()
    size = log.stat().st_size
    second = trials.started(0, attempt=2, effective={**trials.started(0).effective, "learning_rate": 1.0})
    with log.open("a") as file:
        file.write(second.to_json() + "\n")
        file.write(trials.training(0, [80_000], every=10**6, attempt=2)[0].to_json() + "\n")
    began = time.perf_counter()
    _, end = TrialLog(log.parent).events(size)
    first = TrialLog(log.parent).first_start()
    of_log = time.perf_counter() - began
    assert (end, first and first.attempt) == (log.stat().st_size, 1)
    read: list[Any] = []
    written: list[Path] = []
    replace_file = os.replace
    monkeypatch.setattr(os, "replace", lambda draft, path: written.append(path) or replace_file(draft, path))
    monkeypatch.setattr("sweepkit.trial.log.from_json", lambda line: read.append(line) or from_json(line))
    began = time.perf_counter()
    tracker.sync()
    whole = time.perf_counter() - began
    sys.stdout.write(f"a delivery of two new lines: {1000 * whole:.0f} ms, the log's part {1000 * of_log:.1f} ms\n")
    assert len(read) <= 3, "the two new lines, and the first attempt's start"
    assert written == [study.place.mlflow_json], "once for a delivery"
    assert tracker.behind() == 0
    run = runs(study)["0000 baseline lr=3e-5 bs=16"]
    assert json.loads(run.data.tags["sweepkit.attempt.2"]) == {"learning_rate": 1.0}


def test_a_value_too_long_for_a_parameter_is_whole_in_a_file(study: StudyData, project: Path) -> None:
    long = {"learning_rate": 1e-4, "task.prompt": "word " * 2000}
    trials.write(study, 0, [trials.started(0)], long)
    delivered(study, [trials.row(0, Ending.running)])
    (run,) = [run for name, run in runs(study).items() if name != "toy"]
    assert run.data.params["task.prompt"].endswith("(10,000 characters, whole in params.json)")
    (file,) = (project / "mlartifacts").rglob("params.json")
    assert json.loads(file.read_text())["task.prompt"] == long["task.prompt"]


def test_confirmation_runs_lie_under_the_same_parent(study: StudyData) -> None:
    delivered(study, [trials.whole(study, 0)])
    again = replace(study.place, name="toy/confirm")
    delivered(study, [trials.row(0, Ending.failed)], place=again)
    found = runs(study)
    assert set(found) == {"toy", "0000 baseline lr=3e-5 bs=16", "confirm 0000 baseline lr=3e-5 bs=16"}
    children = [run for name, run in found.items() if name != "toy"]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {found["toy"].info.run_id}


def test_the_parent_says_what_was_asked_and_answered_with_which_code_and_data(home: Path) -> None:
    project = home
    from mlflow.tracking import MlflowClient

    (project / "study.yaml").write_text("name: toy\nquestion: Which learning rate?\n")
    (project / "task.py").write_text("EPOCHS = 3\n")
    for words in ("init -q", "add -A", "-c user.name=a -c user.email=a@b commit -q -m one"):
        subprocess.run(["git", *words.split()], check=True, cwd=project)
    (project / "task.py").write_text("EPOCHS = 4\n")
    study = trials.toy_study(project)
    data = trials.prepared(project / "runs" / ".data" / "0123", {"train": 400, "validation": 100})
    tracker = delivered(study, [trials.whole(study, 0), trials.whole(study, 1)], data=data)
    tracker.close({"best": 1, "value": 0.9, "baseline": 0.8, "gain": 0.1, "verdict": "Take trial 1."})
    run = runs(study)["toy"]
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.note.content"].startswith("Take trial 1.\n\nWhich learning rate?")
    said = [run.data.tags[f"sweepkit.{name}"] for name in ("best_trial", "best_value", "gain", "verdict")]
    assert said == ["1", "0.9", "+0.1", "Take trial 1."]
    head = subprocess.run(["git", "rev-parse", "HEAD"], check=True, cwd=project, capture_output=True, text=True)
    assert (run.data.tags["mlflow.source.git.commit"], run.data.tags["mlflow.source.git.dirty"]) == (
        head.stdout.strip(),
        "True",
    )
    client = MlflowClient(tracking_uri(study))
    assert {file.path for file in client.list_artifacts(run.info.run_id)} == {"answer.json", "code", "study"}
    (diff,) = (project / "mlartifacts").rglob("*.diff")
    assert "-EPOCHS = 3\n+EPOCHS = 4" in diff.read_text()
    for found in runs(study).values():
        (used,) = client.get_run(found.info.run_id).inputs.dataset_inputs
        assert used.dataset.digest == "0123456789abcdef"
        assert json.loads(used.dataset.profile)["num_rows"] == 500


def test_passwords_and_tokens_reach_neither_store_nor_files(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = home
    password, token, key = "hunter2-is-long", "opaque-0a1b2c3d4e5f", "sk-abcdefghijklmnopqrstuv"
    monkeypatch.setenv("SOME_SERVICE_TOKEN", token)
    storage = f"postgresql://ann:{password}@db/optuna"
    (project / "study.yaml").write_text(f"name: toy\nstorage: {storage}\n")
    (project / "config.py").write_text("")
    for words in ("init -q", "add -A", "-c user.name=a -c user.email=a@b commit -q -m one"):
        subprocess.run(["git", *words.split()], check=True, cwd=project)
    (project / "config.py").write_text(f'OPENAI = "{key}"\nurl = "{storage}"\nservice = "{token}"\n')
    study = trials.toy_study(project, storage=storage, question=f"Does {token} work?")
    study.place.folder.mkdir(parents=True)
    study.place.study_json.write_text(
        json.dumps({"id": "abc", "created": "2026-01-01T00:00:00", "study": {"storage": storage}})
    )
    effective = {"hub_token": "not-known-to-anyone", "run": token}
    cause = f"OperationalError: cannot connect to {storage} with {token} and {password}"
    end = trials.finished(0, Ending.failed, cause=cause)
    trials.write(study, 0, [trials.started(0, effective=effective), end], {"task.url": storage, "task.key": key})
    row = trials.row(0, Ending.failed, cause=cause)
    delivered(study, [row]).close({"best": None, "reason": cause})
    stored = [project / "mlflow.db", *(file for file in (project / "mlartifacts").rglob("*") if file.is_file())]
    assert len(stored) == 5
    for secret in (password, token, key, "not-known-to-anyone"):
        assert [file for file in stored if secret.encode() in file.read_bytes()] == []


def test_eight_trials_that_log_every_step_lose_nothing_through_a_courier(
    study: StudyData, store: Callable[..., list[Any]]
) -> None:
    steps, numbers = 300, range(8)
    rows = {number: trials.row(number, Ending.running) for number in numbers}
    said: list[str] = []
    courier = Courier(MLflowTracker(study, lambda: list(rows.values())), warn=said.append)
    courier.open()

    def train(number: int) -> None:
        trials.write(study, number, [trials.started(number)])
        with TrialLog(study.place.trial(number)) as log:
            for event in trials.training(number, range(1, steps + 1)):
                log.append(event)
                courier.poke()
            log.append(trials.finished(number, Ending.complete, step=steps))
        rows[number] = trials.row(number, Ending.complete)
        courier.poke()

    threads = [threading.Thread(target=train, args=(number,)) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (courier.close({"best": 7}, timeout_seconds=600), said) == ("", [])
    each = Counter(dict(store("select run_uuid, count(*) from metrics group by run_uuid"))).values()
    assert sorted(each) == [steps * 3 + steps // 10 * 2 + AT_END] * 8
    assert {run.info.status for run in runs(study).values()} == {"FINISHED"}


def _start_at_once(project: Path, *names: str) -> None:
    code = """
import sys
from pathlib import Path
import written_trials as trials
from sweepkit.trackers.mlflow.tracker import MLflowTracker
sys.stdin.readline()
study = trials.toy_study(Path.cwd(), name=sys.argv[1])
tracker = MLflowTracker(study, lambda: [trials.row(0, trials.Ending.failed)])
tracker.open()
tracker.sync()
"""
    path = str(Path(__file__).parents[1])
    code = f"import sys; sys.path.insert(0, {path!r})\n{code}"
    drivers = [
        subprocess.Popen(
            [sys.executable, "-c", code, name], stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=project, text=True
        )
        for name in names
    ]
    for driver in drivers:
        assert driver.stdin is not None
        driver.stdin.write("go\n")
        driver.stdin.flush()
    answers = [driver.communicate(timeout=600) for driver in drivers]
    assert [(driver.returncode, error) for driver, (_, error) in zip(drivers, answers, strict=True)] == [(0, "")] * len(
        names
    )


def test_a_run_that_is_refused_while_the_store_is_opened_leaves_it_whole(project: Path) -> None:
    script = """
import sys
from pathlib import Path
from sweepkit.study.study import StudyData
from sweepkit.trackers import tracker_of
tracker_of(StudyData.model_validate_json(sys.argv[1]).at(Path(sys.argv[2]))).prepare()
"""
    study = trials.toy_study(project)
    subprocess.run(
        [sys.executable, "-c", script, study.model_dump_json(by_alias=True, exclude_none=True), str(project)],
        check=True,
    )
    with sqlite3.connect(project / "mlflow.db") as store:
        assert store.execute("SELECT name FROM experiments").fetchall() == [("Default",)]


def test_drivers_may_start_at_once_on_a_fresh_store(project: Path, store: Callable[..., list[Any]]) -> None:
    _start_at_once(project, "one", "one", "two")
    assert store("select count(*) from experiments where name <> 'Default'") == [(2,)]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_drivers_may_start_at_once_ten_times_over(project: Path) -> None:
    for turn in range(10):
        folder = project / str(turn)
        folder.mkdir()
        (folder / "pyproject.toml").write_text("")
        _start_at_once(folder, "one", "one", "two", "three", "four", "five")


class _Away:
    """A tracker whose store is away for the first calls."""

    note = ""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.done: list[str] = []
        self.tried = threading.Semaphore(0)
        self.synced = threading.Event()

    def open(self) -> None:
        self.tried.release()
        if self.failures:
            self.failures -= 1
            raise ConnectionError("postgresql://ann:s3cret@db is away\nand more")
        self.done.append("open")

    def sync(self) -> None:
        self.done.append("sync")
        self.synced.set()

    def keep(self, number: int) -> None:
        self.done.append(f"keep {number}")

    def drop(self, number: int) -> None:
        self.done.append(f"drop {number}")

    def close(self, answer: Any) -> None:
        self.done.append(f"close {dict(answer)}")

    def behind(self) -> int:
        return 3

    def delivered(self, answer: Any) -> bool:
        return False


def test_a_store_that_is_away_is_asked_again_and_warned_of_once() -> None:
    tracker, said = _Away(failures=2), list[str]()
    courier = Courier(tracker, warn=said.append)
    courier.open()
    courier.keep(4)
    courier.drop(2)
    assert tracker.synced.wait(20)
    assert courier.close({"best": 4}) == ""
    assert said == [
        "tracking: ConnectionError: postgresql://ann:***@db is away; training continues, and the rest is delivered later",
        "tracking: delivering again",
    ]
    assert [word for word in tracker.done if word != "sync"] == ["open", "keep 4", "drop 2", "close {'best': 4}"]


def test_an_expensive_delivery_is_followed_by_a_longer_pause_but_room_on_the_disk_is_made_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sweepkit.trackers.courier.GATHERING_SECONDS", 0.01)
    monkeypatch.setattr("sweepkit.trackers.courier.SHARE", 1e-9)
    tracker = _Away(failures=0)
    courier = Courier(tracker, warn=lambda text: None)
    courier.open()
    assert tracker.synced.wait(20)
    tracker.synced.clear()
    courier.keep(1)
    courier.drop(2)
    assert not tracker.synced.wait(0.5)
    courier.drop(3, soon=True)
    assert tracker.synced.wait(20)
    assert courier.close({}) == ""
    assert [word for word in tracker.done if word != "sync"] == ["open", "keep 1", "drop 2", "drop 3", "close {}"]


def test_a_store_that_stays_away_leaves_a_sentence() -> None:
    tracker = _Away(failures=10**9)
    courier = Courier(tracker, warn=lambda text: None)
    courier.open()
    assert tracker.tried.acquire(timeout=20)
    assert courier.close({}) == (
        "tracking: 3 trial(s) are not delivered yet (ConnectionError: postgresql://ann:***@db is away); "
        "`sweep sync` delivers the rest"
    )


def test_a_store_that_never_answers_holds_up_nobody() -> None:
    tracker = _Away(failures=0)
    inside, release = threading.Event(), threading.Event()

    def hang() -> None:
        inside.set()
        release.wait()

    tracker.sync = hang  # type: ignore[method-assign]  # a fake's own method
    courier = Courier(tracker, warn=lambda text: None)
    courier.open()
    assert inside.wait(20)
    courier.poke()
    courier.keep(1)
    assert "no answer within 0.2 s" in courier.close({}, timeout_seconds=0.2)
    release.set()


def saved_view(study: StudyData, link: str) -> Any:
    """Return the state of MLflow's runs page that a link opens."""
    from mlflow.tracking import MlflowClient

    wanted = dict(part.split("=") for part in link.partition("?")[2].split("&"))
    assert (wanted["compareRunsMode"], wanted["workflowType"]) == ("CHART", "machine_learning")
    tags = MlflowClient(tracking_uri(study)).get_experiment("1").tags
    saved = json.loads(tags[f"mlflow.sharedViewState.{wanted['viewStateShareKey']}"])
    return json.loads(zlib.decompress(base64.b64decode(saved["state"].removeprefix("deflate;"))))


def test_the_link_shows_this_studys_runs_with_the_searched_values_and_the_objective(study: StudyData) -> None:
    tracker = MLflowTracker(study, list)
    with pytest.raises(StudyNotFound, match="has no run in MLflow yet"):
        tracker.link("http://127.0.0.1:5000")
    tracker = delivered(study, [trials.whole(study, 0)])
    link = tracker.link("http://127.0.0.1:5000/")
    assert link.partition("?")[0] == "http://127.0.0.1:5000/#/experiments/1/runs"
    view = saved_view(study, link)
    (chart,) = view["compareRunCharts"]
    assert chart["selectedParams"] == ["log10 learning_rate", "per_device_train_batch_size"]
    assert chart["selectedMetrics"] == ["objective"]
    mine = f"tags.`mlflow.parentRunId` = '{runs(study)['toy'].info.run_id}'"
    assert view["searchFilter"] == f"{mine} AND tags.`sweepkit.study` = 'toy'", "confirmation runs have the same parent"


def test_the_links_chart_has_no_axis_that_some_trial_lacks_and_would_be_left_out_for(study: StudyData) -> None:
    trials.write(study, 1, [trials.started(1, effective={})], {"learning_rate": 1e-4})
    tracker = delivered(study, [trials.whole(study, 0), trials.row(1, Ending.running)])
    view = saved_view(study, tracker.link("http://127.0.0.1:5000"))
    assert view["compareRunCharts"][0]["selectedParams"] == ["log10 learning_rate"]
    assert "params.`per_device_train_batch_size`" in view["selectedColumns"]


def test_runs_of_an_earlier_version_lack_logarithms_and_are_drawn_by_their_values(
    study: StudyData, store: Callable[..., list[Any]], project: Path
) -> None:
    tracker = delivered(study, [trials.whole(study, 0), trials.whole(study, 1)])
    with closing(sqlite3.connect(project / "mlflow.db")) as database, database:
        database.execute(
            "delete from params where key like 'log10%' and rowid = (select max(rowid) from params where key like 'log10%')"
        )
    view = saved_view(study, tracker.link("http://127.0.0.1:5000"))
    assert view["compareRunCharts"][0]["selectedParams"] == ["learning_rate", "per_device_train_batch_size"]


def test_the_ui_is_served_on_this_machine_only(study: StudyData, project: Path) -> None:
    ui = ui_of(study, 5123)
    port = ui.address.removeprefix("http://127.0.0.1:")
    assert ui.command[1:] == (
        *("-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", port, "--workers", "1"),
        *("--artifacts-destination", str(project / "mlartifacts")),
    )
    assert ui.environment["MLFLOW_BACKEND_STORE_URI"] == f"sqlite:///{project / 'mlflow.db'}"
    server = trials.toy_study(project, tracking={"uri": "https://ann:s3cret@mlflow.example.com"})
    assert (ui_of(server, 5123).address, ui_of(server, 5123).command) == ("https://mlflow.example.com", ())


def test_the_store_is_the_studys_else_the_environments_else_the_projects(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tracking_uri(trials.toy_study(project)) == f"sqlite:///{project}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert tracking_uri(trials.toy_study(project)) == "http://127.0.0.1:1"
    said = trials.toy_study(project, tracking={"uri": "sqlite:////srv/mlflow.db"})
    assert tracking_uri(said) == "sqlite:////srv/mlflow.db"
    wrong = trials.toy_study(project, tracking={"uri": "htp://somewhere"})
    with pytest.raises(InputError, match="must begin with one of sqlite, postgresql, mysql, mssql, file, http, https"):
        tracking_uri(wrong)
