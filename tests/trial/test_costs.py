"""Goals that no evaluation reports: seconds, memory and weights of the whole training, measured by the trial."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from making import Kept, spec, toy_study
from sweepkit.check import check
from sweepkit.driver.run import Replacements, run_checked
from sweepkit.report.export import export
from sweepkit.study.errors import StudyFileError
from sweepkit.study.objective import COSTS, Objective
from sweepkit.study.study import StudyData
from sweepkit.tasks.load import task_class
from sweepkit.trial.costs import FILE, Costs, forget_peak, peak_memory_mb
from sweepkit.trial.events import Checkpointed, Evaluated, Logged
from sweepkit.trial.objective import run_trial

SCORE = {"metric": "eval_score", "direction": "maximize"}
EVERY = [SCORE, *({"metric": name} for name in COSTS)]


def test_costs_are_minimized_unless_said_otherwise_and_metrics_need_a_direction() -> None:
    assert Objective(metric="train_runtime").goals[0].direction == "minimize"
    assert Objective(metric="trainable_parameters", direction="maximize").direction == "maximize"
    assert [g.direction for g in Objective(metrics=cast("Any", EVERY)).goals] == ["maximize", *["minimize"] * 3]
    for goal in ({"metric": "eval_loss"}, {"metrics": [{"metric": "eval_loss"}, SCORE]}):
        with pytest.raises(ValueError, match="direction"):
            Objective.model_validate(goal)


@pytest.mark.parametrize("value", ["best", "last", "mean(2)"])
def test_a_cost_is_that_of_the_whole_training_whichever_evaluation_is_best(value: str) -> None:
    goals = [SCORE, {"metric": "train_runtime"}]
    mine = Objective(metrics=cast("Any", goals), value=value)
    scored = {"best": 0.9, "last": 0.4, "mean(2)": 0.65}[value]
    assert mine.values_of([(0.5, 1.0), (0.9, 2.0), (0.4, 3.0)]) == pytest.approx((scored, 3.0))


def test_where_a_cost_decides_the_last_evaluation_counts() -> None:
    alone = Objective(metric="train_runtime")
    assert alone.values_of([(1.0,), (2.0,), (3.0,)]) == (3.0,)
    assert alone.course({1: 1.0, 2: 2.0}) == {1: 1.0, 2: 2.0}
    assert alone.improves([(1.0,), (2.0,)])


def problems(project: Path, **keys: Any) -> list[str]:
    with pytest.raises(StudyFileError) as error:
        check(toy_study(project, **keys))
    return [str(problem) for problem in error.value.problems]


def test_a_check_knows_their_names_and_that_nothing_is_pruned_by_them(project: Path) -> None:
    check(toy_study(project, objective={"metrics": EVERY}))
    median = {"type": "median", "n_startup_trials": 2}
    (alone,) = problems(project, objective={"metric": "train_runtime"}, pruner=median)
    assert alone.startswith("pruner.type: median compares what training improves, and train_runtime is what it costs")
    (several,) = problems(project, objective={"metrics": EVERY, "prune_on": "peak_memory_mb"}, pruner=median)
    assert several.startswith("objective.prune_on: median compares")


@pytest.mark.parametrize("written", ["train_runtime", "train/train_runtime", "trainable_parameters"])
def test_an_imported_sweep_may_name_them(written: str) -> None:
    from sweepkit.check.wandb_metrics import find_metric

    assert find_metric(written, {"eval_loss"}) == (written.rpartition("/")[2], "", "")


def trained(study: StudyData, *, number: int, answer: str = "continue", **keys: Any) -> Kept:
    line = Kept(answer)
    run_trial(study, spec(study.home, number, **keys), line, kind=task_class(study.task, study.home))
    return line


@pytest.mark.real
def test_seconds_and_memory_of_a_resumed_training_are_those_of_all_of_it(project: Path) -> None:
    study = toy_study(project, objective={"metrics": EVERY})
    began = time.monotonic()
    first = trained(study, number=0, answer="stop")
    took = time.monotonic() - began
    (evaluation,), (saved,) = first.of(Evaluated), [e for e in first.of(Checkpointed) if e.role == "last"]
    score, seconds, memory, weights = evaluation.values
    assert evaluation.metrics.items() >= dict(zip(COSTS, (seconds, memory, weights), strict=True)).items()
    assert 0 < seconds < took and 50 < memory < 50_000 and weights == 4
    file = Path(saved.path) / FILE
    cost = json.loads(file.read_bytes())
    assert cost["train_runtime"] > seconds
    file.write_text(json.dumps(cost | {"train_runtime": 1000.0, "peak_memory_mb": 1e6}))
    said = ({"number": 1, "step": evaluation.step, "values": list(evaluation.values)},)
    second = trained(study, number=0, resume_from=saved.path, evaluations=said)
    last = second.of(Evaluated)[-1]
    assert 1000 < last.metrics["train_runtime"] < 1000 + took + 60 and last.metrics["peak_memory_mb"] == 1e6
    logged = [e.metrics["train_runtime"] for e in second.of(Logged) if "train_runtime" in e.metrics]
    assert len(logged) == 1 and logged[0] >= last.metrics["train_runtime"]
    (saved,) = (event for event in second.of(Checkpointed) if event.role == "last")
    (Path(saved.path) / FILE).unlink()
    third = trained(study, number=0, resume_from=saved.path)
    assert third.of(Evaluated) == [], "nobody knows what the training before the checkpoint took"


@pytest.mark.real
def test_they_are_recorded_shown_and_exported_like_metrics(project: Path) -> None:
    study = toy_study(
        project, objective={"metric": "train_runtime"}, budget={"trials": 2}, backend={"parallel": 1}, confirm=None
    )
    rows = run_checked(check(study), instead=Replacements(task=task_class(study.task, study.home))).rows
    assert [row.metrics["train_runtime"] for row in rows] == [row.value for row in rows]
    assert all(0 < row.values[0] < 60 and row.checkpoint for row in rows)
    export(study, rows, rows[0], project / "out")
    script = (project / "out" / "train.py").read_text()
    assert "costs.now(trainer)" in script and "load_best_model_at_end" not in script
    compile(script, "train.py", "exec")


def test_what_a_machine_does_not_tell_is_said_and_is_no_number() -> None:
    weights = torch.nn.Linear(2, 1)
    weights.bias.requires_grad_(False)
    trainer = SimpleNamespace(model=weights, args=SimpleNamespace(device=torch.device("mps"), world_size=1))
    found = Costs().now(cast("Any", trainer))
    assert (found["trainable_parameters"], found["peak_memory_mb"]) == (2.0, "not measured on mps")


def test_the_peak_of_one_trial_is_not_that_of_one_before_it_in_this_process() -> None:
    ballast = bytearray(300_000_000)
    ballast[::4096] = b"x" * len(ballast[::4096])
    high = peak_memory_mb()
    del ballast
    forget_peak()
    assert peak_memory_mb() < high - 200
