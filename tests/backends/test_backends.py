"""What every backend promises, told once and held by each: whole studies, real trials, the real record in MLflow.

Starting Ray takes seconds, so that each backend runs one study (the slow part: a second one), and every claim looks at
what it left.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from making import toy_study
from sweepkit.driver.run import run
from sweepkit.report.watch import Outcome, Watcher
from sweepkit.study.backends import BACKENDS
from sweepkit.study.study import StudyData
from sweepkit.trial.events import Checkpointed, Evaluated, Event, Finished, Started

pytestmark = pytest.mark.real


WAYS: dict[str, dict[str, Any]] = {
    "fine": {"task.x": 0.4},
    "raises": {"task.fail_at_step": 2},
    "leaves": {"task.exit_code": 3},
    "segfault": {"task.segfault": True},
    "killed": {"task.kill": True},
    "hangs": {"task.hang": True},
    "nan": {"task.nan_at_step": 3},
    "too_big": {"task.out_of_memory_above": 2},
    "bad_start": {"task.curve": [-5.0, 9.0, 9.0]},
    "once": {"task.kill": True, "task.fail_at_step": 6, "task.once": "once"},
}
ENDINGS = {
    0: ("complete", "", 1),
    1: ("failed", "RuntimeError: toy failure at step 2", 2),
    2: ("failed", "exit code 3", 2),
    3: ("failed", "signal 11 (SIGSEGV)", 2),
    4: ("failed", "signal 9 (SIGKILL)", 2),
    5: ("failed", "deadline: ran longer than 4 s", 1),
    6: ("diverged", "training loss is not finite at step 3", 1),
    7: ("infeasible", "out of memory: toy out of memory with a micro-batch of 4", 2),
    8: ("pruned", "", 1),
    9: ("complete", "", 2),
}
STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED", "diverged": "FAILED", "infeasible": "FAILED"}


@dataclass
class Told(Watcher):
    """One study as its backend ran it: every event in the order it was heard, and the outcome."""

    study: StudyData
    events: list[Event] = field(default_factory=list)
    outcome: Outcome | None = None

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    def of(self, number: int) -> list[Event]:
        return [event for event in self.events if event.trial == number]

    def rows(self) -> dict[int, Any]:
        assert self.outcome is not None
        return {row.number: row for row in self.outcome.rows}


def told(study: StudyData) -> Told:
    watch = Told(study)
    watch.outcome = run(study, watch=watch)
    return watch


def ways(project: Path, backend: Mapping[str, Any]) -> StudyData:
    """Ten trials, each ending its own way, two at a time."""
    once = {name: str(project / value) if name == "task.once" else value for name, value in WAYS["once"].items()}
    branches = {**WAYS, "once": once}
    return toy_study(
        project,
        space={
            "learning_rate": {"choices": [1e-3]},
            "warmup_steps": {"low": 1, "high": 2},
            "way": {"choices": branches},
        },
        enqueue=[{"learning_rate": 1e-3, "way": way} for way in branches],
        sampler={"type": "random", "seed": 0},
        duplicates="train",
        pruner={"type": "threshold", "lower": -1.0},
        retries={"crash": 1},
        budget={"trials": len(branches), "trial_hours": 4 / 3600},
        backend={**backend, "parallel": 2},
        tracking={"uri": "sqlite:///mlflow.db"},
    )


def sequence(project: Path, backend: Mapping[str, Any]) -> StudyData:
    """Ten sampled trials one after the other, some of them pruned."""
    return toy_study(
        project,
        name="sequence",
        space={
            "learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
            "task.x": {"low": 0.0, "high": 1.0},
            "task.rows": {"low": 8, "high": 16, "step": 8},
        },
        baseline={"learning_rate": 1e-3, "task.x": 0.1, "task.rows": 8},
        sampler={"type": "tpe", "seed": 7, "n_startup_trials": 4},
        pruner={"type": "median", "n_startup_trials": 3},
        budget={"trials": 10},
        backend={**backend, "parallel": 1},
    )


@pytest.fixture(scope="module")
def ray_here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Ray of two cores for all studies of this module."""
    ray = pytest.importorskip("ray", reason="Ray Tune is missing; pip install 'sweepkit[ray]'")
    folder = tmp_path_factory.mktemp("r")
    ray.init(num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False, _temp_dir=str(folder))
    yield
    ray.shutdown()


@pytest.fixture(scope="module", params=list(BACKENDS))
def backend(request: pytest.FixtureRequest) -> dict[str, Any]:
    if BACKENDS[request.param].needs == "ray":
        request.getfixturevalue("ray_here")
    return {"type": request.param}


def project_of(backend: Mapping[str, Any], factory: pytest.TempPathFactory) -> Path:
    folder = factory.mktemp(backend["type"])
    (folder / "pyproject.toml").write_text('[project]\nname = "toy"\nversion = "0"\n')
    os.chdir(folder)
    return folder


