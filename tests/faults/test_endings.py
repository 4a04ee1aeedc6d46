"""Whole studies in which trials end in every possible way: the endings table, retries, budgets, stops and disks, for real."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from making import processes_below, sweep, toy_study, wait_until
from sweepkit.check.study_file import to_yaml
from sweepkit.driver.run import run
from sweepkit.report.answer import Answer
from sweepkit.report.watch import Outcome, Watcher
from sweepkit.search.storage import open_storage
from sweepkit.study.errors import StudyFailed, StudyFileError, StudyLocked
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Checkpointed, Evaluated, Event, Started
from sweepkit.trial.log import TrialLog
from sweepkit.trial.trial import Trial

pytestmark = pytest.mark.real


BRANCHES: dict[str, dict[str, Any]] = {
    "fine": {"task.x": 0.4},
    "raises": {"task.fail_at_step": 2},
    "leaves": {"task.exit_code": 3},
    "segfault": {"task.segfault": True},
    "killed": {"task.kill": True},
    "hangs": {"task.hang": True},
    "nan": {"task.nan_at_step": 3},
    "too_big": {"task.out_of_memory_above": 2},
    "bad_start": {"task.curve": [-5.0, -5.0, -5.0]},
    **{way: {"task.hostile": way} for way in ("exit", "interrupt", "mute", "garbled", "stray")},
}


def everything(project: Path, **keys: Any) -> StudyData:
    """A study whose trials are tried in the order of BRANCHES, each ending its own way."""
    return toy_study(
        project,
        space={"learning_rate": {"choices": [1e-3]}, "way": {"choices": BRANCHES}},
        baseline=None,
        enqueue=[{"learning_rate": 1e-3, "way": way} for way in BRANCHES],
        sampler={"type": "random", "seed": 0},
        duplicates="train",
        pruner={"type": "threshold", "lower": -1.0},
        budget={"trials": len(BRANCHES), "trial_hours": 4 / 3600},
        **keys,
    )


def told(outcome: Outcome) -> dict[int, tuple[str, str]]:
    return {row.number: (str(row.ending), row.cause) for row in outcome.rows}


def test_every_ending_has_its_name_and_cause_and_the_others_finish(project: Path) -> None:
    outcome = run(everything(project))
    assert told(outcome) == {
        0: ("complete", ""),
        1: ("failed", "RuntimeError: toy failure at step 2"),
        2: ("failed", "exit code 3"),
        3: ("failed", "signal 11 (SIGSEGV)"),
        4: ("failed", "signal 9 (SIGKILL)"),
        5: ("failed", "deadline: ran longer than 4 s"),
        6: ("diverged", "training loss is not finite at step 3"),
        7: ("infeasible", "out of memory: toy out of memory with a micro-batch of 4"),
        8: ("pruned", ""),
        9: ("failed", "SystemExit: 4"),
        10: ("failed", "KeyboardInterrupt: KeyboardInterrupt"),
        11: ("failed", "Mute: Mute, whose message cannot be shown"),
        12: ("failed", "RuntimeError: red ?? café"),
        13: ("failed", r"wrote bytes that are not a message to sweepkit's socket: b'\xff\x00 not a message'"),
    }
    assert outcome.best is not None and outcome.best.number == 0
    kept = sorted(path.parent.name for path in (project / "runs/toy/trials").glob("*/best"))
    assert kept == ["0000"]
    assert not list((project / "runs/toy/trials").glob("*/last"))


def test_stray_bytes_in_the_look_before_the_first_trial_end_the_study_in_words(project: Path) -> None:
    with pytest.raises(StudyFailed, match="the task cannot be trained: wrote bytes that are not a message"):
        run(toy_study(project, task={"hostile": "stray"}))


def test_out_of_memory_is_tried_again_at_the_same_effective_batch(project: Path) -> None:
    study = toy_study(
        project,
        space={"per_device_train_batch_size": {"choices": [8]}, "learning_rate": {"low": 1e-4, "high": 1e-2}},
        task={"out_of_memory_above": 4},
        budget={"trials": 1},
    )
    outcome = run(study)
    (row,) = outcome.rows
    assert (row.ending, row.attempts, row.params["per_device_train_batch_size"]) == ("complete", 2, 8)
    started = [e for e in TrialLog(study.place.trial(0)).refresh() if isinstance(e, Started)]
    assert started[-1].effective["gradient_accumulation_steps"] == 2


OWN_TASKS = """
from typing import ClassVar

from toy_tasks import Quadratic, QuadraticConfig, QuadraticModel


class Contrastive(Quadratic):
    micro_batch_matters: ClassVar[bool] = True


