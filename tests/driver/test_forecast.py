"""The arithmetic of a forecast: what a trial and a study take, and which configurations are measured."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from making import toy_study
from sweepkit.check import known_values
from sweepkit.cli.plan import outlook
from sweepkit.driver.forecast import Forecast, Host, Largest, forecast
from sweepkit.driver.probe import largest_of, spread
from sweepkit.study.study import StudyData
from sweepkit.trial.first_steps import Measured

LARGEST = Largest(hyperparameters={"per_device_train_batch_size": 32}, peak_memory_mb=700.0)


def measured(**keys: Any) -> Measured:
    """A trial of 100 steps and 5 evaluations: 1 s to come and go, 10 s of steps, 5 s of evaluations, 2.5 s of saving."""
    whole = {
        "overhead_seconds": 1.0,
        "step_seconds": 0.1,
        "evaluation_seconds": 1.0,
        "saving_seconds": 0.5,
        "steps": 100,
        "evaluations": 5,
        "measured_steps": 20,
        "best_bytes": 10_000_000,
        "last_bytes": 30_000_000,
        "log_bytes": 3000.0,
        "peak_memory_mb": 600.0,
    }
    return Measured(**{**whole, **keys})


def of(study: StudyData, *, slots: int = 2, largest: Largest = LARGEST, **keys: Any) -> Forecast:
    host = {"slots": slots, "start_seconds": 10.0, "data_bytes": 5000, "free_memory_mb": 4000.0, **keys}
    return forecast(study, largest, [measured()], Host(**host))


def told(study: StudyData, found: Forecast) -> list[str]:
    """Return the lines that sweep check prints of a forecast."""
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(outlook(study, found))
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_a_trial_takes_its_coming_and_going_its_steps_its_evaluations_and_their_checkpoints() -> None:
    assert measured().seconds == pytest.approx(1 + 100 * 0.1 + 5 * (1.0 + 0.5))
    assert measured().until(2) == pytest.approx(1 + 40 * 0.1 + 2 * (1.0 + 0.5))


def test_trials_that_nothing_prunes_fill_the_slots_one_after_the_other(tmp_path: Path) -> None:
    found = of(toy_study(tmp_path, budget={"trials": 7}))
    assert found.search_seconds == pytest.approx(4 * 18.5)
    assert found.seconds == pytest.approx(10 + 4 * 18.5)
    assert found.trial_seconds == pytest.approx(18.5)


def test_a_long_study_takes_as_many_rounds_as_its_slots_need(tmp_path: Path) -> None:
    found = of(toy_study(tmp_path, budget={"trials": 1000}))
    assert found.search_seconds == pytest.approx(500 * 18.5)


def test_confirmation_runs_are_whole_trials_of_the_best_and_the_baseline(tmp_path: Path) -> None:
    study = toy_study(tmp_path, baseline={"learning_rate": 1e-3}, confirm={"top": 3, "seeds": 4})
    assert of(study).confirm_seconds == pytest.approx(8 * 18.5)


def test_how_many_share_a_gpu_stands_below_the_memory(tmp_path: Path) -> None:
    lines = told(toy_study(tmp_path), of(toy_study(tmp_path), free_memory_mb=math.inf, sharing="3 trials on GPU 0: so"))
    at = next(number for number, line in enumerate(lines) if line.startswith("GPU memory"))
    assert lines[at + 1].strip() == "3 trials on GPU 0: so"


def test_a_trial_that_runs_writes_its_checkpoints_and_one_of_them_again_before_the_old_one_goes(tmp_path: Path) -> None:
    assert of(toy_study(tmp_path), slots=2).running_bytes == 2 * (10e6 + 30e6 + 30e6)


def test_trials_that_pause_hold_their_checkpoints_within_their_limit(tmp_path: Path) -> None:
    pruner = {"type": "asha", "promote": True}
    running = of(toy_study(tmp_path, budget={"trials": 10}), slots=2).running_bytes
    every = toy_study(tmp_path, budget={"trials": 10}, pruner=pruner)
    assert of(every, slots=2).running_bytes == running + 8 * (10e6 + 30e6)
    limited = toy_study(tmp_path, budget={"trials": 10}, pruner=pruner, checkpoints={"paused_gb": 0.1})
    assert of(limited, slots=2).running_bytes == running + 8 * 10e6 + 0.1e9


def test_what_stays_on_disk_is_models_data_and_what_is_written_about_trials(tmp_path: Path) -> None:
    tracked = {"budget": {"trials": 7}, "checkpoints": {"keep": 3}, "tracking": {"uri": "sqlite:///mlflow.db"}}
    found = of(toy_study(tmp_path, **tracked))
    assert (found.kept_bytes, found.host.data_bytes) == (30e6, 5000)
    assert found.disk_bytes == 30e6 + 5000 + found.record_bytes
    page, again = (of(toy_study(tmp_path, **{**tracked, **keys})).record_bytes for keys in (
        {"tracking": {"uri": "none"}}, {"budget": {"trials": 107}},
    ))  # fmt: skip
    assert 2 * page < found.record_bytes < 2 * page + 1.1e6, "MLflow has a copy of the report, and its tables"
    assert again - found.record_bytes == pytest.approx(100 * 8 * 3000)


def test_what_trials_at_a_time_need_counts_what_they_share_once(tmp_path: Path) -> None:
    found = of(toy_study(tmp_path), slots=3, shared_memory_mb=300.0)
    assert found.memory_mb == 300 + 3 * 400


HALVING = {"type": "asha", "min_resource": 1, "reduction_factor": 3}


def test_what_a_pruner_may_save_makes_the_time_an_upper_bound(tmp_path: Path) -> None:
    study = toy_study(tmp_path, pruner=HALVING, budget={"trials": 20, "hours": 0.05})
    found = of(study)
    assert (found.prunes, found.seconds) == (True, pytest.approx(10 + 10 * 18.5))
    lines = told(study, found)
    assert "in all   at most 3 min 15 s, without pruning" in lines
    assert "         at least 18 trials fit into budget.hours, 0.05 h" in lines
    assert found.objections(study) == [], "the pruner may save enough"
    plain = toy_study(tmp_path, budget={"trials": 20, "hours": 0.05})
    assert [text.partition(":")[0] for text in of(plain).objections(plain)] == ["budget.hours"]


def test_without_a_number_of_trials_there_is_no_end_to_forecast(tmp_path: Path) -> None:
    study = toy_study(tmp_path, budget={"hours": 2.0})
    found = of(study)
    assert (found.trials, found.seconds) == (None, None)
    assert "in all   about 777 trials in 2 h, the budget, 2 at a time" in told(study, found)


def test_a_grid_has_as_many_trials_as_combinations(tmp_path: Path) -> None:
    space = {"learning_rate": {"choices": [1e-3, 1e-4]}, "per_device_train_batch_size": {"choices": [4, 8, 16]}}
    assert of(toy_study(tmp_path, space=space, sampler={"type": "grid"}, budget={})).trials == 6


def test_what_stands_against_a_study_is_said_with_what_to_do(tmp_path: Path) -> None:
    budget = {"trials": 100, "hours": 0.1, "trial_hours": 0.001, "disk_gb": 0.001}
    study = toy_study(tmp_path, budget=budget)
    full = Largest(
        hyperparameters={"per_device_train_batch_size": 32},
        peak_memory_mb=700.0,
        out_of_memory="out of memory: killed by the kernel",
        fits=8,
    )
    assert of(study, largest=full).objections(study) == [
        "out of memory at bs=32: out of memory: killed by the kernel; a micro-batch of 8 fits; lower the upper ends of the "
        "space, or set gradient_checkpointing or a 16-bit type in training",
        "budget.trial_hours: the slowest trial measured takes 18 s, and after 0.001 h it ends as failed; raise the limit",
        "budget.hours: 0.1 h is enough for about 37 trials of 100; raise it, or lower budget.trials",
        "budget.disk_gb: a model takes 10 MB, more than 0.001 GB; raise it",
    ]
    assert of(toy_study(tmp_path)).objections(toy_study(tmp_path)) == []


def test_more_trials_at_a_time_than_memory_holds_are_objected_to_with_how_many_fit(tmp_path: Path) -> None:
    study = toy_study(tmp_path)
    assert of(study, slots=4, free_memory_mb=2000.0, shared_memory_mb=300.0).objections(study) == []
    assert of(study, slots=6, free_memory_mb=2000.0, shared_memory_mb=300.0).objections(study) == [
        "memory: 6 trials at a time need up to 2.7 GB, and 2.0 GB are free; set backend.parallel: 4"
    ]


def test_the_forecast_can_be_read_in_a_pipe(tmp_path: Path) -> None:
    study = toy_study(tmp_path, baseline={"learning_rate": 1e-3}, confirm={"top": 3, "seeds": 4}, budget={"trials": 7})
    assert told(study, of(study)) == [
        "forecast",
        "",
        "memory   at most 700 MB a trial (bs=32), typically 600 MB",
        "         2 trials at a time take up to 1.4 GB; 4.0 GB are free",
        "a trial  18 s if trained to its end",
        "in all   3 min 52 s",
        "         10 s to start, 1 min 14 s for 7 trials, 2 at a time, 2 min 28 s to confirm",
        "disk     35 MB when done: 30 MB for 3 best models, 5 kB for prepared data, 5 MB for logs and report",
        "         at most 140 MB more for checkpoints of running trials",
        "",
        "measured on 1 configuration spread over the space, 2 at a time: 20 steps after warm-up and an evaluation each",
    ]


SPACE = {
    "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "per_device_train_batch_size": {"choices": [4, 8, 16]},
    "gradient_accumulation_steps": {"choices": [1, 2, 4]},
    "num_train_epochs": {"low": 2, "high": 6},
}


def test_measured_configurations_are_spread_evenly_over_the_space(tmp_path: Path) -> None:
    study = toy_study(tmp_path, space=SPACE)
    found = spread(study, known_values(study), 6)
    for name in ("per_device_train_batch_size", "gradient_accumulation_steps"):
        values = sorted(one[name] for one in found)
        assert values == sorted([*SPACE[name]["choices"], *SPACE[name]["choices"]])
    rates = sorted(one["learning_rate"] for one in found)
    assert rates == pytest.approx([1e-4 * 100 ** ((n + 0.5) / 6) for n in range(6)])


def test_the_largest_configuration_has_the_upper_ends_of_sizes_and_of_nothing_else(tmp_path: Path) -> None:
    study = toy_study(tmp_path, space=SPACE)
    assert largest_of(study, known_values(study)) == {
        "learning_rate": 1e-3,
        "per_device_train_batch_size": 16,
        "gradient_accumulation_steps": 1,
        "num_train_epochs": 2,
    }


def test_the_largest_configuration_meets_the_constraints(tmp_path: Path) -> None:
    rule = ["per_device_train_batch_size * num_train_epochs <= 24"]
    space = {**SPACE, "num_train_epochs": {"low": 3, "high": 6}}
    found = largest_of(toy_study(tmp_path, space=space, constraints=rule), known_values(toy_study(tmp_path)))
    assert (found["per_device_train_batch_size"], found["num_train_epochs"]) == (8, 3)