@pytest.fixture(scope="module")
def all_ways(backend: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Told:
    return told(ways(project_of(backend, tmp_path_factory), backend))


@pytest.fixture(scope="module")
def in_sequence(backend: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Told:
    return told(sequence(project_of(backend, tmp_path_factory), backend))


def test_every_ending_has_its_name_its_cause_and_its_attempts(all_ways: Told) -> None:
    assert {n: (str(row.ending), row.cause, row.attempts) for n, row in all_ways.rows().items()} == ENDINGS


def test_each_started_has_one_finished(all_ways: Told) -> None:
    for number in ENDINGS:
        kinds = [event.kind for event in all_ways.of(number) if isinstance(event, (Started, Finished))]
        assert kinds == ["started", "finished"] * ENDINGS[number][2]


def test_steps_rise_within_an_attempt(all_ways: Told) -> None:
    for number in ENDINGS:
        steps: list[int] = []
        for event in all_ways.of(number):
            if isinstance(event, Started):
                steps = []
            elif isinstance(event, Evaluated):
                steps.append(event.step)
                assert steps == sorted(set(steps))


def test_a_failing_trial_ends_alone(all_ways: Told) -> None:
    assert [str(all_ways.rows()[number].ending) for number in (0, 9)] == ["complete", "complete"]
    assert all_ways.outcome is not None and all_ways.outcome.status == "done"


def test_a_retry_goes_on_from_the_last_checkpoint(all_ways: Told) -> None:
    assert [event.resumed for event in all_ways.of(9) if isinstance(event, Started)] == [0, 4]


def test_never_more_trials_are_open_than_there_are_slots(all_ways: Told) -> None:
    running: set[int] = set()
    most = 0
    for event in all_ways.events:
        if isinstance(event, Started):
            running.add(event.trial)
        elif isinstance(event, Finished):
            running.discard(event.trial)
        most = max(most, len(running))
    assert 1 <= most <= 2


def test_nothing_comes_after_pruned(all_ways: Told) -> None:
    last = all_ways.of(8)[-2:]
    assert [event.kind for event in last] == ["evaluated", "finished"]
    assert [event.number for event in all_ways.of(8) if isinstance(event, Evaluated)] == [1]


def test_mlflow_holds_every_trial_in_the_same_shape(all_ways: Told) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{all_ways.study.place.root}/mlflow.db")
    (experiment,) = [found for found in client.search_experiments() if found.name == "toy"]
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [found for found in runs if "mlflow.parentRunId" not in found.data.tags]
    children = {int(found.data.tags["sweepkit.trial"]): found for found in runs if found is not parent}
    assert {number: found.info.status for number, found in children.items()} == {
        number: STATUS[ending] for number, (ending, _, _) in ENDINGS.items()
    }
    assert parent.info.status == "FINISHED"
    for number, found in children.items():
        assert found.data.params["learning_rate"] == "0.001"
        history = client.get_metric_history(found.info.run_id, "eval_score")
        evaluated = {event.step for event in all_ways.of(number) if isinstance(event, Evaluated)}
        assert [metric.step for metric in history] == sorted(evaluated)


def test_only_what_counts_is_left_on_disk(all_ways: Told) -> None:
    trials = all_ways.study.place.trials
    assert sorted(path.parent.name for path in trials.glob("*/best")) == ["0000", "0009"]
    assert not list(trials.glob("*/last"))
    assert not (all_ways.study.place.folder / "ray").exists()


def test_both_ends_of_an_integer_are_tried(all_ways: Told) -> None:
    assert {row.params["warmup_steps"] for row in all_ways.rows().values()} == {1, 2}


def test_checkpoints_are_told_before_the_next_evaluation(all_ways: Told) -> None:
    kinds = [event.kind for event in all_ways.of(0) if isinstance(event, (Evaluated, Checkpointed))]
    assert kinds[:3] == ["evaluated", "checkpointed", "checkpointed"]


SEQUENCES: dict[str, list[tuple[Any, ...]]] = {}
"""Backend → what it made of the sequence; compared once both have run."""


@pytest.mark.slow
def test_one_worker_and_a_seed_give_the_same_trials_on_both_backends(
    in_sequence: Told, backend: dict[str, Any]
) -> None:
    SEQUENCES[backend["type"]] = [
        (row.number, str(row.ending), dict(row.params), row.values, dict(row.intermediate), row.origin)
        for row in in_sequence.rows().values()
    ]
    endings = [ending for _, ending, *_ in SEQUENCES[backend["type"]]]
    assert set(endings) == {"complete", "pruned"}
    assert len(SEQUENCES) == 1 or SEQUENCES["optuna"] == SEQUENCES["ray"]