class Wide(Quadratic):
    def model_init(self, width: int = 2):
        return QuadraticModel(QuadraticConfig(size=width // width * 4))
"""


def own(study: StudyData, name: str) -> StudyData:
    """Return the study with a task of OWN_TASKS."""
    (study.home / "task.py").write_text(OWN_TASKS)
    return study.model_copy(update={"task": study.task.model_copy(update={"path": f"task.py:{name}"})}).at(study.home)


def test_a_task_whose_micro_batch_matters_is_not_tried_with_a_smaller_one(project: Path) -> None:
    study = toy_study(
        project,
        space={"per_device_train_batch_size": {"choices": [8]}, "learning_rate": {"low": 1e-4, "high": 1e-2}},
        task={"out_of_memory_above": 4},
        budget={"trials": 1},
    )
    (row,) = run(own(study, "Contrastive")).rows
    assert (row.attempts, row.ending) == (1, "infeasible")
    assert row.cause == "out of memory: toy out of memory with a micro-batch of 8"


def test_what_cannot_be_read_back_is_recorded_as_unproved(project: Path) -> None:
    space = {"model.width": {"choices": [2, 4]}, "learning_rate": {"low": 1e-4, "high": 1e-2}}
    study = own(toy_study(project, space=space, budget={"trials": 1}), "Wide")
    (row,) = run(study).rows
    assert (row.ending, row.cause) == ("complete", "")
    (record,) = [found.user_attrs for found in open_storage(study.place, study).get_all_trials(0)]
    assert record["unproved"] == ["model.width"]
    assert "learning_rate" in record["proved"] and "model.width" not in record["proved"]


def test_a_crash_is_tried_again_from_the_last_checkpoint(project: Path) -> None:
    study = toy_study(
        project,
        task={"kill": True, "fail_at_step": 6, "once": str(project / "once")},
        retries={"crash": 1},
        budget={"trials": 1},
    )
    (row,) = run(study).rows
    assert (row.ending, row.attempts) == ("complete", 2)
    started = [e for e in TrialLog(study.place.trial(0)).refresh() if isinstance(e, Started)]
    assert [event.resumed for event in started] == [0, 4]


def test_trials_that_fail_alike_end_the_study_with_their_cause(project: Path) -> None:
    outcome = run(toy_study(project, task={"fail_at_step": 2}, budget={"trials": 10}, backend={"parallel": 1}))
    assert outcome.status == "failed"
    assert outcome.reason.startswith(
        "3 trials in a row failed with the same cause: RuntimeError: toy failure at step 2 (see "
    )
    assert len(outcome.rows) == 3


def test_a_target_ends_the_study(project: Path) -> None:
    outcome = run(
        toy_study(project, task={"curve": [0.7]}, budget={"trials": 10, "target": 0.6}, backend={"parallel": 1})
    )
    assert (outcome.status, outcome.reason, len(outcome.rows)) == ("done", "budget.target: trial 0 reached 0.7", 1)


def test_hours_end_the_study_and_stop_what_runs_after_the_grace(project: Path) -> None:
    study = toy_study(project, task={"step_seconds": 0.5}, budget={"trials": 50, "hours": 1 / 3600, "grace_minutes": 0})
    outcome = run(study)
    assert outcome.reason == "no trial completed (budget.hours: 0.000277778 h used up)"
    assert {row.ending for row in outcome.rows} == {"stopped"}
    assert len(outcome.rows) <= 2


class Stopping(Watcher):
    """Sends this process a SIGINT at the second evaluation of a trial."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, Evaluated) and (event.trial, event.number) == (1, 2):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_stopped_study_goes_on_as_if_nothing_had_been(project: Path) -> None:
    straight = run(toy_study(project, name="straight", backend={"parallel": 1}))
    watch = Stopping()
    stopped = run(toy_study(project, backend={"parallel": 1}), watch=watch)
    assert stopped.status == "interrupted"
    assert [str(row.ending) for row in stopped.rows] == ["complete", "stopped"]
    assert any(isinstance(event, Checkpointed) and event.role == "last" for event in watch.events)
    again = run(toy_study(project, backend={"parallel": 1}))
    assert again.status == "done"

    def essence(rows: list[Trial]) -> list[Any]:
        return [(row.number, row.params, row.values, row.intermediate, row.ending) for row in rows]

    assert essence(again.rows) == essence(straight.rows)


def test_the_best_checkpoints_are_kept_and_no_others(project: Path) -> None:
    study = toy_study(project, budget={"trials": 8}, checkpoints={"keep": 3})
    outcome = run(study)
    ranked = sorted(outcome.rows, key=lambda row: row.value or 0.0, reverse=True)
    kept = {path.parent.name for path in (project / "runs/toy/trials").glob("*/best")}
    assert kept == {f"{row.number:04d}" for row in ranked[:3]}


def test_every_member_of_the_pareto_front_keeps_its_checkpoint_also_beyond_keep(project: Path) -> None:
    goals = [{"metric": name, "direction": "maximize"} for name in ("eval_score", "eval_cost")]  # cost is -score
    study = toy_study(project, objective={"metrics": goals}, budget={"trials": 6}, checkpoints={"keep": 2})
    front = Answer(study, run(study).rows).front
    assert sorted(row.number for row in front) == list(range(6))
    assert [row.checkpoint for row in front] == [study.place.trial(row.number) / "best" for row in front]


def test_a_pareto_optimal_checkpoint_that_the_disk_has_no_room_for_is_said_to_go(project: Path) -> None:
    goals = [{"metric": name, "direction": "maximize"} for name in ("eval_score", "eval_cost")]
    study = toy_study(
        project,
        objective={"metrics": goals},
        budget={"trials": 3, "disk_gb": 1e-7},
        checkpoints={"every": "never"},
        backend={"parallel": 1},
    )

    class Lines(Watcher):
        heard: list[str] = []

        def on_note(self, text: str) -> None:
            self.heard.append(text)

    outcome = run(study, watch=Lines())
    gone = sorted(row.number for row in outcome.rows if row.checkpoint is None)
    said = [f"dropped the checkpoint of Pareto-optimal trial {n}: budget.disk_gb is 1e-07" for n in gone]
    assert len(gone) == 2
    assert sorted(set(Lines.heard) & set(said)) == said


def test_a_second_driver_is_refused_with_the_first_ones_pid(project: Path) -> None:
    class Second(Watcher):
        message = ""

        def on_event(self, event: Event) -> None:
            if not self.message:
                with pytest.raises(StudyLocked) as error:
                    run(toy_study(project))
                type(self).message = str(error.value)

    run(toy_study(project), watch=Second())
    assert f"process {os.getpid()} on " in Second.message


def test_a_metric_that_never_appears_is_refused_before_anything_is_recorded(project: Path) -> None:
    objective = {"metric": "eval_scor", "direction": "maximize"}
    with pytest.raises(StudyFileError) as error:
        run(toy_study(project, objective=objective))
    assert "eval_scor; did you mean eval_score?" in str(error.value)
    assert not (project / "runs/toy/optuna.journal").exists()


@pytest.mark.parametrize("victim", ["driver", "warm process"])
def test_nothing_survives_its_parent(project: Path, tmp_path: Path, victim: str) -> None:
    file = project / "study.yaml"
    study = toy_study(project, task={"step_seconds": 0.2}, backend={"parallel": 2, "ranks_per_trial": 1})
    file.write_text(to_yaml(study))
    environment = {**os.environ, "SWEEPKIT_TEST_MARK": str(tmp_path)}
    process = sweep("run", str(file), cwd=tmp_path, env=environment)
    log = project / "runs/toy/trials/0001/events.jsonl"
    wait_until(log.exists, 180, "two trials run")
    (warm,) = [child for child in psutil.Process(process.pid).children() if "serve" in " ".join(child.cmdline())]
    (warm if victim == "warm process" else process).send_signal(signal.SIGKILL)
    output, _ = process.communicate(timeout=30)
    wait_until(lambda: not processes_below(str(tmp_path)), 5, "every process is gone")
    if victim == "warm process":
        assert process.returncode == 1
        assert "the warm process ended with status -9" in output


def test_a_warm_process_that_still_imports_dies_with_its_driver(project: Path, tmp_path: Path) -> None:
    file = project / "study.yaml"
    file.write_text(to_yaml(toy_study(project)))
    process = sweep("run", str(file), cwd=tmp_path, env={**os.environ, "SWEEPKIT_TEST_MARK": str(tmp_path)})
    driver = psutil.Process(process.pid)
    # torch is mapped some way into the imports, which take seconds more.
    importing = lambda: [child for child in driver.children(recursive=True) if _maps(child, "libtorch")]  # noqa: E731
    wait_until(importing, 180, "the warm process imports torch")
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    wait_until(lambda: not processes_below(str(tmp_path)), 1, "every process is gone")


def _maps(process: psutil.Process, library: str) -> bool:
    try:
        return library in Path(f"/proc/{process.pid}/maps").read_text()
    except OSError:
        return False


@pytest.mark.slow
def test_a_disk_budget_is_kept_while_running(project: Path) -> None:
    limit, model = 30e6, 1e6
    study = toy_study(
        project,
        training={"num_train_epochs": 3, "model.ballast": 250_000, "per_device_train_batch_size": 16},
        budget={"trials": 40, "disk_gb": limit / 1e9},
        checkpoints={"keep": 40},
        backend={"parallel": 2},
    )
    over, weighed = threading.Event(), [0]

    def weigh() -> None:
        while not over.wait(0.005):
            found = os.walk(project / "runs/toy/trials")
            weighed.append(sum(_size(Path(folder, name)) for folder, _, names in found for name in names))

    scales = threading.Thread(target=weigh)
    scales.start()
    try:
        outcome = run(study)
    finally:
        over.set()
        scales.join()
    assert len(weighed) > 40, "weighed at least once per trial"
    assert max(weighed) <= limit + model
    from toy_tasks import QuadraticModel

    ranked = sorted(outcome.rows, key=lambda row: row.value or 0.0, reverse=True)
    for row in ranked[:3]:
        assert row.checkpoint is not None
        assert QuadraticModel.from_pretrained(row.checkpoint).ballast.shape == (250_000,)


def _size(path: Path) -> int:
    """Bytes of a model's or optimizer's file; 0 for one that is gone meanwhile."""
    try:
        return path.stat().st_size if path.suffix in (".safetensors", ".pt", ".bin") else 0
    except OSError:
        return 0
